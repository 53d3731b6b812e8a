"""Records on disk: each with a mark, its length and a checksum, so that damage costs what it hits and no more. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

UNKNOWN_TIME = -1
"""A timestamp that has to be read from the record itself."""


class Record(NamedTuple):
    """One encoded record on its way to Kafka."""

    topic: str
    key: bytes
    timestamp_ms: int
    value: bytes

    @property
    def size(self) -> int:
        """Bytes on disk, exactly for topics in ASCII."""
        return OVERHEAD_BYTES + len(self.topic) + len(self.key) + len(self.value)


class Damage(NamedTuple):
    """Bytes `start` to `end` (exclusive) hold no readable record."""

    start: int
    end: int


MARK = b"SPL1"
_HEAD = struct.Struct("<4sII")  # mark, length of the body, checksum of length and body
_BODY = struct.Struct("<qBH")  # timestamp, lengths of topic and key; topic, key and value follow
OVERHEAD_BYTES = _HEAD.size + _BODY.size
MAX_BODY_BYTES = 64 * 1024**2
"""A larger length can only be damage."""


def pack(records: Iterable[Record]) -> bytes:
    """The bytes of these records. Raises `struct.error` for topics over 255 bytes and keys over 65535."""
    parts: list[bytes] = []
    for topic, key, timestamp_ms, value in records:
        name = topic.encode()
        body = b"".join((_BODY.pack(timestamp_ms, len(name), len(key)), name, key, value))
        parts.append(_HEAD.pack(MARK, len(body), crc32(body, len(body))))
        parts.append(body)
    return b"".join(parts)


def parse(data: bytes, limit: int, *, final: bool) -> tuple[list[Record], list[Damage], int]:
    """At most `limit` records from the start of `data`, the damage between them, and where to go on.

    If more bytes may follow (not `final`), what is cut off at the end is left for the next time; else it is damage.
    """
    records: list[Record] = []
    damages: list[Damage] = []
    at = 0
    while at < len(data) and len(records) < limit:
        end = _record_end(data, at)
        if end is not None and end <= len(data):
            record = _record(data, at, end)
            if record is not None:
                records.append(record)
                at = end
                continue
        elif end is not None and not final:
            break
        resumed = _next_record(data, at + 1, final=final)
        if resumed is None:
            break
        damages.append(Damage(at, resumed))
        at = resumed
    return records, damages, at


def _record_end(data: bytes, at: int) -> int | None:
    """Where a record that starts here says that it ends (maybe past the data); None if none starts here."""
    if len(data) - at < _HEAD.size:
        return len(data) + 1 if MARK.startswith(data[at : at + 4]) or data.startswith(MARK, at) else None
    mark, length, _ = _HEAD.unpack_from(data, at)
    if mark != MARK or not _BODY.size <= length <= MAX_BODY_BYTES:
        return None
    return int(at + _HEAD.size + length)


def _record(data: bytes, at: int, end: int) -> Record | None:
    """The record in these bytes; None if its checksum does not fit."""
    _, length, checksum = _HEAD.unpack_from(data, at)
    body = data[at + _HEAD.size : end]
    if crc32(body, length) != checksum:
        return None
    timestamp_ms, name_length, key_length = _BODY.unpack_from(body)
    key_at = _BODY.size + name_length
    value_at = key_at + key_length
    return Record(body[_BODY.size : key_at].decode(), body[key_at:value_at], timestamp_ms, body[value_at:])


def _next_record(data: bytes, start: int, *, final: bool) -> int | None:
    """Where the next intact record starts, or the end of final data; None if more bytes are needed to tell."""
    at = data.find(MARK, start)
    while at >= 0:
        end = _record_end(data, at)
        if end is not None and end > len(data) and not final:
            return None
        if end is not None and end <= len(data) and _record(data, at, end) is not None:
            return at
        at = data.find(MARK, at + 1)
    return len(data) if final else None
