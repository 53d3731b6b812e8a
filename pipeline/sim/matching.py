"""Matching in front of the accounts: orders that clients enter meet the generated market, never each other.

What crosses the book takes from it, what does not rests: it fills when the market trades through its price. Orders that
a test has placed on an account by hand are left to that test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Literal

import attrs

from pipeline.sim.accounts import Order, SimulatedAccount
from pipeline.sim.floor import Floor
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine
from pipeline.sim.worth import is_spot, value_of

Problem = Literal[
    "price_step", "size_step", "too_small", "too_large", "too_little_value", "duplicate", "nothing_to_reduce",
    "too_much_to_reduce", "too_many", "unknown", "filled", "closed", "below_filled", "unchanged", "no_market",
]  # fmt: skip
Ending = Literal["unfilled", "post_only", "reduced"]
"""Why the exchange ends an order itself: nothing to fill it with at once, it would take, nothing is left to reduce."""

POST_ONLY = ("PostOnly", "MMPPostOnly")
AT_ONCE = ("IOC", "FOK")

_NOTHING = Decimal(0)


class OrderRefused(Exception):
    """The exchange does not take it; the venue has a code for the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem: Problem = problem


@attrs.frozen
class Bounds:
    """What an instrument's orders must keep to; None: no bound."""

    least: Decimal
    most: Decimal | None = None
    least_value: Decimal | None = None
    most_open: int | None = None
    """Open orders in it."""


@attrs.frozen
class Rules:
    """Where the venues differ."""

    bounds: Callable[[Listing], Bounds]
    end: Callable[[SimulatedAccount, Order, Ending], None]
    """Close the order in the venue's way."""
    unique_for_ever: bool
    """Whether a client order id stays taken when its order is closed."""
    trims_reductions: bool
    """Whether a reduce-only order that is larger than the position is made smaller, not refused."""


@attrs.frozen
class NewOrder:
    """What a client asks for, read from the venue's words."""

    listing: Listing
    side: str
    order_type: str
    time_in_force: str
    price: Decimal | None
    """None: a market order."""
    size: Decimal
    in_quote: bool = False
    """The size is a value in quote currency (spot market orders)."""
    client_order_id: str = ""
    reduce_only: bool = False


@attrs.define(eq=False)
class Matching:
    """All accounts of a venue before its engines. Methods raise `OrderRefused`."""

    floor: Floor
    rules: Rules
    _resting: dict[Engine, dict[str, SimulatedAccount]] = attrs.field(factory=dict, init=False)
    """Orders that wait for the market, by identifier."""
    _used: dict[str, set[str]] = attrs.field(factory=dict, init=False)
    """Client order ids so far, by account."""

    def create(self, account: SimulatedAccount, new: NewOrder) -> Order:
        """Take an order and match it; how it stands then."""
        listing = new.listing
        engine = self.floor.market.engine(listing)
        size = self._in_base(engine, new) if new.in_quote else new.size
        if new.reduce_only:
            size = self._reducing(account, new, size)
        self._check(account, new, size)
        order_id = account.place(
            listing.market, listing.symbol, new.side, new.price, size, client_order_id=new.client_order_id,
            reduce_only=new.reduce_only, order_type=new.order_type, time_in_force=new.time_in_force,
            quote_size=new.size if new.in_quote else None,
        )  # fmt: skip
        self._used.setdefault(account.name, set()).add(new.client_order_id)
        return self._match(account, order_id, engine)

    def amend(self, account: SimulatedAccount, order: Order, price: Decimal | None, size: Decimal | None) -> Order:
        """Another price or whole size; it may cross then."""
        listing = self.floor.market.find(order.market, order.symbol)
        if listing is None:
            raise OrderRefused("unknown")
        if price in (None, order.price) and size in (None, order.size):
            raise OrderRefused("unchanged")
        self._check_steps(listing, price, order.size if size is None else size)
        if size is not None and size <= order.filled:
            raise OrderRefused("below_filled")
        account.amend(order.order_id, price=price, size=size)
        return self._match(account, order.order_id, self.floor.market.engine(listing))

    def cancel(self, account: SimulatedAccount, order: Order, reason: str = "") -> Order:
        """Close an open order."""
        account.cancel(order.order_id, reason)
        return account.orders[order.order_id]

    def cancel_all(self, account: SimulatedAccount, wanted: Callable[[Order], bool], reason: str) -> int:
        """Close the wanted open orders; how many."""
        orders = [order for order in account.open_orders() if wanted(order)]
        for order in orders:
            account.cancel(order.order_id, reason)
        return len(orders)

    def find(self, account: SimulatedAccount, market: str, symbol: str, order_id: str, client_order_id: str) -> Order:
        """The order that is meant, if it is open; the identifier counts more than the client's."""
        order = account.orders.get(order_id) if order_id else self.latest(account, client_order_id)
        if order is None or (order.market, order.symbol) != (market, symbol):
            raise OrderRefused("unknown")
        if not order.is_open:
            raise OrderRefused("filled" if order.status == "filled" else "closed")
        return order

    def latest(self, account: SimulatedAccount, client_order_id: str) -> Order | None:
        """The last order under a client order id."""
        orders = reversed(account.orders.values())
        return next((each for each in orders if each.client_order_id == client_order_id), None)

    def _check(self, account: SimulatedAccount, new: NewOrder, size: Decimal) -> None:
        bounds = self.rules.bounds(new.listing)
        self._check_steps(new.listing, new.price, size)
        if new.client_order_id and self._is_taken(account, new.client_order_id):
            raise OrderRefused("duplicate")
        worth = value_of(new.listing, new.price or account.mark(new.listing), size)
        if bounds.least_value is not None and worth < bounds.least_value and not new.reduce_only:
            raise OrderRefused("too_little_value")
        here = [each for each in account.open_orders() if each.symbol == new.listing.symbol]
        if bounds.most_open is not None and len(here) >= bounds.most_open:
            raise OrderRefused("too_many")

    def _check_steps(self, listing: Listing, price: Decimal | None, size: Decimal) -> None:
        bounds = self.rules.bounds(listing)
        if price is not None and price % listing.tick:
            raise OrderRefused("price_step")
        if size < bounds.least:
            raise OrderRefused("too_small")
        if bounds.most is not None and size > bounds.most:
            raise OrderRefused("too_large")
        if size % listing.lot:
            raise OrderRefused("size_step")

    def _is_taken(self, account: SimulatedAccount, client_order_id: str) -> bool:
        if self.rules.unique_for_ever:
            known = client_order_id in self._used.get(account.name, ())
            return known or self.latest(account, client_order_id) is not None
        return any(each.client_order_id == client_order_id for each in account.open_orders())

    def _reducing(self, account: SimulatedAccount, new: NewOrder, size: Decimal) -> Decimal:
        closable = self._closable(account, new.listing, new.side)
        if not closable:
            raise OrderRefused("nothing_to_reduce")
        if size > closable and not self.rules.trims_reductions:
            raise OrderRefused("too_much_to_reduce")
        return min(size, closable)

    def _closable(self, account: SimulatedAccount, listing: Listing, side: str) -> Decimal:
        """How much of the position an order of this side can close."""
        if is_spot(listing):
            return _NOTHING
        size = account.position(listing.market, listing.symbol).size
        return max(_NOTHING, -size if side == "buy" else size)

    def _in_base(self, engine: Engine, new: NewOrder) -> Decimal:
        """What a value in quote currency buys or sells in the book as it is."""
        side, left, lots = engine.asks if new.side == "buy" else engine.bids, new.size, 0
        for price, here in side.top(len(side)).items():
            cost = engine.listing.tick * price * engine.listing.lot
            part = min(here, int(left / cost))
            lots, left = lots + part, left - part * cost
            if part < here:
                break
        if not lots:
            raise OrderRefused("too_little_value")
        return engine.listing.lot * lots

    def _match(self, account: SimulatedAccount, order_id: str, engine: Engine) -> Order:
        order, listing = account.orders[order_id], engine.listing
        buy, limit = order.side == "buy", None if order.price is None else int(order.price / listing.tick)
        opposite = engine.asks if buy else engine.bids
        if order.time_in_force in POST_ONLY and opposite.reaches(limit):
            self.rules.end(account, order, "post_only")
            return account.orders[order_id]
        lots = self._lots(account, listing, order)
        if order.time_in_force != "FOK" or engine.available(buy=buy, limit=limit) >= lots:
            for price, part in engine.take(buy=buy, limit=limit, lots=lots):
                account.fill(order_id, listing.lot * part, listing.tick * price, maker=False)
        order = account.orders[order_id]
        if order.is_open and (order.time_in_force in AT_ONCE or order.price is None):
            self.rules.end(account, order, "unfilled")
        elif order.is_open:
            self._follow(engine)[order_id] = account
        return account.orders[order_id]

    def _lots(self, account: SimulatedAccount, listing: Listing, order: Order) -> int:
        """What an order may still trade."""
        size = order.remaining
        if order.reduce_only:
            size = min(size, self._closable(account, listing, order.side))
        return int(size / listing.lot)

    def _follow(self, engine: Engine) -> dict[str, SimulatedAccount]:
        if engine not in self._resting:
            self._resting[engine] = {}
            engine.followers.append(self._moved)
            self.floor.touch()
        return self._resting[engine]

    def _moved(self, engine: Engine) -> None:
        """The market has made a step: fill what it reached."""
        for buy in (True, False):
            orders = [each for each in self._still_open(engine) if (each[1].side == "buy") == buy]
            orders.sort(key=lambda each: _rank(each[1], buy=buy))
            self._fill_resting(engine, orders, buy=buy)
        resting = {order.order_id: account for account, order in self._still_open(engine)}
        if resting:
            self._resting[engine] = resting
        else:
            del self._resting[engine]
            engine.followers.remove(self._moved)
            self.floor.touch()

    def _still_open(self, engine: Engine) -> list[tuple[SimulatedAccount, Order]]:
        """Without those that others have closed; of a delisted instrument none, its orders are a test's business."""
        listing = engine.listing
        if self.floor.market.find(listing.market, listing.symbol) is not listing:
            return []
        found = [(account, account.orders.get(order_id)) for order_id, account in self._resting[engine].items()]
        return [(account, order) for account, order in found if order is not None and order.is_open]

    def _fill_resting(self, engine: Engine, orders: Iterable[tuple[SimulatedAccount, Order]], *, buy: bool) -> None:
        """Best price first: from this step's trades beyond an order's price, then from a book that crosses it."""
        listing = engine.listing
        prints = [[fill.price, fill.lots] for fill in engine.fills if fill.buy != buy and not fill.outside]
        for account, order in orders:
            limit = int((order.price or _NOTHING) / listing.tick)
            lots = wanted = self._lots(account, listing, order)
            if not wanted:
                self.rules.end(account, order, "reduced")
                continue
            for printed in prints:
                if printed[0] < limit if buy else printed[0] > limit:
                    part = min(lots, printed[1])
                    printed[1] -= part
                    lots -= part
            lots -= sum(part for _, part in engine.take(buy=buy, limit=limit, lots=lots))
            if wanted > lots:
                account.fill(order.order_id, listing.lot * (wanted - lots), order.price)


def _rank(order: Order, *, buy: bool) -> tuple[Decimal, int]:
    price = order.price or _NOTHING
    return (-price if buy else price), order.created_us
