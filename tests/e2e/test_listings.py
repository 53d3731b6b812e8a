"""Instruments that are listed and delisted while the connector runs."""

from __future__ import annotations

from pathlib import Path

import trio

from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.e2e.connector import Journal, check_sockets, configuration, fall_quiet, running, until, urls
from tests.e2e.consumer import Topics
from tests.e2e.delivered import check_everything

DEADLINE_S = 120


async def test_listings_come_and_go_on_living_connections(topics: Topics, tmp_path: Path) -> None:
    journal, (btc, eth, sol) = Journal(), many("bybit", 3)
    with trio.fail_after(DEADLINE_S):
        market = MarketSettings(rate=60, instruments=(btc, eth), levels=60)
        async with open_venue("bybit", market=market, journal=journal) as venue:
            channels = [{"market": "linear", "channel": ["trade", "book"], "instruments": ["*"]}]
            settings = {"urls": urls(venue), "channels": channels, "refresh_instruments": "1s"}
            async with running(configuration(topics, tmp_path, {"bybit": settings})) as connector:
                for name in ("publicTrade", "orderbook.50"):
                    await venue.wait_sent(20, f"{name}.ETHUSDT")
                venue.list_instrument(sol)
                for name in ("publicTrade", "orderbook.50"):
                    await venue.wait_sent(20, f"{name}.SOLUSDT")
                venue.delist(eth.market, eth.symbol)
                await until(lambda: venue.subscriptions("*ETHUSDT") == 0)
                for name in ("publicTrade", "orderbook.50"):
                    await venue.wait_sent(venue.sent.count(f"{name}.BTCUSDT") + 20, f"{name}.BTCUSDT")
                await fall_quiet(venue, journal, connector.witness)
                assert {stats.generation for stats in connector.connections().values()} == {1}
                assert {stats.subscribed for stats in connector.connections().values()} == {2}
                await connector.stop()
            check_sockets(venue, journal, connector.witness)
    found = await check_everything(topics, connector, instruments=3)
    assert all(sum(record["is_snapshot"] for record in records) == 1 for records in found.values())
    told = [
        (record["instrument"], record["status"])
        for record in sorted(await topics.read("feed_status"), key=lambda record: str(record["receive_time"]))
        if record["instrument"] is not None and record["channel"] == "orderbook.50"
    ]
    assert sorted(told[:2]) == [("BTCUSDT", "subscribed"), ("ETHUSDT", "subscribed")]
    assert told[2:] == [("SOLUSDT", "subscribed"), ("ETHUSDT", "unsubscribed")]
    instruments = sorted(await topics.read("instrument"), key=lambda record: str(record["receive_time"]))
    catalogue = [(record["instrument"], record["is_tradable"]) for record in instruments]
    assert sorted(catalogue[:2]) == [("BTCUSDT", True), ("ETHUSDT", True)]
    # The simulated venue numbers its rows: whoever stands behind a delisted one is told again with a new code.
    assert list(dict.fromkeys(catalogue[2:])) == [("SOLUSDT", True), ("ETHUSDT", False)]
