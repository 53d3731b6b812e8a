"""An exchange reduced to one account, and a consumer that folds what is published of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import attrs
from msgspec.structs import replace

from pipeline.exchanges.accounts import Steps
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.account_events import FINAL
from pipeline.feeds.settings import ReconcileSettings
from pipeline.model.account import AccountEvent, Balance, Fill, Order, Position, SnapshotEnd
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Event, Micros, Origin

ACCOUNT = "account"
SETTINGS = ReconcileSettings()
START = 1_700_000_000
"""Seconds since 1970."""
ORDERS, FILLS, POSITIONS, BALANCES = (
    Subscription(channel, kind, channel, ACCOUNT, None, "private", needs_login=True)
    for channel, kind in (("order", "order"), ("execution", "fill"), ("position", "position"), ("wallet", "balance"))
)


def micros(second: int) -> Micros:
    return Micros((START + second) * 1_000_000)


@cache
def origin(instrument: str | None = "X", *, connection: str = "a#1", market: str = "linear") -> Origin:
    return Origin("toy", market if instrument else ACCOUNT, instrument, None, "main", connection)


def order(
    order_id: str,
    status: str = "new",
    second: int = 0,
    filled: int = 0,
    *,
    read: bool = False,
    instrument: str = "X",
    connection: str = "a#1",
) -> Order:
    return Order(
        origin(instrument, connection=connection),
        micros(second),
        micros(second),
        None,
        "order",
        read,
        order_id,
        status,
        status.title(),
        "buy",
        "limit",
        "base",
        "base",
        filled_size=DecimalText(str(filled)),
    )


def fill(
    fill_id: str,
    order_id: str = "1",
    second: int = 0,
    *,
    read: bool = False,
    instrument: str = "X",
    market: str = "linear",
    connection: str = "a#1",
) -> Fill:
    return Fill(
        origin(instrument, market=market, connection=connection),
        micros(second),
        micros(second),
        None,
        "execution",
        read,
        fill_id,
        "buy",
        DecimalText("1"),
        DecimalText("1"),
        "base",
        order_id=order_id,
    )


def position(
    size: int,
    second: int = 0,
    *,
    read: bool = False,
    instrument: str = "X",
    position_id: str | None = None,
    sequence: int | None = None,
    channel: str = "position",
    connection: str = "a#1",
) -> Position:
    return Position(
        origin(instrument, connection=connection),
        micros(second),
        micros(second),
        sequence,
        channel,
        read,
        "long" if size > 0 else "short" if size < 0 else "flat",
        DecimalText(str(abs(size))),
        "base",
        position_id,
    )


def balance(
    total: str, second: int = 0, *, read: bool = False, currency: str | None = "USDT", connection: str = "a#1"
) -> Balance:
    return Balance(
        origin(None, connection=connection),
        micros(second),
        micros(second),
        None,
        "wallet",
        read,
        currency,
        total=DecimalText(total),
    )


def positions_end(second: int = 0, *, connection: str = "a#1", market: str | None = None) -> SnapshotEnd:
    head = (origin(None, connection=connection), micros(second), micros(second), None)
    return SnapshotEnd(*head, "position", "position", market)


@attrs.frozen
class Facts:
    """All that is true at one moment."""

    second: int = 0
    orders: tuple[Order, ...] = ()
    """All that ever were, as they stand."""
    fills: tuple[Fill, ...] = ()
    positions: tuple[Position, ...] = ()
    """Flat ones as well."""
    balances: tuple[Balance, ...] = ()

    def open_orders(self) -> list[Order]:
        return [each for each in self.orders if each.status not in FINAL]

    def held(self) -> list[Position]:
        return [each for each in self.positions if each.side != "flat"]


@attrs.define(eq=False)
class ModelExchange:
    """Trades at once as it is told; remembers what was true at every moment, to answer with what is no longer."""

    history: list[Facts] = attrs.field(factory=lambda: [Facts()])
    listener: Callable[[Event], None] = attrs.field(default=lambda event: None)
    """Hears every change, at once."""

    @property
    def now(self) -> Facts:
        return self.history[-1]

    def seen(self, lag: int) -> Facts:
        """What a query is told that is `lag` changes late."""
        return self.history[max(0, len(self.history) - 1 - lag)]

    def pass_time(self, seconds: int) -> None:
        self._become(attrs.evolve(self.now, second=self.now.second + seconds))

    def place(self, instrument: str) -> None:
        second = self.now.second
        self._tell([order(str(len(self.now.orders)), second=second, instrument=instrument)])

    def trade(self, order_id: str, *, last: bool, reverse: bool) -> None:
        """An order is filled by one; the topics have no order among each other."""
        before = next(each for each in self.now.orders if each.order_id == order_id)
        second, instrument = self.now.second, str(before.origin.instrument)
        filled = int(before.filled_size or 0) + 1
        sizes = {
            each.origin.instrument: (-1 if each.side == "short" else 1) * int(each.size) for each in self.now.positions
        }
        size = sizes.get(instrument, 0) + (1 if int(order_id) % 2 else -1)
        sequence = len(self.history)
        events: list[Event] = [
            order(order_id, "filled" if last else "partially_filled", second, filled, instrument=instrument),
            fill(f"{order_id}-{filled}", order_id, second, instrument=instrument),
            position(size, second, instrument=instrument, sequence=sequence),
        ]
        self._tell(reversed(events) if reverse else events)

    def cancel(self, order_id: str) -> None:
        before = next(each for each in self.now.orders if each.order_id == order_id)
        instrument, filled = str(before.origin.instrument), int(before.filled_size or 0)
        self._tell([order(order_id, "cancelled", self.now.second, filled, instrument=instrument)])

    def transfer(self, currency: str, total: int) -> None:
        self._tell([balance(str(total), self.now.second, currency=currency)])

    def _tell(self, events: Iterable[Event]) -> None:
        facts = self.now
        events = list(events)
        for event in events:
            if isinstance(event, Order):
                others = tuple(each for each in facts.orders if each.order_id != event.order_id)
                facts = attrs.evolve(facts, orders=(*others, event))
            elif isinstance(event, Fill):
                facts = attrs.evolve(facts, fills=(*facts.fills, event))
            elif isinstance(event, Position):
                other = tuple(each for each in facts.positions if each.origin.instrument != event.origin.instrument)
                facts = attrs.evolve(facts, positions=(*other, event))
            elif isinstance(event, Balance):
                rest = tuple(each for each in facts.balances if each.currency != event.currency)
                facts = attrs.evolve(facts, balances=(*rest, event))
        self._become(facts)
        for event in events:
            self.listener(event)

    def _become(self, facts: Facts) -> None:
        self.history.append(facts)


@attrs.define(eq=False)
class ModelReader:
    """Queries of a `ModelExchange`, two pages each, that can come late by some changes."""

    exchange: ModelExchange
    connection: str
    lag: Callable[[], int]
    streams_positions: bool = False
    """Whether the stream sends positions as a whole itself, so that they are not read."""
    forgets: bool = False
    """Whether cancelled orders without fills cannot be asked for."""

    def snapshot(self, subscription: Subscription) -> Callable[[], Steps[list[Event]]] | None:
        if subscription is FILLS or (subscription.kind == "position" and self.streams_positions):
            return None
        return lambda: self._pages(lambda facts: self._state(subscription, facts))

    def fills(self, subscription: Subscription, since: Micros) -> Callable[[], Steps[list[Event]]] | None:
        if subscription is not FILLS:
            return None
        return lambda: self._pages(lambda facts: [each for each in facts.fills if (each.exchange_time or 0) >= since])

    def order(self, lost: Order) -> Callable[[], Steps[list[Event]]] | None:
        return lambda: self._one(lost)

    def _one(self, lost: Order) -> Steps[list[Event]]:
        yield "order"
        known = [each for each in self.exchange.seen(self.lag()).orders if each.order_id == lost.order_id]
        if self.forgets:
            known = [each for each in known if each.status != "cancelled" or each.filled_size != "0"]
        return [self._read(each) for each in known]

    def _pages(self, rows: Callable[[Facts], list[Event]]) -> Steps[list[Event]]:
        """One page per instrument, each of its own moment."""
        events: list[Event] = []
        for is_first in (True, False):
            yield "page"
            page = rows(self.exchange.seen(self.lag()))
            events += [self._read(each) for each in page if (each.origin.instrument == "X") == is_first]
        return sorted(events, key=lambda event: event.exchange_time or 0)

    def _state(self, subscription: Subscription, facts: Facts) -> list[Event]:
        if subscription is ORDERS:
            return [*facts.open_orders()]
        if subscription.kind == "position":
            return [*facts.held()]
        return [each for each in facts.balances if each.total != "0"]

    def _read(self, event: Event) -> Event:
        assert isinstance(event, AccountEvent)
        return replace(event, origin=attrs.evolve(event.origin, connection=self.connection), is_snapshot=True)


@attrs.define(eq=False)
class Consumer:
    """Takes the last word for what is; complains about what must never be published."""

    orders: dict[str, Order] = attrs.field(factory=dict)
    positions: dict[str, Position] = attrs.field(factory=dict)
    balances: dict[str, Balance] = attrs.field(factory=dict)
    fills: list[Fill] = attrs.field(factory=list)
    _times: dict[tuple[str, str], int] = attrs.field(factory=dict)

    def publish(self, event: Event) -> bool:
        if isinstance(event, Order):
            before = self.orders.get(event.order_id)
            assert before is None or before.status not in FINAL or event.status in FINAL, "an order came back"
            self._in_order(event, event.order_id)
            self.orders[event.order_id] = event
        elif isinstance(event, Position):
            self._in_order(event, str(event.origin.instrument))
            self.positions[str(event.origin.instrument)] = event
        elif isinstance(event, Balance):
            # Some venues' answers about balances have no time of their own, so nothing live is dropped for them.
            if event.is_snapshot:
                self._in_order(event, str(event.currency))
            self.balances[str(event.currency)] = event
        elif isinstance(event, Fill):
            assert event.fill_id not in {each.fill_id for each in self.fills}, "published twice"
            self.fills.append(event)
        else:
            raise AssertionError(f"{event.KIND} is not for consumers")
        return True

    def _in_order(self, event: Event, name: str) -> None:
        if event.exchange_time is not None:
            key = (event.KIND, name)
            assert event.exchange_time >= self._times.get(key, 0), "older than what was published before"
            self._times[key] = event.exchange_time
