"""What the runs amount to. Pure arithmetic: medians over rounds, and ratios within each round.

Machines change their speed by the minute. Two runs of one round are close in time, so a ratio is taken within each
round, and the median of these is what is told; the ratio of two medians would compare different minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import attrs

from pipeline.bench.arena import Job
from pipeline.bench.measure import Figures

STAGES = {
    "split": "TLS, frames and Trio: our reader alone",
    "session": "heartbeats and answers taken out",
    "normalize": "decoded and normalized",
    "book": "order books",
    "encode": "Avro",
    "produce": "handed to librdkafka",
    "reports": "delivery reports",
    "kafka_threads": "librdkafka's threads",
}
REST = "rest"
"""What the whole path costs beyond the sum of its stages."""


@attrs.frozen
class Outcome:
    """One run."""

    round: int
    job: Job
    figures: Figures

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {"round": self.round, **attrs.asdict(self.job), "figures": attrs.asdict(self.figures)}


@attrs.frozen
class Cost:
    """One contestant's runs, flat out."""

    contestant: str
    cost_us: float
    """Median."""
    least_us: float
    per_core_second: float
    ratio: float
    """Its cost per message in that of the first contestant, which is this service unless that is left out."""
    to_floor: float | None
    """The same in that of the floor, if that took part."""
    records_per_message: float
    peak_mib: float


@attrs.frozen
class Paced:
    """One contestant's runs at one rate; medians."""

    contestant: str
    rate: int
    p50_us: float
    p99_us: float
    p999_us: float
    sent_per_s: float
    core_share: float
    backlog_max: float
    backlog_final: float
    waited_share: float
    """Of the time, in which the event loop's thread was ready to run and was given no core."""


@attrs.frozen
class Scaled:
    """The cost at one size."""

    contestant: str
    dimension: str
    value: int
    cost_us: float
    ratio: float
    """In that of the first size."""


@attrs.frozen
class Crew:
    """What several processes take together."""

    contestant: str
    workers: int
    per_s: float
    """Messages by the clock, median."""
    ratio: float
    """In those of the first number of processes."""
    core_share: float
    """Cores that they kept busy."""


@attrs.frozen
class Stage:
    """A part of the way of a message."""

    name: str
    least_us: float
    share: float
    """Of the whole."""


@attrs.frozen
class Memory:
    """How the resident set of one long run developed."""

    contestant: str
    messages: int
    resident_mib: tuple[float, ...]
    """At equal distances, the last one at the end."""

    @property
    def ratio(self) -> float:
        """The end in terms of the first mark; 0 if there are no marks."""
        return self.resident_mib[-1] / self.resident_mib[0] if self.resident_mib and self.resident_mib[0] else 0.0


def costs(outcomes: Sequence[Outcome]) -> list[Cost]:
    """Contestants in the order of appearance."""
    names = list(dict.fromkeys(each.job.name for each in outcomes))
    reference = "ours" if "ours" in names else names[0] if names else ""
    found = []
    for name in names:
        runs = [each.figures for each in outcomes if each.job.name == name]
        cost = median(run.cost_us for run in runs)
        found.append(
            Cost(
                name,
                cost,
                min(run.cost_us for run in runs),
                1e6 / cost,
                cost_ratio(outcomes, name, reference) or 0.0,
                cost_ratio(outcomes, name, "floor"),
                median(run.records for run in runs),
                median(run.peak_mib for run in runs),
            )
        )
    return found


def cost_ratio(outcomes: Sequence[Outcome], of: str, to: str) -> float | None:
    """The median over the rounds of one contestant's cost in the other's; None if they never met."""
    return _over_rounds(_named(outcomes, of), _named(outcomes, to), lambda one, other: one.cost_us / other.cost_us)


def p99_difference_us(outcomes: Sequence[Outcome], of: str, to: str, rate: int) -> float | None:
    """The median over the rounds of the difference in p99 at this rate; None if they never met."""
    at_rate = [each for each in outcomes if each.job.rate == rate]
    return _over_rounds(
        _named(at_rate, of), _named(at_rate, to), lambda one, other: one.latencies_us[1] - other.latencies_us[1]
    )


def paced(outcomes: Sequence[Outcome]) -> list[Paced]:
    """By rate and contestant, in the order of appearance."""
    found = []
    for rate, name in dict.fromkeys((each.job.rate, each.job.name) for each in outcomes):
        runs = [each.figures for each in outcomes if (each.job.rate, each.job.name) == (rate, name)]
        p50, p99, p999 = (median(run.latencies_us[at] for run in runs) for at in range(3))
        found.append(
            Paced(
                name,
                rate or 0,
                p50,
                p99,
                p999,
                median(run.sent_per_s for run in runs),
                median(run.cpu_s / run.wall_s for run in runs),
                median(run.backlog_max for run in runs),
                median(run.backlog_final for run in runs),
                median(run.waited_s / run.wall_s for run in runs),
            )
        )
    return found


def scaled(outcomes: Sequence[Outcome], dimension: str) -> list[Scaled]:
    """By size (`instruments` or `connections`) and contestant, in the order of appearance."""
    found = []
    for name in dict.fromkeys(each.job.name for each in outcomes):
        own = _named(outcomes, name)
        values = list(dict.fromkeys(getattr(each.job, dimension) for each in own))
        first = [each for each in own if getattr(each.job, dimension) == values[0]]
        for value in values:
            runs = [each for each in own if getattr(each.job, dimension) == value]
            ratio = _over_rounds(runs, first, lambda one, other: one.cost_us / other.cost_us)
            cost = median(each.figures.cost_us for each in runs)
            found.append(Scaled(name, dimension, value, cost, ratio or 0.0))
    return found


def crews(outcomes: Sequence[Outcome]) -> list[Crew]:
    """By contestant and number of processes, in the order of appearance."""
    found = []
    for name in dict.fromkeys(each.job.name for each in outcomes):
        own = _named(outcomes, name)
        counts = list(dict.fromkeys(each.job.workers for each in own))
        first = [each for each in own if each.job.workers == counts[0]]
        for count in counts:
            runs = [each for each in own if each.job.workers == count]
            ratio = _over_rounds(runs, first, lambda one, other: one.per_s / other.per_s)
            per_s = median(each.figures.per_s for each in runs)
            cores = median(each.figures.cpu_s / each.figures.wall_s for each in runs)
            found.append(Crew(name, count, per_s, ratio or 0.0, cores))
    return found


def stages(outcomes: Sequence[Outcome], decimals: str = "text") -> list[Stage]:
    """The least of each stage over the rounds, and what is left of the least that the whole path took.

    Empty unless the service, its reader alone and its stages have all been run.
    """
    suffix = "" if decimals == "text" else f"/{decimals}"
    whole, reader, parts = (_named(outcomes, name) for name in (f"ours{suffix}", "split", f"stages{suffix}"))
    if not (whole and reader and parts):
        return []
    total = min(each.figures.cost_us for each in whole)
    least = {"split": min(each.figures.cost_us for each in reader)}
    for name in list(STAGES)[1:]:
        least[name] = min(each.figures.stages_us.get(name, 0.0) for each in parts)
    least[REST] = total - sum(least.values())
    return [Stage(name, value, value / total) for name, value in least.items()]


def memory(outcomes: Iterable[Outcome]) -> list[Memory]:
    """Of each run that noted it."""
    return [
        Memory(each.job.name, each.job.messages, each.figures.resident_mib)
        for each in outcomes
        if each.figures.resident_mib
    ]


def calibrations(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """How much the machine's own speed varied between the runs, in milliseconds."""
    values = [outcome.figures.calibration_s * 1e3 for outcome in outcomes] or [0.0]
    return {"min": min(values), "median": median(values), "max": max(values)}


def _named(outcomes: Iterable[Outcome], name: str) -> list[Outcome]:
    return [each for each in outcomes if each.job.name == name]


def _over_rounds(
    one: Iterable[Outcome], other: Iterable[Outcome], compare: Callable[[Figures, Figures], float]
) -> float | None:
    others = {each.round: each.figures for each in other}
    values = [compare(each.figures, others[each.round]) for each in one if each.round in others]
    return median(values) if values else None
