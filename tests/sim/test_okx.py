from __future__ import annotations

import json
import zlib
from decimal import Decimal
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, ConnectionRejected

from pipeline.model.rate import Rate
from pipeline.sim.generator import Generator
from pipeline.sim.listing import many
from pipeline.sim.okx import LIMITS
from pipeline.sim.okx_candles import bar_open
from pipeline.sim.okx_spreads import checksum
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.sim.clients import Book, connect, connect_in_memory, read_on, sample, true_book
from tests.sim.okx_client import ACCOUNT, SLOW, SWAP, documented, in_memory, log_in, login, subscribe

FAST = MarketSettings(seed=3, rate=200, levels=80)
VIP = attrs.evolve(ACCOUNT, vip=True)


async def test_every_arg_is_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (venue, client):
        args = [{"channel": "tickers", "instId": SWAP}, {"channel": "books", "instId": "BTC-USDT"}]
        first = await client.ask({"id": "1512", "op": "subscribe", "args": args})
        second = (await client.hear_until(lambda message: "event" in message))[-1]
        expected = sample("okx", "control.subscribe.ack.observed.jsonl", 1)
        assert first.keys() == second.keys() == expected.keys() | {"id"}
        assert [first["arg"], second["arg"]] == args
        assert first["connId"] == second["connId"] == venue.connections[0].id
        gone = await client.ask({"op": "unsubscribe", "args": args[:1]})
        assert gone.keys() == sample("okx", "control.unsubscribe.ack.jsonl").keys()
        assert venue.subscriptions() == 1
        assert (await client.ask({"op": "subscribe", "args": args[1:]}))["event"] == "subscribe"
        assert venue.subscriptions() == 1, "subscribing twice makes no second stream"


async def test_ping_is_text(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (_venue, client):
        await client.say("ping")
        assert await client.text() == "pong"


@pytest.mark.parametrize(
    ("endpoint", "request_", "code"),
    [
        ("public", "no json", "60012"),
        ("public", '{"op":"subscribe","argss":[]}', "60012"),
        ("public", '{"op":"subscrib","args":[]}', "60019"),
        ("public", '{"op":"subscribe","args":"x"}', "60013"),
        ("public", subscribe("index-tickers", "NEAR-USDT-SWAP"), "60018"),
        ("public", subscribe("books", "NO-SUCH"), "60018"),
        ("public", subscribe("funding-rate", "BTC-USDT"), "60018"),
        ("public", subscribe("candle1m"), "64001"),
        ("public", subscribe("books-l2-tbt"), "60011"),
        ("public", {"op": "subscribe", "args": [{"channel": "instruments", "uly": "BTC-USD"}]}, "64000"),
        ("business", subscribe("tickers"), "64002"),
        ("business", subscribe("candle7m"), "60018"),
        ("private", subscribe("account"), "60011"),
        ("private", subscribe("tickers"), "60011"),
        ("public", subscribe("orders", instType="ANY"), "60011"),
        ("public", subscribe("orders-algo", instType="ANY"), "64001"),
        ("business", subscribe("orders", instType="ANY"), "64002"),
        ("business", subscribe("economic-calendar", None), "60011"),
        ("business", subscribe("orders-algo", None, instType="ANY"), "60011"),
        ("business", subscribe("mark-price-candle1s"), "60018"),
        ("business", subscribe("candle1Yutc"), "60018"),
        ("business", subscribe("sprd-books5", None, sprdId="BTC-USDT_NO-SUCH"), "60018"),
        ("public", subscribe("opt-summary", None, instFamily="NO-SUCH"), "60018"),
        ("public", subscribe("option-trades", None, instType="SWAP", instFamily="BTC-USD"), "60018"),
        ("public", subscribe("estimated-price", None, instType="FUTURES"), "60018"),
        ("public", subscribe("estimated-price", None, instType="SWAP", instFamily="NO-SUCH"), "60018"),
        ("public", subscribe("adl-warning", None, instType="SPOT"), "60018"),
        ("public", subscribe("liquidation-orders", None), "60018"),
        ("public", subscribe("event-contract-markets", None, instType="SWAP"), "60018"),
        ("public", subscribe("call-auction-details", "NO-SUCH"), "60018"),
        ("public", {"op": "subscribe", "args": [{"channel": ["x"], "instId": None}]}, "60018"),
        ("public", {"op": "subscribe", "args": [{}]}, "60018"),
        ("public", {"op": "subscribe", "args": [1]}, "60013"),
        ("public", "[" * 60_000, "60012"),
    ],
)
async def test_errors_have_their_codes(
    endpoint: str, request_: dict[str, Any] | str, code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with in_memory(endpoint, market=SLOW) as (venue, client):
        await client.say(request_)
        got = await client.hear()
        assert got.keys() == sample("okx", "control.error.observed.jsonl").keys()
        assert (got["event"], got["code"]) == ("error", code)
        assert venue.subscriptions() == 0
        if isinstance(request_, dict):
            assert (await client.ask({"id": "x1", **request_}))["id"] == "x1"


async def test_the_text_of_an_unknown_channel_names_it(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (_venue, client):
        got = await client.ask(subscribe("index-tickers", "NEAR-USDT-SWAP"))
        assert got["msg"] == sample("okx", "control.error.observed.jsonl", 1)["msg"]


@pytest.mark.parametrize(
    ("endpoint", "channel", "target", "name"),
    [
        ("public", "books", SWAP, "public.books.sequence.constructed.jsonl"),
        ("public", "books5", SWAP, "public.books5.jsonl"),
        ("public", "bbo-tbt", SWAP, "public.bbo-tbt.jsonl"),
        ("public", "trades", SWAP, "public.trades.jsonl"),
        ("business", "trades-all", SWAP, "business.trades-all.jsonl"),
        ("public", "tickers", "BTC-USDT", "recording2026.tickers.jsonl:1"),
        ("business", "candle1m", SWAP, "recording2026.candle1m.jsonl"),
        ("public", "mark-price", "BTC-USDT", "public.mark-price.jsonl"),
        ("public", "index-tickers", "BTC-USD", "public.index-tickers.constructed.jsonl"),
        ("public", "funding-rate", SWAP, "public.funding-rate.constructed.jsonl"),
        ("public", "open-interest", SWAP, "public.open-interest.constructed.jsonl"),
    ],
)
async def test_data_has_the_fields_of_the_samples(
    endpoint: str, channel: str, target: str, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    file, _, line = name.partition(":")
    expected = sample("okx", file, int(line or 0))
    async with in_memory(endpoint, market=FAST) as (_venue, client):
        await client.say(subscribe(channel, target))
        got = (await client.hear_until(lambda message: "data" in message))[-1]
        assert got.keys() == expected.keys()
        assert got["arg"] == {"channel": channel, "instId": target}
        mine, theirs = got["data"][0], expected["data"][0]
        if isinstance(theirs, list):
            assert len(mine) == len(theirs)
            assert all(isinstance(value, str) for value in mine)
        else:
            assert mine.keys() == theirs.keys()
            assert {key: type(value) for key, value in mine.items()} == {
                key: type(value) for key, value in theirs.items()
            }
        for row in mine.get("bids", []) if isinstance(mine, dict) else []:
            assert len(row) == 4


SPREAD = "BTC-USDT_BTC-USDT-SWAP"


@pytest.mark.parametrize(
    ("endpoint", "arg", "name"),
    [
        ("public", {"channel": "books-rpi", "instId": SWAP}, "public.books-rpi.constructed.jsonl:1"),
        ("public", {"channel": "price-limit", "instId": SWAP}, "public.price-limit.constructed.jsonl:1"),
        ("public", {"channel": "opt-summary", "instFamily": "BTC-USD"}, "public.opt-summary.jsonl"),
        (
            "public",
            {"channel": "option-trades", "instType": "OPTION", "instFamily": "BTC-USD"},
            "public.option-trades.jsonl",
        ),
        ("public", {"channel": "status"}, "public.status.jsonl"),
        ("business", {"channel": "sprd-bbo-tbt", "sprdId": SPREAD}, "business.sprd-bbo-tbt.constructed.jsonl"),
        ("business", {"channel": "sprd-books5", "sprdId": SPREAD}, "business.sprd-books5.jsonl"),
        ("business", {"channel": "sprd-books-l2-tbt", "sprdId": SPREAD}, "business.sprd-books-l2-tbt.jsonl"),
        ("business", {"channel": "sprd-public-trades", "sprdId": SPREAD}, "business.sprd-public-trades.jsonl"),
        ("business", {"channel": "sprd-tickers", "sprdId": SPREAD}, "business.sprd-tickers.jsonl"),
        ("business", {"channel": "sprd-candle1D", "sprdId": SPREAD}, "business.sprd-candle1D.jsonl"),
    ],
)
async def test_further_data_has_the_fields_of_the_documentation(
    endpoint: str, arg: dict[str, str], name: str, autojump_clock: trio.testing.MockClock
) -> None:
    file, _, line = name.partition(":")
    expected = documented(file, int(line or 0))
    async with in_memory(endpoint, market=FAST) as (_venue, client):
        await client.say({"op": "subscribe", "args": [arg]})
        got = (await client.hear_until(lambda message: "data" in message))[-1]
        assert got.keys() == expected.keys()
        assert got["arg"] == arg
        mine, theirs = got["data"][0], expected["data"][0]
        if isinstance(theirs, list):
            assert [type(value) for value in mine] == [type(value) for value in theirs]
            return
        assert {key: type(value) for key, value in mine.items()} == {key: type(value) for key, value in theirs.items()}
        for side in ("bids", "asks"):
            if side in theirs:
                assert {len(row) for row in mine[side]} == {len(theirs["asks"][0])}


async def test_summaries_bring_every_option_of_the_family(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=FAST) as (venue, client):
        await client.say(subscribe("opt-summary", None, instFamily="ETH-USD"))
        first, later = [(await client.hear_until(lambda message: "data" in message))[-1] for _ in range(2)]
        listed = {each.symbol for each in venue.floor.market.of("OPTION") if each.index == "ETH-USD"}
        assert {row["instId"] for row in first["data"]} == {row["instId"] for row in later["data"]} == listed
        deltas = {row["instId"][-1]: Decimal(row["deltaBS"]) for row in later["data"]}
        assert deltas["P"] < 0 < deltas["C"]


async def test_books_with_retail_sizes_contain_the_true_book(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=FAST) as (venue, client):
        await client.ask(subscribe("books-rpi"))
        book, total, last = Book(), Book(), None
        for _ in range(100):
            message = await client.hear()
            row = message["data"][0]
            assert row["prevSeqId"] == (last if last is not None else -1)
            last = row["seqId"]
            organic = {side: [[level[0], level[2]] for level in row[side]] for side in ("bids", "asks")}
            (book.change if message["action"] == "update" else book.replace)(organic["bids"], organic["asks"])
            (total.change if message["action"] == "update" else total.replace)(row["bids"], row["asks"])
        assert (book.bids, book.asks) == true_book(venue, "SWAP", SWAP, 400)
        assert all(total.bids[price] >= size for price, size in book.bids.items())
        assert any(total.bids[price] > size for price, size in book.bids.items())


async def test_gated_books_need_a_login_and_a_fee_tier(autojump_clock: trio.testing.MockClock) -> None:
    plain = attrs.evolve(ACCOUNT, key="another", name="another")
    async with (
        in_memory("public", market=FAST, accounts=[VIP, plain]) as (venue, client),
        connect_in_memory(venue, "/ws/v5/public") as other,
    ):
        assert (await client.ask(subscribe("books50-l2-tbt")))["code"] == "60011"
        await log_in(venue, other, plain)
        assert (await other.ask(subscribe("books50-l2-tbt")))["code"] == "64003"
        await log_in(venue, client, VIP)
        assert (await client.ask(subscribe("books50-l2-tbt")))["event"] == "subscribe"
        book, last = Book(), -1
        for _ in range(200):
            message = await client.hear()
            row = message["data"][0]
            assert row["prevSeqId"] == last
            last = row["seqId"]
            (book.change if message["action"] == "update" else book.replace)(row["bids"], row["asks"])
        assert (book.bids, book.asks) == true_book(venue, "SWAP", SWAP, 50)


async def test_full_books_exclude_their_rivals_on_a_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        in_memory("public", market=SLOW, accounts=[VIP]) as (venue, client),
        connect_in_memory(venue, "/ws/v5/public") as other,
    ):
        for each in (client, other):
            await log_in(venue, each, VIP)
        expected = documented("control.error.constructed.jsonl", 18)
        assert (await client.ask(subscribe("books-l2-tbt", "BTC-USDT")))["event"] == "subscribe"
        refused = await client.ask(subscribe("books", "BTC-USDT"))
        assert (refused["code"], refused["msg"]) == (expected["code"], expected["msg"])
        assert (await client.ask(subscribe("books50-l2-tbt", "BTC-USDT")))["code"] == "64004"
        assert (await client.ask(subscribe("books", "ETH-USDT")))["event"] == "subscribe"
        assert (await other.ask(subscribe("books", "BTC-USDT")))["event"] == "subscribe"
        assert (await other.ask(subscribe("books-l2-tbt", "BTC-USDT")))["code"] == "64004"
        await client.ask(subscribe("books-l2-tbt", "BTC-USDT", op="unsubscribe"))
        assert (await client.ask(subscribe("books", "BTC-USDT")))["event"] == "subscribe"


def signed_crc(book: Book) -> int:
    """The checksum as the manual has it, from plain numbers: OKX prints no zeros at the end."""
    sides = [sorted(book.bids.items(), reverse=True), sorted(book.asks.items())]
    texts = [f"{number.normalize():f}" for pair in zip(*sides, strict=False) for level in pair for number in level]
    value = zlib.crc32(":".join(texts[:100]).encode())
    return value - 2**32 if value >= 2**31 else value


def test_the_checksum_of_a_spread_is_that_of_the_manual() -> None:
    assert checksum([["3366.1", "7"], ["3366", "6"]], [["3366.8", "9"], ["3368", "8"]]) == -1881014294
    assert checksum([["3366.1", "7"]], [["3366.8", "9"], ["3368", "8"], ["3372", "8"]]) == 831078360
    assert checksum([], [["3366.8", "9.50"], ["3368", "8"], ["3372", "8"]]) == 1092861659


async def test_spread_books_are_chained_and_checked(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("business", market=FAST) as (_venue, client):
        await client.ask(subscribe("sprd-books-l2-tbt", None, sprdId=SPREAD))
        book, last = Book(), -1
        for _ in range(200):
            message = await client.hear()
            row = message["data"][0]
            (book.change if message["action"] == "update" else book.replace)(row["bids"], row["asks"])
            assert row["prevSeqId"] == last
            last = row["seqId"]
            assert row["checksum"] == signed_crc(book)
        assert last > 2**53
        assert max(book.bids) < min(book.asks)
        assert min(book.bids) < 0 < max(book.asks)


async def test_trades_of_options_begin_with_the_previous_one(autojump_clock: trio.testing.MockClock) -> None:
    family = subscribe("option-trades", None, instType="OPTION", instFamily="BTC-USD")
    async with in_memory("public", market=FAST) as (venue, client):
        await client.ask(family)
        heard = [await client.hear() for _ in range(30)]
        assert len({message["data"][0]["instId"] for message in heard}) > 1
        await client.ask(family | {"op": "unsubscribe"})
        last = json.loads(venue.sent.messages("option-trades:*")[-1])
        async with connect_in_memory(venue, "/ws/v5/public") as late:
            await late.ask(family)
            assert await late.hear(within=1) == last


@pytest.mark.parametrize(
    ("endpoint", "name", "keys"),
    [
        ("public", "public.estimated-price.constructed.jsonl", {}),
        ("public", "public.liquidation-orders.jsonl", {}),
        ("public", "public.adl-warning.constructed.jsonl", {"instFamily": "BTC-USD"}),
        ("public", "public.event-contract-markets.jsonl", {"instType": "EVENTS"}),
        ("public", "public.status.constructed.jsonl", {}),
        ("public", "public.call-auction-details.jsonl", {"instId": "BTC-USDT"}),
        ("business", "business.block-tickers.jsonl", {"instId": "BTC-USDT"}),
        ("business", "business.public-block-trades.jsonl", {"instId": SWAP}),
        ("business", "business.public-struc-block-trades.jsonl", {}),
        ("business", "business.economic-calendar.jsonl", {}),
    ],
)
async def test_data_that_nothing_drives_is_pushed_on_demand(
    endpoint: str, name: str, keys: dict[str, str], autojump_clock: trio.testing.MockClock
) -> None:
    message = documented(name)
    for key in message["arg"].keys() & keys.keys():
        message["arg"][key] = keys[key]  # what is listed here
    wanted = message["arg"] | keys
    async with (
        in_memory(endpoint, market=SLOW, accounts=[VIP]) as (venue, client),
        connect_in_memory(venue, f"/ws/v5/{endpoint}") as other,
    ):
        assert venue.dialect.push(message) == 0
        await log_in(venue, client, VIP)
        answer = await client.ask({"op": "subscribe", "args": [wanted]})
        assert answer["event"] == "subscribe", answer
        if message["arg"]["channel"] == "status":
            assert await client.hear() == message, "the latest change comes at once"
        assert venue.dialect.push(message) == 1
        assert await client.hear() == message
        await other.say("ping")
        assert await other.text() == "pong", "who did not subscribe hears nothing"


async def test_what_is_no_push_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (venue, _client):
        for body, field in (
            ({"data": []}, "arg"),
            ({"arg": {"channel": "tickerz"}, "data": []}, "arg"),
            ({"arg": {"channel": "orders"}, "data": []}, "arg"),
            ({"arg": {"channel": "status"}, "data": {}}, "data"),
        ):
            with pytest.raises(ValueError, match=field):
                venue.dialect.push(body)


async def test_the_calendar_is_not_in_the_demo(autojump_clock: trio.testing.MockClock) -> None:
    demo = attrs.evolve(VIP, demo=True)
    async with in_memory("business", market=SLOW, accounts=[demo]) as (venue, client):
        await log_in(venue, client, demo)
        assert (await client.ask(subscribe("economic-calendar", None)))["code"] == "60018"


async def test_a_replacement_continues_the_same_chain(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=FAST) as (venue, old):
        await old.ask(subscribe("books"))
        whole = [await old.hear() for _ in range(50)]
        assert venue.fault("notice", seconds=2.0) == 1
        *before, notice = await old.hear_until(lambda message: message.get("event") == "notice")
        assert notice["code"] == "64008"
        async with connect_in_memory(venue, "/ws/v5/public") as new:
            await new.ask(subscribe("books"))
            snapshot = (await new.hear())["data"][0]
            news = [await new.hear() for _ in range(50)]
            assert news[0]["data"][0]["prevSeqId"] == snapshot["seqId"]
            olds = await old.hear_until(lambda message: message == news[-1])
            assert olds[-50:] == news
            chain = [message["data"][0] for message in (*whole, *before, *olds)]
            assert [row["prevSeqId"] for row in chain[1:]] == [row["seqId"] for row in chain[:-1]]
            with pytest.raises(ConnectionClosed) as caught:
                await read_on(old)
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1001
            book = Book()
            book.replace(snapshot["bids"], snapshot["asks"])
            for message in [*news, await new.hear()]:
                book.change(message["data"][0]["bids"], message["data"][0]["asks"])
            assert len(book.bids) == FAST.levels


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_books_follow_each_other_to_the_true_book(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=attrs.evolve(FAST, seed=seed)) as (venue, client):
        await client.ask(subscribe("books"))
        snapshot = await client.hear()
        assert (snapshot["action"], snapshot["data"][0]["prevSeqId"]) == ("snapshot", -1)
        book, last = Book(), snapshot["data"][0]["seqId"]
        book.replace(snapshot["data"][0]["bids"], snapshot["data"][0]["asks"])
        for _ in range(300):
            message = await client.hear()
            row = message["data"][0]
            assert message["action"] == "update"
            assert row["prevSeqId"] == last < row["seqId"]
            last = row["seqId"]
            book.change(row["bids"], row["asks"])
            assert row["bids"] == sorted(row["bids"], key=lambda level: -Decimal(level[0]))
            assert row["asks"] == sorted(row["asks"], key=lambda level: Decimal(level[0]))
        assert (book.bids, book.asks) == true_book(venue, "SWAP", SWAP, 400)
        await client.ask(subscribe("books", op="unsubscribe"))
        await client.ask(subscribe("books"))
        again, update = await client.hear(), await client.hear()
        assert again["action"] == "snapshot"
        assert again["data"][0]["seqId"] == update["data"][0]["prevSeqId"] >= last


async def test_silent_books_are_confirmed_and_tops_repeated(autojump_clock: trio.testing.MockClock) -> None:
    limits = attrs.evolve(LIMITS, idle=1000.0)
    async with in_memory("public", market=SLOW, limits=limits) as (_venue, client):
        await client.ask(subscribe("books"))
        snapshot = (await client.hear())["data"][0]
        began = trio.current_time()
        confirmed = (await client.hear(within=100))["data"][0]
        assert 60 <= trio.current_time() - began <= 61
        assert confirmed["bids"] == confirmed["asks"] == []
        assert confirmed["prevSeqId"] == confirmed["seqId"] == snapshot["seqId"]
        await client.ask(subscribe("books", op="unsubscribe"))
        await client.ask(subscribe("bbo-tbt"))
        first, second = await client.hear(), await client.hear(within=100)
        assert second["data"][0] | {"ts": ""} == first["data"][0] | {"ts": ""}


async def test_trades_are_aggregates_of_single_trades(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        in_memory("public", market=FAST) as (venue, public),
        connect_in_memory(venue, "/ws/v5/business") as business,
    ):
        await public.ask(subscribe("trades"))
        await business.ask(subscribe("trades-all"))
        singles: dict[int, dict[str, Any]] = {}
        for _ in range(20):
            row = (await public.hear())["data"][0]
            numbers = range(int(row["tradeId"]) - int(row["count"]) + 1, int(row["tradeId"]) + 1)
            while int(row["tradeId"]) not in singles:
                single = (await business.hear())["data"][0]
                singles[int(single["tradeId"])] = single
            parts = [singles[number] for number in numbers]
            assert sum(Decimal(part["sz"]) for part in parts) == Decimal(row["sz"])
            assert {(part["px"], part["side"]) for part in parts} == {(row["px"], row["side"])}


async def test_the_last_trade_comes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (venue, client):
        await client.ask(subscribe("trades"))
        source, engine = venue.floor.source, venue.engine("SWAP", SWAP)
        assert isinstance(source, Generator)
        while engine.last_fill is None:
            source.step(engine)
        await trio.testing.wait_all_tasks_blocked()
        heard = [json.loads(message) for message in venue.sent.messages("trades:*")]
        async with connect_in_memory(venue, "/ws/v5/public") as late:
            await late.ask(subscribe("trades"))
            assert await late.hear(within=1) == heard[-1]


async def test_candles_close_and_follow_each_other(autojump_clock: trio.testing.MockClock) -> None:
    market = attrs.evolve(FAST, rate=5.0)
    async with in_memory("business", market=market, start_us=1_800_000_030_000_000) as (_venue, client):
        await client.ask(subscribe("candle1m"))
        closed = [(await client.hear_until(lambda message: message["data"][0][8] == "1"))[-1] for _ in range(3)]
        bars = [message["data"][0] for message in closed]
        assert [int(bar[0]) for bar in bars] == [1_800_000_000_000 + minute * 60_000 for minute in range(3)]
        assert [earlier[4] for earlier in bars[:-1]] == [later[1] for later in bars[1:]]


def test_long_bars_open_by_the_clock_of_hong_kong() -> None:
    noon = 1_800_014_400_000  # 2027-01-15 12:00 UTC
    assert bar_open("1D", noon) == noon - 20 * 3_600_000
    assert bar_open("1Dutc", noon) == noon - 12 * 3_600_000
    assert bar_open("1H", noon) == noon


async def test_login(autojump_clock: trio.testing.MockClock) -> None:
    now = 1_704_876_947
    assert login(now)["args"][0]["sign"] == "5/36BgGV6m/6pmdc20zdqk0mzF5ZalmzzPD2fo3wavU="  # the reference's vector
    async with in_memory("private", market=SLOW, accounts=[ACCOUNT], start_us=now * 10**6) as (venue, client):
        for wrong, code in (
            (login(now, apiKey="x"), "60032"),
            (login(now, passphrase="x"), "60024"),
            (login(now, sign="x"), "60007"),
            (login(now, timestamp="x"), "60004"),
            (login(now, timestamp="1" * 5000), "60004"),
            (login(now, sign="\u00fc"), "60007"),
            (login(now - 31), "60006"),
        ):
            assert (await client.ask(wrong))["code"] == code
        venue.fault("refuse_login")
        assert (await client.ask(login(now)))["code"] == "60009"
        venue.fault("refuse_login", error="63999")
        assert (await client.ask(login(now)))["code"] == "63999"
        got = await client.ask(login(now))
        assert got.keys() == sample("okx", "control.login.ack.jsonl").keys()
        assert (got["event"], got["code"]) == ("login", "0")
        assert (await client.ask(login(now)))["code"] == "60031"
        assert (await client.ask(subscribe("orders", instType="SWAP")))["event"] == "subscribe"
        assert (await client.hear()).keys() == sample("okx", "control.channel-conn-count.jsonl").keys()


async def test_idle_connections_are_closed_with_4004(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (_venue, client):
        await trio.sleep(29)
        await client.say("ping")
        await client.text()
        began = trio.current_time()
        with pytest.raises(ConnectionClosed) as caught:
            await client.websocket.get_message()
        assert 30 <= trio.current_time() - began <= 31
        assert caught.value.reason is not None
        assert (caught.value.reason.code, caught.value.reason.reason) == (4004, "No data received in 30s")


async def test_requests_are_limited_per_connection(autojump_clock: trio.testing.MockClock) -> None:
    limits = attrs.evolve(LIMITS, requests=Rate(2, 3600.0))
    async with in_memory("public", market=SLOW, limits=limits) as (venue, client):
        answers = [await client.ask(subscribe("instruments", "SPOT")) for _ in range(3)]
        assert [answer.get("code") for answer in answers] == [None, None, "60014"]
        async with connect_in_memory(venue, "/ws/v5/public") as other:
            assert (await other.ask(subscribe("instruments", "SPOT")))["event"] == "subscribe"


async def test_a_request_beyond_64_kb_closes_with_1009(autojump_clock: trio.testing.MockClock) -> None:
    async with in_memory("public", market=SLOW) as (_venue, client):
        await client.say("x" * 65_537)
        with pytest.raises(ConnectionClosed) as caught:
            await client.websocket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009


async def test_three_connections_a_second() -> None:
    async with open_venue("okx", market=SLOW) as venue:
        for _ in range(3):
            async with connect(venue, "/ws/v5/public"):
                pass
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(venue, "/ws/v5/business"):
                pass
        assert caught.value.status_code == 429


async def test_rest() -> None:
    async with open_venue("okx", market=SLOW) as venue, httpx.AsyncClient(base_url=venue.rest_url) as http:

        async def get(path: str, **query: str) -> dict[str, Any]:
            answer: dict[str, Any] = (await http.get(f"/api/v5{path}", params=query)).json()
            return answer

        for kind in ("SPOT", "SWAP", "FUTURES"):
            got = await get("/public/instruments", instType=kind)
            assert {row["instType"] for row in got["data"]} == {kind}
            assert got["data"][0].keys() == sample("okx", "rest.instruments.constructed.jsonl")["data"][0].keys()
        assert (await get("/public/instruments", instType="OPTION"))["code"] == "50014"
        families = (await get("/public/underlying", instType="OPTION"))["data"][0]
        assert families == ["BTC-USD", "ETH-USD"]
        options = [await get("/public/instruments", instType="OPTION", instFamily=family) for family in families]
        assert [{row["uly"] for row in got["data"]} for got in options] == [{"BTC-USD"}, {"ETH-USD"}]
        assert (await get("/public/time")).keys() == sample("okx", "rest.time.jsonl").keys()
        tickers = await get("/market/index-tickers", quoteCcy="USD")
        assert {row["instId"] for row in tickers["data"]} == {"BTC-USD", "ETH-USD", "SOL-USD"}
        assert tickers["data"][0].keys() == sample("okx", "rest.index-tickers.jsonl")["data"][0].keys()
        got = (await get("/market/books", instId=SWAP, sz="30"))["data"][0]
        assert got.keys() == sample("okx", "rest.books.jsonl")["data"][0].keys()
        book = Book()
        book.replace(got["bids"], got["asks"])
        assert (book.bids, book.asks) == true_book(venue, "SWAP", SWAP, 30)
        assert (await get("/market/books", instId="NO"))["code"] == "51001"
        assert (await get("/market/books", instId=SWAP, sz="401"))["code"] == "51000"
        full = (await get("/market/books-full", instId=SWAP, sz="5000"))["data"][0]
        expected = documented("rest.books-full.jsonl")["data"][0]
        assert full.keys() == expected.keys()
        assert len(full["bids"][0]) == len(expected["bids"][0])
        book.replace(full["bids"], full["asks"])
        assert (book.bids, book.asks) == true_book(venue, "SWAP", SWAP, 5000)


async def test_listing_and_delisting_is_told_on_the_instruments_channel(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with in_memory("public", market=SLOW) as (venue, client):
        await client.ask(subscribe("instruments", "MARGIN"))
        venue.list_instrument(attrs.evolve(venue.floor.market.listings["SPOT", "BTC-USDT"], symbol="NEW-USDT"))
        row = (await client.hear())["data"][0]
        assert (row["instType"], row["instId"]) == ("MARGIN", "NEW-USDT")
        await client.ask(subscribe("instruments", "SWAP"))
        listing = many("okx", 4)[3]
        venue.list_instrument(listing)
        got = await client.hear()
        assert got["arg"] == {"channel": "instruments", "instType": "SWAP"}
        assert got["data"][0].keys() == sample("okx", "public.instruments.constructed.jsonl")["data"][0].keys()
        assert (got["data"][0]["instId"], got["data"][0]["state"]) == (listing.symbol, "live")
        assert (await client.ask(subscribe("tickers", listing.symbol)))["event"] == "subscribe"
        venue.delist("SWAP", listing.symbol)
        row = (await client.hear_until(lambda message: message["arg"]["channel"] == "instruments"))[-1]["data"][0]
        assert (row["instId"], row["state"]) == (listing.symbol, "expired")
