"""One cause does not fill the log, and what is held back is counted."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog

from pipeline.observe.logs import configure
from pipeline.observe.repeats import Repeats
from pipeline.observe.settings import LogSettings


def line(created: float, event: str = "connection_lost", level: int = logging.WARNING, **fields: Any) -> Any:
    record = logging.LogRecord("pipeline.feeds", level, "", 0, {"event": event, **fields}, (), None)
    record.created = created
    return record


def test_the_first_ones_of_a_minute_pass_and_the_others_are_counted() -> None:
    repeats = Repeats(allowed=3)
    passed = [not repeats.holds_back(line(100 + second, connection="a")) for second in range(10)]
    assert passed == [True] * 3 + [False] * 7
    assert list(repeats.over(159.9)) == []
    (summary,) = repeats.over(160)
    assert summary.msg == {
        "event": "repeats_held_back",
        "repeated": "connection_lost",
        "connection": "a",
        "count": 7,
        "within_s": 9.0,
        "timestamp": "1970-01-01T00:02:40Z",
    }
    assert summary.levelno == logging.WARNING
    assert not repeats.holds_back(line(160, connection="a")), "the next minute begins"


@pytest.mark.parametrize(
    "other",
    [line(1, connection="b"), line(1, "another_event", connection="a"), line(1, connection="a", topic="t")],
    ids=["another connection", "another event", "another topic"],
)
def test_what_happens_to_another_is_another_matter(other: logging.LogRecord) -> None:
    repeats = Repeats(allowed=1)
    assert [repeats.holds_back(line(1, connection="a")) for _ in range(2)] == [False, True]
    assert not repeats.holds_back(other)


def test_what_librdkafka_repeats_is_one_kind_whatever_broker_and_thread_it_names() -> None:
    repeats = Repeats(allowed=3)
    told = [
        logging.LogRecord("pipeline.kafka", logging.ERROR, "", 0, "%s [%s] %s", (facility, "me#producer-1", text), None)
        for facility, text in [("FAIL", f"[thrd:h:9092/{n}]: Connect failed (after {n}ms)") for n in range(9)]
        + [("SASL", "[thrd:h:9092/1]: mechanism refused")]
    ]
    assert [repeats.holds_back(each) for each in told] == [False] * 3 + [True] * 6 + [False]


def test_good_news_are_never_held_back() -> None:
    repeats = Repeats(allowed=1)
    assert not any(repeats.holds_back(line(1, "connection_live", logging.INFO, connection="a")) for _ in range(50))
    assert list(repeats.end(2)) == []


def test_a_flood_of_different_kinds_takes_no_more_memory() -> None:
    repeats = Repeats(allowed=1)
    for number in range(3_000):
        repeats.holds_back(line(1, connection=str(number)))
    assert len(repeats._windows) <= 1_001
    assert [summary.msg["count"] for summary in repeats.end(2)] == [1_999]  # type: ignore[index]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(each) for each in stream.getvalue().splitlines()]


def test_held_back_lines_are_told_of_at_the_end() -> None:
    stream = io.StringIO()
    configure(LogSettings(repeats=2), stream)
    log = structlog.get_logger("pipeline.feeds")
    for _ in range(5):
        log.error("archive_incomplete", venue="okx", reason="disk full")
    (handler, _) = logging.getLogger().handlers
    handler.close()
    assert [each["event"] for each in lines(stream)] == [
        "archive_incomplete",
        "archive_incomplete",
        "repeats_held_back",
    ]
    summary = lines(stream)[-1]
    assert (summary["repeated"], summary["venue"], summary["count"]) == ("archive_incomplete", "okx", 3)
    assert (summary["level"], summary["logger"]) == ("error", "pipeline.feeds")


def test_lines_of_the_standard_library_too() -> None:
    stream = io.StringIO()
    configure(LogSettings(repeats=1), stream)
    log = logging.getLogger("pipeline.session.supervisor")
    for attempt in range(4):
        log.warning("%s: %s; attempt %d", "okx.swap.book.0", f"reason {attempt}", attempt)
        log.warning("%s: %s; attempt %d", "okx.swap.trade.0", "lost", attempt)
    logging.getLogger().handlers[0].close()
    events = [each["event"] for each in lines(stream)]
    assert events[:2] == ["okx.swap.book.0: reason 0; attempt 0", "okx.swap.trade.0: lost; attempt 0"]
    assert events[2:] == [
        "okx.swap.book.0: reason 1; attempt 1 (3 more like it within 0 s)",
        "okx.swap.trade.0: lost; attempt 1 (3 more like it within 0 s)",
    ]
