"""Our channels in OKX's words: what is offered where, and the topics that bring it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from math import inf

from pipeline.exchanges.okx.topics import INTERVALS, VENUE_INTERVALS, topic
from pipeline.exchanges.venue import ChannelSpec, Subscription
from pipeline.model.events import Instrument

SPREAD, EVENTS = "spread", "events"
MARKETS = ("spot", "margin", "swap", "futures", "option", "index", SPREAD, EVENTS)
_TRADED = ("spot", "swap", "futures", "option")
_DERIVATIVES = ("swap", "futures", "option")

OFFERED: dict[str, tuple[str, ...]] = {
    "trade": (*_TRADED, SPREAD),
    "book": (*_TRADED, SPREAD),
    "bbo": (*_TRADED, SPREAD),
    "ticker": (*_TRADED, SPREAD),
    "candle": ("margin", *_TRADED, "index", SPREAD),
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
    "call_auction": _TRADED,
    "event_contract": (EVENTS,),
    "block_ticker": _TRADED,
    "struct_block_trade": MARKETS,
    "economic_calendar": MARKETS,
}
"""Markets by our channel. Spot and margin share one order book; margin has only what is its own: mark prices."""

BOOKS: dict[int | str | None, str] = {None: "books", 400: "books", 5: "books5", "rpi": "books-rpi"}
"""Channel by depth."""
GATED_BOOKS: dict[int | str | None, str] = {50: "books50-l2-tbt", "tbt": "books-l2-tbt"}
"""Books for logged-in accounts of a fee tier."""
SPREAD_BOOKS: dict[int | str | None, str] = {None: "sprd-books-l2-tbt", 400: "sprd-books-l2-tbt", 5: "sprd-books5"}
_RIVALS = {"books-l2-tbt": ("books", "books50-l2-tbt"), "books": ("books-l2-tbt",), "books50-l2-tbt": ("books-l2-tbt",)}
"""Books of one instrument that OKX does not send over one connection."""
BLOCK_TRADES = "public-block-trades"
VARIANTS = ("trades", "trades-all", BLOCK_TRADES)
"""Channels of trades; the first is the default."""
OPTION_VARIANTS = ("option-trades", BLOCK_TRADES)
_SPREAD_CHANNELS = {"trade": "sprd-public-trades", "bbo": "sprd-bbo-tbt", "ticker": "sprd-tickers"}
CANDLE_PREFIXES = {"trade": "candle", "mark": "mark-price-candle", "index": "index-candle"}
_CANDLE_MARKETS = {"trade": (*_TRADED, SPREAD), "mark": ("margin", *_DERIVATIVES), "index": ("index",)}
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
    "call_auction": "call-auction-details",
    "event_contract": "event-contract-markets",
    "block_ticker": "block-tickers",
    "struct_block_trade": "public-struc-block-trades",
    "economic_calendar": "economic-calendar",
}
_BY_MARKET = ("instruments", "liquidation-orders", "adl-warning", "event-contract-markets")
"""Channels over a whole market, whatever the instruments."""
_BY_TYPED_FAMILY = ("option-trades", "estimated-price")
_BY_VENUE = ("status", "public-struc-block-trades", "economic-calendar")
"""Channels that are the same whatever the market."""
_WITH_LOGIN = ("economic-calendar", *GATED_BOOKS.values())
_WITHOUT_INSTRUMENTS = (
    "instrument",
    "adl_alert",
    "system_status",
    "event_contract",
    "struct_block_trade",
    "economic_calendar",
)
"""Our channels that need no instruments: neither to be subscribed nor for the sizes that they bring."""
_PATTERN = "*?["
_BUSINESS = ("trades-all", BLOCK_TRADES, "block-tickers", "public-struc-block-trades", "economic-calendar")

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
    if _is_named(spec) and any(character in name for name in spec.instruments for character in _PATTERN):
        what = "spreads" if spec.market == SPREAD else "instruments before their auction as tradable"
        found.append(("instruments", f"okx does not list {what}: name each in full"))
    if spec.channel == "economic_calendar" and not spec.with_login:
        found.append(("channel", "okx sends economic-calendar only to logged-in accounts; give the entry an account"))
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
    is_business = channel in _BUSINESS or "candle" in channel or channel.startswith("sprd-")
    return "business" if is_business else "public"


def catalogue_markets(spec: ChannelSpec) -> tuple[str, ...]:
    """The spec's market, unless the channel has no use for its instruments or these are named in full."""
    return () if spec.channel in _WITHOUT_INSTRUMENTS or _is_named(spec) else (spec.market,)


def subscriptions(spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
    """The topics that bring a faultless `spec` for these instruments.

    What is subscribed by family or by market brings more than the instruments that match.
    """
    channel = venue_channel(spec)
    silence = spec.max_silence
    if silence is None:
        silence = SILENCE.get(spec.channel, inf) if spec.market != SPREAD else inf
    kind = spec.market.upper()
    families = (instrument.underlying for instrument in instruments if instrument.underlying)
    wanted: dict[str, str | None]
    if channel in _BY_VENUE:
        wanted = {topic(channel): None}
    elif channel in _BY_MARKET:
        wanted = {topic(channel, instType=kind): None}
    elif channel in _BY_TYPED_FAMILY:
        wanted = {topic(channel, instType=kind, instFamily=family): None for family in families}
    elif channel == "opt-summary":
        wanted = {topic(channel, instFamily=family): None for family in families}
    else:
        names = spec.instruments if _is_named(spec) else (each.origin.instrument for each in instruments)
        member = "sprdId" if spec.market == SPREAD else "instId"
        wanted = {topic(channel, **{member: name}): name for name in names if name}
    return [
        Subscription(
            text,
            spec.channel,
            channel,
            spec.market,
            name,
            endpoint_of(channel),
            silence,
            channel in _WITH_LOGIN,
            _rivals(channel, name) if spec.with_login and name else frozenset(),
        )
        for text, name in wanted.items()
    ]


def venue_channel(spec: ChannelSpec) -> str:
    """OKX's channel for a faultless `spec`."""
    if spec.channel == "book":
        return _books(spec)[spec.depth]
    if spec.channel == "candle":
        interval = str(spec.interval)
        prefix = "sprd-candle" if spec.market == SPREAD else CANDLE_PREFIXES[spec.price_type]
        return prefix + INTERVALS.get(interval, interval)
    if spec.market == SPREAD and spec.channel in _SPREAD_CHANNELS:
        return _SPREAD_CHANNELS[spec.channel]
    if spec.channel == "trade":
        return spec.variant or _variants(spec.market)[0]
    return _SIMPLE[spec.channel]


def _is_named(spec: ChannelSpec) -> bool:
    """Whether instruments have to be named in full: spreads are not listed, and auctions are before the trading."""
    return spec.channel not in _WITHOUT_INSTRUMENTS and (spec.market == SPREAD or spec.channel == "call_auction")


def _rivals(channel: str, instrument: str) -> frozenset[str]:
    return frozenset(topic(rival, instId=instrument) for rival in _RIVALS.get(channel, ()))


def _books(spec: ChannelSpec) -> dict[int | str | None, str]:
    if spec.market == SPREAD:
        return SPREAD_BOOKS
    return BOOKS | GATED_BOOKS if spec.with_login else BOOKS


def _depth_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    known = _books(spec)
    if spec.depth in known:
        return []
    depths = ", ".join(str(depth) for depth in known if depth is not None)
    if spec.market != SPREAD and spec.depth in GATED_BOOKS:
        why = f"okx sends {GATED_BOOKS[spec.depth]} only to logged-in accounts of fee tier VIP4"
        return [("depth", f"{why}; without a login there are {depths}; or give the entry an account")]
    return [("depth", f"okx has no book of depth {spec.depth!r}; there are {depths}")]


def _variant_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    offered = _variants(spec.market)
    if spec.variant is not None and spec.variant not in offered:
        return [("variant", unknown(f"trade channel of market {spec.market}", spec.variant, offered))]
    return []


def _variants(market: str) -> tuple[str, ...]:
    if market == SPREAD:
        return (_SPREAD_CHANNELS["trade"],)
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
    venue_names -= {"1s"} if spec.price_type != "trade" or spec.market == SPREAD else set()
    names = [ours for ours, theirs in INTERVALS.items() if theirs in venue_names]
    if spec.interval is None:
        return [("interval", f"missing; {offered(names)}")]
    if INTERVALS.get(spec.interval, spec.interval) not in venue_names:
        return [("interval", unknown("interval", spec.interval, names))]
    return []


def offered(names: Iterable[str]) -> str:
    """What there is, for whoever has to choose."""
    return f"there is {', '.join(names)}"


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """That there is no such thing, and what was perhaps meant."""
    names = list(known)
    guess = get_close_matches(name, names, 1)
    hint = f"did you mean {guess[0]!r}?" if guess else offered(names)
    return f"unknown {what} {name!r}; {hint}"
