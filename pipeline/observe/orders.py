"""Metrics of order entry, read from its counters at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.model.latency import Latency
from pipeline.model.order_stats import OrderStats
from pipeline.observe.metrics import buckets

_LABELS = ("venue", "account")
_COUNTERS: tuple[tuple[str, str, Callable[[OrderStats], float]], ...] = (
    ("pipeline_order_replays", "Commands read again after they were dealt with.", lambda o: o.replayed),
    ("pipeline_order_repeats", "Commands under the identifier of an earlier one: dropped.", lambda o: o.repeated),
    ("pipeline_orders_swept", "Orders cancelled by cancel_all or the kill switch.", lambda o: o.swept),
    ("pipeline_order_result_failures", "Results that Kafka refused at first.", lambda o: o.result_failures),
    ("pipeline_order_price_failures", "Reference prices that could not be read.", lambda o: o.price_failures),
    ("pipeline_order_look_up_failures", "Questions about orders without an answer.", lambda o: o.look_up_failures),
    ("pipeline_order_arm_failures", "Failures to arm the cancelling on disconnection.", lambda o: o.arm_failures),
    ("pipeline_order_ownership_losses", "Times the command topic went to another member.", lambda o: o.losses),
)
_MAPPED: tuple[tuple[str, str, str, Callable[[OrderStats], Mapping[str, int]]], ...] = (
    ("pipeline_order_commands", "Commands taken, repetitions not counted.", "action", lambda o: o.commands),
    ("pipeline_order_results", "Results by the state that they tell.", "state", lambda o: o.results),
    ("pipeline_order_refusals", "Items refused before they were sent.", "rule", lambda o: o.refusals),
    ("pipeline_trade_reconnects", "Lost connections for orders, by cause.", "cause", lambda o: o.reconnects),
)
_GAUGES: tuple[tuple[str, str, Callable[[OrderStats], float]], ...] = (
    ("pipeline_order_unknown", "Items whose outcome the venue has not told yet.", lambda o: o.unknown),
    (
        "pipeline_order_oldest_unknown_timestamp_seconds",
        "Since when the oldest of them is so; 0 if there is none.",
        lambda o: o.oldest_unknown / 1e6,
    ),
    ("pipeline_order_waiting", "Commands in memory that are not sent yet.", lambda o: o.waiting),
    ("pipeline_order_pending", "Requests that the venue has not answered yet.", lambda o: o.pending),
    ("pipeline_order_unsettled", "Items whose final result Kafka has not acknowledged.", lambda o: o.unsettled),
    ("pipeline_open_orders", "Open orders of the account, as far as they are known.", lambda o: o.open_orders),
    ("pipeline_order_kill_switch", "1 while the kill switch is on.", lambda o: float(o.is_killed)),
    ("pipeline_order_owner", "1 while this instance owns the command topic.", lambda o: float(o.state == "owner")),
    ("pipeline_trade_connection_live", "1 while orders can be sent.", lambda o: float(o.connection == "live")),
)
_HISTOGRAMS: tuple[tuple[str, str, Callable[[OrderStats], Latency]], ...] = (
    ("pipeline_order_send_seconds", "From taking a command to its bytes on the wire.", lambda o: o.until_sent),
    ("pipeline_order_ledger_sync_seconds", "Waits for the ledger's disk.", lambda o: o.sync),
)


class OrderCollector(Collector):
    """All accounts that orders are taken for."""

    def __init__(self, read: Callable[[], Iterable[OrderStats]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All or nothing: without order entry there are no such metrics."""
        every = list(self._read())
        if not every:
            return
        for name, text, number in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=_LABELS)
            for one in every:
                counter.add_metric((one.venue, one.account), number(one))
            yield counter
        for name, text, label, numbers in _MAPPED:
            counter = CounterMetricFamily(name, text, labels=(*_LABELS, label))
            for one in every:
                for value, count in sorted(numbers(one).items()):
                    counter.add_metric((one.venue, one.account, value), count)
            yield counter
        for name, text, number in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=_LABELS)
            for one in every:
                gauge.add_metric((one.venue, one.account), number(one))
            yield gauge
        for name, text, latency in _HISTOGRAMS:
            histogram = HistogramMetricFamily(name, text, labels=_LABELS)
            for one in every:
                histogram.add_metric((one.venue, one.account), buckets(latency(one)), latency(one).sum_s)
            yield histogram
