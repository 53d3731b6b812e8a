"""Connections that are cut, fall silent or bring nonsense: what was received is in Kafka, and books come back right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio

from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from pipeline.sim.wire import BINARY, TEXT, frame
from tests.e2e.connector import (
    QUICK,
    Connector,
    Journal,
    check_sockets,
    configuration,
    fall_quiet,
    running,
    until,
    urls,
)
from tests.e2e.consumer import Record, Topics
from tests.e2e.delivered import check_everything

DEADLINE_S = 120
CHANNELS = {
    "bybit": [{"market": "linear", "channel": ["trade", "book"], "instruments": ["*USDT"]}],
    "okx": [{"market": "swap", "channel": ["trade", "book"], "instruments": ["*"]}],
}
MARKET = {"bybit": "linear", "okx": "swap"}
BOOKS = {"bybit": "orderbook.*", "okx": "books:*"}
TRADES = {"bybit": "publicTrade.*", "okx": "trades:*"}


def market(name: str, *, rate: float = 60, instruments: int = 2) -> MarketSettings:
    """A few perpetuals."""
    return MarketSettings(rate=rate, instruments=many(name, instruments), levels=60)


def statuses(records: list[Record], *wanted: str) -> Counter[tuple[str, str]]:
    """How often each connection (with its generation) told each of these."""
    return Counter((record["connection"], record["status"]) for record in records if record["status"] in wanted)


@pytest.mark.parametrize("name", ["bybit", "okx"])
async def test_cut_connections_lose_nothing_that_was_received(topics: Topics, name: str, tmp_path: Path) -> None:
    journal, cuts = Journal(), 3
    book, trade = f"{name}.{MARKET[name]}.book.0", f"{name}.{MARKET[name]}.trade.0"
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), journal=journal) as venue:
            venues = {name: {"urls": urls(venue), "channels": CHANNELS[name], "reconnect": QUICK}}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                for generation in range(1, cuts + 2):
                    await until(lambda g=generation: _generations(connector) == {book: g, trade: g})  # type: ignore[misc]
                    await connector.live(book, trade)
                    for pattern in (BOOKS[name], TRADES[name]):
                        await venue.wait_sent(venue.sent.count(pattern) + 30, pattern)
                    if generation <= cuts:
                        assert venue.fault("drop") == 2
                await fall_quiet(venue, journal, connector.witness)
                await connector.stop()
            check_sockets(venue, journal, connector.witness, cut=2 * cuts)
    found = await check_everything(topics, connector, instruments=2)
    for records in found.values():
        generations = [record["connection"] for record in records if record["is_snapshot"]]
        assert generations == [f"{book}#{number}" for number in range(1, cuts + 2)]
    told = statuses(await topics.read("feed_status"), "connected", "lost")
    names = [f"{each}#{number}" for each in (book, trade) for number in range(1, cuts + 2)]
    assert told == Counter((each, status) for each in names for status in ("connected", "lost"))


def _generations(connector: Connector) -> dict[str, int]:
    return {name: stats.generation for name, stats in connector.connections().items()}


async def test_a_half_open_connection_is_noticed_and_the_others_are_left_alone(topics: Topics, tmp_path: Path) -> None:
    journal, book, trade = Journal(), "bybit.linear.book.0", "bybit.linear.trade.0"
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=market("bybit"), journal=journal) as venue:
            settings = {
                "urls": urls(venue),
                "channels": CHANNELS["bybit"],
                "reconnect": QUICK,
                "heartbeat": {"ping_every": "300ms", "pong_within": "300ms"},
                "timeouts": {"close": "200ms"},
            }
            async with running(configuration(topics, tmp_path, {"bybit": settings})) as connector:
                await connector.live(book, trade)
                await venue.wait_sent(50, "orderbook.*")
                assert venue.fault("silence", topic="orderbook.*") == 1
                await until(lambda: _generations(connector)[book] == 2)
                await connector.live(book)
                await venue.wait_sent(venue.sent.count("orderbook.*") + 50, "orderbook.*")
                await fall_quiet(venue, journal, connector.witness)
                assert _generations(connector) == {book: 2, trade: 1}
                await connector.stop()
            check_sockets(venue, journal, connector.witness, cut=1)
    found = await check_everything(topics, connector, instruments=2)
    assert all(sum(record["is_snapshot"] for record in records) == 2 for records in found.values())
    lost = [record for record in await topics.read("feed_status") if record["status"] == "lost"]
    assert "pong" in next(record["reason"] for record in lost if record["connection"] == f"{book}#1")


async def test_a_silent_subscription_is_told_resubscribed_and_reconnected(topics: Topics, tmp_path: Path) -> None:
    """The connection answers pings all the while: only the silence of its data tells."""
    book, trade = "bybit.linear.book.0", "bybit.linear.trade.0"
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=market("bybit")) as venue:
            channels = [
                {"market": "linear", "channel": "book", "instruments": ["*"], "max_silence": "500ms"},
                {"market": "linear", "channel": "trade", "instruments": ["*"]},
            ]
            settings = {"urls": urls(venue), "channels": channels, "reconnect": QUICK}
            async with running(configuration(topics, tmp_path, {"bybit": settings})) as connector:
                await connector.live(book, trade)
                await venue.wait_sent(50, "orderbook.*")
                venue.fault("stall", topic="orderbook.50.BTCUSDT")
                await until(lambda: _generations(connector)[book] == 2)
                venue.fault("clear")
                await connector.live(book)
                before = len(connector.witness.heard[-1].data)
                await until(lambda: len(connector.witness.heard[-1].data) > before + 50)
                assert _generations(connector)[trade] == 1
                await connector.stop()
    await check_everything(topics, connector, instruments=2)
    told = [record for record in await topics.read("feed_status") if record["connection"] == f"{book}#1"]
    assert [(each["instrument"], each["scope"]) for each in told if each["status"] == "stale"] == [
        ("BTCUSDT", "instrument")
    ]
    assert "silent" in next(each["reason"] for each in told if each["status"] == "lost")


async def test_a_message_that_cannot_be_read_is_kept_and_the_rest_flows_on(topics: Topics, tmp_path: Path) -> None:
    journal, book, trade = Journal(), "bybit.linear.book.0", "bybit.linear.trade.0"
    nonsense = {
        b'{"topic":"orderbook.50.BTCUSDT","type":"delta","data":': TEXT,
        b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{"i":1}]}': TEXT,
        b"[1, 2, 3]" * 100: TEXT,
        b'{"topic":"publicTrade.\xff\xfe"}': TEXT,
        b"\x00\x01\x02 not JSON": BINARY,
        b"": TEXT,
    }
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=market("bybit"), journal=journal) as venue:
            venues = {"bybit": {"urls": urls(venue), "channels": CHANNELS["bybit"], "reconnect": QUICK}}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await connector.live(book, trade)
                (target,) = (c for c in venue.connections if any("publicTrade" in topic for topic in c.topics))
                connector.witness.nonsense.update(nonsense)
                for number, (payload, opcode) in enumerate(nonsense.items()):
                    target.raw(frame(payload, opcode))
                    if number % 2:
                        assert venue.fault("fragmented", topic="publicTrade.*") == 1
                    await venue.wait_sent(venue.sent.count("publicTrade.*") + 10, "publicTrade.*")
                await fall_quiet(venue, journal, connector.witness)
                assert _generations(connector) == {book: 1, trade: 1}
                await connector.stop()
            check_sockets(venue, journal, connector.witness)
    await check_everything(topics, connector, instruments=2)
    letters = await topics.read("dead_letter")
    assert [letter["payload"] for letter in letters] == list(nonsense)
    assert {(letter["stage"], letter["connection"]) for letter in letters} == {("parse", f"{trade}#1")}
    assert all(letter["reason"] for letter in letters)


@pytest.mark.parametrize("kind", ["garbage", "oversize", "close"])
async def test_a_broken_stream_is_opened_anew(topics: Topics, kind: str, tmp_path: Path) -> None:
    journal, book, trade = Journal(), "bybit.linear.book.0", "bybit.linear.trade.0"
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=market("bybit"), journal=journal) as venue:
            settings = {
                "urls": urls(venue),
                "channels": CHANNELS["bybit"],
                "reconnect": QUICK,
                "max_message_bytes": 65_536,
            }
            async with running(configuration(topics, tmp_path, {"bybit": settings})) as connector:
                await connector.live(book, trade)
                await venue.wait_sent(30, "orderbook.*")
                assert venue.fault(kind, topic="orderbook.*", size=100_000) == 1
                await until(lambda: _generations(connector)[book] == 2)
                await connector.live(book)
                await venue.wait_sent(venue.sent.count("orderbook.*") + 30, "orderbook.*")
                await fall_quiet(venue, journal, connector.witness)
                assert _generations(connector) == {book: 2, trade: 1}
                await connector.stop()
            check_sockets(venue, journal, connector.witness, cut=1)
    await check_everything(topics, connector, instruments=2)
    assert statuses(await topics.read("feed_status"), "lost")[f"{book}#1", "lost"] == 1


@pytest.mark.parametrize("name", ["bybit", "okx"])
async def test_a_gap_is_told_and_only_that_book_is_subscribed_anew(topics: Topics, name: str, tmp_path: Path) -> None:
    journal, book = Journal(), f"{name}.{MARKET[name]}.book.0"
    broken, whole = {"bybit": ("BTCUSDT", "ETHUSDT"), "okx": ("BTC-USDT-SWAP", "ETH-USDT-SWAP")}[name]
    topic = {"bybit": f"orderbook.50.{broken}", "okx": f"books:{broken}"}[name]
    channel = {"bybit": "orderbook.50", "okx": "books"}[name]
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), journal=journal) as venue:
            venues = {name: {"urls": urls(venue), "channels": CHANNELS[name]}}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await connector.live(book)
                for lost in (1, 3):
                    await venue.wait_sent(venue.sent.count(topic) + 20, topic)
                    venue.fault("gap", topic=topic, count=lost)
                    resyncs = 1 if lost == 1 else 2
                    await until(lambda n=resyncs: connector.connections()[book].resyncs == n)  # type: ignore[misc]
                    await until(lambda n=resyncs: _snapshots(connector, (broken, channel)) == n + 1)  # type: ignore[misc]
                await venue.wait_sent(venue.sent.count(topic) + 20, topic)
                await fall_quiet(venue, journal, connector.witness)
                assert set(_generations(connector).values()) == {1}
                await connector.stop()
            check_sockets(venue, journal, connector.witness)
    found = await check_everything(topics, connector, instruments=2)
    assert sum(record["is_snapshot"] for record in found[whole, channel]) == 1
    told = [record for record in await topics.read("feed_status") if record["status"] in ("gap", "resynced")]
    assert [(each["instrument"], each["status"]) for each in told] == [(broken, "gap"), (broken, "resynced")] * 2
    sequences = [record["sequence"] for record in found[broken, channel]]
    snapshots = [record["sequence"] for record in found[broken, channel] if record["is_snapshot"]]
    for gap, resynced, snapshot in zip(told[::2], told[1::2], snapshots[1:], strict=True):
        last_good = sequences[sequences.index(snapshot) - 1]
        assert gap["from_sequence"] == resynced["from_sequence"] == last_good
        assert resynced["to_sequence"] == snapshot >= gap["to_sequence"] > last_good
        assert resynced["count"] >= 1
        assert gap["from_time"] <= gap["to_time"]


def _snapshots(connector: Connector, name: tuple[str, str]) -> int:
    return sum(change.is_snapshot for change in connector.witness.books().get(name, ()))
