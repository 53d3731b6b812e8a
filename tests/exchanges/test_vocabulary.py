from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from pipeline.exchanges.vocabulary import MAX_LENGTH, MAX_UNKNOWN, Vocabulary, strict


class Leg(Struct, omit_defaults=True):
    UNREAD: ClassVar = ("old",)

    px: str = ""


class Row(Struct, rename="camel", gc=False):
    UNREAD: ClassVar = ("s", "lastPrice")

    last_price: Annotated[str, Meta(min_length=1)]
    legs: list[Leg] | str | None = None
    parent: Leg | None = None
    fees: dict[str, str] | None = None
    levels: list[tuple[str, ...]] = []


class Message(Struct):
    UNREAD: ClassVar = ("ts",)

    topic: str
    data: list[Row]


def decode(shape: type[Struct], message: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(message), type=shape)


def message(*rows: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"topic": "t", "data": [{"lastPrice": "1"} | row for row in rows], **top}


KNOWN = message(
    {"s": {"any": [1]}, "legs": [{"px": "2", "old": None}], "parent": {"old": 1}, "fees": {"BTC": "3"}},
    {"legs": "", "levels": [["1", "2"]]},
    ts=1,
)


def test_what_is_known_is_decoded_as_ever() -> None:
    read = decode(strict(Message), KNOWN)
    lenient = decode(Message, KNOWN)
    for ours, theirs in zip(read.data, lenient.data, strict=True):
        assert (ours.last_price, ours.fees, ours.levels) == (theirs.last_price, theirs.fees, theirs.levels)
    assert [leg.px for leg in read.data[0].legs] == ["2"]
    assert (read.data[0].parent.px, read.data[1].parent, read.data[1].legs) == ("", None, "")
    assert not Vocabulary().learn("f", Message, KNOWN)


@pytest.mark.parametrize(
    ("unknown", "path"),
    [
        (message(new=None), "new"),
        (message({"new": ""}), "data[].new"),
        (message({"last_price": "1"}), "data[].last_price"),
        (message({}, {"legs": [{}, {"new": 1}]}), "data[].legs[].new"),
        (message({"parent": {"s": 1}}), "data[].parent.s"),
        (message(**{"data[].s": 1}), "data[].s"),
    ],
)
def test_an_unknown_field_is_refused_until_it_is_learned(unknown: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        decode(strict(Message), unknown)
    vocabulary = Vocabulary()
    assert vocabulary.form("family", Message) is strict(Message)
    assert vocabulary.learn("family", Message, unknown)
    shape = vocabulary.form("family", Message)
    assert decode(shape, unknown).topic == "t"
    assert decode(shape, KNOWN).topic == "t"
    assert vocabulary.unknown == [f"family: {path}"]
    assert not vocabulary.learn("family", Message, unknown)
    with pytest.raises(msgspec.ValidationError, match="unknown field `other`"):
        decode(shape, unknown | {"other": 1})


def test_each_field_is_noted_once_per_family_in_the_order_of_first_sight() -> None:
    vocabulary = Vocabulary()
    first = message({"b": 1}, {"b": 2, "a": 3}, c=4)
    assert vocabulary.learn("x", Message, first)
    assert vocabulary.learn("y", Message, message(c=5))
    assert vocabulary.learn("x", Message, first | {"d": 6})
    assert vocabulary.unknown == ["x: data[].b", "x: data[].a", "x: c", "y: c", "x: d"]
    assert decode(vocabulary.form("x", Message), first | {"d": 6}).topic == "t"


def test_what_nobody_reads_is_not_published_with_a_type_that_is_published_whole() -> None:
    unknown = message({"legs": [{"px": "2", "old": 1, "new": 2}]})
    vocabulary = Vocabulary()
    assert vocabulary.learn("f", Message, unknown)
    assert msgspec.json.encode(decode(vocabulary.form("f", Message), unknown).data[0].legs) == b'[{"px":"2"}]'


def test_other_types_than_expected_are_nothing_new() -> None:
    odd = message({"legs": [1, {"px": {"new": 1}}], "fees": [{"new": 1}], "levels": {"new": 1}}, data={"new": 1})
    assert not Vocabulary().learn("f", Message, odd)
    assert not Vocabulary().learn("f", Message, [odd])


def test_so_many_are_remembered_and_then_decoding_is_lenient() -> None:
    vocabulary = Vocabulary()
    many = message(**{f"n{number}": 1 for number in range(MAX_UNKNOWN)})
    assert vocabulary.learn("full", Message, many)
    assert len(vocabulary.unknown) == MAX_UNKNOWN
    assert not vocabulary.learn("full", Message, many)
    assert not vocabulary.learn("other", Message, KNOWN)
    for family in ("full", "other"):
        assert vocabulary.form(family, Message) is not Message
        assert vocabulary.learn(family, Message, message(more=1))
        assert vocabulary.form(family, Message) is Message
        assert not vocabulary.learn(family, Message, message(more=1, still=2))
    assert vocabulary.unknown == [f"full: n{number}" for number in range(MAX_UNKNOWN)]


def test_one_message_with_too_many_fills_the_memory() -> None:
    vocabulary = Vocabulary()
    many = message(**{f"n{number}": 1 for number in range(MAX_UNKNOWN + 50)})
    assert vocabulary.learn("f", Message, many)
    assert vocabulary.form("f", Message) is Message
    assert vocabulary.unknown == [f"f: n{number}" for number in range(MAX_UNKNOWN)]


def test_long_names_are_cut() -> None:
    vocabulary = Vocabulary()
    long, longer = message(**{"n" * 200: 1}), message(**{"n" * 201: 1})
    assert vocabulary.learn("family", Message, long)
    assert decode(vocabulary.form("family", Message), long).topic == "t"
    assert vocabulary.learn("family", Message, longer)
    assert vocabulary.unknown == ["family: " + "n" * (MAX_LENGTH - 8)]


def test_a_name_that_no_struct_can_have_makes_its_family_lenient() -> None:
    vocabulary = Vocabulary()
    odd = message({'a"b': 1}, c=2)
    assert vocabulary.learn("f", Message, odd)
    assert vocabulary.form("f", Message) is Message
    assert not vocabulary.learn("f", Message, odd)
    assert vocabulary.unknown == ['f: data[].a"b', "f: c"]


FREE_NAMES = st.text(max_size=6).filter(lambda name: name not in {"topic", "data", "lastPrice", "levels", "px"})


@given(names=st.lists(FREE_NAMES, max_size=4))
def test_whatever_the_names_are_the_next_message_can_be_decoded(names: list[str]) -> None:
    new = dict.fromkeys(names)
    unknown = message(new, {"parent": new}, **new)
    vocabulary = Vocabulary()
    vocabulary.learn("f", Message, unknown)
    assert decode(vocabulary.form("f", Message), unknown).topic == "t"
    known = {"s", "legs", "parent", "fees", "old", "ts"}
    assert len(vocabulary.unknown) >= 3 * len(new.keys() - known)
