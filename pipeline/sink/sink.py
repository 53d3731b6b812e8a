"""The sink: every record goes straight to librdkafka, or through the spool, or is announced as lost.

Order is kept by one rule: while anything waits in the spool, everything new goes behind it. The spool is emptied in
chunks; a chunk is done when all of it is acknowledged, and only then forgotten on disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256

import attrs
import structlog
import trio
from confluent_kafka import KafkaError, KafkaException

from pipeline.model.errors import Unencodable
from pipeline.model.events import DeadLetter, Event, FeedStatus, Micros, Origin
from pipeline.model.rate import Budget, Rate
from pipeline.sink.backlog import HELD_RECORDS, Backlog
from pipeline.sink.delivery import Delivery
from pipeline.sink.errors import SinkFailed
from pipeline.sink.losses import Losses
from pipeline.sink.outlet import Failure, Outlet
from pipeline.sink.records import Record
from pipeline.sink.routes import Route, Routes
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.spool import Chunk
from pipeline.sink.stats import SinkStats
from pipeline.sink.times import as_published, receive_time

log = structlog.get_logger()

_CHUNK_RECORDS = 5_000
_ROOM_AGAIN = 0.9
"""Share of the spool's bounds below which its losses are announced."""
_REASON_CHARACTERS = 1_000


def wall_clock() -> Micros:
    """Microseconds since 1970 UTC."""
    return Micros(time.time_ns() // 1000)


@attrs.define(eq=False)
class Sink:
    """Takes events and gets them into Kafka; `open_sink` makes one."""

    settings: KafkaSettings
    routes: Routes
    backlog: Backlog
    now: Callable[[], Micros] = wall_clock
    outlet: Outlet = attrs.field(init=False)
    ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the topics are known to be there; until then everything is spooled."""
    _produce: Callable[..., None] = attrs.field(init=False)
    _high_water: int = attrs.field(init=False)
    _max_bytes: int = attrs.field(init=False)
    _delivery: Delivery = attrs.field(init=False)
    _own: Origin = attrs.field(init=False)
    _direct: bool = attrs.field(default=False, init=False)
    """Whether records go straight to librdkafka."""
    _spooling: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set while not `_direct`."""
    _emptied: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set while `_direct`."""
    _losses: Losses = attrs.field(factory=Losses, init=False)
    _is_full: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _lost: int = attrs.field(default=0, init=False)
    _recovered: int = attrs.field(default=0, init=False)
    _dead_letters: int = attrs.field(default=0, init=False)
    _log_budget: Budget = attrs.field(factory=lambda: Budget(Rate(20, 60.0)), init=False)

    def __attrs_post_init__(self) -> None:
        self.outlet = Outlet(self.settings, self._spool_from_now)
        self._produce = self.outlet.produce
        self._high_water = self.settings.queue_messages
        self._max_bytes = self.settings.max_record_bytes
        self._own = Origin("pipeline", "sink", None, None, None, self.settings.client_id)
        self._delivery = Delivery(
            self.outlet,
            self._letter_for,
            self.routes[DeadLetter].topic,
            {route.topic: route.nullable_time for route in self.routes.values()},
            self._complain,
        )
        self._spooling.set()

    # What the feeds call. Nothing here waits.

    def publish(self, event: Event) -> bool:
        """Take over an event; never waits, and never raises because of the data. Order per key is kept.

        False if it went to the dead letters instead.
        """
        route = self.routes[event.__class__]
        try:
            value = route.encode(event)
        except Unencodable as error:
            self._unencodable(route, event, str(error))
            return False
        if len(value) > self._max_bytes:
            self._too_large(route, event, value)
            return False
        route.published += 1
        moment = event.exchange_time
        if moment is None:
            moment = event.receive_time
        outlet = self.outlet
        if self._direct and outlet.sent - outlet.acknowledged - outlet.failed < self._high_water:
            try:
                self._produce(route.topic, value, event.origin.key, -1, None, None, moment // 1000)
            except BufferError:
                pass
            except KafkaException as error:
                outlet.refuse(Record(route.topic, event.origin.key, moment // 1000, value), error)
                return True
            else:
                outlet.sent += 1
                return True
        self._spool(Record(route.topic, event.origin.key, moment // 1000, value), route.kind, event)
        return True

    def dead_letter(
        self,
        origin: Origin,
        payload: bytes,
        reason: str,
        stage: str,
        receive_time: Micros,
        exchange_time: Micros | None = None,
    ) -> None:
        """Publish bytes that could not be processed; of too many bytes only their size and digest."""
        self._publish_letter(origin, payload, reason, stage, receive_time, exchange_time)

    def stats(self) -> SinkStats:
        """The numbers of this moment."""
        outlet, backlog = self.outlet, self.backlog
        return SinkStats(
            published=sum(route.published for route in self.routes.values()),
            recovered=self._recovered,
            acknowledged=outlet.acknowledged,
            in_flight=outlet.outstanding + len(outlet.failures) + len(self._delivery.pending),
            spooled=backlog.count,
            announced_lost=self._lost + self._delivery.lost,
            dead_letters=self._dead_letters,
            returned=self._delivery.returned,
            spool_bytes=backlog.size_bytes,
            is_spooling=not self._direct,
            broker_up=outlet.broker_up,
            spool_failure=backlog.failure,
            by_kind={route.kind: route.published for route in self.routes.values()},
            latency=outlet.latency,
            kafka=outlet.gauges,
        )

    async def bootstrap_servers(self) -> list[str]:
        """The brokers' addresses, e.g. of an in-process mock cluster, for other clients. Raises `SinkFailed`."""
        return await self.outlet.bootstrap_servers()

    # Dead letters.

    def _unencodable(self, route: Route, event: Event, reason: str) -> None:
        if isinstance(event, DeadLetter):  # nothing is left to put it into
            route.published += 1
            self._lost += 1
            self._complain("dead_letter_lost", reason=reason)
            return
        payload = repr(event).encode("utf-8", "backslashreplace")
        self._publish_letter(event.origin, payload, reason, "encode", event.receive_time)

    def _too_large(self, route: Route, event: Event, value: bytes) -> None:
        reason = f"the {route.kind} record of {len(value)} bytes is over kafka.max_record_bytes of {self._max_bytes}"
        if not isinstance(event, DeadLetter):
            self._publish_letter(
                event.origin, value, reason, "encode", event.receive_time, event.exchange_time, topic=route.topic
            )
        elif event.payload:
            self.publish(attrs.evolve(event, payload=b""))
        else:
            self._unencodable(route, event, reason)

    def _publish_letter(
        self,
        origin: Origin,
        payload: bytes,
        reason: str,
        stage: str,
        receive_time: Micros,
        exchange_time: Micros | None = None,
        *,
        topic: str | None = None,
    ) -> None:
        letter = DeadLetter(
            origin,
            exchange_time,
            receive_time,
            None,
            stage=stage,
            reason=reason[:_REASON_CHARACTERS],
            payload=payload if topic is None else b"",
            payload_size=len(payload),
            payload_sha256=sha256(payload).hexdigest(),
            topic=topic,
        )
        self._dead_letters += 1
        self._complain("dead_letter", stage=stage, reason=letter.reason, key=origin.key.decode(), bytes=len(payload))
        self.publish(letter)

    def _letter_for(self, failure: Failure, payload: bytes) -> Record:
        record = failure.record
        venue, market, instrument, *_ = (*record.key.decode(errors="replace").split(".", 2), "", None)
        letter = DeadLetter(
            Origin(venue or "", market or "", instrument, None, None, self.settings.client_id),
            None,
            self.now(),
            None,
            stage="produce",
            reason=f"{failure.reason}"[:_REASON_CHARACTERS],
            payload=payload,
            payload_size=len(record.value),
            payload_sha256=sha256(record.value).hexdigest(),
            topic=record.topic,
        )
        self._dead_letters += 1
        self._complain(
            "dead_letter", stage="produce", reason=letter.reason, topic=record.topic, bytes=len(record.value)
        )
        route = self.routes[DeadLetter]
        value = route.encode(letter)
        if len(value) > self._max_bytes:
            value = route.encode(attrs.evolve(letter, payload=b""))
        return Record(route.topic, record.key, letter.receive_time // 1000, value)

    # The spool.

    def _spool(self, record: Record, kind: str, event: Event) -> None:
        if self._closed:
            raise RuntimeError("publish after the sink was closed")
        self._spool_from_now()
        if self.backlog.fits(record.size):
            self.backlog.append(record)
            return
        if not self._is_full:
            self._is_full = True
            self._announce_full(event.receive_time)
        self._lost += 1
        self._losses.add(kind, event.origin, event.receive_time)

    def _spool_from_now(self) -> None:
        if self._direct:
            self._direct = False
            self._emptied = trio.Event()
            self._spooling.set()
            self._complain("spooling", in_flight=self.outlet.outstanding, broker_up=self.outlet.broker_up)

    def _announce_full(self, since: Micros) -> None:
        """Say at once, beyond the bounds, that a gap begins: if the process is killed, its extent is never told."""
        reason = self.backlog.failure or "the spool is full"
        log.error("spool_full", reason=reason, bytes=self.backlog.size_bytes, effect="new records are refused")
        self._append_status(self._gap(f"records from here on are refused: {reason}", since))

    def _announce_losses(self) -> None:
        """Once there is room again, tell what was refused."""
        if self._is_full and self.backlog.fits(0, share=_ROOM_AGAIN):
            self._is_full = False
            for status in self._losses.announcements(self.now(), "the spool was full"):
                self._append_status(status)
            log.info("spool_has_room", announced_lost=self._lost)

    def _gap(self, reason: str, since: Micros | None = None, count: int | None = None) -> FeedStatus:
        return FeedStatus(
            self._own,
            None,
            self.now(),
            None,
            status="gap",
            scope="sink",
            reason=reason,
            from_time=since,
            count=count,
        )

    def _append_status(self, status: FeedStatus) -> None:
        route = self.routes[FeedStatus]
        route.published += 1
        self.backlog.append(Record(route.topic, status.origin.key, status.receive_time // 1000, route.encode(status)))

    # Tasks.

    async def run(self) -> None:
        """Work until cancelled; raises `SinkFailed` when the producer is beyond repair."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.outlet.run)
            nursery.start_soon(self.backlog.keep_writing)
            nursery.start_soon(self._keep_emptying)

    async def delivered(self) -> None:
        """Wait until everything published so far is in Kafka."""
        while self._holds_records:
            await self._emptied.wait()
            await self.outlet.settled()
            if self.outlet.failures:
                self._spool_from_now()

    @property
    def _holds_records(self) -> bool:
        on_their_way = self.outlet.outstanding or self.outlet.failures or self._delivery.pending
        return bool(on_their_way) or not self.backlog.is_empty

    async def _keep_emptying(self) -> None:
        await self.ready.wait()
        while True:
            await self._spooling.wait()
            await self._delivery.deliver()  # what librdkafka still has, or gave back, is older than the spool
            while not self._direct:
                chunk = await self.backlog.take(_CHUNK_RECORDS)
                if chunk is not None:
                    self._take(chunk)
                    await self._delivery.deliver()
                    await self.backlog.acknowledge()
                    self._announce_losses()
                elif self.backlog.memory_count <= HELD_RECORDS:
                    self._go_direct()
                else:
                    await self.backlog.flush()

    def _take(self, chunk: Chunk) -> None:
        self._delivery.pending.extend(chunk.records)
        if chunk.recovered:
            self._recovered += len(chunk.records)
        for start, end in chunk.damages:
            log.error("spool_damaged", segment=chunk.segment, from_byte=start, to_byte=end)
            self._append_status(self._gap(f"bytes {start} to {end} of spool segment {chunk.segment} are unreadable"))

    def _go_direct(self) -> None:
        """The disk has nothing more: send what is in memory, and from now on everything, without a pause between."""
        self._lost += self.backlog.write_off()
        waiting = deque(self.backlog.take_memory())
        self._announce_losses()  # now that there is room for it
        waiting.extend(self.backlog.take_memory())
        while waiting:
            try:
                self.outlet.send(waiting[0])
            except BufferError:
                for record in waiting:
                    self.backlog.append(record)
                return
            waiting.popleft()
        self._direct = True
        self._spooling = trio.Event()
        self._emptied.set()
        log.info("spool_empty", acknowledged=self.outlet.acknowledged)
        if self.outlet.failures:
            self._spool_from_now()

    def _complain(self, event: str, **fields: object) -> None:
        moment = time.monotonic()
        if self._log_budget.wait(moment) == 0:
            self._log_budget.take(moment)
            log.warning(event, **fields)

    # The end.

    def close(self) -> None:
        """Put what is not delivered into the spool; blocks, after `run` has ended.

        Raises `SinkFailed` when the spool cannot take it: then it is lost.
        """
        self._closed, self._direct = True, False
        failures = self.outlet.give_up()
        nullable = {route.topic: route.nullable_time for route in self.routes.values()}
        older = [failure.record for failure in failures if failure.code != KafkaError._PURGE_QUEUE]
        older += as_published(
            (failure.record for failure in failures if failure.code == KafkaError._PURGE_QUEUE),
            lambda record: receive_time(record.value, nullable=nullable.get(record.topic, False)),
        )
        older += self._delivery.pending
        for status in self._losses.announcements(self.now(), "the spool was full"):
            self._append_status(status)
        waiting = self.backlog.memory_count
        self._delivery.pending.clear()
        try:
            self.backlog.close(older)
        except OSError as error:
            self._lost += len(older) + waiting
            raise SinkFailed(
                f"{len(older) + waiting} records are lost: {self.settings.spool.directory} cannot be written: {error}"
            ) from None
        finally:
            stats = self.stats()
            if stats.in_flight:
                log.error("records_stuck", count=stats.in_flight, effect="librdkafka did not give them back: lost")
            log.info(
                "sink_closed",
                published=stats.published,
                acknowledged=stats.acknowledged,
                spooled=stats.spooled,
                maybe_delivered=sum(failure.code == KafkaError._PURGE_INFLIGHT for failure in failures),
                announced_lost=stats.announced_lost,
                spool_bytes=stats.spool_bytes,
            )
