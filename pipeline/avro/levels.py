"""Levels of a book, checked and written a side at a time.

A loop over levels is the dearest thing that could be done with a book update, and a regular expression over their
numbers the next. Both are left to compiled code here, by two observations:

- MessagePack writes a short text as one byte with its length, then the text, as Avro does, only with another byte:
  one `bytes.translate` turns the first into the second. The bytes that it uses besides are not ASCII, so that nothing
  is mistaken for them.
- With commas in the place of these bytes the same numbers are a JSON array, and a JSON parser that skips it tells
  whether they are numbers. Its brackets, and where the asks begin, are packed along as marks: negative integers, whose
  bytes no text in UTF-8 has.

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

_OPEN, _FIRST, _ASKS, _CLOSE = -1, -2, -3, -4
_BETWEEN = b"\xfd"
"""What `_ASKS` is packed as."""
_JSON = {0xFF: b"[", 0xFE: b"0", 0xFD: b" ", 0xFC: b"]"}
"""The four as bytes, and what they are in JSON, where no array can begin with a comma."""

_pack = msgspec.msgpack.Encoder().encode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_COUNTS = (b"", *(piece.encode("latin-1") for piece in LENGTH[1:]))
"""What the blocks of an array begin with, by their number of items: no items, no block."""
_END = NULL.encode()
_LENGTHS = bytes(2 * (byte - _TEXT) if _TEXT <= byte <= _TEXT + _LONGEST else byte for byte in range(256))


def as_json(width: int) -> bytes:
    """The table for `bytes.translate` that makes packed rows of `width` decimals one JSON array, anything else none."""
    known = {_ROW + width: b" ", **_JSON, **{byte: bytes([byte]) for byte in _DIGITS}}
    return b"".join(b"," if _TEXT < byte <= _TEXT + _LONGEST else known.get(byte, b"!") for byte in range(256))


def pack_decimals(bids: list[Row], asks: list[Row], values: int, table: bytes) -> bytes | None:
    """Both sides as MessagePack rows: two marks, the bids, `_BETWEEN`, the asks, another mark.

    None unless they are `values` short decimals and nothing else. That none of the rows lies in another is for the
    caller to see: there must be as many as levels.
    """
    levels = len(bids) + len(asks)
    try:
        packed = _pack([_OPEN, _FIRST, *bids, _ASKS, *asks, _CLOSE])
        # The head of a list is one byte, three, or five, by its length.
        packed = packed[1 if levels < 16 - 4 else 3 if levels < (1 << 16) - 4 else 5 :]
        numbers = packed.translate(table)
        _skip(numbers)
    except (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError):
        return None
    return packed if numbers.count(b",") == values else None


def decimals_only(width: int, absent: str, one_by_one: Sides) -> Sides:
    """For levels of `width` required decimal texts, followed by `absent`, the same for each level.

    Raises `ValueError` for an `absent` of one byte, which would leave no trace of the number of rows.
    """
    row, nulls, table = bytes([_ROW + width]), absent.encode("latin-1"), as_json(width)
    skipped, grown = len(nulls), len(nulls) - len(row)
    if not grown:
        raise ValueError("rows cannot be told by what follows them")
    first_bid, first_ask = 2 + skipped, 1 + skipped
    end = nulls + _END

    def write(bids: list[Row], asks: list[Row]) -> str:
        below, above = len(bids), len(asks)
        packed = pack_decimals(bids, asks, width * (below + above), table)
        if packed is None:
            return one_by_one(bids, asks)
        # A level's mark stands before it, what is absent behind it.
        levels = packed.translate(_LENGTHS).replace(row, nulls)
        if len(levels) - len(packed) != grown * (below + above):
            return one_by_one(bids, asks)
        cut = levels.find(_BETWEEN)
        parts = (
            _COUNTS[below] if below < SHORT else long_piece(below).encode("latin-1"),
            levels[first_bid:cut],
            end if below else _END,
            _COUNTS[above] if above < SHORT else long_piece(above).encode("latin-1"),
            levels[cut + first_ask : -1],
            end if above else _END,
        )
        return b"".join(parts).decode("latin-1")

    return write


def checked(width: int, quickly: Sides, one_by_one: Sides) -> Sides:
    """For levels of `width` values of other types, which `quickly` writes without looking at the decimals."""
    row, table = bytes([_ROW + width]), as_json(width)

    def write(bids: list[Row], asks: list[Row]) -> str:
        levels = len(bids) + len(asks)
        packed = pack_decimals(bids, asks, width * levels, table)
        sound = packed is not None and packed.count(row) == levels
        return (quickly if sound else one_by_one)(bids, asks)

    return write
