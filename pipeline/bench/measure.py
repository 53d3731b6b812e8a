"""What a contestant tells about itself: processor time of its whole process, between two counts of messages."""

from __future__ import annotations

import gc
import json
import mmap
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from pipeline.bench.moments import Moments

POLL_S = 0.02
"""How often a contestant looks at its count: some 0.1 % of its time."""
_CALIBRATION_ROUNDS = 200_000
_COUNT_BYTES = 8


@attrs.frozen(kw_only=True)
class Task:
    """What a contestant is told."""

    name: str
    venue: str
    websocket: str
    """Base URL, without the venue's path."""
    rest: str
    ca_file: str
    kafka: str
    """Bootstrap address."""
    create_topics: bool
    """False for a mock cluster, which makes topics when it is asked for them."""
    channels: tuple[str, ...]
    """Of book, trade and ticker, what the stream has."""
    instruments: int
    warm: int
    """Messages before the measurement."""
    messages: int
    """Messages in all."""
    folder: str
    """For files of its own."""
    stream: str = ""
    """The file with the messages, for who reads it without a socket."""
    topics_per_connection: int | None = None
    """A bound that spreads the stream over several connections."""
    decimals: str = "text"
    rate: float | None = None
    """Messages offered per second; None is flat out."""
    moments: str | None = None
    """When each message was sent; asks for latencies."""
    marks: int = 0
    """How often to note the resident memory on the way, at equal distances."""
    profile: str | None = None
    """Where to write a profile of the event loop's thread."""
    worker: int = 0
    """Which of `workers` processes this is, which share the stream between them."""
    workers: int = 1
    counts: str | None = None
    """Where these processes tell each other what they have received."""
    core: int | None = None
    """The one core to run on; None: any."""


@attrs.frozen
class Figures:
    """What a run has shown."""

    messages: int
    cpu_s: float
    """Processor time of the process with all of its threads."""
    wall_s: float
    peak_mib: float
    records: float
    """Handed to Kafka per message, over the whole run."""
    calibration_s: float
    latencies_us: tuple[float, ...] = ()
    """p50, p99, p99.9 from sent to produced."""
    backlog_max: int = 0
    """Most messages that were offered and had not been received."""
    backlog_final: int = 0
    """The same at the moment when the last one had been offered."""
    sent_per_s: float = 0.0
    """What the generator reached of the rate it was asked for."""
    resident_mib: tuple[float, ...] = ()
    """At each mark."""
    stages_us: dict[str, float] = attrs.field(factory=dict)
    """Processor time per message by stage, where stages were run apart."""
    waited_s: float = 0.0
    """For how long the event loop's thread could have run and was given no core."""
    instructions: int = 0
    """Of the whole process from its start to its end, where they were counted."""

    @classmethod
    def together(cls, parts: Sequence[Figures]) -> Figures:
        """Of processes that share a stream, each of which counts the messages of all."""
        first = parts[0]
        return attrs.evolve(
            first,
            cpu_s=sum(each.cpu_s for each in parts),
            wall_s=max(each.wall_s for each in parts),
            peak_mib=sum(each.peak_mib for each in parts),
            records=sum(each.records for each in parts),
            calibration_s=max(each.calibration_s for each in parts),
            waited_s=max(each.waited_s for each in parts),
        )

    @classmethod
    def read(cls, text: bytes) -> Figures:
        """What `report` wrote."""
        fields: dict[str, Any] = json.loads(text)
        for name in ("latencies_us", "resident_mib"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    @property
    def cost_us(self) -> float:
        """Processor time per message."""
        return self.cpu_s / self.messages * 1e6

    @property
    def per_s(self) -> float:
        """Messages per second by the clock."""
        return self.messages / self.wall_s


@attrs.define
class Meter:
    """Measures from the first look that finds the warm-up over until `finish`."""

    task: Task
    _count: int = 0
    _cpu: float = 0.0
    _wall: float = 0.0
    _waited: float = 0.0
    _counts: memoryview | None = attrs.field(default=None, init=False)
    _moments: Moments | None = attrs.field(init=False)
    _backlog_max: int = attrs.field(default=0, init=False)
    _backlog_final: int | None = attrs.field(default=None, init=False)
    _resident: list[float] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        path = self.task.moments
        self._moments = Moments.open(Path(path)) if path is not None else None
        if self.task.counts is not None:
            with Path(self.task.counts).open("r+b") as file:
                self._counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def look(self, received: int) -> bool:
        """Whether all messages are there, those of the other processes included."""
        task, received = self.task, self._of_all(received)
        if not self._count and received >= task.warm:
            self._count, self._cpu, self._wall = received, time.process_time(), time.monotonic()
            self._waited = _waited_s()
        if self._moments is not None and task.rate is not None and self._backlog_final is None:
            self._look_behind(self._moments, task.rate, received)
        while len(self._resident) < task.marks and received * task.marks >= task.messages * (len(self._resident) + 1):
            self._resident.append(_status_mib("VmRSS"))
        return received >= task.messages

    def _look_behind(self, moments: Moments, rate: float, received: int) -> None:
        due = moments.due(time.monotonic_ns(), rate)
        backlog = max(0, due - received)
        if received >= self.task.warm:
            self._backlog_max = max(self._backlog_max, backlog)
        if due == len(moments):
            self._backlog_final = backlog

    def finish(self, received: int, records: int, latencies_us: tuple[float, ...] = ()) -> Figures:
        """The figures up to now; everything must have reached Kafka.

        Raises `RuntimeError` when the stream was over before the second look.
        """
        cpu, wall = time.process_time() - self._cpu, time.monotonic() - self._wall
        received = self._of_all(received)
        messages = received - self._count
        if not messages:
            raise RuntimeError(f"{received} messages are too few to be measured: they all came within {POLL_S:g} s")
        return Figures(
            messages,
            cpu,
            wall,
            _status_mib("VmHWM"),
            records / received,
            calibrate(),
            latencies_us,
            self._backlog_max,
            self._backlog_final or 0,
            self._moments.sent_per_s() if self._moments is not None else 0.0,
            tuple(self._resident),
            waited_s=_waited_s() - self._waited,
        )

    def _of_all(self, received: int) -> int:
        if self._counts is None:
            return received
        self._counts[self.task.worker] = received
        return sum(self._counts)


def _status_mib(field: str) -> float:
    """Memory of this program; the peak that `getrusage` tells includes the process that started it."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace"))
    return int(found[1]) / 1024 if found else 0.0


def create_counts(path: Path, workers: int) -> None:
    """For as many processes."""
    path.write_bytes(bytes(workers * _COUNT_BYTES))


def _waited_s() -> float:
    """0 where the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text("ascii").split()[1]) / 1e9
    except OSError:
        return 0.0


def calibrate() -> float:
    """Processor seconds of a fixed piece of work: how fast this machine is at this moment."""
    gc.collect()
    begin = time.thread_time()
    total = 0
    for number in range(_CALIBRATION_ROUNDS):
        total += len(str(number))
    return time.thread_time() - begin


def report(figures: Figures) -> None:
    """Hand the figures to whoever started this process."""
    sys.stdout.write(json.dumps(attrs.asdict(figures)) + "\n")
    sys.stdout.flush()
