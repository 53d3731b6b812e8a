"""What the service is held to, and whether the runs have shown it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from pipeline.bench.summary import Outcome, cost_ratio, crews, memory, p99_difference_us, paced, scaled

FLOOD_PER_S = 50_000
STEADY_PER_S = 10_000
INSTRUMENTS = (1, 50, 500, 2_000)
CONNECTIONS = (1, 10, 50)
MEMORY_MESSAGES = 10_000_000
WORKERS = (1, 2)
_BACKLOG = FLOOD_PER_S // 10
"""Messages behind at the end of a flood that still count as keeping up: a tenth of a second."""
_P99_US = 2_000.0
_GROWTH = 1.15
_MEMORY_GROWTH = 1.10
_TWO_WORKERS = 1.8


@attrs.frozen
class Results:
    """The runs by what they were made for."""

    throughput: Sequence[Outcome] = ()
    latency: Sequence[Outcome] = ()
    instruments: Sequence[Outcome] = ()
    connections: Sequence[Outcome] = ()
    memory: Sequence[Outcome] = ()
    workers: Sequence[Outcome] = ()
    failures: Sequence[str] = ()
    """Runs that told nothing, and their last words."""

    @property
    def all(self) -> list[Outcome]:
        """In this order."""
        parts = (self.throughput, self.latency, self.instruments, self.connections, self.workers, self.memory)
        return [outcome for part in parts for outcome in part]


@attrs.frozen
class Verdict:
    """One target."""

    name: str
    target: str
    figure: float | None = None
    """None: not measured."""
    shown: str = "not measured"
    """The figure with its unit."""
    met: bool | None = None
    stretch_met: bool | None = None


def verdicts(results: Results, decimals: str = "text") -> list[Verdict]:
    """All targets, in the order in which they were set."""
    return list(_verdicts(results, "" if decimals == "text" else f"/{decimals}"))


def _verdicts(results: Results, suffix: str) -> Iterator[Verdict]:
    ours, runs = f"ours{suffix}", results.throughput
    yield _ratio("cryptofeed's cost in ours", cost_ratio(runs, "cryptofeed", ours), least=4.0, stretch=6.0)
    yield _ratio("cost on stock trio-websocket in ours", cost_ratio(runs, f"stock{suffix}", ours), least=4.0)
    yield _ratio("our cost in the floor's", cost_ratio(runs, ours, "floor"), most=2.2, stretch=1.6)
    yield _ratio("our cost in that on picows and uvloop", cost_ratio(runs, ours, f"picows{suffix}"), most=1.1)
    yield _backlog(results.latency, ours)
    yield _lateness(results.latency, ours)
    yield _growth_of_memory(results.memory, ours)
    for dimension, outcomes in (("instruments", results.instruments), ("connections", results.connections)):
        sizes = [each for each in scaled(outcomes, dimension) if each.contestant == ours]
        worst = max((each.ratio for each in sizes), default=None)
        span = f" from {sizes[0].value:,} to {sizes[-1].value:,}" if sizes else ""
        yield _ratio(f"growth of the cost{span} {dimension}", worst, most=_GROWTH)
    yield _gain_of_two(results.workers)


def _ratio(
    name: str,
    ratio: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    stretch: float | None = None,
) -> Verdict:
    bound = least if least is not None else most
    assert bound is not None
    target = f"at {'least' if least is not None else 'most'} {bound:g}"
    if stretch is not None:
        target += f" (stretch {stretch:g})"
    if ratio is None:
        return Verdict(name, target)

    def reaches(wanted: float) -> bool:
        return ratio >= wanted if least is not None else ratio <= wanted

    return Verdict(
        name, target, ratio, f"{ratio:.2f}", reaches(bound), reaches(stretch) if stretch is not None else None
    )


def _backlog(outcomes: Sequence[Outcome], ours: str) -> Verdict:
    name, target = f"backlog at {FLOOD_PER_S:,}/s offered", f"at most {_BACKLOG:,} at the end"
    found = [each for each in paced(outcomes) if (each.contestant, each.rate) == (ours, FLOOD_PER_S)]
    if not found:
        return Verdict(name, target)
    [flood] = found
    shown = f"{flood.backlog_final:,.0f}, {flood.backlog_max:,.0f} at most; {flood.core_share:.0%} of a core"
    return Verdict(name, target, flood.backlog_final, shown, flood.backlog_final <= _BACKLOG)


def _lateness(outcomes: Sequence[Outcome], ours: str) -> Verdict:
    name, target = f"p99 at {STEADY_PER_S:,}/s above our reader's alone", f"at most {_P99_US / 1000:g} ms"
    difference = p99_difference_us(outcomes, ours, "split", STEADY_PER_S)
    if difference is None:
        return Verdict(name, target)
    return Verdict(name, target, difference, f"{difference / 1000:.2f} ms", difference <= _P99_US)


def _gain_of_two(outcomes: Sequence[Outcome]) -> Verdict:
    name, target = "messages/s of two processes in those of one", f"at least {_TWO_WORKERS:g}"
    gains = {each.contestant: each.ratio for each in crews(outcomes) if each.workers == WORKERS[1]}
    if "ours" not in gains:
        return Verdict(name, target)
    shown = f"{gains['ours']:.2f}" + (f"; of the floor {gains['floor']:.2f}" if "floor" in gains else "")
    return Verdict(name, target, gains["ours"], shown, gains["ours"] >= _TWO_WORKERS)


def _growth_of_memory(outcomes: Sequence[Outcome], ours: str) -> Verdict:
    runs = [each for each in memory(outcomes) if each.contestant == ours]
    if not runs:
        return Verdict("growth of the resident set from the first tenth of a long run to its end", "at most 1.1")
    [run] = runs
    return _ratio(
        f"growth of the resident set from {run.messages // 10:,} to {run.messages:,} messages",
        run.ratio,
        most=_MEMORY_GROWTH,
    )
