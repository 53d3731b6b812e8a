from __future__ import annotations

import io
import json
import logging
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from pipeline.observe.logs import configure, looks_secret, reconfigure, written_to
from pipeline.observe.settings import LogSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_utc_time_level_and_event() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)
    before = datetime.now(UTC)
    structlog.get_logger("pipeline.sink").warning("broker lost", broker="kafka:9092", retries=3)
    (line,) = lines(stream)
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert before <= datetime.fromisoformat(timestamp) <= datetime.now(UTC)
    assert line == {
        "event": "broker lost",
        "level": "warning",
        "logger": "pipeline.sink",
        "broker": "kafka:9092",
        "retries": 3,
    }


def test_the_standard_library_goes_the_same_way() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)
    logging.getLogger("hypercorn.error").info("Running on %s", "http://127.0.0.1:9464", extra={"api_key": "abc"})
    (line,) = lines(stream)
    assert line["event"] == "Running on http://127.0.0.1:9464"
    assert line["level"] == "info"
    assert line["logger"] == "hypercorn.error"
    assert line["api_key"] == "***"


def test_python_warnings_are_logged() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("odd", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert "UserWarning: odd" in line["event"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_holds_for_both(level: str) -> None:
    stream = io.StringIO()
    configure(LogSettings(level=level), stream)  # type: ignore[arg-type]
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("own"), name)(name)
        getattr(logging.getLogger("other"), name)(name)
    wanted = ["debug", "info", "warning", "error"]
    wanted = wanted[wanted.index(level) :]
    assert [line["event"] for line in lines(stream)] == [name for name in wanted for _ in range(2)]


def test_request_lines_of_libraries_are_kept_out() -> None:
    stream = io.StringIO()
    configure(LogSettings(level="debug"), stream)
    logging.getLogger("httpx").info("HTTP Request: GET https://host/private?sign=1")
    logging.getLogger("httpcore.connection").debug("connect")
    logging.getLogger("httpx").warning("kept")
    assert [line["event"] for line in lines(stream)] == ["kept"]


def test_secrets_are_not_shown_however_deep() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)
    structlog.get_logger("x").info(
        "start",
        api_secret="s1",
        password=None,
        properties={"sasl.password": "s2", "sasl.username": "me", "nested": [{"token": "s3"}]},
        registry="https://me:s4@registry:8081/x",
    )
    assert "s1" not in stream.getvalue()
    assert "s2" not in stream.getvalue()
    assert "s3" not in stream.getvalue()
    assert "s4" not in stream.getvalue()
    (line,) = lines(stream)
    assert line["properties"]["sasl.username"] == "me"
    assert line["password"] is None
    assert line["registry"] == "https://***@registry:8081/x"


def test_exceptions_are_part_of_the_line_without_local_variables() -> None:
    for settings in (LogSettings(format="json"), LogSettings(format="console")):
        stream: io.StringIO = Terminal()
        configure(settings, stream)
        hidden = "pass" + "phrase-of-the-test"
        try:
            raise ValueError("no such thing", len(hidden))
        except ValueError:
            structlog.get_logger("x").exception("bug")
        assert "ValueError" in stream.getvalue()
        assert "no such thing" in stream.getvalue()
        assert hidden not in stream.getvalue()
    stream = io.StringIO()
    configure(LogSettings(), stream)
    structlog.get_logger("x").error("bug", exc_info=ValueError("one line"))
    assert "one line" in lines(stream)[0]["exception"]


@pytest.mark.parametrize(
    ("settings", "stream", "is_json", "is_coloured"),
    [
        pytest.param(LogSettings(), io.StringIO(), True, False, id="auto in a file"),
        pytest.param(LogSettings(), Terminal(), False, True, id="auto on a terminal"),
        pytest.param(LogSettings(format="json"), Terminal(), True, False, id="json on a terminal"),
        pytest.param(LogSettings(format="console"), io.StringIO(), False, False, id="console in a file"),
    ],
)
def test_format(settings: LogSettings, stream: io.StringIO, is_json: bool, is_coloured: bool) -> None:
    configure(settings, stream)
    structlog.get_logger("x").info("hello", n=1)
    text = stream.getvalue()
    assert text.startswith("{") is is_json
    assert ("\x1b[" in text) is is_coloured
    assert "hello" in text


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(LogSettings(), first)
    log = structlog.get_logger("x")
    log.info("one")
    configure(LogSettings(), second)
    log.info("two")
    logging.getLogger("y").info("three")
    assert [line["event"] for line in lines(first)] == ["one"]
    assert [line["event"] for line in lines(second)] == ["two", "three"]


def test_other_settings_leave_the_lines_where_they_go() -> None:
    first, painted = io.StringIO(), io.StringIO()
    configure(LogSettings(), first)
    log = structlog.get_logger("x")
    with written_to(painted):
        reconfigure(LogSettings(level="debug"))
        log.debug("one")
    log.debug("two")
    reconfigure(LogSettings(level="error"))
    log.warning("three")
    assert [line["event"] for line in lines(painted)] == ["one"]
    assert [line["event"] for line in lines(first)] == ["two"]


def test_objects_that_json_does_not_know_are_shown_by_their_repr() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)
    structlog.get_logger("x").info("odd", value={1}, raw=b"\xff")
    (line,) = lines(stream)
    assert line["value"] == "{1}"
    assert line["raw"] == r"b'\xff'"


@pytest.mark.parametrize(
    "name",
    ["sasl.password", "ssl.key.password", "ssl.key.pem", "api_secret", "apiKey", "sasl.jaas.config", "bearer_token",
     "sasl.oauthbearer.client.secret", "Authorization", "sign", "sasl.oauthbearer.config", "private_key"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    ["key", "sasl.username", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "instrument", "design",
     "sasl.oauthbearer.client.credentials.client.id", "keyspace", "ssl.ca.location", "signal"],
)  # fmt: skip
def test_names_of_anything_else(name: str) -> None:
    assert not looks_secret(name)
