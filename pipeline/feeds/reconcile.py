"""What has to be read over REST at each (re)connect of an account, in which order, and what is made of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

import attrs

from pipeline.exchanges.accounts import WHOLE_ACCOUNT, AccountReader, Steps
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.account_memory import AccountMemory, Scope
from pipeline.feeds.errands import Errand
from pipeline.feeds.settings import ReconcileSettings
from pipeline.model.account import Order
from pipeline.model.events import Event, Micros


@attrs.define(eq=False)
class Round:
    """One reading of everything."""

    published: Counter[str] = attrs.field(factory=Counter)
    """Events by kind."""
    refused: list[str] = attrs.field(factory=list)
    """What the venue did not answer, with its reason."""
    outstanding: int = 0
    """Errands that are neither done nor refused."""


@attrs.frozen
class _Answer:
    """What was read, and since when the stream may know better."""

    events: list[Event]
    mark: int
    started: Micros


@attrs.define(eq=False, kw_only=True)
class Reconciler:
    """One connection's part in keeping an account complete; not reused by the next connection.

    Begin a round when the subscriptions are granted, and another one `pause` seconds after each that has finished.
    """

    connection: str
    """Identifier and generation, for what is published without having been read."""
    reader: AccountReader
    memory: AccountMemory
    subscriptions: Sequence[Subscription]
    """Those that were granted."""
    settings: ReconcileSettings
    publish: Callable[[Event], bool]
    clock: Callable[[], int]
    """The venue's time, in microseconds."""
    add: Callable[[Errand], None]
    """Queues what an answer makes necessary."""
    over: Callable[[Round], None]
    """Told of a round that came to its end."""
    _current: Round | None = attrs.field(default=None, init=False)
    _rounds: int = attrs.field(default=0, init=False)

    @property
    def pause(self) -> float | None:
        """Seconds from the end of a round to the next; None for no other.

        The first round on a connection is repeated soon: venues warn that queries lag, so that what happened just
        before may not have been in it. So is one that left open what became of an order.
        """
        again = self._rounds == 1 or self.memory.in_doubt
        return self.settings.overlap if again else self.settings.every

    def begin(self) -> list[Errand]:
        """The errands of a new round; none while the last one is under way."""
        if self._current is not None:
            return []
        self._current = Round()
        self._rounds += 1
        # Fills first: a position or an order holds the fills up to its query, so a consumer that adds fills to what it
        # was told last would count those twice that come after it. And an order's end is the last word about it.
        errands = [*self._fill_errands(), *self._state_errands()]
        if not errands:
            self._finish(self._current)
        return errands

    def _fill_errands(self) -> Iterable[Errand]:
        for subscription in self.subscriptions:
            topic = subscription.topic
            since = self.memory.fills_since(topic, Micros(self.clock()))
            make = self.reader.fills(subscription, since)
            if make is not None:
                when = datetime.fromtimestamp(since / 1e6, UTC).isoformat(" ", "seconds")
                yield self._errand(f"{topic}: fills since {when}", make, partial(self._fills, topic))

    def _state_errands(self) -> Iterable[Errand]:
        for subscription in self.subscriptions:
            make = self.reader.snapshot(subscription)
            if make is not None:
                yield self._errand(f"{subscription.topic}: present state", make, partial(self._state, subscription))

    def _errand(
        self, what: str, make: Callable[[], Steps[list[Event]]], take: Callable[[_Answer, Round], None]
    ) -> Errand:
        round_ = self._current
        assert round_ is not None
        round_.outstanding += 1

        def done(answer: _Answer) -> None:
            take(answer, round_)
            self._settled(round_)

        def refused(reason: str) -> None:
            round_.refused.append(f"{what}: {reason}")
            self._settled(round_)

        return Errand(what, partial(self._steps, make), done, refused)

    def _steps(self, make: Callable[[], Steps[list[Event]]]) -> Steps[_Answer]:
        # Runs at the first step, however long the errand has been queued.
        mark, started = self.memory.mark(), Micros(self.clock())
        events = yield from make()
        return _Answer(events, mark, started)

    def _fills(self, topic: str, answer: _Answer, round_: Round) -> None:
        self._publish(self.memory.fills(topic, answer.events, answer.started), round_)

    def _state(self, subscription: Subscription, answer: _Answer, round_: Round) -> None:
        market = subscription.market if subscription.market != WHOLE_ACCOUNT else None
        scope = Scope(subscription.channel, market)
        events, vanished = self.memory.complete(
            scope, subscription.kind, answer.events, answer.mark, Micros(self.clock()), self.connection
        )
        self._publish(events, round_)
        for order in vanished:
            make = self.reader.order(order)
            if make is None:
                self._order(order, attrs.evolve(answer, events=[]), round_)
            else:
                self.add(self._errand(f"{order.channel}: order {order.order_id}", make, partial(self._order, order)))

    def _order(self, order: Order, answer: _Answer, round_: Round) -> None:
        now = Micros(self.clock())
        self._publish(self.memory.answered(order, answer.events, answer.mark, now, self.connection), round_)

    def _publish(self, events: Iterable[Event], round_: Round) -> None:
        for event in events:
            if self.publish(event):
                round_.published[event.KIND] += 1

    def _settled(self, round_: Round) -> None:
        round_.outstanding -= 1
        if not round_.outstanding:
            self._finish(round_)

    def _finish(self, round_: Round) -> None:
        self._publish(self.memory.flats(Micros(self.clock()), self.connection), round_)
        self._current = None
        self.over(round_)
