from __future__ import annotations

from decimal import Decimal
from typing import Any

import attrs
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.sim.accounts import (
    CLOSED_KEPT,
    BalanceChanged,
    Change,
    Filled,
    OrderChanged,
    PositionChanged,
    SimulatedAccount,
    digits,
    uuids,
)
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.floor import Market
from pipeline.sim.listing import bybit_defaults, okx_defaults
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import open_venue

NONE = Decimal(0)
NOW_US = 1_800_000_000_000_000
SETTINGS = Account("a-key", "TESTSECRET", name="main", maker_fee=Decimal("0.001"), taker_fee=Decimal("0.002"))


class Standing(SimulatedClock):
    """Ticks by a microsecond per look, outside of Trio."""

    def now_us(self) -> int:
        self.start_us += 1
        return self.start_us


def open_account(venue: str = "bybit", given: Account = SETTINGS) -> SimulatedAccount:
    listings = bybit_defaults() if venue == "bybit" else okx_defaults()
    market = Market(MarketSettings(levels=5), {(each.market, each.symbol): each for each in listings})
    clock = Standing.__new__(Standing)
    clock.start_us = NOW_US
    return SimulatedAccount(given, 0, market, clock, uuids if venue == "bybit" else digits)


@pytest.fixture
def account() -> SimulatedAccount:
    return open_account()


@pytest.fixture
def told(account: SimulatedAccount) -> list[tuple[Change, ...]]:
    """The changes of each action."""
    heard: list[tuple[Change, ...]] = []
    account.listeners.append(lambda _account, changes: heard.append(changes))
    return heard


def test_a_life_of_an_order_is_told_change_by_change(account: SimulatedAccount, told: list[tuple[Change, ...]]) -> None:
    order_id = account.place("linear", "BTCUSDT", "buy", "60000.5", "0.3", client_order_id="mine")
    account.amend(order_id, price=Decimal(60000))
    account.fill(order_id, "0.1")
    account.fill(order_id)
    causes = [change.cause for changes in told for change in changes if isinstance(change, OrderChanged)]
    assert causes == ["placed", "amended", "filled", "filled"]
    assert [[type(change) for change in changes] for changes in told] == [
        [OrderChanged],
        [OrderChanged],
        [OrderChanged, Filled, PositionChanged, BalanceChanged],
        [OrderChanged, Filled, PositionChanged, BalanceChanged],
    ]
    first, last = (changes[0] for changes in told[2:])
    assert isinstance(first, OrderChanged)
    assert isinstance(last, OrderChanged)
    assert (first.order.status, first.order.filled, first.order.remaining) == (
        "partially_filled", Decimal("0.1"), Decimal("0.2"),
    )  # fmt: skip
    assert (last.order.status, last.order.value, last.order.remaining) == ("filled", Decimal("18000.0"), NONE)
    assert last.order.fees == {"USDT": Decimal(18)}
    assert account.open_orders() == []
    assert account.balance("USDT").total == Decimal(-18)
    assert account.position("linear", "BTCUSDT").size == Decimal("0.3")
    times = [change.order.updated_us for changes in told for change in changes if isinstance(change, OrderChanged)]
    assert times == sorted(set(times))


def test_a_position_is_averaged_reduced_and_turned_round(account: SimulatedAccount) -> None:
    account = open_account(given=attrs.evolve(SETTINGS, maker_fee=Decimal(0)))

    def trade(side: str, price: str, size: str) -> None:
        account.fill(account.place("linear", "ETHUSDT", side, price, size))

    trade("buy", "3000", "1")
    trade("buy", "3300", "2")
    position = account.position("linear", "ETHUSDT")
    assert (position.size, position.entry_price) == (Decimal(3), Decimal(3200))
    trade("sell", "3400", "1")
    position, fill = account.position("linear", "ETHUSDT"), account.fills[-1]
    assert (position.size, position.entry_price, position.pnl) == (Decimal(2), Decimal(3200), Decimal(200))
    assert (fill.pnl, fill.closed) == (Decimal(200), Decimal(1))
    trade("sell", "3100", "5")
    position, fill = account.position("linear", "ETHUSDT"), account.fills[-1]
    assert (position.size, position.entry_price, position.pnl) == (Decimal(-3), Decimal(3100), NONE)
    assert (fill.pnl, fill.closed) == (Decimal(-200), Decimal(2))
    trade("buy", "3000", "3")
    position = account.position("linear", "ETHUSDT")
    assert (position.size, position.entry_price, position.pnl) == (NONE, NONE, Decimal(300))
    assert position.total_pnl == account.balance("USDT").total == account.balance("USDT").total_pnl == Decimal(300)


@pytest.mark.parametrize(
    ("venue", "market", "symbol", "entry", "left", "size", "coin", "value", "pnl"),
    [
        ("bybit", "inverse", "BTCUSD", "50000", "40000", "100", "BTC", "0.00200000", "-0.00050000"),
        ("bybit", "option", "BTC-26MAR27-65000-C-USDT", "3000", "3100", "0.5", "USDT", "1500", "50"),
        ("okx", "SWAP", "BTC-USDT-SWAP", "50000", "50100", "7", "USDT", "3500", "7"),
        ("okx", "SWAP", "BTC-USD-SWAP", "50000", "40000", "7", "BTC", "0.01400000", "-0.00350000"),
        ("okx", "OPTION", "BTC-USD-270326-65000-C", "0.05", "0.07", "10", "BTC", "0.005", "0.002"),
    ],
)
def test_contracts_settle_in_their_coin(
    venue: str, market: str, symbol: str, entry: str, left: str, size: str, coin: str, value: str, pnl: str
) -> None:
    account = open_account(venue, attrs.evolve(SETTINGS, maker_fee=Decimal(0)))
    account.fill(account.place(market, symbol, "buy", entry, size))
    assert account.fills[-1].value == Decimal(value)
    account.fill(account.place(market, symbol, "sell", left, size))
    assert (account.fills[-1].pnl, account.fills[-1].fee_coin) == (Decimal(pnl), coin)
    assert account.balance(coin).total == Decimal(pnl)


def test_inverse_entries_are_averaged_by_value(account: SimulatedAccount) -> None:
    for price in ("40000", "60000"):
        account.fill(account.place("inverse", "BTCUSD", "sell", price, "120"))
    assert account.position("inverse", "BTCUSD").entry_price == Decimal(48000)


def test_spot_moves_coins_and_locks_them(account: SimulatedAccount) -> None:
    account.deposit("USDT", "100000")
    bought = account.place("spot", "BTCUSDT", "buy", "50000", "1")
    assert account.balance("USDT").locked == Decimal(50000)
    account.fill(bought, "0.5")
    assert account.balance("USDT") == attrs.evolve(
        account.balance("USDT"), total=Decimal(75000), locked=Decimal(25000)
    )  # fmt: skip
    assert account.balance("BTC").total == Decimal("0.4995"), "the fee of a purchase is taken from what was bought"
    account.cancel(bought)
    assert account.balance("USDT").locked == 0
    sold = account.place("spot", "BTCUSDT", "sell", "60000", "0.4")
    assert account.balance("BTC").locked == Decimal("0.4")
    account.fill(sold, maker=False)
    assert account.fills[-1].fee == Decimal(48)
    assert account.balance("USDT").total == Decimal(75000 + 24000 - 48)
    assert account.balance("BTC").total == Decimal("0.0995")
    assert account.positions == {}


def test_a_rebate_is_paid_in_what_was_given() -> None:
    account = open_account(given=attrs.evolve(SETTINGS, maker_fee=Decimal("-0.001")))
    account.fill(account.place("spot", "BTCUSDT", "buy", "50000", "1"))
    assert account.balance("BTC").total == Decimal(1)
    assert account.balance("USDT").total == Decimal(-49950)


def test_funding_is_paid_by_the_long_side(account: SimulatedAccount, told: list[tuple[Change, ...]]) -> None:
    with pytest.raises(ValueError, match="symbol: no position"):
        account.fund("linear", "BTCUSDT", "0.0001")
    account.fill(account.place("linear", "BTCUSDT", "buy", "60000", "0.1"))
    account.fill(account.place("linear", "ETHUSDT", "sell", "3000", "1"))
    before = account.balance("USDT").total
    account.fund("linear", "BTCUSDT", "0.0001")
    account.fund("linear", "ETHUSDT", "0.0001")
    long, short = list(account.fills)[-2:]
    assert (long.kind, short.kind, long.order) == ("funding", "funding", None)
    assert long.fee == (long.mark or 0) * Decimal("0.1") * Decimal("0.0001") > 0
    assert short.fee == -(short.mark or 0) * Decimal("0.0001") < 0
    assert account.balance("USDT").total == before - long.fee - short.fee
    assert account.position("linear", "BTCUSDT").funding == long.fee
    assert [type(change) for change in told[-1]] == [Filled, PositionChanged, BalanceChanged]


def test_orders_end_in_three_ways(account: SimulatedAccount) -> None:
    def placed() -> str:
        return account.place("linear", "BTCUSDT", "sell", "70000", "1")

    account.cancel(cancelled := placed(), "CancelByUser")
    account.reject(rejected := placed(), "EC_PostOnlyWillTakeLiquidity")
    account.expire(expired := placed())
    statuses = {
        order_id: (account.orders[order_id].status, account.orders[order_id].reason) for order_id in account.orders
    }
    assert statuses == {
        cancelled: ("cancelled", "CancelByUser"),
        rejected: ("rejected", "EC_PostOnlyWillTakeLiquidity"),
        expired: ("expired", ""),
    }
    assert account.orders[cancelled].remaining == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"symbol": "NOUSDT"}, "symbol: 'NOUSDT' is not listed"),
        ({"side": "Buy"}, "side: 'Buy'"),
        ({"price": "0"}, "price: 0 is not above zero"),
        ({"price": "NaN"}, "price: 'NaN' is not a decimal"),
        ({"price": "much"}, "price: 'much' is not a decimal"),
        ({"price": 1.5}, "price: 1.5 is no exact number"),
        ({"price": None}, "price: a limit order has a price"),
        ({"order_type": "market"}, "price: a market order has no price"),
        ({"order_type": "stop"}, "order_type: 'stop'"),
        ({"size": "-1"}, "size: -1 is not above zero"),
        ({"client_order_id": "mine"}, "client_order_id: mine is that of an open order"),
    ],
)
def test_what_cannot_be_ordered_is_named(account: SimulatedAccount, changes: dict[str, Any], problem: str) -> None:
    good: dict[str, Any] = {"market": "linear", "symbol": "BTCUSDT", "side": "buy", "price": "60000", "size": "1"}
    account.place(**good, client_order_id="mine")
    with pytest.raises(ValueError, match=problem):
        account.place(**good | changes)
    assert len(account.orders) == 1


def test_what_cannot_be_done_to_an_order_is_named(account: SimulatedAccount) -> None:
    order_id = account.place("linear", "BTCUSDT", "buy", "60000", "1")
    with pytest.raises(ValueError, match="size: 2 is more than the remaining 1"):
        account.fill(order_id, "2")
    account.fill(order_id, "0.4")
    with pytest.raises(ValueError, match=r"size: 0\.4 leaves nothing to fill"):
        account.amend(order_id, size="0.4")
    with pytest.raises(ValueError, match=f"order_id: {order_id} has fills"):
        account.reject(order_id)
    account.cancel(order_id)
    for act in (account.cancel, account.fill, account.expire):
        with pytest.raises(ValueError, match=f"order_id: no open order {order_id}"):
            act(order_id)


def test_a_market_order_is_filled_at_the_mark(account: SimulatedAccount) -> None:
    order_id = account.place("linear", "BTCUSDT", "buy", None, "1", order_type="market")
    account.fill(order_id, maker=False)
    assert account.fills[-1].price == account.fills[-1].mark


def test_identifiers_are_the_same_every_time_and_never_shared() -> None:
    accounts = [open_account(venue) for venue in ("bybit", "bybit", "okx")]
    accounts.append(SimulatedAccount(SETTINGS, 1, accounts[0].market, accounts[0].clock, uuids))
    ids = [[account.place(*spot(account), "buy", "50000", "1") for _ in range(3)] for account in accounts]
    fills = [account.fill(order_id) for account, mine in zip(accounts, ids, strict=True) for order_id in mine[:1]]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2], *ids[3], *fills[1:]}) == 3 * 3 + 3
    assert all(text.isdecimal() for text in ids[2])


def spot(account: SimulatedAccount) -> tuple[str, str]:
    return ("spot", "BTCUSDT") if account.market.find("spot", "BTCUSDT") else ("SPOT", "BTC-USDT")


def test_only_so_many_closed_orders_are_remembered(account: SimulatedAccount) -> None:
    kept = account.place("linear", "BTCUSDT", "buy", "60000", "1")
    first = account.place("linear", "BTCUSDT", "buy", "60000", "1")
    account.cancel(first)
    for _ in range(CLOSED_KEPT):
        account.cancel(account.place("linear", "BTCUSDT", "buy", "60000", "1"))
    assert first not in account.orders
    assert account.orders[kept].is_open
    assert len(account.orders) == CLOSED_KEPT + 1


trades = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.integers(1_000, 100_000).map(lambda cents: Decimal(cents) / 100),
        st.integers(1, 1_000).map(lambda mills: Decimal(mills) / 1_000),
    ),
    max_size=30,
)


@given(trades)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_balance_is_what_flowed_in_and_out(trades: list[tuple[str, Decimal, Decimal]]) -> None:
    """Whatever was traded: closing the rest leaves in the balance what was sold minus what was bought, minus fees."""
    account = open_account()
    flow = fees = Decimal(0)
    for side, price, size in trades:
        account.fill(account.place("linear", "BTCUSDT", side, price, size))
        flow += price * size * (1 if side == "sell" else -1)
        fees += account.fills[-1].fee
    position = account.position("linear", "BTCUSDT")
    if position.size:
        account.fill(
            account.place("linear", "BTCUSDT", "sell" if position.size > 0 else "buy", "500", abs(position.size))
        )
        flow += 500 * position.size
        fees += account.fills[-1].fee
    assert account.position("linear", "BTCUSDT").size == 0
    # Entry prices are rounded to eight decimals, so that each averaging may lose half a unit of the last one.
    assert abs(account.balance("USDT").total - (flow - fees)) <= Decimal("0.00000001") * 60 * len(trades)
    assert sum((fill.fee for fill in account.fills), Decimal(0)) == fees


async def test_everything_can_be_done_over_http() -> None:
    other = Account("b-key", "B")
    async with (
        open_venue("bybit", market=MarketSettings(rate=0.001), accounts=[SETTINGS, other]) as venue,
        httpx.AsyncClient(base_url=venue.rest_url) as http,
    ):

        async def act(path: str, **fields: Any) -> Any:
            answer = await http.post(f"/sim/{path}", json={"account": "main", **fields})
            assert answer.status_code == 200, answer.text
            return answer.json()

        order = {"market": "linear", "symbol": "BTCUSDT", "side": "buy", "price": "60000", "size": "0.5"}
        assert await act("deposit", coin="USDT", amount="1000") == {"total": "1000"}
        order_id = (await act("order", **order, client_order_id="mine"))["order_id"]
        await act("amend", order_id=order_id, price="59000", size="0.2")
        fill_id = (await act("fill", order_id=order_id, size="0.1", maker=False))["fill_id"]
        await act("funding", market="linear", symbol="BTCUSDT", rate="0.0001")
        await act("cancel", order_id=order_id, reason="CancelByUser")
        await act("reject", order_id=(await act("order", **order))["order_id"])
        await act("expire", order_id=(await act("order", **order))["order_id"])

        shown = (await http.get("/sim/account", params={"name": "main"})).json()
        assert [row["status"] for row in shown["orders"]] == ["cancelled", "rejected", "expired"]
        assert (shown["orders"][0]["price"], shown["orders"][0]["client_order_id"]) == ("59000", "mine")
        assert [row["kind"] for row in shown["fills"]] == ["trade", "funding"]
        assert shown["fills"][0]["fill_id"] == fill_id
        assert shown["positions"][0]["size"] == "0.1"
        assert Decimal(shown["balances"][0]["total"]) == venue.accounts["main"].balance("USDT").total < 1000
        assert venue.accounts["b-key"].orders == {}, "nothing is shared"
        assert venue.accounts["b-key"].balances == {}

        for path, body, problem in (
            ("order", {"account": "main", **order, "size": 1}, "size"),
            ("order", {"account": "main", **order, "sort": "x"}, "sort"),
            ("order", {"account": "main", "market": "linear"}, "symbol"),
            ("order", {**order}, "account: None"),
            ("order", {**order, "account": "nobody"}, "account: 'nobody'"),
            ("fill", {"account": "main", "order_id": order_id}, "order_id"),
            ("deposit", {"account": "main", "coin": "BTC", "amount": "x"}, "amount"),
            ("revoke", {"account": "main", "drop": "yes"}, "drop"),
            ("private", {"account": "main"}, "topic"),
            ("public", {}, "topic"),
        ):
            answer = await http.post(f"/sim/{path}", json=body)
            assert answer.status_code == 400, path
            assert problem in answer.json()["error"], answer.text
        assert (await http.get("/sim/account")).status_code == 400
        assert (await act("revoke", expired=True)) == {"hit": 0}
        assert venue.accounts["main"].revoked == "expired"


async def test_two_accounts_of_one_name_or_key_are_refused() -> None:
    for twin in (Account("other", "x", name="main"), Account("a-key", "x", name="other")):
        with pytest.raises(ValueError, match="two accounts"):
            async with open_venue("bybit", listen=False, accounts=[SETTINGS, twin]):
                pass
