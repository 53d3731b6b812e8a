"""The benchmark from end to end, small: it runs, counts right and says so."""

from __future__ import annotations

import json

import pytest

from pipeline.bench import command
from pipeline.bench.measure import Figures
from pipeline.bench.report import Outcome, summarize
from pipeline.cli import main


def test_the_service_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--contestants", "ours", "--rounds", "1", "--messages", "8000", "--instruments", "3", "--json"]
    assert main(["bench", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    [summary] = result["summary"]
    assert summary["contestant"] == "ours"
    assert summary["ratio"] == 1
    assert summary["cost_us"] > 0
    assert summary["records_per_message"] > 1
    assert 0 < result["runs"][0]["figures"]["messages"] <= 8006


def test_latency_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "_LATENCY_SECONDS", 0.3)
    options = ["--contestants", "ours", "--rounds", "0", "--latency", "2000", "--instruments", "3", "--json"]
    assert main(["bench", *options]) == 0
    [run] = json.loads(capsys.readouterr().out)["runs"]
    p50, p99, p999 = run["figures"]["latencies_us"]
    assert run["rate"] == 2000
    assert 0 < p50 <= p99 <= p999
    assert run["figures"]["wall_s"] > 0.2


def test_an_unknown_contestant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--contestants", "others"]) == 1
    assert "no such contestant: others" in capsys.readouterr().err


def test_ratios_are_taken_within_rounds() -> None:
    def run(contestant: str, cost_us: float) -> Outcome:
        return Outcome(contestant, None, Figures(1_000, cost_us / 1e3, 1.0, 50.0, 1.5, 0.01))

    slowing = [run("ours", 10), run("peer", 40), run("ours", 20), run("peer", 80), run("ours", 30), run("peer", 90)]
    ours, peer = summarize(slowing)
    assert (ours.cost_us, ours.ratio) == (20, 1)
    assert (peer.cost_us, peer.least_us, peer.ratio, peer.per_core_second) == (80, 40, 4, 12_500)
