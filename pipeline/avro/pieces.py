"""Avro values as text: each function turns one value into the characters whose latin-1 bytes are its encoding.

Pieces of text are joined and encoded once per record, which in Python is several times cheaper than joining bytes
or filling a `bytearray`. What does not fit raises `Unfit`, or a `TypeError` if the value is of another type.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.model.decimals import match_decimal

NULL, SOME = "\x00", "\x02"
"""Branches of a union of null and one other type."""

TRUE, FALSE = "\x01", "\x00"

_END = "\x00"
"""The empty block that ends arrays and maps."""

Piece = Callable[[Any], str]

PRECISION, SCALE = 38, 18
"""Of Avro decimals: what SQL engines take at most, split as most of them expect it."""

CACHED = 16_384
"""Values that a cache keeps at most."""

SHORT = 64
"""Texts below this length have a length prefix of one byte."""

LENGTH = tuple(chr(2 * length) for length in range(SHORT))
"""Length prefixes of short texts."""
_14_BITS = 0x3FFF
MORE = tuple(chr(bits & 0x7F | 0x80) + chr(bits >> 7 | 0x80) for bits in range(_14_BITS + 1))
"""Fourteen bits of a number that goes on."""
LOW = MORE[::2]
"""The lowest thirteen bits of a positive number, whose zigzag form ends in 0."""
_LAST = tuple(chr(bits) if bits < 0x80 else chr(bits & 0x7F | 0x80) + chr(bits >> 7) for bits in range(_14_BITS + 1))
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1
_POWERS_OF_TEN: tuple[int, ...] = tuple(10**exponent for exponent in range(SCALE + 1))
_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)
_json_number = msgspec.json.Decoder(float).decode
_pack_double = struct.Struct("<d").pack


class Unfit(ValueError):
    """A value has no place in the Avro type; the text says why, without the value."""


class Pieces(dict[Any, str]):
    """A bounded cache from values to their pieces: the venues repeat most prices, many sizes and all words.

    It forgets everything when full, which costs a burst of misses but no bookkeeping per hit.
    """

    __slots__ = ("limit", "make")

    def __init__(self, make: Piece, limit: int = CACHED) -> None:
        super().__init__()
        self.make = make
        self.limit = limit

    def __missing__(self, value: Any) -> str:
        piece = self.make(value)
        if len(piece) <= SHORT + 2:
            if len(self) >= self.limit:
                self.clear()
            self[value] = piece
        return piece


def nullable(make: Piece) -> Piece:
    """`make` for a union of null and its type."""

    def make_nullable(value: Any) -> str:
        return NULL if value is None else SOME + make(value)

    return make_nullable


class _HighBits(dict[int, str]):
    """What follows the low bits of a number: numbers of one kind rise, so that it changes once in thousands of them."""

    def __missing__(self, bits: int) -> str:
        if bits >= 1 << 50:
            raise Unfit("does not fit 64 bits")
        piece, rest = "", bits
        while rest > _14_BITS:
            piece += MORE[rest & _14_BITS]
            rest >>= 14
        piece += _LAST[rest]
        if len(self) >= CACHED:
            self.clear()
        self[bits] = piece
        return piece


HIGH = _HighBits()
"""By the bits above the lowest 13 of a positive number, which are 14 in zigzag form."""


def long_piece(number: int) -> str:
    """A 64-bit integer: zigzag, then seven bits per byte, here fourteen per table look-up."""
    zigzag = number << 1 if number >= 0 else ~(number << 1)
    if zigzag <= _14_BITS:
        return _LAST[zigzag]
    return MORE[zigzag & _14_BITS] + HIGH[zigzag >> 14]


def int_piece(number: int) -> str:
    """A 32-bit integer."""
    if _INT_MIN <= number <= _INT_MAX:
        return long_piece(number)
    raise Unfit("does not fit 32 bits")


def count_piece(digits: str) -> str:
    """A 32-bit integer from its digits, as order counts come in the rows of a book."""
    if _DIGITS.fullmatch(digits) is None:
        raise Unfit("is no count")
    return int_piece(int(digits))


def boolean_piece(value: bool) -> str:
    """A truth value; what is merely true or false in Python is refused."""
    if value is True:
        return TRUE
    if value is False:
        return FALSE
    raise TypeError("is no boolean")


def double_piece(number: float) -> str:
    """A 64-bit float, infinities and NaN included."""
    try:
        return _pack_double(number).decode("latin-1")
    except struct.error as error:
        raise TypeError(str(error)) from None


def bytes_piece(value: bytes) -> str:
    """Bytes with their length."""
    return long_piece(len(value)) + value.decode("latin-1")


def text_piece(text: str) -> str:
    """Any text, as UTF-8 with its length in bytes; raises `UnicodeEncodeError` for lone surrogates."""
    if text.isascii():
        length = len(text)
        # Concatenated instead of formatted, because that refuses bytes, which have `isascii` too.
        return (LENGTH[length] if length < SHORT else long_piece(length)) + text
    return bytes_piece(text.encode())


def decimal_text_piece(text: str) -> str:
    """A decimal number as the text that it is."""
    if match_decimal(text) is None:
        raise Unfit("is no decimal number")
    length = len(text)
    return (LENGTH[length] if length < SHORT else long_piece(length)) + text


class DecimalTexts(Pieces):
    """`Pieces` of `decimal_text_piece`, without its call: sizes hardly ever repeat, so that here misses count."""

    __slots__ = ()

    def __init__(self, limit: int = CACHED) -> None:
        super().__init__(decimal_text_piece, limit)

    def __missing__(self, text: str) -> str:
        # A JSON parser tells a plain number at half the cost of a regular expression; it would also take white space
        # around it, and any exponent.
        try:
            _json_number(text)
            plain = text.strip() is text and "e" not in text and "E" not in text
        except ValueError:
            plain = False
        if not plain and match_decimal(text) is None:
            raise Unfit("is no decimal number")
        length = len(text)
        if length >= SHORT:
            return long_piece(length) + text
        if len(self) >= self.limit:
            self.clear()
        self[text] = piece = LENGTH[length] + text
        return piece


def decimal_bytes_piece(text: str) -> str:
    """A decimal number as Avro decimal(38,18): the unscaled integer, big-endian in two's complement."""
    number = unscaled(text)
    size = number.bit_length() // 8 + 1
    return LENGTH[size] + number.to_bytes(size, "big", signed=True).decode("latin-1")


def unscaled(text: str) -> int:
    """The decimal number times 10**18, exactly; raises `Unfit` if that is no integer of at most 38 digits."""
    if match_decimal(text) is None:
        raise Unfit("is no decimal number")
    if len(text) <= SCALE + 2 and "e" not in text and "E" not in text:
        whole, _, fraction = text.partition(".")
        return int(whole + fraction) * _POWERS_OF_TEN[SCALE - len(fraction)]
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits, shift = whole + fraction, SCALE - len(fraction) + int(exponent or 0)
    if shift >= 0:
        digits += "0" * shift
    else:
        digits, lost = digits[:shift], digits[shift:]
        if lost.strip("0"):
            raise Unfit(f"has more than {SCALE} fractional digits")
    digits = digits.lstrip("0") or "0"
    if len(digits) > PRECISION:
        raise Unfit(f"has more than {PRECISION - SCALE} integer digits")
    return -int(digits) if text[0] == "-" else int(digits)


def array_of(make: Piece) -> Piece:
    """The function that writes a list or tuple of what `make` writes."""

    def array_piece(items: Sequence[Any]) -> str:
        if not isinstance(items, list | tuple):
            raise TypeError("is no list")
        return f"{long_piece(len(items))}{''.join(map(make, items))}{_END}" if items else _END

    return array_piece


def map_of(make: Piece) -> Piece:
    """The function that writes a mapping from texts to what `make` writes."""

    def map_piece(items: Mapping[str, Any]) -> str:
        if not isinstance(items, Mapping):
            raise TypeError("is no mapping")
        entries = "".join([text_piece(key) + make(value) for key, value in items.items()])
        return f"{long_piece(len(items))}{entries}{_END}" if items else _END

    return map_piece
