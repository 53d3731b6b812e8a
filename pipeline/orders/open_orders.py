"""The open orders of an account, as its order events and our own commands tell: to count them, and for amendments.

The private stream is what counts. What was sent a moment ago counts too, until the stream, an answer, or its failure
tells more: otherwise a burst of commands would pass a limit that each of them keeps. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from pipeline.exchanges.trading import TradeItem
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText

OPEN = frozenset({"new", "partially_filled", "untriggered", "triggered"})
"""What an order is while it can still be filled or cancelled."""

CONFIRMED_WITHIN = 60.0
"""Seconds after which an order that the stream has never shown is over without our having seen it."""
MAX_ENDED = 10_000
"""Orders known to be over: a late acknowledgement must not open them again."""


@attrs.frozen
class KnownOrder:
    """An open order as far as it is known."""

    market: str
    instrument: str
    client_order_id: str | None
    order_id: str | None
    """None until the venue has answered."""
    order_type: str | None = None
    price: DecimalText | None = None
    size: DecimalText | None = None
    size_unit: str | None = None
    is_reduce_only: bool = False
    unconfirmed_since: float | None = None
    """When it was sent, in seconds of the run's monotonic clock, while the stream has not shown it."""


@attrs.define(eq=False)
class OpenOrders:
    """One account's. Orders are found by either identifier; the venue's is unique, ours among open ones."""

    _orders: dict[int, KnownOrder] = attrs.field(factory=dict, init=False)
    """By a number of our own, for the identifiers come one after the other."""
    _by_client_id: dict[str, int] = attrs.field(factory=dict, init=False)
    _by_order_id: dict[str, int] = attrs.field(factory=dict, init=False)
    _ended: dict[str, None] = attrs.field(factory=dict, init=False)
    """Identifiers of both kinds, the oldest first."""
    _next: int = attrs.field(default=0, init=False)

    @property
    def count(self) -> int:
        """How many there are, those on their way included."""
        return len(self._orders)

    def __iter__(self) -> Iterator[KnownOrder]:
        return iter(list(self._orders.values()))

    def find(self, client_order_id: str | None, order_id: str | None) -> KnownOrder | None:
        """The open order of these identifiers; None if none is known."""
        number = self._number(client_order_id, order_id)
        return None if number is None else self._orders[number]

    def sent(self, trade: TradeItem, now: float) -> None:
        """An order is about to be created: it counts from now on."""
        if self._number(trade.item.client_order_id, None) is None:
            self._put(_expected(trade, None, now))

    def created(self, trade: TradeItem, order_id: str | None, now: float) -> None:
        """The venue has taken an order. It may be over already: then the stream was quicker."""
        item = trade.item
        names = {name for name in (item.client_order_id, order_id) if name is not None}
        number = self._number(item.client_order_id, order_id)
        if not names & self._ended.keys():
            known = self._orders[number] if number is not None else _expected(trade, order_id, now)
            self._put(attrs.evolve(known, order_id=order_id or known.order_id), number)
        elif number is not None:
            self._drop(number)

    def failed(self, trade: TradeItem) -> None:
        """An order that was sent does not exist: rejected, or it never arrived."""
        number = self._number(trade.item.client_order_id, None)
        if number is not None and self._orders[number].order_id is None:
            self._drop(number)

    def expire(self, now: float) -> None:
        """Give up orders that the stream should have shown long ago: it was away while they came and went."""
        for number, order in list(self._orders.items()):
            if order.unconfirmed_since is not None and now - order.unconfirmed_since > CONFIRMED_WITHIN:
                self._drop(number)

    def observed(self, order: Order) -> None:
        """Take an order event of the account: a change, or part of what a query found."""
        number = self._number(order.client_order_id, order.order_id)
        if order.status in OPEN:
            if order.order_id not in self._ended:
                self._put(_shown(order), number)
            return
        if number is not None:
            self._drop(number)
        for name in (order.order_id, order.client_order_id):
            if name:
                self._end(name)

    def _number(self, client_order_id: str | None, order_id: str | None) -> int | None:
        if order_id and (number := self._by_order_id.get(order_id)) is not None:
            return number
        number = self._by_client_id.get(client_order_id) if client_order_id else None
        if number is not None and order_id and self._orders[number].order_id not in (None, order_id):
            return None  # an earlier order of the same name
        return number

    def _put(self, order: KnownOrder, number: int | None = None) -> None:
        if number is None:
            number = self._next
            self._next += 1
        else:
            self._drop(number)
        self._orders[number] = order
        if order.client_order_id:
            self._by_client_id[order.client_order_id] = number
        if order.order_id:
            self._by_order_id[order.order_id] = number

    def _drop(self, number: int) -> None:
        order = self._orders.pop(number)
        for names, name in ((self._by_client_id, order.client_order_id), (self._by_order_id, order.order_id)):
            if name and names.get(name) == number:
                del names[name]

    def _end(self, name: str) -> None:
        self._ended.pop(name, None)
        self._ended[name] = None
        while len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]


def _expected(trade: TradeItem, order_id: str | None, now: float) -> KnownOrder:
    item = trade.item
    return KnownOrder(
        item.market,
        item.instrument,
        item.client_order_id,
        order_id,
        item.order_type,
        item.price,
        item.size,
        item.size_unit or trade.instrument.size_unit,
        item.is_reduce_only,
        now,
    )


def _shown(order: Order) -> KnownOrder:
    return KnownOrder(
        order.origin.market,
        order.origin.instrument or "",
        order.client_order_id,
        order.order_id,
        order.order_type,
        order.price,
        order.size,
        order.size_unit,
        bool(order.is_reduce_only),
    )
