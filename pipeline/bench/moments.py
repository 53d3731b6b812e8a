"""When each message was sent, in memory that the generator and the measured process share."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import attrs

_BYTES = 8


@attrs.define(eq=False)
class Moments:
    """Nanoseconds of the monotonic clock by the message's number; 0 is not sent yet."""

    _values: memoryview

    @classmethod
    def create(cls, path: Path, count: int) -> Moments:
        """For `count` messages."""
        path.write_bytes(bytes(count * _BYTES))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Moments:
        """What another process created."""
        with path.open("r+b") as file:
            return cls(memoryview(mmap.mmap(file.fileno(), 0)).cast("q"))

    def note(self, numbers: Iterable[int], now_ns: int) -> None:
        """These messages are being sent."""
        for number in numbers:
            self._values[number] = now_ns

    def __getitem__(self, number: int) -> int:
        return self._values[number]
