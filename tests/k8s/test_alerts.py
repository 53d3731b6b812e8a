"""Alerts fire on what they are for and on nothing else, ask for what exists, and lead to a page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from prometheus_client.core import Metric

from pipeline.app import Service
from pipeline.config import loads
from tests.k8s.exported import SCRAPED, exported
from tests.k8s.manifests import K8S, PRODUCTION, ROOT, Manifests, container, in_bytes, pod_labels
from tests.k8s.promql import Use, uses
from tests.services import tools

RUNBOOK = ROOT / "docs/runbook"
SECTIONS = ["What it means", "How to see the cause", "What to do", "When it resolves by itself"]

RULE_OBJECT = yaml.safe_load((K8S / "components/alerts/rules.yaml").read_text("utf-8"))
GROUPS: list[dict[str, Any]] = RULE_OBJECT["spec"]["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}

alerts = pytest.mark.parametrize("alert", RULES)


@pytest.fixture(scope="module")
def metrics() -> Mapping[str, frozenset[str]]:
    return exported()


def test_names_are_given_once() -> None:
    assert len(RULES) == sum(len(group["rules"]) for group in GROUPS)
    assert len({group["name"] for group in GROUPS}) == len(GROUPS)


def test_a_service_says_whether_it_is_ready_and_how_many_share_the_work() -> None:
    text = "shard: {index: 1, count: 3}\nvenues: {okx: {channels: [{market: spot, channel: trade}]}}"
    samples = dict(collected(Service(loads(text), loads(text).share())))
    assert samples["pipeline_shards"] == 3
    assert samples["pipeline_ready"] == 0, "nothing runs yet"
    assert 0 < time.time() - samples["process_start_time_seconds"] < 3600


def collected(service: Service) -> Iterator[tuple[str, float]]:
    """Samples of a service."""

    async def collect() -> list[Metric]:
        return [family for collector in service.collectors() for family in collector.collect()]

    return ((sample.name, sample.value) for family in trio.run(collect) for sample in family.samples)


@alerts
def test_an_alert_asks_for_what_is_exported(alert: str, metrics: Mapping[str, frozenset[str]]) -> None:
    use = uses(RULES[alert]["expr"])
    assert use.metrics
    assert use.metrics <= set(metrics)
    assert use.labels <= SCRAPED.union(*(metrics[name] for name in use.metrics))


@alerts
def test_an_alert_says_how_bad_it_is_and_leads_to_its_page(alert: str) -> None:
    rule = RULES[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    text = page.read_text("utf-8")
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    bodies = [body.strip() for body in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]]
    assert all(bodies), "a section without a word"


@alerts
def test_labels_in_annotations_are_those_of_the_expression(alert: str, metrics: Mapping[str, frozenset[str]]) -> None:
    rule = RULES[alert]
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"] + rule["annotations"]["description"]))
    kept = re.search(r"\bby \(([\w, ]+)\)", rule["expr"])
    if kept is not None and " or " not in rule["expr"]:
        assert used <= {name.strip() for name in kept[1].split(",")}
    else:
        assert used <= SCRAPED.union(*(metrics[name] for name in uses(rule["expr"]).metrics))


def test_every_page_belongs_to_an_alert() -> None:
    pages = {ROOT / rule["annotations"]["runbook_url"] for rule in RULES.values()}
    assert set(RUNBOOK.glob("*.md")) - {RUNBOOK / "README.md"} == pages
    index = (RUNBOOK / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == {page.name for page in pages}


def test_pages_name_metrics_and_log_lines_that_exist(metrics: Mapping[str, frozenset[str]]) -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "pipeline").rglob("*.py"))
    for page in RUNBOOK.glob("*.md"):
        text = page.read_text("utf-8")
        named = set(re.findall(r"`((?:pipeline|process)_\w+)[`{]", text))
        assert named <= set(metrics), page.name
        for event in re.findall(r"[Ll]og(?: line)?s? ((?:`\w+`(?:, | and | or )?)+)", text):
            for name in re.findall(r"`(\w+)`", event):
                assert f'"{name}"' in sources, f"{page.name}: {name}"


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_numbers_in_alerts_are_those_of_the_manifests(rendered: Mapping[str, Manifests], overlay: str) -> None:
    limit = container(rendered[overlay].connector)["resources"]["limits"]["memory"]
    assert in_bytes(limit) == 512 * 2**20
    assert "512 * 2 ^ 20" in RULES["PipelineMemory"]["expr"]


def test_the_monitor_gives_the_job_its_name(rendered: Mapping[str, Manifests]) -> None:
    (monitor,) = rendered["operators/market-data"].of("PodMonitor")
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert pod_labels(rendered["operators/market-data"].connector)["app.kubernetes.io/name"] == JOB
    asked = {name for rule in RULES.values() for name in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert asked == {JOB}


# What fires when: the whole of a healthy connector's metrics, of which one thing goes wrong in the second hour.

JOB = "exchange-pipeline"
BREAKS_AT, ENDS_AT, EVERY = 70, 130, 5  # minutes
POD = f'job="{JOB}", namespace="exchange", pod="pipeline-0", instance="a"'
OTHER = f'job="{JOB}", namespace="exchange", pod="pipeline-1", instance="b"'
PUBLIC = f'{POD}, venue="bybit", connection="bybit.linear.trade.0"'
SECOND = f'{POD}, venue="bybit", connection="bybit.linear.book.0"'
PRIVATE = f'{POD}, venue="okx", connection="okx.main.private.0"'
BUSINESS = f'{POD}, venue="okx", connection="okx.main.business.0"'
VENUE = f'{POD}, venue="bybit"'
ORDERS = f'{VENUE}, account="main"'

# By series: how it goes on when all is well, as promtool writes it, per minute.
# Accounts are silent for as long as nothing happens in them.
HEALTHY = {
    f"up{{{POD}}}": "1+0",
    f"up{{{OTHER}}}": "1+0",
    f"pipeline_ready{{{POD}}}": "1+0",
    f"pipeline_shards{{{POD}}}": "2+0",
    f"pipeline_shards{{{OTHER}}}": "2+0",
    f'pipeline_worker_up{{{POD}, worker="0"}}': "1+0",
    f"process_start_time_seconds{{{POD}}}": "5+0",
    f"process_resident_memory_bytes{{{POD}}}": "150000000+0",
    f"pipeline_connection_live{{{PUBLIC}}}": "1+0",
    f"pipeline_connection_live{{{SECOND}}}": "1+0",
    f"pipeline_connection_live{{{PRIVATE}}}": "1+0",
    f"pipeline_connection_live{{{BUSINESS}}}": "1+0",
    f"pipeline_subscriptions_refused{{{PUBLIC}}}": "0+0",
    f'pipeline_reconnects_total{{{PUBLIC}, cause="HeartbeatLost"}}': "0+0",
    f'pipeline_reconnects_total{{{PUBLIC}, cause="ConnectionClosed"}}': "0+0",
    f"pipeline_events_total{{{PUBLIC}}}": "0+600",
    f"pipeline_events_total{{{PRIVATE}}}": "0+0",
    f"pipeline_events_total{{{BUSINESS}}}": "0+0",
    f"pipeline_stale_subscriptions_total{{{PUBLIC}}}": "0+0",
    f"pipeline_book_gaps_total{{{PUBLIC}}}": "0+0",
    f"pipeline_lagging{{{PUBLIC}}}": "0+0",
    f"pipeline_exchange_lag_seconds{{{PUBLIC}}}": "0.05+0",
    f"pipeline_exchange_lag_seconds{{{PRIVATE}}}": "0+0",
    f"pipeline_connection_lag_seconds{{{PUBLIC}}}": "0.01+0",
    f"pipeline_connection_lag_seconds{{{PRIVATE}}}": "0+0",
    f"pipeline_config_refused{{{POD}}}": "0+0",
    f"pipeline_clock_offset_seconds{{{VENUE}}}": "0.01+0",
    f"pipeline_catalogue_failures_total{{{VENUE}}}": "0+0",
    f"pipeline_venue_refused{{{VENUE}}}": "0+0",
    f"pipeline_archive_lost_total{{{VENUE}}}": "0+0",
    f"pipeline_state_failures_total{{{VENUE}}}": "0+0",
    f"pipeline_kafka_up{{{POD}}}": "1+0",
    f'pipeline_kafka_delivery_seconds_bucket{{{POD}, le="0.1"}}': "0+1000",
    f'pipeline_kafka_delivery_seconds_bucket{{{POD}, le="10.0"}}': "0+1000",
    f'pipeline_kafka_delivery_seconds_bucket{{{POD}, le="+Inf"}}': "0+1000",
    f"pipeline_spool_active{{{POD}}}": "0+0",
    f"pipeline_spool_bytes{{{POD}}}": "0+0",
    f"pipeline_spool_max_bytes{{{POD}}}": f"{10 * 2**30}+0",
    f"pipeline_kafka_refusing_topics{{{POD}}}": "0+0",
    f"pipeline_spool_full{{{POD}}}": "0+0",
    f"pipeline_spool_reading_stopped{{{POD}}}": "0+0",
    f"pipeline_spool_broken{{{POD}}}": "0+0",
    f"pipeline_sink_lost_total{{{POD}}}": "0+0",
    f"pipeline_sink_dead_letters_total{{{POD}}}": "0+0",
    f"pipeline_query_failures_total{{{PRIVATE}}}": "0+0",
    f"pipeline_reconciled_timestamp_seconds{{{PRIVATE}}}": "1+60",
    f"pipeline_reconcile_interval_seconds{{{PRIVATE}}}": "600+0",
    # Read after each connect alone, the last time long ago.
    f"pipeline_reconciled_timestamp_seconds{{{BUSINESS}}}": "1+0",
    f"pipeline_reconcile_interval_seconds{{{BUSINESS}}}": "+Inf+0",
    f"pipeline_order_unknown{{{ORDERS}}}": "0+0",
    f"pipeline_order_oldest_unknown_timestamp_seconds{{{ORDERS}}}": "0+0",
    f"pipeline_order_kill_switch{{{ORDERS}}}": "0+0",
    f"pipeline_trade_connection_live{{{ORDERS}}}": "1+0",
    f'pipeline_order_refusals_total{{{ORDERS}, rule="price_band"}}': "0+1",
    f"pipeline_order_arm_failures_total{{{ORDERS}}}": "0+0",
    f"pipeline_order_result_failures_total{{{ORDERS}}}": "0+0",
}
GONE = "_"

# What goes wrong, and all alerts that are firing after an hour of it.
FAULTS: list[tuple[str, dict[str, str], set[str]]] = [
    ("nothing", {}, set()),
    ("all pods gone", dict.fromkeys((f"up{{{POD}}}", f"up{{{OTHER}}}"), GONE), {"Absent"}),
    ("no pod answers", dict.fromkeys((f"up{{{POD}}}", f"up{{{OTHER}}}"), "0+0"), {"Absent"}),
    ("one shard gone", {f"up{{{OTHER}}}": GONE}, {"ShardMissing"}),
    ("not ready", {f"pipeline_ready{{{POD}}}": "0+0"}, {"NotReady"}),
    ("hung worker", {f'pipeline_worker_up{{{POD}, worker="0"}}': "0+0"}, {"WorkerDown"}),
    ("crash loop", {f"process_start_time_seconds{{{POD}}}": "7200+600"}, {"Restarts"}),
    ("memory", {f"process_resident_memory_bytes{{{POD}}}": "500000000+0"}, {"Memory"}),
    ("one connection down", {f"pipeline_connection_live{{{SECOND}}}": "0+0"}, {"ConnectionDown"}),
    (
        "venue down",
        dict.fromkeys((f"pipeline_connection_live{{{PUBLIC}}}", f"pipeline_connection_live{{{SECOND}}}"), "0+0")
        | {f"pipeline_events_total{{{PUBLIC}}}": "72000+0"},
        {"ConnectionDown", "VenueDown"},
    ),
    ("venue given up", {f"pipeline_venue_refused{{{VENUE}}}": "1+0"}, {"VenueRefused"}),
    ("topics refused", {f"pipeline_subscriptions_refused{{{PUBLIC}}}": "2+0"}, {"SubscriptionRefused"}),
    (
        "reconnects of two causes",
        {
            f'pipeline_reconnects_total{{{PUBLIC}, cause="HeartbeatLost"}}': "0+0.25",
            f'pipeline_reconnects_total{{{PUBLIC}, cause="ConnectionClosed"}}': "0+0.25",
        },
        {"ReconnectLoop"},
    ),
    (
        "a reconnect now and then",
        {f'pipeline_reconnects_total{{{PUBLIC}, cause="HeartbeatLost"}}': "0+0.25"},
        set(),
    ),
    ("silence of a venue", {f"pipeline_events_total{{{PUBLIC}}}": "72000+0"}, {"NoData"}),
    ("stale feed", {f"pipeline_stale_subscriptions_total{{{PUBLIC}}}": "0+1"}, {"FeedStale"}),
    ("sequence gaps", {f"pipeline_book_gaps_total{{{PUBLIC}}}": "0+2"}, {"BookGaps"}),
    ("a gap now and then", {f"pipeline_book_gaps_total{{{PUBLIC}}}": "0+1"}, set()),
    ("lag", {f"pipeline_lagging{{{PUBLIC}}}": "1+0"}, {"Lagging"}),
    ("clock behind, by logins", {f"pipeline_clock_offset_seconds{{{VENUE}}}": "2+0"}, {"ClockOffset"}),
    ("clock ahead, by logins", {f"pipeline_clock_offset_seconds{{{VENUE}}}": "-2+0"}, {"ClockOffset"}),
    ("clock behind, by events", {f"pipeline_exchange_lag_seconds{{{PUBLIC}}}": "-2+0"}, {"ClockOffset"}),
    ("clock ahead, by events", {f"pipeline_exchange_lag_seconds{{{PUBLIC}}}": "3+0"}, {"ClockOffset"}),
    (
        "messages pile up for long",
        {
            f"pipeline_exchange_lag_seconds{{{PUBLIC}}}": "3+0",
            f"pipeline_connection_lag_seconds{{{PUBLIC}}}": "2.9+0",
        },
        set(),
    ),
    ("mistaken configuration", {f"pipeline_config_refused{{{POD}}}": "1+0"}, {"ConfigRefused"}),
    ("missing topic", {f"pipeline_kafka_refusing_topics{{{POD}}}": "2+0"}, {"TopicRefused"}),
    ("catalogue", {f"pipeline_catalogue_failures_total{{{VENUE}}}": "0+0.2"}, {"CatalogueUnreadable"}),
    ("Kafka away", {f"pipeline_kafka_up{{{POD}}}": "0+0"}, {"KafkaDown"}),
    (
        "slow acknowledgements",
        {f'pipeline_kafka_delivery_seconds_bucket{{{POD}, le="0.1"}}': "120000+500"},
        {"DeliverySlow"},
    ),
    ("spooling", {f"pipeline_spool_active{{{POD}}}": "1+0"}, {"Spooling"}),
    ("spool grows fast", {f"pipeline_spool_bytes{{{POD}}}": "0+100000000"}, {"SpoolFillsUp"}),
    ("spool nearly full", {f"pipeline_spool_bytes{{{POD}}}": f"{9 * 2**30}+0"}, {"SpoolFillsUp"}),
    ("spool grows slowly", {f"pipeline_spool_bytes{{{POD}}}": "0+10000000"}, set()),
    ("spool full", {f"pipeline_spool_full{{{POD}}}": "1+0"}, {"SpoolFull"}),
    ("reading stopped", {f"pipeline_spool_reading_stopped{{{POD}}}": "1+0"}, {"SpoolFull"}),
    ("spool broken", {f"pipeline_spool_broken{{{POD}}}": "1+0"}, {"SpoolBroken"}),
    ("losses", {f"pipeline_sink_lost_total{{{POD}}}": "0+1"}, {"RecordsLost"}),
    ("dead letters", {f"pipeline_sink_dead_letters_total{{{POD}}}": "0+1"}, {"DeadLetters"}),
    ("archive", {f"pipeline_archive_lost_total{{{VENUE}}}": "0+1"}, {"ArchiveIncomplete"}),
    ("not reconciled", {f"pipeline_reconciled_timestamp_seconds{{{PRIVATE}}}": "4000+0"}, {"AccountNotReconciled"}),
    ("never reconciled", {f"pipeline_reconciled_timestamp_seconds{{{BUSINESS}}}": "0+0"}, {"AccountNotReconciled"}),
    (
        "reconciliation disabled",
        {
            f"pipeline_reconciled_timestamp_seconds{{{PRIVATE}}}": GONE,
            f"pipeline_reconcile_interval_seconds{{{PRIVATE}}}": GONE,
        },
        set(),
    ),
    ("queries", {f"pipeline_query_failures_total{{{PRIVATE}}}": "0+1"}, {"QueriesFail"}),
    (
        "an order without an answer",
        {
            f"pipeline_order_unknown{{{ORDERS}}}": "1+0",
            f"pipeline_order_oldest_unknown_timestamp_seconds{{{ORDERS}}}": f"{BREAKS_AT * 60}+0",
        },
        {"OrderUnknown"},
    ),
    (
        "answers that are a minute late, again and again",
        {
            f"pipeline_order_unknown{{{ORDERS}}}": "1+0",
            f"pipeline_order_oldest_unknown_timestamp_seconds{{{ORDERS}}}": f"{BREAKS_AT * 60 - 60}+60",
        },
        set(),
    ),
    ("kill switch", {f"pipeline_order_kill_switch{{{ORDERS}}}": "1+0"}, {"OrdersKilled"}),
    ("no orders", {f"pipeline_trade_connection_live{{{ORDERS}}}": "0+0"}, {"TradeConnectionDown"}),
    (
        "orders refused",
        {f'pipeline_order_refusals_total{{{ORDERS}, rule="price_band"}}': "70+3"},
        {"OrderRefusals"},
    ),
    ("nobody would cancel", {f"pipeline_order_arm_failures_total{{{ORDERS}}}": "0+4"}, {"OrdersUnprotected"}),
    ("armed at the second try", {f"pipeline_order_arm_failures_total{{{ORDERS}}}": "0+0.5"}, set()),
    ("no results", {f"pipeline_order_result_failures_total{{{ORDERS}}}": "0+60"}, {"OrderResultsRefused"}),
    ("a result at the third try", {f"pipeline_order_result_failures_total{{{ORDERS}}}": "0+3"}, set()),
    ("account file", {f"pipeline_state_failures_total{{{VENUE}}}": "0+1"}, {"AccountMemoryUnsaved"}),
]


@pytest.fixture(scope="module")
def rules_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules as Prometheus itself reads them."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": GROUPS}), "utf-8")
    return folder


def test_prometheus_takes_the_rules(rules_folder: Path) -> None:
    assert f"{len(RULES)} rules found" in tools.promtool("check", "rules", "rules.yaml", folder=rules_folder)


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(rules_folder: Path) -> None:
    document = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": f"{EVERY}m",
        "tests": [scenario(name, fault, expected) for name, fault, expected in FAULTS],
    }
    (rules_folder / "tests.yaml").write_text(yaml.safe_dump(document), "utf-8")
    tools.promtool("test", "rules", "tests.yaml", folder=rules_folder)


def test_each_alert_has_its_fault() -> None:
    assert {f"Pipeline{name}" for _, _, expected in FAULTS for name in expected} == set(RULES)


def scenario(name: str, fault: Mapping[str, str], expected: set[str]) -> dict[str, Any]:
    assert set(fault) <= set(HEALTHY)
    series = [{"series": each, "values": course(values, fault.get(each))} for each, values in HEALTHY.items()]
    firing = 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0'
    samples = [{"labels": f'{{alertname="Pipeline{each}"}}', "value": 1} for each in sorted(expected)]
    return {
        "name": name,
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {"expr": 'count(ALERTS{alertstate="firing"})', "eval_time": f"{BREAKS_AT - EVERY}m", "exp_samples": []},
            {"expr": firing, "eval_time": f"{ENDS_AT}m", "exp_samples": samples},
        ],
    }


def course(healthy: str, broken: str | None) -> str:
    """Values of a series: as it should be, and from the break on as it should not."""
    if broken is None:
        return f"{healthy}x{ENDS_AT}"
    rest = ENDS_AT - BREAKS_AT
    return f"{healthy}x{BREAKS_AT - 1} " + (f"_x{rest}" if broken == GONE else f"{broken}x{rest}")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('rate(a_total{x="b{c", y!~"d"}[5m]) > 2', Use(frozenset({"a_total"}), frozenset({"x", "y"}))),
        ("sum by (p, q) (a) / on (p) group_left (r) b", Use(frozenset({"a", "b"}), frozenset("pqr"))),
        ("max_over_time((count(a == 1))[1h:1m]) unless b", Use(frozenset({"a", "b"}), frozenset())),
        ("time() - a > 3 * 3600 or vector(0)", Use(frozenset({"a"}), frozenset())),
    ],
)
def test_expressions_are_read_right(expression: str, expected: Use) -> None:
    assert uses(expression) == expected
