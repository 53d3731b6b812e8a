"""`python -m pipeline bench`: rounds of all contestants on one stream, and what they cost relative to each other."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from pipeline.bench.contestants import CONTESTANTS, Contestant
from pipeline.bench.load import LoadSettings
from pipeline.bench.measure import Figures, Task
from pipeline.bench.report import Outcome, Setting, as_json, show
from pipeline.bench.stream import MIXES, messages
from pipeline.model.errors import PipelineError

_RUN_WITHIN_S = 180.0
_WARM_SHARE = 0.2
_WIDTH = 120
"""Columns of a report that goes to a file."""
_LATENCY_SECONDS = 5.0
_AGE_MS = 600_000
"""How long ago the stream begins by the exchange's time: its end must not be in the broker's future."""


class BenchFailed(PipelineError):
    """A process of the benchmark failed; the text has its last words."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the benchmark."""
    parser.add_argument("--mix", choices=MIXES, default="bybit", help="what the stream consists of (bybit)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the contestants take turns in each (5)")
    parser.add_argument("--messages", type=int, default=50_000, help="messages per run, a fifth of them to warm up")
    parser.add_argument("--instruments", type=int, default=50, help="instruments in the stream (50)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the stream (1)")
    parser.add_argument(
        "--kafka",
        default="mock",
        metavar="mock|real|HOST:PORT",
        help="librdkafka's mock cluster, a broker of the test suite's own, or one that runs (mock)",
    )
    parser.add_argument("--plain", action="store_true", help="no TLS; leaves out what cannot do without")
    parser.add_argument("--decimals", choices=("text", "decimal"), default="text", help="as in the configuration")
    parser.add_argument(
        "--contestants", default=",".join(CONTESTANTS), metavar="NAME,…", help=f"of {', '.join(CONTESTANTS)} (all)"
    )
    parser.add_argument(
        "--latency", type=_rates, metavar="RATE,…", default=(), help="measure latency at these messages per second"
    )
    parser.add_argument("--burst", type=int, default=1, help="with --latency: messages that are sent at once (1)")
    parser.add_argument("--profile", metavar="FILE", help="write a profile of this service, which costs extra, and end")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _rates(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print the table; raises `BenchFailed`."""
    console, progress = Console(width=None if sys.stdout.isatty() else _WIDTH), Console(stderr=True, soft_wrap=True)
    chosen = _choose(arguments, progress)
    setting = Setting(
        MIXES[arguments.mix].what,
        arguments.messages,
        arguments.instruments,
        arguments.seed,
        "plain" if arguments.plain else "TLS, one record per message",
        arguments.kafka,
        arguments.decimals,
        platform.python_version(),
    )
    with ExitStack() as stack:
        bench = _Bench.open(stack, arguments)
        if arguments.profile:
            [profiled] = [each for each in chosen if each.name == "ours"] or [CONTESTANTS["ours"]]
            bench.flat_out(profiled, profile=str(Path(arguments.profile).resolve()))
            return 0
        throughput = []
        for number in range(arguments.rounds):
            for contestant in chosen:
                figures = bench.flat_out(contestant)
                throughput.append(Outcome(contestant.name, None, figures))
                progress.print(
                    f"round {number + 1}: {contestant.name:<10} {figures.cost_us:6.1f} µs per message, "
                    f"calibration {figures.calibration_s * 1e3:.1f} ms",
                    highlight=False,
                )
        latency = [
            Outcome(contestant.name, rate, bench.paced(contestant, rate, arguments.burst))
            for rate in arguments.latency
            for contestant in chosen
            if contestant.name in ("ours", "floor")
        ]
    if arguments.json:
        console.print_json(json.dumps(as_json(setting, throughput, latency)))
    else:
        show(console, setting, throughput, latency)
    return 0


def _choose(arguments: argparse.Namespace, progress: Console) -> list[Contestant]:
    names = arguments.contestants.split(",")
    if unknown := [name for name in names if name not in CONTESTANTS]:
        raise BenchFailed(f"no such contestant: {', '.join(unknown)}; there are {', '.join(CONTESTANTS)}")
    chosen = []
    for contestant in map(CONTESTANTS.__getitem__, names):
        if contestant.missing:
            progress.print(
                f"without {contestant.name}: {', '.join(contestant.missing)} not installed, see `make bench`"
            )
        elif MIXES[arguments.mix].venue not in contestant.venues or (arguments.plain and contestant.needs_tls):
            progress.print(f"without {contestant.name}: cannot take part in this setting")
        else:
            chosen.append(contestant)
    return chosen


@attrs.define
class _Bench:
    arguments: argparse.Namespace
    folder: Path
    kafka: str
    certificate: Path
    authority: Path
    _runs: int = 0

    @classmethod
    def open(cls, stack: ExitStack, arguments: argparse.Namespace) -> _Bench:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-bench-")))
        kafka = arguments.kafka
        if kafka == "mock":
            kafka = stack.enter_context(_process("pipeline.bench.mock_kafka"))
        elif kafka == "real":
            kafka = stack.enter_context(_real_broker(folder / "kafka"))
        certificate, authority = folder / "server.pem", folder / "authority.pem"
        _certify(certificate, authority)
        return cls(arguments, folder, kafka, certificate, authority)

    def flat_out(self, contestant: Contestant, profile: str | None = None) -> Figures:
        """As fast as it takes the messages."""
        return self._run(contestant, self.arguments.messages, profile=profile)

    def paced(self, contestant: Contestant, rate: int, burst: int) -> Figures:
        """For some seconds at this rate."""
        return self._run(contestant, round(rate * _LATENCY_SECONDS), rate=float(rate), burst=burst)

    def _run(
        self,
        contestant: Contestant,
        count: int,
        *,
        rate: float | None = None,
        burst: int = 1,
        profile: str | None = None,
    ) -> Figures:
        arguments, mix = self.arguments, MIXES[self.arguments.mix]
        self._runs += 1
        folder = self.folder / str(self._runs)
        folder.mkdir()
        stream, total = self._stream(count)
        moments = folder / "moments" if rate else None
        load = LoadSettings(
            mix.venue,
            str(stream),
            arguments.instruments,
            str(self.certificate),
            rate,
            burst,
            str(moments) if moments else None,
        )
        with _process("pipeline.bench.load", json.dumps(attrs.asdict(load))) as port:
            task = Task(
                name=contestant.name,
                venue=mix.venue,
                websocket=f"{'ws' if arguments.plain else 'wss'}://localhost:{port}",
                rest=f"http://localhost:{port}",
                ca_file=str(self.authority),
                kafka=self.kafka,
                create_topics=arguments.kafka != "mock",
                channels=mix.channels,
                instruments=arguments.instruments,
                warm=round(total * _WARM_SHARE),
                messages=total,
                folder=str(folder),
                decimals=arguments.decimals,
                moments=str(moments) if moments else None,
                profile=profile,
            )
            return _measured(task)

    def _stream(self, count: int) -> tuple[Path, int]:
        """A file with the stream, and how many messages are in it."""
        path = self.folder / f"stream-{count}.jsonl"
        arguments = self.arguments
        if not path.exists():
            start_ms = int(time.time()) * 1000 - _AGE_MS
            mix, seed = MIXES[arguments.mix], arguments.seed
            path.write_bytes(b"\n".join(messages(mix, count, arguments.instruments, seed, start_ms)))
        with path.open("rb") as file:
            return path, sum(1 for _ in file)


def _measured(task: Task) -> Figures:
    command = [sys.executable, "-m", "pipeline.bench.contestants", json.dumps(attrs.asdict(task))]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_RUN_WITHIN_S, check=True)
    except subprocess.CalledProcessError as error:
        raise BenchFailed(f"{task.name} failed:\n{_tail(error.stderr.decode('utf-8', 'replace'))}") from None
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"{task.name} did not end within {_RUN_WITHIN_S:g} s:\n{_tail(error.stderr)}") from None
    fields: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Figures(**{**fields, "latencies_us": tuple(fields["latencies_us"])})


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[str]:
    """A process of ours that prints one line, which is yielded, and ends with its standard input."""
    command: Sequence[str] = (sys.executable, "-m", module, *arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            if not line:
                raise BenchFailed(f"{module} did not start: exit code {process.wait()}")
            yield line
        finally:
            process.stdin.close()
            process.terminate()


@contextmanager
def _real_broker(folder: Path) -> Iterator[str]:
    try:
        from tests.services import KafkaBroker
    except ImportError as error:
        raise BenchFailed(f"--kafka real needs what `make bench` installs: {error}") from None
    # cryptofeed has a topic per instrument and does not create them.
    with KafkaBroker(folder, {"auto.create.topics.enable": "true"}) as broker:
        yield broker.bootstrap


def _certify(certificate: Path, authority: Path) -> None:
    try:
        import trustme
    except ImportError as error:
        raise BenchFailed(f"the benchmark needs what `make bench` installs: {error}") from None
    ca = trustme.CA()
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    ca.cert_pem.write_to_path(str(authority))


def _tail(output: bytes | None) -> str:
    return "\n".join((output or b"").decode("utf-8", "replace").splitlines()[-30:])
