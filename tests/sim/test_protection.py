"""Orders that the venues cancel because their owner is gone, and the REST that is about it and about orders' prices."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from pipeline.sim.http import Request
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim import bybit_client, okx_client
from tests.sim.bybit_client import NOW_MS, SLOW, documented
from tests.sim.clients import connect_in_memory

LINEAR, SPOT, OPTION = ("linear", "BTCUSDT"), ("spot", "BTCUSDT"), ("option", "BTC-26MAR27-65000-C-USDT")
WINDOW = "/v5/order/disconnected-cancel-all"
COUNTDOWN = "/api/v5/trade/cancel-all-after"


@asynccontextmanager
async def running(name: str) -> AsyncIterator[SimulatedVenue]:
    account = bybit_client.ACCOUNT if name == "bybit" else okx_client.ACCOUNT
    async with open_venue(name, listen=False, market=SLOW, accounts=[account], start_us=NOW_MS * 1000) as venue:
        yield venue


def post(venue: SimulatedVenue, target: str, sent: bytes, signs: bytes | None = None) -> Any:
    """A POST to Bybit, signed over its body or over another one."""
    stamp, account = str(venue.floor.clock.now_ms()), bybit_client.ACCOUNT
    payload = (sent if signs is None else signs).decode()
    headers = {
        "x-bapi-api-key": account.key, "x-bapi-timestamp": stamp, "x-bapi-recv-window": "5000",
        "x-bapi-sign": bybit_client.signature(account.secret, f"{stamp}{account.key}5000{payload}"),
    }  # fmt: skip
    return bybit_client.body(venue.dialect.rest(Request("POST", target, headers, sent)))


@asynccontextmanager
async def protected(venue: SimulatedVenue, *topics: str) -> AsyncIterator[None]:
    """A private connection that has asked for protection."""
    async with connect_in_memory(venue, "/v5/private") as client:
        await bybit_client.log_in(venue, client)
        assert (await client.ask({"op": "subscribe", "args": list(topics)}))["success"] is True
        yield


def place_everywhere(venue: SimulatedVenue) -> None:
    for market, symbol in (LINEAR, SPOT, OPTION):
        venue.accounts["main"].place(market, symbol, "buy", "100", "1")


def open_markets(venue: SimulatedVenue) -> list[str]:
    return [order.market for order in venue.accounts["main"].open_orders()]


async def test_the_window_is_set_and_told(autojump_clock: trio.testing.MockClock) -> None:
    async with running("bybit") as venue:
        answer = post(venue, WINDOW, b'{"product": "DERIVATIVES", "timeWindow": 40}')
        assert answer["retCode"] == 0
        info = bybit_client.get(venue, "/v5/account/query-dcp-info")
        expected = documented("rest.account.query-dcp-info.json")["result"]
        assert info["dcpInfos"][0].keys() == expected["dcpInfos"][0].keys()
        assert {each["product"]: each["timeWindow"] for each in info["dcpInfos"]} == {
            "SPOT": "10", "DERIVATIVES": "40", "OPTIONS": "10",
        }  # fmt: skip
        for sent, code in (
            (b'{"timeWindow": 300}', 0),
            (b'{"timeWindow": 2}', 10001),
            (b'{"timeWindow": 301}', 10001),
        ):
            assert post(venue, WINDOW, sent)["retCode"] == code
        assert post(venue, WINDOW, b'{"timeWindow": 3}')["retCode"] == 0
        assert post(venue, WINDOW, b'{"timeWindow": 3}')["retCode"] == 10006  # five a second
        await trio.sleep(1)
        assert post(venue, WINDOW, b'{"timeWindow": "40"}')["retCode"] == 10001
        assert post(venue, WINDOW, b'{"timeWindow": 40, "product": "ALL"}')["retCode"] == 10001
        assert post(venue, WINDOW, b"[]")["retCode"] == 10001
        assert post(venue, WINDOW, b'{"timeWindow": 40}', b'{"timeWindow":40}')["retCode"] == 10004
        assert bybit_client.get(venue, "/v5/account/info")["timeWindow"] == 10
        assert venue.dialect.rest(bybit_client.signed(venue, WINDOW)) is None


async def test_orders_of_a_product_are_cancelled_when_the_last_connection_is_gone_too_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("bybit") as venue:
        place_everywhere(venue)
        assert post(venue, WINDOW, b'{"product": "DERIVATIVES", "timeWindow": 40}')["retCode"] == 0
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(protected(venue, "dcp.future", "order"))
            async with protected(venue, "dcp.future", "dcp.option"):
                await trio.sleep(60)
            await trio.sleep(9)
            assert open_markets(venue) == ["linear", "spot", "option"]
            await trio.sleep(2)
            assert open_markets(venue) == ["linear", "spot"]  # options had ten seconds and one connection
            await trio.sleep(60)
        await trio.sleep(39)
        assert open_markets(venue) == ["linear", "spot"]
        await trio.sleep(2)
        assert open_markets(venue) == ["spot"]
        cancelled = next(each for each in venue.accounts["main"].orders.values() if each.market == "linear")
        assert cancelled.reason == "CancelByDCP"


async def test_whoever_comes_back_in_time_keeps_its_orders(autojump_clock: trio.testing.MockClock) -> None:
    async with running("bybit") as venue:
        place_everywhere(venue)
        async with protected(venue, "dcp.spot"):
            pass
        await trio.sleep(8)
        async with protected(venue, "dcp.spot"):
            await trio.sleep(1)
        await trio.sleep(9)  # eighteen seconds since the first disconnection
        assert open_markets(venue) == ["linear", "spot", "option"]
        await trio.sleep(2)
        assert open_markets(venue) == ["linear", "option"]
        place_everywhere(venue)
        async with connect_in_memory(venue, "/v5/private") as client:
            await bybit_client.log_in(venue, client)
            for op in ("subscribe", "unsubscribe"):
                await client.ask({"op": op, "args": ["dcp.spot"]})
        await trio.sleep(60)
        assert "spot" in open_markets(venue)  # it had taken its request back


async def test_a_countdown_cancels_everything_unless_it_is_put_off(autojump_clock: trio.testing.MockClock) -> None:
    async with running("okx") as venue:
        account = venue.accounts["a-key"]

        def arm(sent: str, target: str = COUNTDOWN) -> Any:
            return okx_client.answered(venue, okx_client.signed(venue, target, post=sent.encode()))

        order_id = account.place("SWAP", okx_client.SWAP, "buy", "100", "1")
        account.place("SPOT", "BTC-USDT", "buy", "100", "1")
        answer = arm('{"timeOut": "30"}')
        assert answer == {
            "code": "0", "msg": "", "data": [{"triggerTime": str(NOW_MS + 30_000), "tag": "", "ts": str(NOW_MS)}]
        }  # fmt: skip
        assert arm('{"timeOut": "30"}')["code"] == "50011"  # one a second
        await trio.sleep(20)
        assert arm('{"timeOut": "30"}')["code"] == "0"
        await trio.sleep(20)
        assert arm('{"timeOut": "0"}')["data"][0]["triggerTime"] == "0"
        await trio.sleep(60)
        assert len(account.open_orders()) == 2
        assert arm('{"timeOut": "10"}')["code"] == "0"
        await trio.sleep(9.5)
        assert len(account.open_orders()) == 2
        await trio.sleep(1)
        assert account.open_orders() == []
        listed = okx_client.answered(
            venue, okx_client.signed(venue, f"/api/v5/trade/order?instId={okx_client.SWAP}&ordId={order_id}")
        )
        assert listed["data"][0]["cancelSource"] == "20"
        for sent in ('{"timeOut": "9"}', '{"timeOut": "121"}', '{"timeOut": 30}', "{}", '{"timeOut": "1e2"}'):
            assert arm(sent)["code"] == "51000", sent
        assert arm("[]")["code"] == "50000"
        request = okx_client.signed(venue, COUNTDOWN, post=b'{"timeOut": "30"}')
        forged = attrs.evolve(request, body=b'{"timeOut": "31"}')
        assert okx_client.answered(venue, forged)["code"] == "50113"
        assert venue.dialect.rest(okx_client.signed(venue, COUNTDOWN)) is None


async def test_closed_orders_are_in_okx_history(autojump_clock: trio.testing.MockClock) -> None:
    async with running("okx") as venue:
        account = venue.accounts["a-key"]
        ids = [
            account.place("SWAP", okx_client.SWAP, "buy", "100", "1", client_order_id=str(each)) for each in range(3)
        ]
        account.cancel(ids[0])
        account.fill(ids[1])

        def found(query: str) -> list[str]:
            answer = okx_client.answered(venue, okx_client.signed(venue, f"/api/v5/trade/orders-history{query}"))
            return [row["ordId"] for row in answer["data"]] or [answer["code"]]

        assert found("?instType=SWAP") == [ids[1], ids[0]]
        assert found("?instType=SWAP&state=canceled") == [ids[0]]
        assert found(f"?instType=SWAP&after={ids[1]}") == [ids[0]]
        assert found("?instType=SPOT") == ["0"]
        assert found("") == ["50014"]


@pytest.mark.parametrize("category", ["spot", "linear", "inverse", "option"])
async def test_bybit_tells_prices_over_rest(category: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running("bybit") as venue:

        def ask(query: str) -> Any:
            return bybit_client.body(venue.dialect.rest(Request("GET", f"/v5/market/tickers{query}", {})))

        listing = venue.floor.market.of(category)[0]
        answer = ask(f"?category={category}&symbol={listing.symbol}")
        (row,) = answer["result"]["list"]
        engine = venue.floor.market.engine(listing)
        assert (row["symbol"], row["bid1Price"]) == (listing.symbol, engine.price(engine.bids.best))
        price = row["lastPrice"] if category == "spot" else row["markPrice"]
        assert Decimal(price) > 0
        assert answer["result"]["category"] == category
        assert "askPrice" not in row
        rows = ask(f"?category={category}{'&baseCoin=BTC' if category == 'option' else ''}")["result"]["list"]
        assert len(rows) > 1
        for wrong in (f"?category={category}&symbol=NO", "?category=futures", "?category=option"):
            assert ask(wrong)["retCode"] == 10001


async def test_okx_tells_prices_over_rest(autojump_clock: trio.testing.MockClock) -> None:
    async with running("okx") as venue:

        def ask(target: str) -> Any:
            return okx_client.answered(venue, Request("GET", f"/api/v5{target}", {}))

        engine = venue.engine("SWAP", okx_client.SWAP)
        mark = ask(f"/public/mark-price?instType=SWAP&instId={okx_client.SWAP}")
        assert mark["data"] == [
            {"instType": "SWAP", "instId": okx_client.SWAP, "markPx": "65000", "ts": str(NOW_MS)}
        ]  # fmt: skip
        engine.mark += 1
        assert ask(f"/public/mark-price?instType=SWAP&instId={okx_client.SWAP}")["data"][0]["markPx"] == "65000.1"
        assert ask("/public/mark-price?instType=MARGIN&instId=BTC-USDT")["data"][0]["instType"] == "MARGIN"
        assert ask("/public/mark-price?instType=SPOT")["code"] == "51000"
        assert ask("/public/mark-price?instType=SWAP&instId=NO")["code"] == "51001"
        (row,) = ask("/market/ticker?instId=BTC-USDT")["data"]
        expected = json.loads('{"instType":"SPOT","instId":"BTC-USDT","last":"65000"}')
        assert row.items() >= expected.items()
        assert len(ask("/market/tickers?instType=SPOT")["data"]) == 3
        assert ask("/market/ticker?instId=NO")["code"] == "51001"
        assert ask("/market/tickers?instType=X")["code"] == "51000"
