"""The catalogue: REST listings and the rows of the `instruments` channel."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlsplit

import attrs
import msgspec

from pipeline.exchanges.okx import answers
from pipeline.exchanges.okx.streams import COIN_MARKETS, VENUE, Stream
from pipeline.exchanges.okx.topics import micros
from pipeline.exchanges.okx.wire import UNREADABLE, IndexRow, InstrumentRow, Instruments, decode_leniently
from pipeline.exchanges.symbols import cross_symbol
from pipeline.exchanges.venue import RestPage
from pipeline.model.decimals import DecimalText, exact_product
from pipeline.model.errors import BadMessage, Refused
from pipeline.model.events import BASE, CONTRACT, Event, Instrument, Micros, Origin

LISTED = ("spot", "margin", "swap", "futures")
"""Markets that one page lists."""
INDEX_QUOTES = ("USDT", "USD", "USDC", "BTC")
REST_CONNECTION = "okx.rest"
"""What instruments from REST say of the connection that brought them."""

_INSTRUMENTS = "/api/v5/public/instruments"
_UNDERLYING = "/api/v5/public/underlying"
_INDEX_TICKERS = "/api/v5/market/index-tickers"
_KINDS = {"SPOT": "spot", "MARGIN": "spot", "SWAP": "perpetual", "FUTURES": "future", "OPTION": "option"}
_TRADABLE = "live"
_OPTION_TYPES = {"C": "call", "P": "put"}


_UNKNOWN_INSTRUMENT = "51001"
_NO_ROWS = b'{"code":"0","data":[]}'


@attrs.frozen
class UnderlyingsPage(RestPage):
    """Swaps, which tell what families there are beside those that go by the name of their underlying."""

    underlyings: tuple[str, ...] = ()
    """Of options."""


@attrs.frozen
class FamilyPage(RestPage):
    """The options of one family; OKX lists them only one by one."""

    families: tuple[str, ...] = ()
    """Families still to be asked for after this one."""
    guesses: frozenset[str] = frozenset()
    """Families of which it is not known that they have options."""


_decode_names = msgspec.json.Decoder(list[str | list[str]]).decode


def first_pages(market: str) -> list[RestPage]:
    """The first page of each listing of a market."""
    if market in LISTED:
        return [RestPage(f"{_INSTRUMENTS}?instType={market.upper()}")]
    if market == "option":
        return [RestPage(f"{_UNDERLYING}?instType=OPTION")]
    if market == "index":
        return [RestPage(f"{_INDEX_TICKERS}?quoteCcy={currency}") for currency in INDEX_QUOTES]
    return []


def parse_page(
    market: str, page: RestPage, body: bytes, receive_time: Micros
) -> tuple[list[Instrument], RestPage | None]:
    """One page's instruments of `market`, and the page to ask for next.

    Raises `BadMessage` for a body of another form, `Retryable` or `Refused` for error answers.
    """
    what = f"{VENUE} {urlsplit(page.path).path}"
    try:
        data = answers.data(body, what, nothing=(_UNKNOWN_INSTRUMENT,) if market == "index" else ())
    except Refused:
        if page.if_refused is None:
            raise
        data = answers.data(page.if_refused, what)
    if page.path.startswith(_UNDERLYING):
        return [], _underlyings_page(_names(data, what))
    found = _entries(data, what, receive_time)
    if isinstance(page, UnderlyingsPage):
        return [], _first_family(page.underlyings, found)
    following = _family_page(page.families, page.guesses) if isinstance(page, FamilyPage) else None
    return [entry for entry in found if entry.origin.market == market], following


def read_answer(body: bytes, receive_time: Micros) -> list[Instrument]:
    """Instruments of any saved REST answer. Raises as `parse_page`."""
    what = f"{VENUE} instruments"
    return _entries(answers.data(body, what), what, receive_time)


def instruments(stream: Stream, push: Instruments, receive_time: Micros) -> list[Event]:
    """Changes of the catalogue, pushed as whole rows."""
    connection = stream.listings.connection
    return [_instrument(row, connection, receive_time) for row in push.data]


def _names(data: bytes, what: str) -> tuple[str, ...]:
    try:
        rows = _decode_names(data)
    except UNREADABLE as error:
        raise BadMessage(f"{what}: {error}") from None
    names = [name for row in rows for name in ([row] if isinstance(row, str) else row)]
    return tuple(dict.fromkeys(names))


def _underlyings_page(underlyings: tuple[str, ...]) -> RestPage | None:
    return UnderlyingsPage(f"{_INSTRUMENTS}?instType=SWAP", underlyings=underlyings) if underlyings else None


def _first_family(underlyings: tuple[str, ...], swaps: list[Instrument]) -> RestPage | None:
    """The families of these underlyings: BTC-USD is one, and has another by the name of BTC-USD_UM."""
    guesses = dict.fromkeys(
        swap.underlying
        for swap in swaps
        if swap.underlying and f"{swap.base}-{swap.quote}" in underlyings and swap.underlying not in underlyings
    )
    return _family_page((*underlyings, *guesses), frozenset(guesses))


def _family_page(families: tuple[str, ...], guesses: frozenset[str]) -> RestPage | None:
    if not families:
        return None
    path = f"{_INSTRUMENTS}?instType=OPTION&instFamily={quote(families[0], safe='')}"
    if_refused = _NO_ROWS if families[0] in guesses else None
    return FamilyPage(path, if_refused, families=families[1:], guesses=guesses)


def _entries(data: bytes, what: str, receive_time: Micros) -> list[Instrument]:
    try:
        rows = _rows(data)
        return [
            _index(row, receive_time) if isinstance(row, IndexRow) else _instrument(row, REST_CONNECTION, receive_time)
            for row in rows
        ]
    except (*UNREADABLE, ArithmeticError, ValueError) as error:
        raise BadMessage(f"{what}: {error}") from None


def _rows(data: bytes) -> list[InstrumentRow] | list[IndexRow]:
    """Index listings are told by their rows, which name no type but a price."""
    try:
        found: list[InstrumentRow] = decode_leniently(data, list[InstrumentRow])
        return found
    except msgspec.ValidationError:
        with suppress(msgspec.ValidationError):
            indices: list[IndexRow] = decode_leniently(data, list[IndexRow])
            return indices
        raise


def _instrument(row: InstrumentRow, connection: str, receive_time: Micros) -> Instrument:
    market = row.instType.lower()
    kind = _KINDS.get(row.instType, market)
    in_coin = market in COIN_MARKETS
    pair = row.uly or row.instFamily or row.instId
    base, quote_currency = (row.baseCcy, row.quoteCcy) if row.baseCcy else _split(pair)
    option_type = _OPTION_TYPES.get(row.optType)
    expiry = _micros(row.expTime)
    # Two families may share a pair and differ in what they settle in: BTC-USD and BTC-USD_UM.
    named_base, named_quote = _split(row.instFamily) if row.instFamily and not in_coin else (base, quote_currency)
    symbol = cross_symbol(kind, named_base, named_quote, expiry, row.stk or None, option_type)
    return Instrument(
        Origin(VENUE, market, row.instId, symbol, None, connection),
        None,
        receive_time,
        None,
        kind=kind,
        state=row.state,
        is_tradable=row.state == _TRADABLE,
        base=base or None,
        quote=quote_currency or None,
        settle=row.settleCcy or None,
        size_unit=BASE if in_coin else CONTRACT,
        contract_value=_face(row),
        contract_currency=row.ctValCcy or None,
        is_inverse=row.ctType == "inverse",
        tick_size=_text(row.tickSz),
        lot_size=_text(row.lotSz),
        min_size=_text(row.minSz),
        max_limit_size=_text(row.maxLmtSz),
        # For spot it is an amount of USDT, not a size.
        max_market_size=None if in_coin else _text(row.maxMktSz),
        listing_time=_micros(row.listTime),
        expiry_time=expiry,
        strike=_text(row.stk),
        option_type=option_type,
        underlying=row.instFamily or row.uly or None,
        max_leverage=_text(row.lever),
        instrument_code=row.instIdCode,
    )


def _index(row: IndexRow, receive_time: Micros) -> Instrument:
    base, quote_currency = _split(row.instId)
    return Instrument(
        Origin(VENUE, "index", row.instId, None, None, REST_CONNECTION),
        None,
        receive_time,
        None,
        kind="index",
        state=_TRADABLE,
        is_tradable=True,
        base=base or None,
        quote=quote_currency or None,
        settle=None,
        size_unit=BASE,
    )


def _face(row: InstrumentRow) -> DecimalText | None:
    return exact_product(row.ctVal, row.ctMult or "1") if row.ctVal else None


def _split(pair: str) -> tuple[str, str]:
    parts = pair.split("-")
    return (parts[0], parts[1]) if len(parts) > 1 else ("", "")


def _text(value: str) -> DecimalText | None:
    return DecimalText(value) if value else None


def _micros(text: str) -> Micros | None:
    return micros(text) if text else None
