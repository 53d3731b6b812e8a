"""The last events of note: what the log told of lately, for whoever looks at the status page."""

from __future__ import annotations

import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from structlog.typing import EventDict

_KEPT = 100
_MAX_TEXT = 300

# Of the lines below warning, those that tell that something is well again, or was done.
_GOOD_NEWS = frozenset({
    "config_applied", "connection_live", "control_accepted", "kafka_ready", "kafka_up", "plan_changed",
    "reading_resumes", "replacement_took_over", "service_started", "spool_empty", "spool_has_room",
    "spool_usable_again", "stopping",
})  # fmt: skip
_FRAME = frozenset({
    "event", "level", "timestamp", "logger", "exc_info", "exception", "stack_info", "_record", "_from_structlog",
})  # fmt: skip

# What tells apart lines about one trouble that goes on: the supervisor's attempts, librdkafka's times and threads.
_VARYING = re.compile(r"; attempt \d+ in [\d.]+ s$| \(after \d+ms in state \w+\)|^FAIL \[[^]]*\] \[thrd:[^]]*\]: ")


@attrs.define
class Note:
    """One event; the same one again and again is one note."""

    time: int
    """Microseconds, the last time."""
    first: int
    count: int
    level: str
    event: str
    """The event's stable name in the log, or the text of a line that has none."""
    text: str
    """Its fields."""


@attrs.define(eq=False)
class Recent:
    """A bounded memory of notes, the newest last."""

    _notes: deque[Note] = attrs.field(factory=lambda: deque(maxlen=_KEPT), init=False)

    def take(self, time: int, level: str, event: str, text: str = "") -> None:
        """Note one event."""
        text = text[:_MAX_TEXT]
        for note in self._notes:
            if (note.level, note.event, note.text) == (level, event, text):
                note.time, note.count = time, note.count + 1
                self._notes.remove(note)
                self._notes.append(note)
                return
        self._notes.append(Note(time, time, 1, level, event, text))

    def notes(self) -> list[dict[str, Any]]:
        """All of them as plain values, ready for JSON."""
        return [attrs.asdict(note) for note in tuple(self._notes)]

    def clear(self) -> None:
        """Forget them."""
        self._notes.clear()


RECENT = Recent()
"""Those of this process: its log is one, too."""


class RecentHandler(logging.Handler):
    """Takes what is of note out of the lines of the log."""

    def __init__(self, recent: Recent, redact: Callable[[Any, str, EventDict], Any]) -> None:
        super().__init__(logging.INFO)
        self._recent, self._redact = recent, redact

    def emit(self, record: logging.LogRecord) -> None:
        """Note a warning, an error or good news."""
        fields: Mapping[str, Any] = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        event = str(fields["event"])
        if record.levelno < logging.WARNING and event not in _GOOD_NEWS:
            return
        error = _error(fields.get("exc_info", record.exc_info))
        if error is not None:
            fields = {**fields, "error": f"{type(error).__name__}: {error}"}
        shown = self._redact(None, "", {**fields})
        text = "; ".join(f"{name}: {value}" for name, value in shown.items() if name not in _FRAME)
        event = _VARYING.sub("", str(shown["event"]))
        self._recent.take(round(record.created * 1e6), record.levelname.lower(), event, text)


def _error(exc_info: object) -> BaseException | None:
    """The exception that a line is about, in any of the forms that logging takes."""
    if isinstance(exc_info, BaseException):
        return exc_info
    found = exc_info if isinstance(exc_info, tuple) else sys.exc_info() if exc_info else (None, None)
    return found[1] if isinstance(found[1], BaseException) else None
