"""One cause must not fill the log: of the same warning or error only the first ones of each minute are written."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime
from typing import TextIO

import attrs

WINDOW_S = 60.0
_MAX_KINDS = 1_000
"""Windows kept open; more kinds of trouble than this at once are not told apart any more."""

# What tells two lines of one event apart: whom it happened to.
_SUBJECTS = ("connection", "venue", "account", "topic", "subject", "query")


@attrs.define
class _Window:
    line: logging.LogRecord
    """The first one that was held back."""
    began: float
    last: float
    seen: int = 1


@attrs.define(eq=False)
class Repeats:
    """Judges lines by their own times; keeps no clock."""

    allowed: int
    """Lines of one kind per minute."""
    _windows: dict[Hashable, _Window] = attrs.field(factory=dict, init=False)

    def holds_back(self, line: logging.LogRecord) -> bool:
        """Whether this line is one too many."""
        if line.levelno < logging.WARNING:
            return False
        key = _kind(line) if len(self._windows) < _MAX_KINDS else None
        window = self._windows.get(key)
        if window is None:
            self._windows[key] = _Window(line, line.created, line.created)
            return False
        window.seen, window.last = window.seen + 1, line.created
        if window.seen == self.allowed + 1:
            window.line = line
        return window.seen > self.allowed

    def over(self, now: float) -> Iterator[logging.LogRecord]:
        """A line for each kind that was held back in a minute that is over."""
        # The oldest window comes first; one that is out of order for a clock that stepped only waits a little longer.
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if 0 <= now - window.began < WINDOW_S:
                return
            del self._windows[key]
            if window.seen > self.allowed:
                yield self._summary(window, now)

    def end(self, now: float) -> Iterator[logging.LogRecord]:
        """A line for each kind that was held back and not told of yet."""
        for window in self._windows.values():
            if window.seen > self.allowed:
                yield self._summary(window, now)
        self._windows.clear()

    def _summary(self, window: _Window, now: float) -> logging.LogRecord:
        line, held_back = window.line, window.seen - self.allowed
        within_s = round(max(0.0, window.last - window.began), 1)
        told = {**line.__dict__, "created": now, "exc_info": None, "exc_text": None, "stack_info": None}
        if isinstance(line.msg, dict):
            told["msg"] = {
                **{name: line.msg[name] for name in ("logger", "level", *_SUBJECTS) if name in line.msg},
                "timestamp": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
                "event": "repeats_held_back",
                "repeated": line.msg.get("event"),
                "count": held_back,
                "within_s": within_s,
            }
        else:
            told["msg"], told["args"] = "%s (%d more like it within %g s)", (line.getMessage(), held_back, within_s)
        return logging.makeLogRecord(told)


def _kind(line: logging.LogRecord) -> Hashable:
    if isinstance(line.msg, dict):
        return (line.name, line.msg.get("event"), *(str(line.msg.get(name)) for name in _SUBJECTS))
    return (line.name, str(line.msg), str(line.args[0]) if isinstance(line.args, tuple) and line.args else None)


class QuietHandler(logging.StreamHandler[TextIO]):
    """Writes lines, without what is repeated too often; how much that was follows when its minute is over."""

    def __init__(self, stream: TextIO, repeats: Repeats) -> None:
        super().__init__(stream)
        self._repeats = repeats

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and what is due before it."""
        for summary in self._repeats.over(record.created):
            super().emit(summary)
        if not self._repeats.holds_back(record):
            super().emit(record)

    def close(self) -> None:
        """Tell what was held back and not told yet; called at the end of the process."""
        for summary in self._repeats.end(time.time()):
            super().emit(summary)
        super().close()
