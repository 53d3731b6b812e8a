"""From sent to produced: what a connection's reader has behind it when it asks for more."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import attrs
import trio

from pipeline.bench.measure import Task
from pipeline.bench.moments import Moments
from pipeline.bench.stream import is_data
from pipeline.feeds.link import OpenWebSocket
from pipeline.session.limits import Limits
from pipeline.session.transport import Transport

_QUANTILES = (0.5, 0.99, 0.999)


@attrs.define(eq=False)
class Latencies:
    """Of the messages of one connection that brings the whole stream, in its order."""

    moments: Moments
    warm: int
    seen: int = 0
    values_us: list[float] = attrs.field(factory=list)

    def produced(self, count: int) -> None:
        """The next `count` messages have been handed to Kafka."""
        now = time.monotonic_ns()
        for number in range(self.seen, self.seen + count):
            if number >= self.warm:
                self.values_us.append((now - self.moments[number]) / 1000)
        self.seen += count

    def quantiles(self) -> tuple[float, ...]:
        """p50, p99, p99.9."""
        ordered = sorted(self.values_us)
        return tuple(ordered[int(len(ordered) * share)] for share in _QUANTILES)


class Timed:
    """An `OpenWebSocket` that knows when everything a read brought has been produced: when the next one begins."""

    def __init__(self, open_websocket: OpenWebSocket, task: Task) -> None:
        assert task.moments is not None
        self._open = open_websocket
        self._latencies = Latencies(Moments.open(Path(task.moments)), task.warm)

    def quantiles(self) -> tuple[float, ...]:
        """p50, p99, p99.9 in microseconds."""
        return self._latencies.quantiles()

    async def __call__(
        self,
        nursery: trio.Nursery,
        url: str,
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        compression: bool = False,
    ) -> Transport:
        return _TimedTransport(
            await self._open(nursery, url, limits=limits, tls=tls, compression=compression), self._latencies
        )


@attrs.define(eq=False)
class _TimedTransport:
    transport: Transport
    latencies: Latencies
    pending: int = 0

    async def receive(self) -> list[bytes]:
        self.latencies.produced(self.pending)
        messages = await self.transport.receive()
        self.pending = sum(1 for message in messages if is_data(message))
        return messages

    async def send(self, text: str) -> None:
        await self.transport.send(text)

    async def aclose(self) -> None:
        await self.transport.aclose()
