"""The live view: on a terminal of its own, as lines, and when whoever looks on is slow or gone."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ, tcgetattr
from typing import Any

import attrs
import pytest
import trio

from pipeline.observe import terminal
from pipeline.observe.logs import configure
from pipeline.observe.settings import LogSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.observe.screen import Screen
from tests.observe.statuses import healthy

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60
WIDTH, HEIGHT = 80, 24


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is looked at announces nothing
        await trio.sleep(0.01)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Lines without pauses; returns the log."""
    for name in ("REFRESH_S", "IDLE_LINES_S", "FIRST_LINE_S"):
        monkeypatch.setattr(terminal, name, 0.001)
    log = io.StringIO()
    configure(LogSettings(format="json"), log)
    return log


async def test_lines_go_on_after_a_look_that_failed_and_end_with_how_it_ended(at_once: io.StringIO) -> None:
    lines, looks = list[bytes](), 0

    def read() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return {} if looks == 1 else healthy()

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.show_lines, read, lines.append)
            await until(lambda: len(lines) > 2)
            nursery.cancel_scope.cancel()
    assert b" All 3 connections are live; " in lines[0]
    assert lines[-1] == b"Stopped: 990 records are in Kafka.\n"
    assert "live_view_failed" in at_once.getvalue()


async def test_whoever_has_gone_ends_the_view_and_nothing_else(at_once: io.StringIO) -> None:
    receiving, sending = os.pipe()
    os.close(receiving)
    with trio.fail_after(DEADLINE_S), os.fdopen(sending, "w", encoding="utf-8") as stream:
        await terminal.show(healthy, stream)
    assert '"event": "live_view_ended"' in at_once.getvalue()
    assert "Broken pipe" in at_once.getvalue()


async def test_nobody_waits_for_a_reader_that_does_not_read(
    at_once: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_END_WITHIN_S", 0.01)
    writing, released = threading.Event(), threading.Event()

    def write(data: bytes) -> None:
        writing.set()
        released.wait()

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.show_lines, healthy, write)
            await until(writing.is_set)
            nursery.cancel_scope.cancel()
    released.set()


async def test_lines_of_child_processes_go_where_ours_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async with terminal.shared_stderr() as none:
        assert none is None, "there is no terminal"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", out)
    with trio.fail_after(DEADLINE_S):
        async with terminal.shared_stderr() as stderr:
            assert stderr is not None
            assert os.isatty(stderr)
            script = "import sys; print('one\\ntwo', file=sys.stderr); print('three – four', file=sys.stderr)"
            await trio.run_process([sys.executable, "-X", "utf8", "-c", script], stderr=stderr)
    assert out.getvalue() == "one\ntwo\nthree – four\n"


# The program itself.


@attrs.define
class Watched:
    """A process on a terminal, with what that shows."""

    process: trio.Process
    screen: Screen = attrs.field(factory=Screen)

    async def listen(self, stream: trio.lowlevel.FdStream) -> None:
        rest = b""
        try:
            async for data in stream:
                rest += data
                # Whole lines and commands only.
                end = max(rest.rfind(b"\n"), rest.rfind(b"K"), rest.rfind(b"h"), rest.rfind(b"l")) + 1
                whole, rest = rest[:end], rest[end:]
                self.screen.feed(whole.decode())
        except trio.BrokenResourceError:
            pass  # all processes on the terminal have ended

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.screen.shown())


@asynccontextmanager
async def watched(*arguments: str) -> AsyncIterator[Watched]:
    """The program on a terminal of its own, as its only process."""
    controlling, controlled = pty.openpty()
    ioctl(controlled, TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    before = tcgetattr(controlled)
    environment = {**os.environ, "TERM": "xterm", "PYTHONUTF8": "1"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=controlled, stderr=controlled, env=environment,
    )  # fmt: skip
    found = Watched(process)
    try:
        async with trio.lowlevel.FdStream(controlling) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(found.listen, stream)
            yield found
            await process.wait()
            assert tcgetattr(controlled) == before, "nothing of the terminal was changed"
            os.close(controlled)
    finally:
        process.kill()


@pytest.fixture
def configuration(tmp_path: Path) -> Callable[[SimulatedVenue], str]:
    """Writes a configuration with a Kafka cluster inside the process."""

    def write(venue: SimulatedVenue) -> str:
        path = tmp_path / "config.yaml"
        kafka = {
            "bootstrap_servers": [], "properties": {"test.mock.num.brokers": 1}, "create_topics": False,
            "verify_topics": False, "spool": {"directory": str(tmp_path / "spool")},
        }  # fmt: skip
        urls = {"websocket": venue.websocket_url, "rest": venue.rest_url}
        channels = [{"market": "linear", "channel": ["trade", "book"], "instruments": ["BTCUSDT"]}]
        venues = {"bybit": {"urls": urls, "channels": channels}}
        path.write_text(json.dumps({"kafka": kafka, "http": {"enabled": False}, "venues": venues}))
        return str(path)

    return write


async def test_the_program_on_a_terminal(configuration: Callable[[SimulatedVenue], str]) -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit") as venue, watched("--config", configuration(venue), "--live") as program:
            await until(lambda: program.shows("✓ All 2 connections are live; Kafka is up"))
            for _ in range(2):  # it goes on, and in place
                (then,) = (line for line in program.screen.shown() if " UTC, 2 of 2 live" in line)
                await until(lambda then=then: program.shows(" UTC, 2 of 2 live") and not program.shows(then))  # type: ignore[misc]
            shown = program.screen.shown()
            assert sum("connections are live" in line for line in shown) == 1
            verdict = next(number for number, line in enumerate(shown) if "connections are live" in line)
            logged = [number for number, line in enumerate(shown) if "[info" in line]
            assert logged
            assert max(logged) < verdict, "the log is above"
            assert len(shown) - verdict < HEIGHT
            assert all(len(line) <= WIDTH for line in shown[verdict:])
            assert program.screen.has_cursor
            program.process.send_signal(signal.SIGINT)
    assert program.process.returncode == 0
    after = program.screen.shown()
    assert after[-1].startswith("Stopped: ")
    assert "service_stopped" in after[-2]
    assert not program.shows("connections are live")
    assert (program.screen.column, program.screen.has_cursor) == (0, True)
    assert program.screen.row == len(after)


async def test_the_program_at_once_ended_leaves_a_terminal_to_work_on(
    configuration: Callable[[SimulatedVenue], str],
) -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit") as venue, watched("--config", configuration(venue), "--live") as program:
            await until(lambda: program.shows("Kafka up"))
            program.process.kill()
    assert program.screen.has_cursor
    assert (program.screen.column, program.screen.row) == (0, len(program.screen.shown()))


async def test_the_program_without_a_terminal(configuration: Callable[[SimulatedVenue], str]) -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit") as venue:
            config = configuration(venue)
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "pipeline", "--config", config, "--live"],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert process.stdout is not None
            first = await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            rest = b"".join([data async for data in process.stdout])
            await process.wait()
    assert b" | Kafka up: " in first
    assert b"\x1b" not in first + rest
    assert rest.startswith(b"Stopped: ")
