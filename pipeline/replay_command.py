"""`python -m pipeline replay`: an archive back into events, on standard output or into Kafka."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from math import inf
from string import Formatter
from typing import BinaryIO, TextIO

import attrs
import trio

from pipeline.exchanges import VENUES
from pipeline.feeds.chain import Publish
from pipeline.model.errors import ConfigError
from pipeline.model.events import Event, WireMessage
from pipeline.observe import wording
from pipeline.observe.progress import Progress, Work, open_progress
from pipeline.sink.opening import open_sink
from pipeline.sink.reader import Received, open_reader
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.sink import Sink
from pipeline.tape.entries import Entry
from pipeline.tape.lines import JsonLines
from pipeline.tape.player import Player
from pipeline.tape.reading import ArchiveFile, find_files, merged

TOPICS = "replay.{group}.{kind}"
"""Where events go by default: never among those of the service."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TURN = 500
"""Entries between looks at the output, the progress and Ctrl-C."""
_MAX_QUEUED = 50_000
_QUEUE_POLL_S = 0.01

Run = tuple[str, int]
"""Venue, and when the process started."""
Source = AsyncGenerator[tuple[Run, Entry, Callable[[], str]], None]
"""Entries, each with the run it is of and its place, for messages to people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--config", metavar="FILE", help="the service's configuration, for --topic and --to kafka")
    parser.add_argument("--topic", action="store_true", help="read the archive in Kafka, as far as it goes now")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=inf,
        metavar="full|N",
        help="how fast: full (the default), or N times the original pace, such as 1",
    )
    parser.add_argument("--to", choices=("stdout", "kafka"), default="stdout", help="where events go (default: stdout)")
    parser.add_argument(
        "--topics", default=TOPICS, metavar="TEMPLATE", help=f"names of the topics for --to kafka (default: {TOPICS})"
    )
    parser.add_argument(
        "--from", dest="since", type=_time, default=0, metavar="TIME", help="publish only what was received from then"
    )
    parser.add_argument(
        "--until", type=_time, default=2**63, metavar="TIME", help="…or before then; ISO 8601 (UTC) or microseconds"
    )
    parser.add_argument(
        "--connection", default="*", metavar="PATTERN", help='only connections such as "bybit.linear.book.*"'
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="archive files, or directories of them")


async def run(
    arguments: argparse.Namespace, settings: KafkaSettings | None, *, stdout: BinaryIO, stderr: TextIO
) -> int:
    """Replay; 1 if something of the archive is missing or cannot be read, after the rest is done.

    Raises `ConfigError` for options that contradict each other before anything is read, and what Kafka's side raises.
    """
    _check(arguments, settings)
    async with AsyncExitStack() as stack:
        # A bar below events that scroll by would be of no use.
        may_paint = arguments.to == "kafka" or not stdout.isatty()
        progress = _Progress(stack.enter_context(open_progress(stderr, trio.current_time, may_paint=may_paint)))
        lines = JsonLines(stdout, progress.report)
        sink = None
        if arguments.to == "kafka" and settings is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-"))
            sink = await stack.enter_async_context(open_sink(_output_settings(settings, arguments.topics, folder)))
        publish = lines.publish if sink is None else sink.publish
        replay = _Replay(arguments.since, arguments.until, arguments.connection, publish, lines.fits, progress)
        if arguments.topic and settings is not None:
            source = _topic_entries(settings, progress)
        else:
            files = find_files(arguments.files, progress.report)
            source = _file_entries([file for file in files if file.began < arguments.until], progress)
        async with aclosing(source) as entries:
            await _play(entries, replay, arguments.speed, lines, sink)
        if sink is not None:
            await sink.delivered()
        progress.end()
    return 1 if progress.has_problems else 0


async def _play(
    entries: Source,
    replay: _Replay,
    speed: float,
    lines: JsonLines,
    sink: Sink | None,
) -> None:
    pace, turn = _Pace(speed), 0
    async for of_run, entry, place in entries:
        if (delay := pace.delay(entry.receive_time)) > 0:
            lines.flush()
            await trio.sleep(delay)
        replay.take(of_run, entry, place)
        turn += 1
        if turn % _TURN == 0:
            lines.flush()
            replay.progress.show()
            await trio.lowlevel.checkpoint()
            while sink is not None and _queued(sink) > _MAX_QUEUED:  # noqa: ASYNC110 - a sink tells only its end
                await trio.sleep(_QUEUE_POLL_S)
    lines.flush()


def _queued(sink: Sink) -> int:
    stats = sink.stats()
    return stats.in_flight + stats.spooled


@attrs.define(eq=False)
class _Replay:
    since: int
    until: int
    pattern: str
    publish: Publish
    fits: Publish
    progress: _Progress
    _players: dict[Run, Player] = attrs.field(factory=dict, init=False)
    _is_inside: bool = attrs.field(default=True, init=False)
    _place: Callable[[], str] = attrs.field(default=str, init=False)

    def take(self, of_run: Run, entry: Entry, place: Callable[[], str]) -> None:
        """Replay one entry; what cannot be read is reported."""
        self._is_inside, self._place = self.since <= entry.receive_time < self.until, place
        self.progress.entries += 1
        try:
            player = self._players.get(of_run) or self._add(of_run)
            player.take(entry)
        except ValueError as error:
            self._report(str(error))

    def _add(self, of_run: Run) -> Player:
        venue = VENUES.get(of_run[0])
        if venue is None:
            raise ValueError(f'unknown venue "{of_run[0]}"')
        player = self._players[of_run] = Player(venue, self._publish, self._report, self._wants)
        return player

    def _publish(self, event: Event) -> bool:
        if not self._is_inside:
            return self.fits(event)  # what does not fit changes what follows
        self.progress.events += 1
        return self.publish(event)

    def _wants(self, connection: str) -> bool:
        return fnmatchcase(connection, self.pattern) or fnmatchcase(connection.rpartition("#")[0], self.pattern)

    def _report(self, problem: str) -> None:
        self.progress.report(f"{self._place()}: {problem}")


@attrs.define(eq=False)
class _Pace:
    """Entries as far apart as they were, or so many times nearer."""

    speed: float
    _first: int | None = attrs.field(default=None, init=False)
    _started: float = attrs.field(default=0.0, init=False)

    def delay(self, receive_time: int) -> float:
        """Seconds until it is time for what was received then."""
        if self.speed == inf:
            return 0.0
        if self._first is None:
            self._first, self._started = receive_time, trio.current_time()
        return self._started + (receive_time - self._first) / 1e6 / self.speed - trio.current_time()


@attrs.define(eq=False)
class _Progress:
    """How far it is, and what goes wrong, one line each."""

    told: Progress
    entries: int = attrs.field(default=0, init=False)
    events: int = attrs.field(default=0, init=False)
    has_problems: bool = attrs.field(default=False, init=False)
    read: Callable[[], tuple[float, float]] = attrs.field(default=lambda: (0, 0), init=False)
    """Bytes read and bytes in all; 0 in all where that is not known."""
    _started: float = attrs.field(factory=trio.current_time, init=False)

    def report(self, problem: str) -> None:
        """Something is wrong."""
        self.has_problems = True
        self.told.say(problem)

    def show(self) -> None:
        """Tell how far it is, now and then."""
        self.told.show(self._work)

    def end(self) -> None:
        """Tell what it was, on a terminal or where it took long enough to have told of it before."""
        if self.told.has_told or self.told.painting is not None:
            took = trio.current_time() - self._started
            self.told.say(f"{self.entries:,} messages, {self.events:,} events in {wording.duration(took)}")

    def _work(self) -> Work:
        done, total = self.read()
        rate = wording.rate(self.entries / max(trio.current_time() - self._started, 1e-3))
        said = f"{self.entries:,} messages, {self.events:,} events, {rate} messages/s"
        return Work("replay", "replay", done, total, said)


async def _file_entries(files: list[ArchiveFile], progress: _Progress) -> Source:
    total = sum(file.size for file in files)
    progress.read = lambda: (sum(file.position for file in files), total)
    for of_run, file, entry in merged(files, progress.report):
        yield of_run, entry, lambda file=file: file.place  # type: ignore[misc]


async def _topic_entries(settings: KafkaSettings, progress: _Progress) -> Source:
    async with open_reader(settings, [WireMessage.KIND], from_beginning=True, until_end=True) as records:
        async for record in records:
            if record.error is not None:
                progress.report(f"{_place(record)}: {record.error}")
                continue
            fields = record.fields
            received, began = _micros(fields["receive_time"]), _micros(fields["run"])
            entry = Entry(fields["entry"], received, fields["sequence"], fields["connection"], fields["payload"])
            yield (fields["venue"], began), entry, lambda record=record: _place(record)  # type: ignore[misc]


def _place(record: Received) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _check(arguments: argparse.Namespace, settings: KafkaSettings | None) -> None:
    """Raises `ConfigError`."""
    problems = []
    if arguments.topic == bool(arguments.files):
        problems.append("give either files or --topic")
    for option, is_given in (("--topic", arguments.topic), ("--to kafka", arguments.to == "kafka")):
        if is_given and settings is None:
            problems.append(f"{option}: needs --config")
    problems += [f"--topics: {why}" for why in _template_problems(arguments.topics)]
    if arguments.since >= arguments.until:
        problems.append("--until: must be after --from")
    if problems:
        raise ConfigError(problems)


def _template_problems(template: str) -> Iterator[str]:
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError:
        fields = set()
    if "kind" not in fields or not fields <= {"group", "kind"}:
        yield f'expected a text with {{kind}}, and {{group}} if wanted, not "{template}"'


def _output_settings(settings: KafkaSettings, template: str, folder: str) -> KafkaSettings:
    """As the service's, beside it: a spool of its own, that is thrown away, since all is still in the archive."""
    return attrs.evolve(
        settings,
        client_id=f"{settings.client_id}-replay",
        topic_template=template,
        delivery="at_least_once",
        journal=False,
        shard=None,
        spool=attrs.evolve(settings.spool, directory=folder, when_full="refuse_new"),
    )


def _speed(text: str) -> float:
    if text == "full":
        return inf
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < inf:
        raise argparse.ArgumentTypeError(f'expected full or a number above 0, not "{text}"')
    return speed


def _time(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a time such as 2026-01-31T12:00, not "{text}"') from None
    return _micros(moment.replace(tzinfo=moment.tzinfo or UTC))
