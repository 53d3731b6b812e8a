"""What a connection runs: bytes and time in; text to send, the next deadline and errors out."""

from __future__ import annotations

from typing import Protocol


class Conversation(Protocol):
    """One connection's talk with its peer, without socket, clock or await.

    Times are seconds of the run's monotonic clock (`trio.current_time()`). Any method may raise
    `SessionError`: `Retryable` ends the connection, `Refused` also ends the attempts.
    """

    @property
    def ready(self) -> bool:
        """Whether logins and subscriptions are all answered (acknowledged, or refused one by one)."""

    @property
    def flowing(self) -> bool:
        """Whether real data (no heartbeat, no acknowledgement) has come: the back-off may be reset."""

    def start(self, now: float) -> None:
        """The WebSocket is open."""

    def receive(self, messages: list[bytes], now: float) -> None:
        """Whole messages in wire order; must not block: pongs queue behind it."""

    def next_deadline(self) -> float:
        """When `on_deadline` wants to be called next; `math.inf` for never. Cheap: asked after every batch."""

    def on_deadline(self, now: float) -> None:
        """Time has reached `next_deadline()`."""

    def data_to_send(self) -> list[str]:
        """Text messages to send now, in order; each is handed out once."""

    def closed(self, now: float, reason: str) -> None:
        """The connection is over, whatever the cause; called exactly once after `start`."""
