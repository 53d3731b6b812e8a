"""What the venue calls its channels and intervals, which topics there are in which market, and how they are built."""

from __future__ import annotations

from collections.abc import Mapping

MARKETS = ("spot", "linear", "inverse", "option", "spread")

BOOK_DEPTHS: Mapping[str, tuple[str, ...]] = {
    "spot": ("50", "200", "1000", "rpi", "full"),
    "linear": ("50", "200", "1000", "rpi", "full"),
    "inverse": ("50", "200", "1000", "rpi", "full"),
    "option": ("25", "100"),
    "spread": ("25",),
}
"""Offered order books by market; the first is the default. Level 1 is the channel bbo."""
FULL = "full"
"""The depth whose stream sends updates only; the book starts from REST."""
RPI_DEPTH = 50
"""Levels per side of `orderbook.rpi`."""

TICKER_CHANNELS: Mapping[str, tuple[str, ...]] = {
    "spot": ("ticker", "index_price"),
    "linear": ("ticker", "mark_price", "index_price", "funding_rate", "open_interest"),
    "inverse": ("ticker", "mark_price", "index_price", "funding_rate", "open_interest"),
    "option": ("ticker", "option_summary", "mark_price", "index_price", "open_interest"),
    "spread": ("ticker",),
}
"""Our channels that all come with the one topic `tickers`; whoever wants one of them gets the others too."""

POOL_CHANNELS: Mapping[str, str] = {"insurance_fund": "insurance", "adl_alert": "adlAlert"}
"""The venue's channel of ours that is subscribed by insurance pool instead of instrument."""

_OTHER_CHANNELS: Mapping[str, tuple[str, ...]] = {
    "spot": ("bbo", "candle", "price_limit"),
    "linear": ("bbo", "candle", "price_limit", "liquidation", *POOL_CHANNELS),
    "inverse": ("bbo", "candle", "price_limit", "liquidation", *POOL_CHANNELS),
    "option": (),
    "spread": (),
}

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
    "option_summary",
    "liquidation",
    "price_limit",
    *POOL_CHANNELS,
    "system_status",
    "rfq_trade",
    "earn",
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


WITHOUT_INSTRUMENT: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "system_status": ("status", ("system.status",)),
    "rfq_trade": ("rfq", ("rfq.open.public.trades",)),
    "earn": (
        "fp",
        tuple(f"earn.{each}.offers" for each in ("dualassets", "smartleverage", "doublewin", "discountbuy")),
    ),
}
"""Our channels that are the same in every market, with their endpoint and their topics."""


def offered(market: str) -> tuple[str, ...]:
    """Our channels that a market has."""
    wanted = {"trade", "book", *WITHOUT_INSTRUMENT, *TICKER_CHANNELS[market], *_OTHER_CHANNELS[market]}
    return tuple(channel for channel in CHANNELS if channel in wanted)


_PAIRS = frozenset({"orderbook.rpi", "system.status", "execution.fast", "spread.order", "spread.execution"})
"""Families that are named by the first two parts of a topic, not by the first alone."""
PASSED_ON: Mapping[str, tuple[str, ...]] = {
    "spot": ("lt", "tickers_lt", "kline_lt"),
    "linear": ("liquidation",),
    "inverse": ("liquidation",),
    "rfq": ("rfq",),
    "fp": ("earn",),
    "private": ("strategy", "rfq", "dcp"),
}
"""Families that are known, but have no kind of event: by stream."""
_RAW_PREFIXES = {"liquidation": 1, "lt": 1, "tickers_lt": 1, "kline_lt": 2}
"""Topics of one instrument without a kind of event: how many parts stand before the instrument."""


def family_of(topic: str) -> str:
    """What decides about the form of a topic's messages."""
    first, _, others = topic.partition(".")
    pair = f"{first}.{others.partition('.')[0]}"
    return pair if pair in _PAIRS else first


def raw_channel(topic: str) -> tuple[str, str | None]:
    """Channel and instrument of a topic that has no kind of event."""
    before = _RAW_PREFIXES.get(family_of(topic))
    parts = topic.split(".", before) if before is not None else []
    if before is None or len(parts) <= before or not all(parts):
        return topic, None
    return ".".join(parts[:-1]), parts[-1]


def instrument_of(topic: str, family: str, dots: int) -> str:
    """What follows the given number of dots; symbols themselves are kept whole."""
    parts = topic.split(".", dots)
    if parts[0] != family:  # the first bytes can be alike: tickers_lt is no ticker
        raise ValueError(f"is no topic of {family}")
    if len(parts) <= dots or not all(parts):
        raise ValueError("the topic names no instrument")
    return parts[dots]
