"""cryptofeed as its documentation uses it: feed handler, uvloop, and its Kafka callbacks over aiokafka."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.backends.kafka import BookKafka, TickerKafka, TradeKafka
from cryptofeed.connection import RestEndpoint, WebsocketEndpoint, connection_stats
from cryptofeed.defines import L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import Bybit

from pipeline.bench.measure import POLL_S, Figures, Meter, Task
from pipeline.sim.listing import many

_PATIENCE_S = 600.0


def run(task: Task) -> Figures:
    """Run the feed until the whole stream is in Kafka."""
    os.chdir(task.folder)  # it writes a log beside itself
    logging.disable(logging.WARNING)
    import uvloop

    figures: Figures = uvloop.run(_run(task))
    return figures


async def _run(task: Task) -> Figures:
    tls = ssl.create_default_context(cafile=task.ca_file)
    options: dict[str, Any] = {"compression": None, "ssl": tls, "ping_interval": None}

    class Exchange(Bybit):  # type: ignore[misc]
        websocket_endpoints = [  # noqa: RUF012 - its own form
            WebsocketEndpoint(f"{task.websocket}/v5/public/linear", options=options)
        ]
        rest_endpoints = [RestEndpoint(task.rest, routes=Bybit.rest_endpoints[0].routes)]  # noqa: RUF012

    # By default its queue of 10,000 drops the oldest; blocking delivers all, as the others do.
    queue: dict[str, Any] = {
        "bootstrap_servers": task.kafka,
        "overflow": "block",
        "flush_deadline": _PATIENCE_S,
    }
    backends = {"trade": (TRADES, TradeKafka), "book": (L2_BOOK, BookKafka), "ticker": (TICKER, TickerKafka)}
    callbacks = {name: backend(**queue) for name, backend in (backends[channel] for channel in task.channels)}
    symbols = [f"{listing.base}-{listing.quote}-PERP" for listing in many(task.venue, task.instruments)]
    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": True})
    handler.add_feed(
        Exchange(symbols=symbols, channels=list(callbacks), callbacks=callbacks, shutdown_timeout=_PATIENCE_S)
    )
    meter = Meter(task)
    running = asyncio.create_task(handler.run_async(install_signal_handlers=False))
    while not meter.look(received := sum(each.received for each in connection_stats().values())):
        if running.done():
            await running
            raise RuntimeError("the feed ended early")
        await asyncio.sleep(POLL_S)
    # Told to stop with a full queue, it drops a record that it cannot place within five seconds.
    while any(callback.stats.qsize for callback in callbacks.values()) and not running.done():
        await asyncio.sleep(POLL_S)
    handler.request_stop()
    await running
    stats = [callback.stats for callback in callbacks.values()]
    if dropped := sum(each.dropped_overflow + each.dropped_failed for each in stats):
        raise RuntimeError(f"it dropped {dropped} records: {stats}")
    return meter.finish(received, sum(each.written for each in stats))
