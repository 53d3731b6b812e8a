"""Times of encoded records, from their first fields: librdkafka gives none back with a failed one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.avro.schemas import HEAD, split_header
from pipeline.sink.records import UNKNOWN_TIME, Record

_NULLABLE = {"venue": False, "market": False, "instrument": True, "symbol": True, "account": True, "connection": False}


def timestamp_ms(record: bytes, *, nullable: bool) -> int:
    """The exchange time in milliseconds, or the receive time where there is none; `UNKNOWN_TIME` if it has neither.

    `nullable` says whether the schema has the exchange time as a union with null.
    """
    happened, received = _times(record, nullable=nullable)
    time = received if happened is None else happened
    return UNKNOWN_TIME if time is None else time // 1000


def receive_time(record: bytes, *, nullable: bool) -> int:
    """The receive time in microseconds, 0 if it has none; `nullable` as in `timestamp_ms`."""
    return _times(record, nullable=nullable)[1] or 0


def as_published(purged: Iterable[Record], time_of: Callable[[Record], int]) -> list[Record]:
    """Records that librdkafka's purge gave back unsent, in the order in which they were published, per topic and key.

    It gives back, partition by partition, what it had not looked at before what it had already set aside for the next
    request, although that is older: two runs, each in order. `time_of` gives the receive time.
    """
    runs: dict[tuple[str, bytes], list[list[tuple[int, Record]]]] = {}
    for record in purged:
        time, own = time_of(record), runs.setdefault((record.topic, record.key), [])
        if not own or time < own[-1][-1][0]:
            own.append([])
        own[-1].append((time, record))
    for own in runs.values():
        own.sort(key=lambda run: (run[0][0], run[-1][0]))
    return [record for own in runs.values() for run in own for _, record in run]


def _times(record: bytes, *, nullable: bool) -> tuple[int | None, int | None]:
    """Exchange time and receive time in microseconds."""
    try:
        _, fields = split_header(record)
        at = 0
        for name in HEAD:
            at = _skip_text(fields, at, nullable=_NULLABLE[name])
        branch = 1
        if nullable:
            branch, at = _long(fields, at)
        happened, at = _long(fields, at) if branch else (None, at)
        return happened, _long(fields, at)[0]
    except (IndexError, ValueError):
        return None, None


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
