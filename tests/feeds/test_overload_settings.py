"""What the configuration may ask for under overload, and what becomes of it in the plan."""

from __future__ import annotations

import pytest

from pipeline.config import loads
from pipeline.exchanges import VENUES
from pipeline.feeds.plan import make_plan
from pipeline.feeds.settings import OverloadSettings
from pipeline.model.errors import ConfigError
from pipeline.model.events import Instrument, Micros, Origin


def entry(text: str) -> str:
    return f"venues: {{bybit: {{channels: [{{market: linear, instruments: BTCUSDT, {text}}}]}}}}"


@pytest.mark.parametrize(
    "text",
    [
        "channel: [ticker, bbo]",
        "channel: book, book: {derive_bbo: true}",
        "channel: [book, ticker], book: {top_levels: 5}",
    ],
)
def test_states_may_be_conflated(text: str) -> None:
    [channel] = loads(entry(f"{text}, overload: conflate")).venues["bybit"].channels
    assert channel.overload == "conflate"
    [channel] = loads(entry(text)).venues["bybit"].channels
    assert channel.overload == "queue"


AT = "venues.bybit.channels[0].overload:"
ONLY = "is never conflated, only ticker, bbo and what is derived from a book"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("channel: trade, overload: conflate", [f"{AT} trade {ONLY}"]),
        ("channel: [ticker, funding_rate], overload: conflate", [f"{AT} funding_rate {ONLY}"]),
        (
            "channel: book, overload: conflate",
            [f"{AT} books are never conflated, and neither book.derive_bbo nor book.top_levels is on"],
        ),
        ("channel: ticker, overload: drop", [f'{AT} expected one of queue, conflate, got "drop"']),
    ],
)
def test_what_cannot_be_conflated_is_refused_by_name(text: str, why: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(entry(text))
    assert caught.value.problems == why


def test_the_bounds_are_set_per_venue() -> None:
    text = "{bybit: {channels: [{market: spot, channel: trade}], overload: {lag: 500ms, messages_per_turn: 64}}}"
    settings = loads(f"venues: {text}").venues["bybit"]
    assert settings.overload == OverloadSettings(messages_per_turn=64, lag=0.5, interval=0.1)
    with pytest.raises(ConfigError) as caught:
        loads(f"venues: {text}".replace("64", "0").replace("500ms", "0s"))
    assert caught.value.problems == [
        "venues.bybit.overload.lag: must be above 0, not 0",
        "venues.bybit.overload.messages_per_turn: must be at least 1, not 0",
    ]


def conflated(*entries: str) -> dict[str, bool | None]:
    """By topic, for BTCUSDT and ETHUSDT."""
    channels = ", ".join(f"{{market: linear, connections: all, {each}}}" for each in entries)
    settings = loads(f"venues: {{bybit: {{channels: [{channels}]}}}}").venues["bybit"]
    found = {}
    for name in ("BTCUSDT", "ETHUSDT"):
        origin = Origin("bybit", "linear", name, None, None, "catalogue")
        found["linear", name] = Instrument(
            origin, None, Micros(0), None, "perpetual", "Trading", True, name[:3], "USDT", None, "base"
        )
    [plan] = make_plan("bybit", VENUES["bybit"], settings, found).connections
    return {want.subscription.topic: want.is_conflated for want in plan.wants}


def test_the_first_entry_about_a_state_decides() -> None:
    assert conflated("channel: ticker, instruments: BTCUSDT", "channel: ticker, overload: conflate") == {
        "tickers.BTCUSDT": False,
        "tickers.ETHUSDT": True,
    }


def test_an_entry_about_something_else_in_the_same_topic_does_not_decide() -> None:
    prices, tickers = "channel: [mark_price, trade]", "channel: ticker, overload: conflate"
    expected = {
        "tickers.BTCUSDT": True,
        "tickers.ETHUSDT": True,
        "publicTrade.BTCUSDT": None,
        "publicTrade.ETHUSDT": None,
    }
    assert conflated(prices, tickers) == expected
    assert conflated(tickers, prices) == expected
