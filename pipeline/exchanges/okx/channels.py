"""Our channels in OKX's words: what is offered where, and the topics that bring it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from math import inf

from pipeline.exchanges.okx.topics import INTERVALS, VENUE_INTERVALS, topic
from pipeline.exchanges.venue import ChannelSpec, Subscription
from pipeline.model.events import Instrument

MARKETS = ("spot", "margin", "swap", "futures", "option", "index")
_TRADED = ("spot", "swap", "futures", "option")
_DERIVATIVES = ("swap", "futures", "option")

OFFERED: dict[str, tuple[str, ...]] = {
    "trade": _TRADED,
    "book": _TRADED,
    "bbo": _TRADED,
    "ticker": _TRADED,
    "candle": MARKETS,
    "mark_price": ("margin", *_DERIVATIVES),
    "index_price": ("index",),
    "funding_rate": ("swap", "futures"),
    "open_interest": _DERIVATIVES,
    "instrument": ("spot", "margin", *_DERIVATIVES),
    "price_limit": _TRADED,
    "liquidation": ("margin", *_DERIVATIVES),
    "estimated_price": _DERIVATIVES,
    "option_summary": ("option",),
    "adl_alert": _DERIVATIVES,
    "system_status": MARKETS,
}
"""Markets by our channel. Spot and margin share one order book; margin has only what is its own: mark prices."""

BOOKS: dict[int | str | None, str] = {None: "books", 400: "books", 5: "books5", "rpi": "books-rpi"}
"""Channel by depth."""
GATED_BOOKS: dict[int | str | None, str] = {50: "books50-l2-tbt", "tbt": "books-l2-tbt"}
"""Books for logged-in accounts of a fee tier."""
BLOCK_TRADES = "public-block-trades"
VARIANTS = ("trades", "trades-all", BLOCK_TRADES)
"""Channels of trades; the first is the default."""
OPTION_VARIANTS = ("option-trades", BLOCK_TRADES)
CANDLE_PREFIXES = {"trade": "candle", "mark": "mark-price-candle", "index": "index-candle"}
_CANDLE_MARKETS = {"trade": _TRADED, "mark": ("margin", *_DERIVATIVES), "index": ("index",)}
_SIMPLE = {
    "bbo": "bbo-tbt",
    "ticker": "tickers",
    "mark_price": "mark-price",
    "index_price": "index-tickers",
    "funding_rate": "funding-rate",
    "open_interest": "open-interest",
    "instrument": "instruments",
    "price_limit": "price-limit",
    "liquidation": "liquidation-orders",
    "estimated_price": "estimated-price",
    "option_summary": "opt-summary",
    "adl_alert": "adl-warning",
    "system_status": "status",
}
_BY_MARKET = ("instruments", "liquidation-orders", "adl-warning")
"""Channels over a whole market, whatever the instruments."""
_BY_TYPED_FAMILY = ("option-trades", "estimated-price")
BY_VENUE = "status"
WITHOUT_CATALOGUE = ("instrument", "adl_alert", "system_status")
"""Our channels that need no instruments: neither to be subscribed nor for the sizes that they bring."""

SILENCE = {
    # A keep-alive or the last state again after about 60 s without changes.
    "book": 90.0,
    "bbo": 90.0,
    # Every 10 s, once a minute, and every 30 to 90 s, changed or not.
    "mark_price": 30.0,
    "index_price": 150.0,
    "funding_rate": 240.0,
}
"""Seconds without data that break what OKX promises; it promises nothing for the other channels."""

_OWN_FIELDS = (("depth", "book"), ("interval", "candle"), ("variant", "trade"))


def problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    """What is wrong with a wanted channel, as (field, why)."""
    if spec.channel not in OFFERED:
        return [("channel", unknown("channel", spec.channel, OFFERED))]
    if spec.market not in MARKETS:
        return [("market", unknown("market", spec.market, MARKETS))]
    if spec.market not in OFFERED[spec.channel]:
        return [("channel", f"okx has no {spec.channel} in market {spec.market}; {offered(OFFERED[spec.channel])}")]
    found = [
        (field, f"only channel {channel} has a choice of {field}")
        for field, channel in _OWN_FIELDS
        if getattr(spec, field) is not None and spec.channel != channel
    ]
    if spec.channel == "book":
        found += _depth_problems(spec)
    elif spec.channel == "trade":
        found += _variant_problems(spec)
    if spec.channel == "candle":
        found += _candle_problems(spec)
    elif spec.price_type != "trade":
        found.append(("price_type", "only channel candle has a choice of price_type"))
    if spec.max_silence is not None and not spec.max_silence > 0:
        found.append(("max_silence", "must be above 0"))
    return found


def endpoint_of(channel: str) -> str:
    """The WebSocket path that serves a venue channel."""
    return "business" if channel in ("trades-all", BLOCK_TRADES) or "candle" in channel else "public"


def subscriptions(spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
    """The topics that bring a faultless `spec` for these instruments.

    What is subscribed by family or by market brings more than the instruments that match.
    """
    channel = venue_channel(spec)
    silence = SILENCE.get(spec.channel, inf) if spec.max_silence is None else spec.max_silence
    kind = spec.market.upper()
    families = (instrument.underlying for instrument in instruments if instrument.underlying)
    wanted: dict[str, str | None]
    if channel == BY_VENUE:
        wanted = {topic(channel): None}
    elif channel in _BY_MARKET:
        wanted = {topic(channel, instType=kind): None}
    elif channel in _BY_TYPED_FAMILY:
        wanted = {topic(channel, instType=kind, instFamily=family): None for family in families}
    elif channel == "opt-summary":
        wanted = {topic(channel, instFamily=family): None for family in families}
    else:
        names = (instrument.origin.instrument for instrument in instruments)
        wanted = {topic(channel, instId=name): name for name in names if name}
    return [
        Subscription(text, spec.channel, channel, spec.market, name, endpoint_of(channel), silence)
        for text, name in wanted.items()
    ]


def venue_channel(spec: ChannelSpec) -> str:
    """OKX's channel for a faultless `spec`."""
    if spec.channel == "book":
        return BOOKS[spec.depth]
    if spec.channel == "trade":
        return spec.variant or _variants(spec.market)[0]
    if spec.channel == "candle":
        interval = str(spec.interval)
        return CANDLE_PREFIXES[spec.price_type] + INTERVALS.get(interval, interval)
    return _SIMPLE[spec.channel]


def _depth_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    if spec.depth in GATED_BOOKS:
        why = f"okx sends {GATED_BOOKS[spec.depth]} only to logged-in accounts of fee tier VIP4"
        return [("depth", f"{why}; without a login there are {_depths()}")]
    if spec.depth not in BOOKS:
        return [("depth", f"okx has no book of depth {spec.depth!r}; there are {_depths()}")]
    return []


def _variant_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    offered = _variants(spec.market)
    if spec.variant is not None and spec.variant not in offered:
        return [("variant", unknown(f"trade channel of market {spec.market}", spec.variant, offered))]
    return []


def _variants(market: str) -> tuple[str, ...]:
    return OPTION_VARIANTS if market == "option" else VARIANTS


def _candle_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    if spec.price_type not in CANDLE_PREFIXES:
        return [("price_type", unknown("price_type", spec.price_type, CANDLE_PREFIXES))]
    markets = _CANDLE_MARKETS[spec.price_type]
    if spec.market not in markets:
        types = [name for name, where in _CANDLE_MARKETS.items() if spec.market in where]
        why = f"okx has no {spec.price_type} candles in market {spec.market}; {offered(types)}"
        return [("price_type", why)]
    venue_names = VENUE_INTERVALS - ({"1Yutc"} if spec.price_type != "mark" else set())
    venue_names -= {"1s"} if spec.price_type != "trade" else set()
    names = [ours for ours, theirs in INTERVALS.items() if theirs in venue_names]
    if spec.interval is None:
        return [("interval", f"missing; {offered(names)}")]
    if INTERVALS.get(spec.interval, spec.interval) not in venue_names:
        return [("interval", unknown("interval", spec.interval, names))]
    return []


def _depths() -> str:
    return ", ".join(str(depth) for depth in BOOKS if depth is not None)


def offered(names: Iterable[str]) -> str:
    """What there is, for whoever has to choose."""
    return f"there is {', '.join(names)}"


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """That there is no such thing, and what was perhaps meant."""
    names = list(known)
    guess = get_close_matches(name, names, 1)
    hint = f"did you mean {guess[0]!r}?" if guess else offered(names)
    return f"unknown {what} {name!r}; {hint}"
