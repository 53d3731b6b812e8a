"""What OKX sends, as types: only the fields that are published, read by name in any order.

Decoders are not strict: OKX writes most numbers as text ("1597026383085"), and the fields that are counters or
times here take both. Prices and sizes stay text. A message that deviates (a number where text is usual, null, or
an empty string in a field that has a default) is decoded a second time by `decode_leniently`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

Text = Annotated[str, Meta(min_length=1)]
Millis = Annotated[int, Meta(ge=0, le=9_223_372_036_854_775)]
"""Milliseconds since 1970 UTC whose microseconds fit 64 bits."""
Long = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
BookRow = Annotated[tuple[str, ...], Meta(min_length=4)]
"""price, quantity, deprecated or (books-rpi) the quantity without RPI, order count."""

SpreadRow = Annotated[tuple[str, ...], Meta(min_length=3)]
"""price, quantity, order count."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bad bytes: no JSON, no UTF-8, another type, too deeply nested."""


class Envelope(Struct, gc=False):
    """The top level of any message; members are left encoded, absent ones are empty."""

    arg: Raw = Raw()
    event: Raw = Raw()
    op: Raw = Raw()


class Arg(Struct, gc=False, frozen=True, omit_defaults=True):
    """What names a subscription; encoded in this order of keys it is our topic."""

    channel: Text
    instType: str = ""
    instFamily: str = ""
    instId: str = ""
    sprdId: str = ""
    ccy: str = ""
    algoId: str = ""


class TradeRow(Struct, gc=False):
    """`trades`, `trades-all`, `sprd-public-trades`."""

    tradeId: Text
    px: Text
    sz: Text
    side: Text
    ts: Millis
    count: Long | None = None
    source: str = ""
    seqId: Long | None = None


class OptionTradeRow(Struct, gc=False):
    """`option-trades`, `public-block-trades`."""

    instId: Text
    tradeId: Text
    px: Text
    sz: Text
    side: Text
    ts: Millis
    fillVol: float | None = None
    fwdPx: str = ""
    idxPx: str = ""
    markPx: str = ""


class BookData(Struct, gc=False):
    """`books` and its relatives, `bbo-tbt`."""

    asks: list[BookRow]
    bids: list[BookRow]
    ts: Millis
    seqId: Long | None = None
    prevSeqId: Long | None = None
    checksum: Long | None = None


class SpreadBookData(Struct, gc=False):
    """`sprd-books-l2-tbt`, `sprd-books5`, `sprd-bbo-tbt`."""

    asks: list[SpreadRow]
    bids: list[SpreadRow]
    ts: Millis
    seqId: Long | None = None
    prevSeqId: Long | None = None
    checksum: Long | None = None


class TickerRow(Struct, gc=False):
    """`tickers`, `sprd-tickers`."""

    ts: Millis
    instType: str = ""
    last: str = ""
    lastSz: str = ""
    askPx: str = ""
    askSz: str = ""
    bidPx: str = ""
    bidSz: str = ""
    open24h: str = ""
    high24h: str = ""
    low24h: str = ""
    vol24h: str = ""
    volCcy24h: str = ""
    sodUtc0: str = ""
    sodUtc8: str = ""


class MarkPriceRow(Struct, gc=False):
    """`mark-price`."""

    markPx: Text
    ts: Millis
    instType: str = ""


class IndexTickerRow(Struct, gc=False):
    """`index-tickers`."""

    idxPx: Text
    ts: Millis
    open24h: str = ""
    high24h: str = ""
    low24h: str = ""
    sodUtc0: str = ""
    sodUtc8: str = ""


class FundingRow(Struct, gc=False):
    """`funding-rate`."""

    fundingRate: Text
    ts: Millis
    instType: str = ""
    fundingTime: Millis | None = None
    nextFundingTime: Millis | None = None
    minFundingRate: str = ""
    maxFundingRate: str = ""
    settFundingRate: str = ""
    settState: str = ""
    premium: str = ""
    interestRate: str = ""
    impactValue: str = ""
    formulaType: str = ""
    method: str = ""


class OpenInterestRow(Struct, gc=False):
    """`open-interest`."""

    oi: Text
    ts: Millis
    instType: str = ""
    oiCcy: str = ""
    oiUsd: str = ""


class InstrumentRow(Struct, gc=False):
    """`instruments`, and REST `/public/instruments`."""

    instType: Text
    instId: Text
    uly: str = ""
    instFamily: str = ""
    baseCcy: str = ""
    quoteCcy: str = ""
    settleCcy: str = ""
    ctVal: str = ""
    ctMult: str = ""
    ctValCcy: str = ""
    ctType: str = ""
    tickSz: str = ""
    lotSz: str = ""
    minSz: str = ""
    maxLmtSz: str = ""
    maxMktSz: str = ""
    optType: str = ""
    stk: str = ""
    listTime: str = ""
    expTime: str = ""
    state: str = ""
    lever: str = ""
    instIdCode: Long | None = None


class IndexRow(Struct, gc=False):
    """A row of REST `/market/index-tickers`: the only list of indices."""

    instId: Text
    idxPx: Text


class Trades(Struct, gc=False):
    """A push of `trades`, `trades-all` or `sprd-public-trades`."""

    data: list[TradeRow]


class OptionTrades(Struct, gc=False):
    """A push of `option-trades` or `public-block-trades`."""

    data: list[OptionTradeRow]


class IncrementalBook(Struct, gc=False):
    """A push of a book channel that sends one snapshot and then updates."""

    action: Literal["snapshot", "update"]
    data: list[BookData]


class FullBook(Struct, gc=False):
    """A push of a book channel that always sends the whole."""

    data: list[BookData]


class IncrementalSpreadBook(Struct, gc=False):
    """As `IncrementalBook`."""

    action: Literal["snapshot", "update"]
    data: list[SpreadBookData]


class FullSpreadBook(Struct, gc=False):
    """As `FullBook`."""

    data: list[SpreadBookData]


class Tickers(Struct, gc=False):
    """A push of `tickers` or `sprd-tickers`."""

    data: list[TickerRow]


class MarkPrices(Struct, gc=False):
    """A push of `mark-price`."""

    data: list[MarkPriceRow]


class IndexTickers(Struct, gc=False):
    """A push of `index-tickers`."""

    data: list[IndexTickerRow]


class Fundings(Struct, gc=False):
    """A push of `funding-rate`."""

    data: list[FundingRow]


class OpenInterests(Struct, gc=False):
    """A push of `open-interest`."""

    data: list[OpenInterestRow]


class Instruments(Struct, gc=False):
    """A push of `instruments`."""

    data: list[InstrumentRow]


class TradeCandles(Struct, gc=False):
    """A push of `candle…`: open time, o, h, l, c, volume, in currency, (in quote, (confirm)).

    Also of `sprd-candle…`, whose row ends with volume and confirm.
    """

    data: list[Annotated[tuple[str, ...], Meta(min_length=7)]]


class PriceCandles(Struct, gc=False):
    """A push of `mark-price-candle…` or `index-candle…`: open time, o, h, l, c, confirm."""

    data: list[Annotated[tuple[str, ...], Meta(min_length=6)]]


_decode_generic = msgspec.json.Decoder(float_hook=str).decode


def decode_leniently(message: bytes, kind: Any) -> Any:
    """`message` as `kind`, taking numbers for text by their exact text, and null and "" for absent members.

    Raises one of `UNREADABLE`, with the path of what is missing or wrong.
    """
    return msgspec.convert(as_text(_decode_generic(message)), kind, strict=False)


def as_text(value: Any) -> Any:
    """A decoded value with its numbers as text and without its empty members."""
    if isinstance(value, dict):
        return {key: as_text(member) for key, member in value.items() if member is not None and member != ""}
    if isinstance(value, list):
        return [as_text(member) for member in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value
