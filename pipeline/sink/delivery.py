"""Getting records into Kafka whatever comes back: sent again, apart from their neighbours, or as dead letters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs
import trio
from confluent_kafka import KafkaError

from pipeline.sink.errors import SinkFailed
from pipeline.sink.outlet import Failure, Outlet
from pipeline.sink.records import UNKNOWN_TIME, Record
from pipeline.sink.times import timestamp_ms
from pipeline.sink.verdicts import TOO_LARGE, Verdict, ruling_on

SLICE_RECORDS = 500
"""How many records are sent before other tasks have their turn: about a millisecond."""
_PATIENCE_S = 60.0
"""How long a topic may refuse records before they go to the dead-letter topic."""
RETRY_S = (0.5, 1.0, 2.0, 5.0)
_SPLIT = 8


@attrs.define(eq=False)
class Delivery:
    """Delivers what is `pending`; everything else about records on their way is the sink's."""

    outlet: Outlet
    letter_for: Callable[[Failure, bytes], Record]
    """The dead letter with this payload that takes the place of a record which Kafka will not take."""
    letter_topic: str
    in_order: Callable[[Iterable[Failure]], list[Record]]
    """The records that a broken producer gave back, as they were published."""
    nullable_times: Mapping[str, bool]
    """By topic: whether the schema has the exchange time as a union with null."""
    complain: Callable[..., None]
    """Logs, within bounds."""
    pending: deque[Record] = attrs.field(factory=deque, init=False)
    returned: int = attrs.field(default=0, init=False)
    """How often a record came back."""
    lost: int = attrs.field(default=0, init=False)
    """Dead letters that Kafka will not take either."""
    refusing: dict[str, str] = attrs.field(factory=dict, init=False)
    """Topics that take nothing at present, with the reasons."""
    _refusing_since: dict[str, float] = attrs.field(factory=dict, init=False)

    async def deliver(self) -> None:
        """Send what is pending, and what comes back of that and of earlier records, until all of it is in Kafka.

        When cancelled, the rest is in `pending`, with the outlet, or in its failures.
        """
        attempt, group = 0, 0
        while True:
            topics = {record.topic for record in self.pending}
            await self._send(group)
            if self.outlet.broken is not None:
                await self._take_back()
                continue
            failures = self._take_failures()
            for topic in topics.difference(failure.record.topic for failure in failures):
                self._refusing_since.pop(topic, None)
                self.refusing.pop(topic, None)
            if not failures:
                return
            if any(ruling_on(failure.code).verdict is Verdict.RECREATE for failure in failures):
                self.outlet.break_off(failures[0].reason)
                self.outlet.failures.extend(failures)
                await self._take_back()
                continue
            try:
                wait = self._sort_out(failures, is_alone=group == 1)
            except SinkFailed:
                self.pending = deque(failure.record for failure in failures)
                raise
            if any(ruling_on(failure.code).verdict is Verdict.ISOLATE for failure in failures):
                group = max(1, (group or len(failures)) // _SPLIT)
            if wait:
                await trio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def _send(self, group: int) -> None:
        """Send all and wait for the reports, after every `group` records too (0: never): so many can fail together."""
        sent = 0
        while self.pending and self.outlet.broken is None:
            record = self.pending[0]
            try:
                self.outlet.send(self.with_time(record))
            except BufferError:
                await self.outlet.settled()
                continue
            self.pending.popleft()
            sent += 1
            if group and sent % group == 0:
                await self.outlet.settled()
            elif sent % SLICE_RECORDS == 0:
                await trio.lowlevel.checkpoint()
        await self.outlet.settled()

    def with_time(self, record: Record) -> Record:
        """The record with its time, if that has to be read from its value."""
        if record.timestamp_ms != UNKNOWN_TIME:
            return record
        found = timestamp_ms(record.value, nullable=self.nullable_times.get(record.topic, False))
        return record._replace(timestamp_ms=max(0, found))

    async def _take_back(self) -> None:
        given_back = self.in_order(await self.outlet.renew())
        self.returned += len(given_back)
        self.pending.extendleft(reversed(given_back))

    def _take_failures(self) -> list[Failure]:
        taken = sorted(self.outlet.failures, key=lambda failure: failure.at_once)
        self.outlet.failures.clear()
        self.returned += len(taken)
        return taken

    def _sort_out(self, failures: Collection[Failure], *, is_alone: bool) -> bool:
        """Put each record back, or what takes its place. Returns whether the next attempt should wait.

        Raises `SinkFailed` for what only a person can mend.
        """
        wait = False
        for failure in failures:
            record = failure.record
            ruling = ruling_on(failure.code)
            if ruling.verdict is Verdict.STOP:
                raise SinkFailed(f"Kafka refuses records for {record.topic}: {failure.reason}; {ruling.remedy}")
            if ruling.verdict is Verdict.ISOLATE:
                self.pending.extend([record] if not is_alone else self.instead_of(failure))
                continue
            if self.is_hopeless(failure):
                self.pending.extend(self.instead_of(failure))
            else:
                self.complain("kafka_refused_record", topic=record.topic, reason=failure.reason, remedy=ruling.remedy)
                self.note_refusal(failure)
                self.pending.append(record)
                wait = True
        return wait

    def is_hopeless(self, failure: Failure) -> bool:
        """Whether the record's topic has refused for so long that a dead letter should take its place."""
        refusing_for = self._refusing_for(failure.record.topic)
        patient = ruling_on(failure.code).verdict is Verdict.PATIENCE
        return patient and failure.record.topic != self.letter_topic and refusing_for > _PATIENCE_S

    def accepted(self) -> None:
        """No topic refuses anything now."""
        self._refusing_since.clear()
        self.refusing.clear()

    def note_refusal(self, failure: Failure) -> None:
        """Keep in mind that a topic takes no records for now, and why."""
        remedy = ruling_on(failure.code).remedy
        self.refusing[failure.record.topic] = f"{failure.reason}; {remedy}" if remedy else failure.reason

    def instead_of(self, failure: Failure) -> list[Record]:
        """What takes the place of a record that Kafka will not take as it is: at most one."""
        record = failure.record
        if failure.code == KafkaError.INVALID_TIMESTAMP:  # out of the topic's bounds; the event has it all the same
            self.complain("kafka_refused_timestamp", topic=record.topic, reason=failure.reason)
            return [record._replace(timestamp_ms=0)]
        if record.topic == self.letter_topic:
            self.lost += 1
            self.complain("dead_letter_lost", reason=failure.reason, bytes=len(record.value))
            return []
        return [self.letter_for(failure, b"" if failure.code in TOO_LARGE else record.value)]

    def _refusing_for(self, topic: str) -> float:
        now = trio.current_time()
        return now - self._refusing_since.setdefault(topic, now)
