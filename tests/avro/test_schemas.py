from __future__ import annotations

import json
from inspect import get_annotations
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint as fastavro_fingerprint
from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields

from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import (
    FOLDER,
    HEAD,
    ORDER_COMMAND,
    Schema,
    confluent_header,
    fingerprint,
    load_schema,
    single_object_header,
    split_header,
    to_decimals,
)
from pipeline.model.account import AccountEvent
from pipeline.model.events import EVENTS, KINDS, Event
from pipeline.sink.topics import group_of

DECIMAL_TEXT = {"type": "string", "logicalType": "decimal-text"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
WITHOUT_EXCHANGE_TIME = {
    "candle",
    "instrument",
    "feed_status",
    "dead_letter",
    "raw",
    "account_raw",
    "wire_message",
    "order_result",
}
TYPES: dict[str, list[Any]] = {
    "str": ["string"],
    "State": ["string"],
    "ErrorClass": ["string"],
    "DecimalText": [DECIMAL_TEXT],
    "Micros": [MICROS],
    "bool": ["boolean"],
    "float": ["double"],
    "bytes": ["bytes"],
    "int": ["int", "long"],
    "Sequence[str]": [{"type": "array", "items": "string"}],
    "Mapping[str, str]": [{"type": "map", "values": "string"}],
    "Mapping[str, DecimalText]": [{"type": "map", "values": DECIMAL_TEXT}],
}


def published(event_class: type[Event]) -> list[FieldInfo]:
    return [field for field in fields(event_class) if field.name not in ("origin", "layout")]


def written(event_class: type[Event]) -> dict[str, str]:
    """As they are written."""
    return {name: text for base in reversed(event_class.__mro__) for name, text in get_annotations(base).items()}


def test_every_kind_has_its_schema_and_there_is_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.avsc")} == {*KINDS, ORDER_COMMAND}


@pytest.mark.parametrize("event_class", EVENTS, ids=lambda event_class: event_class.KIND)
class TestContract:
    def test_names_and_order(self, event_class: type[Event]) -> None:
        schema = load_schema(event_class.KIND)
        assert (schema["type"], schema["namespace"], schema["name"]) == (
            "record",
            "pipeline.events",
            event_class.__name__,
        )
        names = [field["name"] for field in schema["fields"]]
        assert names == [*HEAD, *(field.name for field in published(event_class))]

    def test_identity(self, event_class: type[Event]) -> None:
        schema = load_schema(event_class.KIND)
        assert schema["identity"] == list(event_class.IDENTITY)
        assert set(event_class.IDENTITY) <= {field["name"] for field in schema["fields"]}

        assert not {"extras", "fees"} & set(event_class.IDENTITY), "an identity is made of single values"

    def test_types_and_defaults(self, event_class: type[Event]) -> None:
        annotations = written(event_class)
        schema_fields = {field["name"]: field for field in load_schema(event_class.KIND)["fields"]}
        for attribute in published(event_class):
            field = schema_fields[attribute.name]
            annotation = annotations[attribute.name]
            if annotation == "list[Row]":
                items = field["type"]["items"]
                assert items == "Level" or items["name"] == "Level"
                assert "default" not in field
                continue
            null = annotation.endswith(" | None")
            if attribute.name == "exchange_time":
                null = event_class.KIND in WITHOUT_EXCHANGE_TIME
            plain = field["type"][1] if null else field["type"]
            assert plain in TYPES[annotation.removesuffix(" | None")], attribute.name
            if null:
                assert field["type"] == ["null", plain], attribute.name
                assert field["default"] is None, attribute.name
                assert attribute.default in (NODEFAULT, None), attribute.name
            elif attribute.required:
                assert "default" not in field, attribute.name
            else:
                is_made = attribute.default_factory is not NODEFAULT
                default = attribute.default_factory() if is_made else attribute.default
                default = list(default) if isinstance(default, tuple) else default
                assert field["default"] == default, attribute.name
                assert type(field["default"]) is type(default), attribute.name

    def test_head(self, event_class: type[Event]) -> None:
        head = load_schema(event_class.KIND)["fields"][:6]
        null = ["null", "string"]
        assert [field["type"] for field in head] == ["string", "string", null, null, null, "string"]

    def test_all_is_documented(self, event_class: type[Event]) -> None:
        schema = load_schema(event_class.KIND)
        undocumented = [name for name, node in nodes(schema) if not node.get("doc", "").endswith(".")]
        assert undocumented == []
        unexplained = [
            name for name, node in nodes(schema) if isinstance(node["type"], list) and "null" not in node["doc"]
        ]
        assert unexplained == []

    def test_times_name_their_unit(self, event_class: type[Event]) -> None:
        for field in load_schema(event_class.KIND)["fields"]:
            if field["type"] in (MICROS, ["null", MICROS]):
                assert "microseconds" in field["doc"], field["name"]

    def test_both_forms_are_valid_avro(self, event_class: type[Event]) -> None:
        schema = load_schema(event_class.KIND)
        fastavro.parse_schema(schema)
        fastavro.parse_schema(to_decimals(schema))


def test_what_carries_an_account_is_published_with_its_kinds() -> None:
    private = {event.KIND for event in EVENTS if issubclass(event, AccountEvent)}
    assert private == {"order", "fill", "position", "balance", "account_greeks", "account_raw"}
    assert {event.KIND for event in EVENTS if group_of(event.KIND) == "account"} == private
    assert all("account" in KINDS[kind].IDENTITY for kind in private)


def nodes(schema: Schema) -> list[tuple[str, Schema]]:
    """All records and fields with their names."""
    found = [(schema["name"], schema)]
    for field in schema["fields"]:
        found.append((field["name"], field))
        items = field["type"].get("items") if isinstance(field["type"], dict) else None
        if isinstance(items, dict):
            found += nodes(items)
    return found


def test_level_is_the_same_everywhere() -> None:
    levels = [node for kind in KINDS for name, node in nodes(load_schema(kind)) if name == "Level"]
    assert len(levels) == 2
    assert levels[0] == levels[1]
    assert [(field["name"], field["type"]) for field in levels[0]["fields"]] == [
        ("price", DECIMAL_TEXT),
        ("size", DECIMAL_TEXT),
        ("rpi_size", ["null", DECIMAL_TEXT]),
        ("order_count", ["null", "int"]),
    ]


def test_decimals_replace_every_decimal_text_and_nothing_else() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
    for kind in KINDS:
        schema = load_schema(kind)
        before = json.dumps(schema)
        converted = json.dumps(to_decimals(schema))
        assert json.dumps(schema) == before
        assert converted == before.replace(json.dumps(DECIMAL_TEXT), json.dumps(decimal))
        assert "decimal-text" not in converted


def test_fingerprint_is_the_one_of_the_specification() -> None:
    # The specification's own value for "null" is 0x63DD24E7CC258F8A; records carry it little-endian.
    assert fastavro_fingerprint('"null"', "CRC-64-AVRO") == (0x63DD24E7CC258F8A).to_bytes(8, "little").hex()
    schema = load_schema("mark_price")
    assert single_object_header(schema) == b"\xc3\x01" + fingerprint(schema)
    assert len(single_object_header(schema)) == 10


def test_fingerprint_ignores_what_does_not_change_the_bytes() -> None:
    schema = load_schema("mark_price")
    assert fingerprint({**schema, "doc": "other", "identity": []}) == fingerprint(schema)
    assert fingerprint(to_decimals(schema)) != fingerprint(schema)
    assert len({fingerprint(load_schema(kind)) for kind in KINDS}) == len(KINDS)


def test_headers_are_split_off_again() -> None:
    assert confluent_header(0x01020304) == b"\x00\x01\x02\x03\x04"
    assert split_header(confluent_header(7) + b"fields") == (7, b"fields")
    schema = load_schema("trade")
    assert split_header(single_object_header(schema) + b"\x00") == (fingerprint(schema), b"\x00")


@pytest.mark.parametrize("record", [b"", b"\x00\x00\x00\x01", b"\xc3\x01\x00", b"\xc3\x02345678901234", b"{}"])
def test_records_without_a_header_are_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="no Avro header"):
        split_header(record)


def test_schemas_hold_one_codec_per_kind() -> None:
    text, decimal = Schemas.load(), Schemas.load("decimal")
    assert list(text.codecs) == list(KINDS)
    assert text.schema("trade") == load_schema("trade")
    assert decimal.schema("trade") == to_decimals(load_schema("trade"))
    assert json.loads(decimal["trade"].text) == decimal.schema("trade")
    assert text.kind_of(fingerprint(load_schema("bbo"))) == "bbo"
    with pytest.raises(KeyError):
        text.kind_of(decimal["bbo"].fingerprint)
