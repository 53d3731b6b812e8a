"""The benchmark from end to end, small: it runs, counts right and says so."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest

from pipeline.bench import arena as arena_module
from pipeline.bench import command
from pipeline.bench.arena import Arena, BenchFailed, Job
from pipeline.bench.command import Plan
from pipeline.bench.contestants import CONTESTANTS, WHOLE
from pipeline.bench.measure import Figures
from pipeline.cli import main


def bench(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["bench", "--rounds", "1", "--instruments", "3", "--json", *options]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def plan(*options: str) -> Plan:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return Plan.of(parser.parse_args(options), lambda text: None)


def test_the_service_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, "--contestants", "ours", "--messages", "5000")
    [summary] = result["summary"]
    assert summary["contestant"] == "ours"
    assert summary["ratio"] == 1
    assert summary["cost_us"] > 0
    assert summary["records_per_message"] > 1
    assert 0 < result["runs"][0]["figures"]["messages"] <= 5006


def test_the_stages_of_our_path_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, "--contestants", "ours", "--stages", "--messages", "5000", "--mix", "okx-recorded")
    found = {each["name"]: each["least_us"] for each in result["stages"]["text"]}
    assert list(found) == [
        "split", "session", "normalize", "book", "encode", "produce", "reports", "kafka_threads", "rest",
    ]  # fmt: skip
    assert min(value for name, value in found.items() if name != "rest") > 0
    assert sum(found.values()) == pytest.approx(min(run["figures"]["cpu_s"] / run["figures"]["messages"] * 1e6
        for run in result["runs"] if run["contestant"] == "ours"))  # fmt: skip
    assert [each["contestant"] for each in result["summary"]] == ["ours"]


def test_latency_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "_LATENCY_SECONDS", 0.3)
    result = bench(capsys, "--contestants", "ours,split", "--no-throughput", "--latency", "2000")
    assert result["summary"] == []
    assert [each["contestant"] for each in result["latency"]] == ["ours", "split"]
    for each in result["latency"]:
        assert each["rate"] == 2000
        assert 0 < each["p50_us"] <= each["p99_us"] <= each["p999_us"]
        assert each["sent_per_s"] > 0
    assert result["runs"][0]["figures"]["wall_s"] > 0.2


def test_a_long_run_shows_its_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "_LAP", 2_000)
    result = bench(capsys, "--no-throughput", "--memory", "5000")
    [memory] = result["memory"]
    assert (memory["contestant"], memory["messages"], len(memory["resident_mib"])) == ("ours", 5_000, 10)
    assert 0.5 < memory["ratio"] < 3


def test_the_stream_is_spread_over_connections(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, "--no-throughput", "--messages", "5000", "--scale", "connections=1,3")
    assert [(each["dimension"], each["value"]) for each in result["scale"]] == [("connections", 1), ("connections", 3)]
    assert all(each["cost_us"] > 0 for each in result["scale"])


def test_processes_share_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, "--no-throughput", "--messages", "4000", "--workers", "2")
    assert result["workers"][0]["contestant"] == "ours"
    assert result["workers"][0]["workers"] == 2
    assert result["workers"][0]["per_s"] > 0
    [run] = [each for each in result["runs"] if each["contestant"] == "ours"]
    assert run["figures"]["records"] > 1


@pytest.mark.parametrize("cores", [{0, 1}, {2, 3, 5}])
def test_what_is_measured_can_have_a_core_of_its_own(cores: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cores))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, mask: asked.append(set(mask)))
    with ExitStack() as stack:
        arena = Arena.open(stack, mix="bybit", seed=1, kafka="localhost:1", is_plain=False, is_pinned=True)
        assert arena.core == min(cores)
        assert asked == [cores - {arena.core}]
    assert asked[1:] == [cores]


def test_one_core_cannot_be_set_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert main(["bench", "--pin"]) == 1
    assert "there is only one core" in capsys.readouterr().err


def test_a_contestant_goes_to_its_core(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    own = max(os.sched_getaffinity(0))
    monkeypatch.setattr(arena_module, "_core_apart", lambda: nullcontext(own))
    result = bench(capsys, "--contestants", "split", "--messages", "5000", "--pin")
    assert result["setting"]["is_pinned"]
    assert result["runs"][0]["figures"]["messages"] > 0


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--contestants=others", "there is no others; there are ours, stock"),
        ("--decimals=float", "there is no float; there are text, decimal"),
        ("--scale=days=1,2", "days=1,2: give instruments=N,… or connections=N,…"),
    ],
)
def test_what_does_not_exist_is_named(option: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", option]) == 2
    assert complaint in capsys.readouterr().err


def test_the_whole_way_is_gone_unless_parts_are_asked_for() -> None:
    assert "split" not in WHOLE
    assert set(WHOLE) < set(CONTESTANTS)
    for contestant in CONTESTANTS.values():
        assert not contestant.missing or contestant.needs


def test_forms_of_decimals_double_what_encodes() -> None:
    jobs = plan("--contestants", "ours,split", "--decimals", "text,decimal").throughput
    assert [job.name for job in jobs] == ["ours", "ours/decimal", "split"]


def test_targets_measure_all_that_there_is_a_target_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.Plan, "_taking_part", lambda self, names: list(names))
    found = plan("--targets")
    assert {job.contestant for job in found.throughput} == {"ours", "stock", "picows", "cryptofeed", "floor"}
    assert {(job.contestant, job.rate) for job in found.latency} >= {
        ("ours", 10_000), ("split", 10_000), ("ours", 50_000),
    }  # fmt: skip
    assert [job.instruments for job in found.instruments] == [1, 50, 500, 2_000]
    assert [job.connections for job in found.connections] == [1, 10, 50]
    [long] = found.memory
    assert (long.messages, long.lap, long.marks) == (10_000_000, 100_000, 10)


def test_a_run_that_fails_does_not_take_the_others_with_it() -> None:
    class Fragile:
        def run(self, job: Job) -> Figures:
            if job.decimals == "decimal":
                raise BenchFailed("this service failed")
            return Figures(1_000, 0.02, 1.0, 50.0, 1.5, 0.01)

    found = plan("--contestants", "ours", "--decimals", "text,decimal")
    results = found.carry_out(Fragile(), 2)
    assert [(each.round, each.job.name) for each in results.throughput] == [(1, "ours"), (2, "ours")]
    assert results.failures == ["round 1: this service failed", "round 2: this service failed"]


def test_what_is_given_beside_the_targets_takes_the_place_of_their_sizes() -> None:
    found = plan("--targets", "--memory", "50000", "--scale", "instruments=1,10", "--messages", "9000")
    assert [job.instruments for job in found.instruments] == [1, 10]
    assert found.memory == [
        Job(contestant="ours", messages=50_000, instruments=50, lap=100_000, marks=10),
    ]
    assert {job.messages for job in found.throughput} == {9_000}
