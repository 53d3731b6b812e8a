"""Several processes' metrics and statuses as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.model.latency import Latency
from pipeline.model.stats import ConnectionStats, VenueStats
from pipeline.observe.aggregate import merge_metrics, merge_statuses
from pipeline.observe.metrics import Distribution, FeedCollector, Numbers, ProcessCollector, render
from pipeline.sink.stats import KafkaGauges, SinkStats


def venue(name: str, *connections: str, **fields: object) -> VenueStats:
    stats = VenueStats(name, **fields)  # type: ignore[arg-type]
    for each in connections:
        stats.connections[each] = ConnectionStats(each, name, "g", "e", "ws://x", state="live", messages=len(each))
    return stats


def worker_metrics(published: float, *connections: str) -> bytes:
    return render(
        [
            FeedCollector(lambda: [venue("toy", *connections)]),
            Numbers(lambda: [("pipeline_sink_published", "Records.", "counter", published)]),
            Distribution(
                "pipeline_delivery_seconds", "Time.", lambda: Latency((0.1, 1.0), [int(published), 1, 0], 2.5)
            ),
            ProcessCollector(),
        ]
    )()


class _Odd(Collector):
    def collect(self) -> Iterator[Metric]:
        odd = CounterMetricFamily("pipeline_odd", 'A "text" with \\ and\nlines.', labels=("name",))
        odd.add_metric(('quo"te\\ and\nline',), 1e18)
        odd.add_metric(("inf",), float("inf"))
        yield odd


def test_every_sample_has_its_worker_and_every_family_its_head_once() -> None:
    texts = {"0": worker_metrics(3, "a", "bb"), "1": worker_metrics(5, "ccc")}
    text = merge_metrics([*texts.items(), (None, render([_Odd()])())]).decode()
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert len(heads) == len(set(heads))
    merged = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    wanted = {
        (sample.name, *sorted([*sample.labels.items(), ("worker", number)])): sample.value
        for number, each in texts.items()
        for family in text_string_to_metric_families(each.decode())
        for sample in family.samples
    }
    assert wanted.items() <= merged.items()
    extra = merged.keys() - wanted.keys()
    assert extra == {("pipeline_odd_total", ("name", 'quo"te\\ and\nline')), ("pipeline_odd_total", ("name", "inf"))}
    assert 'pipeline_sink_published_total{worker="1"} 5.0' in text
    assert 'pipeline_messages_total{connection="ccc",venue="toy",worker="1"} 3.0' in text
    assert 'pipeline_delivery_seconds_bucket{le="+Inf",worker="0"} 4.0' in text
    assert text.count("# TYPE pipeline_delivery_seconds histogram") == 1
    assert text.count("# TYPE pipeline_messages_total counter") == 1


def test_nobody_has_no_metrics() -> None:
    assert merge_metrics([]) == b""


def sink(**fields: object) -> SinkStats:
    nothing = SinkStats(0, 0, 0, 0, 0, 0, 0, 0, 0, False, True, None, {}, Latency((1.0, 2.0)), KafkaGauges())
    return attrs.evolve(nothing, **fields)  # type: ignore[arg-type]


def test_one_status_of_several() -> None:
    first = {
        "venues": {
            "toy": attrs.asdict(
                venue(
                    "toy",
                    "a",
                    state="running",
                    instruments=9,
                    markets=4,
                    markets_read=4,
                    catalogue_reads=2,
                    clock_offset=-70,
                )
            ),
            "okx": attrs.asdict(venue("okx", state="running")),
        },
        "sink": attrs.asdict(
            sink(
                published=5,
                by_kind={"trade": 5},
                latency=Latency((1.0, 2.0), [1, 2, 3], 0.5),
                safe_until=80,
                is_full=True,
                spool_max_bytes=4,
            )
        ),
    }
    refused = venue("toy", "b", state="refused", instruments=8, markets=4, markets_read=1, clock_offset=40)
    refused.last_error = "no"
    second = {
        "venues": {
            "toy": attrs.asdict(refused),
            "okx": attrs.asdict(venue("okx", state="starting")),
        },
        "sink": attrs.asdict(
            sink(
                published=7, by_kind={"trade": 3, "bbo": 4}, latency=Latency((1.0, 2.0), [4, 4, 4], 1.5), safe_until=70,
                trouble="no route", down_since=50, oldest_age=9.0, spool_max_bytes=3,
                broker_up=False, spool_failure="no space", kafka=KafkaGauges(sent_bytes=3, round_trip_p99_us=7),
            )
        ),
    }  # fmt: skip
    merged = merge_statuses([first, second])
    toy = merged["venues"]["toy"]
    assert list(toy["connections"]) == ["a", "b"]
    assert (toy["markets"], toy["markets_read"]) == (4, 1), "as far as the last one"
    assert (toy["state"], toy["last_error"], toy["instruments"], toy["catalogue_reads"]) == ("refused", "no", 9, 2)
    assert toy["clock_offset"] == -70
    assert merged["venues"]["okx"]["state"] == "starting"
    both = merged["sink"]
    assert (both["published"], both["by_kind"]) == (12, {"trade": 8, "bbo": 4})
    assert both["latency"] == {"bounds_s": (1.0, 2.0), "counts": [5, 6, 7], "sum_s": 2.0}
    assert (both["trouble"], both["down_since"], both["oldest_age"], both["spool_max_bytes"]) == (
        "no route",
        50,
        9.0,
        7,
    )
    assert (both["broker_up"], both["is_full"], both["spool_failure"]) == (False, True, "no space")
    assert (both["safe_until"], both["kafka"]["sent_bytes"], both["kafka"]["round_trip_p99_us"]) == (70, 3, 7)
    assert both["journal"] is None


def test_a_status_before_anything_is_open() -> None:
    starting: dict[str, Any] = {"venues": {}, "sink": None}
    assert merge_statuses([]) == starting
    assert merge_statuses([starting, starting]) == starting
    assert merge_statuses([starting, {"venues": {}, "sink": {"published": 3}}])["sink"] == {"published": 3}
