"""Names: the topic of a subscription, the market of an instrument, the intervals of candles."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from pipeline.exchanges.okx.wire import Arg, as_text
from pipeline.model.events import Micros

_encode = msgspec.json.Encoder().encode
_DATED = re.compile(r"[0-9]{6}", re.ASCII)
_BAR = re.compile(r"([0-9]+)([smHDWMY])(utc)?", re.ASCII)

INTERVALS = {
    "1s": "1s",
    "1m": "1m",
    "3m": "3m",
    "5m": "5m",
    "15m": "15m",
    "30m": "30m",
    "1h": "1H",
    "2h": "2H",
    "4h": "4H",
    "6h": "6Hutc",
    "12h": "12Hutc",
    "1d": "1Dutc",
    "2d": "2Dutc",
    "3d": "3Dutc",
    "5d": "5Dutc",
    "1w": "1Wutc",
    "1M": "1Mutc",
    "3M": "3Mutc",
}
"""Our interval -> the venue's. From 6 hours on the plain names open at UTC+8 boundaries, so ours mean the UTC ones."""

VENUE_INTERVALS = frozenset(INTERVALS.values()) | {"6H", "12H", "1D", "2D", "3D", "5D", "1W", "1Yutc"}
"""Names that are taken verbatim. "1M" and "3M" are missing here: they are ours already and mean UTC months."""


def topic_of(arg: Arg) -> str:
    """The compact JSON of `arg` in the key order that the venue uses."""
    return _encode(arg).decode()


def topic(channel: str, **names: str) -> str:
    """As `topic_of`, from the names of an `Arg`."""
    return topic_of(Arg(channel, **names))


def read_arg(value: Any) -> Arg:
    """The `arg` of a decoded message, whatever its key order and further keys. Raises `msgspec.ValidationError`."""
    return msgspec.convert(as_text(value), Arg)


@lru_cache(maxsize=8192)
def echo_of(topic: str) -> str:
    """A topic as OKX names it in its answers and pushes: without parameters such as `extraParams`."""
    return topic_of(read_arg(msgspec.json.decode(topic)))


def market_of(channel: str, instrument: str) -> str:
    """The market of an instrument by its name, for pushes that do not tell its type."""
    if channel.startswith("index-"):
        return "index"
    if channel.startswith("sprd-"):
        return "spread"
    parts = instrument.split("-")
    if parts[-1] == "SWAP":
        return "swap"
    if len(parts) == 5 or parts[-1] in ("C", "P"):
        return "option"
    if len(parts) == 3 and _DATED.fullmatch(parts[2]):
        return "futures"
    if len(parts) == 2:
        # Mark prices exist for margin trading, and not for spot, whose instruments have the same names.
        return "margin" if channel.startswith("mark-price") else "spot"
    return "events"


def interval_of(bar: str) -> str:
    """Our name of a venue interval ("4H" -> "4h", "1Dutc" -> "1d"); an unknown one is handed through."""
    match = _BAR.fullmatch(bar)
    if match is None:
        return bar
    count, unit, _ = match.groups()
    return count + (unit if unit == "M" else unit.lower())


def micros(text: str) -> Micros:
    """Milliseconds as text to microseconds. Raises `ValueError`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise ValueError(f"{text[:40]!r} is no time in milliseconds")
    return Micros(int(text) * 1000)
