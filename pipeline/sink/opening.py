"""Opening and closing the sink: schemas, spool, broker, topics, and back in reverse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from itertools import chain, repeat

import attrs
import structlog
import trio
from confluent_kafka import Producer

from pipeline.model.errors import PipelineError
from pipeline.model.events import Event, Micros
from pipeline.sink.backlog import Backlog
from pipeline.sink.errors import RegistryAbsent, SinkFailed
from pipeline.sink.journal import Journal
from pipeline.sink.outlet import wall_clock
from pipeline.sink.routes import Route, compile_routes
from pipeline.sink.settings import WATERMARK, KafkaSettings
from pipeline.sink.sink import Sink
from pipeline.sink.spool import open_spool
from pipeline.sink.topics import TopicReport, prepare_topics

log = structlog.get_logger()


_REGISTRY_AGAIN_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to reach the schema registry, each of which makes several requests."""


@attrs.define(eq=False)
class Opening:
    """What `open_sink` waits for, for whoever asks meanwhile."""

    waits_for: str = ""
    """registry, kafka, or nothing."""
    trouble: Callable[[], str] = str
    """Why that has not come yet, as far as is known."""

    def failed(self, reason: str) -> None:
        """It has not come at this attempt."""
        self.trouble = lambda: reason


@asynccontextmanager
async def open_sink(
    settings: KafkaSettings,
    *,
    kinds: Collection[str] | None = None,
    opening: Opening | None = None,
    now: Callable[[], Micros] = wall_clock,
    make_producer: Callable[..., Producer] = Producer,
) -> AsyncIterator[Sink]:
    """A sink that works until the context is left, and then has up to `drain_within` to deliver the rest.

    What is not delivered by then goes to the spool, for the next start. A broker that is away at start is no error:
    records are spooled until it comes. The sink goes on working when the body is cancelled, until it is left.

    `kinds` are those whose topics have to be there and writable (None: all). Any other kind can be published too;
    should the broker refuse it, its records end as dead letters.

    With `opening`, a schema registry that is away is waited for; it is told of what is waited for.

    Raises at start `ConfigError` (properties, spool folder), `Refused` (credentials), `SinkFailed` (registry, topics).
    Later `SinkFailed`, in an exception group, cancels the body.
    """
    routes = await compile_routes(settings) if opening is None else await _routes(settings, opening)
    spool = await trio.to_thread.run_sync(lambda: open_spool(settings.spool, identified=settings.is_exactly_once))
    failure: PipelineError | None = None
    try:
        store: Backlog | Journal = Backlog(settings.spool, spool, now)
        if settings.is_journaled:
            store = Journal(settings.spool, spool, now, repeats_chunks=settings.is_exactly_once)
        sink = Sink(settings, routes, store, now, make_producer)
        sink.announce_unclean_end()
        try:
            async with trio.open_nursery() as nursery:
                work = trio.CancelScope(shield=True)
                nursery.start_soon(_work, sink, work)
                try:
                    try:
                        if opening is not None:
                            opening.waits_for, opening.trouble = "kafka", lambda: sink.outlet.trouble
                        await _start(sink, nursery, kinds)
                    except PipelineError as error:
                        failure = error
                    else:
                        yield sink
                finally:
                    try:
                        if failure is None and not sink.outlet.is_stopped:
                            with trio.move_on_after(settings.drain_within, shield=True):
                                await sink.delivered()
                    finally:
                        sink.outlet.stop()
                        work.cancel()
                        nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(sink.close)
    finally:
        spool.abandon()
    if failure is not None:
        raise failure


async def _routes(settings: KafkaSettings, opening: Opening) -> dict[type[Event], Route]:
    """As `compile_routes`, but a registry that is away is asked again and again."""
    opening.waits_for = "registry"
    pauses = chain(_REGISTRY_AGAIN_S, repeat(_REGISTRY_AGAIN_S[-1]))
    while True:
        try:
            return await compile_routes(settings)
        except RegistryAbsent as error:
            opening.failed(str(error))
            log.warning("registry_absent", reason=str(error), effect="nothing is read before it answers")
        await trio.sleep(next(pauses))


async def prepare_more(sink: Sink, kinds: Collection[str]) -> None:
    """Create or verify the topics of kinds that were not asked for at the start, once Kafka has been reached.

    What is wrong is logged and ends nothing: what is published already goes on.
    """
    await sink.ready.wait()
    if not sink.settings.verify_topics or not kinds:
        return
    try:
        report_topics(await trio.to_thread.run_sync(prepare_topics, sink.settings, sorted(kinds)))
    except SinkFailed as error:
        log.error("topics_unfit", reason=str(error), effect="what Kafka refuses of these ends as dead letters")


async def _start(sink: Sink, nursery: trio.Nursery, kinds: Collection[str] | None) -> None:
    try:
        await sink.outlet.connect()
    except SinkFailed as error:
        log.warning("kafka_absent", reason=str(error), effect="records go to the spool until it answers")
        nursery.start_soon(_prepare_later, sink, kinds)
    else:
        await _prepare(sink, kinds)


async def _work(sink: Sink, scope: trio.CancelScope) -> None:
    with scope:
        await sink.run()


async def _prepare_later(sink: Sink, kinds: Collection[str] | None) -> None:
    while True:
        try:
            await sink.outlet.connect()
        except SinkFailed:
            continue
        await _prepare(sink, kinds)
        return


async def _prepare(sink: Sink, kinds: Collection[str] | None) -> None:
    """Create or verify the topics, and let the records out."""
    if sink.settings.verify_topics:
        needed = [route.kind for route in sink.routes.values() if kinds is None or route.kind in kinds]
        if sink.settings.is_exactly_once:
            needed.append(WATERMARK)
        report_topics(await trio.to_thread.run_sync(prepare_topics, sink.settings, needed))
    log.info("kafka_ready", bootstrap_servers=await sink.bootstrap_servers())
    sink.ready.set()


def report_topics(reports: Iterable[TopicReport]) -> None:
    """Log what was found about the topics; raises `SinkFailed` with all that is wrong."""
    problems = []
    for report in reports:
        if report.outcome == "created":
            log.info("topic_created", topic=report.topic)
        for warning in report.warnings:
            log.warning("topic_differs", topic=report.topic, reason=warning)
        problems += [f"topic {report.topic}: {error}" for error in report.errors]
    if problems:
        raise SinkFailed("\n".join(problems))
