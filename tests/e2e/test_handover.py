"""The end of a connection is announced: its replacement goes on, and the topics show no seam."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio

from pipeline.sim.listing import named
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.e2e import wire
from tests.e2e.accounts import Trader, check_account, configured, simulated
from tests.e2e.connector import QUICK, Connector, Journal, configuration, fall_quiet, running, until, urls
from tests.e2e.consumer import EPOCH, Follower, Record, Topics, books
from tests.e2e.delivered import check_everything

DEADLINE_S = 120
SYMBOLS = ("BTC-USDT-SWAP", "SOL-USDT-SWAP")
STATES = {
    "ticker": ("tickers", {"bid_price": "bidPx", "ask_price": "askPx", "volume_24h": "vol24h"}),
    "mark_price": ("mark-price", {"price": "markPx"}),
    "funding_rate": ("funding-rate", {"funding_rate": "fundingRate"}),
    "open_interest": ("open-interest", {"open_interest": "oi"}),
    "price_limit": ("price-limit", {"max_buy_price": "buyLmt", "min_sell_price": "sellLmt"}),
}
"""Kinds of which each message is one record: the venue's channel, and some of its fields by ours."""
TOGETHER = {"market": "swap", "instruments": ["*"], "connections": "together"}
CHANNELS = [
    {**TOGETHER, "channel": ["trade", "book", "bbo", *STATES]},
    {**TOGETHER, "channel": "candle", "interval": "1m"},
    {"market": "swap", "instruments": ["*"], "channel": "book", "depth": "tbt", "account": "main"},
]
CONNECTIONS = ("okx.together.public.0", "okx.together.business.0", "okx.main.swap.book.0", "okx.main.private.0")
HANDOVERS = dict(zip(CONNECTIONS, (3, 2, 2, 3), strict=True))
BOOKS = ("books", "books-l2-tbt")
SCHEMAS = Path(__file__).parent.parent.parent / "schemas"


async def test_announced_ends_leave_no_trace_in_the_topics(topics: Topics, tmp_path: Path) -> None:
    """Once; then again before the first replacement takes over, and at once after it did."""
    journal, main = Journal(), simulated(vip=True)
    market = MarketSettings(rate=40, instruments=named("okx", SYMBOLS), levels=40)
    with trio.fail_after(DEADLINE_S):
        async with open_venue("okx", market=market, accounts=[main], journal=journal) as venue:
            account = venue.accounts["main"]
            accounts = {"main": configured(tmp_path, "okx", main)}
            settings = {"urls": urls(venue), "channels": CHANNELS, "accounts": accounts, "reconnect": QUICK}
            async with running(configuration(topics, tmp_path, {"okx": settings})) as connector:
                await connector.live(*CONNECTIONS)
                await until(lambda: connector.connections()[CONNECTIONS[-1]].reconciliations == 1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trade, Trader(account))
                    await venue.wait_sent(200, "trades:*")
                    assert venue.fault("notice", seconds=20) == len(CONNECTIONS)
                    await replaced(connector, dict.fromkeys(CONNECTIONS, 1))
                    await venue.wait_connections(len(CONNECTIONS))
                    assert venue.fault("notice", seconds=20) == len(CONNECTIONS)
                    async with trio.open_nursery() as both:
                        both.start_soon(announce_again, venue, "trades:*", len(SYMBOLS))
                        both.start_soon(announce_again, venue, "orders:*", 1)
                    await replaced(connector, HANDOVERS)
                    await venue.wait_connections(len(CONNECTIONS))
                    await venue.wait_sent(venue.sent.count("trades:*") + 50, "trades:*")
                    nursery.cancel_scope.cancel()
                await fall_quiet(venue, journal, connector.witness)
                assert all(not stats.reconnects for stats in connector.connections().values())
                assert {name: stats.handovers for name, stats in connector.connections().items()} == HANDOVERS
                await connector.stop()
    told = Counter(record["status"] for record in await topics.read("feed_status"))
    assert told["replaced"] == sum(HANDOVERS.values())
    assert told["lost"] == len(CONNECTIONS)  # by the stop
    assert not told["gap"]
    await check_books(topics, venue)
    await check_trades(topics, venue)
    for kind, (channel, fields) in STATES.items():
        check_states(kind, await topics.read(kind), journal, channel, fields)
    check_candles(await topics.read("candle"), venue.sent.messages("candle1m:*"))
    tops = {row["seqId"] for message in venue.sent.messages("bbo-tbt:*") for row in json.loads(message)["data"]}
    quotes = await topics.read("bbo")
    assert {record["sequence"] for record in quotes} == tops
    assert set(Counter(identity("bbo", record) for record in quotes).values()) == {1}
    await check_account(topics, account, "okx")


async def announce_again(venue: SimulatedVenue, topic: str, count: int) -> None:
    """Announce the end of a connection and of its replacement, as soon as both carry the topic."""
    await venue.wait_subscribed(topic, 2 * count)
    assert venue.fault("notice", seconds=20, topic=topic) == 2


async def trade(trader: Trader) -> None:
    """Act for ever, a little slower than the market."""
    while True:
        trader.act()
        await trio.sleep(0.02)


async def replaced(connector: Connector, times: Mapping[str, int]) -> None:
    """Wait until each connection was replaced so often."""
    await until(lambda: all(connector.connections()[name].handovers >= count for name, count in times.items()))


async def check_books(topics: Topics, venue: SimulatedVenue) -> None:
    """Every update that the venue sent, once, in one epoch that one snapshot began."""
    found = books(await topics.read("book_update"))
    assert found.keys() == {(symbol, channel) for symbol in SYMBOLS for channel in BOOKS}
    for (symbol, channel), records in found.items():
        rows = [
            (fields["action"], row["seqId"], row["prevSeqId"])
            for message in venue.sent.messages(f"{channel}:{symbol}")
            for fields in [json.loads(message)]
            for row in fields["data"]
        ]
        updates = list(dict.fromkeys((sequence, previous) for action, sequence, previous in rows if action == "update"))
        follower = Follower()
        for record in records:
            follower.take(record)
        assert follower.epochs == 1
        assert [(each["sequence"], each["previous_sequence"]) for each in records if not each["is_snapshot"]] == updates
        view = venue.engine("SWAP", symbol)
        assert follower.sequence == rows[-1][1] <= view.sequence


async def check_trades(topics: Topics, venue: SimulatedVenue) -> None:
    """Every trade that the venue sent, once and in order."""
    sent = wire.trades(venue.sent.messages("trades:*"))
    found: dict[str, list[str]] = {}
    for record in await topics.read("trade"):
        found.setdefault(record["instrument"], []).append(record["trade_id"])
    assert found == {symbol: [each.id for each in prints] for symbol, prints in sent.items()}


def check_states(kind: str, records: list[Record], journal: Journal, channel: str, fields: Mapping[str, str]) -> None:
    """Every message that the venue sent, as often as it did over one connection: a busy one may say a thing twice."""
    true: Counter[tuple[object, ...]] = Counter()
    for messages in journal.sent.values():
        pushes = [push for push in map(json.loads, messages) if push["arg"]["channel"] == channel]
        rows = [row for push in pushes for row in push["data"]]
        true |= Counter((row["instId"], int(row["ts"]), *(row[theirs] for theirs in fields.values())) for row in rows)
    told = Counter(
        (each["instrument"], (each["exchange_time"] - EPOCH) // timedelta(milliseconds=1), *(each[n] for n in fields))
        for each in records
    )
    assert told.keys() == true.keys(), f"{kind}: missing {true - told}, too many {told - true}"
    assert not told - true, f"{kind}: too many {told - true}"


def check_candles(records: list[Record], sent: Iterable[bytes]) -> None:
    """Every state of a bar that the venue sent, and in order: a bar only grows."""
    true = {
        (fields["arg"]["instId"], *row[:6])
        for message in sent
        for fields in [json.loads(message)]
        for row in fields["data"]
    }
    names = ("open", "high", "low", "close", "volume")
    told = [
        (each["instrument"], str((each["open_time"] - EPOCH) // timedelta(milliseconds=1)), *(each[n] for n in names))
        for each in records
    ]
    assert set(told) == true


def identity(kind: str, record: Record) -> tuple[Any, ...]:
    """What the schema says tells a repeated record from a new one."""
    schema = json.loads((SCHEMAS / f"{kind}.avsc").read_text(encoding="utf-8"))
    return tuple(record[name] for name in schema["identity"])


async def test_a_replacement_that_comes_too_late_is_a_gap_that_is_told(topics: Topics, tmp_path: Path) -> None:
    """While the venue takes no connection the announced end comes: books begin anew, and nothing is there twice."""
    journal, names = Journal(), ("okx.swap.trade.0", "okx.swap.book.0")
    market = MarketSettings(rate=40, instruments=named("okx", SYMBOLS), levels=40)
    channels = [{"market": "swap", "channel": ["trade", "book"], "instruments": ["*"]}]
    with trio.fail_after(DEADLINE_S):
        async with open_venue("okx", market=market, journal=journal) as venue:
            settings = {"urls": urls(venue), "channels": channels, "reconnect": QUICK}
            async with running(configuration(topics, tmp_path, {"okx": settings})) as connector:
                await connector.live(*names)
                await venue.wait_sent(100)
                venue.fault("http_refuse", count=1000)
                assert venue.fault("notice", seconds=1) == len(names)
                await until(lambda: all(stats.reconnects for stats in connector.connections().values()))
                venue.fault("clear")
                await connector.live(*names)
                await venue.wait_sent(venue.sent.count("books:*") + 50, "books:*")
                await venue.wait_sent(venue.sent.count("trades:*") + 20, "trades:*")
                await fall_quiet(venue, journal, connector.witness)
                assert not any(stats.handovers for stats in connector.connections().values())
                await connector.stop()
    found = await check_everything(topics, connector, instruments=len(SYMBOLS))
    assert all(sum(record["is_snapshot"] for record in records) == 2 for records in found.values())
    lost = Counter(record["connection"] for record in await topics.read("feed_status") if record["status"] == "lost")
    assert all(lost[f"{name}#1"] == 1 for name in names)
