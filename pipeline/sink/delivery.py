"""Getting records into Kafka whatever comes back: sent again, apart from their neighbours, or as dead letters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

import attrs
import trio
from confluent_kafka import KafkaError

from pipeline.sink.outlet import Failure, Outlet
from pipeline.sink.records import UNKNOWN_TIME, Record
from pipeline.sink.times import timestamp_ms

_SLICE_RECORDS = 500
"""How many records are sent before other tasks have their turn: about a millisecond."""
_PATIENCE_S = 60.0
"""How long a topic may refuse records before they go to the dead-letter topic."""
_RETRY_S = (0.5, 1.0, 2.0, 5.0)
_SPLIT = 8

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_ITS_OWN_FAULT = (*_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)
"""One such record makes the broker refuse the whole batch that it is in."""


@attrs.define(eq=False)
class Delivery:
    """Delivers what is `pending`; everything else about records on their way is the sink's."""

    outlet: Outlet
    letter_for: Callable[[Failure, bytes], Record]
    """The dead letter with this payload that takes the place of a record which Kafka will not take."""
    letter_topic: str
    nullable_times: Mapping[str, bool]
    """By topic: whether the schema has the exchange time as a union with null."""
    complain: Callable[..., None]
    """Logs, within bounds."""
    pending: deque[Record] = attrs.field(factory=deque, init=False)
    returned: int = attrs.field(default=0, init=False)
    """How often a record came back."""
    lost: int = attrs.field(default=0, init=False)
    """Dead letters that Kafka will not take either."""
    _refusing_since: dict[str, float] = attrs.field(factory=dict, init=False)

    async def deliver(self) -> None:
        """Send what is pending, and what comes back of that and of earlier records, until all of it is in Kafka.

        When cancelled, the rest is in `pending`, with the outlet, or in its failures.
        """
        attempt, group = 0, 0
        while True:
            topics = {record.topic for record in self.pending}
            await self._send(group)
            failures = self._take_failures()
            for topic in topics.difference(failure.record.topic for failure in failures):
                self._refusing_since.pop(topic, None)
            if not failures:
                return
            wait = self._sort_out(failures, is_alone=group == 1)
            if any(failure.code in _ITS_OWN_FAULT for failure in failures):
                group = max(1, (group or len(failures)) // _SPLIT)
            if wait:
                await trio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1

    async def _send(self, group: int) -> None:
        """Send all and wait for the reports, after every `group` records too (0: never): so many can fail together."""
        sent = 0
        while self.pending:
            record = self.pending[0]
            if record.timestamp_ms == UNKNOWN_TIME:
                record = record._replace(timestamp_ms=self._time_of(record))
            try:
                self.outlet.send(record)
            except BufferError:
                await self.outlet.settled()
                continue
            self.pending.popleft()
            sent += 1
            if group and sent % group == 0:
                await self.outlet.settled()
            elif sent % _SLICE_RECORDS == 0:
                await trio.lowlevel.checkpoint()
        await self.outlet.settled()

    def _time_of(self, record: Record) -> int:
        return max(0, timestamp_ms(record.value, nullable=self.nullable_times.get(record.topic, False)))

    def _take_failures(self) -> Collection[Failure]:
        taken = []
        while self.outlet.failures:
            taken.append(self.outlet.failures.popleft())
        self.returned += len(taken)
        return taken

    def _sort_out(self, failures: Collection[Failure], *, is_alone: bool) -> bool:
        """Put each record back, or what takes its place. Returns whether the next attempt should wait."""
        wait = False
        for failure in failures:
            record, code = failure.record, failure.code
            if code in _ITS_OWN_FAULT:
                if not is_alone:
                    self.pending.append(record)
                elif code == KafkaError.INVALID_TIMESTAMP:  # out of the topic's bounds; the event has it all the same
                    self.complain("kafka_refused_timestamp", topic=record.topic, reason=failure.reason)
                    self.pending.append(record._replace(timestamp_ms=0))
                else:
                    self._replace(failure, b"" if code in _TOO_LARGE else record.value)
            elif record.topic != self.letter_topic and self._refusing_for(record.topic) > _PATIENCE_S:
                self._replace(failure, record.value)
            else:
                self._refusing_for(record.topic)
                self.complain("kafka_refused_record", topic=record.topic, reason=failure.reason)
                self.pending.append(record)
                wait = True
        return wait

    def _refusing_for(self, topic: str) -> float:
        now = trio.current_time()
        return now - self._refusing_since.setdefault(topic, now)

    def _replace(self, failure: Failure, payload: bytes) -> None:
        if failure.record.topic == self.letter_topic:
            self.lost += 1
            self.complain("dead_letter_lost", reason=failure.reason, bytes=len(failure.record.value))
        else:
            self.pending.append(self.letter_for(failure, payload))
