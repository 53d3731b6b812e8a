"""A receiver that takes the messages out of their frames with our reader, and does nothing to them."""

from __future__ import annotations

import ssl
from pathlib import Path

import trio

from pipeline.bench.contestants.bare import subscribe_request, url
from pipeline.bench.latency import Latencies
from pipeline.bench.measure import POLL_S, Figures, Meter, Task
from pipeline.bench.moments import Moments
from pipeline.bench.stream import is_data
from pipeline.session.limits import Limits
from pipeline.session.transport import Transport
from pipeline.session.websocket import connect


def run(task: Task) -> Figures:
    """Receive the whole stream."""
    return trio.run(_run, task)


async def _run(task: Task) -> Figures:
    tls = ssl.create_default_context(cafile=task.ca_file) if task.websocket.startswith("wss") else None
    async with trio.open_nursery() as nursery:
        transport = await connect(nursery, url(task), limits=Limits(), tls=tls)
        await transport.send(subscribe_request(task))
        meter = Meter(task)
        receiver = _Receiver(transport, task, meter)
        nursery.start_soon(receiver.run)
        while not meter.look(receiver.received):
            await trio.sleep(POLL_S)
        figures = meter.finish(receiver.received, 0, receiver.quantiles())
        nursery.cancel_scope.cancel()
        await transport.aclose()
    return figures


class _Receiver:
    def __init__(self, transport: Transport, task: Task, meter: Meter) -> None:
        self._transport = transport
        self._warm, self._meter = task.warm, meter
        self._latencies = Latencies(Moments.open(Path(task.moments)), task.warm) if task.moments else None
        self.received = 0

    async def run(self) -> None:
        while True:
            messages = await self._transport.receive()
            if not self.received:  # answers come before the stream, never in it
                messages = [message for message in messages if is_data(message)]
            before, self.received = self.received, self.received + len(messages)
            if before < self._warm <= self.received:  # it may be done before anybody else looks
                self._meter.look(self.received)
            if self._latencies is not None:
                self._latencies.produced(len(messages))

    def quantiles(self) -> tuple[float, ...]:
        return self._latencies.quantiles() if self._latencies is not None else ()
