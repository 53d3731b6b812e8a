"""Exactly once: records out of the journal in transactions, each with the watermark that makes it final.

Whatever goes wrong in a transaction, it is aborted and its records are sent again; what was committed is known from the
watermark alone. So a producer may be replaced at any moment, by this process or by its successor.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TypeVar

import attrs
import structlog
import trio
from confluent_kafka import KafkaError, KafkaException

from pipeline.model.events import Micros
from pipeline.sink.delivery import RETRY_S, SLICE_RECORDS, Delivery
from pipeline.sink.errors import SinkFailed
from pipeline.sink.outlet import Failure, Outlet
from pipeline.sink.records import Record
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.spool import Chunk, Position
from pipeline.sink.verdicts import FENCED, Verdict, ruling_on
from pipeline.sink.watermark import Standing, Unanswered, Watermark, claim, read_standing

log = structlog.get_logger()

T = TypeVar("T")

_CALL_S = 5.0
"""Longest time in one blocking call; it is repeated for as long as that helps."""
_ABORT_WITHIN_S = 2.0
"""For an abort when everything ends; the successor aborts what is left open, too."""
_PAUSE_S = 0.1
_SPLIT = 8


class _Undone(Exception):
    """The transaction was aborted: send again."""


class _Broken(Exception):
    """The producer takes nothing any more."""


@attrs.define(eq=False)
class Transactions:
    """Delivers chunks of a journal, each in one or several transactions."""

    settings: KafkaSettings
    outlet: Outlet
    delivery: Delivery
    """For what it knows about failures; its `pending` holds the chunk under way."""
    journal: str
    """The identity of the log that the chunks come from."""
    now: Callable[[], Micros]
    instance: str = attrs.field(factory=lambda: uuid.uuid4().hex, init=False)
    records: int = attrs.field(default=0, init=False)
    """Committed ones, without watermarks."""
    commits: int = attrs.field(default=0, init=False)
    aborts: int = attrs.field(default=0, init=False)
    fenced: bool = attrs.field(default=False, init=False)
    """Whether another instance took over the shard."""
    _serial: int = attrs.field(default=0, init=False)
    _is_open: bool = attrs.field(default=False, init=False)

    async def start(self) -> Watermark | None:
        """Claim the shard, end what a predecessor left open, and return what that had committed.

        Waits for as long as the cluster does not answer. Raises `SinkFailed` for what only a person can mend.
        """
        await self._persist(lambda: claim(self.settings, self.instance, self.now()))
        await self._initialize()
        standing = await self._standing()
        log.info("shard_taken", shard=self.settings.shard_name, watermark=standing.watermark is not None)
        return standing.watermark

    async def deliver(self, chunk: Chunk) -> None:
        """Get the chunk into Kafka. When cancelled, what is not committed is in `delivery.pending`."""
        pending, done, attempt = self.delivery.pending, 0, 0
        size = len(pending)
        while True:
            part = [pending[place] for place in range(min(size, len(pending)))]
            is_last = len(part) == len(pending)
            place, skip = (chunk.end, 0) if is_last else (chunk.start, done + len(part))
            try:
                failures = await self._transact(part, place, skip)
            except _Undone:
                failures = []
            except _Broken:
                if not await self._renew():
                    continue
                failures = None
            if failures is None:
                self.records += len(part)
                self.delivery.accepted()
                for _ in part:
                    pending.popleft()
                if is_last:
                    return
                done += len(part)
                size, attempt = min(size * _SPLIT, len(pending)), 0
                continue
            self.delivery.returned += len(part)
            culprits = [each for each in failures if ruling_on(each.code).verdict is Verdict.ISOLATE]
            if culprits and size > 1:
                size = max(1, size // _SPLIT)
            elif culprits:
                done += not self._replace(0, culprits[0])
            elif not self._lose_patience(failures):
                await trio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def end(self) -> None:
        """Abort what is open, so that nobody has to wait for its time-out. Bounded; nothing is raised."""
        if self._is_open and self.outlet.broken is None:
            self._is_open = False
            try:
                await self.outlet.alone(lambda: self.outlet.producer.abort_transaction(_ABORT_WITHIN_S))
            except KafkaException as error:
                log.info("transaction_left_open", reason=error.args[0].str())

    async def _transact(self, part: list[Record], place: Position, skip: int) -> list[Failure] | None:
        """One transaction. None when it is committed, else what was refused in it."""
        self._serial += 1
        mark = Watermark(self.journal, place, skip, self.instance, self._serial, self.now())
        try:
            self.outlet.producer.begin_transaction()
            self._is_open = True
            await self._send([*part, mark.record(self.settings)])
            if self.outlet.broken is not None:
                raise _Broken
            failures = self._causes()
            if failures:
                await self._abort()
                return failures
            await self._finish(self.outlet.producer.commit_transaction)
        except KafkaException as error:
            await self._judge(error.args[0])
        self._is_open = False
        self.commits += 1
        return None

    def _causes(self) -> list[Failure]:
        """What failed by itself, first: the rest failed because the transaction could not go on."""
        found = list(self.outlet.failures)
        self.outlet.failures.clear()
        swept = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE)
        return [failure for failure in found if failure.code not in swept] or found

    async def _finish(self, call: Callable[[float], None]) -> None:
        """Commit or abort, again and again until it is done; raises `KafkaException` when that cannot help."""
        while True:
            try:
                await self.outlet.alone(lambda: call(_CALL_S))
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if reason.fatal() or reason.txn_requires_abort() or not _passes(reason):
                    raise
                await trio.sleep(_PAUSE_S)
            else:
                return

    async def _abort(self) -> None:
        self.aborts += 1
        await self._finish(self.outlet.producer.abort_transaction)
        self.outlet.failures.clear()
        self._is_open = False

    async def _judge(self, reason: KafkaError) -> None:
        """Raise `_Undone` after an abort, `_Broken`, or `SinkFailed`."""
        text = f"{reason.name()}: {reason.str()}"
        if reason.txn_requires_abort():
            log.warning("transaction_aborted", reason=text)
            try:
                await self._abort()
            except KafkaException as error:
                self.outlet.break_off(f"{error.args[0].name()}: {error.args[0].str()}")
                raise _Broken from None
            raise _Undone
        ruling = ruling_on(reason.code(), fatal=reason.fatal())
        if ruling.verdict is Verdict.STOP and reason.code() not in FENCED:
            raise SinkFailed(f"Kafka at {self.outlet.where}: {text}; {ruling.remedy}")
        self.outlet.break_off(text)
        raise _Broken

    async def _renew(self) -> bool:
        """A new producer in place of the broken one. Returns whether the last transaction was committed after all.

        Raises `SinkFailed` when another instance has the shard.
        """
        self._is_open = False
        self.aborts += 1
        why = self.outlet.broken
        if (await self._standing()).instance not in (None, self.instance):
            self.fenced = True
            raise SinkFailed(
                f"Kafka at {self.outlet.where}: {why}; {ruling_on(KafkaError._FENCED).remedy}"
                f" (shard {self.settings.shard_name})"
            )
        await self.outlet.renew()
        await self._initialize()
        mark = (await self._standing()).watermark
        return mark is not None and (mark.instance, mark.serial) == (self.instance, self._serial)

    async def _initialize(self) -> None:
        try:
            await self._finish(self.outlet.producer.init_transactions)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            remedy = ruling_on(reason.code(), fatal=True).remedy
            raise SinkFailed(
                f"Kafka at {self.outlet.where}: {reason.name()}: {reason.str()}" + (f"; {remedy}" if remedy else "")
            ) from None

    async def _standing(self) -> Standing:
        return await self._persist(lambda: read_standing(self.settings, self.journal))

    async def _persist(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return await trio.to_thread.run_sync(call)
            except Unanswered as error:
                log.warning("shard_waits", reason=str(error))
                await trio.sleep(RETRY_S[-1])

    def _lose_patience(self, failures: list[Failure]) -> bool:
        """Replace what topics have refused for too long by dead letters; False if none have."""
        topics = {failure.record.topic: failure for failure in failures}
        for each in topics.values():
            self.delivery.note_refusal(each)
        worn = {topic: each for topic, each in topics.items() if self.delivery.is_hopeless(each)}
        for place, record in enumerate(self.delivery.pending):
            if (failure := worn.get(record.topic)) is not None:
                self._replace(place, attrs.evolve(failure, record=record))
        return bool(worn)

    def _replace(self, place: int, failure: Failure) -> bool:
        """Put a dead letter into the record's place; False if nothing took it."""
        instead = self.delivery.instead_of(failure)
        if instead:
            self.delivery.pending[place] = instead[0]
        else:
            del self.delivery.pending[place]
        return bool(instead)

    async def _send(self, records: list[Record]) -> None:
        """Hand all to librdkafka, and wait until it has none of them; ends early when the transaction cannot go on."""
        sent = 0
        while sent < len(records) and self.outlet.broken is None and not self.outlet.failures:
            try:
                self.outlet.send(self.delivery.with_time(records[sent]))
            except BufferError:
                await self.outlet.settled()
                continue
            sent += 1
            if sent % SLICE_RECORDS == 0:
                await trio.lowlevel.checkpoint()
        await self.outlet.settled()


def _passes(reason: KafkaError) -> bool:
    return reason.retriable() or ruling_on(reason.code()).verdict is Verdict.RETRY
