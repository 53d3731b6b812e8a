"""A field that a venue leaves out is null in the event, never zero, never false, never an empty text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msgspec.structs import asdict

from pipeline.model.errors import BadMessage
from pipeline.model.events import Event
from tests.exchanges.test_unknown_fields import RECEIVED, TYPED, normalizer

DERIVED = {
    ("book_update", "is_reset"),  # by comparing two sequence numbers
    ("balance", "is_snapshot"),  # of a push that does not tell what it is
    ("position", "is_snapshot"),
    ("instrument", "is_inverse"),
    ("instrument", "is_tradable"),  # not known to be
    ("instrument", "state"),
    ("fill", "price"),  # the encoder refuses a fill without them
    ("fill", "size"),
    ("fill", "base_size"),
}
"""Fields that are not a wire field's value alone, or have no null."""


def lacking(value: Any) -> Iterator[Any]:
    """The same once without each member of an object in it."""
    if isinstance(value, dict):
        for name, member in value.items():
            others = {each: rest for each, rest in value.items() if each != name}
            yield others
            yield from (others | {name: less} for less in lacking(member))
    elif isinstance(value, list) and all(isinstance(each, dict) for each in value):
        for number, element in enumerate(value):
            yield from ([*value[:number], less, *value[number + 1 :]] for less in lacking(element))


def invented(before: Event, after: Event) -> set[str]:
    """Fields that had a value, and now another one that stands for none."""
    old, new = (asdict(each) for each in (before, after))
    return {name for name, value in new.items() if value != old[name] and value in (0, "0", "")}


def test_no_value_is_invented_for_what_is_missing() -> None:
    read = 0
    for venue, stream, line in TYPED:
        message = json.loads(line)
        before = normalizer(venue, stream).normalize(line, RECEIVED)
        for data in lacking(message["data"]):
            other = json.dumps(message | {"data": data}).encode()
            try:
                after = normalizer(venue, stream).normalize(other, RECEIVED)
            except BadMessage:
                continue
            for one, two in zip(before, after, strict=False):
                if type(one) is type(two):
                    read += 1
                    assert {(one.KIND, name) for name in invented(one, two)} <= DERIVED, other
    assert read > 5_000
