"""From the bytes of a file to text that every reader sees alike, and from offsets back to lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property

from reconciler.vetting.facts import FILE_BYTES, Refused

# C0 and C1 controls but tab and line ends, a byte order mark wherever it is, marks that turn the direction of text, and
# line ends that only some readers take for such.
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]|\r(?!\n)"
)


class Source:
    """A text file of a module. `line_of` works for texts that are refused, too."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.text = data[:FILE_BYTES].decode("utf-8", "replace")
        self._data = data

    def check(self) -> None:
        """Raises Refused for what readers may read differently."""
        if len(self._data) > FILE_BYTES:
            raise Refused("too-large", 0, f"more than {FILE_BYTES >> 10} KiB: split the file")
        try:
            self._data.decode("utf-8")
        except UnicodeDecodeError as error:
            at = len(self._data[: error.start].decode("utf-8", "replace"))
            raise Refused("invalid-syntax", at, "not UTF-8: save the file as UTF-8") from None
        if odd := _ODD.search(self.text):
            what = f"U+{ord(odd[0]):04X} is invisible or read differently by different readers: take it out"
            raise Refused("ambiguous-syntax", odd.start(), what)

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer("\n", self.text))]

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of an offset, from 1."""
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1
