"""The composition root: sink, venues, HTTP and signals put together, and taken apart in order."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
import structlog
import trio
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.config import Config, loads
from pipeline.exchanges import VENUES
from pipeline.feeds.intake import Intake
from pipeline.feeds.link import OpenWebSocket, Surroundings
from pipeline.feeds.shares import WHOLE, Share
from pipeline.leftovers import deliver_leftovers
from pipeline.model.account import Order as OrderEvent
from pipeline.model.errors import ConfigError, PipelineError, Refused
from pipeline.model.latency import DELIVERY_BOUNDS_S, PRODUCE_BOUNDS_S, Latency
from pipeline.model.order_stats import OrderStats
from pipeline.model.orders import OrderResult
from pipeline.model.stats import VenueStats
from pipeline.observe.control import KILL, RESUME, RESYNC, Control, Controls
from pipeline.observe.http import Pages, start_http
from pipeline.observe.logs import reconfigure
from pipeline.observe.loop import LoopWatch
from pipeline.observe.metrics import Distribution, FeedCollector, Numbers, ProcessCollector, render
from pipeline.observe.orders import OrderCollector
from pipeline.observe.process import with_process
from pipeline.observe.progress import report_progress
from pipeline.observe.terminal import show
from pipeline.orders.entry import OrderEntry
from pipeline.reload import Change, read_resync, read_switch
from pipeline.reloader import Order, ReloadCollector, Reloader, Source
from pipeline.session.clock import Clock, system_clock
from pipeline.session.failures import leaves
from pipeline.session.websocket import connect
from pipeline.signals import has_terminal, obeyed_signals
from pipeline.sink.numbers import sink_numbers
from pipeline.sink.opening import Opening, open_sink, prepare_more
from pipeline.sink.sink import Sink
from pipeline.tape.archive import open_archives

log = structlog.get_logger(__name__)

_SAFE_POLL_S = 0.1
"""Between looks at whether the records of a removed venue are safe."""


@attrs.define(eq=False)
class Service:
    """One process of the connector.

    The tree, outermost first: HTTP, which answers while the rest starts and stops; the sink, which outlives the
    intake to drain; the venues, cancelled first.
    """

    config: Config
    """Of all shares; what is in force."""
    share: Share = WHOLE
    """What this process takes; others of the same configuration take the rest."""
    clock: Clock = system_clock
    random: Random = attrs.field(factory=Random)
    open_websocket: OpenWebSocket = connect
    order_seam: Callable[[str], None] = lambda _: None
    """Is told each step of an order command, for tests that end the process there."""
    sink: Sink | None = attrs.field(default=None, init=False)
    orders: OrderEntry | None = attrs.field(default=None, init=False)
    intakes: dict[str, Intake] = attrs.field(factory=dict, init=False)
    address: str = attrs.field(default="", init=False)
    """Where HTTP is served; empty if it is not."""
    on_listening: Callable[[str], None] = lambda _: None
    """Is told that address, as soon as there is one or there will be none."""
    source: Source | None = None
    """What the configuration is read from anew; None: it stays as it is."""
    is_led: bool = False
    """Whether a supervisor decides what the configuration is."""
    reloader: Reloader = attrs.field(init=False)
    own: Config = attrs.field(init=False)
    """The configuration of this share."""
    _started: int = attrs.field(default=0, init=False)
    _around: Surroundings = attrs.field(init=False)
    _loop: LoopWatch = attrs.field(factory=LoopWatch, init=False)
    _opening: Opening = attrs.field(factory=Opening, init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _whole: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _intake: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _venues: trio.Nursery | None = attrs.field(default=None, init=False)
    """Where venues run; None while they do not."""
    _kinds: frozenset[str] = attrs.field(default=frozenset(), init=False)
    """Of events whose topics have been asked for."""
    _runs: dict[str, _VenueRun] = attrs.field(factory=dict, init=False)
    """The last one of each venue."""
    _former: list[Intake] = attrs.field(factory=list, init=False)
    """Of venues that were removed, until what their accounts have shown is noted."""

    def __attrs_post_init__(self) -> None:
        self.own = self.config.for_share(self.share)
        self.reloader = Reloader(self.config, self._follow, self.clock, self.source, is_led=self.is_led)
        if self.is_led:  # the file's address is the supervisor's
            self.reloader.parse = lambda text: attrs.evolve(loads(text), http=self.config.http)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`; drains the sink before it returns. Raises `PipelineError` for what cannot go on."""
        self._started = self.clock()
        async with trio.open_nursery() as whole:
            self._whole = whole.cancel_scope
            pages = Pages(
                render(self.collectors()),
                self.status,
                self.not_ready,
                self.not_started,
                self._loop,
                controls=self._controls(),
            )
            self.address = await start_http(whole, self.config.http, pages)
            self.on_listening(self.address)
            self._kinds = self.config.written_kinds
            async with open_sink(self.own.kafka, kinds=self._kinds, opening=self._opening) as sink:
                self.sink = sink
                if self._stopping:
                    self._intake.cancel()
                log.info("service_started", version=__version__, venues=list(self.config.venues))
                with self._intake:
                    await self._run_venues(sink, task_status)
                log.info("intake_stopped", draining=sink.stats().in_flight)
            for intake in (*self._former, *self.intakes.values()):
                await intake.save_accounts()
            whole.cancel_scope.cancel()
        log.info("service_stopped")

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def stop(self) -> None:
        """Stop the intake, then drain; before the sink is open, stop at once."""
        self._stopping = True
        if self.sink is None:
            self._whole.cancel()
        elif self.orders is not None and not self.orders.ended.is_set():
            self.orders.stop()  # the venues go on until what was sent is answered
        else:
            self._intake.cancel()

    def not_ready(self) -> list[str]:
        """Why the service is not ready; empty if it is."""
        if self.sink is None:
            return [self._not_open()]
        if self._stopping:
            return ["stopping"]
        reasons = []
        for name, intake in self.intakes.items():
            if intake.stats.state != "running":
                reasons.append(f"{name} is {intake.stats.state}: {intake.stats.last_error}".rstrip(": "))
            reasons.extend(
                f"{link.id} is {link.state}: {link.last_error}".rstrip(": ")
                for link in intake.stats.connections.values()
                if not link.is_live
            )
        sink = self.sink.stats()
        if sink.spool_failure is not None:
            reasons.append(f"the spool cannot be written: {sink.spool_failure}")
        if sink.is_full:
            reasons.append("the spool is full: records are being lost")
        if sink.reading_stopped_at is not None:
            reasons.append("the spool is nearly full: nothing is read")
        if self.orders is not None:
            reasons.extend(self.orders.not_ready())
        return reasons

    def _not_open(self) -> str:
        what = "the schema registry" if self._opening.waits_for == "registry" else "Kafka"
        return ": ".join(filter(None, (f"{what} has not been reached yet", self._opening.trouble())))

    def not_started(self) -> list[str]:
        """What the first start still waits for: the sink to open, each venue to have been asked for its catalogue."""
        if self.sink is None:
            return [self._not_open()]
        stats = {name: intake.stats for name, intake in self.intakes.items()}
        asked = {name for name, each in stats.items() if each.catalogue_reads or each.catalogue_failures}
        return [f"{name} has not been asked for its catalogue yet" for name in self.config.venues if name not in asked]

    def status(self) -> dict[str, Any]:
        """Everything there is to know, ready for JSON; times are microseconds UTC."""
        kafka = self.config.kafka
        return {
            "version": __version__,
            "config": self.reloader.status(),
            "started": self._started,
            "now": self.clock(),
            "share": attrs.asdict(self.share),
            "ready": not self.not_ready(),
            "not_ready": self.not_ready(),
            "orders": self._order_status(),
            "venues": {name: self._venue_status(intake) for name, intake in self.intakes.items()},
            "sink": attrs.asdict(self.sink.stats()) if self.sink is not None else None,
            "opening": {"waits_for": self._opening.waits_for, "trouble": self._opening.trouble()},
            "spool": {"max_bytes": kafka.spool.max_bytes, "when_full": kafka.spool.when_full},
        }

    def full_status(self) -> dict[str, Any]:
        """The same with what the process itself knows."""
        return with_process(self.status(), self._loop)

    def _venue_status(self, intake: Intake) -> dict[str, Any]:
        status = attrs.asdict(intake.refreshed_stats())
        for name, link in intake.links.items():
            if name in status["connections"]:
                status["connections"][name]["books"] = attrs.asdict(link.book_standing())
        return status

    async def _run_venues(self, sink: Sink, task_status: trio.TaskStatus[None]) -> None:
        own = self.own
        self._around = Surroundings(
            publish=sink.publish,
            clock=self.clock,
            random=self.random.random,
            open_websocket=self.open_websocket,
            gate=sink if own.kafka.spool.when_full == "stop_reading" else None,
            # Of all shares: an account that another one takes over one day finds its memory there.
            state_directory=Path(self.config.kafka.spool.directory) / "accounts",
            safe_until=lambda: sink.stats().safe_until,
            on_order=self._on_order if own.orders.accounts else None,
            publish_all=sink.publish_all,
        )
        async with trio.open_nursery() as self._venues:
            nursery = self._venues
            nursery.start_soon(self.reloader.watch)
            if self.share.index % self.config.workers == 0:
                open_leftover = partial(open_sink, kinds=self.config.written_kinds)
                nursery.start_soon(deliver_leftovers, self.config.kafka, self.share, open_leftover)
            self._prepare_topics(nursery)
            for name in own.venues:
                self._start_venue(nursery, name)
            if own.orders.accounts:
                nursery.start_soon(self._run_orders, sink)
            task_status.started()

    async def _run_orders(self, sink: Sink) -> None:
        """Take orders until `stop`; the venues are stopped when that is done."""
        self.orders = OrderEntry(
            settings=self.own.orders,
            kafka=self.own.kafka,
            venues=VENUES,
            intakes=self.intakes,
            around=self._around,
            route=sink.routes[OrderResult],
            seam=self.order_seam,
        )
        if not self._stopping:
            await self.orders.run()
        self._intake.cancel()

    def _on_order(self, order: OrderEvent) -> None:
        if self.orders is not None:
            self.orders.on_order(order)

    def _prepare_topics(self, nursery: trio.Nursery) -> None:
        """Of kinds that the configuration has come to publish since the sink was opened."""
        further = self.config.written_kinds - self._kinds
        if further:
            assert self.sink is not None
            self._kinds |= further
            nursery.start_soon(prepare_more, self.sink, further)

    def _start_venue(self, nursery: trio.Nursery, name: str) -> None:
        settings, before = self.own.venues[name], self._runs.get(name)
        intake = Intake(name, VENUES[name], settings, self._around, None, self.share, self.config.workers)
        self.intakes[name] = intake
        run = self._runs[name] = _VenueRun(intake)
        nursery.start_soon(self._run_venue, run, before, name=name)

    async def _run_venue(self, run: _VenueRun, before: _VenueRun | None) -> None:
        intake, sink = run.intake, self.sink
        assert sink is not None
        if before is not None:
            await before.ended.wait()
        try:
            venue = {intake.name: intake.settings}
            async with open_archives(venue, sink.publish, self.clock, __version__) as archives:
                if intake.name in archives:
                    intake.archive = archives[intake.name]
                    intake.stats.archive = archives[intake.name].stats
                with run.scope:
                    await intake.run()
            # It was removed. Nothing may be noted of its accounts that could still be lost.
            removed = self.clock()
            while sink.stats().safe_until < removed:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(_SAFE_POLL_S)
            await intake.save_accounts()
            self._former.remove(intake)
        finally:
            run.ended.set()

    # What changes without a restart.

    def _follow(self, change: Change) -> None:
        """Apply a change of the configuration to what runs."""
        self.config = change.config
        self.own = self.config.for_share(self.share)
        if change.log:
            reconfigure(self.config.log)
        if self._venues is None or self._stopping:
            return
        self._prepare_topics(self._venues)
        for name in change.removed:
            log.info("venue_removed", venue=name)
            self._former.append(self.intakes.pop(name))
            self._runs[name].scope.cancel()
        for name in change.changed:
            self.intakes[name].retarget(self.own.venues[name])
        for name in change.added:
            log.info("venue_added", venue=name)
            self._start_venue(self._venues, name)

    def _controls(self) -> Controls:
        async def resync(body: Mapping[str, Any]) -> Mapping[str, Any]:
            return self.renew_books(body)

        if self.is_led:  # the supervisor tells all workers the same
            return {RESYNC: resync}
        every = {**self.reloader.controls(), RESYNC: resync}
        if self.config.orders.accounts:
            every |= {KILL: self._switch(is_killed=True), RESUME: self._switch(is_killed=False)}
        return every

    def _switch(self, *, is_killed: bool) -> Control:
        async def switch(body: Mapping[str, Any]) -> Mapping[str, Any]:
            request = read_switch(self.config, body)
            if self.orders is None:
                raise Refused("orders: not begun yet")
            switched, refused = [], []
            for venue, account in request.accounts_of(self.config):
                try:
                    await self.orders.switch(venue, account, request.reason, is_killed=is_killed)
                except Refused as error:  # the others must not wait for this one
                    refused.append(str(error))
                else:
                    switched.append(f"{venue}.{account}")
            log.warning("kill_switch", is_killed=is_killed, accounts=switched, refused=refused, reason=request.reason)
            if refused:
                raise Refused("; ".join(refused))
            return {"accounts": switched, "is_killed": is_killed}

        return switch

    def renew_books(self, body: Mapping[str, Any]) -> dict[str, int]:
        """Force new snapshots of order books, their gaps announced. Raises `ConfigError` if none is meant."""
        request = read_resync(self.config, body, VENUES)
        intake = self.intakes.get(request.venue)
        found = (0, 0) if intake is None else intake.renew_books(request.means, f"asked for by {RESYNC}")
        if not any(found):
            raise ConfigError([f"instrument: no book of {request.instrument} is subscribed that is meant"])
        log.info("control_accepted", resync=dict(body))
        return {"resynced": found[0], "under_way": found[1]}

    def collectors(self) -> Iterable[Collector]:
        """What tells this process's metrics."""
        return [
            FeedCollector(self._venue_stats),
            Numbers(self._own_numbers),
            Numbers(self._sink_numbers),
            Distribution(
                "pipeline_kafka_delivery_seconds",
                "From the hand-over to librdkafka to the acknowledgement, one record in 64.",
                lambda: Latency(DELIVERY_BOUNDS_S) if self.sink is None else self.sink.outlet.latency,
            ),
            Distribution(
                "pipeline_receive_to_produce_seconds",
                "From receiving a message to the hand-over of a record of it to librdkafka, one record in 64.",
                lambda: Latency(PRODUCE_BOUNDS_S) if self.sink is None else self.sink.outlet.until_produced,
            ),
            OrderCollector(self._order_stats),
            ProcessCollector(self._loop),
            *([] if self.is_led else [ReloadCollector(self.reloader)]),
        ]

    def _venue_stats(self) -> list[VenueStats]:
        return [intake.refreshed_stats() for intake in self.intakes.values()]

    def _order_stats(self) -> list[OrderStats]:
        return [] if self.orders is None else self.orders.stats()

    def _order_status(self) -> dict[str, Any]:
        return {f"{each.venue}.{each.account}": attrs.asdict(each) for each in self._order_stats()}

    def _own_numbers(self) -> Iterable[tuple[str, str, str, float]]:
        yield "pipeline_ready", "1 while the service is ready.", "gauge", float(not self.not_ready())
        yield "pipeline_shards", "Instances that the subscriptions are split over.", "gauge", self.config.shard.count

    def _sink_numbers(self) -> Iterable[tuple[str, str, str, float]]:
        return sink_numbers(self.sink.stats()) if self.sink is not None else ()


@attrs.frozen(eq=False)
class _VenueRun:
    """A venue from its start to its end."""

    intake: Intake
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen
class Seat:
    """What a worker knows of its supervisor."""

    number: int = 0
    """The worker's own, from 0."""
    announce: Callable[[str], None] = lambda _: None
    """Is told where HTTP is served."""
    listen: Callable[[Callable[[Order], None]], Awaitable[None]] | None = None
    """Passes on what the supervisor tells, and returns when that has ended; None: there is no supervisor."""
    orders: Sequence[Order] = ()
    """What it has told before."""


async def run(config: Config, seat: Seat = Seat(), source: Source | None = None, *, is_live: bool = False) -> int:
    """Run the service, or one of its workers, until SIGTERM or SIGINT; returns the process's exit code.

    The first signal stops the intake and drains to Kafka; a second one exits at once. SIGHUP has the configuration
    read anew from its `source`, unless it means that the terminal is gone. With `is_live`, standard output
    shows the status. Raises `ConfigError`.
    """
    keep_what_is_loaded()
    share, is_led = config.share(seat.number), seat.listen is not None
    service = Service(config, share, on_listening=seat.announce, source=source, is_led=is_led)
    for order in seat.orders:
        service.reloader.obey(order)
    code = 0
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey_signals, service, has_terminal())
            if seat.listen is not None:
                nursery.start_soon(_obey_supervisor, service, seat.listen)
            nursery.start_soon(show if is_live else report_progress, service.full_status)
            await service.run()
            nursery.cancel_scope.cancel()
    except* ConfigError:
        raise
    except* PipelineError as group:
        for error in leaves(group):
            log.error("service_failed", text=str(error))
        code = 1
    return code


async def _obey_supervisor(service: Service, listen: Callable[[Callable[[Order], None]], Awaitable[None]]) -> None:
    await listen(service.reloader.obey)
    if not service.stopping:
        log.warning("supervisor_gone")
        signal.raise_signal(signal.SIGTERM)


def keep_what_is_loaded() -> None:
    """Spare the garbage collector what stays for as long as the process: it would stop the readers to look at it.

    Code and classes are a few hundred thousand objects; going through them takes some ten milliseconds.
    """
    gc.collect()
    gc.freeze()


async def obey_signals(service: Service, had_terminal: bool) -> None:
    """Turn the first signal to end into `service.stop()`, and SIGHUP into a look at the configuration.

    A second signal, or `shutdown_within` seconds, end the process at once, whatever is unfinished.
    """
    with trio.CancelScope() as overdue:
        async with trio.open_nursery() as nursery:
            await _obey_signals(service, had_terminal, nursery, overdue)
    if overdue.cancelled_caught:
        log.error("shutdown_overdue", shutdown_within=service.config.shutdown_within)
        os._exit(1)


async def _obey_signals(service: Service, had_terminal: bool, nursery: trio.Nursery, overdue: trio.CancelScope) -> None:
    with trio.open_signal_receiver(*obeyed_signals()) as signals:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP and (has_terminal() or not had_terminal):
                nursery.start_soon(service.reloader.obey_signal)
                continue
            if service.stopping:
                log.warning("exiting_at_once", signal=name)
                os._exit(128 + number)
            log.info("stopping", signal=name)
            service.stop()
            overdue.deadline = trio.current_time() + service.config.shutdown_within
