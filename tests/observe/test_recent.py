"""What the status page tells of the last events: taken from the log, whatever of it is written."""

from __future__ import annotations

import io
import logging

import pytest
import structlog

from pipeline.observe.logs import configure
from pipeline.observe.recent import RECENT, Recent
from pipeline.observe.settings import LogSettings


def told() -> list[tuple[str, str, str]]:
    return [(note["level"], note["event"], note["text"]) for note in RECENT.notes()]


@pytest.mark.parametrize("level", ["debug", "error"])
def test_trouble_and_its_end_are_of_note_however_much_is_written(level: str) -> None:
    stream = io.StringIO()
    configure(LogSettings(level=level), stream)  # type: ignore[arg-type]
    log = structlog.get_logger("pipeline.sink")
    log.debug("details")
    log.info("schema_registered", subject="x")
    log.warning("kafka_down", reason="refused", effect="records wait")
    log.info("kafka_up")
    logging.getLogger("pipeline.session.supervisor").error("%s: refused: %s", "okx.a", "bad key")
    assert told() == [
        ("warning", "kafka_down", "reason: refused; effect: records wait"),
        ("info", "kafka_up", ""),
        ("error", "okx.a: refused: bad key", ""),
    ]
    assert ("kafka_up" in stream.getvalue()) is (level == "debug")


def test_errors_are_named_and_secrets_are_not() -> None:
    configure(LogSettings(), io.StringIO())
    log = structlog.get_logger("x")
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.exception("bug", api_secret="s3cret", url="https://me:s3cret@host/")
    log.error("bug", exc_info=OSError("disk"))
    logging.getLogger("y").error("bug", exc_info=KeyError("k"))
    assert [text for _, _, text in told()] == [
        "api_secret: ***; url: https://***@host/; error: ValueError: no such thing",
        "error: OSError: disk",
        "error: KeyError: 'k'",
    ]


def test_attempts_of_one_trouble_are_one_note() -> None:
    configure(LogSettings(), io.StringIO())
    for attempt in range(2, 40):
        for name in "abcdefghijkl":
            text = "%s: %s; attempt %d in %.1f s"
            logging.getLogger("pipeline.session.supervisor").warning(text, name, "HTTP 503", attempt, attempt / 7)
        failed = "FAIL [me#producer-1] [thrd:h:1/1]: h:1/1: Connect failed: Connection refused"
        logging.getLogger("pipeline.kafka").error(f"{failed} (after %dms in state CONNECT)", attempt)  # noqa: G004
    assert len(RECENT.notes()) == 13
    assert told()[0] == ("warning", "a: HTTP 503", "")
    assert told()[-1] == ("error", "h:1/1: Connect failed: Connection refused", "")
    assert RECENT.notes()[-1]["count"] == 38


def test_the_same_again_is_one_note_and_the_memory_is_bounded() -> None:
    recent = Recent()
    for moment in range(4):
        recent.take(moment, "warning", "lost", "a")
        recent.take(moment, "warning", "lost", "b")
    assert [(note["text"], note["first"], note["time"], note["count"]) for note in recent.notes()] == [
        ("a", 0, 3, 4),
        ("b", 0, 3, 4),
    ]
    for moment in range(1_000):
        recent.take(moment, "warning", f"event {moment}", "x" * 10_000)
    assert len(recent.notes()) == 100
    assert recent.notes()[-1]["event"] == "event 999"
    assert len(recent.notes()[-1]["text"]) == 300
