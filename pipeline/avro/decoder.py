"""For readers: records back from Avro, and events or records as JSON-ready objects of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any, cast

from fastavro import schemaless_reader

from pipeline.avro.schemas import HEAD, Schema
from pipeline.model.events import Event, Layout, Row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def decode(schema: Schema, fields: bytes) -> dict[str, Any]:
    """One record without its header; quick if `schema` went through `fastavro.parse_schema`.

    Raises `EOFError` for a record that is cut short, and `ValueError` for one with more bytes than the schema says.
    """
    stream = BytesIO(fields)
    record = cast("dict[str, Any]", schemaless_reader(stream, schema, None))
    if stream.tell() != len(fields):
        raise ValueError(f"{len(fields) - stream.tell()} bytes are left after the record")
    return record


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as JSON shows it: the Avro fields in order, times in microseconds, levels as objects, bytes as text."""
    result: dict[str, Any] = {"event": event.KIND}
    for name in HEAD:
        result[name] = getattr(event.origin, name)
    layout: Layout = getattr(event, "layout", ())
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in ("bids", "asks"):
            result[name] = [_level(layout, row) for row in value]
        elif name not in ("origin", "layout"):
            result[name] = _plain(value)
    return result


def record_to_json(kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The same shape from a decoded record, in either form of decimals; Avro decimals lose trailing zeros."""
    return {"event": kind, **{name: _plain(value) for name, value in record.items()}}


def _level(layout: Layout, row: Row) -> dict[str, Any]:
    named = {name: value for name, value in zip(layout, row, strict=False) if name is not None}
    level: dict[str, Any] = {name: named[name] for name in ("price", "size", "rpi_size") if name in named}
    if "order_count" in named:
        level["order_count"] = int(named["order_count"])
    return level


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return (value - _EPOCH) // _MICROSECOND
        case Decimal():
            return _decimal_text(value)
        case bytes():
            return _text(value)
        case str():
            return value
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case Sequence():
            return [_plain_level(item) if isinstance(item, Mapping) else _plain(item) for item in value]
    return value


def _plain_level(level: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(item) for name, item in level.items() if item is not None or name in ("price", "size")}


def _decimal_text(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "backslashreplace")
