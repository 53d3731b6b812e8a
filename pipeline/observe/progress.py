"""How far long work is: what is done, how much is left, and for how long at the present pace."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

import attrs
import structlog
import trio
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.observe import wording
from pipeline.observe.history import Samples
from pipeline.observe.painting import InPlace, can_paint, in_place, open_console
from pipeline.observe.problems import Status

log = structlog.get_logger(__name__)

LINES_S = 5.0
"""Lines about progress are at least so far apart."""
_BAR_S = 0.2
_RECENT_S = 10.0
_BAR_WIDTH = 20


@attrs.frozen
class Work:
    """Work that takes long, at one moment."""

    key: Hashable
    """The same for as long as it is the same work."""
    name: str
    """Short, for people."""
    done: float
    total: float
    """In the unit of `done`; 0 if it is not known."""
    said: str
    """What is done or left, with its unit."""


@attrs.frozen
class Step:
    """The same, with what several moments tell."""

    work: Work
    remaining_s: float | None
    """None while that cannot be told."""

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None if the total is not known."""
        return min(1.0, self.work.done / self.work.total) if self.work.total > 0 else None

    @property
    def text(self) -> str:
        """In one line."""
        parts = [] if self.fraction is None else [f"{self.fraction:.0%}"]
        if self.remaining_s is not None:
            parts.append(f"{wording.duration(self.remaining_s)} to go")
        parts.append(self.work.said)
        return f"{self.work.name}: {', '.join(parts)}"


@attrs.define(eq=False)
class Pace:
    """Compares one moment with those before it. Pure; times are given."""

    _known: dict[Hashable, Samples] = attrs.field(factory=dict, init=False)

    def steps(self, now: int, works: Iterable[Work]) -> list[Step]:
        """The works that went on since the last moment: what is done at once is not worth telling.

        `now` is in microseconds.
        """
        before, self._known = self._known, {}
        steps = []
        for work in works:
            samples = self._known[work.key] = before.get(work.key) or Samples(_RECENT_S, apart_s=0.5)
            # Where more comes while some is done, as in a spool, only the difference brings the end nearer.
            samples.note(now, {"": work.done - work.total})
            if work.key in before:
                pace = samples.per_second("") if work.total > 0 else None
                steps.append(Step(work, max(0.0, work.total - work.done) / pace if pace else None))
        return steps


@attrs.define(eq=False)
class ServiceWorks:
    """The long work of a service, told from its status: reading catalogues, emptying the spool."""

    _most: dict[Hashable, float] = attrs.field(factory=dict, init=False)

    def works(self, status: Status) -> list[Work]:
        """What goes on at this moment."""
        found = [*([] if _is_stopping(status) else _catalogues(status)), *self._draining(status)]
        self._most = {key: most for key, most in self._most.items() if any(work.key == key for work in found)}
        return found

    def _draining(self, status: Status) -> Iterator[Work]:
        sink, is_stopping = status["sink"], _is_stopping(status)
        if sink is None or not sink["broker_up"] or not (sink["is_spooling"] or is_stopping):
            return
        records, octets = sink["spooled"] + sink["in_flight"], sink["spool_bytes"]
        said = f"{wording.several(records, 'record')} left"
        if octets:
            said += f", {wording.size(octets)} on disk"
        name = "stopping" if is_stopping else "spool"
        # How many records an earlier process left is not known before they are read; how many bytes is.
        unit, left = ("records", records) if records else ("bytes", octets)
        if left:
            most = self._most[name, unit] = max(left, self._most.get((name, unit), 0))
            yield Work((name, unit), name, most - left, most, said)


def _is_stopping(status: Status) -> bool:
    return "stopping" in status["not_ready"]


def _catalogues(status: Status) -> Iterator[Work]:
    for name, venue in status["venues"].items():
        read, total = venue["markets_read"], venue["markets"]
        if read < total:
            said = f"{read} of {wording.several(total, 'market')} read"
            yield Work(("catalogue", name), f"{name} catalogue", read, total, said)


async def report_progress(read: Callable[[], Status]) -> None:
    """Log the long work of a service, now and then, until cancelled."""
    works, pace = ServiceWorks(), Pace()
    while True:
        status = read()
        for step in pace.steps(status["now"], works.works(status)):
            remaining_s = None if step.remaining_s is None else round(step.remaining_s, 1)
            log.info("work_in_progress", work=step.work.name, progress=step.text, remaining_s=remaining_s)
        await trio.sleep(LINES_S)


def bars(steps: Iterable[Step]) -> Table:
    """One line each, with a bar where the total is known."""
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(width=_BAR_WIDTH, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for step in steps:
        fraction = step.fraction
        gauge = Text() if fraction is None else ProgressBar(1.0, fraction, width=_BAR_WIDTH)
        table.add_row(gauge, Text(step.text))
    return table


@attrs.define(eq=False)
class Progress:
    """Tells a person how far one work is: as a bar on a terminal, else in a line now and then."""

    stream: TextIO
    painting: InPlace | None
    """None where there is no terminal, or where it shows something else."""
    now: Callable[[], float]
    """Seconds."""
    has_told: bool = attrs.field(default=False, init=False)
    """Whether anything was shown so far."""
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _told: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._told = self.now()

    def show(self, work: Callable[[], Work]) -> None:
        """Show how far it is, if it is time to."""
        now = self.now()
        if now - self._told < (LINES_S if self.painting is None else _BAR_S):
            return
        self._told, self.has_told, present = now, True, work()
        [step] = self._pace.steps(round(now * 1e6), [present]) or [Step(present, None)]
        if self.painting is None:
            self.say(step.text)
        else:
            self.painting.paint(bars([step]))

    def say(self, line: str) -> None:
        """Write a line of its own."""
        if self.painting is None:
            self.stream.write(f"{line}\n")
            self.stream.flush()
        else:
            self.painting.say(line)


@contextmanager
def open_progress(stream: TextIO, now: Callable[[], float], *, may_paint: bool = True) -> Iterator[Progress]:
    """Progress on this stream; with a bar if it is a terminal that nothing else is printed to (`may_paint`)."""
    console = open_console(stream)
    if not (may_paint and can_paint(console)):
        yield Progress(stream, None, now)
        return
    with in_place(console) as painting:
        yield Progress(stream, painting, now)
