"""What a contestant tells about itself: memory on the way, and how far it was behind."""

from __future__ import annotations

import time
from pathlib import Path

import attrs
import pytest

from pipeline.bench.latency import Latencies
from pipeline.bench.measure import Figures, Meter, Task, create_counts, report
from pipeline.bench.moments import Moments

TASK = Task(
    name="ours",
    venue="bybit",
    websocket="",
    rest="",
    ca_file="",
    kafka="",
    create_topics=False,
    channels=("trade",),
    instruments=1,
    warm=100,
    messages=1_000,
    folder="",
)


def test_memory_is_noted_at_equal_distances() -> None:
    meter = Meter(attrs.evolve(TASK, marks=4))
    found = [meter.look(received) for received in (10, 249, 250, 251, 760, 999, 1_000)]
    assert found == [False] * 6 + [True]
    resident = meter.finish(1_000, 1_400).resident_mib
    assert len(resident) == 4
    assert min(resident) > 5


def test_what_came_before_the_warm_up_was_over_does_not_count() -> None:
    meter = Meter(TASK)
    meter.look(99)
    meter.look(120)
    figures = meter.finish(1_000, 1_400)
    assert figures.messages == 880
    assert figures.records == 1.4


def test_processes_that_share_a_stream_count_together(tmp_path: Path) -> None:
    create_counts(tmp_path / "counts", 2)
    tasks = [attrs.evolve(TASK, counts=str(tmp_path / "counts"), worker=number, workers=2) for number in range(2)]
    first, second = map(Meter, tasks)
    assert not first.look(70)
    assert not second.look(40)  # together more than the warm-up
    assert not first.look(600)
    assert second.look(400)
    assert first.look(600)
    parts = [first.finish(600, 900), second.finish(400, 500)]
    assert [each.messages for each in parts] == [360, 890]
    together = Figures.together(parts)
    assert together.records == pytest.approx(1.4)
    assert together.cpu_s == parts[0].cpu_s + parts[1].cpu_s
    assert together.per_s == 360 / max(each.wall_s for each in parts)


def test_a_stream_that_is_over_at_the_first_look_cannot_be_measured() -> None:
    meter = Meter(TASK)
    meter.look(1_000)
    with pytest.raises(RuntimeError, match="1000 messages are too few"):
        meter.finish(1_000, 1_000)


def test_the_backlog_is_what_was_due_and_has_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 5_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    moments = Moments.create(tmp_path / "moments", 1_000)
    meter = Meter(attrs.evolve(TASK, moments=str(tmp_path / "moments"), rate=100.0))
    meter.look(0)
    moments.begin(now_ns)
    for elapsed_s, received in ((1, 90), (2, 150), (5, 480), (10, 960), (11, 1_000)):
        now_ns = 5_000_000_000 + elapsed_s * 1_000_000_000
        meter.look(received)
    figures = meter.finish(1_000, 1_000)
    assert figures.backlog_max == 50
    assert figures.backlog_final == 40


def test_the_rate_that_was_reached_is_told(tmp_path: Path) -> None:
    moments = Moments.create(tmp_path / "moments", 101)
    assert moments.sent_per_s() == 0
    for number in range(101):
        moments.note([number], 7_000_000_000 + number * 10_000_000)
    assert moments.sent_per_s() == pytest.approx(100)


def test_latencies_begin_after_the_warm_up(tmp_path: Path) -> None:
    moments = Moments.create(tmp_path / "moments", 1_000)
    latencies = Latencies(moments, 900)
    moments.note(range(900), 1)
    moments.note(range(900, 1_000), time.monotonic_ns())
    latencies.produced(950)
    latencies.produced(50)
    p50, p99, p999 = latencies.quantiles()
    assert 0 < p50 <= p99 <= p999 < 60e6
    assert len(latencies.values_us) == 100


def test_figures_survive_the_way_to_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures(1, 2.0, 3.0, 4.0, 5.0, 6.0, (1.0, 2.0, 3.0), 7, 8, 9.0, (10.0,), {"book": 11.0})
    report(figures)
    assert Figures.read(capsys.readouterr().out.encode()) == figures
