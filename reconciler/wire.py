"""One JSON line each way over a unix socket: how the controller asks its runner."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from reconciler.errors import PassError

MAX_LINE = 4 << 20  # bytes; a request is tiny, an answer holds up to `model.MOST_TOLD` addresses of a plan, twice
ANSWER_TIMEOUT = 10.0  # seconds

Message = dict[str, object]


class TooLongError(ValueError):
    """A message has more than `MAX_LINE` bytes."""


def ask(path: Path, request: Mapping[str, object], timeout: float = ANSWER_TIMEOUT) -> Message:
    """Send one request and return the answer.

    Raises:
        PassError: nobody answers there (`RunnerUnavailable`), the answer is too long (`AnswerTooLong`), or a refusal.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(timeout)
            peer.connect(str(path))
            with suppress(BrokenPipeError):  # refused unheard: the answer that lies there says why
                send(peer, request)
            answer = receive(peer)
    except TooLongError as error:
        verb = request.get("verb")
        raise PassError("AnswerTooLong", f"{path}: the runner's answer to `{verb}` cannot be read: {error}.") from error
    except (OSError, ValueError) as error:
        what = f"{path}: the runner does not answer ({error})"
        raise PassError("RunnerUnavailable", f"{what}; start it with `reconciler runner serve`.") from error
    if "error" in answer:
        raise PassError(str(answer.get("reason", "RunnerRefused")), str(answer["error"]))
    return answer


def send(peer: socket.socket, message: Mapping[str, object]) -> None:
    """Write one message."""
    peer.sendall(pack(message))


def pack(message: Mapping[str, object]) -> bytes:
    """The bytes of a message."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def receive(peer: socket.socket) -> Message:
    """Read one message.

    Raises:
        TooLongError: it is too long. ValueError: it is cut off, or no JSON object.
    """
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = peer.recv(65536)
        if not chunk:
            raise ValueError("the connection ended in the middle of a message")
        data += chunk
        if len(data) > MAX_LINE:
            raise TooLongError(f"the message has more than {MAX_LINE} bytes, the most that is read of one")
    return unpack(bytes(data))


def unpack(line: bytes) -> Message:
    """The message of a line.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("the message is nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("the message is no JSON object")  # noqa: TRY004 - wrong data, not a wrong call
    return cast("Message", message)


def peer_uid(peer: socket.socket) -> int:
    """The user at the other end, by the kernel's word."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])
