"""Accounts of a simulated exchange: orders, fills, positions and balances in exact decimals, in no venue's words.

Nothing here matches (`matching` does): whoever holds an account decides what is filled and when, with a connection open
or without.
Every action tells its changes to the listeners at once, and the venue's dialect makes messages of them.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal

import attrs

from pipeline.sim.clock import SimulatedClock
from pipeline.sim.floor import Market
from pipeline.sim.listing import Listing
from pipeline.sim.settings import Account
from pipeline.sim.worth import SCALE, average_of, fee_of, is_spot, profit, rounded, value_of

CLOSED_KEPT = 1000
"""Closed orders that an account remembers."""
FILLS_KEPT = 100_000
OPEN = ("new", "partially_filled")
_NOTHING = Decimal(0)

Number = Decimal | str | int


@attrs.frozen
class Order:
    """An order as it stands; each change makes a new one."""

    order_id: str
    client_order_id: str
    market: str
    symbol: str
    side: str
    """"buy" or "sell"."""
    order_type: str
    """"limit" or "market"."""
    time_in_force: str
    """GTC, IOC, FOK or PostOnly."""
    price: Decimal | None
    """None: a market order."""
    size: Decimal
    reduce_only: bool
    created_us: int
    updated_us: int
    status: str = "new"
    """new, partially_filled, filled, cancelled, rejected or expired."""
    filled: Decimal = _NOTHING
    value: Decimal = _NOTHING
    """Of what is filled: quote currency, inverse contracts base."""
    average_price: Decimal | None = None
    fees: Mapping[str, Decimal] = attrs.Factory(dict)
    """Coin to amount so far; positive: paid."""
    pnl: Decimal = _NOTHING
    """Realized by this order's fills, before fees."""
    reason: str = ""
    """Why it was cancelled, rejected or expired, in the venue's word or none."""
    quote_size: Decimal | None = None
    """What was asked for, of a market order whose size was given in quote currency."""

    @property
    def is_open(self) -> bool:
        """Whether it can still be filled."""
        return self.status in OPEN

    @property
    def remaining(self) -> Decimal:
        """What can still be filled: nothing of a closed order."""
        return self.size - self.filled if self.is_open else _NOTHING


@attrs.frozen
class Fill:
    """A fill of an order, or a booking that venues list among them."""

    fill_id: str
    kind: str
    """"trade" or "funding"."""
    sequence: int
    """Rises with every fill of the account."""
    order: Order | None
    """As it stands after this fill; None for a booking."""
    market: str
    symbol: str
    side: str
    price: Decimal
    size: Decimal
    value: Decimal
    fee: Decimal
    """Positive: paid. Of kind funding: the funding."""
    fee_coin: str
    fee_rate: Decimal
    maker: bool
    pnl: Decimal
    """Realized by closing, before fees."""
    closed: Decimal
    """So much of `size` closed a position."""
    mark: Decimal | None
    time_us: int


@attrs.frozen
class Position:
    """The position in one instrument (one-way mode), or what is left of it when it is flat."""

    market: str
    symbol: str
    size: Decimal = _NOTHING
    """Negative: short."""
    entry_price: Decimal = _NOTHING
    pnl: Decimal = _NOTHING
    """Since it was opened, as `fees` and `funding`: before both."""
    fees: Decimal = _NOTHING
    """Positive: paid, as `funding`."""
    funding: Decimal = _NOTHING
    total_pnl: Decimal = _NOTHING
    """Of all time, after fees and funding."""
    sequence: int | None = None
    """Of the last fill; None if it was never traded."""
    created_us: int = 0
    """When this instrument was first traded."""
    opened_us: int = 0
    updated_us: int = 0

    @property
    def realized(self) -> Decimal:
        """Since it was opened, after fees and funding."""
        return self.pnl - self.fees - self.funding


@attrs.frozen
class Balance:
    """What an account has of one coin."""

    coin: str
    total: Decimal = _NOTHING
    locked: Decimal = _NOTHING
    """Promised to open spot orders, part of `total`."""
    total_pnl: Decimal = _NOTHING
    """Of all time, after fees and funding."""
    updated_us: int = 0


@attrs.frozen
class OrderChanged:
    """`cause`: placed, amended, filled, cancelled, rejected or expired."""

    cause: str
    order: Order
    fill: Fill | None = None
    """The fill that changed it."""


@attrs.frozen
class Filled:
    """A fill, or a booking among fills."""

    fill: Fill


@attrs.frozen
class PositionChanged:
    """`cause`: filled or funding."""

    cause: str
    position: Position


@attrs.frozen
class BalanceChanged:
    """`cause`: as of orders; deposited or funding."""

    cause: str
    balance: Balance


Change = OrderChanged | Filled | PositionChanged | BalanceChanged
Listener = Callable[["SimulatedAccount", tuple[Change, ...]], None]
"""Told the changes of one action together: order, fill, position, balances; the account is in its new state."""

Identify = Callable[[int, str, int], str]
"""The identifier of an account's n-th "order" or "fill", in the venue's form."""


def uuids(account: int, kind: str, number: int) -> str:
    """Random-looking form, the same one for the same number."""
    return str(uuid.UUID(int=(ord(kind[0]) << 112) + (account << 80) + number, version=4))


def digits(account: int, kind: str, number: int) -> str:
    """Decimal digits, rising."""
    return str({"order": 680, "fill": 130}[kind] * 10**12 + account * 10**9 + number)


@attrs.define(eq=False)
class SimulatedAccount:
    """One account. Methods neither wait nor check what it can afford; they raise `ValueError` naming the argument."""

    settings: Account
    index: int
    """Counted from 0 over the venue's accounts."""
    market: Market
    clock: SimulatedClock
    identify: Identify
    listeners: list[Listener] = attrs.field(factory=list, init=False)
    revoked: str = attrs.field(default="", init=False)
    """"revoked" or "expired" once the key is refused."""
    orders: dict[str, Order] = attrs.field(factory=dict, init=False)
    """By identifier, oldest first: the open ones and the last `CLOSED_KEPT` closed ones."""
    fills: deque[Fill] = attrs.field(factory=lambda: deque(maxlen=FILLS_KEPT), init=False)
    """Oldest first."""
    positions: dict[tuple[str, str], Position] = attrs.field(factory=dict, init=False)
    """By market and symbol, flat ones included."""
    balances: dict[str, Balance] = attrs.field(factory=dict, init=False)
    """By coin."""
    sequence: int = attrs.field(default=0, init=False)
    """Of the last fill."""
    _closed: deque[str] = attrs.field(factory=deque, init=False)
    _placed: int = attrs.field(default=0, init=False)

    @property
    def name(self) -> str:
        """What the control interface calls it."""
        return self.settings.name or self.settings.key

    def place(
        self,
        market: str,
        symbol: str,
        side: str,
        price: Number | None,
        size: Number,
        *,
        client_order_id: str = "",
        reduce_only: bool = False,
        order_type: str = "limit",
        time_in_force: str = "GTC",
        quote_size: Decimal | None = None,
    ) -> str:
        """Accept an order, which then rests; returns its identifier. `price` is None for a market order only."""
        listing, now_us = self._listing(market, symbol), self.clock.now_us()
        if side not in ("buy", "sell"):
            raise ValueError(f'side: {side!r} is neither "buy" nor "sell"')
        if order_type not in ("limit", "market"):
            raise ValueError(f'order_type: {order_type!r} is neither "limit" nor "market"')
        if (price is None) != (order_type == "market"):
            raise ValueError(f"price: a {order_type} order has {'a' if price is None else 'no'} price")
        if client_order_id and any(each.client_order_id == client_order_id for each in self.open_orders()):
            raise ValueError(f"client_order_id: {client_order_id} is that of an open order")
        limit = None if price is None else _amount("price", price)
        amount = _amount("size", size)
        self._placed += 1
        order = Order(
            self.identify(self.index, "order", self._placed), client_order_id, market, symbol, side, order_type,
            time_in_force, limit, amount, reduce_only, now_us, now_us, quote_size=quote_size,
        )  # fmt: skip
        self._keep(order)
        self._tell(OrderChanged("placed", order), *self._lock("placed", listing))
        return order.order_id

    def amend(self, order_id: str, *, price: Number | None = None, size: Number | None = None) -> None:
        """Change an open order's price or whole size."""
        order = self.open_order(order_id)
        changed = attrs.evolve(
            order,
            price=order.price if price is None else _amount("price", price),
            size=order.size if size is None else _amount("size", size),
            updated_us=self.clock.now_us(),
        )
        if price is not None and order.price is None:
            raise ValueError("price: a market order has no price")
        if changed.size <= order.filled:
            raise ValueError(f"size: {changed.size} leaves nothing to fill, {order.filled} is filled")
        self._keep(changed)
        self._tell(OrderChanged("amended", changed), *self._lock("amended", self._listing(order.market, order.symbol)))

    def fill(
        self, order_id: str, size: Number | None = None, price: Number | None = None, *, maker: bool = True
    ) -> str:
        """Fill an open order, by default the rest of it at its price or, without one, at the mark; its identifier."""
        order = self.open_order(order_id)
        listing = self._listing(order.market, order.symbol)
        mark = self.mark(listing)
        amount = order.remaining if size is None else _amount("size", size)
        if amount > order.remaining:
            raise ValueError(f"size: {amount} is more than the remaining {order.remaining}")
        at = order.price or mark if price is None else _amount("price", price)
        worth, rate = value_of(listing, at, amount), self.settings.maker_fee if maker else self.settings.taker_fee
        fee, fee_coin = fee_of(listing, order.side, at, amount, rate)
        before = self.position(order.market, order.symbol)
        position, closed, pnl = before, _NOTHING, _NOTHING
        now_us = self.clock.now_us()
        self.sequence += 1
        if not is_spot(listing):
            position, closed, pnl = _moved(listing, before, amount if order.side == "buy" else -amount, at, fee, now_us)
            position = attrs.evolve(position, sequence=self.sequence)
            self.positions[order.market, order.symbol] = position
        order = self._filled(listing, order, at, amount, {fee_coin: fee}, pnl, now_us)
        fill = Fill(
            self.identify(self.index, "fill", self.sequence), "trade", self.sequence, order, order.market, order.symbol,
            order.side, at, amount, worth, fee, fee_coin, rate, maker, pnl, closed, mark, now_us,
        )  # fmt: skip
        self.fills.append(fill)
        self._tell(
            OrderChanged("filled", order, fill),
            Filled(fill),
            *(() if is_spot(listing) else (PositionChanged("filled", position),)),
            *self._book("filled", listing, _flows(listing, fill), pnl - fee if not is_spot(listing) else _NOTHING),
        )
        return fill.fill_id

    def cancel(self, order_id: str, reason: str = "") -> None:
        """Close an open order, filled in part or not."""
        self._end(order_id, "cancelled", reason)

    def reject(self, order_id: str, reason: str = "") -> None:
        """The venue finds on second thought that an open order without fills cannot stand."""
        if self.open_order(order_id).filled:
            raise ValueError(f"order_id: {order_id} has fills")
        self._end(order_id, "rejected", reason)

    def expire(self, order_id: str, reason: str = "") -> None:
        """The venue ends an open order: its time is over, or its condition can no more be met."""
        self._end(order_id, "expired", reason)

    def deposit(self, coin: str, amount: Number) -> None:
        """Add to a balance; a negative amount is a withdrawal."""
        number = _decimal("amount", amount)
        balance = self._changed_balance(coin, number, _NOTHING)
        self._tell(BalanceChanged("deposited", balance))

    def fund(self, market: str, symbol: str, rate: Number) -> str:
        """Book the funding of a position at the mark price: long pays short at a positive rate."""
        listing, position = self._listing(market, symbol), self.position(market, symbol)
        if not position.size or not listing.perpetual:
            raise ValueError(f"symbol: no position in a perpetual {symbol}")
        fraction, mark, now_us = _decimal("rate", rate), self.mark(listing), self.clock.now_us()
        amount = abs(position.size)
        worth = value_of(listing, mark, amount)
        paid = (worth * fraction * (1 if position.size > 0 else -1)).quantize(SCALE)
        self.sequence += 1
        fill = Fill(
            self.identify(self.index, "fill", self.sequence), "funding", self.sequence, None, market, symbol,
            "buy" if position.size > 0 else "sell", mark, amount, worth, paid, listing.settle, fraction, False,
            _NOTHING, _NOTHING, mark, now_us,
        )  # fmt: skip
        position = attrs.evolve(
            position,
            funding=position.funding + paid,
            total_pnl=position.total_pnl - paid,
            sequence=self.sequence,
            updated_us=now_us,
        )
        self.positions[market, symbol] = position
        self.fills.append(fill)
        self._tell(
            Filled(fill),
            PositionChanged("funding", position),
            *self._book("funding", listing, {listing.settle: -paid}, -paid),
        )
        return fill.fill_id

    def open_orders(self) -> list[Order]:
        """Oldest first."""
        return [order for order in self.orders.values() if order.is_open]

    def open_order(self, order_id: str) -> Order:
        """An open order by its identifier. Raises `ValueError` if it is closed or was never placed."""
        order = self.orders.get(order_id)
        if order is None or not order.is_open:
            raise ValueError(f"order_id: no open order {order_id}")
        return order

    def position(self, market: str, symbol: str) -> Position:
        """The position in an instrument, a flat one if it was never traded."""
        return self.positions.get((market, symbol)) or Position(market, symbol)

    def balance(self, coin: str) -> Balance:
        """The balance of a coin, an empty one if it was never held."""
        return self.balances.get(coin) or Balance(coin)

    def mark(self, listing: Listing) -> Decimal:
        """The instrument's mark price now."""
        return listing.tick * self.market.engine(listing).mark

    def unrealized(self, position: Position) -> Decimal:
        """Profit of a position at the mark price; nothing for a flat one or one in a delisted instrument."""
        listing = self.market.find(position.market, position.symbol)
        if listing is None or not position.size:
            return _NOTHING
        return profit(listing, position.entry_price, self.mark(listing), position.size)

    def _listing(self, market: str, symbol: str) -> Listing:
        listing = self.market.find(market, symbol)
        if listing is None:
            raise ValueError(f"symbol: {symbol!r} is not listed in market {market!r}")
        return listing

    def _keep(self, order: Order) -> None:
        self.orders[order.order_id] = order
        if not order.is_open:
            self._closed.append(order.order_id)
            if len(self._closed) > CLOSED_KEPT:
                del self.orders[self._closed.popleft()]

    def _filled(
        self,
        listing: Listing,
        order: Order,
        price: Decimal,
        size: Decimal,
        fees: Mapping[str, Decimal],
        pnl: Decimal,
        now_us: int,
    ) -> Order:
        filled = order.filled + size
        average = average_of(listing, order.average_price or _NOTHING, order.filled, price, size)
        order = attrs.evolve(
            order,
            filled=filled,
            value=order.value + value_of(listing, price, size),
            average_price=average,
            status="filled" if filled == order.size else "partially_filled",
            fees={**order.fees, **{coin: order.fees.get(coin, _NOTHING) + fee for coin, fee in fees.items()}},
            pnl=order.pnl + pnl,
            updated_us=now_us,
        )
        self._keep(order)
        return order

    def _end(self, order_id: str, status: str, reason: str) -> None:
        order = attrs.evolve(
            self.open_order(order_id), status=status, reason=reason, updated_us=self.clock.now_us()
        )  # fmt: skip
        self._keep(order)
        listing = self.market.find(order.market, order.symbol)
        self._tell(OrderChanged(status, order), *(() if listing is None else self._lock(status, listing)))

    def _lock(self, cause: str, listing: Listing) -> tuple[BalanceChanged, ...]:
        """What an order that came, changed or went does to the balances: spot orders lock them."""
        return self._book(cause, listing, dict.fromkeys((listing.base, listing.quote), _NOTHING), _NOTHING)

    def _book(
        self, cause: str, listing: Listing, flows: Mapping[str, Decimal], pnl: Decimal
    ) -> tuple[BalanceChanged, ...]:
        """Move balances and what is locked of them; what has changed."""
        coins = dict(flows)
        if is_spot(listing):
            coins = {**dict.fromkeys((listing.base, listing.quote), _NOTHING), **coins}
        before = {coin: self.balance(coin) for coin in coins}
        after = [self._changed_balance(coin, flow, pnl) for coin, flow in coins.items()]
        return tuple(BalanceChanged(cause, balance) for balance in after if balance != before[balance.coin])

    def _changed_balance(self, coin: str, flow: Decimal, pnl: Decimal) -> Balance:
        balance, locked = self.balance(coin), self._locked(coin)
        if flow or pnl or locked != balance.locked:
            balance = self.balances[coin] = attrs.evolve(
                balance,
                total=balance.total + flow,
                locked=locked,
                total_pnl=balance.total_pnl + pnl,
                updated_us=self.clock.now_us(),
            )
        return balance

    def _locked(self, coin: str) -> Decimal:
        total = _NOTHING
        for order in self.open_orders():
            listing = self.market.find(order.market, order.symbol)
            if listing is None or not is_spot(listing):
                continue
            if order.side == "sell" and listing.base == coin:
                total += order.remaining
            elif order.side == "buy" and listing.quote == coin:
                total += order.remaining * (order.price or self.mark(listing))
        return total

    def _tell(self, *changes: Change) -> None:
        for listener in tuple(self.listeners):
            listener(self, changes)


def _decimal(name: str, value: Number) -> Decimal:
    if isinstance(value, float | bool):
        raise ValueError(f"{name}: {value!r} is no exact number")
    try:
        number = Decimal(value)
    except ArithmeticError:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError(f"{name}: {value!r} is not a decimal number")
    return number


def _amount(name: str, value: Number) -> Decimal:
    number = _decimal(name, value)
    if number <= 0:
        raise ValueError(f"{name}: {value} is not above zero")
    return number


def _flows(listing: Listing, fill: Fill) -> dict[str, Decimal]:
    """What a trade does to the balances."""
    sign = 1 if fill.side == "buy" else -1
    if is_spot(listing):
        flows = {listing.base: sign * fill.size, listing.quote: -sign * fill.value}
        flows[fill.fee_coin] -= fill.fee
        return flows
    # An option's premium changes hands at once; of other contracts only the profit does.
    return {fill.fee_coin: (-sign * fill.value if listing.option else fill.pnl) - fill.fee}


def _moved(
    listing: Listing, position: Position, size: Decimal, price: Decimal, fee: Decimal, now_us: int
) -> tuple[Position, Decimal, Decimal]:
    """A position after a trade of a signed size; how much of it closed the old one, and the profit of that."""
    after = position.size + size
    closed = _NOTHING if position.size * size >= 0 else min(abs(position.size), abs(size))
    pnl = profit(listing, position.entry_price, price, closed.copy_sign(position.size)) if closed else _NOTHING
    moved = attrs.evolve(
        position,
        size=after,
        total_pnl=position.total_pnl + pnl - fee,
        created_us=position.created_us or now_us,
        updated_us=now_us,
    )
    if not position.size or position.size * after < 0:  # opened, or turned round: the account of it begins anew
        own_fee = rounded(fee * abs(after) / abs(size))
        moved = attrs.evolve(
            moved, entry_price=price, pnl=_NOTHING, fees=own_fee, funding=_NOTHING, opened_us=now_us
        )  # fmt: skip
        return moved, closed, pnl
    entry = (
        position.entry_price
        if closed
        else average_of(listing, position.entry_price, abs(position.size), price, abs(size))
    )
    moved = attrs.evolve(
        moved, entry_price=entry if after else _NOTHING, pnl=position.pnl + pnl, fees=position.fees + fee
    )  # fmt: skip
    return moved, closed, pnl
