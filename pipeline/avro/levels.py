"""Levels of a book, checked and written a side at a time.

A loop over levels is the dearest thing that could be done with a book update, and a regular expression over their
numbers the next. Both are left to compiled code here, by two observations:

- MessagePack writes a short text as one byte with its length, then the text, as Avro does, only with another byte:
  one `bytes.translate` turns the first into the second. The bytes that it uses besides are not ASCII, so that nothing
  is mistaken for them.
- With commas in the place of these bytes the same numbers are a JSON array, and a JSON parser that skips it tells
  whether they are numbers.

Whatever is not as nearly all levels are (long numbers, exponents, values that are no texts, rows that are longer than
their layout) is not taken, and left to whoever looks at each value.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pipeline.avro.pieces import LENGTH, NULL, SHORT, long_piece
from pipeline.model.events import Row

Sides = Callable[[list[Row], list[Row]], str]
"""Writes bids and asks, as one Avro array after the other."""

_ROW = 0x90
"""The byte before a row, plus the number of its values."""
_TEXT, _LONGEST = 0xA0, 31
"""The byte before a short text, plus its length; and the greatest length that it can tell."""
_DIGITS = b"0123456789.-"

_pack = msgspec.msgpack.Encoder().encode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_LENGTHS = bytes(2 * (byte - _TEXT) if _TEXT <= byte <= _TEXT + _LONGEST else byte for byte in range(256))
_COMMAS = bytes(
    ord(",") if _TEXT < byte <= _TEXT + _LONGEST else byte if byte in _DIGITS else ord("!") for byte in range(256)
)


def pack_decimals(bids: list[Row], asks: list[Row], row: bytes, width: int) -> tuple[bytes, int] | None:
    """Both sides as MessagePack rows, one after the other, and where the second begins.

    `row` is the byte before each row of `width` values. None unless all values are short decimals.
    """
    below, above = len(bids), len(asks)
    try:
        # The head of a list is one byte, three, or five, by its length.
        packed = _pack(bids)[1 if below < 16 else 3 if below < 1 << 16 else 5 :]
        cut = len(packed)
        packed += _pack(asks)[1 if above < 16 else 3 if above < 1 << 16 else 5 :]
        numbers = packed.translate(_COMMAS, row)
        _skip(b"[0%b]" % numbers)
    except (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError):
        return None
    # One mark per row and one per value: nothing was nested, and nothing but texts.
    levels = below + above
    if len(packed) - len(numbers) != levels or numbers.count(b",") != width * levels:
        return None
    return packed, cut


def decimals_only(width: int, absent: str, one_by_one: Sides) -> Sides:
    """For levels of `width` required decimal texts, followed by `absent`, the same for each level."""
    row, nulls = bytes([_ROW + width]), absent.encode("latin-1")
    skipped, grown = len(nulls), len(nulls) - len(row)
    end = absent + NULL

    def write(bids: list[Row], asks: list[Row]) -> str:
        packed = pack_decimals(bids, asks, row, width)
        if packed is None:
            return one_by_one(bids, asks)
        # A level's mark stands before it, what is absent behind it.
        written, cut = packed
        levels = written.translate(_LENGTHS).replace(row, nulls).decode("latin-1")
        cut += grown * len(bids)
        below = f"{_length(bids)}{levels[skipped:cut]}{end}" if bids else NULL
        return f"{below}{_length(asks)}{levels[cut + skipped :]}{end}" if asks else below + NULL

    return write


def _length(side: list[Row]) -> str:
    count = len(side)
    return LENGTH[count] if count < SHORT else long_piece(count)


def checked(width: int, quickly: Sides, one_by_one: Sides) -> Sides:
    """For levels of `width` values of other types, which `quickly` writes without looking at the decimals."""
    row = bytes([_ROW + width])

    def write(bids: list[Row], asks: list[Row]) -> str:
        return (one_by_one if pack_decimals(bids, asks, row, width) is None else quickly)(bids, asks)

    return write
