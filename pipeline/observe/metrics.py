"""Prometheus metrics, read from plain counters at scrape time so that the hot path pays nothing."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.model.latency import Latency
from pipeline.model.stats import ArchiveStats, ConnectionStats, VenueStats
from pipeline.observe.loop import LoopWatch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STARTED_S = time.time()

_LABELS = ("venue", "connection")
_COUNTERS: tuple[tuple[str, str, Callable[[ConnectionStats], float]], ...] = (
    ("pipeline_messages", "WebSocket messages received.", lambda c: c.messages),
    ("pipeline_received_bytes", "Bytes of WebSocket messages received.", lambda c: c.bytes),
    ("pipeline_events", "Normalized events.", lambda c: c.events),
    ("pipeline_requests", "Login, subscribe and unsubscribe requests sent.", lambda c: c.requests),
    ("pipeline_dead_letters", "Messages that could not be read.", lambda c: c.dead_letters),
    ("pipeline_book_gaps", "Gaps found in order books.", lambda c: c.gaps),
    ("pipeline_book_resyncs", "Order books subscribed anew after a gap.", lambda c: c.resyncs),
    (
        "pipeline_book_checksum_failures",
        "Order books that did not match their checksum.",
        lambda c: c.checksum_failures,
    ),
    ("pipeline_stale_subscriptions", "Subscriptions that fell silent beyond their bound.", lambda c: c.stale),
    ("pipeline_venue_notices", "Announcements and unknown control messages of the venue.", lambda c: c.notices),
    ("pipeline_connection_generations", "Connections opened or tried.", lambda c: c.generation),
    ("pipeline_handovers", "Announced ends of connections that a replacement bridged.", lambda c: c.handovers),
    (
        "pipeline_query_failures",
        "REST requests beside a stream that failed or were refused.",
        lambda c: c.query_failures,
    ),
    ("pipeline_book_seeds", "Order-book snapshots read over REST.", lambda c: c.seeds),
    ("pipeline_reconciliations", "Complete readings of an account's state.", lambda c: c.reconciliations),
    ("pipeline_repeated_fills", "Fills received again and not published again.", lambda c: c.repeated_fills),
    ("pipeline_lags", "Times the connection fell behind the venue.", lambda c: c.lags),
)
_GAUGES: tuple[tuple[str, str, Callable[[ConnectionStats], float]], ...] = (
    ("pipeline_connection_live", "1 while the connection is subscribed.", lambda c: float(c.is_live)),
    ("pipeline_lagging", "1 while the connection is behind the venue.", lambda c: float(c.state == "lagging")),
    ("pipeline_subscriptions_wanted", "Topics the plan puts on the connection.", lambda c: c.subscriptions),
    ("pipeline_subscriptions_granted", "Topics the venue has granted.", lambda c: c.subscribed),
    ("pipeline_subscriptions_refused", "Topics the venue has refused.", lambda c: len(c.refused)),
    (
        "pipeline_exchange_lag_seconds",
        "Receive time minus exchange time, the smallest in the last quarter of a second.",
        lambda c: c.exchange_lag / 1e6,
    ),
    (
        "pipeline_connection_lag_seconds",
        "The same without what the clocks differ by; 0 when nothing comes.",
        lambda c: c.lag / 1e6,
    ),
    ("pipeline_last_receive_timestamp_seconds", "When the last message was received.", lambda c: c.last_receive / 1e6),
)

_ARCHIVE_COUNTERS: tuple[tuple[str, str, Callable[[ArchiveStats], float]], ...] = (
    ("pipeline_archive_messages", "Messages handed to the archive.", lambda a: a.messages),
    ("pipeline_archive_lost", "Entries that the archive's files lack.", lambda a: a.lost),
    ("pipeline_archive_written_bytes", "Compressed bytes written to the archive's files.", lambda a: a.written_bytes),
)


class FeedCollector(Collector):
    """Metrics of the connections."""

    def __init__(self, venues: Callable[[], Iterable[VenueStats]]) -> None:
        self._venues = venues

    def collect(self) -> Iterator[Metric]:
        connections = [c for venue in self._venues() for c in venue.connections.values()]
        for name, text, read in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=_LABELS)
            for c in connections:
                counter.add_metric((c.venue, c.id), read(c))
            yield counter
        for name, text, read in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=_LABELS)
            for c in connections:
                gauge.add_metric((c.venue, c.id), read(c))
            yield gauge
        reconnects = CounterMetricFamily(
            "pipeline_reconnects", "Lost connections, by cause.", labels=(*_LABELS, "cause")
        )
        for c in connections:
            for cause, count in c.reconnects.items():
                reconnects.add_metric((c.venue, c.id, cause), count)
        yield reconnects
        conflated = CounterMetricFamily(
            "pipeline_conflated_events",
            "States replaced by later ones while a connection lagged.",
            labels=(*_LABELS, "kind"),
        )
        for c in connections:
            for kind, count in c.conflated.items():
                conflated.add_metric((c.venue, c.id, kind), count)
        yield conflated
        unknown = GaugeMetricFamily(
            "pipeline_unknown_field", "1 for each field that no reference knows.", labels=(*_LABELS, "field")
        )
        for c in connections:
            for field in c.unknown_fields:
                unknown.add_metric((c.venue, c.id, field), 1)
        yield unknown
        yield from _accounts(connections)
        yield from self._arrivals()
        yield from self._catalogues()
        yield from self._archives()

    def _arrivals(self) -> Iterator[Metric]:
        text = (
            "From the exchange's time in a message to receiving it, as the two clocks tell, one turn in eight; "
            "le=0 counts what seems to come before it was sent."
        )
        ages = HistogramMetricFamily("pipeline_exchange_to_receive_seconds", text, labels=("venue", "kind"))
        for venue in self._venues():
            for kind, latency in tuple(venue.arrivals.items()):
                ages.add_metric((venue.name, kind), buckets(latency), latency.sum_s)
        yield ages

    def _catalogues(self) -> Iterator[Metric]:
        known = GaugeMetricFamily("pipeline_instruments", "Instruments in the catalogue.", labels=("venue",))
        reads = CounterMetricFamily("pipeline_catalogue_reads", "Readings of the catalogue.", labels=("venue",))
        failures = CounterMetricFamily("pipeline_catalogue_failures", "Failed readings.", labels=("venue",))
        refused = GaugeMetricFamily("pipeline_venue_refused", "1 if the venue was given up.", labels=("venue",))
        waiting = GaugeMetricFamily(
            "pipeline_connect_waiting", "Connections that wait for the rate.", labels=("venue",)
        )
        waited = CounterMetricFamily(
            "pipeline_rate_limit_wait_seconds", "Time spent waiting for a venue's rates.", labels=("venue", "what")
        )
        offset = GaugeMetricFamily(
            "pipeline_clock_offset_seconds", "The venue's clock minus ours, measured for logins.", labels=("venue",)
        )
        silent = CounterMetricFamily(
            "pipeline_clock_failures", "Times the venue did not tell its time.", labels=("venue",)
        )
        unsaved = CounterMetricFamily(
            "pipeline_state_failures", "Times the memory of accounts could not be written.", labels=("venue",)
        )
        for venue in self._venues():
            unsaved.add_metric((venue.name,), venue.state_failures)
            offset.add_metric((venue.name,), venue.clock_offset / 1e6)
            silent.add_metric((venue.name,), venue.clock_failures)
            waiting.add_metric((venue.name,), venue.connect_waiting)
            waited.add_metric((venue.name, "connect"), venue.connect_waited)
            waited.add_metric((venue.name, "rest"), venue.rest_waited)
            known.add_metric((venue.name,), venue.instruments)
            reads.add_metric((venue.name,), venue.catalogue_reads)
            failures.add_metric((venue.name,), venue.catalogue_failures)
            refused.add_metric((venue.name,), float(venue.state == "refused"))
        yield from (known, reads, failures, refused, waiting, waited, offset, silent, unsaved)

    def _archives(self) -> Iterator[Metric]:
        kept = [(venue.name, venue.archive) for venue in self._venues() if venue.archive is not None]
        for name, text, read in _ARCHIVE_COUNTERS:
            counter = CounterMetricFamily(name, text, labels=("venue",))
            for venue, archive in kept:
                counter.add_metric((venue,), read(archive))
            yield counter
        waiting = GaugeMetricFamily(
            "pipeline_archive_waiting_bytes", "Of the archive, in memory on their way to files.", labels=("venue",)
        )
        for venue, archive in kept:
            waiting.add_metric((venue,), archive.waiting_bytes)
        yield waiting


class ProcessCollector(Collector):
    """Memory and CPU of the process, and where that is measured how late its event loop is."""

    def __init__(self, loop: LoopWatch | None = None) -> None:
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily("process_cpu_seconds", "CPU time used.", value=usage.ru_utime + usage.ru_stime)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", value=resident_bytes())
        yield GaugeMetricFamily("process_start_time_seconds", "When the process started.", value=_STARTED_S)
        yield GaugeMetricFamily("pipeline_gc_objects", "Objects of the youngest generation.", value=gc.get_count()[0])
        if self._loop is not None:
            late, text = self._loop.late_s, "From when a task of the event loop was due to when it ran."
            yield GaugeMetricFamily("pipeline_event_loop_lag_seconds", text, value=late)


class Numbers(Collector):
    """Counters and gauges that some part offers as `(name, help, kind, value)`, kind being counter or gauge."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, str, str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, text, kind, value in self._read():
            yield (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, value=value)


class Distribution(Collector):
    """A histogram of how long something took."""

    def __init__(self, name: str, text: str, read: Callable[[], Latency]) -> None:
        self._name, self._text, self._read = name, text, read

    def collect(self) -> Iterator[Metric]:
        latency = self._read()
        histogram = HistogramMetricFamily(self._name, self._text)
        histogram.add_metric((), buckets(latency), latency.sum_s)
        yield histogram


def buckets(latency: Latency) -> list[tuple[str, float]]:
    """The counts as Prometheus wants them: cumulated, by upper bound."""
    limits = [*(str(float(bound)) for bound in latency.bounds_s), "+Inf"]
    return list(zip(limits, accumulate(latency.counts), strict=True))


def _accounts(connections: Iterable[ConnectionStats]) -> Iterator[Metric]:
    """Of those connections alone whose account is read: the others would be for ever overdue."""
    last = GaugeMetricFamily(
        "pipeline_reconciled_timestamp_seconds",
        "When an account's state was last read completely; 0 if never since the start.",
        labels=_LABELS,
    )
    every = GaugeMetricFamily(
        "pipeline_reconcile_interval_seconds",
        "From one reading of an account's state to the next; infinite if only connecting begins one.",
        labels=_LABELS,
    )
    for c in connections:
        if c.reconciles:
            last.add_metric((c.venue, c.id), c.reconciled / 1e6)
            every.add_metric((c.venue, c.id), inf if c.reconcile_every is None else c.reconcile_every)
    yield from (last, every)


def render(collectors: Iterable[Collector]) -> Callable[[], bytes]:
    """A function that gives the present metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return lambda: generate_latest(registry)


def resident_bytes() -> int:
    """Memory that the process has in RAM; where that is not told, the most it ever had."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
