"""What the venue calls its channels and intervals, and which topics there are in which market."""

from __future__ import annotations

from collections.abc import Mapping

MARKETS = ("spot", "linear", "inverse", "option")

BOOK_DEPTHS: Mapping[str, tuple[str, ...]] = {
    "spot": ("50", "200", "1000", "rpi"),
    "linear": ("50", "200", "1000", "rpi"),
    "inverse": ("50", "200", "1000", "rpi"),
    "option": ("25", "100"),
}
"""Offered order books by market; the first is the default. Level 1 is the channel bbo."""
RPI_DEPTH = 50
"""Levels per side of `orderbook.rpi`."""

TICKER_CHANNELS: Mapping[str, tuple[str, ...]] = {
    "spot": ("ticker", "index_price"),
    "linear": ("ticker", "mark_price", "index_price", "funding_rate", "open_interest"),
    "inverse": ("ticker", "mark_price", "index_price", "funding_rate", "open_interest"),
    "option": ("ticker", "mark_price", "index_price", "open_interest"),
}
"""Our channels that all come with the one topic `tickers`; whoever wants one of them gets the others too."""

CHANNELS = (
    "trade",
    "book",
    "bbo",
    "ticker",
    "mark_price",
    "index_price",
    "funding_rate",
    "open_interest",
    "candle",
)

INTERVALS: Mapping[str, str] = {
    "1": "1m",
    "3": "3m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "120": "2h",
    "240": "4h",
    "360": "6h",
    "720": "12h",
    "D": "1d",
    "W": "1w",
    "M": "1M",
}
"""Our name of an interval by the venue's."""

MAX_SILENCE: Mapping[str, float] = {"bbo": 15.0, "candle": 180.0}
"""Seconds, where the venue promises anything: level 1 is repeated every 3 s, a candle at least every minute."""


def venue_interval(interval: str) -> str | None:
    """The venue's name of an interval given in either vocabulary; None if there is no such candle."""
    if interval in INTERVALS:
        return interval
    return next((venue for venue, ours in INTERVALS.items() if ours == interval), None)


def offered(market: str) -> tuple[str, ...]:
    """Our channels that a market has."""
    extra = () if market == "option" else ("bbo", "candle")
    wanted = {"trade", "book", *TICKER_CHANNELS[market], *extra}
    return tuple(channel for channel in CHANNELS if channel in wanted)
