"""`python -m pipeline normalize`: recorded wire messages to the events that the service would publish."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from difflib import get_close_matches
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, TextIO

import attrs

from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Catalogue, Venue
from pipeline.feeds.chain import Chain
from pipeline.model.errors import BadMessage, ConfigError, PipelineError
from pipeline.model.events import Instrument, Micros
from pipeline.tape.lines import JsonLines, one_line

CONNECTION = "normalize"
"""What the events name as their connection."""

_CHUNK = 64 * 1024
_LAST_MICROSECOND = 2**63 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--venue", required=True, choices=list(VENUES))
    parser.add_argument("--stream", required=True, help=f"which connection the messages come from: {_streams()}")
    parser.add_argument(
        "--instruments",
        metavar="FILE",
        action="append",
        default=[],
        help="a saved answer of the venue's REST instruments, for symbols and contract values; may be repeated",
    )
    parser.add_argument(
        "--receive-time",
        metavar="MICROS",
        type=_micros,
        help="microseconds since 1970 UTC to stamp every message with, instead of the time of reading",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="one message per line; none or -: standard input")


def run(
    arguments: argparse.Namespace, *, stdin: BufferedIOBase, stdout: BinaryIO, stderr: TextIO, clock: Callable[[], int]
) -> int:
    """Write one JSON object per event; 1 if a message or a file could not be read, after the rest is done.

    `clock` gives microseconds UTC. Raises `ConfigError` for an unknown stream or a faulty file of instruments
    before anything is written.
    """
    venue = VENUES[arguments.venue]
    if arguments.stream not in venue.streams:
        close = get_close_matches(arguments.stream, venue.streams, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(venue.streams)}"
        raise ConfigError([f'--stream: {venue.name} has no stream "{arguments.stream}"; {hint}'])
    fixed = arguments.receive_time
    now = clock if fixed is None else lambda: int(fixed)
    catalogue = read_catalogue(venue, arguments.instruments, now())
    normalizer = _Normalizer(venue, arguments.stream, catalogue, now, stdout, stderr)
    for name in arguments.files or ["-"]:
        if name == "-":
            normalizer.read("<stdin>", stdin)
            continue
        try:
            with closing(Path(name).open("rb")) as file:
                normalizer.read(name, file)
        except OSError as error:
            if error.filename is None:
                raise
            normalizer.report(f"{name}: {error.strerror}")
    return 1 if normalizer.has_problems else 0


def read_catalogue(venue: Venue, files: Iterable[str], receive_time: int) -> Catalogue:
    """The instruments of saved REST answers: each file holds one JSON body or several, one after the other.

    Raises `ConfigError` naming file and line.
    """
    catalogue: dict[tuple[str, str], Instrument] = {}
    for name in files:
        for line, body in _bodies(name):
            try:
                instruments = venue.read_instruments(body, receive_time)
            except PipelineError as error:
                raise ConfigError([f"{name}:{line}: {one_line(error)}"]) from None
            catalogue.update({(i.origin.market, i.origin.instrument or ""): i for i in instruments})
    return catalogue


@attrs.define(eq=False)
class _Normalizer:
    venue: Venue
    stream: str
    catalogue: Catalogue
    clock: Callable[[], int]
    stdout: BinaryIO
    stderr: TextIO
    has_problems: bool = attrs.field(default=False, init=False)
    _chain: Chain = attrs.field(init=False)
    _lines: JsonLines = attrs.field(init=False)
    _place: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = JsonLines(self.stdout, lambda problem: self.report(f"{self._place}: {problem}"))
        # One connection for all files: a recording may be cut into several.
        publish = self._lines.publish
        self._chain = Chain(self.venue, self.stream, CONNECTION, self.catalogue, publish, starts_anywhere=True)

    def read(self, name: str, source: BufferedIOBase) -> None:
        """Every line of one source; what one read brought is written before the next one waits."""
        number = 0
        for lines in read_lines(source):
            for line in lines:
                number += 1
                if message := line.strip():
                    self._place = f"{name}:{number}"
                    self._message(message)
            self._lines.flush()

    def report(self, problem: str) -> None:
        """One line on standard error."""
        self.has_problems = True
        self.stderr.write(f"{problem}\n")
        self.stderr.flush()

    def _message(self, message: bytes) -> None:
        try:
            self._chain.message(message, Micros(self.clock()))
        except BadMessage as error:
            self.report(f"{self._place}: {one_line(error)}")


def read_lines(source: BufferedIOBase) -> Iterator[list[bytes]]:
    """Lines without their line feed, as many at a time as one read completes; the last one may lack its line feed."""
    tail: list[bytes] = []
    while chunk := source.read1(_CHUNK):
        first, *others = chunk.split(b"\n")
        tail.append(first)
        if others:
            yield [b"".join(tail), *others[:-1]]
            tail = [others[-1]]
    if any(tail):
        yield [b"".join(tail)]


def _bodies(name: str) -> Iterator[tuple[int, bytes]]:
    """The JSON values of a file with the lines they begin in."""
    try:
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{name}: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{name}: byte {error.start}: not UTF-8"]) from None
    decoder = json.JSONDecoder()
    start = len(text) - len(text.lstrip())
    if start == len(text):
        raise ConfigError([f"{name}: is empty"])
    while start < len(text):
        try:
            _, end = decoder.raw_decode(text, start)
        except ValueError as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
            raise ConfigError([f"{name}:{line}: not JSON"]) from None
        yield text.count("\n", 0, start) + 1, text[start:end].encode()
        start = end + len(text[end:]) - len(text[end:].lstrip())


def _micros(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= _LAST_MICROSECOND):
        raise argparse.ArgumentTypeError(f"expected microseconds since 1970, not {text!r}")
    return int(text)


def _streams() -> str:
    return "; ".join(f"{name} {', '.join(venue.streams)}" for name, venue in VENUES.items())
