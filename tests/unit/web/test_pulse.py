from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from reconciler.web.app import make_app
from reconciler.web.pulse import Pulse
from reconciler.web.server import WebServer
from tests.kit.served import Served, serve

PATIENCE = 20.0  # seconds


async def word(stream: AsyncIterator[bytes]) -> bytes:
    return await asyncio.wait_for(anext(stream), PATIENCE)


def test_one_word_at_once_and_one_for_all_that_happens_meanwhile() -> None:
    async def look() -> list[bytes]:
        pulse = Pulse(pace=0.01)
        place = pulse.join()
        assert place is not None
        stream = pulse.stream(place)
        said = [await word(stream)]
        for _ in range(5):
            pulse.tell()
        said.append(await word(stream))
        teller = threading.Thread(target=pulse.tell)
        teller.start()
        said.append(await word(stream))
        teller.join()
        pulse.close()
        with pytest.raises(StopAsyncIteration):
            await word(stream)
        assert pulse.looking == 0
        assert pulse.join() is None
        return said

    first, second, third = asyncio.run(look())
    assert first == b"retry: 3000\nevent: changed\ndata: 0\n\n"
    assert second == b"event: changed\ndata: 5\n\n"
    assert third == b"event: changed\ndata: 6\n\n"


def test_a_stream_whose_reader_is_gone_leaves_its_place() -> None:
    async def look() -> None:
        pulse = Pulse(most=1)
        place = pulse.join()
        assert place is not None
        assert pulse.join() is None
        stream = pulse.stream(place)
        await word(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert pulse.join() is not None

    asyncio.run(look())


def test_over_the_wire_until_the_server_ends(tmp_path: Path) -> None:
    served: Served = serve(tmp_path)
    pulse = Pulse(most=1, pace=0.01)
    with served.stack, WebServer(make_app(served.installation, pulse=pulse), "127.0.0.1", 0) as (host, port):
        url = f"http://{host}:{port}/stream"
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client, client.stream("GET", url) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; frame")
            lines = answer.iter_lines()
            assert [next(lines) for _ in range(3)] == ["retry: 3000", "event: changed", "data: 0"]
            assert httpx.get(url, trust_env=False).status_code == 503
            pulse.tell()
            assert [next(lines) for _ in range(3)] == ["", "event: changed", "data: 1"]
            pulse.close()
            assert list(lines) == [""]
