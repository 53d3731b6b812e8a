from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.avro.codec import Schemas
from pipeline.avro.compatibility import differences
from pipeline.avro.schemas import Schema, load_schema, to_decimals
from tests.avro.test_released import RELEASES, add, compatible, field, level


def changed(change: Callable[[Schema], object]) -> Schema:
    schema = copy.deepcopy(load_schema("book_update"))
    change(schema)
    return schema


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda schema: add(schema, type="string"), ["field added: is new and has no default"]),
        (lambda schema: field(schema, "channel").update(type="long"), ["field channel: string became long"]),
        (lambda schema: field(schema, "depth").update(type="int", default=0), ["field depth: is no longer nullable"]),
        (lambda schema: field(schema, "epoch").update(type="int"), ["field epoch: long became int"]),
        (lambda schema: field(schema, "channel").update(name="feed"), ["field feed: is new and has no default"]),
        (lambda schema: level(schema).append({"name": "added", "type": "long"}),
         ["field bids.added: is new and has no default"]),
        (lambda schema: schema.update(name="Book"), ["record BookUpdate became Book"]),
    ],
    ids=["without default", "another type", "not nullable", "narrowed", "renamed", "nested", "record renamed"],
)  # fmt: skip
def test_what_is_incompatible_is_named_by_field(change: Callable[[Schema], object], expected: list[str]) -> None:
    new, old = changed(change), load_schema("book_update")
    found = differences(new, old)
    assert [text for text in found if text in expected] == expected
    assert all(text.startswith(("field ", "record ")) for text in found)
    if "record" not in expected[0]:  # fastavro does not compare the names of records at the top
        assert not compatible(new, old)


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: add(schema, type=["null", "string"], default=None),
        lambda schema: schema["fields"].pop(),
        lambda schema: field(schema, "channel").update(type=["null", "string"]),
        lambda schema: field(schema, "channel").update(name="feed", aliases=["channel"]),
    ],
    ids=["with default", "removed", "made nullable", "alias"],
)
def test_what_is_compatible(change: Callable[[Schema], object]) -> None:
    assert differences(changed(change), load_schema("book_update")) == []


def test_text_and_decimals_are_different_things() -> None:
    old = load_schema("trade")
    expected = ["field price: string became decimal(38,18), and the bytes of one pass for the other"]
    assert [text for text in differences(to_decimals(old), old) if "price" in text][:1] == expected
    assert differences(old, to_decimals(old)) != []


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        ({"type": "enum", "name": "E", "symbols": ["A"]}, {"type": "enum", "name": "E", "symbols": ["A", "B"]},
         ["field x: no longer has B"]),
        ({"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 8},
         ["field x: fixed(8) became fixed(4)"]),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, ["field x: long became int"]),
        (["null", "int"], ["null", "long"], ["field x: long became int"]),
        ("double", "long", []),
        (["null", "double"], "int", []),
    ],
    ids=["enum", "fixed", "map", "in a union", "promoted", "promoted into a union"],
)  # fmt: skip
def test_types(reader: Any, writer: Any, expected: list[str]) -> None:
    def record(kind: Any) -> Schema:
        return {"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]}

    assert differences(record(reader), record(writer)) == expected


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_it_agrees_about_what_was_released(release: Any) -> None:
    for path in release.glob("*.avsc"):
        assert differences(load_schema(path.stem), load_schema(path.stem, release)) == []
    for codec in Schemas.load("decimal").codecs.values():
        assert differences(codec.schema, codec.schema) == []
