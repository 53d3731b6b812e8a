"""Books that begin with a snapshot over REST: what follows in the topic gives the venue's own book."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from pipeline.sim.control import book
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.e2e.connector import QUICK, Journal, configuration, fall_quiet, running, until, urls
from tests.e2e.consumer import Follower, Topics, books

DEADLINE_S = 120
CHANNELS: dict[str, dict[str, Any]] = {
    "bybit": {"market": "linear", "depth": "full"},
    "okx": {"market": "swap", "book": {"seed_after": "300ms"}},
}
TOPIC = {"bybit": "orderbook.full.*", "okx": "books:*"}
MARKET = {"bybit": "linear", "okx": "SWAP"}


@pytest.mark.parametrize("name", ["bybit", "okx"])
async def test_a_book_without_a_snapshot_from_the_stream_begins_over_rest(
    topics: Topics, name: str, tmp_path: Path
) -> None:
    """Bybit's full books have none; OKX is kept from sending its own, and from sending anything until it is asked."""
    journal, listings = Journal(), many(name, 2)
    market = MarketSettings(rate=40, instruments=listings, levels=60)
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market, journal=journal) as venue:
            channels = [{"channel": "book", "instruments": ["*"], **CHANNELS[name]}]
            if name == "okx":
                venue.fault("stall", topic=TOPIC[name])
            settings = {"urls": urls(venue), "channels": channels, "reconnect": QUICK}
            async with running(configuration(topics, tmp_path, {name: settings})) as connector:
                await venue.wait_subscribed(TOPIC[name], len(listings))
                venue.fault("clear")
                await until(lambda: bool(connector.connections()))
                (stats,) = connector.connections().values()
                await until(lambda: stats.seeds >= len(listings))
                await venue.wait_sent(venue.sent.count(TOPIC[name]) + 60, TOPIC[name])
                venue.fault("stall", topic="*")  # what moves from here on, nobody is told
                truth = {each.symbol: book(venue, MARKET[name], each.symbol) for each in listings}
                await fall_quiet(venue, journal, connector.witness)
                assert (stats.generation, stats.gaps, stats.resyncs) == (1, 0, 0)
                await connector.stop()
    found = books(await topics.read("book_update"))
    assert {symbol for symbol, _ in found} == {each.symbol for each in listings}
    for (symbol, _), records in found.items():
        follower = Follower()
        for record in records:
            follower.take(record)
        assert follower.epochs == 1
        assert len(records) > 20
        for side in ("bids", "asks"):
            assert levels(getattr(follower.book, side).values()) == levels(truth[symbol][side])


def levels(rows: Iterable[Iterable[str]]) -> dict[Decimal, Decimal]:
    """Sizes by price."""
    return {Decimal(price): Decimal(size) for price, size in rows}
