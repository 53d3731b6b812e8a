"""Which connections are archived, and what is wrong with an archive's settings."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.config import loads
from pipeline.exchanges import VENUES
from pipeline.feeds.plan import make_plan
from pipeline.feeds.settings import ArchiveSettings, ChannelSettings, VenueSettings
from pipeline.model.errors import ConfigError
from pipeline.model.events import Instrument, Micros, Origin
from pipeline.model.stats import ArchiveStats, VenueStats
from pipeline.observe.metrics import FeedCollector, render

BTC = Instrument(
    Origin("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", None, "bybit.rest"),
    None,
    Micros(1),
    None,
    "perpetual",
    "Trading",
    is_tradable=True,
    base="BTC",
    quote="USDT",
    settle="USDT",
    size_unit="base",
)
KEY = {"api_key": {"env": "KEY"}, "api_secret": {"env": "SECRET"}, "channels": ["order"]}


def config(**bybit: Any) -> str:
    return yaml.safe_dump({"venues": {"bybit": bybit}})


def archived(**bybit: Any) -> dict[str, bool]:
    settings = loads(config(**bybit)).venues["bybit"]
    plan = make_plan("bybit", VENUES["bybit"], settings, {("linear", "BTCUSDT"): BTC})
    return {connection.id.removeprefix("bybit."): connection.is_archived for connection in plan.connections}


def channel(name: str, **more: Any) -> dict[str, Any]:
    return {"market": "linear", "channel": name, **more}


def test_nothing_is_archived_unless_asked_for() -> None:
    assert archived(channels=[channel("book")]) == {"linear.book.0": False}


def test_a_venue_with_an_archive_has_all_its_channels_in_it_but_those_that_do_not_want_it() -> None:
    found = archived(archive={"topic": True}, channels=[channel("book"), channel("trade", archive=False)])
    assert found == {"linear.book.0": True, "linear.trade.0": False}


def test_a_connection_is_archived_if_any_of_its_channels_is() -> None:
    entries = [channel(name, connections="all", archive=wanted) for name, wanted in (("book", False), ("trade", True))]
    assert archived(archive={"topic": True}, channels=entries) == {"all.linear.0": True}


def test_a_topic_wanted_twice_is_archived_if_one_of_them_is() -> None:
    entries = [channel("book", archive=False), channel("book")]
    assert archived(archive={"topic": True}, channels=entries) == {"linear.book.0": True}


def test_an_account_is_archived_only_by_name() -> None:
    accounts = {"main": KEY, "other": {**KEY, "archive": True}}
    found = archived(archive={"topic": True}, accounts=accounts)
    assert found == {"main.private.0": False, "other.private.0": True}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"archive": {}}, "venues.bybit.archive.files: is missing, and topic is off: there is nowhere to put anything"),
        ({"archive": {"files": {}}}, "venues.bybit.archive.files.directory: is missing"),
        (
            {"archive": {"files": {"directory": "x", "rotate_every": 0}}},
            "venues.bybit.archive.files.rotate_every: must be above 0, not 0",
        ),
        (
            {"accounts": {"main": {**KEY, "archive": True}}},
            "venues.bybit.accounts.main.archive: is on, and the venue has no archive",
        ),
    ],
)
def test_what_cannot_be_is_told(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(config(channels=[channel("book")], **given))
    assert caught.value.problems == [problem]


def test_a_channel_cannot_be_archived_nowhere() -> None:
    with pytest.raises(ConfigError, match=r"channels\[0\]\.archive: is on, and the venue has no archive"):
        loads(config(channels=[channel("book", archive=True)]))


def test_settings_have_defaults() -> None:
    text = config(channels=[channel("book")], archive={"files": {"directory": "x", "rotate_bytes": "1MiB"}})
    found = loads(text).venues["bybit"].archive
    assert found is not None
    assert found.files is not None
    assert (found.topic, found.files.rotate_bytes, found.files.rotate_every) == (False, 2**20, 3600.0)
    assert VenueSettings().archive is None
    assert ChannelSettings("linear", ("book",)).archive is None
    assert ArchiveSettings().files is None


def test_the_archive_is_counted() -> None:
    venue = VenueStats("bybit", archive=ArchiveStats(messages=7, lost=2, waiting_bytes=9, written_bytes=5))
    lines = render([FeedCollector(lambda: [venue, VenueStats("okx")])])().decode().splitlines()
    assert [line for line in lines if line.startswith("pipeline_archive")] == [
        'pipeline_archive_messages_total{venue="bybit"} 7.0',
        'pipeline_archive_lost_total{venue="bybit"} 2.0',
        'pipeline_archive_written_bytes_total{venue="bybit"} 5.0',
        'pipeline_archive_waiting_bytes{venue="bybit"} 9.0',
    ]
