from __future__ import annotations

from pipeline.exchanges.venue import ChannelSpec, SessionTimes
from pipeline.feeds.settings import ChannelSettings, HeartbeatSettings, TimeoutSettings, VenueSettings
from pipeline.feeds.specs import channel_specs, expand, session_times


def test_lists_become_one_spec_each_in_the_order_of_the_file() -> None:
    candles = ChannelSettings(market="spot", channel=("candle",), interval=("1m", "1h", "1m"), price_type="mark")
    trades = ChannelSettings(market="linear", channel=("trade", "ticker", "trade"), instruments=("BTC*",))
    assert channel_specs(VenueSettings(channels=(candles, trades))) == [
        (ChannelSpec("spot", "candle", interval="1m", price_type="mark"), candles),
        (ChannelSpec("spot", "candle", interval="1h", price_type="mark"), candles),
        (ChannelSpec("linear", "trade", instruments=("BTC*",)), trades),
        (ChannelSpec("linear", "ticker", instruments=("BTC*",)), trades),
    ]


def test_each_channel_of_a_mixed_entry_gets_only_what_concerns_it() -> None:
    entry = ChannelSettings(
        market="linear",
        channel=("book", "candle", "trade"),
        depth=50,
        interval=("5m",),
        price_type="index",
        max_silence=9,
    )
    assert expand(entry) == [
        ChannelSpec("linear", "book", depth=50, max_silence=9),
        ChannelSpec("linear", "candle", interval="5m", price_type="index", max_silence=9),
        ChannelSpec("linear", "trade", max_silence=9),
    ]


def test_a_spec_tells_whether_its_entry_logs_in() -> None:
    entry = ChannelSettings(market="swap", channel=("book",), depth="tbt", account="main")
    assert expand(entry) == [ChannelSpec("swap", "book", depth="tbt", with_login=True)]


def test_a_candle_without_interval_stays_visible_to_the_checks() -> None:
    assert expand(ChannelSettings(market="spot", channel=("candle",))) == [ChannelSpec("spot", "candle")]


def test_session_times_override_only_what_is_configured() -> None:
    defaults = SessionTimes(ping_every=20.0, pong_within=10.0)
    assert session_times(defaults, VenueSettings()) == defaults
    settings = VenueSettings(heartbeat=HeartbeatSettings(pong_within=3.0), timeouts=TimeoutSettings(acknowledge=7.0))
    assert session_times(defaults, settings) == SessionTimes(20.0, 3.0, 7.0)
