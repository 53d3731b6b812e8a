"""What is told about order entry: metrics, and a section of the page."""

from __future__ import annotations

from typing import Any

import attrs

from pipeline.model.order_stats import OrderStats
from pipeline.observe.metrics import render
from pipeline.observe.orders import OrderCollector
from pipeline.observe.page import StatusPage
from tests.observe.statuses import SECOND, START, sink, status


def stats(**fields: Any) -> OrderStats:
    found = OrderStats("bybit", "main", state="owner", connection="live")
    for name, value in fields.items():
        assert hasattr(found, name)
        setattr(found, name, value)
    return found


def metrics(*every: OrderStats) -> str:
    return render([OrderCollector(lambda: every)])().decode()


def section(*every: OrderStats) -> str:
    told = status(sink=sink(), now=START + 90 * SECOND)
    told["orders"] = {f"{each.venue}.{each.account}": attrs.asdict(each) for each in every}
    return str(StatusPage().view(told).sections["orders"])


def test_without_order_entry_there_is_nothing_to_tell() -> None:
    assert "order" not in metrics()
    assert section() == ""


def test_every_counter_has_its_metric() -> None:
    one = stats(
        commands={"create": 3},
        results={"acknowledged": 2, "rejected": 1},
        refusals={"price_band": 1},
        reconnects={"ConnectionLost": 4},
        replayed=5,
        repeated=6,
        unknown=1,
        oldest_unknown=START,
        is_killed=True,
        open_orders=7,
    )
    one.until_sent.observe(0.0015)
    one.sync.observe(0.0003)
    text = metrics(one)
    who = 'account="main",venue="bybit"'
    for line in (
        'pipeline_order_commands_total{account="main",action="create",venue="bybit"} 3.0',
        'pipeline_order_results_total{account="main",state="rejected",venue="bybit"} 1.0',
        'pipeline_order_refusals_total{account="main",rule="price_band",venue="bybit"} 1.0',
        'pipeline_trade_reconnects_total{account="main",cause="ConnectionLost",venue="bybit"} 4.0',
        f"pipeline_order_replays_total{{{who}}} 5.0",
        f"pipeline_order_repeats_total{{{who}}} 6.0",
        f"pipeline_order_unknown{{{who}}} 1.0",
        f"pipeline_order_kill_switch{{{who}}} 1.0",
        f"pipeline_open_orders{{{who}}} 7.0",
        f"pipeline_trade_connection_live{{{who}}} 1.0",
        f"pipeline_order_owner{{{who}}} 1.0",
        'pipeline_order_send_seconds_bucket{account="main",le="0.001",venue="bybit"} 0.0',
        'pipeline_order_send_seconds_bucket{account="main",le="0.002",venue="bybit"} 1.0',
        f"pipeline_order_ledger_sync_seconds_count{{{who}}} 1.0",
    ):
        assert line in text
    assert f"pipeline_order_oldest_unknown_timestamp_seconds{{{who}}} 1.7638e+09" in text


def test_the_page_shows_who_can_trade_and_what_is_unknown() -> None:
    shown = section(stats(commands={"create": 12}, unknown=2, oldest_unknown=START + 60 * SECOND))
    assert "bybit.main" in shown
    assert "2, for 30 s" in shown
    assert 'class="warn"' in shown


def test_a_killed_account_stands_out() -> None:
    shown = section(stats(is_killed=True))
    assert "killed" in shown
    assert 'class="bad"' in shown


def test_what_the_venue_refused_and_what_is_not_in_kafka_is_shown() -> None:
    shown = section(stats(results={"acknowledged": 4, "rejected": 31}, refusals={"price_band": 1}, unsettled=17))
    for name, cell in (
        ("Results", "4 acknowledged, 31 rejected"),
        ("Refused by rule", "price_band 1"),
        ("Under way", "17 not settled in Kafka"),
    ):
        assert f'data-label="{name}"' in shown
        assert f">{cell}</td>" in shown


def test_how_long_commands_took_lately_is_shown() -> None:
    page, one = StatusPage(), stats()
    for second in (0, 10):
        told = status(sink=sink(), now=START + second * SECOND)
        told["orders"] = {"bybit.main": attrs.asdict(one)}
        shown = page.view(told).sections["orders"]
        one.until_sent.observe(0.0015)
    assert "p50 ≤ 2 ms / p99 ≤ 2 ms" in shown


def test_orders_are_the_first_on_the_page() -> None:
    told = status(sink=sink())
    told["orders"] = {"bybit.main": attrs.asdict(stats())}
    assert list(StatusPage().view(told).sections)[:2] == ["verdict", "orders"]
