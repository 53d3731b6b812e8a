"""What is told about the runs is what they have shown: medians, ratios within rounds, targets met or missed."""

from __future__ import annotations

import io
import json
from typing import Any

import attrs
import pytest
from rich.console import Console

from pipeline.bench.arena import Job
from pipeline.bench.measure import Figures
from pipeline.bench.report import Setting, as_json, progress_line, show
from pipeline.bench.summary import (
    Outcome,
    calibrations,
    cost_ratio,
    costs,
    crews,
    memory,
    p99_difference_us,
    paced,
    scaled,
    stages,
)
from pipeline.bench.targets import Results, verdicts

SETTING = Setting("bybit", "a stream", 1_000, 50, 2, 1, "TLS", "mock", ("text",), "3.13.0", 2)


def outcome(number: int, contestant: str, cost_us: float, job: dict[str, Any] | None = None, **figures: Any) -> Outcome:
    return Outcome(
        number,
        attrs.evolve(Job(contestant=contestant, messages=1_000, instruments=50), **(job or {})),
        attrs.evolve(Figures(1_000, cost_us / 1e3, 1.0, 50.0, 1.5, 0.01), **figures),
    )


def timed(number: int, contestant: str, rate: int, p99_us: float, **figures: Any) -> Outcome:
    quantiles = (p99_us / 2, p99_us, p99_us * 2)
    return outcome(number, contestant, 20.0, {"rate": rate}, latencies_us=quantiles, sent_per_s=rate, **figures)


def test_ratios_are_taken_within_rounds() -> None:
    slowing = [
        run
        for number, (ours, peer, floor) in enumerate([(10, 40, 5), (20, 80, 5), (30, 90, 5)], 1)
        for run in (outcome(number, "peer", peer), outcome(number, "ours", ours), outcome(number, "floor", floor))
    ]
    peer, ours, floor = costs(slowing)
    assert (ours.cost_us, ours.ratio, ours.to_floor) == (20, 1, 4)
    assert (peer.cost_us, peer.least_us, peer.ratio, peer.per_core_second) == (80, 40, 4, 12_500)
    assert (floor.ratio, floor.to_floor) == (0.25, 1)


def test_a_round_that_lacks_one_of_both_tells_nothing_about_their_ratio() -> None:
    runs = [outcome(1, "ours", 10), outcome(2, "ours", 100), outcome(2, "floor", 50)]
    assert cost_ratio(runs, "ours", "floor") == 2
    assert cost_ratio(runs, "ours", "cryptofeed") is None


def test_without_ours_the_first_contestant_is_the_measure() -> None:
    assert [each.ratio for each in costs([outcome(1, "stock", 80), outcome(1, "floor", 4)])] == [1, 0.05]


def test_forms_of_decimals_are_contestants_of_their_own() -> None:
    runs = [outcome(1, "ours", 10), outcome(1, "ours", 15, {"decimals": "decimal"})]
    assert [(each.contestant, each.ratio) for each in costs(runs)] == [
        ("ours", 1),
        ("ours/decimal", pytest.approx(1.5)),
    ]


def test_the_rest_of_the_path_is_what_its_stages_do_not_explain() -> None:
    parts = {"session": 0.5, "normalize": 3.0, "book": 1.0, "encode": 4.0, "produce": 1.0, "reports": 0.5}
    runs = [
        outcome(1, "ours", 20),
        outcome(2, "ours", 16),
        outcome(1, "split", 3),
        outcome(2, "split", 2),
        outcome(1, "stages", 15, stages_us=parts | {"kafka_threads": 1.0}),
        outcome(2, "stages", 15, stages_us=parts | {"encode": 3.0, "kafka_threads": 2.0}),
    ]
    found = {each.name: each for each in stages(runs)}
    assert found["split"].least_us == 2
    assert found["encode"].least_us == 3
    assert found["kafka_threads"].least_us == 1
    assert found["rest"].least_us == 16 - (2 + 0.5 + 3 + 1 + 3 + 1 + 0.5 + 1)
    assert sum(each.share for each in found.values()) == pytest.approx(1)
    assert stages(runs[:4]) == []


def test_latencies_are_medians_by_rate() -> None:
    runs = [timed(number, "ours", 10_000, p99, backlog_max=number) for number, p99 in enumerate([900, 100, 300], 1)]
    [found] = paced(runs)
    assert (found.rate, found.p50_us, found.p99_us, found.p999_us) == (10_000, 150, 300, 600)
    assert (found.sent_per_s, found.backlog_max, found.core_share) == (10_000, 2, 0.02)


def test_the_difference_of_latencies_is_that_within_a_round() -> None:
    runs = [
        run
        for number, (ours, split) in enumerate([(1_000, 900), (5_000, 4_000), (700, 500)], 1)
        for run in (timed(number, "ours", 10_000, ours), timed(number, "split", 10_000, split))
    ]
    assert p99_difference_us(runs, "ours", "split", 10_000) == 200
    assert p99_difference_us(runs, "ours", "split", 50_000) is None


def test_growth_counts_from_the_first_size() -> None:
    runs = [
        outcome(number, "ours", cost, {"instruments": size})
        for number, costs_us in enumerate([(10, 11, 13), (20, 24, 22)], 1)
        for size, cost in zip((1, 50, 2_000), costs_us, strict=True)
    ]
    assert [(each.value, each.ratio) for each in scaled(runs, "instruments")] == [
        (1, 1),
        (50, pytest.approx(1.15)),
        (2_000, pytest.approx(1.2)),
    ]


def test_processes_together_are_compared_with_the_first_number() -> None:
    runs = [
        outcome(number, name, 20.0, {"workers": workers}, messages=1_000, wall_s=wall)
        for number, walls in enumerate([(0.1, 0.05, 0.02), (0.2, 0.125, 0.04), (0.3, 0.2, 0.05)], 1)
        for name, workers, wall in zip(("ours", "ours", "floor"), (1, 2, 2), walls, strict=True)
    ]
    one, two, floor = crews(runs)
    assert (one.workers, one.ratio, one.per_s) == (1, 1, 5_000)
    assert (two.workers, two.per_s) == (2, 8_000)
    assert two.ratio == pytest.approx(1.6)
    assert (floor.contestant, floor.ratio) == ("floor", 1)


def test_memory_is_compared_with_the_first_mark() -> None:
    [found] = memory([outcome(1, "ours", 10), outcome(1, "ours", 10, resident_mib=(80.0, 90.0, 100.0))])
    assert found.ratio == 1.25


def test_the_machine_s_speed_is_told() -> None:
    assert calibrations([outcome(1, "ours", 1, calibration_s=each) for each in (0.01, 0.02, 0.04)]) == {
        "min": 10,
        "median": 20,
        "max": 40,
    }


def everything(**changes: float) -> Results:
    value = {"cryptofeed": 80.0, "stock": 80.0, "floor": 10.0, "picows": 19.0, "grown": 21.0} | changes
    return Results(
        throughput=[
            outcome(1, "ours", 20.0),
            *(outcome(1, name, value[name]) for name in ("cryptofeed", "stock", "floor", "picows")),
        ],
        latency=[
            timed(1, "ours", 10_000, value.get("p99", 3_000)),
            timed(1, "split", 10_000, 1_000),
            timed(1, "ours", 50_000, 9_000, backlog_final=int(value.get("behind", 100)), backlog_max=9_000),
        ],
        instruments=[
            outcome(1, "ours", 20.0, {"instruments": 1}),
            outcome(1, "ours", value["grown"], {"instruments": 2_000}),
        ],
        connections=[outcome(1, "ours", 20.0), outcome(1, "ours", 22.0, {"connections": 50})],
        memory=[outcome(1, "ours", 20.0, resident_mib=(100.0, value.get("resident", 105.0)))],
        workers=[
            outcome(1, "ours", 20.0, {"workers": 1}, wall_s=1.0),
            outcome(1, "ours", 20.0, {"workers": 2}, wall_s=1 / value.get("together", 1.9)),
        ],
    )


def test_every_target_can_be_met() -> None:
    found = verdicts(everything())
    assert [each.met for each in found] == [True] * 10
    assert [each.stretch_met for each in found[:4]] == [False, None, False, None]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"cryptofeed": 79.0}, 0),
        ({"stock": 79.0}, 1),
        ({"floor": 9.0}, 2),
        ({"picows": 18.0}, 3),
        ({"behind": 5_001}, 4),
        ({"p99": 3_001}, 5),
        ({"resident": 111.0}, 6),
        ({"grown": 23.1}, 7),
        ({"together": 1.79}, 9),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_missed_target_is_called_missed(changes: dict[str, float], missed: int) -> None:
    assert [number for number, each in enumerate(verdicts(everything(**changes))) if not each.met] == [missed]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = verdicts(Results())
    assert len(found) == 10
    assert {(each.met, each.shown) for each in found} == {(None, "not measured")}


def test_the_document_has_all_parts() -> None:
    document = json.loads(json.dumps(as_json(SETTING, everything(), with_targets=True)))
    assert list(document) == [
        "setting", "summary", "stages", "latency", "scale", "workers", "memory", "calibration_ms", "runs", "failures",
        "targets",
    ]  # fmt: skip
    assert [each["contestant"] for each in document["summary"]] == ["ours", "cryptofeed", "stock", "floor", "picows"]
    assert document["summary"][3]["ratio"] == 0.5
    assert document["memory"][0]["ratio"] == 1.05
    assert [each["met"] for each in document["targets"]["text"]] == [True] * 10
    assert len(document["runs"]) == 15
    assert document["runs"][0]["round"] == 1
    assert document["runs"][0]["figures"]["messages"] == 1_000
    assert "targets" not in as_json(SETTING, Results(), with_targets=False)


def test_the_tables_show_what_was_measured() -> None:
    out = io.StringIO()
    show(Console(file=out, width=120), SETTING, everything(), with_targets=True)
    text = out.getvalue()
    assert "this service" in text
    assert "Cost of a message by instruments" in text
    assert "the end is 1.05 of the first" in text
    assert sum(line.strip().startswith("met") for line in text.splitlines()) == 10
    assert "missed" not in text


def test_a_run_is_told_in_a_line() -> None:
    line = progress_line(timed(2, "ours", 10_000, 3_000, backlog_max=1_234))
    assert "round 2: ours" in line
    assert "at 10,000/s: p99 3.00 ms, 1,234 behind" in line
