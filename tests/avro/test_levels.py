"""Levels written a side at a time are those that are written one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.avro.levels import as_json, checked, decimals_only, pack_decimals
from pipeline.model.events import Row

ABSENT = "\x00\x00"
SLOW = "one by one"
number = st.from_regex(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,12})?", fullmatch=True)
anything = st.one_of(
    number,
    st.text(max_size=40),
    st.text(alphabet="0123456789.-+eE, ", max_size=35),
    st.integers(-70, 400),
    st.none(),
    st.booleans(),
    st.floats(),
    st.binary(max_size=3),
    st.tuples(number, number),
)
rows = st.lists(st.tuples(number, number) | st.lists(number, min_size=2, max_size=2), max_size=70)
oddities = st.lists(st.lists(anything, max_size=4) | st.tuples(anything, anything), min_size=1, max_size=20)


def one_by_one(bids: list[Row], asks: list[Row]) -> str:
    return SLOW


def piece(text: str) -> str:
    return chr(2 * len(text)) + text


def side(levels: list[Any]) -> str:
    """As Avro has it: blocks of a count and its items, which an empty one ends."""
    count = len(levels)
    head = chr(2 * count) if count < 64 else chr(2 * count & 0x7F | 0x80) + chr(2 * count >> 7)
    return (head + "".join(piece(price) + piece(size) + ABSENT for price, size in levels) if levels else "") + "\x00"


@given(rows, rows)
def test_pairs_of_decimals(bids: list[Any], asks: list[Any]) -> None:
    assert decimals_only(2, ABSENT, one_by_one)(bids, asks) == side(bids) + side(asks)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 63, 64, 65_535, 65_536])
def test_lists_of_any_length(count: int) -> None:
    levels: list[Any] = [("65000.5", "0.001")] * count
    written = decimals_only(2, ABSENT, one_by_one)([], levels)
    assert written.count(piece("65000.5") + piece("0.001") + ABSENT) == count
    assert decimals_only(2, ABSENT, one_by_one)(levels, []) == written[1:] + "\x00"


@given(oddities, rows)
@example([("1", ("2", "3")), ("4", 48)], [])  # as many marks as if all were well
@example([("1.", "2")], [])
@example([(".5", "2")], [])
@example([("1,2", "3")], [])
@example([("", "3")], [])
@example([(" 1", "3")], [])
@example([("1" * 32, "3")], [])
@example([("01", "3")], [])
@example([("1", "2", "3")], [])
@example([("1", -3), ("2", "3")], [("4", "5")])  # what the marks between the sides are packed as
@example([(-1, -2), ("2", "3"), (-4, "1")], [])
@example([(-3, "1"), ("2", "3")], [])
@example([("1", "\xfd"), ("2", "3")], [])
@example([("1", ("2", "3")), ("4",)], [])
def test_only_short_decimals_are_taken(odd: list[Any], even: list[Any]) -> None:
    for bids, asks in ((odd, even), (even, odd)):
        written = decimals_only(2, ABSENT, one_by_one)(bids, asks)
        assert written == SLOW or written == side(bids) + side(asks)
        sound = all(len(row) == 2 and all(is_decimal(value) for value in row) for row in odd)
        assert sound or written == SLOW
        assert checked(2, lambda bids, asks: "quickly", one_by_one)(bids, asks) in (SLOW, "quickly" if sound else SLOW)


def is_decimal(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 31:
        return False
    whole, point, fraction = value.removeprefix("-").partition(".")
    return all(part.isascii() and part.isdecimal() for part in (whole, fraction) if part or part is whole or point)


def test_what_cannot_be_packed_at_all_is_left_to_others() -> None:
    for value in (object(), "\ud800", 1 << 70):
        assert pack_decimals([("1", value)], [], 2, as_json(2)) is None  # type: ignore[list-item]


def test_rows_must_leave_a_trace_of_their_number() -> None:
    with pytest.raises(ValueError, match="rows"):
        decimals_only(2, "\x00", one_by_one)
    assert decimals_only(2, "", one_by_one)([("1", "2")], []) == "\x02" + piece("1") + piece("2") + "\x00\x00"
