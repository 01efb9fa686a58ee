"""Both kinds of anchor: a head stays, once it is there, and one that disagrees is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from reconciler.errors import PassError
from reconciler.runner.access.keys import Keys, Renewing
from reconciler.runner.audit.anchor import Anchor, FileAnchor
from reconciler.runner.audit.chain import Head
from reconciler.runner.audit.s3 import S3Anchor
from tests.kit.aws import REGION, Aws, serving
from tests.kit.plane import NOW

BUCKET = "acme-audit"
KEYS = Renewing(lambda: Keys("test", "test"))


def head(count: int, digit: str = "a") -> Head:
    return Head(count, digit * 64)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    with serving() as found:
        s3 = found.client("s3")
        where = {"LocationConstraint": REGION}
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where, ObjectLockEnabledForBucket=True)
        yield found


def bucket(cloud: Aws, prefix: str, **more: Any) -> S3Anchor:
    return S3Anchor(BUCKET, prefix, REGION, endpoint=cloud.endpoint, path_style=True, keys=KEYS, **more)


@pytest.fixture(params=["file", "s3"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> Anchor:
    if request.param == "file":
        return FileAnchor(tmp_path / "anchor.jsonl")
    return bucket(request.getfixturevalue("cloud"), f"prefix/{tmp_path.name}")


def test_heads_are_kept_and_put_once(anchor: Anchor) -> None:
    for one in (head(1), head(5, "b"), head(5, "b"), head(12, "c")):
        anchor.put(one, NOW)
    found = anchor.heads()
    assert sorted((one.count, one.hash[0]) for one in found.heads) == [(1, "a"), (5, "b"), (12, "c")]
    assert found.unreadable == ()
    assert all(one.at.tzinfo is not None for one in found.heads)


@pytest.mark.parametrize("other", [head(4), head(5, "f")])
def test_a_log_that_went_back_or_is_another_one_is_told(other: Head, anchor: Anchor) -> None:
    anchor.put(head(5), NOW)
    with pytest.raises(PassError, match="audit verify") as failed:
        anchor.put(other, NOW)
    assert failed.value.reason == "AnchorDisagrees"
    assert [one.head for one in anchor.heads().heads] == [head(5)]


def test_an_anchor_that_is_away_says_so(tmp_path: Path, cloud: Aws) -> None:
    away: list[Callable[[], object]] = [
        lambda: FileAnchor(tmp_path / "no" / "mount").put(head(1), NOW),
        FileAnchor(tmp_path / "none").heads,
        S3Anchor("no-such-bucket", "x", REGION, endpoint=cloud.endpoint, path_style=True, keys=KEYS).heads,
    ]
    for ask in away:
        with pytest.raises(PassError) as failed:
            ask()
        assert failed.value.reason == "AnchorUnreachable"


# --- the file


def test_a_torn_line_of_the_file_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "anchor.jsonl"
    anchor = FileAnchor(path)
    anchor.put(head(1), NOW)
    with path.open("ab") as file:
        file.write(b'{"at":"2026')
    assert [one.count for one in anchor.heads().heads] == [1]
    anchor.put(head(2), NOW)
    found = anchor.heads()
    assert [(one.count, one.place) for one in found.heads] == [(1, f"{path}:1"), (2, f"{path}:3")]
    assert found.unreadable == (f"{path}:2",)


def test_the_file_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "anchor.jsonl"
    text = b""
    for count in range(1, 6):
        FileAnchor(path).put(head(count), NOW)
        assert path.read_bytes().startswith(text)
        text = path.read_bytes()


@pytest.mark.parametrize("line", [b"\xff\n", b"[]\n", b'{"at":1}\n', b"x" * 5000 + b"\n", b"[" * 3000 + b"\n"])
def test_what_is_no_head_is_told(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "anchor.jsonl"
    path.write_bytes(line)
    assert FileAnchor(path).heads().unreadable == (f"{path}:1",)
    FileAnchor(path).put(head(1), NOW)
    assert [one.count for one in FileAnchor(path).heads().heads] == [1]


# --- the bucket


@pytest.mark.parametrize(("mode", "days"), [("compliance", 30), ("governance", 1)])
def test_an_object_is_locked_for_as_long_as_it_shall_be(mode: Any, days: int, cloud: Aws) -> None:
    anchor = bucket(cloud, f"locked-{mode}", mode=mode, retain=timedelta(days=days))
    now = datetime.now(UTC)
    anchor.put(head(3), now)
    s3 = cloud.client("s3")
    (listed,) = s3.list_object_versions(Bucket=BUCKET, Prefix=f"locked-{mode}/")["Versions"]
    shown = s3.head_object(Bucket=BUCKET, Key=listed["Key"])
    assert shown["ObjectLockMode"] == mode.upper()
    assert abs(shown["ObjectLockRetainUntilDate"] - now - timedelta(days=days)) < timedelta(seconds=2)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=BUCKET, Key=listed["Key"], VersionId=listed["VersionId"])


def test_a_marker_of_deletion_hides_nothing(cloud: Aws) -> None:
    anchor = bucket(cloud, "marked")
    anchor.put(head(3), NOW)
    (found,) = anchor.heads().heads
    cloud.client("s3").delete_object(Bucket=BUCKET, Key=found.place.removeprefix(f"s3://{BUCKET}/"))
    assert [one.head for one in anchor.heads().heads] == [head(3)]


def test_many_heads_are_listed_page_by_page(cloud: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = bucket(cloud, "pages")
    for count in range(1, 8):
        anchor.put(head(count), NOW)
    real = anchor._call
    calls = []

    def paged(verb: str, **arguments: Any) -> Any:
        calls.append(verb)
        return real(verb, **arguments, **({"MaxKeys": 2} if verb.startswith("list") else {}))

    monkeypatch.setattr(S3Anchor, "_call", lambda _self, verb, **arguments: paged(verb, **arguments))
    assert sorted(one.count for one in anchor.heads().heads) == [1, 2, 3, 4, 5, 6, 7]
    assert len(calls) == 4
    with pytest.raises(PassError, match="does not have"):
        anchor.put(head(1), NOW)


def test_other_objects_beside_the_heads_are_told(cloud: Aws) -> None:
    anchor = bucket(cloud, "mixed")
    anchor.put(head(1), NOW)
    cloud.client("s3").put_object(Bucket=BUCKET, Key="mixed/note.txt", Body=b"hello")
    found = anchor.heads()
    assert ([one.count for one in found.heads], found.unreadable) == ([1], (f"s3://{BUCKET}/mixed/note.txt",))


def test_two_that_put_the_same_head_at_once_both_succeed(cloud: Aws) -> None:
    def put() -> None:
        with suppress(PassError):
            bucket(cloud, "race").put(head(9), NOW)

    threads = [threading.Thread(target=put) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.head for one in bucket(cloud, "race").heads().heads] == [head(9)]
