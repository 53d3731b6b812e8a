"""Times of encoded records, from their first fields: librdkafka gives none back with a failed one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from pipeline.avro.schemas import HEAD, split_header
from pipeline.sink.records import UNKNOWN_TIME, Record

_NULLABLE = {"venue": False, "market": False, "instrument": True, "symbol": True, "account": True, "connection": False}


def timestamp_ms(record: bytes, *, nullable: bool) -> int:
    """The exchange time in milliseconds, or the receive time where there is none; `UNKNOWN_TIME` if it has neither.

    `nullable` says whether the schema has the exchange time as a union with null.
    """
    happened, received, _ = _numbers(record, nullable=nullable)
    time = received if happened is None else happened
    return UNKNOWN_TIME if time is None else time // 1000


def receive_time(record: bytes, *, nullable: bool) -> int:
    """The receive time in microseconds, 0 if it has none; `nullable` as in `timestamp_ms`."""
    return _numbers(record, nullable=nullable)[1] or 0


Place = tuple[int, int, int]
"""What rises along the records of one topic and key: receive time, exchange time, sequence number; 0 for none."""


def place(record: bytes, *, nullable: bool) -> Place:
    """Where a record stands among those of its topic and key; `nullable` as in `timestamp_ms`."""
    happened, received, sequence = _numbers(record, nullable=nullable)
    return received or 0, happened or 0, sequence or 0


def as_published(purged: Iterable[Record], place_of: Callable[[Record], Place]) -> list[Record]:
    """Records that librdkafka's purge gave back unsent, in the order in which they were published, per topic and key.

    It gives back, partition by partition, what it had not looked at before what it had already set aside for the next
    request, although that is older: few runs, each in order.
    """
    by_key: dict[tuple[str, bytes], _Run] = {}
    for record in purged:
        by_key.setdefault((record.topic, record.key), []).append((place_of(record), record))
    return [record for given in by_key.values() for _, record in _joined(given)]


_Run = list[tuple[Place, Record]]


def _joined(given: _Run) -> _Run:
    runs = _runs(given, 1)
    if len(runs) > 1:
        runs.sort(key=lambda run: (run[0][0][0], run[-1][0][0]))
        return [each for run in runs for each in run]
    # All that one read of a socket brought has the same receive time. What the venue says does not rise for certain,
    # so that it counts only if it puts whole runs behind one another.
    runs = sorted(_runs(given, 3), key=lambda run: (run[0][0], run[-1][0]))
    if any(run[-1][0] > following[0][0] for run, following in pairwise(runs)):
        return given
    return [each for run in runs for each in run]


def _runs(given: _Run, count: int) -> list[_Run]:
    """Cut wherever the first `count` numbers fall."""
    runs: list[_Run] = []
    for each in given:
        if not runs or each[0][:count] < runs[-1][-1][0][:count]:
            runs.append([])
        runs[-1].append(each)
    return runs


def _numbers(record: bytes, *, nullable: bool) -> tuple[int | None, int | None, int | None]:
    """Exchange time and receive time in microseconds, and the sequence number."""
    try:
        _, fields = split_header(record)
        at = 0
        for name in HEAD:
            at = _skip_text(fields, at, nullable=_NULLABLE[name])
        branch = 1
        if nullable:
            branch, at = _long(fields, at)
        happened, at = _long(fields, at) if branch else (None, at)
        received, at = _long(fields, at)
        branch, at = _long(fields, at)
        return happened, received, _long(fields, at)[0] if branch else None
    except (IndexError, ValueError):
        return None, None, None


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
