"""What the sessions of all venues have in common: a ledger of subscriptions, an outbox, and notices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import inf

import attrs

from pipeline.exchanges.ledger import Request, SubscriptionLedger
from pipeline.exchanges.venue import EndpointLimits, Outcome, SessionTimes, Subscription

MAX_NOTICES = 100
NOTICE_CHARACTERS = 400


@attrs.define(eq=False)
class SubscribingSession(ABC):
    """The venue-neutral half of a `VenueSession`; a venue adds its heartbeats, its answers and its JSON."""

    subscriptions: Sequence[Subscription]
    """Wanted from the start."""
    times: SessionTimes
    limits: EndpointLimits
    _ledger: SubscriptionLedger = attrs.field(init=False)
    _outbox: list[str] = attrs.field(factory=list, init=False)
    _notices: list[str] = attrs.field(factory=list, init=False)
    _started: bool = attrs.field(default=False, init=False)
    _now: float = attrs.field(default=-inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._ledger = SubscriptionLedger(self.limits, self.times.acknowledge_within)

    @abstractmethod
    def _request(self, request: Request) -> str:
        """The text that asks for this."""

    @property
    def ready(self) -> bool:
        """Whether the connection is open and every request has been answered."""
        return self._started and self._ledger.settled

    def start(self, now: float) -> None:
        """The connection is open: ask for the subscriptions."""
        self._started = True
        self.subscribe(self.subscriptions, now)

    def data_to_send(self) -> list[str]:
        """Messages to send now, each handed out once."""
        out, self._outbox = self._outbox, []
        return out

    def subscribe(self, subscriptions: Iterable[Subscription], now: float) -> None:
        """Add to the wanted subscriptions."""
        self._ledger.want(subscriptions)
        self._send_requests(now)

    def unsubscribe(self, subscriptions: Iterable[Subscription], now: float) -> None:
        """Remove from the wanted subscriptions."""
        self._ledger.drop(subscriptions)
        self._send_requests(now)

    def resync(self, subscription: Subscription, now: float) -> None:
        """Unsubscribe, and when that is answered subscribe again: venues then send a snapshot."""
        self._ledger.resync(subscription)
        self._send_requests(now)

    def outcomes(self) -> list[Outcome]:
        """Answers since the last call, each handed out once."""
        return self._ledger.outcomes()

    def notices(self) -> list[str]:
        """Announcements and messages of no known form since the last call, bounded in number and length."""
        out, self._notices = self._notices, []
        return out

    def _send_requests(self, now: float) -> None:
        """Queue what the request budget allows now."""
        self._now = now
        while self._started and (request := self._ledger.next_request(now)) is not None:
            self._outbox.append(self._request(request))

    def _note(self, text: str) -> None:
        if len(self._notices) < MAX_NOTICES:
            self._notices.append(text[:NOTICE_CHARACTERS])
