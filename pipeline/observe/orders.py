"""Metrics of order entry, read from its counters at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline.model.order_stats import OrderStats
from pipeline.observe.families import Family, collected, counter, gauge, histogram

_ACCOUNTS: tuple[Family[OrderStats], ...] = (
    counter("pipeline_order_replays", "Commands read again after they were dealt with.", lambda o: o.replayed),
    counter(
        "pipeline_order_repeats", "Commands under the identifier of an earlier one: dropped.", lambda o: o.repeated
    ),
    counter("pipeline_orders_swept", "Orders cancelled by cancel_all or the kill switch.", lambda o: o.swept),
    counter("pipeline_order_result_failures", "Results that Kafka refused at first.", lambda o: o.result_failures),
    counter("pipeline_order_price_failures", "Reference prices that could not be read.", lambda o: o.price_failures),
    counter(
        "pipeline_order_look_up_failures", "Questions about orders without an answer.", lambda o: o.look_up_failures
    ),
    counter(
        "pipeline_order_arm_failures", "Failures to arm the cancelling on disconnection.", lambda o: o.arm_failures
    ),
    counter("pipeline_order_ownership_losses", "Times the command topic went to another member.", lambda o: o.losses),
    counter("pipeline_order_commands", "Commands taken, repetitions not counted.", lambda o: o.commands, by="action"),
    counter("pipeline_order_results", "Results by the state that they tell.", lambda o: o.results, by="state"),
    counter("pipeline_order_refusals", "Items refused before they were sent.", lambda o: o.refusals, by="rule"),
    counter("pipeline_trade_reconnects", "Lost connections for orders, by cause.", lambda o: o.reconnects, by="cause"),
    gauge("pipeline_order_unknown", "Items whose outcome the venue has not told yet.", lambda o: o.unknown),
    gauge(
        "pipeline_order_oldest_unknown_timestamp_seconds",
        "Since when the oldest unknown outcome is so; 0 if there is none.",
        lambda o: o.oldest_unknown / 1e6,
    ),
    gauge("pipeline_order_waiting", "Commands in memory that are not sent yet.", lambda o: o.waiting),
    gauge("pipeline_order_pending", "Requests that the venue has not answered yet.", lambda o: o.pending),
    gauge("pipeline_order_unsettled", "Items whose final result Kafka has not acknowledged.", lambda o: o.unsettled),
    gauge("pipeline_open_orders", "Open orders of the account, as far as they are known.", lambda o: o.open_orders),
    gauge("pipeline_order_kill_switch", "1 while the kill switch is on.", lambda o: float(o.is_killed)),
    gauge("pipeline_order_owner", "1 while this instance owns the command topic.", lambda o: float(o.state == "owner")),
    gauge("pipeline_trade_connection_live", "1 while orders can be sent.", lambda o: float(o.connection == "live")),
    histogram("pipeline_order_send_seconds", "From taking a command to its bytes on the wire.", lambda o: o.until_sent),
    histogram("pipeline_order_ledger_sync_seconds", "Waits for the ledger's disk.", lambda o: o.sync),
)


class OrderCollector(Collector):
    """All accounts that orders are taken for."""

    def __init__(self, read: Callable[[], Iterable[OrderStats]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All or nothing: without order entry there are no such metrics."""
        every = [((one.venue, one.account), one) for one in self._read()]
        if every:
            yield from collected(_ACCOUNTS, ("venue", "account"), every)
