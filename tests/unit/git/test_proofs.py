from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.errors import PassError
from reconciler.git.proofs import Proof, Proofs
from reconciler.model import Commit

NOW = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)


def name(number: int) -> Commit:
    return Commit(hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest())


def proof(number: int, key: str = "SHA256:a") -> Proof:
    return Proof(name(number), NOW, "ada@example.org", key, 7, "bob", ("carol", "dave"))


def test_a_proof_is_there_for_every_process(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path / "deep" / "proofs")
    assert proofs.get(name(1)) is None
    proofs.add(proof(1), "ssh-ed25519 AAAA")
    proofs.add(Proof(name(2), NOW))
    other = Proofs(tmp_path / "deep" / "proofs")
    assert (other.get(name(1)), other.get(name(2)), other.get(name(3))) == (proof(1), Proof(name(2), NOW), None)
    assert other.keys() == {"SHA256:a": "ssh-ed25519 AAAA"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "deep" / "proofs").iterdir()} == {0o600}


def test_the_newest_proof_of_a_commit_counts(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.add(Proof(name(1), NOW))
    proofs.add(proof(1))
    assert proofs.get(name(1)) == proof(1)


def test_a_line_that_a_crash_cut_at_any_byte_is_no_proof(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.add(proof(1))
    shard = tmp_path / f"{name(1)[:2]}.jsonl"
    whole = shard.read_bytes()
    for size in range(len(whole)):
        shard.write_bytes(whole[:size])
        assert proofs.get(name(1)) is None
        proofs.add(proof(1))
        assert proofs.get(name(1)) == proof(1)  # what comes after half a line is whole


def test_half_a_line_of_keys_is_written_again(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    (tmp_path / "keys.jsonl").write_bytes(b'{"key": "SHA256:a", "pub')
    proofs.add(proof(1), "ssh-ed25519 AAAA")
    assert proofs.keys() == {"SHA256:a": "ssh-ed25519 AAAA"}


@pytest.mark.parametrize("line", [b"[]", b"null", b"{}", b'{"commit": "%s"}', b'{"commit": "%s", "at": 1}', b"\0" * 90])
def test_a_line_that_is_something_else_is_no_proof(tmp_path: Path, line: bytes) -> None:
    (tmp_path / f"{name(1)[:2]}.jsonl").write_bytes(line.replace(b"%s", name(1).encode()) + b"\n")
    assert Proofs(tmp_path).get(name(1)) is None


def test_names_inside_a_line_are_not_taken_for_its_commit(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    shard = name(1)[:2]
    inner = Commit(shard + "0" * 38)
    proofs.add(Proof(name(1), NOW, f'x", {{"commit": "{inner}"', "k"))
    assert proofs.get(inner) is None


def test_a_killed_writer_leaves_only_whole_proofs(tmp_path: Path) -> None:
    code = f"""
from tests.unit.git.test_proofs import *
from pathlib import Path
import itertools
proofs = Proofs(Path({str(tmp_path)!r}))
for number in itertools.count():
    proofs.add(proof(number, f"SHA256:{{number}}"), "ssh-ed25519 AAAA")
    print(number, flush=True)
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, text=True) as child:
        assert child.stdout
        said = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in child.stdout.read().splitlines()]
    proofs = Proofs(tmp_path)
    assert all(proofs.get(name(number)) for number in said)
    assert {f"SHA256:{number}" for number in said} <= proofs.keys().keys()
    proofs.add(proof(10**6))
    assert proofs.get(name(10**6)) == proof(10**6)


def test_looking_up_one_of_many_reads_little(tmp_path: Path) -> None:
    shards: dict[str, list[bytes]] = {}
    line = b'{"commit": "%s", "at": "2026-03-01T12:00:00+00:00", "signer": "ada@example.org", "key": "SHA256:a", "pull": 7, "author": "bob", "approvers": ["carol"]}\n'
    for number in range(100_000):
        shards.setdefault(name(number)[:2], []).append(line.replace(b"%s", name(number).encode()))
    for shard, lines in shards.items():
        (tmp_path / f"{shard}.jsonl").write_bytes(b"".join(lines))
    proofs = Proofs(tmp_path)
    began = time.process_time()
    found = [proofs.get(name(number)) for number in range(0, 100_000, 1000)]
    assert all(found)
    assert (time.process_time() - began) / len(found) < 0.01  # seconds; some 50 microseconds where nothing else runs


def test_the_version_never_goes_back(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path / "p")
    assert proofs.version() == 0
    for version in (3, 2, 7, 1):
        proofs.raise_version(version)
    assert Proofs(tmp_path / "p").version() == 7
    (tmp_path / "p" / "version").write_text("x")
    with pytest.raises(PassError, match="restore it from a backup"):
        proofs.version()


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.add(proof(1))
    shard = tmp_path / f"{name(1)[:2]}.jsonl"
    os.truncate(shard, shard.stat().st_size + 5)  # a file system may give zeros instead of what was not written
    proofs.add(proof(1))
    assert proofs.get(name(1)) == proof(1)
