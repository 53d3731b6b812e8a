"""Whoever reads with today's schema can read what any release has written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.read import SchemaResolutionError

from pipeline.avro.schemas import FOLDER, Schema, load_schema, to_decimals
from pipeline.model.events import KINDS

RELEASES = sorted(path for path in (FOLDER / "released").iterdir() if path.is_dir())
SAMPLES: dict[str, list[Any]] = {
    "string": ["", "text"],
    "boolean": [False, True],
    "double": [-0.5],
    "bytes": [b"", b"\xff"],
}


def samples(avro_type: Any, named: dict[str, Any]) -> list[Any]:
    """Values of a type that between them take every branch of every union."""
    match avro_type:
        case list():
            return [value for branch in avro_type for value in samples(branch, named)]
        case "null":
            return [None]
        case "int":
            return [-(2**31), 2**31 - 1]
        case "long":
            return [-(2**63), 2**63 - 1]
        case {"type": "record"}:
            named[avro_type["name"]] = avro_type
            return list(records(avro_type, named))
        case {"type": "array"}:
            return [[], samples(avro_type["items"], named)]
        case {"type": "map"}:
            return [{}, {"key": samples(avro_type["values"], named)[0]}]
        case {"logicalType": "timestamp-micros"}:
            return [0, 4_102_444_800_000_000]
        case {"logicalType": "decimal-text"}:
            return ["1.50"]
        case {"logicalType": "decimal"}:
            return [b"\x01"]
        case str() if avro_type in named:
            return samples(named[avro_type], named)
        case _:
            return SAMPLES[avro_type]


def records(schema: Schema, named: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns = {field["name"]: samples(field["type"], named) for field in schema["fields"]}
    for number in range(max(len(column) for column in columns.values())):
        yield {name: column[number % len(column)] for name, column in columns.items()}


def compatible(new: Schema, old: Schema) -> bool:
    """Whether readers with `new` get from records written with `old` each value that both schemas have."""
    shared = {field["name"] for field in new["fields"]} & {field["name"] for field in old["fields"]}
    for record in records(old, {}):
        stream = BytesIO()
        fastavro.schemaless_writer(stream, old, record)
        written = stream.getvalue()
        expected = fastavro.schemaless_reader(BytesIO(written), old, None)
        try:
            read = fastavro.schemaless_reader(BytesIO(written), old, new)
        except SchemaResolutionError:
            return False
        if any(not _kept(expected[name], read[name]) for name in shared):  # type: ignore[index]
            return False
    return True


def _kept(old: Any, new: Any) -> bool:
    """Equal, but for fields that one of the two does not have."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_kept, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return all(_kept(old[name], new[name]) for name in old.keys() & new.keys())
    return bool(old == new)


def test_there_is_a_release_to_hold_on_to() -> None:
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_todays_schemas_read_what_a_release_has_written(release: Path) -> None:
    for path in release.glob("*.avsc"):
        assert path.stem in KINDS, "a kind that was released does not go away"
        new, old = load_schema(path.stem), load_schema(path.stem, release)
        assert compatible(new, old), path.stem
        assert compatible(to_decimals(new), to_decimals(old)), path.stem
        assert set(old["identity"]) <= {field["name"] for field in new["fields"]}, path.stem


def add(schema: Schema, **field: Any) -> None:
    schema["fields"].append({"name": "added", **field})


def level(schema: Schema) -> list[Any]:
    fields: list[Any] = next(f for f in schema["fields"] if f["name"] == "bids")["type"]["items"]["fields"]
    return fields


def field(schema: Schema, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(f for f in schema["fields"] if f["name"] == name)
    return found


def reverse(schema: Schema) -> None:
    """The fields in the other order; a level is still defined where it comes first."""
    schema["fields"].reverse()
    bids, asks = field(schema, "bids"), field(schema, "asks")
    bids["type"], asks["type"] = asks["type"], bids["type"]


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: add(schema, type=["null", "string"], default=None),
        lambda schema: schema["fields"].pop(),
        lambda schema: field(schema, "depth").update(type=["null", "long"]),
        lambda schema: field(schema, "channel").update(type=["null", "string"]),
        lambda schema: level(schema).append({"name": "added", "type": ["null", "long"], "default": None}),
        reverse,
    ],
    ids=["added with default", "removed", "widened", "made nullable", "level extended", "reordered"],
)
def test_compatible_changes(change: Callable[[Schema], object]) -> None:
    old = load_schema("book_update")
    new = copy.deepcopy(old)
    change(new)
    assert compatible(new, old)


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: add(schema, type="string"),
        lambda schema: field(schema, "channel").update(type="long"),
        lambda schema: field(schema, "depth").update(type="int", default=0),
        lambda schema: field(schema, "epoch").update(type="int"),
        lambda schema: field(schema, "channel").update(name="feed"),
        lambda schema: level(schema).append({"name": "added", "type": "long"}),
    ],
    ids=["added without default", "another type", "no longer nullable", "narrowed", "renamed", "level extended"],
)
def test_incompatible_changes(change: Callable[[Schema], object]) -> None:
    old = load_schema("book_update")
    new = copy.deepcopy(old)
    change(new)
    assert not compatible(new, old)
