"""The service's status as a few lines for a terminal of any size, the worst first. Pure; time is in the status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from pipeline.observe import wording
from pipeline.observe.history import Rises, Samples
from pipeline.observe.latencies import ACKNOWLEDGED, PRODUCED, RECEIVED, Latencies
from pipeline.observe.painting import printable
from pipeline.observe.problems import CONNECTED, Problem, Status, connections, counters, find_problems, headline
from pipeline.observe.progress import Pace, ServiceWorks, Step, bars

_NOTES, _PROBLEMS = 5, 3
_REST_S = 300.0
"""Seconds without another that a gap or the like keeps a connection among the worst."""
_AIRY_HEIGHT = 16
_MAX_NAME, _MIN_ERROR = 28, 14
_STYLES = {"bad": "bold red", "warn": "bold yellow", "good": "bold green"}
_MARKS = {"bad": "●", "warn": "○", "good": "✓"}
_STATES = {"live": "green", "lagging": "yellow", "refused": "red", "retrying": "red"}


@attrs.frozen
class Row:
    """One connection."""

    cells: Mapping[str, str]
    """By the name of the column."""
    state: str


@attrs.frozen
class Frame:
    """All there is to show at one moment, for a terminal of any size."""

    now: int
    severity: str
    """bad, warn or good."""
    verdict: str
    problems: Sequence[Problem]
    """The worst first."""
    totals: str
    rows: Sequence[Row]
    """The worst connections first."""
    sink: str
    latency: str
    """How long things took; empty while nobody knows."""
    steps: Sequence[Step]
    notes: Sequence[Mapping[str, Any]]
    """The newest first."""

    @property
    def line(self) -> str:
        """The same in one line."""
        parts = [
            f"{_MARKS[self.severity]} {self.verdict}",
            self.totals,
            self.sink,
            self.latency,
            *(step.text for step in self.steps),
        ]
        return f"{wording.moment(self.now)} {' | '.join(filter(None, parts))}"

    @property
    def headline(self) -> Text:
        """The verdict alone."""
        return _cut(f"{_MARKS[self.severity]} {self.verdict}", _STYLES[self.severity])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as are free above the cursor's."""
        free = max(1, options.size.height - 1)
        yield self.headline
        yield _cut(f"{wording.moment(self.now)} UTC, {self.totals}", "dim")
        gap = [Text()] if options.size.height >= _AIRY_HEIGHT else []
        latency = [_cut(self.latency, "dim")] if gap and self.latency else []
        below: list[RenderableType] = [*gap, _cut(self.sink), *latency, *([bars(self.steps)] if self.steps else [])]
        problems = self.problems[:_PROBLEMS] if gap else []
        yield from map(_problem, problems)
        free -= 2 + len(problems) + len(gap) + 1 + len(latency) + len(self.steps) + len(gap)
        notes = min(len(self.notes), _NOTES, max(0, free // 3))
        if notes:
            below += [*gap, *map(_note, self.notes[:notes])]
            free -= notes + len(gap)
        if self.rows and free >= 3:
            yield from gap
            yield from _table(self.rows, options.max_width, free)
        yield from below


@attrs.define(eq=False)
class Watch:
    """Turns one status after the other into frames; the ones before give rates and what happened lately. Pure."""

    _rates: Samples = attrs.field(factory=lambda: Samples(10.0), init=False)
    _latencies: Latencies = attrs.field(factory=Latencies, init=False)
    _rises: Rises = attrs.field(factory=lambda: Rises(_REST_S), init=False)
    _works: ServiceWorks = attrs.field(factory=ServiceWorks, init=False)
    _pace: Pace = attrs.field(factory=Pace, init=False)

    def frame(self, status: Status) -> Frame:
        """What to show now."""
        now, counted = status["now"], counters(status)
        self._rates.note(now, counted)
        self._rises.note(now, counted)
        self._latencies.note(status)
        problems = list(find_problems(status, self._rises))
        severity = "bad" if any(p.severity == "bad" for p in problems) else "warn" if problems else "good"
        every = sorted(connections(status), key=self._urgency)
        return Frame(
            now,
            severity,
            printable(headline(status, problems)),
            problems,
            self._totals(status, every),
            [self._row(c, now) for c in every],
            self._sink(status),
            self._latency(),
            self._pace.steps(now, self._works.works(status)),
            list(reversed(status.get("recent", ())))[:_NOTES],
        )

    def _urgency(self, c: Status) -> tuple[int, str]:
        if c["state"] not in CONNECTED:
            rank = 0 if c["last_error"] else 1
        elif c["state"] == "lagging":
            rank = 2
        else:
            has_risen = any(self._rises.of((c["id"], what)) for what in ("gaps", "dead_letters", "reconnects", "stale"))
            rank = 3 if has_risen else 4
        return rank, c["id"]

    def _row(self, c: Status, now: int) -> Row:
        name = c["id"].removeprefix(f"{c['venue']}.")
        cells = {
            "venue": c["venue"],
            "connection": name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…",
            "state": c["state"],
            "msgs/s": wording.rate(self._rates.per_second((c["id"], "messages"))),
            "events/s": wording.rate(self._rates.per_second((c["id"], "events"))),
            "last msg": wording.age(c["last_receive"], now),
            "lag": wording.duration(c["lag"] / 1e6) if c["state"] in CONNECTED else wording.UNKNOWN,
            "gaps": wording.count(c["gaps"]),
            "last error": printable(c["last_error"]),
        }
        return Row(cells, c["state"])

    def _totals(self, status: Status, every: Sequence[Status]) -> str:
        live = sum(c["state"] in CONNECTED for c in every)
        rates = [
            f"{wording.rate(_sum(self._rates.per_second((c['id'], what)) for c in every))} {what}/s"
            for what in ("messages", "events")
        ]
        up = f"up {wording.age(status['started'], status['now'])}"
        return ", ".join([f"{live} of {len(every)} live", *rates, up])

    def _latency(self) -> str:
        whats = (("to us", RECEIVED), ("produced", PRODUCED), ("in Kafka", ACKNOWLEDGED))
        found = [(name, self._latencies.percentiles(about)) for name, about in whats]
        if all(percentiles is None for _, percentiles in found):
            return ""
        return "p50/p99: " + ", ".join(_told(name, percentiles) for name, percentiles in found)

    def _sink(self, status: Status) -> str:
        sink = status["sink"]
        if sink is None:
            return "Kafka: not reached yet"
        kafka, spool = "up" if sink["broker_up"] else "down", "in use" if sink["is_spooling"] else "idle"
        taken = wording.rate(self._rates.per_second(("sink", "acknowledged")))
        parts = [
            f"Kafka {kafka}: {taken} records/s in, {wording.count(sink['in_flight'])} on the way",
            f"spool {spool}: {wording.count(sink['spooled'])} records, {wording.size(sink['spool_bytes'])}",
        ]
        if sink["announced_lost"]:
            parts.append(f"{wording.count(sink['announced_lost'])} lost")
        return "; ".join(parts)


def _told(name: str, percentiles: tuple[str, str] | None) -> str:
    return f"{name} {wording.UNKNOWN if percentiles is None else '/'.join(percentiles).replace('≤ ', '≤')}"


def farewell(status: Status) -> str:
    """The last words of a service that has ended, in one line."""
    if (sink := status["sink"]) is None:
        return "Stopped."
    parts = [f"{wording.count(sink['acknowledged'])} records are in Kafka"]
    if sink["spooled"]:
        parts.append(f"{wording.count(sink['spooled'])} stay in the spool for the next start")
    if sink["announced_lost"]:
        parts.append(f"{wording.count(sink['announced_lost'])} are lost and announced")
    return f"Stopped: {', '.join(parts)}."


_NUMERIC = frozenset({"msgs/s", "events/s", "last msg", "lag", "gaps"})
_COLUMNS = ("venue", "connection", "state", "msgs/s", "events/s", "last msg", "lag", "gaps", "last error")
_BY_IMPORTANCE = ("connection", "state", "venue", "msgs/s", "last msg", "last error", "gaps", "events/s", "lag")


def _table(rows: Sequence[Row], width: int, height: int) -> Iterator[Table | Text]:
    """A header and rows; where not all fit, the last line says how many do not."""
    shown = rows if len(rows) < height else rows[: height - 2]
    widths = _widths(shown, width)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    for name, cells in widths.items():
        justify: Literal["left", "right"] = "right" if name in _NUMERIC else "left"
        table.add_column(name, width=cells, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in shown:
        table.add_row(*(Text(row.cells[name], _style(name, row)) for name in widths))
    yield table
    if len(shown) < len(rows):
        yield Text(f"and {len(rows) - len(shown):,} more", style="dim")


def _widths(rows: Sequence[Row], width: int) -> dict[str, int]:
    """The columns for which there is room, with their widths; the most important ones come first to their room."""
    needed = {name: max(len(name), *(len(row.cells[name]) for row in rows)) for name in _COLUMNS}
    if not any(row.cells["last error"] for row in rows):
        del needed["last error"]
    else:
        needed["last error"] = min(needed["last error"], _MIN_ERROR)
    free = width
    taken: dict[str, int] = {}
    for name in _BY_IMPORTANCE:
        if name in needed and (needed[name] <= free or not taken):
            taken[name] = min(needed[name], free)
            free -= taken[name] + 1
    if "last error" in taken:
        taken["last error"] += max(0, free)
    return {name: taken[name] for name in _COLUMNS if name in taken}


def _style(column: str, row: Row) -> str:
    if column == "state":
        return _STATES.get(row.state, "yellow")
    if column == "last error":
        return "red" if row.state not in CONNECTED else "dim"
    return "yellow" if column == "gaps" and row.cells[column] != "0" else ""


def _problem(problem: Problem) -> Text:
    text = f"  {_MARKS[problem.severity]} {problem.title}" + (f": {problem.detail}" if problem.detail else "")
    return _cut(printable(text), _STYLES[problem.severity].removeprefix("bold "))


def _note(note: Mapping[str, Any]) -> Text:
    style = {"info": "", "warning": "yellow"}.get(note["level"], "red")
    what = str(note["event"]).replace("_", " ") + (f" ({note['count']} times)" if note["count"] > 1 else "")
    text = f"{what}: {note['text']}" if note["text"] else what
    line = Text(no_wrap=True, overflow="ellipsis", end="\n")
    return line.append(f"{wording.moment(note['time'])} ", "dim").append(printable(text), style)


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _sum(rates: Iterator[float | None]) -> float | None:
    known = [each for each in rates if each is not None]
    return sum(known) if known else None
