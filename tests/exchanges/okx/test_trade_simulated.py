"""Order entry against the simulated venue, which is another reading of the same manual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from pipeline.exchanges.accounts import Credentials, Login, Post, Requests, Steps, T
from pipeline.exchanges.trading import ItemAnswer, TradeItem, TradeRequest, TradeSession
from pipeline.model.account import Order
from pipeline.model.events import Instrument, Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE, MASS_CANCEL
from pipeline.sim.http import Request
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.exchanges.okx.samples import VENUE
from tests.exchanges.okx.trade_items import SPOT, SWAP, TRADING, item, limit_order, market_order
from tests.sim.clients import Client, connect_in_memory
from tests.sim.okx_client import ACCOUNT, SLOW

KEYS = Credentials(ACCOUNT.key, ACCOUNT.secret, ACCOUNT.passphrase)


def ask(venue: SimulatedVenue, request: str | Post) -> bytes:
    side = VENUE.accounts
    assert side is not None
    path, body = (request, None) if isinstance(request, str) else (request.path, request.body)
    headers = side.sign(KEYS, path, Micros(venue.floor.clock.now_us()), body)
    method = "GET" if body is None else "POST"
    response = venue.dialect.rest(
        Request(method, path, {name.lower(): text for name, text in headers.items()}, body or b"")
    )
    assert response is not None, path
    return response.body


def walk(venue: SimulatedVenue, steps: Steps[T] | Requests[T]) -> T:
    try:
        asked: str | Post = next(steps)
        while True:
            asked = steps.send(ask(venue, asked))
    except StopIteration as end:
        value: T = end.value
        return value


def catalogue(venue: SimulatedVenue) -> dict[tuple[str, str], Instrument]:
    found: dict[tuple[str, str], Instrument] = {}
    for market in ("spot", "swap", "option"):
        pages = list(VENUE.instrument_pages(market))
        while pages:
            page = pages.pop()
            entries, following = VENUE.parse_instruments(market, page, ask(venue, page.path), 1)
            found.update({(market, str(each.origin.instrument)): each for each in entries})
            pages += [following] if following is not None else []
    return found


@attrs.define
class Desk:
    """A connection for order entry, driven by hand."""

    venue: SimulatedVenue
    client: Client
    session: TradeSession
    known: dict[tuple[str, str], Instrument]
    requests: int = 0

    async def pump(self) -> list[Any]:
        for text in self.session.data_to_send():
            await self.client.say(text)
        return self.session.receive((await self.client.text()).encode(), trio.current_time())

    async def do(self, action: str, *entries: TradeItem, seconds: float = 5.0, **more: Any) -> list[ItemAnswer]:
        for entry in entries:
            assert TRADING.problems(action, entry) == []
        self.requests += 1
        not_after = Micros(self.venue.floor.clock.now_us() + round(seconds * 1e6))
        made = TradeRequest(f"r{self.requests}", action, entries, not_after, **more)
        self.session.submit(made, trio.current_time())
        (answer,) = await self.pump()
        assert answer.request_id == made.id
        assert self.session.notices() == []
        if action != MASS_CANCEL:
            assert 0 < answer.in_time <= answer.out_time
        return list(answer.items)

    def find(self, entry: TradeItem) -> Order | None:
        return walk(self.venue, TRADING.finder("main", "c#1", self.known)(entry))

    def far_below(self, market: str, name: str) -> str:
        """A price that rests."""
        instrument = self.known[market, name]
        price = walk(self.venue, TRADING.reference_price(instrument))
        assert price is not None
        return str(Decimal(price) // 2)


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with (
        open_venue("okx", listen=False, market=SLOW, accounts=[ACCOUNT]) as venue,
        connect_in_memory(venue, "/ws/v5/private") as client,
    ):
        login = Login(KEYS, venue.floor.clock.now_us() / 1e6 - trio.current_time())
        session = TRADING.session(VENUE.session_times, login)
        session.start(trio.current_time())
        desk = Desk(venue, client, session, catalogue(venue))
        while not session.ready:
            await desk.pump()
        yield desk


async def test_the_life_of_an_order(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        swap = desk.known["swap", SWAP]
        price = desk.far_below("swap", SWAP)
        order = limit_order(swap, price=price, size="2", client_order_id="a1")
        assert desk.find(order) is None
        (created,) = await desk.do(CREATE, order)
        assert created == ItemAnswer(True, created.order_id)
        found = desk.find(order)
        assert found is not None
        assert (found.order_id, found.status, found.price, found.size) == (created.order_id, "new", price, "2")

        (again,) = await desk.do(CREATE, order)
        assert (again.accepted, again.code) == (None, "51016")

        (amended,) = await desk.do(AMEND, item(swap, client_order_id="a1", size="3"))
        assert amended.accepted
        found = desk.find(order)
        assert found is not None
        assert found.size == "3"

        named = item(swap, order_id=created.order_id)
        assert (await desk.do(CANCEL, named))[0].accepted
        (late,) = await desk.do(CANCEL, named)
        assert (late.accepted, late.code, late.error_class) == (False, "51401", "permanent")
        found = desk.find(named)
        assert found is not None
        assert found.status == "cancelled"


async def test_a_batch_with_one_bad_order(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        swap = desk.known["swap", SWAP]
        price = desk.far_below("swap", SWAP)
        sizes = ("1", "0.00001", "2")
        orders = [
            limit_order(swap, price=price, size=size, client_order_id=f"b{place}") for place, size in enumerate(sizes)
        ]
        answers = await desk.do(CREATE, *orders)
        assert [answer.accepted for answer in answers] == [True, False, True]
        answers = await desk.do(CANCEL, *(item(swap, client_order_id=f"b{place}") for place in range(3)))
        assert [(answer.accepted, answer.code) for answer in answers] == [(True, ""), (False, "51400"), (True, "")]


async def test_a_market_order_of_coins_is_counted_in_coins(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        order = market_order(desk.known["spot", SPOT], size="0.0001", client_order_id="m1")
        assert (await desk.do(CREATE, order))[0].accepted
        found = desk.find(order)
        assert found is not None
        assert (found.status, found.size, found.size_unit, found.filled_size) == ("filled", "0.0001", "base", "0.0001")


async def test_what_is_too_late_is_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        order = limit_order(desk.known["swap", SWAP], price=desk.far_below("swap", SWAP))
        (late,) = await desk.do(CREATE, order, seconds=-1.0)
        assert (late.accepted, late.code, late.error_class) == (False, "50036", "retryable")


async def test_a_mass_cancel(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        family = next(each.underlying for (market, _), each in desk.known.items() if market == "option")
        assert await desk.do(MASS_CANCEL, market="option", family=family) == [ItemAnswer(True)]
        (unknown,) = await desk.do(MASS_CANCEL, market="option", family="NONE-USD")
        assert (unknown.accepted, unknown.code) == (False, "51001")


async def test_everything_is_cancelled_when_we_are_gone(autojump_clock: trio.testing.MockClock) -> None:
    async with open_desk() as desk:
        order = limit_order(desk.known["swap", SWAP], price=desk.far_below("swap", SWAP))
        assert (await desk.do(CREATE, order))[0].accepted
        walk(desk.venue, TRADING.arm(10.0, ("swap",)))
        await trio.sleep(TRADING.arm_every(10.0))
        walk(desk.venue, TRADING.arm(10.0, ("swap",)))
        await trio.sleep(9.0)
        found = desk.find(order)
        assert found is not None
        assert found.status == "new"
        await trio.sleep(1.1)
        found = desk.find(order)
        assert found is not None
        assert found.status == "cancelled"


@pytest.mark.parametrize("name", [SPOT, SWAP])
async def test_reference_prices(autojump_clock: trio.testing.MockClock, name: str) -> None:
    async with open_venue("okx", listen=False, market=SLOW, accounts=[ACCOUNT]) as venue:
        known = catalogue(venue)
        price = walk(venue, TRADING.reference_price(known["spot" if name == SPOT else "swap", name]))
        assert price is not None
        assert Decimal(price) > 0
