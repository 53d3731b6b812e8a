"""The time of an encoded record, from its first fields: librdkafka does not give it back with a failed one. Pure."""

from __future__ import annotations

from pipeline.avro.schemas import HEAD, split_header
from pipeline.sink.records import UNKNOWN_TIME

_NULLABLE = {"venue": False, "market": False, "instrument": True, "symbol": True, "account": True, "connection": False}


def timestamp_ms(record: bytes, *, nullable: bool) -> int:
    """The exchange time in milliseconds, or the receive time where there is none; `UNKNOWN_TIME` if it has neither.

    `nullable` says whether the schema has the exchange time as a union with null.
    """
    try:
        _, fields = split_header(record)
        at = 0
        for name in HEAD:
            at = _skip_text(fields, at, nullable=_NULLABLE[name])
        time: int | None
        if nullable:
            branch, at = _long(fields, at)
            time, at = _long(fields, at) if branch else (None, at)
        else:
            time, at = _long(fields, at)
        if time is None:
            time, at = _long(fields, at)
    except (IndexError, ValueError):
        return UNKNOWN_TIME
    return time // 1000


def _skip_text(fields: bytes, at: int, *, nullable: bool) -> int:
    if nullable:
        branch, at = _long(fields, at)
        if not branch:
            return at
    length, at = _long(fields, at)
    return at + length


def _long(fields: bytes, at: int) -> tuple[int, int]:
    """One zigzag varint, and where the next field starts."""
    number = shift = 0
    while True:
        byte = fields[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
