"""Whose an encoded record is, read from its first fields: for records that are given up unsent. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pipeline.avro.schemas import HEAD, split_header
from pipeline.model.events import Micros, Origin
from pipeline.sink.records import Record
from pipeline.sink.times import receive_time

_NULLABLE = frozenset({"instrument", "symbol", "account"})


@attrs.frozen
class Topic:
    """What a topic's name says about the records in it."""

    kind: str
    nullable_time: bool
    """Whether the schema has the exchange time as a union with null."""


@attrs.define
class Heads:
    """Reads the heads of records; remembers origins by their bytes, of which there are few."""

    topics: Mapping[str, Topic]
    _origins: dict[bytes, Origin] = attrs.field(factory=dict, init=False)

    def of(self, record: Record) -> tuple[str, Origin, Micros]:
        """Kind, origin and receive time; a kind of "unknown" and a time of 0 for what no schema of ours wrote."""
        topic = self.topics.get(record.topic)
        if topic is None:
            return "unknown", Origin("pipeline", record.topic, None, None, None, ""), Micros(0)
        received = Micros(receive_time(record.value, nullable=topic.nullable_time))
        return topic.kind, self._origin(record), received

    def _origin(self, record: Record) -> Origin:
        try:
            _, fields = split_header(record.value)
            end, texts = _head(fields)
        except (IndexError, ValueError):
            return Origin("pipeline", record.topic, None, None, None, "")
        head = fields[:end]
        origin = self._origins.get(head)
        if origin is None:
            venue, market, instrument, symbol, account, connection = texts
            origin = Origin(venue or "", market or "", instrument, symbol, account, connection or "")
            self._origins[head] = origin
        return origin


def _head(fields: bytes) -> tuple[int, list[str | None]]:
    at, texts = 0, list[str | None]()
    for name in HEAD:
        if name in _NULLABLE:
            at += 1
            if not fields[at - 1]:
                texts.append(None)
                continue
        length = shift = 0
        while True:
            byte = fields[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        end = at + (length >> 1)
        if end > len(fields):
            raise IndexError(end)
        texts.append(fields[at:end].decode())
        at = end
    return at, texts
