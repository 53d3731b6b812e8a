"""Painting over the same lines, with the log above, read back from what a terminal shows."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import structlog
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from pipeline.observe.logs import configure
from pipeline.observe.painting import can_paint, in_place, open_console, printable
from pipeline.observe.settings import LogSettings
from tests.observe.screen import Screen


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def screen(terminal: Terminal) -> Screen:
    found = Screen()
    found.feed(terminal.getvalue())
    return found


def console(terminal: Terminal) -> Console:
    console = open_console(terminal)
    console.size = ConsoleDimensions(60, 10)
    return console


def logging_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error on a terminal, with the log on it. No fixture: capturing begins after those."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    configure(LogSettings())
    return terminal


def test_lines_are_painted_over_and_the_log_goes_above(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = logging_terminal(monkeypatch)
    log = structlog.get_logger()
    with in_place(console(terminal)) as painting:
        painting.paint(Text("one\ntwo\nthree"))
        assert screen(terminal).shown() == ["one", "two", "three"]
        log.info("first_fact", number=1)
        painting.paint(Text("four\nfive"))
        painting.say("a line")
        logging.getLogger("x").warning("second fact")
        now = screen(terminal)
        first, said, second, *rest = now.shown()
        assert "first_fact" in first
        assert said == "a line"
        assert "second fact" in second
        assert rest == ["four", "five"]
        assert now.has_cursor
        assert now.lines[now.row] == "", "whoever is killed now leaves the cursor on an empty line"
        assert now.row == len(now.shown())
    after = screen(terminal)
    assert after.shown() == now.shown()[:3], "the log stays, the painting goes"
    assert after.row == 3
    assert (after.column, after.has_cursor) == (0, True)
    log.info("third_fact")
    assert "third_fact" in screen(terminal).shown()[3]
    assert sys.stderr is terminal


def test_a_log_that_is_configured_anew_meanwhile_goes_above_too_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = logging_terminal(monkeypatch)
    with in_place(console(terminal)) as painting:
        painting.paint(Text("painted"))
        configure(LogSettings(level="warning"))
        structlog.get_logger().warning("loud")
        assert "loud" in screen(terminal).shown()[0]
        assert screen(terminal).shown()[1:] == ["painted"]
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler))
    assert handler.stream is terminal


def test_no_more_lines_than_the_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = logging_terminal(monkeypatch)
    with in_place(console(terminal)) as painting:
        painting.paint(Text("\n".join(map(str, range(30)))))
        assert screen(terminal).shown() == [*map(str, range(9))]


def test_another_size_begins_on_an_empty_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = logging_terminal(monkeypatch)
    on = console(terminal)
    with in_place(on) as painting:
        painting.paint(Text("wide " * 8))
        painting.say("what the terminal has wrapped in its own way")
        on.size = ConsoleDimensions(20, 10)
        painting.paint(Text("narrow"))
        assert screen(terminal).shown() == ["narrow"]


def test_what_is_no_terminal_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not can_paint(open_console(io.StringIO()))
    monkeypatch.setenv("TERM", "xterm")
    assert can_paint(open_console(Terminal()))
    monkeypatch.setenv("TERM", "dumb")
    assert not can_paint(open_console(Terminal()))


def test_characters_that_the_terminal_does_not_know_are_replaced() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    open_console(out).print(Text("✓ well"))
    out.flush()
    assert raw.getvalue() == b"? well\n"


def test_commands_to_the_terminal_become_blanks() -> None:
    assert printable("a\x1b[2Jb\nc–d") == "a [2Jb c–d"
