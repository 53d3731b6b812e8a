"""Bybit's messages as they are on the wire, for one typed decode each.

Field names are the venue's, prices and sizes stay text. `UNREAD` lists the documented fields that are not read; those
that are neither here nor there are ignored and noted (see `vocabulary`). What has a default may be missing.
`loosely` also takes numbers where text is due and text where numbers are due, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import msgspec

from pipeline.exchanges.times import Millis
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Row

if TYPE_CHECKING:
    Pair = Row
    Triple = Row
else:  # decoded with a fixed length: faster than a tuple of any length, and a row too short is refused
    Pair = tuple[str, str]
    Triple = tuple[str, str, str]

Kind = Literal["snapshot", "delta"]
T = TypeVar("T")


class Book(msgspec.Struct, gc=False):
    """`data` of `orderbook.{depth}`; the symbol is taken from the topic."""

    UNREAD: ClassVar = ("s",)

    b: list[Pair]
    a: list[Pair]
    u: int
    seq: int | None = None


class BookSnapshot(msgspec.Struct, gc=False):
    """`result` of the full order book over REST."""

    b: list[Pair]
    a: list[Pair]
    u: int
    ts: Millis
    seq: int | None = None
    cts: Millis | None = None


class BookMessage(msgspec.Struct, gc=False):
    """`orderbook.{depth}.{symbol}`."""

    UNREAD: ClassVar = ("id",)

    topic: str
    type: Kind
    ts: Millis
    data: Book
    cts: Millis | None = None
    """When the matching engine changed the book; absent before 2023-12."""


class RpiBook(msgspec.Struct, gc=False):
    """`data` of `orderbook.rpi`: rows of price, size without RPI orders, size of RPI orders."""

    UNREAD: ClassVar = ("s",)

    b: list[Triple]
    a: list[Triple]
    u: int
    seq: int | None = None


class RpiBookMessage(msgspec.Struct, gc=False):
    """`orderbook.rpi.{symbol}`."""

    topic: str
    type: Kind
    ts: Millis
    data: RpiBook
    cts: Millis | None = None


class TradeRow(msgspec.Struct, gc=False, kw_only=True):
    """One element of `publicTrade`, in the venue's own order; the last four fields are of options only."""

    T: Millis
    s: str
    S: str
    v: DecimalText
    p: DecimalText
    L: str | None = None
    i: str
    BT: bool | None = None
    RPI: bool | None = None
    seq: int | None = None
    mP: DecimalText | None = None
    iP: DecimalText | None = None
    mIv: str | None = None
    iv: str | None = None


class TradeMessage(msgspec.Struct, gc=False):
    """`publicTrade.{symbol}`, for options `publicTrade.{baseCoin}`."""

    UNREAD: ClassVar = ("type", "ts", "id")

    topic: str
    data: list[TradeRow]


class TickerMessage(msgspec.Struct, gc=False):
    """`tickers.{symbol}`: `data` holds the fields that changed, or all of them."""

    UNREAD: ClassVar = ("id",)

    topic: str
    type: Kind
    ts: Millis
    data: dict[str, str]
    cs: int | None = None


class LooseTickerMessage(msgspec.Struct, gc=False):
    """A ticker among whose fields are other things than text."""

    UNREAD: ClassVar = ("id",)

    topic: str
    type: Kind
    ts: Millis
    data: dict[str, Any]
    cs: int | None = None


class CandleRow(msgspec.Struct, gc=False):
    """One element of `kline`, in the venue's own order."""

    UNREAD: ClassVar = ("interval",)

    start: Millis
    end: Millis
    open: DecimalText
    close: DecimalText
    high: DecimalText
    low: DecimalText
    volume: DecimalText
    turnover: DecimalText
    confirm: bool
    timestamp: Millis


class CandleMessage(msgspec.Struct, gc=False):
    """`kline.{interval}.{symbol}`."""

    UNREAD: ClassVar = ("type", "ts")

    topic: str
    data: list[CandleRow]


class Envelope(msgspec.Struct, gc=False):
    """The key that tells data from everything else."""

    topic: str


decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_plain = msgspec.json.Decoder(float_hook=str).decode
"""Untyped; fractions become their own text instead of a float."""


def loosely(plain: object, shape: type[T]) -> T:
    """What `decode_plain` returned as `shape`, numbers and their texts being interchangeable.

    Raises `msgspec.ValidationError` naming the path, and `ValueError` for an integer of thousands of digits.
    """
    return msgspec.convert(_numbers_as_text(plain), shape, strict=False)


def is_control(plain: dict[str, Any]) -> bool:
    """Whether a message without a topic is of a known control form of any of the venue's servers."""
    return (
        plain.get("op") in ("subscribe", "unsubscribe", "auth", "ping", "pong")
        or plain.get("type") in ("COMMAND_RESP", "AUTH_RESP")
        or is_pong(plain)
        or plain.get("success") is False
    )


def is_pong(plain: dict[str, Any]) -> bool:
    """Whether this answers a ping: spot and futures name it in `ret_msg`, the other servers in `op`."""
    return plain.get("op") == "pong" or plain.get("ret_msg") == "pong"


def _numbers_as_text(value: object) -> object:
    if isinstance(value, dict):
        return {key: _numbers_as_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers_as_text(each) for each in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
