"""Prometheus metrics, read from plain counters at scrape time so that the hot path pays nothing."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from math import inf

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.model.latency import Latency
from pipeline.model.stats import ArchiveStats, ConnectionStats, VenueStats
from pipeline.observe.families import Family, collected, counter, gauge, histogram
from pipeline.observe.loop import LoopWatch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STARTED_S = time.time()

_CONNECTIONS: tuple[Family[ConnectionStats], ...] = (
    counter("pipeline_messages", "WebSocket messages received.", lambda c: c.messages),
    counter("pipeline_received_bytes", "Bytes of WebSocket messages received.", lambda c: c.bytes),
    counter("pipeline_events", "Normalized events.", lambda c: c.events),
    counter("pipeline_requests", "Login, subscribe and unsubscribe requests sent.", lambda c: c.requests),
    counter("pipeline_dead_letters", "Messages that could not be read.", lambda c: c.dead_letters),
    counter("pipeline_book_gaps", "Gaps found in order books.", lambda c: c.gaps),
    counter("pipeline_book_resyncs", "Order books subscribed anew after a gap.", lambda c: c.resyncs),
    counter(
        "pipeline_book_checksum_failures",
        "Order books that did not match their checksum.",
        lambda c: c.checksum_failures,
    ),
    counter("pipeline_stale_subscriptions", "Subscriptions that fell silent beyond their bound.", lambda c: c.stale),
    counter("pipeline_venue_notices", "Announcements and unknown control messages of the venue.", lambda c: c.notices),
    counter("pipeline_connection_generations", "Connections opened or tried.", lambda c: c.generation),
    counter("pipeline_handovers", "Announced ends of connections that a replacement bridged.", lambda c: c.handovers),
    counter(
        "pipeline_query_failures",
        "REST requests beside a stream that failed or were refused.",
        lambda c: c.query_failures,
    ),
    counter("pipeline_book_seeds", "Order-book snapshots read over REST.", lambda c: c.seeds),
    counter("pipeline_reconciliations", "Complete readings of an account's state.", lambda c: c.reconciliations),
    counter("pipeline_repeated_fills", "Fills received again and not published again.", lambda c: c.repeated_fills),
    counter("pipeline_lags", "Times the connection fell behind the venue.", lambda c: c.lags),
    gauge("pipeline_connection_live", "1 while the connection is subscribed.", lambda c: float(c.is_live)),
    gauge("pipeline_lagging", "1 while the connection is behind the venue.", lambda c: float(c.state == "lagging")),
    gauge("pipeline_subscriptions_wanted", "Topics the plan puts on the connection.", lambda c: c.subscriptions),
    gauge("pipeline_subscriptions_granted", "Topics the venue has granted.", lambda c: c.subscribed),
    gauge("pipeline_subscriptions_refused", "Topics the venue has refused.", lambda c: len(c.refused)),
    gauge(
        "pipeline_exchange_lag_seconds",
        "Receive time minus exchange time, the smallest in the last quarter of a second.",
        lambda c: c.exchange_lag / 1e6,
    ),
    gauge(
        "pipeline_connection_lag_seconds",
        "The exchange lag without what the clocks differ by; 0 when nothing comes.",
        lambda c: c.lag / 1e6,
    ),
    gauge(
        "pipeline_last_receive_timestamp_seconds", "When the last message was received.", lambda c: c.last_receive / 1e6
    ),
    counter("pipeline_reconnects", "Lost connections, by cause.", lambda c: c.reconnects, by="cause"),
    counter(
        "pipeline_conflated_events",
        "States replaced by later ones while a connection lagged.",
        lambda c: c.conflated,
        by="kind",
    ),
    gauge(
        "pipeline_unknown_field",
        "1 for each field that no reference knows.",
        lambda c: dict.fromkeys(c.unknown_fields, 1),
        by="field",
    ),
)
_ACCOUNTS: tuple[Family[ConnectionStats], ...] = (
    gauge(
        "pipeline_reconciled_timestamp_seconds",
        "When an account's state was last read completely; 0 if never since the start.",
        lambda c: c.reconciled / 1e6,
    ),
    gauge(
        "pipeline_reconcile_interval_seconds",
        "From one reading of an account's state to the next; infinite if only connecting begins one.",
        lambda c: inf if c.reconcile_every is None else c.reconcile_every,
    ),
)
_VENUES: tuple[Family[VenueStats], ...] = (
    histogram(
        "pipeline_exchange_to_receive_seconds",
        "From the exchange's time in a message to receiving it, as the two clocks tell, one turn in eight; "
        "le=0 counts what seems to come before it was sent.",
        lambda v: v.arrivals,
        by="kind",
    ),
    gauge("pipeline_instruments", "Instruments in the catalogue.", lambda v: v.instruments),
    counter("pipeline_catalogue_reads", "Readings of the catalogue.", lambda v: v.catalogue_reads),
    counter("pipeline_catalogue_failures", "Failed readings of the catalogue.", lambda v: v.catalogue_failures),
    gauge("pipeline_venue_refused", "1 if the venue was given up.", lambda v: float(v.state == "refused")),
    gauge("pipeline_connect_waiting", "Connections that wait for the rate.", lambda v: v.connect_waiting),
    counter(
        "pipeline_rate_limit_wait_seconds",
        "Time spent waiting for a venue's rates.",
        lambda v: {"connect": v.connect_waited, "rest": v.rest_waited},
        by="what",
    ),
    gauge(
        "pipeline_clock_offset_seconds",
        "The venue's clock minus ours, measured for logins.",
        lambda v: v.clock_offset / 1e6,
    ),
    counter("pipeline_clock_failures", "Times the venue did not tell its time.", lambda v: v.clock_failures),
    counter(
        "pipeline_state_failures", "Times the memory of accounts could not be written.", lambda v: v.state_failures
    ),
)
_ARCHIVES: tuple[Family[ArchiveStats], ...] = (
    counter("pipeline_archive_messages", "Messages handed to the archive.", lambda a: a.messages),
    counter("pipeline_archive_lost", "Entries that the archive's files lack.", lambda a: a.lost),
    counter(
        "pipeline_archive_written_bytes", "Compressed bytes written to the archive's files.", lambda a: a.written_bytes
    ),
    gauge(
        "pipeline_archive_waiting_bytes", "Of the archive, in memory on their way to files.", lambda a: a.waiting_bytes
    ),
)


class FeedCollector(Collector):
    """Metrics of venues and their connections."""

    def __init__(self, venues: Callable[[], Iterable[VenueStats]]) -> None:
        self._venues = venues

    def collect(self) -> Iterator[Metric]:
        venues = [((venue.name,), venue) for venue in self._venues()]
        connections = [((c.venue, c.id), c) for _, venue in venues for c in venue.connections.values()]
        # Of those whose account is read alone: the others would be for ever overdue.
        accounts = [(where, c) for where, c in connections if c.reconciles]
        archives = [(where, venue.archive) for where, venue in venues if venue.archive is not None]
        yield from collected(_CONNECTIONS, ("venue", "connection"), connections)
        yield from collected(_ACCOUNTS, ("venue", "connection"), accounts)
        yield from collected(_VENUES, ("venue",), venues)
        yield from collected(_ARCHIVES, ("venue",), archives)


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
        self._family: Family[Callable[[], Latency]] = histogram(name, text, lambda each: each())
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield self._family.metric((), [((), self._read)])


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
