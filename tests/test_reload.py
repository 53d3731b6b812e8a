"""What of a changed configuration is followed, and what requests to change it are refused for."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Config, loads
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import ChannelSpec
from pipeline.model.errors import ConfigError
from pipeline.reload import compare, read_resync, with_subscriptions
from tests.feeds.toy import instrument

BEFORE = """
kafka: {linger: 20ms, spool: {directory: spool}}
venues:
  bybit:
    accounts:
      main: {api_key: {env: KEY}, api_secret: {env: SECRET}, channels: [order]}
    channels:
      - {market: linear, channel: [trade, book], depth: 50, instruments: [BTCUSDT, ETHUSDT]}
      - {market: linear, channel: candle, interval: [1m, 1h], instruments: ["*USDT"]}
  okx:
    channels:
      - {market: swap, channel: trade}
"""


@pytest.fixture
def before() -> Config:
    return loads(BEFORE)


def test_the_same_is_no_change(before: Config) -> None:
    change = compare(before, loads(BEFORE))
    assert (change.config, change.applied, change.needs_restart) == (before, (), ())
    assert (change.added, change.removed, change.changed, change.log) == ((), (), (), False)


def test_venues_channels_and_the_log_are_followed(before: Config) -> None:
    text = BEFORE.replace("depth: 50", "depth: 200").partition("  okx:")[0] + "log: {level: debug}\nreload: {check: 0}"
    wanted = loads(text)
    change = compare(before, wanted)
    assert change.config == wanted
    assert (change.added, change.removed, change.changed) == ((), ("okx",), ("bybit",))
    assert change.log
    assert set(change.applied) == {"venues.bybit.channels", "venues.okx", "log.level", "reload.check"}
    assert change.needs_restart == ()
    back = compare(wanted, before)
    assert (back.added, back.removed, back.config) == (("okx",), (), before)


def test_a_venue_that_takes_orders_stays_until_the_restart() -> None:
    orders = """
orders:
  accounts:
    bybit:
      main: {instruments: {linear: "*"}, max_order_value: 5000}
"""
    before = loads(BEFORE.replace("  bybit:\n", "  bybit:\n    environment: testnet\n") + orders)
    wanted = loads("venues:\n  okx:" + BEFORE.partition("  okx:")[2])
    change = compare(before, wanted)
    assert (change.removed, change.config.venues) == ((), before.venues)
    assert {"venues.bybit", "orders.accounts.bybit"} <= set(change.needs_restart)
    assert not [path for path in change.applied if path.startswith("venues")]
    back = compare(change.config, before)
    assert (back.added, back.removed, back.changed) == ((), (), ())


def test_what_is_not_followed_is_named_and_the_rest_is_applied(before: Config) -> None:
    text = BEFORE.replace("20ms", "1s").replace("spool}", "other}").replace("[BTCUSDT, ETHUSDT]", "[BTCUSDT]")
    text = text.replace("      main:", "      desk: {api_key: {env: A}, api_secret: {env: B}}\n      main:")
    first = "    channels:\n      - {market: linear, channel: ["
    more = "    timeouts: {connect: 1s}\n    channels:\n      - {market: spot, channel: trade, account: desk}\n"
    text = text.replace(first, more + first.partition("\n")[2])
    change = compare(before, loads(text + "http: {port: 1}\nworkers: 2\nshard: {count: 2}"))
    assert set(change.needs_restart) == {
        "kafka.linger", "kafka.spool.directory", "http.port", "workers", "shard.count", "venues.bybit.accounts.desk",
        "venues.bybit.timeouts.connect", "venues.bybit.channels[0].account",
    }  # fmt: skip
    assert change.applied == ("venues.bybit.channels",)
    assert change.config.kafka == before.kafka
    bybit, old = change.config.venues["bybit"], before.venues["bybit"]
    assert [entry.market for entry in bybit.channels] == ["linear", "linear"], "whose account does not run"
    assert bybit.channels[0].instruments == ("BTCUSDT",)
    assert (bybit.accounts, bybit.timeouts) == (old.accounts, old.timeouts)


def asked(before: Config, **body: Any) -> Config:
    return with_subscriptions(before, {"venue": "bybit", **body}, VENUES)


def test_subscriptions_are_added_before_the_others_so_that_their_options_count(before: Config) -> None:
    wanted = {"market": "linear", "channel": "book", "depth": 50, "instruments": "BTCUSDT", "max_silence": "5s"}
    found = asked(before, add=[wanted]).venues["bybit"].channels
    assert found[1:] == before.venues["bybit"].channels
    assert (found[0].instruments, found[0].max_silence) == (("BTCUSDT",), 5.0)


def test_what_is_removed_leaves_the_rest_of_its_entry(before: Config) -> None:
    remove = [
        {"market": "linear", "channel": "book", "depth": 50, "instruments": ["BTCUSDT"]},
        {"market": "linear", "channel": "candle", "interval": "1h", "instruments": "*USDT"},
    ]
    found = asked(before, remove=remove).venues["bybit"].channels
    assert [(entry.channel, entry.depth, entry.interval, entry.instruments) for entry in found] == [
        (("trade",), None, (), ("BTCUSDT", "ETHUSDT")),
        (("book",), 50, (), ("ETHUSDT",)),
        (("candle",), None, ("1m",), ("*USDT",)),
    ]


FAULTS = {
    "no venue": ({"venue": None}, ["venue: expected text, got nothing"]),
    "an unknown venue": ({"venue": "bybyt", "add": []}, ['venue: "bybyt" is not configured; did you mean "bybit"?']),
    "nothing": ({}, ["add: nothing is to be added or removed"]),
    "an unknown channel": (
        {"add": [{"market": "linear", "channel": "tickers"}]},
        ['add[0].channel: unknown channel "tickers"; did you mean "ticker"?'],
    ),
    "an unknown account": (
        {"add": [{"market": "linear", "channel": "ticker", "account": "mian"}]},
        ['add[0].account: unknown account "mian"; did you mean "main"?'],
    ),
    "an archive that is not there": (
        {"add": [{"market": "linear", "channel": "ticker", "archive": True}]},
        ["add[0].archive: is on, and the venue has no archive"],
    ),
    "what is not subscribed": (
        {"remove": [{"market": "linear", "channel": "book", "depth": 200, "instruments": "BTCUSDT"}]},
        ["remove[0]: no entry of the channels has BTCUSDT in linear book 200"],
    ),
    "more seconds than there are": (
        {"add": [{"market": "linear", "channel": "ticker", "max_silence": 10**400}]},
        [f"add[0].max_silence: expected a finite number, got 1{'0' * 56}…"],
    ),
    "an unknown key": ({"append": []}, ["append: unknown key; known: venue, add, remove"]),
}


@pytest.mark.parametrize(("body", "problems"), [pytest.param(*case, id=name) for name, case in FAULTS.items()])
def test_faults_of_a_request_are_named_by_its_fields(before: Config, body: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(before, **body)
    assert caught.value.problems == problems


def test_a_resync_means_books_by_our_name_or_the_venues(before: Config) -> None:
    body = {"venue": "bybit", "instrument": "BTCUSDT"}
    [book] = VENUES["bybit"].subscriptions(ChannelSpec("linear", "book", depth=50), [instrument("BTCUSDT")])
    assert read_resync(before, body, VENUES).means(book)
    assert read_resync(before, {**body, "channel": "orderbook.50", "market": "linear"}, VENUES).means(book)
    for other in ({"channel": "orderbook.1"}, {"market": "spot"}, {"instrument": "ETHUSDT"}):
        assert not read_resync(before, {**body, **other}, VENUES).means(book)
    with pytest.raises(ConfigError, match='venue: "kraken" is not configured'):
        read_resync(before, {**body, "venue": "kraken"}, VENUES)
