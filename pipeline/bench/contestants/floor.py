"""The floor: raw messages from the fastest WebSocket client for Python straight into Kafka, nothing done to them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import picows
import uvloop
from confluent_kafka import Producer

from pipeline.bench.contestants.bare import subscribe_request, url
from pipeline.bench.latency import Latencies
from pipeline.bench.measure import POLL_S, Figures, Meter, Task
from pipeline.bench.moments import Moments
from pipeline.bench.stream import is_data
from pipeline.sink.settings import KafkaSettings

_TOPIC = "floor"
_POLL_EVERY = 256


def run(task: Task) -> Figures:
    """Pass the whole stream on."""
    figures: Figures = uvloop.run(_run(task))
    return figures


async def _run(task: Task) -> Figures:
    defaults = KafkaSettings()
    producer = Producer(
        {
            "bootstrap.servers": task.kafka,
            "enable.idempotence": True,
            "linger.ms": round(defaults.linger * 1e3),
            "compression.type": defaults.compression,
            "queue.buffering.max.messages": defaults.queue_messages,
        }
    )
    latencies = Latencies(Moments.open(Path(task.moments)), task.warm) if task.moments else None
    meter = Meter(task)
    received = 0

    class Listener(picows.WSListener):  # type: ignore[misc]
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            nonlocal received
            message = frame.get_payload_as_bytes()
            if not is_data(message):
                return
            received += 1
            while True:
                try:
                    producer.produce(_TOPIC, message)
                    break
                except BufferError:
                    producer.poll(0.01)
            if received == task.warm:  # it may be done before anybody else looks
                meter.look(received)
            if not received % _POLL_EVERY:
                producer.poll(0)
            if latencies is not None:
                latencies.produced(1)

    tls = ssl.create_default_context(cafile=task.ca_file) if task.websocket.startswith("wss") else None
    transport, _ = await picows.ws_connect(Listener, url(task), ssl_context=tls)
    transport.send(picows.WSMsgType.TEXT, subscribe_request(task).encode())
    while not meter.look(received):
        await asyncio.sleep(POLL_S)
    producer.flush()
    figures = meter.finish(received, received, latencies.quantiles() if latencies else ())
    transport.disconnect()
    return figures
