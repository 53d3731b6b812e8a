"""Simulated accounts that trade, and the same accounts as an independent consumer of the topics finds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import attrs

from pipeline.sim.accounts import Order, SimulatedAccount
from pipeline.sim.http import Request, Response
from pipeline.sim.settings import Account
from pipeline.sim.venue import SimulatedVenue
from tests.e2e.consumer import EPOCH, Record, Topics

KINDS = ("order", "fill", "position", "balance")
CHANNELS = {"bybit": KINDS, "okx": ("order", "position", "balance")}
"""What brings all of these kinds: OKX's orders bring their fills."""
SECRETS = {"main": "main-Key-7f31", "second": "second-Key-a90c"}
"""What the names of the accounts stand for in their keys."""

State = dict[tuple[str, ...], dict[str, Any]]
"""What is known by identity: numbers as `Decimal`, whatever their scale."""


def simulated(name: str = "main", **changes: Any) -> Account:
    """An account of a simulated venue; whatever of it is a secret contains the word from `SECRETS`."""
    word = SECRETS[name]
    return attrs.evolve(Account(f"{word}-id", f"{word}-secret", f"{word}-phrase", name=name), **changes)


def configured(folder: Path, venue: str, account: Account, **more: Any) -> dict[str, Any]:
    """The account's entry in the configuration, its keys in files."""
    keys = {"api_key": account.key, "api_secret": account.secret}
    if venue == "okx":
        keys["passphrase"] = account.passphrase
    for name, text in keys.items():
        (folder / f"{account.name}.{name}").write_text(text, encoding="utf-8")
    files = {name: {"file": str(folder / f"{account.name}.{name}")} for name in keys}
    return {**files, "channels": list(CHANNELS[venue]), **more}


@attrs.define
class Trader:
    """Does what a seed says with an account, one act after the other."""

    account: SimulatedAccount
    random: Random = attrs.field(factory=lambda: Random(7))
    coins: tuple[str, ...] = ("USDT", "BTC", "SOL")
    acts: Counter[str] = attrs.field(factory=Counter, init=False)

    def act(self) -> None:
        """One thing."""
        choices: list[tuple[Callable[[], str | None], int]] = [
            (self._place, 4), (self._fill, 6), (self._end, 2), (self._amend, 2), (self._flatten, 1), (self._fund, 1),
            (self._deposit, 1), (self._withdraw, 1),
        ]  # fmt: skip
        done = None
        while done is None:
            (chosen,) = self.random.choices([each for each, _ in choices], [weight for _, weight in choices])
            done = chosen()
        self.acts[done] += 1

    def several(self, count: int) -> None:
        """As many."""
        for _ in range(count):
            self.act()

    def mark(self) -> str:
        """An order whose identifier tells, where it is heard of, that everything before it was told."""
        listing = next(iter(self.account.market.listings.values()))
        return self.account.place(listing.market, listing.symbol, "buy", listing.tick, listing.lot)

    def _place(self) -> str:
        listing = self.random.choice(list(self.account.market.listings.values()))
        by_market = self.random.random() < 0.15
        ticks = self.account.mark(listing) / listing.tick + self.random.randint(-9, 9)
        order_id = self.account.place(
            listing.market,
            listing.symbol,
            self.random.choice(("buy", "sell")),
            None if by_market else ticks.to_integral_value() * listing.tick,
            listing.lot * self.random.randint(2, 40),
            client_order_id=f"{self.random.getrandbits(40)}" if self.random.random() < 0.5 else "",
            order_type="market" if by_market else "limit",
        )
        if by_market:
            self.account.fill(order_id, maker=False)
        return "placed"

    def _order(self) -> Order | None:
        found = self.account.open_orders()
        return self.random.choice(found) if found else None

    def _fill(self) -> str | None:
        if (order := self._order()) is None:
            return None
        listing = self.account.market.listings[order.market, order.symbol]
        lots = int(order.remaining / listing.lot)
        part = listing.lot * self.random.randint(1, lots) if self.random.random() < 0.7 else None
        self.account.fill(order.order_id, part, maker=self.random.random() < 0.5)
        return "filled"

    def _end(self) -> str | None:
        if (order := self._order()) is None:
            return None
        end = self.random.choice(
            [self.account.cancel, self.account.expire] + [self.account.reject] * (not order.filled)
        )
        end(order.order_id)
        return "ended"

    def _amend(self) -> str | None:
        order = self._order()
        if order is None or order.price is None:
            return None
        listing = self.account.market.listings[order.market, order.symbol]
        self.account.amend(order.order_id, price=order.price + listing.tick, size=order.size + listing.lot)
        return "amended"

    def _flatten(self) -> str | None:
        held = [each for each in self.account.positions.values() if each.size]
        if not held:
            return None
        position = self.random.choice(held)
        side = "sell" if position.size > 0 else "buy"
        order_id = self.account.place(
            position.market, position.symbol, side, None, abs(position.size), reduce_only=True, order_type="market"
        )
        self.account.fill(order_id, maker=False)
        return "flattened"

    def _fund(self) -> str | None:
        held = [each for each in self.account.positions.values() if each.size]
        perpetual = [each for each in held if self.account.market.listings[each.market, each.symbol].perpetual]
        if not perpetual:
            return None
        position = self.random.choice(perpetual)
        self.account.fund(position.market, position.symbol, self.random.choice(("0.0001", "-0.00007")))
        return "funded"

    def _deposit(self) -> str:
        self.account.deposit(self.random.choice(self.coins), f"{self.random.randint(1, 10**7)}e-4")
        return "deposited"

    def _withdraw(self) -> str | None:
        whole = [each for each in self.account.balances.values() if each.total and not each.locked]
        if not whole:
            return None
        balance = self.random.choice(whole)
        self.account.deposit(balance.coin, -balance.total)
        return "withdrawn"


@attrs.define
class Meddling:
    """A venue whose accounts change while its answers to signed requests are under way: each is old when it arrives."""

    dialect: Any
    after: Callable[[], None]
    left: int
    """How often."""

    @classmethod
    def with_rest(cls, venue: SimulatedVenue, after: Callable[[], None], times: int) -> Meddling:
        """Stand between the venue and those who ask it."""
        venue.dialect = meddling = cls(venue.dialect, after, times)
        return meddling

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dialect, name)

    def rest(self, request: Request) -> Response | None:
        """The answer, and then the act."""
        answer: Response | None = self.dialect.rest(request)
        if self.left and any(name.endswith(("-sign", "-access-sign")) for name in request.headers):
            self.left -= 1
            self.after()
        return answer


@attrs.frozen
class Holdings:
    """What the topics hold of one account, the last record of each key."""

    orders: State
    fills: State
    positions: State
    """Those that are not flat."""
    balances: State
    """Those that are not zero."""


@attrs.frozen
class Records:
    """Everything in the topics of accounts, by kind."""

    by_kind: Mapping[str, list[Record]]

    @classmethod
    async def read(cls, topics: Topics) -> Records:
        """What is there now."""
        return cls({kind: await topics.read(kind) for kind in KINDS})

    def of(self, kind: str, account: str = "main") -> list[Record]:
        """Those about one account, in the order of the log."""
        return [record for record in self.by_kind[kind] if record["account"] == account]

    def fold(self, account: str = "main") -> Holdings:
        """The account's state; raises `AssertionError` for a fill that is there twice and for keys without account."""
        for kind in KINDS:
            for record in self.of(kind, account):
                parts = (record["venue"], account, record["instrument"])
                assert record.key == ".".join(part for part in parts if part), record.place
        fills = [record for record in self.of("fill", account) if not record["is_fast"]]
        times = Counter(_fill_key(record) for record in fills)
        assert set(times.values()) <= {1}, f"more than once: {[key for key, count in times.items() if count > 1]}"
        positions = _last(self.of("position", account), "market", "instrument", "position_side")
        balances = _last(self.of("balance", account), "currency")
        return Holdings(
            {key: _order(record) for key, record in _last(self.of("order", account), *_ORDER_KEY).items()},
            {_fill_key(record): _fill(record) for record in fills},
            {key[:2]: _position(record) for key, record in positions.items() if record["side"] != "flat"},
            {key: _balance(record) for key, record in balances.items() if key[0] != "None" and _is_held(record)},
        )


def closed_orders(account: SimulatedAccount) -> set[str]:
    """Of which nobody needs to be told any more."""
    return {order.order_id for order in account.orders.values() if not order.is_open}


async def check_account(
    topics: Topics,
    account: SimulatedAccount,
    venue: str,
    *,
    unknown: Collection[str] = (),
    without: Collection[str] = (),
) -> None:
    """The topics, folded, hold what the simulated venue knows, but for orders that were closed when nobody listened.

    `without` names channels of the venue that were refused. Of those orders, `unknown` ones were never told.
    """
    found, truth = (await Records.read(topics)).fold(account.name), true_state(account, venue)
    for key in truth.orders.keys() - found.orders.keys():
        if key[2] in unknown:
            del truth.orders[key]
    if "wallet" in without:
        truth.balances.clear()
    for each in attrs.fields(Holdings):
        told, true = getattr(found, each.name), getattr(truth, each.name)
        differ = [(key, told.get(key), true.get(key)) for key in told | true if told.get(key) != true.get(key)]
        assert not differ, f"{each.name}: {len(differ)} of {len(true)} differ, first (told, true): {differ[0]}"
    letters = await topics.read("dead_letter")
    assert not letters, letters[0]["reason"]


def true_state(account: SimulatedAccount, venue: str) -> Holdings:
    """What the simulated venue knows, in the words and with the digits that it tells it."""
    digits = _plain if venue == "bybit" else _to_eight_digits
    statuses = {} if venue == "bybit" else {"rejected": "cancelled", "expired": "cancelled"}

    def told_order(order: Order) -> dict[str, Any]:
        return {
            "status": statuses.get(order.status, order.status),
            "side": order.side,
            "order_type": order.order_type,
            "client_order_id": order.client_order_id or None,
            "price": order.price,
            "size": order.size,
            "filled_size": order.filled,
            "remaining_size": order.remaining,
            "average_price": order.average_price,
            "fees": {coin: digits(fee) for coin, fee in order.fees.items() if digits(fee)},
            "realized_pnl": digits(order.pnl),
            "is_reduce_only": order.reduce_only,
            "created_time": order.created_us // 1000,
        }

    orders: State = {
        (each.market.lower(), each.symbol, each.order_id): told_order(each) for each in account.orders.values()
    }
    fills: State = {
        (each.market.lower(), each.symbol, each.fill_id): {
            "kind": each.kind,
            "order_id": each.order.order_id if each.order else None,
            "side": each.side,
            "price": each.price,
            "size": each.size,
            "fee": digits(each.fee),
            "fee_currency": each.fee_coin,
            "realized_pnl": digits(each.pnl),
            "liquidity": None if each.kind == "funding" else "maker" if each.maker else "taker",
            "time": each.time_us // 1000,
        }
        for each in account.fills
        if each.kind == "trade" or venue == "bybit"  # OKX books funding elsewhere
    }
    positions: State = {
        (each.market.lower(), each.symbol): {
            "side": "long" if each.size > 0 else "short",
            "size": abs(each.size),
            "entry_price": each.entry_price,
            "realized_pnl": digits(each.realized),
        }
        for each in account.positions.values()
        if each.size
    }
    balances: State = {
        (each.coin,): {"total": each.total, "locked": each.locked} for each in account.balances.values() if each.total
    }
    return Holdings(orders, fills, positions, balances)


_ORDER_KEY = ("market", "instrument", "order_id")
_EIGHT_DIGITS = Decimal("1e-8")


def _plain(number: Decimal) -> Decimal:
    return number


def _to_eight_digits(number: Decimal) -> Decimal:
    return number.quantize(_EIGHT_DIGITS)


def _last(records: Iterable[Record], *names: str) -> dict[tuple[str, ...], Record]:
    return {tuple(str(record[name]) for name in names): record for record in records}


def _fill_key(record: Record) -> tuple[str, ...]:
    return tuple(str(record[name]) for name in ("market", "instrument", "fill_id"))


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _millis(record: Record, name: str) -> int:
    since: timedelta = record[name] - EPOCH
    return since // timedelta(milliseconds=1)


def _order(record: Record) -> dict[str, Any]:
    fees = {coin: Decimal(text) for coin, text in record["fees"].items()}
    for coin, text in record["rebates"].items():
        fees[coin] = fees.get(coin, Decimal(0)) - Decimal(text)
    plain = ("status", "side", "order_type", "client_order_id", "is_reduce_only")
    numbers = ("price", "size", "filled_size", "remaining_size", "average_price", "realized_pnl")
    return {
        **{name: record[name] for name in plain},
        **{name: _number(record[name]) for name in numbers},
        "fees": {coin: fee for coin, fee in fees.items() if fee},
        "created_time": _millis(record, "created_time"),
    }


def _fill(record: Record) -> dict[str, Any]:
    return {
        # Bybit has an identifier there for bookings too, which is no order's.
        "order_id": record["order_id"] if record["kind"] == "trade" else None,
        **{name: record[name] for name in ("kind", "side", "fee_currency", "liquidity")},
        **{name: _number(record[name]) for name in ("price", "size", "fee", "realized_pnl")},
        "time": _millis(record, "exchange_time"),
    }


def _position(record: Record) -> dict[str, Any]:
    return {
        "side": record["side"],
        **{name: _number(record[name]) for name in ("size", "entry_price", "realized_pnl")},
    }


def _balance(record: Record) -> dict[str, Any]:
    return {name: _number(record[name]) for name in ("total", "locked")}


def _is_held(record: Record) -> bool:
    return bool(Decimal(record["total"]))
