from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from io import BytesIO
from types import MappingProxyType
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.avro.pieces import (
    DecimalTexts,
    Pieces,
    Unfit,
    array_of,
    boolean_piece,
    bytes_piece,
    count_piece,
    decimal_bytes_piece,
    decimal_text_piece,
    double_piece,
    int_piece,
    long_piece,
    map_of,
    nullable,
    text_piece,
    unscaled,
)
from pipeline.model.decimals import is_decimal
from tests.avro.strategies import decimal_texts, longs, texts

EXACT = Context(prec=2000, Emax=9999, Emin=-9999)


def fastavro_bytes(avro_type: Any, value: Any) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, avro_type, value)
    return stream.getvalue()


@given(longs)
def test_longs_are_those_of_fastavro(number: int) -> None:
    assert long_piece(number).encode("latin-1") == fastavro_bytes("long", number)


@pytest.mark.parametrize("bits", range(63))
def test_longs_at_each_power_of_two(bits: int) -> None:
    for number in (1 << bits, (1 << bits) - 1, -(1 << bits), -(1 << bits) - 1):
        assert long_piece(number).encode("latin-1") == fastavro_bytes("long", number)


def test_longs_hold_for_more_numbers_than_the_cache() -> None:
    for high in range(1500):
        assert long_piece(high << 27).encode("latin-1") == fastavro_bytes("long", high << 27)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**70, -(2**200)])
def test_numbers_beyond_64_bits_are_refused(number: int) -> None:
    with pytest.raises(Unfit, match="64 bits"):
        long_piece(number)


def test_32_bits() -> None:
    for number in (-(2**31), 2**31 - 1):
        assert int_piece(number).encode("latin-1") == fastavro_bytes("int", number)
    for number in (-(2**31) - 1, 2**31):
        with pytest.raises(Unfit, match="32 bits"):
            int_piece(number)


@given(texts)
def test_texts_are_those_of_fastavro(text: str) -> None:
    assert text_piece(text).encode("latin-1") == fastavro_bytes("string", text)


@given(st.binary(max_size=200))
def test_bytes_are_those_of_fastavro(payload: bytes) -> None:
    assert bytes_piece(payload).encode("latin-1") == fastavro_bytes("bytes", payload)


@given(st.floats())
def test_doubles_are_those_of_fastavro(number: float) -> None:
    assert double_piece(number).encode("latin-1") == fastavro_bytes("double", number)


def test_wrong_types_are_refused() -> None:
    cases: list[tuple[Callable[[Any], str], Any]] = [
        (text_piece, b"abc"),
        (text_piece, 1),
        (decimal_text_piece, 1),
        (decimal_text_piece, b"1"),
        (long_piece, 1.0),
        (long_piece, "1"),
        (int_piece, "1"),
        (count_piece, 1),
        (boolean_piece, 1),
        (boolean_piece, None),
        (bytes_piece, "text"),
        (double_piece, "1.0"),
    ]
    for piece, value in cases:
        with pytest.raises((TypeError, AttributeError, ValueError)):
            piece(value)


@given(decimal_texts())
def test_unscaled_is_exact(text: str) -> None:
    assert unscaled(text) == int(Decimal(text).scaleb(18, EXACT))


@given(st.from_regex(r"-?[0-9]{1,45}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_unscaled_refuses_exactly_what_does_not_fit(text: str) -> None:
    if not text.isascii():
        return
    number = Decimal(text).scaleb(18, EXACT)
    fits = number == number.to_integral_value() and abs(number) < 10**38
    if fits:
        assert unscaled(text) == int(number)
    else:
        with pytest.raises(Unfit, match="digits"):
            unscaled(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-0", 0),
        ("1e-7", 10**11),
        ("1E+19", 10**37),
        ("0e999", 0),
        ("0.0000000000000000010", 1),
        ("99999999999999999999.999999999999999999", 10**38 - 1),
        ("-99999999999999999999.999999999999999999", 1 - 10**38),
        ("000000000000000000000000000000001.5", 15 * 10**17),
        ("1e-18", 1),
        ("10e-19", 1),
    ],
)
def test_unscaled(text: str, number: int) -> None:
    assert unscaled(text) == number


@pytest.mark.parametrize("text", ["100000000000000000000", "1e20", "1e-19", "0.0000000000000000001", "9" * 5000])
def test_unscaled_never_rounds(text: str) -> None:
    with pytest.raises(Unfit, match="digits"):
        unscaled(text)


_JSON_ONLY = ["\t1", "1\r", "1e0005", "1E-1000", "0e9999", "[1]", "true"]


@given(decimal_texts() | st.text(alphabet="0123456789.-+eE \n", max_size=12))
@example("1" * 500)
@example("007")
@example("1e-999")
def test_decimal_texts_are_told_from_others(text: str) -> None:
    pieces = DecimalTexts()
    if is_decimal(text):
        assert pieces[text] == decimal_text_piece(text)
    else:
        with pytest.raises(Unfit):
            pieces[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        ".5",
        "5.",
        "1,5",
        "1_000",
        "NaN",
        "inf",
        "0x1",
        "１",
        "--1",
        "1e",
        "1e1000",
        *_JSON_ONLY,
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    for piece in (decimal_text_piece, decimal_bytes_piece, DecimalTexts().__getitem__):
        with pytest.raises(Unfit, match="no decimal number"):
            piece(text)


def test_decimals_of_64_characters_and_more_keep_their_text() -> None:
    for length in (63, 64, 200):
        assert decimal_text_piece("1" * length).encode("latin-1") == fastavro_bytes("string", "1" * length)


def test_the_cache_is_bounded() -> None:
    made: list[Any] = []

    def make(value: Any) -> str:
        made.append(value)
        return text_piece(value)

    pieces = Pieces(make, limit=10)
    for number in range(95):
        assert pieces[str(number)] == text_piece(str(number))
        assert len(pieces) <= 10
    assert pieces["94"] == text_piece("94")
    assert len(made) == 95


def test_the_cache_does_not_keep_long_texts() -> None:
    pieces = Pieces(nullable(text_piece))
    assert pieces["x" * 10_000] == "\x02" + text_piece("x" * 10_000)
    assert not pieces
    assert pieces["x" * 63] == "\x02" + text_piece("x" * 63)
    assert len(pieces) == 1


def test_the_cache_keeps_no_failures() -> None:
    pieces = Pieces(decimal_text_piece)
    with pytest.raises(Unfit):
        pieces["one"]
    assert not pieces


def test_decimal_texts_are_kept_as_other_pieces() -> None:
    pieces = DecimalTexts(limit=10)
    for number in range(95):
        assert pieces[f"{number}.50"] == decimal_text_piece(f"{number}.50")
        assert len(pieces) <= 10
    assert "94.50" in pieces
    before = dict(pieces)
    for other, error in (("one", Unfit), ("", Unfit), ("1.", Unfit), (1, TypeError), (b"1.5", TypeError)):
        with pytest.raises(error):
            pieces[other]
    for length in (63, 64, 10_000):
        assert pieces["7" * length] == decimal_text_piece("7" * length)
    assert pieces.keys() - before == {"7" * 63}


@given(st.lists(texts, max_size=200))
def test_arrays_are_those_of_fastavro(items: list[str]) -> None:
    expected = fastavro_bytes({"type": "array", "items": "string"}, items)
    assert array_of(text_piece)(items).encode("latin-1") == expected
    assert array_of(text_piece)(tuple(items)).encode("latin-1") == expected


@given(st.dictionaries(texts, longs, max_size=100))
def test_maps_are_those_of_fastavro(items: dict[str, int]) -> None:
    expected = fastavro_bytes({"type": "map", "values": "long"}, items)
    assert map_of(long_piece)(items).encode("latin-1") == expected
    assert map_of(long_piece)(MappingProxyType(items)).encode("latin-1") == expected


@pytest.mark.parametrize(
    "value", ["ab", b"ab", {"a": "b"}, {"a"}, iter("ab"), None, 0], ids=lambda value: type(value).__name__
)
def test_only_lists_and_tuples_are_arrays(value: Any) -> None:
    with pytest.raises(TypeError):
        array_of(text_piece)(value)


@pytest.mark.parametrize("value", ["", [("a", "b")], (), None, 0], ids=repr)
def test_only_mappings_are_maps(value: Any) -> None:
    with pytest.raises(TypeError):
        map_of(text_piece)(value)
