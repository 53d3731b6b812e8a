"""The contract `schemas/*.avsc`: its two forms, and the headers that name a schema in front of a record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastavro.schema import fingerprint as fingerprint_of
from fastavro.schema import to_parsing_canonical_form

from pipeline.avro.pieces import PRECISION, SCALE

Schema = dict[str, Any]
"""A record schema as parsed from JSON."""

FOLDER = Path(__file__).resolve().parents[2] / "schemas"
"""Where the schemas are kept, one file per kind of event."""

ORDER_COMMAND = "order_command"
"""The kind of record that we read and others write: no event, so without the head that events share."""

HEAD = ("venue", "market", "instrument", "symbol", "account", "connection")
"""The first fields of every record, which its `Origin` holds."""

_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": PRECISION, "scale": SCALE}
_CONFLUENT, _SINGLE_OBJECT = b"\x00", b"\xc3\x01"


def load_schema(kind: str, folder: Path = FOLDER) -> Schema:
    """The schema of a kind of event as committed: decimals as text. Raises `OSError` for an unknown kind."""
    schema: Schema = json.loads((folder / f"{kind}.avsc").read_text(encoding="utf-8"))
    return schema


def to_decimals(schema: Schema) -> Schema:
    """A copy of the schema with every decimal text as Avro decimal(38,18) in bytes."""
    copy: Schema = _rewritten(schema, lambda node: _DECIMAL if node.get("logicalType") == "decimal-text" else node)
    return copy


def without_logical_types(schema: Schema) -> Schema:
    """A copy that reads numbers as they are written, be they times that no calendar has."""
    copy: Schema = _rewritten(schema, lambda node: {key: node[key] for key in node if key != "logicalType"})
    return copy


def _rewritten(node: Any, change: Callable[[Schema], Schema]) -> Any:
    if isinstance(node, list):
        return [_rewritten(item, change) for item in node]
    if isinstance(node, dict):
        return {key: _rewritten(value, change) for key, value in change(node).items()}
    return node


def canonical_form(schema: Schema) -> str:
    """The parsing canonical form: equal for schemas that write the same bytes."""
    return to_parsing_canonical_form(schema)


def fingerprint(schema: Schema) -> bytes:
    """CRC-64-AVRO of the canonical form, little-endian as records carry it."""
    return bytes.fromhex(fingerprint_of(canonical_form(schema), "CRC-64-AVRO"))


def single_object_header(schema: Schema) -> bytes:
    """The header of Avro's single-object encoding: marker and fingerprint, ten bytes."""
    return _SINGLE_OBJECT + fingerprint(schema)


def confluent_header(schema_id: int) -> bytes:
    """The header of the Confluent wire format: zero and the registry's identifier, five bytes."""
    return _CONFLUENT + schema_id.to_bytes(4, "big")


def split_header(record: bytes) -> tuple[int | bytes, bytes]:
    """What names the schema (the registry's identifier, or the fingerprint), and the encoded fields after it.

    Raises `ValueError` if the record starts with neither header.
    """
    if record.startswith(_SINGLE_OBJECT) and len(record) >= 10:
        return record[2:10], record[10:]
    if record.startswith(_CONFLUENT) and len(record) >= 5:
        return int.from_bytes(record[1:5], "big"), record[5:]
    raise ValueError(f"no Avro header that names a schema: {record[:10].hex()}")
