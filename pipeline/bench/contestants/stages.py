"""Our own path cut into its stages, on the same messages, without a socket: what a message costs in each.

Messages go through in blocks of as many as one read may bring, each block through one stage after the other, so that
neither is the clock read per message nor do the stages meet objects that have long left the processor's caches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from pipeline.bench.contestants.ours import configuration
from pipeline.bench.exchange import catalogue
from pipeline.bench.measure import Figures, Meter, Task
from pipeline.book.tracker import BookOptions
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import VenueSession
from pipeline.feeds.chain import Chain
from pipeline.model.events import Event, Micros
from pipeline.session.limits import Limits
from pipeline.sink.outlet import Outlet
from pipeline.sink.routes import Routes, compile_routes

_ENDPOINTS = {"bybit": "linear", "okx": "public"}
_SNAPSHOTS_US = 60_000_000
_BLOCK = Limits().batch
_FLUSH_S = 60.0


def run(task: Task) -> Figures:
    """Take the whole stream through all stages. Raises `RuntimeError` unless all records reached Kafka."""
    settings = configuration(task).kafka
    routes = trio.run(compile_routes, settings)
    outlet = Outlet(settings, lambda: None)
    line = _Line.open(task, routes, outlet)
    messages = Path(task.stream).read_bytes().splitlines()
    meter = Meter(task)
    threads = time.process_time() - time.thread_time()
    is_warm, counted_from = False, 0
    for at in range(0, len(messages), _BLOCK):
        line.take(messages[at : at + _BLOCK])
        meter.look(at + _BLOCK)
        if not is_warm and at + _BLOCK >= task.warm:
            is_warm, threads = True, time.process_time() - time.thread_time()
            line.spent_ns.clear()
            counted_from = at + _BLOCK
    line.flush()
    if outlet.acknowledged < line.records:
        raise RuntimeError(f"{line.records - outlet.acknowledged} records are not in Kafka")
    threads = time.process_time() - time.thread_time() - threads
    figures = meter.finish(len(messages), line.records)
    count = len(messages) - counted_from
    stages = {name: spent / count / 1e3 for name, spent in line.spent_ns.items()}
    return attrs.evolve(figures, stages_us={**stages, "kafka_threads": threads / count * 1e6})


@attrs.define(eq=False)
class _Line:
    session: VenueSession
    chain: Chain
    routes: Routes
    outlet: Outlet
    published: list[Event]
    """What the chain has brought since it was last emptied."""
    most_outstanding: int
    records: int = 0
    spent_ns: dict[str, int] = attrs.field(factory=dict)
    """Processor time of this thread by stage."""

    @classmethod
    def open(cls, task: Task, routes: Routes, outlet: Outlet) -> _Line:
        venue, endpoint = VENUES[task.venue], _ENDPOINTS[task.venue]
        published: list[Event] = []

        def publish(event: Event) -> bool:
            published.append(event)
            return True

        options = BookOptions(snapshot_interval=_SNAPSHOTS_US)
        known = catalogue(task.venue, task.instruments)
        chain = Chain(venue, endpoint, "bench.stages#1", known, publish, lambda key: options)
        session = venue.session(endpoint, (), venue.session_times)
        session.start(0.0)
        return cls(session, chain, routes, outlet, published, outlet.settings.queue_messages // 2)

    def take(self, block: Sequence[bytes]) -> None:
        """One block through all stages."""
        clock, now = time.thread_time_ns, Micros(time.time_ns() // 1000)
        session, normalize, emit = self.session.receive, self.chain.normalizer.normalize, self.chain.emit
        routes, outlet, published = self.routes, self.outlet, self.published
        begin = clock()
        for message in block:
            session(message, 0.0)
        judged = clock()
        normalized = [normalize(message, now) for message in block]
        decoded = clock()
        for events in normalized:
            emit(events)
        tracked = clock()
        encoded = [(route := routes[event.__class__], route.encode(event)) for event in published]
        ready = clock()
        for event, (route, value) in zip(published, encoded, strict=True):
            moment = event.exchange_time if event.exchange_time is not None else event.receive_time
            outlet.produce(route.topic, value, event.origin.key, -1, outlet.report, None, moment // 1000)
            outlet.sent += 1
        produced = clock()
        outlet.producer.poll(0)
        while outlet.outstanding > self.most_outstanding:
            outlet.producer.poll(0.01)
        self.records += len(published)
        published.clear()
        self._spend("session", judged - begin)
        self._spend("normalize", decoded - judged)
        self._spend("book", tracked - decoded)
        self._spend("encode", ready - tracked)
        self._spend("produce", produced - ready)
        self._spend("reports", clock() - produced)

    def flush(self) -> None:
        """Wait for the last reports."""
        begin = time.thread_time_ns()
        self.outlet.producer.flush(_FLUSH_S)
        self._spend("reports", time.thread_time_ns() - begin)

    def _spend(self, stage: str, spent_ns: int) -> None:
        self.spent_ns[stage] = self.spent_ns.get(stage, 0) + spent_ns
