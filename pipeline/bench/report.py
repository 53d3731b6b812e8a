"""The benchmark's result as tables, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from pipeline.bench.contestants import CONTESTANTS
from pipeline.bench.summary import (
    REST,
    STAGES,
    Memory,
    Outcome,
    Scaled,
    Stage,
    calibrations,
    costs,
    crews,
    memory,
    paced,
    scaled,
    stages,
)
from pipeline.bench.targets import Results, Verdict, verdicts


@attrs.frozen
class Setting:
    """What was measured, and where."""

    mix: str
    stream: str
    """What it consists of."""
    messages: int
    instruments: int
    rounds: int
    seed: int
    transport: str
    kafka: str
    decimals: tuple[str, ...]
    python: str
    cores: int
    is_pinned: bool = False
    """Whether what is measured has a core of its own."""

    def __str__(self) -> str:
        return (
            f"{self.stream}; {self.messages:,} messages of {self.instruments} instruments, {self.transport}; "
            f"Kafka: {self.kafka}; decimals: {' and '.join(self.decimals)}; Python {self.python}, {self.cores} cores"
            f"{', one set apart' if self.is_pinned else ''}; "
            f"rounds: {self.rounds}"
        )


def as_json(setting: Setting, results: Results, *, with_targets: bool) -> dict[str, Any]:
    """Everything, runs included; parts that were not measured are empty."""
    scales = [*scaled(results.instruments, "instruments"), *scaled(results.connections, "connections")]
    document = {
        "setting": attrs.asdict(setting),
        "summary": [attrs.asdict(each) for each in costs(_whole(results.throughput))],
        "stages": {form: [attrs.asdict(each) for each in found] for form, found in _staged(setting, results)},
        "latency": [attrs.asdict(each) for each in paced(results.latency)],
        "scale": [attrs.asdict(each) for each in scales],
        "workers": [attrs.asdict(each) for each in crews(results.workers)],
        "memory": [{**attrs.asdict(each), "ratio": each.ratio} for each in memory(results.memory)],
        "calibration_ms": calibrations(results.all),
        "runs": [each.as_json() for each in results.all],
        "failures": list(results.failures),
    }
    if with_targets:
        document["targets"] = {
            form: [attrs.asdict(each) for each in verdicts(results, form)] for form in setting.decimals
        }
    return document


def show(console: Console, setting: Setting, results: Results, *, with_targets: bool) -> None:
    """Print the tables of what was measured."""
    console.print(str(setting), highlight=False)
    if whole := _whole(results.throughput):
        console.print(_throughput(whole))
    for form, found in _staged(setting, results):
        console.print(_stages(found, form))
    if results.latency:
        console.print(_latency(results.latency))
    for dimension, outcomes in (("instruments", results.instruments), ("connections", results.connections)):
        if outcomes:
            console.print(_scale(scaled(outcomes, dimension), dimension))
    if results.workers:
        console.print(_crews(results.workers))
    for each in memory(results.memory):
        console.print(_memory(each))
    if with_targets:
        for form in setting.decimals:
            console.print(_targets(verdicts(results, form), form))
    if results.failures:
        console.print(f"{len(results.failures)} runs failed and are missing from this.", highlight=False)
    speed = calibrations(results.all)
    console.print(
        "Costs are processor time of the whole process per message, threads included. They are medians of the rounds, "
        "and ratios the medians of those within each round. "
        f"Calibration loop {speed['min']:.1f} to {speed['max']:.1f} ms, median {speed['median']:.1f}.",
        highlight=False,
    )


def progress_line(outcome: Outcome) -> str:
    """One run in a line, to watch."""
    job, figures = outcome.job, outcome.figures
    parts = [f"round {outcome.round}: {job.name:<14} {figures.cost_us:6.1f} µs per message"]
    if job.rate is not None:
        parts.append(f"at {job.rate:,}/s: p99 {figures.latencies_us[1] / 1000:.2f} ms, {figures.backlog_max:,} behind")
    if job.connections > 1:
        parts.append(f"{job.connections} connections")
    if job.workers > 1:
        parts.append(f"{job.workers} processes, {figures.per_s:,.0f}/s together")
    if job.marks:
        parts.append(f"resident {figures.resident_mib[0]:.0f} to {figures.resident_mib[-1]:.0f} MiB")
    parts.append(f"{job.instruments} instruments, calibration {figures.calibration_s * 1e3:.1f} ms")
    return ", ".join(parts)


def title(name: str) -> str:
    """A contestant's, from its name with or without a form of decimals."""
    contestant, _, form = name.partition("/")
    return CONTESTANTS[contestant].title + (f" ({form})" if form else "")


def _whole(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if CONTESTANTS[each.job.contestant].is_whole]


def _staged(setting: Setting, results: Results) -> list[tuple[str, list[Stage]]]:
    return [(form, found) for form in setting.decimals if (found := stages(results.throughput, form))]


def _table(heading: str, first: str, *columns: str) -> Table:
    table = Table(title=heading, title_justify="left", box=None, header_style="dim", min_width=len(heading))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _throughput(outcomes: Sequence[Outcome]) -> Table:
    columns = ("µs", "least µs", "per core-s", "ours = 1", "floor = 1", "records", "peak MiB")
    table = _table("Cost of a message, flat out", "contestant", *columns)
    for each in costs(outcomes):
        table.add_row(
            title(each.contestant),
            f"{each.cost_us:.1f}",
            f"{each.least_us:.1f}",
            f"{each.per_core_second:,.0f}",
            f"{each.ratio:.2f}",
            "" if each.to_floor is None else f"{each.to_floor:.2f}",
            f"{each.records_per_message:.2f}",
            f"{each.peak_mib:.0f}",
        )
    return table


def _stages(found: Sequence[Stage], form: str) -> Table:
    table = _table(f"Where it goes, decimals: {form}", "stage", "µs min", "share")
    for each in found:
        name = "the rest: dispatch, accounting, clocks, tasks" if each.name == REST else STAGES[each.name]
        table.add_row(name, f"{each.least_us:.2f}", f"{each.share:.0%}")
    return table


def _latency(outcomes: Sequence[Outcome]) -> Table:
    columns = ("offered/s", "sent/s", "p50", "p99", "p99.9", "core", "waited", "most behind", "at the end")
    table = _table("From sent to handed to Kafka, ms", "contestant", *columns)
    for each in paced(outcomes):
        table.add_row(
            title(each.contestant),
            f"{each.rate:,}",
            f"{each.sent_per_s:,.0f}",
            *(f"{value / 1000:.2f}" for value in (each.p50_us, each.p99_us, each.p999_us)),
            f"{each.core_share:.0%}",
            f"{each.waited_share:.0%}",
            f"{each.backlog_max:,.0f}",
            f"{each.backlog_final:,.0f}",
        )
    return table


def _scale(found: Sequence[Scaled], dimension: str) -> Table:
    table = _table(f"Cost of a message by {dimension}", "contestant", dimension, "µs median", "first = 1")
    for each in found:
        table.add_row(title(each.contestant), f"{each.value:,}", f"{each.cost_us:.1f}", f"{each.ratio:.2f}")
    return table


def _crews(outcomes: Sequence[Outcome]) -> Table:
    table = _table("Messages per second of several processes", "contestant", "processes", "per s", "first = 1", "cores")
    for each in crews(outcomes):
        table.add_row(
            title(each.contestant),
            str(each.workers),
            f"{each.per_s:,.0f}",
            f"{each.ratio:.2f}",
            f"{each.core_share:.2f}",
        )
    return table


def _memory(found: Memory) -> Table:
    heading = f"Resident memory of {title(found.contestant)}: the end is {found.ratio:.2f} of the first"
    table = _table(heading, "messages", "MiB")
    for number, resident in enumerate(found.resident_mib, 1):
        table.add_row(f"{found.messages * number // len(found.resident_mib):,}", f"{resident:.1f}")
    return table


def _targets(found: Sequence[Verdict], form: str) -> Table:
    table = Table(title=f"Targets, decimals: {form}", title_justify="left", box=None, header_style="dim")
    table.add_column("", no_wrap=True)
    for column in ("what", "target", "figure"):
        table.add_column(column)
    for each in found:
        outcome = {None: "", True: "met", False: "missed"}[each.met]
        table.add_row(f"{outcome}, stretch too" if each.stretch_met else outcome, each.name, each.target, each.shown)
    return table
