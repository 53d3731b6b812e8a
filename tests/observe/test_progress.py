"""How far long work is, and when that is told."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from rich.console import Console

from pipeline.observe.logs import configure
from pipeline.observe.painting import InPlace
from pipeline.observe.progress import Pace, Progress, ServiceWorks, Work, open_progress, report_progress
from pipeline.observe.settings import LogSettings
from tests.observe.screen import Screen
from tests.observe.statuses import SECOND, START, healthy_venues, sink, status


def work(done: float, total: float = 100.0) -> Work:
    return Work("w", "work", done, total, f"{done:g} done")


def test_what_is_left_is_told_by_the_pace_of_late() -> None:
    pace = Pace()
    assert pace.steps(0, [work(0)]) == [], "what is done at once is not worth telling"
    (step,) = pace.steps(2 * SECOND, [work(10)])
    assert (step.fraction, step.remaining_s) == (0.1, 18.0)
    assert step.text == "work: 10%, 18 s to go, 10 done"
    (step,) = pace.steps(12 * SECOND, [work(10)])
    assert step.remaining_s is None
    assert step.text == "work: 10%, 10 done"
    assert pace.steps(13 * SECOND, []) == []
    assert pace.steps(14 * SECOND, [work(0)]) == [], "another one"


def test_what_comes_while_some_is_done_counts_against_it() -> None:
    pace = Pace()
    pace.steps(0, [work(0, 100)])
    (step,) = pace.steps(SECOND, [work(30, 120)])
    assert step.remaining_s == 9.0
    (step,) = pace.steps(2 * SECOND, [work(40, 160)])
    assert step.remaining_s is None, "it gets longer"


def test_without_a_total_there_is_only_what_is_done() -> None:
    pace = Pace()
    pace.steps(0, [work(5, 0)])
    (step,) = pace.steps(SECOND, [work(6, 0)])
    assert (step.fraction, step.text) == (None, "work: 6 done")


def at(seconds: float, *, reasons: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return status(*healthy_venues(), sink=sink(**fields), now=START + round(seconds * SECOND), not_ready=list(reasons))


def test_the_spool_is_told_of_while_it_is_emptied() -> None:
    works = ServiceWorks()
    assert works.works(at(0, is_spooling=False, spooled=7, in_flight=0)) == []
    assert works.works(at(0, is_spooling=True, spooled=7, broker_up=False)) == [], "nothing is done about it"
    (full,) = works.works(at(1, is_spooling=True, spooled=900, in_flight=100, spool_bytes=2_048))
    assert (full.done, full.total, full.said) == (0, 1_000, "1,000 records left, 2.0 KiB on disk")
    (half,) = works.works(at(2, is_spooling=True, spooled=400, in_flight=100))
    assert (half.done, half.total, half.said) == (500, 1_000, "500 records left")
    assert works.works(at(3, is_spooling=True, spooled=0, in_flight=0)) == []
    (again,) = works.works(at(4, is_spooling=True, spooled=1, in_flight=0))
    assert (again.done, again.total, again.said) == (0, 1, "1 record left")
    (found,) = works.works(at(5, is_spooling=True, spooled=0, in_flight=0, spool_bytes=4_096))
    assert (found.done, found.total) == (0, 4_096), "of an earlier process: only its size is known"


def test_at_the_end_everything_on_the_way_is_told_of() -> None:
    (stopping,) = ServiceWorks().works(at(0, reasons=("stopping",), in_flight=5, is_spooling=False))
    assert (stopping.name, stopping.said) == ("stopping", "5 records left")


def test_catalogues_are_told_of_while_markets_are_missing() -> None:
    now = at(0)
    assert ServiceWorks().works(now) == []
    now["venues"]["okx"] |= {"markets": 4, "markets_read": 1}
    (reading,) = ServiceWorks().works(now)
    ending = ServiceWorks().works({**now, "not_ready": ["stopping"]})
    assert [work.name for work in ending] == ["stopping"]
    assert (reading.name, reading.said, reading.done, reading.total) == ("okx catalogue", "1 of 4 markets read", 1, 4)


async def test_a_service_logs_it_every_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    out, looks = io.StringIO(), list[float]()

    def read() -> dict[str, Any]:
        now = trio.current_time()
        looks.append(now)
        return at(now, is_spooling=now < 18, spooled=1_000 - round(now * 10), in_flight=0)

    configure(LogSettings(format="json"), out)
    with trio.move_on_after(31):
        await report_progress(read)
    assert looks == [0, 5, 10, 15, 20, 25, 30]
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["progress"] for line in told] == [
        "spool: 5%, 95 s to go, 950 records left",
        "spool: 10%, 90 s to go, 900 records left",
        "spool: 15%, 85 s to go, 850 records left",
    ]
    assert {(line["event"], line["work"]) for line in told} == {("work_in_progress", "spool")}


@attrs.define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def ticks(self, apart: float, count: int) -> Iterator[int]:
        for number in range(count):
            yield number
            self.now += apart


def test_without_a_terminal_there_is_a_line_every_five_seconds() -> None:
    out, clock, asked = io.StringIO(), Clock(), list[int]()

    def now_at(number: int) -> Work:
        asked.append(number)
        return work(number)

    with open_progress(out, clock) as progress:
        for number in clock.ticks(0.5, 24):
            progress.show(lambda number=number: now_at(number))  # type: ignore[misc]
        progress.say("trouble")
    assert out.getvalue().splitlines() == ["work: 10%, 10 done", "work: 20%, 40 s to go, 20 done", "trouble"]
    assert asked == [10, 20], "it costs nothing in between"
    assert progress.has_told


def test_on_a_terminal_there_is_a_bar_with_problems_above() -> None:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=True, width=60, height=10, color_system=None, _environ={})
    painting = InPlace(console)
    painting.start()
    progress = Progress(io.StringIO(), painting, clock)
    for number in clock.ticks(0.3, 60):
        progress.show(lambda number=number: work(number))  # type: ignore[misc]
        if number == 30:
            progress.say("trouble")
    screen = Screen()
    screen.feed(out.getvalue())
    above, bar = screen.shown()
    assert above == "trouble"
    assert bar == "━━━━━━━━━━━╸         work: 59%, 12 s to go, 59 done"
    painting.stop()
    screen = Screen()
    screen.feed(out.getvalue())
    assert screen.shown() == ["trouble"]


@pytest.mark.parametrize("may_paint", [True, False])
def test_a_bar_needs_a_terminal_of_its_own(may_paint: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with open_progress(Terminal(), Clock(), may_paint=may_paint) as progress:
        assert (progress.painting is not None) == may_paint
