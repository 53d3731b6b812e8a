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
    """The start of the whole stream comes first."""

    @classmethod
    def create(cls, path: Path, count: int) -> Moments:
        """For `count` messages."""
        path.write_bytes(bytes((count + 1) * _BYTES))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Moments:
        """What another process created."""
        with path.open("r+b") as file:
            return cls(memoryview(mmap.mmap(file.fileno(), 0)).cast("q"))

    def begin(self, now_ns: int) -> None:
        """The stream starts: its schedule counts from here."""
        self._values[0] = now_ns

    def note(self, numbers: Iterable[int], now_ns: int) -> None:
        """These messages are being sent."""
        for number in numbers:
            self._values[number + 1] = now_ns

    def due(self, now_ns: int, rate: float) -> int:
        """How many messages have been offered by now, at so many per second, whether or not they could be sent."""
        start = self._values[0]
        return min(len(self), max(0, int((now_ns - start) * rate / 1e9))) if start else 0

    def sent_per_s(self) -> float:
        """The rate that was reached; 0 unless the first and the last message were sent at different times."""
        elapsed_ns = self._values[-1] - self._values[1]
        return (len(self) - 1) / elapsed_ns * 1e9 if elapsed_ns > 0 else 0.0

    def __len__(self) -> int:
        return len(self._values) - 1

    def __getitem__(self, number: int) -> int:
        return self._values[number + 1]
