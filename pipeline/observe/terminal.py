"""The service's status in a terminal: a table that updates in place, or a line now and then where there is none."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TextIO

import structlog
import trio
from rich.console import Console

from pipeline.observe.frames import Frame, Watch, farewell
from pipeline.observe.logs import written_to
from pipeline.observe.painting import InPlace, can_paint, open_console
from pipeline.observe.problems import Status
from pipeline.observe.progress import LINES_S

log = structlog.get_logger(__name__)

REFRESH_S = 1.0
IDLE_LINES_S = 10.0
"""Between lines where there is no terminal; less while there is long work."""
FIRST_LINE_S = 1.0
_END_WITHIN_S = 1.0


async def show(read: Callable[[], Status], stream: TextIO | None = None) -> None:
    """Show the status on standard output until cancelled, and then how it ended."""
    stream = sys.stdout if stream is None else stream
    console = open_console(stream)
    try:
        if can_paint(console):
            await show_table(read, console)
        else:
            await show_lines(read, partial(os.write, stream.fileno()))
    except OSError as error:
        # Whoever looked on has gone; that is no reason to end what was looked at.
        log.warning("live_view_ended", reason=error.strerror or str(error) or type(error).__name__)


async def show_table(read: Callable[[], Status], console: Console) -> None:
    """The table. Raises `OSError` if the terminal has gone."""
    watch, painting = Watch(), InPlace(console)
    painting.start()
    try:
        with written_to(sys.stderr):
            while True:
                if (frame := _look(watch, read)) is not None:
                    await _aside(partial(painting.paint, frame))
                await trio.sleep(REFRESH_S)
    finally:
        words = _last_words(read)
        with trio.move_on_after(_END_WITHIN_S, shield=True):
            await _aside(painting.stop)
            await _aside(partial(console.print, words))


async def show_lines(read: Callable[[], Status], write: Callable[[bytes], object]) -> None:
    """A line every `IDLE_LINES_S`, or more often while there is long work. Raises what `write` raises."""
    watch, next_at = Watch(), trio.current_time() + FIRST_LINE_S
    is_free = threading.Lock()  # a line that was abandoned must not come after the last words

    def put(line: str) -> None:
        try:
            write(f"{line}\n".encode())
        finally:
            is_free.release()

    def put_last(line: str) -> None:
        is_free.acquire()
        put(line)

    try:
        while True:
            frame, now = _look(watch, read), trio.current_time()
            if frame is not None and frame.steps:
                next_at = min(next_at, now + LINES_S)
            if frame is not None and now >= next_at:
                next_at = now + IDLE_LINES_S
                is_free.acquire()
                await _aside(partial(put, frame.line))
            await trio.sleep(REFRESH_S)
    finally:
        words = _last_words(read)
        with trio.move_on_after(_END_WITHIN_S, shield=True):
            await _aside(partial(put_last, words))


def _look(watch: Watch, read: Callable[[], Status]) -> Frame | None:
    try:
        return watch.frame(read())
    except Exception:
        # A view that cannot be made must not end what it is about.
        log.exception("live_view_failed")
        return None


def _last_words(read: Callable[[], Status]) -> str:
    try:
        return farewell(read())
    except Exception:
        log.exception("live_view_failed")
        return "Stopped."


async def _aside(write: Callable[[], object]) -> None:
    """A terminal may be slow or stopped by its user, a pipe unread: the readers of the venues must not wait for it."""
    await trio.to_thread.run_sync(write, abandon_on_cancel=True)


@asynccontextmanager
async def shared_stderr() -> AsyncIterator[int | None]:
    """For child processes, a file instead of our standard error, so that their lines go above the table.

    None where no table is painted over it. The processes should have ended when the block does.
    """
    if not (can_paint(open_console(sys.stdout)) and sys.stderr.isatty()):
        yield None
        return
    receiving, sending = os.openpty()  # they write for people, as to the terminal itself
    async with trio.lowlevel.FdStream(receiving) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(_relay, stream)
        try:
            yield sending
        finally:
            os.close(sending)
            nursery.cancel_scope.deadline = trio.current_time() + _END_WITHIN_S


async def _relay(stream: trio.lowlevel.FdStream) -> None:
    rest = b""
    with suppress(trio.BrokenResourceError):  # what the end of the last writer comes as
        async for data in stream:
            *lines, rest = (rest + data).split(b"\r\n")
            for line in lines:
                sys.stderr.write(f"{line.decode(errors='replace')}\n")
            sys.stderr.flush()
