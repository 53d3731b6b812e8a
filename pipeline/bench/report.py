"""The benchmark's result as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from pipeline.bench.contestants import CONTESTANTS
from pipeline.bench.measure import Figures


@attrs.frozen
class Setting:
    """What was measured."""

    stream: str
    messages: int
    instruments: int
    seed: int
    transport: str
    kafka: str
    decimals: str
    python: str


@attrs.frozen
class Outcome:
    """One run."""

    contestant: str
    rate: int | None
    """Messages per second offered; None is flat out."""
    figures: Figures


@attrs.frozen
class Summary:
    """One contestant's runs, flat out."""

    contestant: str
    cost_us: float
    """Median."""
    least_us: float
    per_core_second: float
    ratio: float
    """Its cost per message in that of this service, the median over the rounds."""
    records_per_message: float
    peak_mib: float


def summarize(outcomes: Sequence[Outcome]) -> list[Summary]:
    """In the order of appearance; ratios are taken within each round, where conditions are most alike."""
    by_name: dict[str, list[Figures]] = {}
    for outcome in outcomes:
        by_name.setdefault(outcome.contestant, []).append(outcome.figures)
    reference = by_name.get("ours") or next(iter(by_name.values()), [])
    found = []
    for name, runs in by_name.items():
        costs = [run.cost_us for run in runs]
        ratios = [run.cost_us / ours.cost_us for run, ours in zip(runs, reference, strict=False)]
        found.append(
            Summary(
                name,
                median(costs),
                min(costs),
                1e6 / median(costs),
                median(ratios),
                median(run.records for run in runs),
                median(run.peak_mib for run in runs),
            )
        )
    return found


def as_json(setting: Setting, throughput: Sequence[Outcome], latency: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, runs included."""
    return {
        "setting": attrs.asdict(setting),
        "summary": [attrs.asdict(each) for each in summarize(throughput)],
        "calibration_ms": calibrations(throughput),
        "runs": [attrs.asdict(each) for each in (*throughput, *latency)],
    }


def calibrations(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """How much the machine's own speed varied between the runs."""
    values = [outcome.figures.calibration_s * 1e3 for outcome in outcomes] or [0.0]
    return {"min": min(values), "median": median(values), "max": max(values)}


def show(console: Console, setting: Setting, throughput: Sequence[Outcome], latency: Sequence[Outcome]) -> None:
    """Print the tables."""
    console.print(
        f"{setting.stream}; {setting.messages:,} messages of {setting.instruments} instruments, {setting.transport}; "
        f"Kafka: {setting.kafka}; decimals: {setting.decimals}; Python {setting.python}",
        highlight=False,
    )
    if throughput:
        console.print(_throughput(throughput))
        speed = calibrations(throughput)
        console.print(
            f"Processor time per message of the whole process, threads included; calibration loop "
            f"{speed['min']:.1f} to {speed['max']:.1f} ms, median {speed['median']:.1f}.",
            highlight=False,
        )
    if latency:
        console.print(_latency(latency))


def _throughput(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Cost of a message, flat out", title_justify="left", box=None, header_style="dim")
    table.add_column("contestant", no_wrap=True)
    for title in ("µs median", "µs min", "messages/core-s", "ours = 1", "records/msg", "peak MiB"):
        table.add_column(title, justify="right")
    for each in summarize(outcomes):
        table.add_row(
            CONTESTANTS[each.contestant].title,
            f"{each.cost_us:.1f}",
            f"{each.least_us:.1f}",
            f"{each.per_core_second:,.0f}",
            f"{each.ratio:.2f}",
            f"{each.records_per_message:.2f}",
            f"{each.peak_mib:.0f}",
        )
    return table


def _latency(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="From sent to handed to Kafka, ms", title_justify="left", box=None, header_style="dim")
    table.add_column("contestant", no_wrap=True)
    for title in ("messages/s offered", "p50", "p99", "p99.9", "core used"):
        table.add_column(title, justify="right")
    for outcome in outcomes:
        figures = outcome.figures
        table.add_row(
            CONTESTANTS[outcome.contestant].title,
            f"{outcome.rate:,}",
            *(f"{value / 1000:.2f}" for value in figures.latencies_us),
            f"{figures.cpu_s / figures.wall_s:.0%}",
        )
    return table
