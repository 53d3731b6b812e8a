"""`python -m pipeline bench`: rounds of all contestants on one stream, and what they cost relative to each other."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
from rich.console import Console

from pipeline.bench import instructions, orders
from pipeline.bench.arena import Arena, BenchFailed, Job, Runs
from pipeline.bench.contestants import CONTESTANTS, WHOLE
from pipeline.bench.report import Setting, as_json, progress_line, show
from pipeline.bench.stream import MIXES
from pipeline.bench.summary import Outcome
from pipeline.bench.targets import (
    CONNECTIONS,
    FLOOD_PER_S,
    INSTRUMENTS,
    MEMORY_MESSAGES,
    STEADY_PER_S,
    WORKERS,
    Results,
)

_WIDTH = 120
"""Columns of a report that goes to a file."""
_LATENCY_SECONDS = 5.0
_LAP = 100_000
"""Messages after which a long run's stream is gone over again."""
_MARKS = 10
_DIMENSIONS = ("instruments", "connections")
_PARTS = ("split", "stages")
_SHARED = ("ours", "floor")
"""Who is measured with several processes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the benchmark."""
    parser.add_argument("--mix", choices=MIXES, default="bybit", help="what the stream consists of (bybit)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; all that is measured takes turns in each (5)")
    parser.add_argument("--messages", type=int, default=50_000, help="messages per run, a fifth of them to warm up")
    parser.add_argument("--instruments", type=int, default=50, help="instruments in the stream (50)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the stream (1)")
    parser.add_argument(
        "--kafka",
        metavar="mock|real|HOST:PORT",
        help="librdkafka's mock cluster, a broker of the test suite's own, or one that runs (mock; for targets real)",
    )
    parser.add_argument("--plain", action="store_true", help="no TLS; leaves out what cannot do without")
    parser.add_argument(
        "--decimals", type=_names("text", "decimal"), default=("text",), metavar="text,decimal", help="one or both"
    )
    parser.add_argument(
        "--contestants",
        type=_names(*CONTESTANTS),
        metavar="NAME,…",
        help=f"of {', '.join(CONTESTANTS)} (all that go the whole way: {', '.join(WHOLE)})",
    )
    parser.add_argument("--no-throughput", action="store_true", help="leave out the costs flat out")
    parser.add_argument("--stages", action="store_true", help="show where the cost of a message goes")
    parser.add_argument(
        "--latency", type=_numbers, metavar="RATE,…", default=(), help="measure latency at these messages per second"
    )
    parser.add_argument("--burst", type=int, default=1, help="with --latency: messages that are sent at once (1)")
    parser.add_argument(
        "--scale",
        type=_scale,
        action="append",
        metavar="instruments=N,… or connections=N,…",
        help="show the cost at these sizes; may be given twice",
    )
    parser.add_argument(
        "--memory", type=int, metavar="N", help=f"show the resident memory over a run of N messages (of {_LAP:,} each)"
    )
    parser.add_argument(
        "--workers", type=_numbers, metavar="N,…", default=(), help="show the throughput of so many processes together"
    )
    parser.add_argument(
        "--pin", action="store_true", help="what is measured has a core of its own, and all else shares the others"
    )
    parser.add_argument(
        "--orders",
        action="store_true",
        help="measure order entry beside a bare consume-and-send loop, and nothing else",
    )
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count processor instructions under Valgrind instead of time: alike on a fast and on a slow machine",
    )
    parser.add_argument("--targets", action="store_true", help="measure all that there is a target for, and judge it")
    parser.add_argument("--profile", metavar="FILE", help="write a profile of this service, which costs extra, and end")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(*known: str) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        return found

    return names


def _scale(text: str) -> tuple[str, tuple[int, ...]]:
    dimension, _, sizes = text.partition("=")
    if dimension not in _DIMENSIONS:
        raise argparse.ArgumentTypeError(f"{text}: give {' or '.join(f'{each}=N,…' for each in _DIMENSIONS)}")
    return dimension, _numbers(sizes)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print what it has shown; returns 1 if a run has failed, but not of those for targets.

    Raises `BenchFailed` when there is nothing to run on.
    """
    console, progress = Console(width=None if sys.stdout.isatty() else _WIDTH), Console(stderr=True, soft_wrap=True)

    def tell(text: str) -> None:
        progress.print(text, highlight=False)

    kafka = arguments.kafka or ("real" if arguments.targets else "mock")
    setting = Setting(
        arguments.mix,
        MIXES[arguments.mix].what,
        arguments.messages,
        arguments.instruments,
        arguments.rounds,
        arguments.seed,
        "plain" if arguments.plain else "TLS, one record per message",
        kafka,
        arguments.decimals,
        platform.python_version(),
        os.cpu_count() or 0,
        arguments.pin,
    )
    with ExitStack() as stack:
        arena = Arena.open(
            stack,
            mix=arguments.mix,
            seed=arguments.seed,
            kafka=kafka,
            is_plain=arguments.plain,
            is_pinned=arguments.pin,
        )
        if arguments.orders:
            return orders.measure(
                arena, arguments.rounds, kafka=kafka, console=console, is_json=arguments.json, tell=tell
            )
        plan = Plan.of(arguments, tell)
        if arguments.instructions:
            jobs = plan.throughput
            return instructions.measure(arena, jobs, str(setting), console=console, is_json=arguments.json, tell=tell)
        if arguments.profile:
            arena.run(attrs.evolve(plan.job("ours"), profile=str(Path(arguments.profile).resolve())))
            return 0
        results = plan.carry_out(arena, arguments.rounds)
    if arguments.json:
        console.print_json(json.dumps(as_json(setting, results, with_targets=arguments.targets)))
    else:
        show(console, setting, results, with_targets=arguments.targets)
    return 1 if results.failures and not arguments.targets else 0


@attrs.define
class Plan:
    """All runs of a round by what they are for, and those that are too long to be repeated."""

    arguments: argparse.Namespace
    tell: Callable[[str], None]
    throughput: list[Job] = attrs.field(factory=list)
    latency: list[Job] = attrs.field(factory=list)
    instruments: list[Job] = attrs.field(factory=list)
    connections: list[Job] = attrs.field(factory=list)
    workers: list[Job] = attrs.field(factory=list)
    memory: list[Job] = attrs.field(factory=list)
    """Run once."""
    failures: list[str] = attrs.field(factory=list, init=False)

    @classmethod
    def of(cls, arguments: argparse.Namespace, tell: Callable[[str], None]) -> Plan:
        """What the options ask for."""
        plan = cls(arguments, tell)
        rates, scales, messages = arguments.latency, dict(arguments.scale or ()), arguments.memory
        workers = arguments.workers
        if arguments.targets:
            rates = rates or (STEADY_PER_S, FLOOD_PER_S)
            scales = {"instruments": INSTRUMENTS, "connections": CONNECTIONS} | scales
            messages = messages or MEMORY_MESSAGES
            workers = workers or WORKERS
        chosen = plan._taking_part(arguments.contestants or WHOLE)
        if arguments.stages:
            chosen = list(dict.fromkeys(["ours", *chosen, *_PARTS]))
        if not arguments.no_throughput:
            plan.throughput = plan._in_forms(plan.job(name) for name in chosen)
        named = arguments.contestants or ("ours", "split", "floor")
        timed = [name for name in plan._taking_part(named) if CONTESTANTS[name].tells_latency]
        for rate in rates:
            job = attrs.evolve(plan.job("ours"), messages=round(rate * _LATENCY_SECONDS), rate=rate)
            jobs = (attrs.evolve(job, contestant=name, burst=arguments.burst) for name in timed)
            plan.latency += plan._in_forms(jobs)
        for size in scales.get("instruments", ()):
            plan.instruments += plan._in_forms([attrs.evolve(plan.job("ours"), instruments=size)])
        for size in scales.get("connections", ()):
            plan.connections += plan._in_forms([attrs.evolve(plan.job("ours"), connections=size)])
        for count in workers:
            shared = attrs.evolve(plan.job("ours"), messages=2 * arguments.messages, workers=count, is_even=True)
            plan.workers += [attrs.evolve(shared, contestant=name) for name in plan._taking_part(_SHARED)]
        if messages:
            long = attrs.evolve(plan.job("ours"), messages=messages, lap=_LAP, marks=_MARKS)
            plan.memory = plan._in_forms([long])
        return plan

    def job(self, contestant: str) -> Job:
        """A run flat out."""
        arguments = self.arguments
        return Job(contestant=contestant, messages=arguments.messages, instruments=arguments.instruments)

    def carry_out(self, arena: Runs, rounds: int) -> Results:
        """Run all of it, in rounds; goes on when a run fails."""
        found: dict[str, list[Outcome]] = {}
        for number in range(1, rounds + 1):
            for part in ("throughput", "latency", *_DIMENSIONS, "workers"):
                found.setdefault(part, []).extend(self._run(arena, number, getattr(self, part)))
        found["memory"] = self._run(arena, 1, self.memory)
        return Results(**found, failures=self.failures)

    def _run(self, arena: Runs, number: int, jobs: Iterable[Job]) -> list[Outcome]:
        outcomes = []
        for job in jobs:
            try:
                outcome = Outcome(number, job, arena.run(job))
            except BenchFailed as error:  # what an hour of other runs has shown is not thrown away for it
                self.failures.append(f"round {number}: {error}")
                self.tell(self.failures[-1])
            else:
                self.tell(progress_line(outcome))
                outcomes.append(outcome)
        return outcomes

    def _taking_part(self, names: Sequence[str]) -> list[str]:
        arguments = self.arguments
        chosen = []
        for contestant in map(CONTESTANTS.__getitem__, names):
            if contestant.missing:
                self.tell(f"without {contestant.name}: {', '.join(contestant.missing)} not installed, see `make bench`")
            elif MIXES[arguments.mix].venue not in contestant.venues or (arguments.plain and contestant.needs_tls):
                self.tell(f"without {contestant.name}: cannot take part in this setting")
            else:
                chosen.append(contestant.name)
        return chosen

    def _in_forms(self, jobs: Iterable[Job]) -> list[Job]:
        """Each of ours in every form of decimals that is asked for; the others know but one."""
        return [
            attrs.evolve(job, decimals=form)
            for job in jobs
            for form in (self.arguments.decimals if CONTESTANTS[job.contestant].is_ours else ("text",))
        ]
