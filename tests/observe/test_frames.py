"""What the terminal shows of a status, at any size."""

from __future__ import annotations

import io
from typing import Any

import attrs
import pytest
from rich.console import Console

from pipeline.model.latency import DELIVERY_BOUNDS_S, EXCHANGE_BOUNDS_S, PRODUCE_BOUNDS_S, Latency
from pipeline.observe.frames import Frame, Watch, farewell
from tests.observe.statuses import SECOND, START, connection, healthy, sink, status, venue


def rendered(frame: Frame, width: int = 80, height: int = 24) -> list[str]:
    """The lines that a terminal of this size gets."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, height=height)
    console.print(frame)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in out.getvalue()
    return [line.rstrip() for line in lines]


def header(lines: list[str]) -> list[str]:
    """The names of the columns."""
    (line,) = (line for line in lines if line.startswith(("venue ", "connection ")))
    return line.replace("last msg", "last-msg").replace("last error", "last-error").split()


def many(count: int, **fields: Any) -> dict[str, Any]:
    """That many connections of which the third lags, the fifth is down and the seventh starts."""
    every = [connection(f"bybit.linear.book.{number:02}") for number in range(count)]
    every[2].state, every[2].lag = "lagging", 2_500_000
    every[4].state, every[4].last_error = "retrying", "connect: nothing within 10 s"
    every[6].state = "subscribing"
    return status(venue("bybit", *every), sink=sink(), **fields)


def note(number: int, **fields: Any) -> dict[str, Any]:
    time = START + number * SECOND
    return {"time": time, "first": time, "count": 1, "level": "info", "event": f"note_{number}", "text": "", **fields}


def test_the_verdict_comes_first_and_then_connections_kafka_and_notes() -> None:
    watch = Watch()
    before, after = healthy(), healthy(now=START + 2 * SECOND)
    busy = after["venues"]["bybit"]["connections"]["bybit.linear.trade.0"]
    busy |= {"messages": 2_468, "events": 5_000, "last_receive": START + 1_500_000, "lag": 12_000, "gaps": 2}
    after["sink"] |= {"acknowledged": 1_990, "in_flight": 7}
    after["recent"] = [note(1, count=3, event="kafka_up", text="brokers: 3")]
    watch.frame(before)
    lines = rendered(watch.frame(after))
    assert lines[0] == "○ bybit: gaps in order books"
    assert lines[1] == "08:26:42 UTC, 3 of 3 live, 1,234 messages/s, 2,500 events/s, up 60 min"
    assert header(lines) == ["venue", "connection", "state", "msgs/s", "events/s", "last-msg", "lag", "gaps"]
    row = next(line for line in lines if line.startswith("bybit linear.trade.0"))
    assert row.split() == ["bybit", "linear.trade.0", "live", "1,234", "2,500", "0.5", "s", "12", "ms", "2"]
    assert "Kafka up: 500 records/s in, 7 on the way; spool idle: 0 records, 0 B" in lines
    assert lines[-1] == "08:26:41 kafka up (3 times): brokers: 3"
    assert rendered(watch.frame(healthy(now=START + 3 * SECOND)))[0].startswith("○ ")
    assert rendered(Watch().frame(healthy()))[0] == "✓ All 3 connections are live; Kafka is up; nothing waiting"


def test_how_long_things_took_is_told_once_it_is_known() -> None:
    def at(seconds: int, count: int) -> dict[str, Any]:
        stages = [Latency(bounds) for bounds in (EXCHANGE_BOUNDS_S, PRODUCE_BOUNDS_S, DELIVERY_BOUNDS_S)]
        for stage in stages:
            stage.counts[5], stage.counts[8] = 100 * count, 10 * count
        arrived, produced, delivered = stages
        every = venue("bybit", connection("bybit.linear.book.0"), arrivals={"book_update": arrived})
        return status(every, sink=sink(until_produced=produced, latency=delivered), now=START + seconds * SECOND)

    watch, wanted = Watch(), "p50/p99: to us ≤25 ms/≤0.2 s, produced ≤2.5 ms/≤25 ms, in Kafka ≤50 ms/≤0.5 s"
    assert watch.frame(at(0, 1)).latency == "", "of one moment nothing is known"
    frame = watch.frame(at(10, 2))
    assert frame.latency == wanted
    assert wanted in rendered(frame)
    assert wanted in frame.line
    assert not any(line.startswith("p50") for line in rendered(frame, height=10)), "the smallest ones have no room"


def test_what_is_down_comes_first_and_what_does_not_fit_is_counted() -> None:
    frame = Watch().frame(many(40, recent=[note(number) for number in range(7)]))
    lines = rendered(frame)
    assert len(lines) == 23, "one is for the cursor"
    assert lines[0] == "● bybit.linear.book.04 is down; 1 more problem"
    assert lines[2:4] == [
        "  ● bybit.linear.book.04 is down: connect: nothing within 10 s",
        "  ● bybit.linear.book.02 lags behind: 2.5 s behind the venue",
    ]
    names = [line.split()[1] for line in lines if "linear.book" in line and line.startswith("bybit ")]
    assert names[:4] == ["linear.book.04", "linear.book.06", "linear.book.02", "linear.book.00"]
    assert f"and {40 - len(names)} more" in lines
    assert [line.split()[-1] for line in lines[-5:]] == ["6", "5", "4", "3", "2"], "the newest five"
    every = rendered(frame, height=60)
    assert not any(line.startswith("and ") for line in every)
    assert sum(line.startswith("bybit ") for line in every) == 40


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (120, set[str]()),
        (80, {"lag"}),
        (70, {"lag", "events/s"}),
        (50, {"lag", "events/s", "gaps", "last-error"}),
        (26, {"lag", "events/s", "gaps", "last-error", "last-msg", "msgs/s", "venue"}),
    ],
)
def test_columns_give_way_in_the_order_of_their_importance(width: int, left_out: set[str]) -> None:
    names = header(rendered(Watch().frame(many(10)), width))
    every = ["venue", "connection", "state", "msgs/s", "events/s", "last-msg", "lag", "gaps", "last-error"]
    assert names == [name for name in every if name not in left_out]


@pytest.mark.parametrize("height", range(2, 30))
def test_no_height_is_exceeded(height: int) -> None:
    broken = many(40, recent=[note(number) for number in range(7)])
    broken["venues"]["bybit"] |= {"markets": 3, "markets_read": 1}
    watch = Watch()
    watch.frame(broken)
    lines = rendered(watch.frame({**broken, "now": START + SECOND}), height=height)
    assert lines[0].startswith("● ")
    assert len(lines) < height or height < 6, "the painter cuts what is smaller than that"
    assert any("1 of 3 markets read" in line for line in lines)


def test_a_gap_of_late_keeps_a_connection_on_top() -> None:
    watch = Watch()
    watch.frame(healthy())
    after = healthy(now=START + SECOND)
    after["venues"]["okx"]["connections"]["okx.swap.book.0"]["gaps"] = 1
    first, *_ = watch.frame(after).rows
    assert first.cells["connection"] == "swap.book.0"
    later = healthy(now=START + 400 * SECOND)
    later["venues"]["okx"]["connections"]["okx.swap.book.0"]["gaps"] = 1
    first, *_ = watch.frame(later).rows
    assert first.cells["connection"] == "linear.book.0"


def test_a_venue_cannot_command_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\nbye\u202e"
    down = connection("bybit.linear.book.0", state="retrying", last_error=evil)
    frame = Watch().frame(status(venue("bybit", down), sink=sink(), recent=[note(1, event=evil, text=evil)]))
    for text in ("\n".join(rendered(frame, 120)), frame.line):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert any("owned" in line for line in rendered(frame, 120))


def test_one_line_says_as_much() -> None:
    watch = Watch()
    watch.frame(healthy())
    assert watch.frame(healthy(now=START + SECOND)).line == (
        "08:26:41 ✓ All 3 connections are live; Kafka is up; nothing waiting | 3 of 3 live, 0 messages/s, "
        "0 events/s, up 60 min | Kafka up: 0 records/s in, 10 on the way; spool idle: 0 records, 0 B"
    )


def test_before_kafka_was_reached() -> None:
    lines = rendered(Watch().frame(status(sink=None)))
    assert lines[0] == "● Kafka has not been reached yet"
    assert lines[-1] == "Kafka: not reached yet"


def test_how_it_ended() -> None:
    assert farewell(status(sink=None)) == "Stopped."
    assert farewell(healthy()) == "Stopped: 990 records are in Kafka."
    left = attrs.evolve(sink(), spooled=12, announced_lost=3)
    assert farewell(status(sink=left)) == (
        "Stopped: 990 records are in Kafka, 12 stay in the spool for the next start, 3 are lost and announced."
    )
