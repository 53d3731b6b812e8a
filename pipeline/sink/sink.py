"""The sink: every record goes straight to librdkafka, or through the spool, or is announced as lost.

Order is kept by one rule: while anything waits in the spool, everything new goes behind it. The spool is emptied in
chunks; a chunk is done when all of it is acknowledged, and only then forgotten on disk. With a journal every record
goes that way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from itertools import groupby, islice

import attrs
import structlog
import trio
from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec.structs import replace

from pipeline.avro.encoder import shown
from pipeline.model.errors import Unencodable
from pipeline.model.events import DeadLetter, Event, FeedStatus, Micros, Origin
from pipeline.model.latency import SAMPLED
from pipeline.model.rate import Budget, Rate
from pipeline.sink.backlog import HELD_RECORDS, Backlog
from pipeline.sink.credentials import keep_fresh
from pipeline.sink.delivery import Delivery
from pipeline.sink.errors import SinkFailed
from pipeline.sink.heads import Heads, Topic
from pipeline.sink.journal import Journal
from pipeline.sink.outlet import Failure, Outlet, wall_clock
from pipeline.sink.records import Record
from pipeline.sink.room import Room
from pipeline.sink.routes import Route, Routes
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.spool import Chunk
from pipeline.sink.stats import JournalStats, SinkStats
from pipeline.sink.times import Place, as_published, place, receive_time
from pipeline.sink.transactions import Transactions

log = structlog.get_logger()

_CHUNK_RECORDS = 5_000
_MARK_S = 1.0
"""How often the mark for an unclean end is set anew."""
_REASON_CHARACTERS = 1_000


@attrs.define(eq=False)
class Sink:
    """Takes events and gets them into Kafka; `open_sink` makes one."""

    settings: KafkaSettings
    routes: Routes
    backlog: Backlog | Journal
    now: Callable[[], Micros] = wall_clock
    make_producer: Callable[..., Producer] = Producer
    outlet: Outlet = attrs.field(init=False)
    ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the topics are known to be there; until then everything is spooled."""
    _high_water: int = attrs.field(init=False)
    _max_bytes: int = attrs.field(init=False)
    _delivery: Delivery = attrs.field(init=False)
    _transactions: Transactions | None = attrs.field(default=None, init=False)
    room: Room = attrs.field(init=False)
    _own: Origin = attrs.field(init=False)
    _direct: bool = attrs.field(default=False, init=False)
    """Whether records go straight to librdkafka."""
    _spooling: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set while not `_direct`."""
    _emptied: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set while `_direct`."""
    _closed: bool = attrs.field(default=False, init=False)
    _lost: int = attrs.field(default=0, init=False)
    _recovered: int = attrs.field(default=0, init=False)
    _undeliverable: int = attrs.field(default=0, init=False)
    """Records that became dead letters after they were published."""
    _own_letters: int = attrs.field(default=0, init=False)
    """Dead letters that are not the feeds'."""
    _last_letter: str = attrs.field(default="", init=False)
    _safe_until: Micros = attrs.field(default=Micros(0), init=False)
    _oldest: Record | None = attrs.field(default=None, init=False)
    """The first record of the chunk under way."""
    _log_budget: Budget = attrs.field(factory=lambda: Budget(Rate(20, 60.0)), init=False)

    def __attrs_post_init__(self) -> None:
        self.outlet = Outlet(self.settings, self._on_failure, self.make_producer, self.now, self._came)
        self._high_water = self.settings.queue_messages
        self._max_bytes = self.settings.max_record_bytes
        self._own = Origin("pipeline", "sink", None, None, None, self.settings.client_id)
        nullable = {route.topic: route.nullable_time for route in self.routes.values()}
        self._delivery = Delivery(
            self.outlet, self._letter_for, self.routes[DeadLetter].topic, self._in_order, nullable, self._complain
        )
        if self.settings.is_exactly_once:
            self._transactions = Transactions(
                self.settings, self.outlet, self._delivery, self.backlog.spool.identity, self.now
            )
        heads = Heads({route.topic: Topic(route.kind, route.nullable_time) for route in self.routes.values()})
        self.room = Room(
            self.settings.spool,
            self.backlog,
            heads,
            self._own,
            self.now,
            self._append_status,
            self.routes[FeedStatus].topic,
        )
        self._spooling.set()

    # What the feeds call. Nothing here waits.

    def publish(self, event: Event) -> bool:
        """Take over an event; never waits, and never raises because of the data. Order per key is kept.

        False if it went to the dead letters instead.
        """
        return self.publish_all((event,)) is None

    def publish_all(self, events: Sequence[Event]) -> int | None:
        """As `publish` one after the other, but nothing behind one that went to the dead letters: its index.

        All are encoded before the first is handed over: the code for either stays in the processor's caches.
        """
        routes, outlet = self.routes, self.outlet
        set_aside: Callable[[], None] | None = None
        try:
            values = [routes[event.__class__].encode(event) for event in events]
            is_fit = max(map(len, values), default=0) <= self._max_bytes
        except Unencodable:
            is_fit = False
        if not is_fit:
            values, set_aside = self._encode_while_fit(events)
        room = self._high_water - outlet.outstanding if self._direct else 0
        taken = self._hand_over(events, values if len(values) <= room else values[:room]) if room > 0 else 0
        for event, value in zip(events[taken:], values[taken:], strict=False):
            route = routes[event.__class__]
            route.published += 1
            self._spool(Record(route.topic, event.origin.key, _moment(event) // 1000, value), route.kind, event)
        if set_aside is None:
            return None
        set_aside()
        return len(values)

    def _encode_while_fit(self, events: Sequence[Event]) -> tuple[list[bytes], Callable[[], None] | None]:
        """The values of events before the first that has to be set aside, and what does that."""
        values: list[bytes] = []
        for event in events:
            route = self.routes[event.__class__]
            try:
                value = route.encode(event)
            except Unencodable as error:
                return values, partial(self._unencodable, route, event, str(error))
            if len(value) > self._max_bytes:
                return values, partial(self._too_large, route, event, value)
            values.append(value)
        return values, None

    def _hand_over(self, events: Sequence[Event], values: Sequence[bytes]) -> int:
        """Give librdkafka what it takes; returns how many events, of the first ones, need nothing more."""
        routes, outlet = self.routes, self.outlet
        produce, report = outlet.produce, outlet.report
        taken, refusal = 0, None
        try:
            for event, value in zip(events, values, strict=False):
                route, moment = routes[event.__class__], event.exchange_time
                if moment is None:
                    moment = event.receive_time
                produce(route.topic, value, event.origin.key, -1, report, None, moment // 1000)
                route.published += 1
                taken += 1
        except BufferError:
            pass
        except KafkaException as error:
            refusal = error
        finally:
            before, outlet.sent = outlet.sent, outlet.sent + taken
        if outlet.sent ^ before > SAMPLED:
            outlet.note_produced(events[taken - 1].receive_time)
        if refusal is None:
            return taken
        route.published += 1
        outlet.refuse(Record(route.topic, event.origin.key, _moment(event) // 1000, value), refusal)
        return taken + 1

    @property
    def has_room(self) -> bool:
        """Whether feeds may go on reading; False only with `kafka.spool.when_full: stop_reading`."""
        return self.room.has_room

    async def wait_for_room(self) -> None:
        """Return when feeds may go on reading; at once while there is room."""
        await self.room.wait()

    def stats(self) -> SinkStats:
        """The numbers of this moment."""
        outlet, backlog, transactions = self.outlet, self.backlog, self._transactions
        pending, room = len(self._delivery.pending), self.room
        if transactions is None:
            acknowledged, in_flight = outlet.acknowledged, outlet.outstanding + len(outlet.failures) + pending
        else:
            acknowledged, in_flight = transactions.records, pending
        letters = self.routes[DeadLetter].published
        return SinkStats(
            published=sum(route.published for route in self.routes.values()),
            recovered=self._recovered + room.recovered,
            acknowledged=acknowledged,
            in_flight=in_flight,
            spooled=backlog.count,
            announced_lost=self._lost + room.lost + self._delivery.lost + outlet.stuck,
            dead_letters=letters + self._undeliverable,
            returned=self._delivery.returned,
            spool_bytes=backlog.size_bytes,
            is_spooling=not self._direct and not self.settings.is_journaled,
            broker_up=outlet.broker_up,
            spool_failure=backlog.failure,
            by_kind={route.kind: route.published for route in self.routes.values()},
            latency=outlet.latency,
            kafka=outlet.gauges,
            dropped=room.dropped,
            is_full=room.is_full,
            reading_stopped_at=room.stopped_at,
            renewals=outlet.renewals,
            safe_until=self._safe_until,
            journal=self._journal_stats() if self.settings.is_journaled else None,
            until_produced=outlet.until_produced,
            spool_max_bytes=self.settings.spool.max_bytes,
            oldest_age=self._oldest_age(),
            down_since=outlet.down_since,
            trouble=outlet.trouble,
            refusing=dict(self._delivery.refusing),
            own_letters=self._own_letters,
            last_letter=self._last_letter,
        )

    def _oldest_age(self) -> float:
        """Of what is not in Kafka."""
        kept = (*islice(self._delivery.pending, 1), self._oldest, self.backlog.spool.oldest)
        times = [self._received(record) for record in kept if record is not None]
        times += [self._came(failure.record) for failure in islice(self.outlet.failures, 1)]
        unwritten = self.backlog.unsafe_since if isinstance(self.backlog, Backlog) else None
        times += [moment for moment in (self.outlet.oldest, unwritten) if moment is not None]
        oldest = min(filter(None, times), default=None)
        return 0.0 if oldest is None else max(0.0, (self.now() - oldest) / 1e6)

    def _journal_stats(self) -> JournalStats:
        transactions, oldest = self._transactions, self._oldest
        waiting = self.backlog.count + len(self._delivery.pending)
        if transactions is None:
            waiting += self.outlet.outstanding + len(self.outlet.failures)
        lag = 0.0 if oldest is None else max(0.0, (self.now() - self._received(oldest)) / 1e6)
        if transactions is None:
            return JournalStats(waiting, lag)
        return JournalStats(waiting, lag, transactions.commits, transactions.aborts, transactions.fenced)

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
        payload = shown(event).encode("utf-8", "backslashreplace")
        self._publish_letter(event.origin, payload, reason, "encode", event.receive_time)

    def _too_large(self, route: Route, event: Event, value: bytes) -> None:
        reason = f"the {route.kind} record of {len(value)} bytes is over kafka.max_record_bytes of {self._max_bytes}"
        if not isinstance(event, DeadLetter):
            self._publish_letter(
                event.origin, value, reason, "encode", event.receive_time, event.exchange_time, topic=route.topic
            )
        elif event.payload:
            self.publish(replace(event, payload=b"", reason=event.reason[:_REASON_CHARACTERS]))
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
        self._own_letters += 1
        self._last_letter = f"{origin.key.decode()}: {letter.reason}"
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
        self._undeliverable += 1
        self._own_letters += 1
        self._last_letter = f"{record.topic}: {letter.reason}"
        self._complain(
            "dead_letter", stage="produce", reason=letter.reason, topic=record.topic, bytes=len(record.value)
        )
        route = self.routes[DeadLetter]
        value = route.encode(letter)
        if len(value) > self._max_bytes:
            value = route.encode(replace(letter, payload=b""))
        return Record(route.topic, record.key, letter.receive_time // 1000, value)

    # The spool.

    def _spool(self, record: Record, kind: str, event: Event) -> None:
        if self._closed:
            raise RuntimeError("publish after the sink was closed")
        self._spool_from_now()
        self.room.admit(record, kind, event)

    def _on_failure(self) -> None:
        self._spool_from_now()

    def _spool_from_now(self) -> None:
        if self._direct:
            self._direct = False
            self._emptied = trio.Event()
            self._spooling.set()
            self._complain("spooling", in_flight=self.outlet.outstanding, broker_up=self.outlet.broker_up)

    def _gap(self, reason: str, scope: str = "sink", since: Micros | None = None) -> FeedStatus:
        now = self.now()
        until = now if since is not None else None
        return FeedStatus(
            self._own, None, now, None, status="gap", scope=scope, reason=reason, from_time=since, to_time=until
        )

    def announce_unclean_end(self) -> None:
        """Publish, before anything else, since when records may be missing, if the last process was not closed."""
        marker = self.backlog.spool.marker
        if marker.found:
            since = marker.safe_until
            log.warning("unclean_end", safe_until=since, effect="announced as a gap")
            self._append_status(self._gap("the service ended without a clean close", "process", since))

    def _append_status(self, status: FeedStatus) -> None:
        route = self.routes[FeedStatus]
        route.published += 1
        self.backlog.append(Record(route.topic, status.origin.key, status.receive_time // 1000, route.encode(status)))

    # Tasks.

    async def run(self) -> None:
        """Work until cancelled; raises `SinkFailed` for what only a person can mend."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.outlet.run)
                nursery.start_soon(self.backlog.keep_writing)
                nursery.start_soon(self._keep_marking)
                nursery.start_soon(self.room.keep)
                nursery.start_soon(keep_fresh, self.settings, self.outlet.log_in_as)
                if isinstance(self.backlog, Journal):
                    nursery.start_soon(self._keep_draining, self.backlog)
                else:
                    nursery.start_soon(self._keep_emptying, self.backlog)
        finally:
            self.outlet.stop()  # whoever waits for deliveries need not any more
            if self._transactions is not None:
                with trio.CancelScope(shield=True):
                    await self._transactions.end()

    async def delivered(self) -> None:
        """Wait until everything published so far is in Kafka."""
        if isinstance(self.backlog, Journal):
            while self._holds_records:
                if self._emptied.is_set():  # otherwise there is another waiter
                    self._emptied = trio.Event()
                await self._emptied.wait()
            return
        while self._holds_records:
            await self._emptied.wait()
            await self.outlet.settled()
            if self.outlet.failures or self.outlet.broken is not None:
                self._spool_from_now()

    @property
    def _holds_records(self) -> bool:
        if self._transactions is None and (self.outlet.outstanding or self.outlet.failures):
            return True
        return bool(self._delivery.pending) or not self.backlog.is_empty

    async def _keep_emptying(self, backlog: Backlog) -> None:
        await self.ready.wait()
        while True:
            await self._spooling.wait()
            await self._delivery.deliver()  # what librdkafka still has, or gave back, is older than the spool
            while not self._direct:
                chunk = await backlog.take(_CHUNK_RECORDS)
                if chunk is not None:
                    self._take(chunk)
                    await self._delivery.deliver()
                    await backlog.acknowledge()
                    self.room.eased()
                elif backlog.memory_count <= HELD_RECORDS:
                    self._go_direct(backlog)
                    if not self._direct:  # something was given back at once, or there was no room for all
                        await self._delivery.deliver()
                else:
                    await backlog.flush()

    async def _keep_draining(self, journal: Journal) -> None:
        await self.ready.wait()
        limit, pause = _CHUNK_RECORDS, 0.0
        if self._transactions is not None:
            limit, pause = self.settings.commit_records, self.settings.commit_interval
            mark = await self._transactions.start()
            if mark is not None:
                await journal.resume_after(mark.position, mark.skip)
        next_at = trio.current_time()
        while True:
            await trio.sleep_until(next_at)
            chunk = await journal.take(limit)
            next_at = trio.current_time() + pause
            self._take(chunk)
            self._lost += journal.write_off()
            if self._transactions is not None:
                await self._transactions.deliver(chunk)
            else:
                await self._delivery.deliver()
            self._oldest = None
            await journal.acknowledge()
            self.room.eased()
            if not self._holds_records:
                self._emptied.set()
            if len(chunk.records) == limit:
                next_at = trio.current_time()

    async def _keep_marking(self) -> None:
        """Keep the mark for an unclean end up to date."""
        marker = self.backlog.spool.marker
        while True:
            safe_until = self._look_what_is_safe()
            if safe_until:
                self._safe_until = max(self._safe_until, safe_until)
            try:
                await trio.to_thread.run_sync(marker.write, self._safe_until or self.now())
            except OSError as error:
                self._complain("mark_not_written", reason=str(error))
            await trio.sleep(_MARK_S)

    def _look_what_is_safe(self) -> Micros:
        if isinstance(self.backlog, Journal):
            self.backlog.look_at_clock()
            return self.backlog.safe_until
        now = self.now()
        on_their_way = self.outlet.turn_over(now)
        if self.outlet.failures or self._delivery.pending or self.outlet.broken is not None:
            return Micros(0)
        return min(moment for moment in (on_their_way, self.backlog.unsafe_since, now) if moment is not None)

    def _in_order(self, given_back: Iterable[Failure]) -> list[Record]:
        ordered: list[Record] = []
        for is_unsent, some in groupby(given_back, lambda failure: failure.code == KafkaError._PURGE_QUEUE):
            records = [failure.record for failure in some]
            ordered += as_published(records, self._place) if is_unsent else records
        return ordered

    def _place(self, record: Record) -> Place:
        return place(record.value, nullable=self._delivery.nullable_times.get(record.topic, False))

    def _received(self, record: Record) -> int:
        return receive_time(record.value, nullable=self._delivery.nullable_times.get(record.topic, False))

    def _came(self, record: Record) -> int:
        """When its message came; 0 for records that are not made of events, such as marks of transactions."""
        return self._received(record) if record.topic in self._delivery.nullable_times else 0

    def _take(self, chunk: Chunk) -> None:
        self._delivery.pending.extend(chunk.records)
        self._oldest = chunk.records[0] if chunk.records else None
        if chunk.recovered:
            self._recovered += len(chunk.records)
        for start, end in chunk.damages:
            log.error("spool_damaged", segment=chunk.segment, from_byte=start, to_byte=end)
            self._append_status(self._gap(f"bytes {start} to {end} of spool segment {chunk.segment} are unreadable"))

    def _go_direct(self, backlog: Backlog) -> None:
        """The disk has nothing more: send what is in memory, and from now on everything, without a pause between."""
        self._lost += backlog.write_off()
        self._oldest = None
        waiting = deque(backlog.take_memory())
        self.room.eased()  # now that there is room for it
        waiting.extend(backlog.take_memory())
        while waiting:
            try:
                self.outlet.send(waiting[0])
            except BufferError:
                for record in waiting:
                    backlog.append(record)
                return
            waiting.popleft()
        self._direct = True
        self._spooling = trio.Event()
        self._emptied.set()
        log.info("spool_empty", acknowledged=self.outlet.acknowledged)
        if self.outlet.failures or self.outlet.broken is not None:
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
        given_back = self.outlet.give_up()
        failures = [] if self._transactions is not None else given_back  # what is not committed is in `pending`
        older = [*self._in_order(failures), *self._delivery.pending]
        self.room.settle()
        waiting = self.backlog.memory_count
        self._delivery.pending.clear()
        try:
            self.backlog.close(older)
            self.backlog.spool.marker.remove()
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


def _moment(event: Event) -> Micros:
    return event.receive_time if event.exchange_time is None else event.exchange_time
