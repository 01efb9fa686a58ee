from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import HeldError
from reconciler.runner.credentials import MOST, read_secret, static_credentials


def secret(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("data", "text"), [(b"pass", "pass"), (b"pass\n", "pass"), (b"a\nb\n\n", "a\nb\n"), (b"", ""), ("ä".encode(), "ä")]
)
def test_a_secret_is_the_text_without_the_last_newline(data: bytes, text: str, tmp_path: Path) -> None:
    assert read_secret(secret(tmp_path, data), "s") == text


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o777])
def test_a_secret_that_any_user_may_read_is_none(mode: int, tmp_path: Path) -> None:
    with pytest.raises(HeldError, match=r"secret db: .*/secret may be read by any user; run `chmod o= ") as held:
        read_secret(secret(tmp_path, b"pass", mode), "secret db")
    assert held.value.reason == "SecretExposed"
    assert read_secret(secret(tmp_path, b"pass", 0o640), "secret db") == "pass"


def test_a_secret_that_is_not_there_too_long_or_no_text_is_missing(tmp_path: Path) -> None:
    assert len(read_secret(secret(tmp_path, b"x" * MOST), "s")) == MOST
    for path, why in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (secret(tmp_path, b"x" * (MOST + 1)), "longer than 65536 bytes"),
    ):
        with pytest.raises(HeldError, match=why) as held:
            read_secret(path, "s")
        assert held.value.reason == "SecretMissing"
    with pytest.raises(HeldError, match="cannot be read"):
        read_secret(secret(tmp_path, b"\xff\xfe"), "s")


def test_credentials_are_variables_one_a_line(tmp_path: Path) -> None:
    text = b"# of prod\nAWS_ACCESS_KEY_ID=AKIA1\n\n  AWS_SECRET_ACCESS_KEY=a=b c\nEMPTY=\n"
    assert static_credentials(secret(tmp_path, text)) == {
        "AWS_ACCESS_KEY_ID": "AKIA1",
        "AWS_SECRET_ACCESS_KEY": "a=b c",
        "EMPTY": "",
    }
    assert static_credentials(None) == {}


@pytest.mark.parametrize("line", [b"AKIA1", b"=x", b"export A=1", b"A-B=1"])
def test_a_line_without_a_name_is_refused_and_not_shown(line: bytes, tmp_path: Path) -> None:
    with pytest.raises(HeldError, match="write one NAME=value a line") as held:
        static_credentials(secret(tmp_path, b"A=1\n" + line))
    assert held.value.reason == "CredentialsInvalid"
    assert line.decode() not in str(held.value)
