"""Tells whoever looks that something has changed: server-sent events that carry nothing but that word.

What has changed the page asks for itself, by the same requests as anybody. So nothing is worked out for a stream, and the
loop's thread does no more than set a flag, however many look on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

MOST = 64  # streams at once; who comes then looks on without
PACE = 1.0  # seconds between two words to one stream, however much happens
ALIVE = 15.0  # seconds after which a stream shows that it lives, so that dead ones are found
RETRY = 3000  # milliseconds until a browser comes again


class Pulse:
    """One beat for all streams. `tell` may be called from any thread; streams live in the server's loop."""

    def __init__(self, most: int = MOST, pace: float = PACE) -> None:
        self._most, self._pace = most, pace
        self._guard = threading.Lock()
        self._streams: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number, self._closed = 0, False

    def tell(self) -> None:
        """Something has changed."""
        with self._guard:
            self._number += 1
        self._wake()

    def close(self) -> None:
        """End every stream; there will be no other."""
        self._closed = True
        self._wake()

    def join(self) -> asyncio.Event | None:
        """A place among the streams, in the server's loop; None where all are taken."""
        if self._closed or len(self._streams) >= self._most:
            return None
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._streams.add(event)
        return event

    async def stream(self, place: asyncio.Event) -> AsyncIterator[bytes]:
        """The events of one stream: a number at once, and another whenever something has changed."""
        try:
            yield f"retry: {RETRY}\n".encode() + self._word()
            while not self._closed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(place.wait(), ALIVE)
                if self._closed:
                    return
                if not place.is_set():
                    yield b": alive\n\n"
                    continue
                place.clear()
                yield self._word()
                await asyncio.sleep(self._pace)
        finally:
            self._streams.discard(place)

    @property
    def looking(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def _word(self) -> bytes:
        return f"event: changed\ndata: {self._number}\n\n".encode()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and every stream with it
                loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        for event in self._streams:
            event.set()
