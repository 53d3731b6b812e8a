"""What OKX sends, as types: the fields that are published, read by name in any order.

`UNREAD` lists the documented fields that are not; those that are neither here nor there are ignored and noted (see
`vocabulary`).
Decoders are not strict: OKX writes most numbers as text ("1597026383085"), and the fields that are counters or
times here take both. Prices and sizes stay text. A message that deviates (a number where text is usual, null, or
an empty string in a field that has a default) is decoded a second time by `decode_leniently`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from pipeline.exchanges import times
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Row

Text = Annotated[str, Meta(min_length=1)]
Decimal = Annotated[DecimalText, Meta(min_length=1)]
EMPTY = DecimalText("")
Millis = Annotated[times.Millis, Meta(ge=0, le=9_223_372_036_854_775)]
"""Milliseconds since 1970 UTC whose microseconds fit 64 bits."""
Long = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
if TYPE_CHECKING:
    BookRow = Row
else:  # decoded with a fixed length: that takes a sixth less than any length
    BookRow = tuple[str, str, str, str]
"""price, quantity, deprecated or (books-rpi) the quantity without RPI, order count."""
LongBookRow = Annotated[Row, Meta(min_length=4)]
"""A `BookRow` that may go on."""

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

    UNREAD: ClassVar = ("uid", "uly", "extraParams")

    channel: Text
    instType: str = ""
    instFamily: str = ""
    instId: str = ""
    sprdId: str = ""
    ccy: str = ""
    algoId: str = ""


class Push(Struct, gc=False):
    """The top level of a push; `arg` has been read before."""

    UNREAD: ClassVar[tuple[str, ...]] = ("arg",)


class TradeRow(Struct, gc=False):
    """`trades`, `trades-all`, `sprd-public-trades`."""

    UNREAD: ClassVar = ("instId", "sprdId")

    tradeId: Text
    px: Decimal
    sz: Decimal
    side: Text
    ts: Millis
    count: Long | None = None
    source: str = ""
    seqId: Long | None = None


class OptionTradeRow(Struct, gc=False):
    """`option-trades`, `public-block-trades`."""

    UNREAD: ClassVar = ("instFamily", "optType", "groupId")

    instId: Text
    tradeId: Text
    px: Decimal
    sz: Decimal
    side: Text
    ts: Millis
    fillVol: float | None = None
    fwdPx: str = ""
    idxPx: str = ""
    markPx: str = ""


class BookData(Struct, gc=False):
    """`books` and its relatives, `bbo-tbt`."""

    UNREAD: ClassVar = ("instId",)

    asks: list[BookRow]
    bids: list[BookRow]
    ts: Millis
    seqId: Long | None = None
    prevSeqId: Long | None = None
    checksum: Long | None = None


class LongBookData(BookData, gc=False):
    """`BookData` should its rows get longer."""

    asks: list[LongBookRow]
    bids: list[LongBookRow]


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

    UNREAD: ClassVar = ("instId", "sprdId")

    ts: Millis
    instType: str = ""
    last: DecimalText = EMPTY
    lastSz: DecimalText = EMPTY
    askPx: DecimalText = EMPTY
    askSz: DecimalText = EMPTY
    bidPx: DecimalText = EMPTY
    bidSz: DecimalText = EMPTY
    open24h: DecimalText = EMPTY
    high24h: DecimalText = EMPTY
    low24h: DecimalText = EMPTY
    vol24h: DecimalText = EMPTY
    volCcy24h: DecimalText = EMPTY
    sodUtc0: DecimalText = EMPTY
    sodUtc8: DecimalText = EMPTY


class MarkPriceRow(Struct, gc=False):
    """`mark-price`."""

    UNREAD: ClassVar = ("instId",)

    markPx: Decimal
    ts: Millis
    instType: str = ""


class IndexTickerRow(Struct, gc=False):
    """`index-tickers`."""

    UNREAD: ClassVar = ("instId",)

    idxPx: Decimal
    ts: Millis
    open24h: str = ""
    high24h: str = ""
    low24h: str = ""
    sodUtc0: str = ""
    sodUtc8: str = ""


class FundingRow(Struct, gc=False):
    """`funding-rate`."""

    UNREAD: ClassVar = ("instId", "nextFundingRate")

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

    UNREAD: ClassVar = ("instId",)

    oi: Text
    ts: Millis
    instType: str = ""
    oiCcy: str = ""
    oiUsd: str = ""


class InstrumentRow(Struct, gc=False):
    """`instruments`, and REST `/public/instruments`."""

    UNREAD: ClassVar = (
        "seriesId",
        "tradeQuoteCcyList",
        "alias",
        "category",
        "groupId",
        "instCategory",
        "ruleType",
        "openType",
        "contTdSwTime",
        "preMktSwTime",
        "auctionEndTime",
        "maxLmtAmt",
        "maxMktAmt",
        "maxTwapSz",
        "maxIcebergSz",
        "maxTriggerSz",
        "maxStopSz",
        "initPxLmtPct",
        "floatPxLmtPct",
        "maxPxLmtPct",
        "rpiMinLevel",
        "rpiMinPxBand",
        "futureSettlement",
        "upcChg",
    )

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


class Trades(Push, gc=False):
    """A push of `trades`, `trades-all` or `sprd-public-trades`."""

    data: list[TradeRow]


class OptionTrades(Push, gc=False):
    """A push of `option-trades` or `public-block-trades`."""

    data: list[OptionTradeRow]


class IncrementalBook(Push, gc=False):
    """A push of a book channel that sends one snapshot and then updates."""

    action: Literal["snapshot", "update"]
    data: list[BookData]


class FullBook(Push, gc=False):
    """A push of a book channel that always sends the whole."""

    data: list[BookData]


class LongIncrementalBook(Push, gc=False):
    """An `IncrementalBook` should its rows get longer."""

    action: Literal["snapshot", "update"]
    data: list[LongBookData]


class LongFullBook(Push, gc=False):
    """A `FullBook` should its rows get longer."""

    data: list[LongBookData]


class IncrementalSpreadBook(Push, gc=False):
    """As `IncrementalBook`."""

    action: Literal["snapshot", "update"]
    data: list[SpreadBookData]


class FullSpreadBook(Push, gc=False):
    """As `FullBook`."""

    data: list[SpreadBookData]


class Tickers(Push, gc=False):
    """A push of `tickers` or `sprd-tickers`."""

    data: list[TickerRow]


class MarkPrices(Push, gc=False):
    """A push of `mark-price`."""

    data: list[MarkPriceRow]


class IndexTickers(Push, gc=False):
    """A push of `index-tickers`."""

    data: list[IndexTickerRow]


class Fundings(Push, gc=False):
    """A push of `funding-rate`."""

    data: list[FundingRow]


class OpenInterests(Push, gc=False):
    """A push of `open-interest`."""

    data: list[OpenInterestRow]


class Instruments(Push, gc=False):
    """A push of `instruments`."""

    data: list[InstrumentRow]


class TradeCandles(Push, gc=False):
    """A push of `candle…`: open time, o, h, l, c, volume, in currency, (in quote, (confirm)).

    Also of `sprd-candle…`, whose row ends with volume and confirm.
    """

    data: list[Annotated[tuple[str, ...], Meta(min_length=7)]]


class PriceCandles(Push, gc=False):
    """A push of `mark-price-candle…` or `index-candle…`: open time, o, h, l, c, confirm."""

    data: list[Annotated[tuple[str, ...], Meta(min_length=6)]]


decode_plain = msgspec.json.Decoder(float_hook=str).decode
"""Untyped; fractions become their own text instead of a float."""


def decode_leniently(message: bytes, kind: Any) -> Any:
    """`message` as `kind`, taking numbers for text by their exact text, and null and "" for absent members.

    Raises one of `UNREADABLE`, with the path of what is missing or wrong.
    """
    return leniently(decode_plain(message), kind)


def leniently(plain: object, kind: Any) -> Any:
    """As `decode_leniently`, of what `decode_plain` returned."""
    return msgspec.convert(as_text(plain), kind, strict=False)


def as_text(value: Any) -> Any:
    """A decoded value with its numbers as text and without its empty members."""
    if isinstance(value, dict):
        return {key: as_text(member) for key, member in value.items() if member is not None and member != ""}
    if isinstance(value, list):
        return [as_text(member) for member in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value
