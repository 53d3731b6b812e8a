"""Instructions are counted by somebody else: what is asked of him, and what his figures amount to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from pipeline.bench import instructions
from pipeline.bench.arena import BenchFailed, Job
from pipeline.bench.measure import Figures
from pipeline.cli import main

VALGRIND = """#!/bin/sh
# Counts a million for the first run, and three million more for each that follows.
while [ "${1#--}" != "$1" ]; do
    case "$1" in --log-file=*) log="${1#--log-file=}" ;; esac
    shift
done
echo >> "$0.runs"
"$@" || exit 1
echo "==1== I   refs:      $(( $(wc -l < "$0.runs") * 3 - 2 )),000,000" > "$log"
"""


@attrs.define
class Counted:
    """Runs whose messages cost what is given."""

    per_message: dict[str, int]
    jobs: list[Job] = attrs.field(factory=list)

    def run(self, job: Job) -> Figures:
        self.jobs.append(job)
        if job.contestant not in self.per_message:
            raise BenchFailed(f"{job.contestant} failed")
        count = 1_000_000 + job.messages * self.per_message[job.contestant]
        return Figures(job.messages, 1.0, 1.0, 1.0, 1.0, 1.0, instructions=count)


def measured(runs: Counted, *names: str, is_json: bool = True) -> tuple[int, list[str]]:
    told: list[str] = []
    jobs = [Job(contestant=name, messages=1_000, instruments=1) for name in names]
    console = Console(width=120)
    code = instructions.measure(runs, jobs, "Bybit", console=console, is_json=is_json, tell=told.append)
    return code, told


def test_start_and_end_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    runs = Counted({"ours": 50_000, "stock": 200_000})
    assert measured(runs, "ours", "stock")[0] == 0
    assert [(job.contestant, job.messages, job.is_counted) for job in runs.jobs] == [
        ("ours", 500, True), ("ours", 1_000, True), ("stock", 500, True), ("stock", 1_000, True),
    ]  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {
        "instructions": [
            {"contestant": "ours", "per_message": 50_000, "ratio": 1},
            {"contestant": "stock", "per_message": 200_000, "ratio": 4},
        ],
        "failures": [],
    }


def test_one_that_fails_is_told_and_missing(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = measured(Counted({"ours": 50_000}), "stock", "ours", is_json=False)
    assert code == 1
    assert told == ["stock failed", "ours           50,000 instructions per message"]
    shown = capsys.readouterr().out
    assert "this service" in shown
    assert "50,000" in shown
    assert "1 contestants failed" in shown


def test_the_service_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    valgrind = tmp_path / "valgrind"
    valgrind.write_text(VALGRIND)
    valgrind.chmod(0o755)
    monkeypatch.setattr(shutil, "which", {"valgrind": str(valgrind)}.get)
    options = ("--instructions", "--contestants", "ours", "--messages", "4000", "--instruments", "3", "--json")
    assert main(["bench", *options]) == 0
    [count] = json.loads(capsys.readouterr().out)["instructions"]
    assert count == {"contestant": "ours", "per_message": 1_500, "ratio": 1}


def test_what_counts_has_to_be_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["bench", "--instructions", "--contestants", "ours", "--messages", "100"]) == 1
    assert "Valgrind, which is not installed" in capsys.readouterr().err
