"""One connection for order entry: the venue's session between the socket and those who wait for answers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import attrs

from pipeline.exchanges.trading import Answer, TradeRequest, TradeSession
from pipeline.model.errors import ConnectionLost, DeadlineMissed


@attrs.define(eq=False)
class TradeConversation:
    """A `session.conversation.Conversation` whose requests are pipelined; never reused.

    It ends itself when a request stays unanswered for `answer_within` seconds: only when the connection is gone can
    that request no longer arrive, and its outcome be looked up for certain.
    """

    session: TradeSession
    answer_within: float
    answered: Callable[[Answer, float], None]
    """Is told of each answer."""
    changed: Callable[[], None]
    """Is told when `open` may have changed."""
    over: Callable[[list[str], str], None]
    """Is told the requests that were never answered, and why, when the connection is closed."""
    noticed: Callable[[str], None]
    _pending: dict[str, float] = attrs.field(factory=dict, init=False)
    """By which time the answer has to come, oldest first."""
    _closed: bool = attrs.field(default=False, init=False)
    _was_open: bool = attrs.field(default=False, init=False)

    @property
    def open(self) -> bool:
        """Whether requests are welcome."""
        return not self._closed and self.session.ready and not self.session.ends_soon

    @property
    def unanswered(self) -> int:
        """Requests on their way."""
        return len(self._pending)

    def submit(self, request: TradeRequest, now: float) -> list[str]:
        """The texts to send at once, in this order; from here on the request counts as sent."""
        if not self.open:
            raise ConnectionLost("the connection for orders is not open")
        self.session.submit(request, now)
        self._pending[request.id] = now + self.answer_within
        return self.session.data_to_send()

    # Conversation

    @property
    def ready(self) -> bool:
        return self.session.ready

    @property
    def flowing(self) -> bool:
        return self._was_open

    def start(self, now: float) -> None:
        self.session.start(now)

    def receive(self, messages: list[bytes], now: float) -> None:
        for message in messages:
            for answer in self.session.receive(message, now):
                # What was given up, or never asked, has nobody who waits for it.
                if self._pending.pop(answer.request_id, None) is None:
                    self.noticed(f"an answer to no request of ours: {answer.request_id}")
                else:
                    self.answered(answer, now)
        self._after()

    def next_deadline(self) -> float:
        first = next(iter(self._pending.values()), inf)
        return min(self.session.next_deadline(), first)

    def on_deadline(self, now: float) -> None:
        if self._pending and now >= (first := next(iter(self._pending.items())))[1]:
            raise DeadlineMissed(f"no answer to request {first[0]} within {self.answer_within:g} s")
        if now >= self.session.next_deadline():
            self.session.on_deadline(now)
        self._after()

    def data_to_send(self) -> list[str]:
        return self.session.data_to_send()

    def closed(self, now: float, reason: str) -> None:
        self._closed = True
        pending, self._pending = list(self._pending), {}
        self.over(pending, reason)
        self.changed()

    def _after(self) -> None:
        for text in self.session.notices():
            self.noticed(text)
        self._was_open = self._was_open or self.session.ready
        self.changed()
        # Answers that are on their way are still welcome; nothing else is gained by staying.
        if self.session.ends_soon and not self._pending:
            raise ConnectionLost("the venue wants order entry on another connection")
