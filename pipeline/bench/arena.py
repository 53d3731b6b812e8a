"""Where contestants run: each in a process of its own, with a load generator of its own and one Kafka for all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import attrs

from pipeline.bench.contestants import CONTESTANTS
from pipeline.bench.load import LoadSettings
from pipeline.bench.measure import Figures, Task, create_counts
from pipeline.bench.stream import MIXES, Mix, messages
from pipeline.model.errors import PipelineError

_RUN_WITHIN_S = 180.0
_SLOWEST_PER_S = 2_000
"""No contestant takes fewer messages per second than this, however busy the machine."""
_COUNTED_SLOWER = 60
_INSTRUCTIONS = re.compile(r"\bI\s+refs:\s+([\d,]+)")
_WARM_SHARE = 0.2
_AGE_MS = 600_000
"""How long ago the stream begins by the exchange's time: its end must not be in the broker's future."""
_RECORDED_STEP_MS = 110
_STEP_MS = 2
"""By how much one instrument's time advances per message, at most."""


class BenchFailed(PipelineError):
    """A process of the benchmark failed; the text has its last words."""


@attrs.frozen(kw_only=True)
class Job:
    """One run."""

    contestant: str
    messages: int
    """Beside the snapshots that come first."""
    instruments: int
    decimals: str = "text"
    rate: int | None = None
    """Messages per second offered; None is flat out."""
    burst: int = 1
    """Messages that leave at the same moment, when there is a rate."""
    connections: int = 1
    """How many the instruments are spread over, at least."""
    lap: int | None = None
    """After how many messages the stream is gone over again, numbered on; None: never."""
    marks: int = 0
    """How often to note the resident memory on the way."""
    profile: str | None = None
    """Where to write a profile."""
    workers: int = 1
    """Processes that share the stream between them."""
    is_even: bool = False
    """Whether all instruments bring as much, so that the shares are alike."""
    is_counted: bool = False
    """Whether to count instructions, which takes many times as long."""

    @property
    def name(self) -> str:
        """Of the contestant, with the form of its decimals unless it is the default."""
        return self.contestant if self.decimals == "text" else f"{self.contestant}/{self.decimals}"


class Runs(Protocol):
    """Where jobs run; an `Arena` in earnest."""

    def run(self, job: Job) -> Figures:
        """Raises `BenchFailed`."""


@attrs.define
class Arena:
    """Runs jobs on one mix of messages; `open` makes one."""

    mix: Mix
    seed: int
    is_plain: bool
    has_topics: bool
    """Whether topics have to be created: not in a mock cluster, which has all that are asked for."""
    folder: Path
    kafka: str
    """Bootstrap address."""
    certificate: Path
    authority: Path
    core: int | None = None
    """What is measured has this one for itself; None: whatever it is given."""
    _runs: int = 0

    @classmethod
    def open(
        cls, stack: ExitStack, *, mix: str, seed: int, kafka: str, is_plain: bool, is_pinned: bool = False
    ) -> Arena:
        """Provide Kafka (`mock`, `real`, or the address of one that runs) and certificates. Raises `BenchFailed`.

        `is_pinned`: what is measured has a core of its own, this process and all others it starts have the rest.
        """
        core = stack.enter_context(_core_apart()) if is_pinned else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-bench-")))
        certificate, authority = folder / "server.pem", folder / "authority.pem"
        _certify(certificate, authority)
        address = kafka
        if kafka == "mock":
            address = stack.enter_context(process("pipeline.bench.mock_kafka"))
        elif kafka == "real":
            address = stack.enter_context(_real_broker(folder / "kafka"))
        return cls(MIXES[mix], seed, is_plain, kafka != "mock", folder, address, certificate, authority, core)

    def run(self, job: Job) -> Figures:
        """Raises `BenchFailed`."""
        self._runs += 1
        folder = self.folder / str(self._runs)
        folder.mkdir()
        stream, total = self._stream(job)
        moments = str(folder / "moments") if job.rate else None
        rate = float(job.rate) if job.rate else None
        load = LoadSettings(
            self.mix.venue, str(stream), total, job.instruments, str(self.certificate), rate, job.burst, moments
        )
        topics = job.instruments * len(self.mix.channels)
        with process("pipeline.bench.load", json.dumps(attrs.asdict(load))) as port:
            task = Task(
                name=job.contestant,
                venue=self.mix.venue,
                websocket=f"{'ws' if self.is_plain else 'wss'}://localhost:{port}",
                rest=f"http://localhost:{port}",
                ca_file=str(self.authority),
                kafka=self.kafka,
                create_topics=self.has_topics,
                channels=self.mix.channels,
                instruments=job.instruments,
                warm=round(total * _WARM_SHARE),
                messages=total,
                folder=str(folder),
                stream=str(stream),
                topics_per_connection=-(-topics // job.connections) if job.connections > 1 else None,
                decimals=job.decimals,
                rate=rate,
                moments=moments,
                marks=job.marks,
                profile=job.profile,
                core=self.core,
            )
            within_s = _RUN_WITHIN_S + total / _SLOWEST_PER_S + (total / rate if rate else 0.0)
            if job.is_counted:
                return _counted(task, within_s)
            if job.workers == 1:
                return _measured(task, within_s)
            create_counts(folder / "counts", job.workers)
            workers = [
                attrs.evolve(task, worker=number, workers=job.workers, counts=str(folder / "counts"))
                for number in range(job.workers)
            ]
            with ThreadPoolExecutor(job.workers) as pool:
                return Figures.together(list(pool.map(_measured, workers, [within_s] * job.workers)))

    def _stream(self, job: Job) -> tuple[Path, int]:
        """A file with a lap of the stream, and how many messages to send in all."""
        lap = min(job.lap or job.messages, job.messages)
        path = self.folder / f"stream-{job.instruments}-{lap}-{job.messages}-{job.is_even}.jsonl"
        if not path.exists():
            step_ms = _RECORDED_STEP_MS if self.mix.is_recorded else _STEP_MS
            start_ms = int(time.time()) * 1000 - _AGE_MS - job.messages * step_ms
            stream = messages(self.mix, lap, job.instruments, self.seed, start_ms, is_even=job.is_even)
            path.write_bytes(b"\n".join(stream))
        with path.open("rb") as file:
            count = sum(1 for _ in file)
        return path, count if lap == job.messages else job.messages


def _counted(task: Task, within_s: float) -> Figures:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise BenchFailed("instructions are counted by Valgrind, which is not installed (most systems: `valgrind`)")
    log = Path(task.folder) / "valgrind"
    options = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", f"--log-file={log}")
    figures = _measured(task, within_s * _COUNTED_SLOWER, (valgrind, *options))
    found = _INSTRUCTIONS.search(log.read_text("utf-8", "replace"))
    if found is None:
        raise BenchFailed(f"Valgrind tells no instructions:\n{tail(log.read_bytes())}")
    return attrs.evolve(figures, instructions=int(found[1].replace(",", "")))


def _measured(task: Task, within_s: float, under: Sequence[str] = ()) -> Figures:
    command = [*under, sys.executable, "-m", "pipeline.bench.contestants", json.dumps(attrs.asdict(task))]
    title = CONTESTANTS[task.name].title
    try:
        done = subprocess.run(command, capture_output=True, timeout=within_s, check=True)
    except subprocess.CalledProcessError as error:
        raise BenchFailed(f"{title} failed:\n{tail(error.stderr)}") from None
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"{title} did not end within {within_s:.0f} s:\n{tail(error.stderr)}") from None
    return Figures.read(done.stdout.splitlines()[-1])


@contextmanager
def _core_apart() -> Iterator[int]:
    """One of our cores, which we leave meanwhile; so does whatever is started, unless it goes there by itself."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        raise BenchFailed("there is only one core: none can be set apart")
    os.sched_setaffinity(0, cores - {min(cores)})
    try:
        yield min(cores)
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def process(module: str, *arguments: str) -> Iterator[str]:
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


def tail(output: bytes | None) -> str:
    """The last words of a process."""
    return "\n".join((output or b"").decode("utf-8", "replace").splitlines()[-30:])
