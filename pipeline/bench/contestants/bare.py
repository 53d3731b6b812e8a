"""What a contestant without a session needs to be sent the stream: where to connect, and what to say."""

from __future__ import annotations

import json
from typing import Any

from pipeline.bench.measure import Task
from pipeline.exchanges import VENUES
from pipeline.sim.listing import many

_CHANNELS = {
    "bybit": {"book": "orderbook.50", "trade": "publicTrade", "ticker": "tickers"},
    "okx": {"book": "books", "trade": "trades", "ticker": "tickers"},
}


def url(task: Task) -> str:
    """The WebSocket's."""
    venue = VENUES[task.venue]
    return task.websocket + venue.path("linear" if task.venue == "bybit" else "public", venue.session_times)


def subscribe_request(task: Task) -> str:
    """Asks for all of this process's stream on one connection, which no exchange would take of so many instruments."""
    symbols = [listing.symbol for listing in many(task.venue, task.instruments)][task.worker :: task.workers]
    channels = [_CHANNELS[task.venue][channel] for channel in task.channels]
    args: list[Any]
    if task.venue == "bybit":
        args = [f"{channel}.{symbol}" for symbol in symbols for channel in channels]
    else:
        args = [{"channel": channel, "instId": symbol} for symbol in symbols for channel in channels]
    return json.dumps({"op": "subscribe", "args": args})
