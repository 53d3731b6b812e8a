from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, ConnectionRejected

from pipeline.model.rate import Rate
from pipeline.sim.bybit import LIMITS
from pipeline.sim.http import Request
from pipeline.sim.listing import bybit_defaults, many
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.bybit_client import body, documented
from tests.sim.clients import Book, Client, connect, connect_in_memory, sample, true_book

FAST = MarketSettings(seed=3, rate=200, levels=80)
SLOW = MarketSettings(rate=0.001)
ACCOUNT = Account("a-key", "TESTSECRET")


@asynccontextmanager
async def in_memory(endpoint: str, **options: Any) -> AsyncIterator[tuple[SimulatedVenue, Client]]:
    path = f"/v5/{endpoint if endpoint in ('private', 'trade') else f'public/{endpoint}'}"
    async with open_venue("bybit", listen=False, **options) as venue, connect_in_memory(venue, path) as client:
        yield venue, client


@pytest.mark.parametrize(
    ("endpoint", "topic", "ack", "error", "pong"),
    [
        ("spot", "tickers.BTCUSDT", "spot", "recorded", "spot"),
        ("linear", "tickers.BTCUSDT", "linear", "linear", "linear"),
        ("inverse", "tickers.BTCUSD", "linear", "linear", "linear"),
        ("option", "tickers.BTC-26MAR27-65000-C-USDT", "option", "option", "option"),
        ("spread", "tickers.SOLUSDT_SOL/USDT", "option", "option", "option"),
    ],
)
async def test_answers_have_the_form_of_their_dialect(
    endpoint: str, topic: str, ack: str, error: str, pong: str, autojump_clock: trio.testing.MockClock
) -> None:
    errors = {
        "recorded": sample("bybit", "control.subscribe.error.public.recorded.jsonl"),
        "linear": sample("bybit", "derived.control.subscribe.error.public.jsonl"),
        "option": sample("bybit", "derived.control.subscribe.error.option.jsonl"),
    }
    async with in_memory(endpoint, market=SLOW) as (_venue, client):
        got = await client.ask({"op": "ping"})
        assert got.keys() == sample("bybit", f"control.pong.public.{pong}.jsonl").keys()
        assert "pong" in (got.get("ret_msg"), got["op"])

        got = await client.ask({"op": "subscribe", "args": [topic]})
        expected = sample("bybit", f"control.subscribe.ack.public.{ack}.jsonl", 1 if ack == "spot" else 0)
        assert got.keys() == expected.keys()
        assert got["success"] is True
        if ack == "option":
            assert got["data"] == {"failTopics": [], "successTopics": [topic]}
        else:
            assert (got["op"], got["ret_msg"]) == (expected["op"], expected["ret_msg"])

        bad = topic.replace("tickers", "orderbook.500")
        got = await client.ask({"op": "subscribe", "args": [bad]})
        assert got.keys() == errors[error].keys()
        assert got["success"] is False
        if ack == "option":
            assert got["data"] == {"failTopics": [bad], "successTopics": []}
        else:
            assert got["ret_msg"] == f"error:handler not found,topic:{bad}"

        got = await client.ask({"op": "unsubscribe", "args": [topic], "req_id": "seven"})
        if ack != "option":
            assert got.keys() == sample("bybit", "derived.control.unsubscribe.ack.jsonl").keys()
            assert (got["op"], got["req_id"]) == ("unsubscribe", "seven")


async def test_one_bad_topic_refuses_a_whole_request_except_on_options(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=SLOW) as (venue, client):
        got = await client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT", "tickers.NOUSDT"]})
        assert got["success"] is False
        assert venue.subscriptions() == 0
    async with in_memory("option", market=SLOW) as (venue, client):
        good = "orderbook.25.BTC-26MAR27-65000-C-USDT"
        got = await client.ask({"op": "subscribe", "args": [good, "orderbook.25.NOPE"]})
        assert got["data"] == {"failTopics": ["orderbook.25.NOPE"], "successTopics": [good]}
        assert venue.subscriptions(good) == 1


async def test_subscription_limits(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("spot", market=SLOW) as (venue, client):
        got = await client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"] * 11})
        assert got["ret_msg"] == "args size >10"
        assert venue.subscriptions() == 0
        await client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
        got = await client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
        assert "already subscribed" in got["ret_msg"]
    crowd = MarketSettings(rate=0.001, instruments=many("bybit", 800), levels=5)
    async with in_memory("linear", market=crowd) as (venue, client):
        names = [f"orderbook.1000.{listing.symbol}" for listing in crowd.instruments or ()]
        fitting = sum(total <= 21_000 for total in accumulate(len(name) + 3 for name in names))
        got = await client.ask({"op": "subscribe", "args": names[:fitting]})
        assert got["success"] is True
        got = await client.ask({"op": "subscribe", "args": names[fitting : fitting + 1]})
        assert "21000" in got["ret_msg"]
        assert venue.subscriptions() == fitting


@pytest.mark.parametrize("text", ["no json", "[]", '{"args":[]}', '{"op":"dance"}', '{"op":"subscribe","args":"x"}'])
async def test_nonsense_is_answered_and_survived(text: str, autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=SLOW) as (_venue, client):
        await client.say(text)
        assert (await client.hear())["success"] is False
        assert (await client.ask({"op": "ping"}))["ret_msg"] == "pong"


@pytest.mark.parametrize(
    ("endpoint", "topic", "name"),
    [
        ("linear", "orderbook.50.BTCUSDT", "public.linear.orderbook.50.jsonl"),
        ("linear", "orderbook.rpi.BTCUSDT", "derived.public.linear.orderbook.rpi.snapshot.jsonl"),
        ("option", "orderbook.100.BTC-26MAR27-65000-C-USDT", "derived.public.option.orderbook.100.jsonl"),
        ("linear", "publicTrade.BTCUSDT", "derived.public.linear.publicTrade.current.jsonl"),
        ("option", "publicTrade.BTC", "derived.public.option.publicTrade.current.jsonl"),
        ("linear", "tickers.BTCUSDT", "public.linear.tickers.jsonl"),
        ("linear", "tickers.BTCUSDT-26MAR27", "public.linear.tickers.futures.jsonl"),
        ("spot", "tickers.BTCUSDT", "public.spot.tickers.jsonl"),
        ("option", "tickers.BTC-26MAR27-65000-C-USDT", "public.option.tickers.jsonl"),
        ("linear", "kline.1.BTCUSDT", "derived.public.linear.kline.1.confirm.jsonl"),
    ],
)
async def test_data_has_the_fields_of_the_samples(
    endpoint: str, topic: str, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    expected = sample("bybit", name)
    async with in_memory(endpoint, market=FAST) as (_venue, client):
        await client.say({"op": "subscribe", "args": [topic]})
        got = (await client.hear_until(lambda message: "topic" in message))[-1]
        assert got["topic"] == topic
        assert got.keys() == expected.keys()
        assert got["type"] == expected["type"]
        left, right = got["data"], expected["data"]
        if isinstance(right, list):
            left, right = left[0], right[0]
        assert left.keys() == right.keys()
        assert {key: type(value) for key, value in left.items()} == {key: type(value) for key, value in right.items()}


@pytest.mark.parametrize(
    ("endpoint", "topic", "name"),
    [
        ("linear", "allLiquidation.BTCUSDT", "public.linear.allLiquidation.jsonl"),
        ("inverse", "allLiquidation.BTCUSD", "public.linear.allLiquidation.jsonl"),
        ("linear", "priceLimit.BTCUSDT", "public.linear.priceLimit.jsonl"),
        ("spot", "priceLimit.BTCUSDT", "public.linear.priceLimit.jsonl"),
        ("linear", "insurance.USDT", "derived.public.linear.insurance.snapshot.jsonl"),
        ("linear", "insurance.USDC", "derived.public.linear.insurance.snapshot.jsonl"),
        ("inverse", "insurance.inverse", "derived.public.linear.insurance.snapshot.jsonl"),
        ("linear", "adlAlert.USDT", "public.linear.adlAlert.jsonl"),
        ("inverse", "adlAlert.inverse", "public.linear.adlAlert.jsonl"),
        ("spot", "orderbook.full.BTCUSDT", "public.spot.orderbook.full.jsonl"),
        ("spread", "publicTrade.SOLUSDT_SOL/USDT", "public.spread.publicTrade.jsonl"),
        ("spread", "tickers.SOLUSDT_SOL/USDT", "public.spread.tickers.jsonl"),
    ],
)
async def test_further_topics_have_the_fields_of_the_manual(
    endpoint: str, topic: str, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    expected = documented(name)
    async with in_memory(endpoint, market=FAST) as (_venue, client):
        await client.say({"op": "subscribe", "args": [topic]})
        got = (await client.hear_until(lambda message: "topic" in message))[-1]
        assert got["topic"] == topic
        assert got.keys() == expected.keys()
        assert got.get("type") == expected.get("type")
        left, right = got["data"], expected["data"]
        if isinstance(right, list):
            left, right = left[0], right[0]
        assert left.keys() == right.keys()
        numbers = {key for key, value in right.items() if isinstance(value, int | float)}
        assert {key for key, value in left.items() if isinstance(value, int | float)} == numbers - {"mb"}


@pytest.mark.parametrize(
    ("endpoint", "topic"),
    [
        ("spot", "allLiquidation.BTCUSDT"),
        ("option", "priceLimit.BTC-26MAR27-65000-C-USDT"),
        ("linear", "insurance.inverse"),
        ("inverse", "adlAlert.USDT"),
        ("option", "orderbook.full.BTC-26MAR27-65000-C-USDT"),
        ("spread", "orderbook.50.SOLUSDT_SOL/USDT"),
        ("spread", "kline.1.SOLUSDT_SOL/USDT"),
        ("linear", "system.status"),
        ("linear", "order"),
    ],
)
async def test_topics_are_refused_where_the_manual_has_none(
    endpoint: str, topic: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with in_memory(endpoint, market=SLOW) as (venue, client):
        assert (await client.ask({"op": "subscribe", "args": [topic]}))["success"] is False
        assert venue.subscriptions() == 0


async def test_liquidations_come_in_batches_with_bankruptcy_prices(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=FAST) as (_venue, client):
        await client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT", "allLiquidation.BTCUSDT"]})
        trades: list[dict[str, Any]] = []
        times: list[int] = []
        while len(times) < 10:
            message = await client.hear()
            if message["topic"].startswith("publicTrade"):
                trades += message["data"]
                continue
            times.append(message["ts"])
            for row in message["data"]:
                forced = "Sell" if row["S"] == "Buy" else "Buy"
                same = [each for each in trades if (each["T"], each["S"]) == (row["T"], forced)]
                assert same, "a liquidation is a trade against the position's side"
                prices = [Decimal(each["p"]) for each in same]
                assert any(Decimal(row["p"]) - price == (-1 if row["S"] == "Buy" else 1) for price in prices)
        assert min(later - earlier for earlier, later in pairwise(times)) >= 500


async def test_price_limits_lie_around_the_middle(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=FAST) as (venue, client):
        await client.ask({"op": "subscribe", "args": ["priceLimit.BTCUSDT"]})
        heard = [await client.hear() for _ in range(5)]
        assert min(later["ts"] - earlier["ts"] for earlier, later in pairwise(heard)) >= 300
        assert all(earlier["data"] != later["data"] for earlier, later in pairwise(heard))
        request = Request("GET", "/v5/market/price-limit?symbol=BTCUSDT", {})
        for limits in (heard[-1]["data"], body(venue.dialect.rest(request))["result"]):
            (bid,), (ask,) = true_book(venue, "linear", "BTCUSDT", 1)
            assert Decimal(limits["sellLmt"]) < bid < ask < Decimal(limits["buyLmt"])
            assert abs((Decimal(limits["sellLmt"]) + Decimal(limits["buyLmt"])) / (bid + ask) - 1) < Decimal("0.01")


async def test_insurance_deltas_are_the_pools_that_changed(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=FAST) as (_venue, client):
        await client.ask({"op": "subscribe", "args": ["insurance.USDT"]})
        first = await client.hear()
        told = {row["symbols"]: row["balance"] for row in first["data"]}
        assert {row["coin"] for row in first["data"]} == {"USDT"}
        assert len(told) > 1
        before = first["ts"]
        for _ in range(5):
            message = await client.hear()
            assert message["type"] == "delta"
            assert message["ts"] - before >= 1000
            before = message["ts"]
            assert all(told[row["symbols"]] != row["balance"] for row in message["data"])
            told |= {row["symbols"]: row["balance"] for row in message["data"]}


async def test_a_full_book_is_a_rest_snapshot_and_the_deltas_after_it(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("spot", market=FAST) as (venue, client):
        await client.ask({"op": "subscribe", "args": ["orderbook.full.BTCUSDT"]})
        buffered = [await client.hear() for _ in range(5)]
        assert {message["type"] for message in buffered} == {"delta"}
        assert all(len(message["data"]["b"]) < 20 for message in buffered), "no delta is a snapshot"
        request = Request("GET", "/v5/market/full_orderbook?category=spot&symbol=BTCUSDT", {})
        snapshot = body(venue.dialect.rest(request))["result"]
        assert snapshot.keys() == documented("rest.market.full_orderbook.json")["result"].keys()
        buffered += await client.hear_until(lambda message: message["data"]["u"] >= snapshot["u"] + 100)
        matching = [number for number, each in enumerate(buffered) if each["data"]["u"] == snapshot["u"]]
        assert [buffered[number]["data"]["seq"] for number in matching] == [snapshot["seq"]]
        book, last = Book(), snapshot["u"]
        book.replace(snapshot["b"], snapshot["a"])
        for message in buffered[matching[0] + 1 :]:
            assert message["data"]["u"] == last + 1
            last = message["data"]["u"]
            book.change(message["data"]["b"], message["data"]["a"])
        assert message["data"]["seq"] == venue.engine("spot", "BTCUSDT").sequence
        assert (book.bids, book.asks) == true_book(venue, "spot", "BTCUSDT", 10_000)


async def test_a_spread_has_a_book_and_a_catalogue(autojump_clock: trio.testing.MockClock) -> None:
    symbol = "SOLUSDT_SOL/USDT"
    async with in_memory("spread", market=FAST) as (venue, client):
        await client.ask({"op": "subscribe", "args": [f"orderbook.25.{symbol}"]})
        snapshot, delta = await client.hear(), await client.hear()
        assert (snapshot["type"], delta["type"]) == ("snapshot", "delta")
        assert delta.keys() == documented("public.spread.orderbook.25.jsonl").keys()
        request = Request("GET", "/v5/spread/instrument", {})
        (row,) = body(venue.dialect.rest(request))["result"]["list"]
        expected = documented("rest.spread.instrument.json")["result"]["list"][0]
        assert row.keys() == expected.keys()
        assert (row["symbol"], row["legs"]) == (symbol, expected["legs"])
        request = Request("GET", f"/v5/spread/orderbook?symbol={symbol}&limit=5", {})
        book = body(venue.dialect.rest(request))["result"]
        assert (book["s"], len(book["b"]), len(book["a"])) == (symbol, 5, 5)
        request = Request("GET", f"/v5/market/orderbook?category=spread&symbol={symbol}", {})
        assert body(venue.dialect.rest(request))["retCode"] == 10001


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("misc/status", "public.misc.system.status.jsonl"),
        ("rfq", "public.rfq.trades.jsonl"),
        ("fp", "public.fp.earn.dualassets.offers.jsonl"),
        ("fp", "public.fp.earn.smartleverage.offers.jsonl"),
        ("fp", "public.fp.earn.doublewin.offers.jsonl"),
        ("fp", "public.fp.earn.discountbuy.offers.jsonl"),
    ],
)
async def test_what_nothing_generates_is_pushed(path: str, name: str) -> None:
    expected = documented(name)
    topic = expected["topic"]
    async with (
        open_venue("bybit", market=SLOW) as venue,
        connect(venue, f"/v5/public/{path}") as client,
        httpx.AsyncClient(base_url=venue.rest_url) as http,
    ):
        assert (await client.ask({"op": "ping"}))["ret_msg"] == "pong"
        assert (await client.ask({"op": "subscribe", "args": ["nothing"]}))["success"] is False
        assert (await client.ask({"op": "subscribe", "args": [topic]}))["success"] is True
        answer = await http.post("/sim/public", json={"topic": topic, "data": expected["data"]})
        assert answer.json() == {"hit": 1}
        got = await client.hear()
        assert got.keys() == expected.keys()
        assert (got["topic"], got["data"]) == (topic, expected["data"])
        answer = await http.post("/sim/public", json={"topic": "nothing", "data": []})
        assert answer.json() == {"hit": 0}
        faulty: list[dict[str, Any]] = [{"data": []}, {"topic": topic}]
        for wrong in faulty:
            assert (await http.post("/sim/public", json=wrong)).status_code == 400


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("depth", [50, 200])
async def test_books_follow_each_other_to_the_true_book(
    seed: int, depth: int, autojump_clock: trio.testing.MockClock
) -> None:
    market = attrs.evolve(FAST, seed=seed)
    async with in_memory("linear", market=market) as (venue, client):
        await client.say({"op": "subscribe", "args": [f"orderbook.{depth}.BTCUSDT"]})
        first, *_ = (await client.hear_until(lambda message: "topic" in message))[-1:]
        assert first["type"] == "snapshot"
        book, update_id, cross = Book(), first["data"]["u"], first["data"]["seq"]
        book.replace(first["data"]["b"], first["data"]["a"])
        for _ in range(300):
            message = await client.hear()
            data = message["data"]
            assert message["type"] == "delta"
            assert data["u"] == update_id + 1
            assert data["seq"] > cross
            update_id, cross = data["u"], data["seq"]
            book.change(data["b"], data["a"])
        assert cross == venue.engine("linear", "BTCUSDT").sequence
        assert (book.bids, book.asks) == true_book(venue, "linear", "BTCUSDT", depth)


async def test_a_new_subscription_brings_a_snapshot_that_the_old_deltas_continue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    topic = "orderbook.50.BTCUSDT"
    async with in_memory("linear", market=FAST) as (_venue, client):
        await client.ask({"op": "subscribe", "args": [topic]})
        deltas = await client.hear_until(lambda message: message.get("type") == "delta")
        await client.ask({"op": "unsubscribe", "args": [topic]})
        await client.ask({"op": "subscribe", "args": [topic]})
        snapshot, delta = await client.hear(), await client.hear()
        assert (snapshot["type"], delta["type"]) == ("snapshot", "delta")
        assert snapshot["data"]["u"] >= deltas[-1]["data"]["u"]
        assert delta["data"]["u"] == snapshot["data"]["u"] + 1


async def test_level_1_repeats_itself_after_three_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("spot", market=SLOW) as (_venue, client):
        await client.ask({"op": "subscribe", "args": ["orderbook.1.BTCUSDT"]})
        first = await client.hear()
        began = trio.current_time()
        second = await client.hear()
        assert 3 <= trio.current_time() - began <= 3.5
        assert first["type"] == second["type"] == "snapshot"
        assert first["data"] == second["data"]


async def test_level_1_is_only_snapshots_and_follows_the_top(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=FAST) as (venue, client):
        await client.ask({"op": "subscribe", "args": ["orderbook.1.BTCUSDT"]})
        for _ in range(50):
            message = await client.hear()
            assert message["type"] == "snapshot"
            assert len(message["data"]["b"]) == len(message["data"]["a"]) == 1
        book = Book()
        book.replace(message["data"]["b"], message["data"]["a"])
        assert (book.bids, book.asks) == true_book(venue, "linear", "BTCUSDT", 1)


async def test_ticker_deltas_add_up_to_a_fresh_snapshot(autojump_clock: trio.testing.MockClock) -> None:
    topic = "tickers.BTCUSDT"
    async with in_memory("linear", market=FAST) as (venue, client):
        await client.ask({"op": "subscribe", "args": [topic]})
        merged = (await client.hear())["data"]
        for _ in range(100):
            message = await client.hear()
            assert message["type"] == "delta"
            assert message["data"].items() - merged.items(), "a delta without news"
            merged |= message["data"]
        async with connect_in_memory(venue, "/v5/public/linear") as other:
            await other.ask({"op": "subscribe", "args": [topic]})
            snapshot = await other.hear()
        assert snapshot["type"] == "snapshot"
        while snapshot["cs"] > message["cs"]:
            message = await client.hear()
            merged |= message["data"]
        assert merged == snapshot["data"]


async def test_candles_close_once_and_follow_each_other(autojump_clock: trio.testing.MockClock) -> None:
    start_us = 1_800_000_030_000_000
    async with in_memory("linear", market=attrs.evolve(FAST, rate=5.0), start_us=start_us) as (_venue, client):
        await client.ask({"op": "subscribe", "args": ["kline.1.BTCUSDT"]})
        heard = [
            message["data"][0]
            for _ in range(3)
            for message in await client.hear_until(lambda message: message["data"][0]["confirm"])
        ]
        closed = [candle for candle in heard if candle["confirm"]]
        assert len(heard) > 10
        starts = [candle["start"] for candle in closed]
        assert starts == [1_800_000_000_000 + minute * 60_000 for minute in range(3)]
        assert [earlier["close"] for earlier in closed[:-1]] == [later["open"] for later in closed[1:]]
        assert all(candle["end"] == candle["start"] + 59_999 for candle in heard)


def signature(expires: int) -> str:
    return hmac.new(ACCOUNT.secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()


async def test_login(autojump_clock: trio.testing.MockClock) -> None:
    now_ms = 1_800_000_000_000
    options: dict[str, Any] = {"market": SLOW, "accounts": [ACCOUNT], "start_us": now_ms * 1000}
    good = {"op": "auth", "args": [ACCOUNT.key, now_ms + 10_000, signature(now_ms + 10_000)]}
    late = {"op": "auth", "args": [ACCOUNT.key, now_ms - 1, signature(now_ms - 1)]}
    foreign = {"op": "auth", "args": [ACCOUNT.key, now_ms + 10_000, "\u00fc"]}
    forged = {"op": "auth", "args": [ACCOUNT.key, now_ms + 10_000, signature(now_ms + 9_999)]}
    async with in_memory("private", **options) as (venue, client):
        assert "needs auth" in (await client.ask({"op": "subscribe", "args": ["order"]}))["ret_msg"]
        for wrong in (late, forged, foreign, {"op": "auth", "args": ["x"]}):
            got = await client.ask(wrong)
            assert got.keys() == sample("bybit", "control.auth.error.private.recorded.jsonl").keys()
            assert (got["success"], got["ret_msg"]) == (False, "Params Error")
        venue.fault("refuse_login")
        assert (await client.ask(good))["success"] is False
        got = await client.ask(good)
        assert got.keys() == sample("bybit", "control.auth.ack.private.jsonl").keys()
        assert got["success"] is True
        got = await client.ask({"op": "subscribe", "args": ["order"]})
        assert got.keys() == sample("bybit", "control.subscribe.ack.private.jsonl").keys()
        assert got["success"] is True
        got = await client.ask({"op": "ping", "req_id": "test"})
        assert got.keys() == sample("bybit", "control.pong.private.jsonl").keys()
    async with in_memory("trade", **options) as (_venue, client):
        assert (await client.ask(forged))["retCode"] == 10004
        got = await client.ask(good)
        assert got.keys() == sample("bybit", "trade.auth.response.jsonl").keys()
        assert got["retCode"] == 0
        assert (await client.ask({"op": "ping"})).keys() == sample("bybit", "trade.pong.jsonl").keys()


def test_the_signature_of_the_reference() -> None:
    assert signature(1662350400000) == "0275f66dd946f3d1fc4b8958ea3f134c6702284d719ff4acb110e927415cca6e"


async def test_idle_connections_are_closed_and_busy_ones_are_not(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=SLOW) as (_venue, client):
        await trio.sleep(590)
        await client.ask({"op": "ping"})
        began = trio.current_time()
        with pytest.raises(ConnectionClosed):
            await client.websocket.get_message()
        assert 600 <= trio.current_time() - began <= 631


async def test_connection_attempts_are_limited() -> None:
    limits = attrs.evolve(LIMITS, connects=Rate(2, 300.0))
    async with open_venue("bybit", market=SLOW, limits=limits) as venue:
        for _ in range(2):
            async with connect(venue, "/v5/public/linear"):
                pass
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(venue, "/v5/public/linear"):
                pass
        assert caught.value.status_code == 429
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(venue, "/v5/nowhere"):
                pass
        assert caught.value.status_code == 404


async def test_rest_lists_instruments_page_by_page() -> None:
    market = MarketSettings(rate=0.001, instruments=many("bybit", 25))
    async with open_venue("bybit", market=market) as venue, httpx.AsyncClient(base_url=venue.rest_url) as http:
        symbols: list[str] = []
        query: dict[str, str] = {"category": "linear", "limit": "10"}
        pages = 0
        while True:
            got = (await http.get("/v5/market/instruments-info", params=query)).json()
            pages += 1
            symbols += [row["symbol"] for row in got["result"]["list"]]
            if not got["result"]["nextPageCursor"]:
                break
            query["cursor"] = got["result"]["nextPageCursor"]
        assert pages == 3
        assert symbols == [listing.symbol for listing in market.instruments or ()]


@pytest.mark.parametrize("category", ["spot", "linear", "option"])
async def test_rest_rows_have_the_fields_of_the_samples(category: str) -> None:
    async with open_venue("bybit", market=SLOW) as venue, httpx.AsyncClient(base_url=venue.rest_url) as http:
        got = (await http.get("/v5/market/instruments-info", params={"category": category})).json()
        expected = sample("bybit", f"rest.market.instruments-info.{category}.json")
        assert got.keys() == expected.keys()
        assert got["result"].keys() == expected["result"].keys()
        mine, theirs = got["result"]["list"][0], expected["result"]["list"][0]
        assert mine.keys() - {"symbolId"} == theirs.keys() - {"symbolId"}
        for name in ("priceFilter", "lotSizeFilter"):
            assert mine[name].keys() == theirs[name].keys()
        if category == "option":
            assert {row["baseCoin"] for row in got["result"]["list"]} == {"BTC"}


async def test_rest_time_book_and_errors() -> None:
    async with open_venue("bybit", market=SLOW) as venue, httpx.AsyncClient(base_url=venue.rest_url) as http:
        got = (await http.get("/v5/market/time")).json()
        assert got["result"].keys() == sample("bybit", "rest.market.time.json")["result"].keys()
        assert abs(int(got["result"]["timeNano"]) // 10**6 - venue.floor.clock.now_ms()) < 5000
        query = {"category": "linear", "symbol": "BTCUSDT", "limit": "20"}
        got = (await http.get("/v5/market/orderbook", params=query)).json()
        assert got["result"].keys() == sample("bybit", "rest.market.orderbook.json")["result"].keys()
        book = Book()
        book.replace(got["result"]["b"], got["result"]["a"])
        assert (book.bids, book.asks) == true_book(venue, "linear", "BTCUSDT", 20)
        for wrong in ({"category": "x"}, {"category": "linear", "limit": "0"}, {"category": "linear", "cursor": "?"}):
            assert (await http.get("/v5/market/instruments-info", params=wrong)).json()["retCode"] == 10001
        assert (await http.get("/v5/market/nothing")).status_code == 404


async def test_rest_requests_are_limited() -> None:
    limits = attrs.evolve(LIMITS, rest=Rate(3, 5.0))
    async with (
        open_venue("bybit", market=SLOW, limits=limits) as venue,
        httpx.AsyncClient(base_url=venue.rest_url) as http,
    ):
        codes = [(await http.get("/v5/market/time")).status_code for _ in range(4)]
        assert codes == [200, 200, 200, 403]
        assert (await http.get("/sim/state")).status_code == 200


async def test_listing_and_delisting_while_running(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("linear", market=FAST) as (venue, client):
        topic = "publicTrade.C0003USDT"
        assert (await client.ask({"op": "subscribe", "args": [topic]}))["success"] is False
        listing = many("bybit", 4)[3]
        venue.list_instrument(listing)
        assert (await client.ask({"op": "subscribe", "args": [topic]}))["success"] is True
        await client.hear_until(lambda message: message.get("topic") == topic)
        venue.delist("linear", "C0003USDT")
        sent = venue.sent.count(topic)
        await trio.sleep(5)
        assert venue.sent.count(topic) <= sent + 1
        with pytest.raises(KeyError):
            venue.delist("linear", "C0003USDT")


async def test_a_topic_over_many_instruments_sees_the_new_ones(autojump_clock: trio.testing.MockClock) -> None:
    old, new = (each for each in bybit_defaults() if each.symbol.startswith("BTC-26MAR27-65000-"))
    async with in_memory("option", market=attrs.evolve(FAST, instruments=(old,))) as (venue, client):
        await client.ask({"op": "subscribe", "args": ["publicTrade.BTC"]})
        assert {print_["s"] for print_ in (await client.hear())["data"]} == {old.symbol}
        venue.list_instrument(new)
        heard = await client.hear_until(lambda message: message["data"][0]["s"] == new.symbol)
        assert heard[-1]["topic"] == "publicTrade.BTC"
