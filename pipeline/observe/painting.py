"""A few lines at the bottom of a terminal that are painted over again and again, with the log going on above them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import attrs
from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.segment import SegmentLines

from pipeline.observe.logs import written_to


class _Console(Console):
    """Whoever read our output and has gone must not end the program: rich would."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def open_console(stream: TextIO) -> Console:
    """A console on this stream, which is a terminal only if it really is one."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a terminal that knows few characters is no reason to fail
    # Lines of the log stay whole: the terminal wraps them better than anybody else.
    return _Console(
        file=stream, force_terminal=stream.isatty(), force_jupyter=False, soft_wrap=True, highlight=False, markup=False
    )


def can_paint(console: Console) -> bool:
    """Whether the cursor can be moved there."""
    return console.is_terminal and not console.is_dumb_terminal


@attrs.define(eq=False)
class InPlace:
    """Paints on a terminal.

    Rendering happens once per `paint`, so that a line above costs little. The cursor stays visible and stands on an
    empty line below what was painted: whatever kills the process leaves a terminal that can be worked on.
    """

    console: Console
    _live: Live = attrs.field(init=False)
    _size: ConsoleDimensions = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        takes_errors = self.console.is_terminal and sys.stderr.isatty()
        self._live = Live(
            console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop",
            redirect_stdout=False, redirect_stderr=takes_errors,
        )  # fmt: skip
        self._size = self.console.size

    def start(self) -> None:
        """Begin; from now on what is written to standard error, if it is a terminal, goes above."""
        self._live.start()
        self.console.show_cursor(True)

    def paint(self, view: RenderableType) -> None:
        """Show this instead of what was there. Blocks while the terminal does; raises `OSError` if it has gone."""
        size = self.console.size
        if size != self._size:  # the terminal has wrapped our lines in its own way
            self._size = size
            self.console.clear()
        lines = self.console.render_lines(view, pad=False)[: max(1, size.height - 1)]
        self._live.update(SegmentLines([*lines, []], new_lines=True), refresh=True)

    def say(self, line: str) -> None:
        """Write a line above."""
        self.console.print(line)

    def stop(self) -> None:
        """Take all of it away."""
        with suppress(OSError):
            self._live.stop()


@contextmanager
def in_place(console: Console) -> Iterator[InPlace]:
    """Paint within the block; the log goes above."""
    painting = InPlace(console)
    painting.start()
    try:
        with written_to(sys.stderr):
            yield painting
    finally:
        painting.stop()


def printable(text: str) -> str:
    """Without what a terminal could take for a command; in one line."""
    return "".join(character if character.isprintable() else " " for character in text)
