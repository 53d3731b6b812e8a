"""What a contestant tells about itself: processor time of its whole process, between two counts of messages."""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from pathlib import Path

import attrs

POLL_S = 0.02
"""How often a contestant looks at its count: some 0.1 % of its time."""
_CALIBRATION_ROUNDS = 200_000


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
    decimals: str = "text"
    moments: str | None = None
    """When each message was sent; asks for latencies."""
    profile: str | None = None
    """Where to write a profile of the event loop's thread."""


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

    @property
    def cost_us(self) -> float:
        """Processor time per message."""
        return self.cpu_s / self.messages * 1e6


@attrs.define
class Meter:
    """Measures from the first look that finds the warm-up over until `finish`."""

    task: Task
    _count: int = 0
    _cpu: float = 0.0
    _wall: float = 0.0

    def look(self, received: int) -> bool:
        """Whether all messages are there."""
        if not self._count and received >= self.task.warm:
            self._count, self._cpu, self._wall = received, time.process_time(), time.monotonic()
        return received >= self.task.messages

    def finish(self, received: int, records: int, latencies_us: tuple[float, ...] = ()) -> Figures:
        """The figures up to now; everything must have reached Kafka.

        Raises `RuntimeError` when the stream was over before the second look.
        """
        cpu, wall = time.process_time() - self._cpu, time.monotonic() - self._wall
        messages = received - self._count
        if not messages:
            raise RuntimeError(f"{received} messages are too few to be measured: they all came within {POLL_S:g} s")
        return Figures(messages, cpu, wall, _peak_mib(), records / received, calibrate(), latencies_us)


def _peak_mib() -> float:
    """Of this program; what `getrusage` tells includes the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace"))
    return int(found[1]) / 1024 if found else 0.0


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
