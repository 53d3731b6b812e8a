"""A Kafka broker that is away, comes, dies and comes back: nothing is lost or repeated, and venues never notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.e2e.connector import Connector, Journal, check_sockets, configuration, fall_quiet, running, until, urls
from tests.e2e.consumer import Topics
from tests.e2e.delivered import check_everything
from tests.services import KafkaBroker, SchemaRegistry

DEADLINE_S = 120
CHANNELS = [{"market": "linear", "channel": ["trade", "book"], "instruments": ["*"]}]
MARKET = MarketSettings(rate=100, instruments=many("bybit", 2), levels=60)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that the tests of this module may kill; each has topics of its own."""
    with KafkaBroker(tmp_path_factory.mktemp("mortal-kafka")) as broker:
        yield broker


def kafka(folder: Path, topics: Topics, **more: Any) -> dict[str, Any]:
    """The connector's part of the configuration about Kafka."""
    found = configuration(topics, folder, {}, queue_messages=200, **more)["kafka"]
    assert isinstance(found, dict)
    return found


def spooled(connector: Connector) -> int:
    """Records that wait on disk or in front of it."""
    assert connector.service.sink is not None
    return connector.service.sink.stats().spooled


def spooling(connector: Connector) -> bool:
    """Whether the spool is in use."""
    assert connector.service.sink is not None
    return connector.service.sink.stats().is_spooling


async def test_a_broker_killed_in_the_middle_costs_nothing(
    mortal: KafkaBroker, registry: SchemaRegistry, tmp_path: Path
) -> None:
    topics, journal = Topics(mortal, registry, "killed"), Journal()
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET, journal=journal) as venue:
            venues = {"bybit": {"urls": urls(venue), "channels": CHANNELS}}
            settings = {**configuration(topics, tmp_path, venues), "kafka": kafka(tmp_path, topics)}
            async with running(settings) as connector:
                await connector.live("bybit.linear.book.0", "bybit.linear.trade.0")
                await venue.wait_sent(300)
                await until(lambda: not spooling(connector))
                await trio.to_thread.run_sync(mortal.kill)
                await until(lambda: spooled(connector) > 1000)
                await trio.to_thread.run_sync(mortal.start)
                await until(lambda: not spooling(connector))
                await venue.wait_sent(venue.sent.total + 300)
                await fall_quiet(venue, journal, connector.witness)
                assert {stats.generation for stats in connector.connections().values()} == {1}
                await connector.stop()
            check_sockets(venue, journal, connector.witness)
    await check_everything(topics, connector, instruments=2)


async def test_records_wait_for_a_broker_that_comes_late(
    mortal: KafkaBroker, registry: SchemaRegistry, tmp_path: Path
) -> None:
    topics, journal = Topics(mortal, registry, "late"), Journal()
    await trio.to_thread.run_sync(mortal.kill)
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET, journal=journal) as venue:
            venues = {"bybit": {"urls": urls(venue), "channels": CHANNELS}}
            late = kafka(tmp_path, topics, connect_within="500ms")
            async with running({**configuration(topics, tmp_path, venues), "kafka": late}) as connector:
                await until(lambda: spooled(connector) > 500)
                await trio.to_thread.run_sync(mortal.start)
                await until(lambda: not spooling(connector))
                await venue.wait_sent(venue.sent.total + 100)
                await fall_quiet(venue, journal, connector.witness)
                assert {stats.generation for stats in connector.connections().values()} == {1}
                await connector.stop()
            check_sockets(venue, journal, connector.witness)
    await check_everything(topics, connector, instruments=2)


async def test_what_a_stopped_service_could_not_deliver_comes_with_the_next_start(
    mortal: KafkaBroker, registry: SchemaRegistry, tmp_path: Path
) -> None:
    topics, journal = Topics(mortal, registry, "next"), Journal()
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET, journal=journal) as venue:
            venues = {"bybit": {"urls": urls(venue), "channels": CHANNELS}}
            short = kafka(tmp_path, topics, drain_within="500ms")
            settings = {**configuration(topics, tmp_path, venues), "kafka": short}
            async with running(settings) as first:
                await first.live("bybit.linear.book.0", "bybit.linear.trade.0")
                await venue.wait_sent(200)
                await trio.to_thread.run_sync(mortal.freeze)
                try:
                    await until(lambda: spooled(first) > 500)
                    await first.stop()
                finally:
                    mortal.thaw()
            heard = first.witness.heard
            async with running(settings) as second:
                second.witness.heard[:0] = heard
                await second.live("bybit.linear.book.0", "bybit.linear.trade.0")
                await venue.wait_sent(venue.sent.total + 100)
                await until(lambda: not spooling(second))
                await second.stop()
    # What was on the wire when the first one gave up may be there twice: consumers tell by identity.
    await check_everything(topics, second, instruments=2, repeated=True)
