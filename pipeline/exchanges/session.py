"""What the sessions of all venues have in common: a ledger of subscriptions, an outbox, and notices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import inf

import attrs

from pipeline.exchanges.accounts import Login
from pipeline.exchanges.ledger import Request, SubscriptionLedger
from pipeline.exchanges.venue import EndpointLimits, Outcome, SessionTimes, Subscription
from pipeline.model.errors import DeadlineMissed

MAX_NOTICES = 100
NOTICE_CHARACTERS = 400


@attrs.define(eq=False)
class SubscribingSession(ABC):
    """The venue-neutral half of a `VenueSession`; a venue adds its heartbeats, its answers and its JSON.

    With a `login`, that goes first, and nothing is asked for before `_login_granted` was called.
    """

    subscriptions: Sequence[Subscription]
    """Wanted from the start."""
    times: SessionTimes
    limits: EndpointLimits
    login: Login | None = attrs.field(default=None, kw_only=True)
    ends_soon: bool = attrs.field(default=False, init=False)
    """Whether the venue has announced the end of the connection."""
    requests: int = attrs.field(default=0, init=False)
    """Requests sent, a login included: venues limit them per connection."""
    _ledger: SubscriptionLedger = attrs.field(init=False)
    _outbox: list[str] = attrs.field(factory=list, init=False)
    _notices: list[str] = attrs.field(factory=list, init=False)
    _started: bool = attrs.field(default=False, init=False)
    _now: float = attrs.field(default=-inf, init=False)
    _login_by: float = attrs.field(default=inf, init=False)
    """When the answer to the login is overdue; `inf` when none is awaited."""

    def __attrs_post_init__(self) -> None:
        self._ledger = SubscriptionLedger(self.limits, self.times.acknowledge_within)

    @abstractmethod
    def _request(self, request: Request) -> str:
        """The text that asks for this."""

    @abstractmethod
    def _login_request(self, login: Login, now: float) -> str:
        """The text that logs in. Raises `Refused` for a secret that cannot sign."""

    @property
    def ready(self) -> bool:
        """Whether the connection is open, logged in, and every request has been answered."""
        return self._started and not self._awaits_login and self._ledger.settled

    def start(self, now: float) -> None:
        """The connection is open: log in, and ask for the subscriptions."""
        self._started = True
        if self.login is not None:
            self._outbox.append(self._login_request(self.login, now))
            self.requests += 1
            self._login_by = now + self.times.acknowledge_within
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
        while self._started and not self._awaits_login and (request := self._ledger.next_request(now)) is not None:
            self._outbox.append(self._request(request))
            self.requests += 1

    @property
    def _awaits_login(self) -> bool:
        return self._login_by < inf

    def _login_granted(self, now: float) -> None:
        """The venue has let us in: ask for what has been waiting for it."""
        self._login_by = inf
        self._send_requests(now)

    def _check_login(self, now: float) -> None:
        """Raises `DeadlineMissed` if the answer to the login is overdue."""
        if now >= self._login_by:
            raise DeadlineMissed(f"login: no answer within {self.times.acknowledge_within:g} s")

    def _note(self, text: str) -> None:
        if len(self._notices) < MAX_NOTICES:
            self._notices.append(text[:NOTICE_CHARACTERS])
