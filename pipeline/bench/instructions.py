"""Processor instructions per message, counted by Valgrind: alike on a fast machine and on a slow one.

How long an instruction takes is left out, and so are caches. Each contestant runs twice, with streams of different
length: the difference is what messages cost, without start and end. A program is some twenty times slower while it is
counted, so that what it does by the clock (heartbeats, polls, statistics) counts for more than it does otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from pipeline.bench.arena import BenchFailed, Job, Runs
from pipeline.bench.contestants import CONTESTANTS

_SHORTER = 0.5
"""The first of the two streams in the second."""


@attrs.frozen
class Count:
    """What a message costs one contestant."""

    contestant: str
    per_message: float
    """Instructions of all threads."""
    ratio: float
    """In those of the first contestant."""


def measure(
    arena: Runs, jobs: Sequence[Job], setting: str, *, console: Console, is_json: bool, tell: Callable[[str], None]
) -> int:
    """Count the instructions of each job and print them; returns 1 if a run has failed."""
    found: dict[str, float] = {}
    failures: list[str] = []
    for job in jobs:
        try:
            found[job.name] = _per_message(arena, job)
        except BenchFailed as error:
            failures.append(str(error))
            tell(failures[-1])
        else:
            tell(f"{job.name:<14} {found[job.name]:,.0f} instructions per message")
    counts = [Count(name, each, each / next(iter(found.values()))) for name, each in found.items()]
    if is_json:
        document: dict[str, Any] = {"instructions": [attrs.asdict(each) for each in counts], "failures": failures}
        console.print_json(json.dumps(document))
    else:
        console.print(setting, highlight=False)
        console.print(_table(counts))
        if failures:
            console.print(f"{len(failures)} contestants failed and are missing from this.", highlight=False)
    return 1 if failures else 0


def _per_message(arena: Runs, job: Job) -> float:
    long = attrs.evolve(job, is_counted=True)
    short = attrs.evolve(long, messages=round(job.messages * _SHORTER))
    few, many = arena.run(short), arena.run(long)
    return (many.instructions - few.instructions) / (long.messages - short.messages)


def _table(counts: Sequence[Count]) -> Table:
    table = Table(title="Instructions per message, flat out", title_justify="left", box=None, header_style="dim")
    table.add_column("contestant", no_wrap=True)
    for column in ("instructions", "first = 1"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in counts:
        name, _, form = each.contestant.partition("/")
        title = CONTESTANTS[name].title + (f" ({form})" if form else "")
        table.add_row(title, f"{each.per_message:,.0f}", f"{each.ratio:.2f}")
    return table
