from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from pipeline.sim.accounts import Order, SimulatedAccount, uuids
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.floor import Floor, Market
from pipeline.sim.listing import Listing, bybit_defaults
from pipeline.sim.market import Engine, Fill, Side
from pipeline.sim.matching import Bounds, Ending, Matching, NewOrder, OrderRefused, Rules
from pipeline.sim.sent import SentRecord
from pipeline.sim.settings import Account, MarketSettings

LINEAR, SPOT = ("linear", "ETHUSDT"), ("spot", "ETHUSDT")


class Standing(SimulatedClock):
    """Ticks by a microsecond per look, outside of Trio."""

    def __init__(self) -> None:
        self.start_us = 1_800_000_000_000_000

    def now_us(self) -> int:
        self.start_us += 1
        return self.start_us


def end(account: SimulatedAccount, order: Order, why: Ending) -> None:
    account.cancel(order.order_id, why)


def bounds(listing: Listing) -> Bounds:
    return Bounds(listing.lot * 2, Decimal(1000), Decimal(5), 3)


RULES = Rules(bounds, end, unique_for_ever=True, trims_reductions=True)


class Exchange:
    """Two accounts before one book that a test writes: prices in dollars, sizes in ETH."""

    def __init__(self, rules: Rules = RULES, of: tuple[str, str] = LINEAR) -> None:
        self.market = Market(
            MarketSettings(levels=5), {(each.market, each.symbol): each for each in bybit_defaults()}
        )  # fmt: skip
        clock = Standing()
        self.floor = Floor(clock, self.market, SentRecord())
        self.matching = Matching(self.floor, rules)
        self.accounts = [
            SimulatedAccount(Account(f"{name}-key", "secret", name=name), number, self.market, clock, uuids)
            for number, name in enumerate(("main", "other"))
        ]
        self.listing = self.market.listings[of]
        self.engine: Engine = self.market.engine(self.listing)
        self.book({3199: 1, 3198: 2, 3000: 5, 2999: 5}, {3201: 1, 3202: 2, 3400: 5, 3401: 5})

    @property
    def account(self) -> SimulatedAccount:
        return self.accounts[0]

    def book(self, bids: Mapping[int, int], asks: Mapping[int, int]) -> None:
        for side, levels in ((self.engine.bids, bids), (self.engine.asks, asks)):
            for price in list(side.lots):
                side.set(price, 0)
            for price, size in levels.items():
                side.set(int(price / self.listing.tick), int(size / self.listing.lot))

    def levels(self, side: Side) -> dict[Decimal, Decimal]:
        return {self.listing.tick * price: self.listing.lot * lots for price, lots in side.top(len(side)).items()}

    def create(
        self, side: str, price: str | None, size: str, force: str = "GTC", *, account: int = 0, client: str = "",
        reduce_only: bool = False, in_quote: bool = False,
    ) -> Order:  # fmt: skip
        kind, limit = ("market", None) if price is None else ("limit", Decimal(price))
        new = NewOrder(
            self.listing, side, kind, force, limit, Decimal(size), in_quote=in_quote, client_order_id=client,
            reduce_only=reduce_only,
        )  # fmt: skip
        return self.matching.create(self.accounts[account], new)

    def problem(self, *arguments: str | None, **options: bool | str | int) -> str:
        with pytest.raises(OrderRefused) as caught:
            self.create(*arguments, **options)  # type: ignore[arg-type]
        return caught.value.problem

    def trade(self, price: str, size: str, *, buy: bool) -> None:
        """The market trades at a price, which the next step tells."""
        lots = int(Decimal(size) / self.listing.lot)
        self.engine.fills = [Fill(int(Decimal(price) / self.listing.tick), buy, 1, (lots,), "PlusTick")]
        for follow in tuple(self.engine.followers):
            follow(self.engine)

    def now(self, order: Order, account: int = 0) -> tuple[str, Decimal]:
        """Status and what is filled."""
        order = self.accounts[account].orders[order.order_id]
        return order.status, order.filled


def test_what_crosses_takes_level_by_level_and_the_rest_rests() -> None:
    exchange = Exchange()
    order = exchange.create("buy", "3202", "4")
    assert (order.status, order.filled, order.remaining) == ("partially_filled", Decimal(3), Decimal(1))
    fills = [(fill.price, fill.size, fill.maker) for fill in exchange.account.fills]
    assert fills == [(Decimal(3201), Decimal(1), False), (Decimal(3202), Decimal(2), False)]
    assert list(exchange.levels(exchange.engine.asks)) == [Decimal(3400), Decimal(3401)]
    assert exchange.engine.followers  # it waits for the market


def test_what_an_order_took_is_told_with_the_next_step() -> None:
    exchange = Exchange()
    before = exchange.engine.traded_lots
    exchange.create("sell", "3198", "1.5")
    exchange.engine.step()
    prints = [(fill.price, fill.lots, fill.buy) for fill in exchange.engine.fills if fill.outside]
    assert prints == [(319_900, 100, False), (319_800, 50, False)]
    assert exchange.engine.traded_lots >= before + 150


def test_the_last_levels_stay() -> None:
    exchange = Exchange()
    order = exchange.create("buy", None, "100", "IOC")
    assert (order.status, order.filled, order.reason) == ("cancelled", Decimal(3), "unfilled")
    assert len(exchange.engine.asks) == 2


@pytest.mark.parametrize(
    ("price", "size", "force", "status", "filled"),
    [
        ("3202", "3", "IOC", "filled", 3),
        ("3201", "3", "IOC", "cancelled", 1),
        ("3200", "3", "IOC", "cancelled", 0),
        ("3202", "3", "FOK", "filled", 3),
        ("3202", "3.01", "FOK", "cancelled", 0),
        ("3200.99", "1", "PostOnly", "new", 0),
        ("3201", "1", "PostOnly", "cancelled", 0),
        ("3201", "1", "GTC", "filled", 1),
    ],
)
def test_how_long_an_order_is_good(price: str, size: str, force: str, status: str, filled: int) -> None:
    order = Exchange().create("buy", price, size, force)
    assert (order.status, order.filled) == (status, Decimal(filled))
    if status == "cancelled":
        assert order.reason == ("post_only" if force == "PostOnly" else "unfilled")


def test_a_resting_order_fills_when_the_market_trades_through_it() -> None:
    exchange = Exchange()
    order = exchange.create("buy", "3199.50", "2")
    exchange.trade("3199.50", "10", buy=False)  # at its price: others were there before
    exchange.trade("3199", "10", buy=True)  # buyers do not sell to it
    assert exchange.now(order) == ("new", Decimal(0))
    exchange.trade("3199.49", "0.5", buy=False)
    assert exchange.now(order) == ("partially_filled", Decimal("0.5"))
    exchange.trade("3190", "10", buy=False)
    assert exchange.now(order) == ("filled", Decimal(2))
    assert {(fill.price, fill.maker) for fill in exchange.account.fills} == {(Decimal("3199.50"), True)}
    assert exchange.engine.followers == []


def test_a_resting_order_takes_from_a_book_that_has_come_to_it() -> None:
    exchange = Exchange()
    order = exchange.create("sell", "3250", "2")
    exchange.book({3260: 1, 3250: 3, 3200: 1, 3199: 1, 3198: 1}, {3261: 1, 3262: 1})
    exchange.trade("3261", "0.01", buy=False)
    assert exchange.now(order) == ("filled", Decimal(2))
    assert exchange.levels(exchange.engine.bids)[Decimal(3250)] == Decimal(2)


def test_the_best_price_comes_first_and_volume_is_given_once() -> None:
    exchange = Exchange()
    worse = exchange.create("buy", "3190", "1")
    first = exchange.create("buy", "3195", "1", account=1)
    second = exchange.create("buy", "3195", "1")
    exchange.trade("3180", "2.5", buy=False)
    assert exchange.now(first, 1) == ("filled", Decimal(1))
    assert exchange.now(second) == ("filled", Decimal(1))
    assert exchange.now(worse) == ("partially_filled", Decimal("0.5"))


def test_orders_of_accounts_never_meet_each_other() -> None:
    exchange = Exchange()
    rests = exchange.create("buy", "3200", "1")
    taker = exchange.create("sell", "3199", "0.5", account=1)
    assert exchange.accounts[1].fills[-1].price == Decimal(3199)  # the market's bid, not the better one beside it
    assert taker.status == "filled"
    exchange.engine.fills = [Fill(310_000, False, 1, (500,), "PlusTick", outside=True)]
    for follow in tuple(exchange.engine.followers):
        follow(exchange.engine)
    assert exchange.now(rests) == ("new", Decimal(0))


def test_orders_that_a_test_has_placed_are_left_to_it() -> None:
    exchange = Exchange()
    order_id = exchange.account.place(*LINEAR, "buy", "3300", "1")
    exchange.create("buy", "3195", "1")
    exchange.trade("3180", "10", buy=False)
    assert exchange.account.orders[order_id].status == "new"


def test_an_order_that_somebody_else_has_closed_is_forgotten() -> None:
    exchange = Exchange()
    order = exchange.create("buy", "3195", "1")
    exchange.account.cancel(order.order_id)
    exchange.trade("3180", "10", buy=False)
    assert exchange.now(order) == ("cancelled", Decimal(0))
    assert exchange.engine.followers == []


def test_what_is_not_listed_any_more_is_not_filled() -> None:
    exchange = Exchange()
    order = exchange.create("buy", "3195", "1")
    del exchange.market.listings[LINEAR]
    exchange.trade("3180", "10", buy=False)
    assert exchange.now(order) == ("new", Decimal(0))
    with pytest.raises(OrderRefused, match="unknown"):
        exchange.matching.amend(exchange.account, order, Decimal(3000), None)


def test_steps_and_bounds() -> None:
    exchange = Exchange()
    assert exchange.problem("buy", "3000.005", "1") == "price_step"
    assert exchange.problem("buy", "3000", "1.001") == "size_step"
    assert exchange.problem("buy", "3000", "0.01") == "too_small"
    assert exchange.problem("buy", "3000", "1001") == "too_large"
    assert exchange.problem("buy", "1", "2") == "too_little_value"
    assert not exchange.account.orders
    for _ in range(3):
        exchange.create("buy", "3000", "1")
    assert exchange.problem("buy", "3000", "1") == "too_many"
    exchange.create("buy", "3000", "1", account=1)


def test_a_client_order_id_is_taken_for_ever_or_while_its_order_is_open() -> None:
    for for_ever in (True, False):
        exchange = Exchange(Rules(bounds, end, unique_for_ever=for_ever, trims_reductions=True))
        order = exchange.create("buy", "3000", "1", client="a")
        assert exchange.problem("buy", "3000", "1", client="a") == "duplicate"
        exchange.create("buy", "3000", "1", client="a", account=1)
        exchange.matching.cancel(exchange.account, order)
        if for_ever:
            del exchange.account.orders[order.order_id]  # the account has forgotten it, the exchange has not
            assert exchange.problem("buy", "3000", "1", client="a") == "duplicate"
        else:
            exchange.create("buy", "3000", "1", client="a")
        exchange.create("buy", "3000", "1")
        exchange.create("buy", "3000", "1")  # without one there is nothing to repeat


def test_reduce_only_orders_never_open_a_position() -> None:
    exchange = Exchange()
    assert exchange.problem("sell", "3500", "1", reduce_only=True) == "nothing_to_reduce"
    exchange.create("buy", "3202", "2")
    assert exchange.problem("buy", "3000", "1", reduce_only=True) == "nothing_to_reduce"
    trimmed = exchange.create("sell", "3300", "5", reduce_only=True)
    assert trimmed.size == Decimal(2)
    other = exchange.create("sell", "3350", "2", reduce_only=True)
    exchange.trade("3360", "1.5", buy=True)
    assert exchange.now(trimmed) == ("partially_filled", Decimal("1.5"))
    exchange.trade("3360", "10", buy=True)
    assert exchange.now(trimmed) == ("filled", Decimal(2))
    assert exchange.now(other) == ("cancelled", Decimal(0))
    assert exchange.account.orders[other.order_id].reason == "reduced"
    assert exchange.account.position(*LINEAR).size == 0
    strict = Exchange(Rules(bounds, end, unique_for_ever=True, trims_reductions=False))
    strict.create("buy", "3202", "2")
    assert strict.problem("sell", "3300", "2.01", reduce_only=True) == "too_much_to_reduce"
    assert strict.create("sell", "3300", "2", reduce_only=True).status == "new"


def test_a_value_in_quote_currency_buys_what_the_book_has_for_it() -> None:
    exchange = Exchange(of=SPOT)
    order = exchange.create("buy", None, "6403", "IOC", in_quote=True)  # 3201 for one, 3202 for the other
    assert (order.status, order.filled, order.value, order.quote_size) == (
        "filled", Decimal(2), Decimal(6403), Decimal(6403),
    )  # fmt: skip
    assert exchange.problem("buy", None, "0.003", in_quote=True) == "too_little_value"


def test_an_amendment_keeps_to_the_rules_and_may_cross() -> None:
    exchange = Exchange()
    order = exchange.create("buy", "3201", "2")  # one is filled at once
    amend, account = exchange.matching.amend, exchange.account

    def problem(price: str | None, size: str | None) -> str:
        with pytest.raises(OrderRefused) as caught:
            amend(account, account.orders[order.order_id], *(each and Decimal(each) for each in (price, size)))  # type: ignore[arg-type]
        return caught.value.problem

    assert problem(None, None) == "unchanged"
    assert problem("3201", "2") == "unchanged"
    assert problem("3201.005", None) == "price_step"
    assert problem(None, "1.005") == "size_step"
    assert problem(None, "1001") == "too_large"
    assert problem(None, "1") == "below_filled"
    changed = amend(account, account.orders[order.order_id], None, Decimal("1.5"))
    assert (changed.size, changed.filled, changed.status) == (Decimal("1.5"), Decimal(1), "partially_filled")
    crossed = amend(account, changed, Decimal(3202), Decimal(4))
    assert (crossed.size, crossed.filled, crossed.status) == (Decimal(4), Decimal(3), "partially_filled")
    maker = exchange.create("buy", "3000", "1", "PostOnly")
    assert amend(account, maker, Decimal(3400), None).reason == "post_only"


def test_orders_are_found_while_they_are_open() -> None:
    exchange = Exchange()
    find, account = exchange.matching.find, exchange.account
    order = exchange.create("buy", "3000", "1", client="a")
    assert find(account, *LINEAR, order.order_id, "") is order
    assert find(account, *LINEAR, "", "a") is order
    assert find(account, *LINEAR, order.order_id, "whatever") is order
    filled, cancelled = exchange.create("buy", "3201", "1"), exchange.create("buy", "3000", "1", client="c")
    exchange.matching.cancel(account, cancelled)
    for arguments, problem in (
        ((account, *LINEAR, "", "b"), "unknown"),
        ((account, "inverse", "ETHUSD", order.order_id, ""), "unknown"),
        ((exchange.accounts[1], *LINEAR, order.order_id, ""), "unknown"),
        ((account, *LINEAR, filled.order_id, ""), "filled"),
        ((account, *LINEAR, "", "c"), "closed"),
    ):
        with pytest.raises(OrderRefused) as caught:
            find(*arguments)
        assert caught.value.problem == problem


def test_all_of_a_kind_are_cancelled_at_once() -> None:
    exchange = Exchange()
    orders = [exchange.create(side, price, "1") for side, price in (("buy", "3000"), ("sell", "3300"))]
    assert exchange.matching.cancel_all(exchange.account, lambda order: order.side == "buy", "why") == 1
    assert [exchange.now(order)[0] for order in orders] == ["cancelled", "new"]
    assert exchange.account.orders[orders[0].order_id].reason == "why"
