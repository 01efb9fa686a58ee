from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from reconciler.model import UnitId
from reconciler.web.neighbours import EDGE, HEIGHT, PER_COLUMN, WIDTH, Drawing, Neighbours, draw
from tests.kit.sample import desired, unit
from tests.kit.served import Installation, serve


def drawn(folder: Path, name: str, *units: object) -> Drawing | None:
    served = serve(folder)
    with served.stack:
        installation: Installation = served.installation
        installation.desired = desired(*units)  # type: ignore[arg-type]  # they are units
        picture = installation.picture()
        return draw(UnitId(name), Neighbours().links(picture), picture)


def names(drawing: Drawing | None) -> list[str]:
    assert drawing is not None
    return [str(box.unit) if box.unit else f"+{box.more}" for box in drawing.boxes]


def test_two_steps_either_way(tmp_path: Path) -> None:
    chain = [unit("p/a"), *(unit(f"p/{b}", reads=[f"p/{a}"]) for a, b in ("ab", "bc", "cd", "de", "ef", "fg"))]
    drawing = drawn(tmp_path, "p/d", *chain)
    assert names(drawing) == ["p/b", "p/c", "p/d", "p/e", "p/f"]
    assert drawing is not None
    assert [box.own for box in drawing.boxes] == [False, False, True, False, False]
    assert len(drawing.edges) == 4
    assert all(
        EDGE <= box.x <= drawing.width - WIDTH and EDGE <= box.y <= drawing.height - HEIGHT for box in drawing.boxes
    )
    assert ET.fromstring(f'<path d="{drawing.edges[0].path}"/>').get("d", "").startswith("M218 31C")  # noqa: S314 - ours


def test_who_stands_alone_is_not_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path, "p/a", unit("p/a")) is None


def test_a_unit_that_thousands_follow_is_drawn_with_a_few(tmp_path: Path) -> None:
    many = [unit(f"p/u{n:04}", reads=["p/net"]) for n in range(3000)]
    drawing = drawn(tmp_path, "p/net", unit("p/net"), *many)
    assert names(drawing) == ["p/net", *(f"p/u{n:04}" for n in range(PER_COLUMN)), f"+{3000 - PER_COLUMN}"]


def test_a_circle_through_a_unit_ends(tmp_path: Path) -> None:
    assert names(drawn(tmp_path, "p/a", unit("p/a", reads=["p/b"]), unit("p/b", reads=["p/a"]))) == [
        "p/b",
        "p/a",
        "p/b",
    ]
