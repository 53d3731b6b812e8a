"""What a simulated exchange has sent, so that a test can compare it with what arrived at the other end."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from typing import TextIO

import attrs

from pipeline.sim.wire import Connection, Message


def topic_matches(topic: str, pattern: str) -> bool:
    """Whether a topic's key ("linear/orderbook.50.BTCUSDT") is meant by `pattern`.

    A pattern is a key, a key without its endpoint, or either with shell wildcards.
    """
    name = topic.partition("/")[2]
    return pattern in (topic, name) or fnmatchcase(topic, pattern) or fnmatchcase(name, pattern)


@attrs.define(eq=False)
class TopicRecord:
    """Messages of one topic that were written to sockets, each time counted that one was."""

    count: int = 0
    payload_bytes: int = 0
    messages: list[bytes] = attrs.field(factory=list)
    """Filled only if the record keeps messages."""
    digest: hashlib.blake2b = attrs.field(factory=lambda: hashlib.blake2b(digest_size=16))
    """Over all payloads, a line feed after each."""


@attrs.define(eq=False)
class SentRecord:
    """Data messages written to sockets, per topic and in order; acknowledgements and raw bytes are not counted.

    A message counts once per connection, when the socket has taken it; what was still queued when a connection was cut
    does not count.
    """

    keep: bool = True
    """Keep every message in memory, which tests want and long demos do not."""
    journal: TextIO | None = None
    """Receives a JSON line per message: topic, connection, message."""
    topics: dict[str, TopicRecord] = attrs.field(factory=dict, init=False)
    total: int = attrs.field(default=0, init=False)

    def add(self, connection: Connection, message: Message) -> None:
        """Record one written message."""
        if message.topic is None:
            return
        record = self.topics.get(message.topic)
        if record is None:
            record = self.topics[message.topic] = TopicRecord()
        self.total += 1
        record.count += 1
        record.payload_bytes += len(message.payload)
        record.digest.update(message.payload)
        record.digest.update(b"\n")
        if self.keep:
            record.messages.append(message.payload)
        if self.journal is not None:
            line = {"topic": message.topic, "connection": connection.index, "message": message.payload.decode()}
            self.journal.write(json.dumps(line, separators=(",", ":")) + "\n")

    def count(self, pattern: str = "*") -> int:
        """Messages of the topics that `pattern` means."""
        return sum(record.count for topic, record in self.topics.items() if topic_matches(topic, pattern))

    def messages(self, pattern: str) -> list[bytes]:
        """The kept messages of those topics, topic by topic, each in order."""
        return [
            message
            for topic, record in self.topics.items()
            if topic_matches(topic, pattern)
            for message in record.messages
        ]
