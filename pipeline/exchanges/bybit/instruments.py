"""Bybit's catalogue: `GET /v5/market/instruments-info`, for spreads `/v5/spread/instrument`, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from pipeline.exchanges.bybit import wire
from pipeline.exchanges.bybit.accounts import VENUE
from pipeline.exchanges.bybit.answers import read_answer
from pipeline.exchanges.bybit.errors import Unlisted
from pipeline.exchanges.bybit.topics import MARKETS
from pipeline.exchanges.symbols import cross_symbol
from pipeline.exchanges.venue import RestPage
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage
from pipeline.model.events import BASE, QUOTE, Instrument, Micros, Origin

OPTION_BASES = ("BTC", "ETH", "SOL")
"""Coins known to have options: the listing must be asked for coin by coin, and no endpoint names the coins."""
LIKELY_OPTION_BASES = ("XRP", "DOGE", "MNT", "BNB", "HYPE")
"""Coins that are asked for as well, and may have none."""
CONNECTION = "bybit.rest"

_PATH = "/v5/market/instruments-info"
_SPREAD_PATH = "/v5/spread/instrument"
_CURSOR = "&cursor="


class Row(msgspec.Struct, rename="camel"):
    """One instrument; what a market does not have is absent."""

    symbol: str
    status: str
    symbol_id: int | None = None
    contract_type: str | None = None
    options_type: str | None = None
    base_coin: str | None = None
    quote_coin: str | None = None
    settle_coin: str | None = None
    launch_time: str | None = None
    delivery_time: str | None = None
    funding_interval: int | None = None
    price_filter: Mapping[str, Any] | None = None
    lot_size_filter: Mapping[str, Any] | None = None
    leverage_filter: Mapping[str, Any] | None = None
    pre_listing_info: Mapping[str, Any] | None = None
    # Spreads have no filters but these, and name their legs.
    tick_size: str | None = None
    min_price: str | None = None
    max_price: str | None = None
    lot_size: str | None = None
    min_size: str | None = None
    max_size: str | None = None
    legs: list[Any] | None = None


class Listing(msgspec.Struct, rename="camel"):
    """`result` of an answer."""

    rows: list[Row] = msgspec.field(name="list")
    category: str | None = None
    next_page_cursor: str | None = None


class Result(msgspec.Struct):
    """As much of an answer as paths in texts of errors shall name."""

    result: Listing


def first_pages(market: str) -> list[RestPage]:
    """Where the listing of a market starts.

    The default status filter of `linear` leaves out perpetuals in pre-market trading; spot knows no pages.
    """
    if market == "spread":
        return [RestPage(f"{_SPREAD_PATH}?limit=500")]
    base = f"{_PATH}?category={market}"
    if market == "spot":
        return [RestPage(base)]
    if market == "option":
        return [RestPage(f"{base}&baseCoin={coin}&limit=1000") for coin in (*OPTION_BASES, *LIKELY_OPTION_BASES)]
    pages = [RestPage(f"{base}&limit=1000")]
    return [*pages, RestPage(f"{base}&status=PreLaunch&limit=1000")] if market == "linear" else pages


def parse_page(market: str, page: RestPage, body: bytes, receive_time: int) -> tuple[list[Instrument], RestPage | None]:
    """One page's instruments of this market, and the next page; raises as `Venue.parse_instruments` says."""
    try:
        listing = _listing(body)
    except Unlisted:
        if any(f"baseCoin={coin}&" in page.path for coin in LIKELY_OPTION_BASES):
            return [], None
        raise
    instruments = [
        _instrument(row, market, receive_time) for row in listing.rows if _market(row, market) in {None, market}
    ]
    cursor = listing.next_page_cursor
    if not cursor:
        return instruments, None
    # The token comes percent-encoded and must arrive so: quoting leaves its percent signs alone.
    following = RestPage(f"{page.path.partition(_CURSOR)[0]}{_CURSOR}{quote(cursor, safe='%')}")
    if following == page:
        raise BadMessage(f"{VENUE} {page.path}: the answer names itself as its next page")
    return instruments, following


def read_saved(body: bytes, receive_time: int) -> list[Instrument]:
    """Instruments of a saved answer, each row telling its market where the answer does not."""
    listing = _listing(body)
    category = listing.category if listing.category in MARKETS else None
    return [_instrument(row, _market(row, category) or "spot", receive_time) for row in listing.rows]


def _listing(body: bytes) -> Listing:
    answer = read_answer("instruments", body)
    try:
        return wire.loosely({"result": answer.result}, Result).result
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadMessage(f"{VENUE} instruments: {error}") from error


def _market(row: Row, default: str | None) -> str | None:
    """The market a row belongs to: with a base coin, linear and inverse listings hold each other's contracts."""
    if row.legs is not None:
        return "spread"
    kind = row.contract_type or ""
    if kind.startswith("Linear"):
        return "linear"
    if kind.startswith("Inverse"):
        return "inverse"
    return "option" if row.options_type else default


def _instrument(row: Row, market: str, receive_time: int) -> Instrument:
    try:
        kind = _kind(row, market)
        expiry = _micros(row.delivery_time)
        listed = _micros(row.launch_time)
    except ValueError as error:
        raise BadMessage(f"{VENUE} instrument {row.symbol}: {error}") from error
    strike, option_type = _strike(row.symbol, market), (row.options_type or "").lower() or None
    symbol = cross_symbol(kind, row.base_coin, row.quote_coin, expiry, strike, option_type)
    price, lot, leverage = row.price_filter or {}, row.lot_size_filter or {}, row.leverage_filter or {}
    inverse = market == "inverse"
    return Instrument(
        Origin(VENUE, market, row.symbol, symbol, None, CONNECTION),
        None,
        Micros(receive_time),
        None,
        kind=kind,
        state=row.status,
        is_tradable=_is_tradable(row),
        base=row.base_coin or None,
        quote=row.quote_coin or None,
        settle=row.settle_coin or None,
        size_unit=QUOTE if inverse else BASE,
        contract_value=DecimalText("1") if inverse else None,
        contract_currency=(row.quote_coin or None) if inverse else None,
        is_inverse=inverse,
        tick_size=_text(price, "tickSize") or _given(row.tick_size),
        lot_size=_text(lot, "qtyStep", "basePrecision") or _given(row.lot_size),
        min_size=_text(lot, "minOrderQty") or _given(row.min_size),
        max_limit_size=_text(lot, "maxLimitOrderQty", "maxOrderQty") or _given(row.max_size),
        max_market_size=_text(lot, "maxMktOrderQty", "maxMarketOrderQty"),
        min_value=_text(lot, "minNotionalValue", "minOrderAmt"),
        min_price=_text(price, "minPrice") or _given(row.min_price),
        max_price=_text(price, "maxPrice") or _given(row.max_price),
        listing_time=listed,
        expiry_time=expiry,
        strike=strike,
        option_type=option_type,
        underlying=row.base_coin if market == "option" else None,
        funding_interval_minutes=row.funding_interval or None,
        max_leverage=_text(leverage, "maxLeverage"),
        instrument_code=row.symbol_id,
    )


def _kind(row: Row, market: str) -> str:
    if market in {"spot", "option", "spread"}:
        return market
    kind = row.contract_type or ""
    if kind.endswith("Perpetual"):
        return "perpetual"
    if kind.endswith("Futures"):
        return "future"
    return "future" if _micros(row.delivery_time) else "perpetual"


def _is_tradable(row: Row) -> bool:
    """Pre-market contracts are silent until their auction has ended."""
    if row.status == "PreLaunch":
        return (row.pre_listing_info or {}).get("curAuctionPhase") == "ContinuousTrading"
    return row.status == "Trading"


def _strike(symbol: str, market: str) -> DecimalText | None:
    """The third part of an option's symbol; no field holds it."""
    parts = symbol.split("-")
    return DecimalText(parts[2]) if market == "option" and len(parts) >= 4 else None


def _micros(millis: str | None) -> Micros | None:
    """Raises `ValueError`; "0" and "" are none."""
    value = int(millis or "0")
    return Micros(value * 1000) if value else None


def _given(text: str | None) -> DecimalText | None:
    return DecimalText(text) if text else None


def _text(values: Mapping[str, Any], *names: str) -> DecimalText | None:
    """The first of these that has a value."""
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and value:
            return DecimalText(value)
    return None
