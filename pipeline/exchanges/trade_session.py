"""What the trade sessions of all venues have in common: they are ordinary connections that also carry requests."""

from __future__ import annotations

from typing import Protocol

import attrs

from pipeline.exchanges.trading import Answer, TradeRequest
from pipeline.exchanges.venue import VenueSession


class Line(VenueSession, Protocol):
    """A venue's own session, with a login and without subscriptions, which takes requests as well."""

    def submit(self, request: TradeRequest, now: float) -> None:
        """Queue a request."""

    def answers(self, message: bytes, now: float) -> list[Answer]:
        """What `receive` is for market data: take one message. What is no answer becomes a notice."""


@attrs.define(eq=False)
class LineSession:
    """The `TradeSession` that a line is behind."""

    line: Line

    @property
    def ready(self) -> bool:
        """Whether the login was granted and no end has been announced."""
        return self.line.ready and not self.line.ends_soon

    @property
    def ends_soon(self) -> bool:
        """Whether requests are wanted on another connection; those on the way may still be answered."""
        return self.line.ends_soon

    def start(self, now: float) -> None:
        """The connection is open: log in. Raises `Refused` for a secret that cannot sign."""
        self.line.start(now)

    def submit(self, request: TradeRequest, now: float) -> None:
        """Queue a request."""
        self.line.submit(request, now)

    def receive(self, message: bytes, now: float) -> list[Answer]:
        """Take one message. Raises `Retryable`, `Refused` or `LoginFailed` for a login that was not granted."""
        return self.line.answers(message, now)

    def next_deadline(self) -> float:
        """When to call `on_deadline`; `inf` for never."""
        return self.line.next_deadline()

    def on_deadline(self, now: float) -> None:
        """Ping. Raises `HeartbeatLost` on a silent connection, `DeadlineMissed` for a login without an answer."""
        self.line.on_deadline(now)

    def data_to_send(self) -> list[str]:
        """Text messages to send now, each handed out once."""
        return self.line.data_to_send()

    def notices(self) -> list[str]:
        """Announcements, and messages that nobody waits for, each once."""
        return self.line.notices()
