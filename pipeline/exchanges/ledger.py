"""Subscriptions of one connection: wanted, asked for, answered, refused. Shared by the venues' sessions.

A venue's session turns requests into its own JSON and its own answers into calls; everything else about
subscribing (chunks, budgets, deadlines, single retries, resynchronization) is the same everywhere and lives here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

import attrs

from pipeline.exchanges.venue import EndpointLimits, Outcome, Subscription
from pipeline.model.errors import DeadlineMissed
from pipeline.model.rate import Budget

SUBSCRIBE, UNSUBSCRIBE = "subscribe", "unsubscribe"


@attrs.define
class Request:
    """One request on the wire that waits for its answers."""

    id: str
    op: str
    waiting: dict[str, Subscription]
    """Not yet answered, by topic."""
    deadline: float


@attrs.define(eq=False)
class SubscriptionLedger:
    """What this connection should carry and what the venue has granted so far.

    A request that fails as a whole is retried topic by topic, so that one bad topic does not take its
    neighbours along; a topic that fails alone is refused for good.
    """

    limits: EndpointLimits
    acknowledge_within: float
    """Seconds until an unanswered request is a `DeadlineMissed`."""
    active: dict[str, Subscription] = attrs.field(factory=dict, init=False)
    """Granted, by topic."""
    refused: dict[str, str] = attrs.field(factory=dict, init=False)
    """Reason by topic."""
    _queue: deque[tuple[str, Subscription, bool]] = attrs.field(factory=deque, init=False)
    _pending: dict[str, Request] = attrs.field(factory=dict, init=False)
    _resync: set[str] = attrs.field(factory=set, init=False)
    _outcomes: list[Outcome] = attrs.field(factory=list, init=False)
    _budget: Budget = attrs.field(init=False)
    _next_id: int = attrs.field(default=1, init=False)
    _hold_until: float = attrs.field(default=-inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._budget = Budget(self.limits.requests)

    @property
    def settled(self) -> bool:
        """Whether nothing is queued and nothing unanswered."""
        return not self._queue and not self._pending

    def want(self, subscriptions: Iterable[Subscription]) -> None:
        """Ask for these, unless they are granted or asked for already."""
        heading = self._heading()
        for subscription in subscriptions:
            if heading.get(subscription.topic) != SUBSCRIBE:
                heading[subscription.topic] = SUBSCRIBE
                self._queue.append((SUBSCRIBE, subscription, False))

    def drop(self, subscriptions: Iterable[Subscription]) -> None:
        """Give these up; one that was only queued is forgotten."""
        topics = {subscription.topic: subscription for subscription in subscriptions}
        self._queue = deque(item for item in self._queue if not (item[0] == SUBSCRIBE and item[1].topic in topics))
        self._resync.difference_update(topics)
        heading = self._heading()
        for topic, subscription in topics.items():
            self.refused.pop(topic, None)
            if heading.get(topic) == SUBSCRIBE:
                self._queue.append((UNSUBSCRIBE, subscription, False))

    def resync(self, subscription: Subscription) -> None:
        """Unsubscribe and subscribe again, unless the topic is not granted or something is under way for it."""
        topic = subscription.topic
        if topic in self.active and topic not in self._busy():
            self._resync.add(topic)
            self._queue.append((UNSUBSCRIBE, subscription, False))

    def spend(self, now: float) -> None:
        """Count a request that is none of ours, a login, against the budget."""
        self._budget.take(now)

    def next_request(self, now: float) -> Request | None:
        """The next request to send, or None while there is none or the budget forbids it."""
        if not self._queue or now < self._hold_until or self._budget.wait(now) > 0:
            return None
        op, _, alone = self._queue[0]
        chosen: dict[str, Subscription] = {}
        size = 0
        while self._queue and self._queue[0][0] == op and (not chosen or not self._queue[0][2]):
            subscription = self._queue[0][1]
            size += len(subscription.topic.encode()) + 3
            if chosen and (len(chosen) >= self.limits.topics_per_request or size > self.limits.bytes_per_request):
                break
            chosen[subscription.topic] = subscription
            self._queue.popleft()
            if alone:
                break
        self._budget.take(now)
        request = Request(str(self._next_id), op, chosen, now + self.acknowledge_within)
        self._next_id += 1
        self._pending[request.id] = request
        return request

    def acknowledged(self, op: str, topic: str) -> bool:
        """One topic of some request was granted; False if nobody waits for that answer."""
        for request in self._pending.values():
            if request.op == op and topic in request.waiting:
                self._settle(request, topic)
                return True
        return False

    def request_acknowledged(self, request_id: str) -> bool:
        """A whole request was granted; False if it is unknown."""
        request = self._pending.get(request_id)
        if request is None:
            return False
        for topic in list(request.waiting):
            self._settle(request, topic)
        return True

    def request_failed(self, request_id: str, reason: str, *, passing: bool = False, now: float = 0.0) -> bool:
        """A whole request was refused; False if it is unknown.

        `passing` (rate limits, internal errors of the venue) asks again later, with a pause; otherwise the
        topics are asked for one by one, and a single one is refused.
        """
        request = self._pending.pop(request_id, None)
        if request is None:
            return False
        again = self._not_overtaken(request)
        if passing:
            self._hold_until = now + self.acknowledge_within
            self._queue.extendleft((request.op, s, len(request.waiting) == 1) for s in again)
        elif len(request.waiting) == 1:
            for topic, subscription in request.waiting.items():
                self._refuse(request.op, topic, subscription, reason)
        else:
            self._queue.extend((request.op, s, True) for s in again)
        return True

    def topic_failed(self, topic: str, reason: str) -> bool:
        """One topic of some request was refused for good; False if nobody waits for that answer."""
        for request in self._pending.values():
            if topic in request.waiting:
                subscription = request.waiting.pop(topic)
                self._refuse(request.op, topic, subscription, reason)
                self._forget_answered(request)
                return True
        return False

    def withdrawn(self, topic: str, reason: str) -> bool:
        """The venue ended a granted subscription by itself; False if it was not granted."""
        subscription = self.active.pop(topic, None)
        if subscription is None:
            return False
        self.refused[topic] = reason
        self._outcomes.append(Outcome(subscription, "refused", reason))
        return True

    def oldest_request(self, match: Callable[[Request], bool] = lambda request: True) -> Request | None:
        """The first unanswered request, for venues whose answers name none."""
        return next((request for request in self._pending.values() if match(request)), None)

    def next_deadline(self, now: float) -> float:
        """When an answer is overdue or the budget allows the next queued request."""
        if self.settled:
            return inf
        deadline = min((request.deadline for request in self._pending.values()), default=inf)
        if self._queue:
            deadline = min(deadline, max(self._hold_until, now + self._budget.wait(now)))
        return deadline

    def on_deadline(self, now: float) -> None:
        """Raises `DeadlineMissed` for a request without an answer."""
        for request in self._pending.values():
            if now >= request.deadline:
                topics = ", ".join(list(request.waiting)[:3])
                more = f" and {len(request.waiting) - 3} more" if len(request.waiting) > 3 else ""
                raise DeadlineMissed(f"{request.op} of {topics}{more}: no answer within {self.acknowledge_within:g} s")

    def outcomes(self) -> list[Outcome]:
        """Answers since the last call."""
        out, self._outcomes = self._outcomes, []
        return out

    def _heading(self) -> dict[str, str]:
        """The last operation of each topic, be it granted, on the way or still to be sent."""
        heading = dict.fromkeys(self.active, SUBSCRIBE)
        for request in self._pending.values():
            heading.update(dict.fromkeys(request.waiting, request.op))
        heading.update((subscription.topic, op) for op, subscription, _ in self._queue)
        heading.update(dict.fromkeys(self._resync, SUBSCRIBE))
        return heading

    def _not_overtaken(self, request: Request) -> list[Subscription]:
        """What of a failed request is worth repeating: topics of later requests have been decided anew."""
        later = self._busy()
        return [subscription for topic, subscription in request.waiting.items() if topic not in later]

    def _busy(self) -> set[str]:
        """Topics for which something is queued or unanswered."""
        busy = {topic for request in self._pending.values() for topic in request.waiting}
        busy.update(subscription.topic for _, subscription, _ in self._queue)
        return busy

    def _settle(self, request: Request, topic: str) -> None:
        subscription = request.waiting.pop(topic)
        if request.op == SUBSCRIBE:
            self.active[topic] = subscription
            self.refused.pop(topic, None)
            self._outcomes.append(Outcome(subscription, "subscribed"))
        else:
            self.active.pop(topic, None)
            if topic in self._resync:
                self._resync.discard(topic)
                self._queue.append((SUBSCRIBE, subscription, False))
            else:
                self._outcomes.append(Outcome(subscription, "unsubscribed"))
        self._forget_answered(request)

    def _refuse(self, op: str, topic: str, subscription: Subscription, reason: str) -> None:
        if op == UNSUBSCRIBE and topic in self._resync:
            # The venue does not know it as subscribed: what is wanted is still the subscription.
            self._resync.discard(topic)
            self.active.pop(topic, None)
            self._queue.append((SUBSCRIBE, subscription, False))
        elif op == SUBSCRIBE:
            self.refused[topic] = reason
            self._outcomes.append(Outcome(subscription, "refused", reason))
        else:
            self.refused.pop(topic, None)  # it was dropped before it was refused
            if self.active.pop(topic, None) is not None:
                self._outcomes.append(Outcome(subscription, "unsubscribed", reason))

    def _forget_answered(self, request: Request) -> None:
        if not request.waiting:
            self._pending.pop(request.id, None)
