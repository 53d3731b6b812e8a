"""Reference prices: fresh, or none."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage
from pipeline.model.events import Instrument
from pipeline.orders.prices import FETCH_WITHIN, KEPT_FOR, MAX_KEPT, Prices
from tests.orders.samples import instrument


class Ticker:
    """Tells a new price at each question."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.error: Exception | None = None
        self.silent = False

    async def fetch(self, instrument: Instrument) -> DecimalText | None:
        self.asked.append(trio.current_time())
        if self.silent:
            await trio.sleep_forever()
        await trio.sleep(0.1)
        if self.error is not None:
            raise self.error
        return DecimalText(str(len(self.asked)))


async def test_only_the_first_order_waits(autojump_clock: MockClock) -> None:
    ticker, it = Ticker(), instrument()
    prices = Prices(ticker.fetch, max_age=4.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prices.run)
        assert prices.want(it, trio.current_time()) is None
        await prices.refresh(it)
        for _ in range(100):
            assert prices.want(it, trio.current_time()) is not None
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert 20 <= len(ticker.asked) <= 30  # every two seconds or so


async def test_a_price_grows_old(autojump_clock: MockClock) -> None:
    ticker, it = Ticker(), instrument()
    prices = Prices(ticker.fetch, max_age=4.0)
    prices.want(it, trio.current_time())
    await prices.refresh(it)
    await trio.sleep(3.8)
    assert prices.want(it, trio.current_time()) == "1"
    await trio.sleep(0.2)
    assert prices.want(it, trio.current_time()) is None


async def test_two_who_want_the_same_ask_once(autojump_clock: MockClock) -> None:
    ticker, it = Ticker(), instrument()
    prices = Prices(ticker.fetch, max_age=4.0)
    prices.want(it, trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prices.refresh, it)
        nursery.start_soon(prices.refresh, it)
    assert len(ticker.asked) == 1
    assert prices.want(it, trio.current_time()) == "1"


async def test_trouble_is_no_price(autojump_clock: MockClock) -> None:
    ticker, it = Ticker(), instrument()
    prices = Prices(ticker.fetch, max_age=4.0)
    prices.want(it, trio.current_time())
    ticker.error = BadMessage("no number")
    await prices.refresh(it)
    ticker.silent = True
    before = trio.current_time()
    await prices.refresh(it)
    assert trio.current_time() - before == FETCH_WITHIN
    assert prices.want(it, trio.current_time()) is None
    assert prices.failures == 2


async def test_what_nobody_orders_any_more_is_let_go(autojump_clock: MockClock) -> None:
    ticker = Ticker()
    prices = Prices(ticker.fetch, max_age=4.0)
    for number in range(MAX_KEPT + 5):
        prices.want(instrument(f"I{number}"), trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prices.run)
        await wait_all_tasks_blocked()
        assert len(ticker.asked) == MAX_KEPT
        await trio.sleep(KEPT_FOR + 5)
        before = len(ticker.asked)
        await trio.sleep(60)
        assert len(ticker.asked) == before
        nursery.cancel_scope.cancel()
