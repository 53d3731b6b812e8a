"""Order entry against the simulated venue, which is another reading of the same manual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import attrs
import pytest
import trio
import trio.testing

from pipeline.exchanges.accounts import AccountSpec, Credentials, Login, Post, Requests, Steps, T
from pipeline.exchanges.bybit.private_side import BybitAccounts
from pipeline.exchanges.bybit.trading import BybitTrading
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.trading import Answer, TradeItem, TradeRequest, TradeSession
from pipeline.exchanges.venue import Catalogue
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE
from pipeline.sim.http import Request
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.exchanges.bybit.test_account_simulated import catalogue
from tests.exchanges.bybit.trade_items import limit, market_order, trade
from tests.sim.bybit_client import ACCOUNT, SLOW
from tests.sim.clients import Client, connect_in_memory

VENUE, SIDE, TRADING = Bybit(), BybitAccounts(), BybitTrading()
KEYS = Credentials(ACCOUNT.key, ACCOUNT.secret)
LINEAR, SPOT = "BTCUSDT", "BTCUSDT"


@attrs.define
class Desk:
    """A connection for order entry, driven by hand."""

    venue: SimulatedVenue
    client: Client
    session: TradeSession
    known: Catalogue
    requests: int = 0

    async def pump(self) -> list[Answer]:
        for text in self.session.data_to_send():
            await self.client.say(text)
        return self.session.receive((await self.client.text()).encode(), trio.current_time())

    async def ask(self, action: str, *items: TradeItem, seconds: float = 60.0) -> Answer:
        for each in items:
            assert TRADING.problems(action, each) == []
        self.requests += 1
        not_after = Micros(self.venue.floor.clock.now_us() + round(seconds * 1e6))
        made = TradeRequest(f"r{self.requests}", action, items, not_after)
        self.session.submit(made, trio.current_time())
        (answer,) = await self.pump()
        assert answer.request_id == made.id
        assert self.session.notices() == []
        return answer

    async def do(self, action: str, *items: TradeItem) -> list[tuple[bool | None, str]]:
        return [(each.accepted, each.code) for each in (await self.ask(action, *items)).items]

    def walk(self, steps: Steps[T] | Requests[T]) -> T:
        try:
            asked: str | Post = next(steps)
            while True:
                path, body = (asked, None) if isinstance(asked, str) else (asked.path, asked.body)
                headers = SIDE.sign(KEYS, path, Micros(self.venue.floor.clock.now_us()), body)
                lowered = {name.lower(): text for name, text in headers.items()}
                made = Request("GET" if body is None else "POST", path, lowered, body or b"")
                response = self.venue.dialect.rest(made)
                assert response is not None, path
                asked = steps.send(response.body)
        except StopIteration as end:
            value: T = end.value
            return value

    def find(self, item: TradeItem) -> Order | None:
        return self.walk(TRADING.finder("main", "c#1", self.known)(item))

    def low(self, market: str, symbol: str) -> DecimalText:
        """A price at which an order to buy rests."""
        price = self.walk(TRADING.reference_price(self.known[market, symbol]))
        assert price is not None
        return DecimalText(str(int(Decimal(price) / 2)))


def login_at(venue: SimulatedVenue) -> Login:
    return Login(KEYS, venue.floor.clock.now_us() / 1e6 - trio.current_time())


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[ACCOUNT]) as venue,
        connect_in_memory(venue, VENUE.path(TRADING.endpoint, VENUE.session_times)) as client,
    ):
        session = TRADING.session(VENUE.session_times, login_at(venue))
        session.start(trio.current_time())
        desk = Desk(venue, client, session, catalogue(venue))
        while not session.ready:
            assert await desk.pump() == []
        yield desk


@pytest.mark.parametrize("market", ["linear", "spot"])
async def test_the_life_of_an_order(autojump_clock: trio.testing.MockClock, market: str) -> None:
    async with open_desk() as desk:
        order = limit(market, symbol=LINEAR, price=desk.low(market, LINEAR), is_post_only=True)
        assert desk.find(order) is None
        (created,) = (await desk.ask(CREATE, order)).items
        assert created.accepted
        assert created.order_id
        found = desk.find(order)
        assert found is not None
        assert (found.order_id, found.client_order_id) == (created.order_id, "c1")
        assert (found.status, found.size, found.is_post_only) == ("new", "0.2", True)

        name = trade(market, LINEAR, client_order_id="c1")
        assert await desk.do(AMEND, attrs.evolve(name, item=attrs.evolve(name.item, size=DecimalText("0.3")))) == [
            (True, "0")
        ]
        found = desk.find(name)
        assert found is not None
        assert Decimal(found.size or 0) == Decimal("0.3")

        assert await desk.do(CANCEL, name) == [(True, "0")]
        found = desk.find(trade(market, LINEAR, order_id=created.order_id))
        assert found is not None
        assert found.status == "cancelled"
        ((accepted, _),) = await desk.do(CANCEL, name)
        assert accepted is False
        ((accepted, _),) = await desk.do(CREATE, order)
        assert accepted is None  # the name was used: whether by this order is looked up


async def test_a_batch_of_which_one_fails(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        price = desk.low("linear", LINEAR)
        good, bad = (
            limit(symbol=LINEAR, price=price, size=size, client_order_id=f"c{size}".replace(".", "-"))
            for size in ("0.2", "0.00000001")
        )
        answer = await desk.ask(CREATE, good, bad)
        assert [(each.accepted, each.error_class) for each in answer.items] == [(True, None), (False, "permanent")]
        assert [desk.find(each) is not None for each in (good, bad)] == [True, False]
        assert [(each.key, each.remaining) for each in answer.limits] == [("create-batch futures", 8)]
        names = [trade(symbol=LINEAR, client_order_id=each.item.client_order_id) for each in (good, bad)]
        assert await desk.do(CANCEL, *names) == [(True, "0"), (False, "110001")]


async def test_what_is_late_is_refused_by_the_venue_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        order = limit(symbol=LINEAR, price=desk.low("linear", LINEAR))
        answer = await desk.ask(CREATE, order, seconds=-0.001)
        assert [(each.accepted, each.code, each.error_class) for each in answer.items] == [
            (False, "10002", "retryable")
        ]
        assert not desk.session.ends_soon
        assert desk.find(order) is None


async def test_sizes_of_spot_market_orders_are_what_was_said(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        coins = market_order(symbol=SPOT, size="0.001")
        assert await desk.do(CREATE, coins) == [(True, "0")]
        found = desk.find(coins)
        assert found is not None
        assert (found.status, found.size_unit) == ("filled", "base")
        assert Decimal(found.filled_size or 0) == Decimal("0.001")
        value = market_order(symbol=SPOT, size="50", size_unit="quote", client_order_id="c2")
        assert await desk.do(CREATE, value) == [(True, "0")]
        found = desk.find(value)
        assert found is not None
        assert (found.size_unit, found.size) == ("quote", "50")
        assert Decimal(found.filled_size or 0) < 1


async def test_orders_are_cancelled_when_we_are_gone(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        order = limit(symbol=LINEAR, price=desk.low("linear", LINEAR))
        assert await desk.do(CREATE, order) == [(True, "0")]
        wanted = SIDE.subscriptions(AccountSpec("dcp", "linear"))
        assert TRADING.arm_problems(40.0, [each.topic for each in wanted], ["linear"]) == []
        desk.walk(TRADING.arm(40.0, ["linear"]))
        async with connect_in_memory(desk.venue, VENUE.path("private", VENUE.session_times)) as client:
            session = VENUE.session("private", wanted, VENUE.session_times, login_at(desk.venue))
            session.start(trio.current_time())
            while not session.ready:
                for text in session.data_to_send():
                    await client.say(text)
                session.receive((await client.text()).encode(), trio.current_time())
        for seconds, status in ((30, "new"), (15, "cancelled")):
            await trio.sleep(seconds)
            found = desk.find(order)
            assert found is not None
            assert found.status == status
