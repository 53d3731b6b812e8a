"""Plain clients of the simulated exchanges: they judge what comes over the wire and know none of our code."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from pipeline.sim.venue import SimulatedVenue

DATA = Path(__file__).parent.parent / "data" / "sim"
DEADLINE_S = 120


def sample(venue: str, name: str, line: int = 0) -> Any:
    """One recorded message, or a REST answer."""
    text = (DATA / venue / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else json.loads(text.splitlines()[line])


@attrs.define
class Client:
    """One WebSocket connection."""

    websocket: WebSocketConnection

    async def say(self, request: dict[str, Any] | str) -> None:
        """Send JSON, or text as it is."""
        await self.websocket.send_message(request if isinstance(request, str) else json.dumps(request))

    async def text(self, within: float = DEADLINE_S) -> str:
        """The next message as text."""
        with trio.fail_after(within):
            message = await self.websocket.get_message()
        assert isinstance(message, str)
        return message

    async def hear(self, within: float = DEADLINE_S) -> dict[str, Any]:
        """The next message."""
        message = json.loads(await self.text(within))
        assert isinstance(message, dict)
        return message

    async def hear_until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Messages up to and including the first wanted one."""
        heard = [await self.hear()]
        while not wanted(heard[-1]):
            heard.append(await self.hear())
        return heard

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and take the first message that is no data: its answer."""
        await self.say(request)
        return (await self.hear_until(is_control))[-1]


async def read_on(client: Client) -> None:
    """Read until the connection ends, which raises `ConnectionClosed`."""
    while True:
        await client.websocket.get_message()


def is_control(message: dict[str, Any]) -> bool:
    """Neither Bybit's nor OKX's data."""
    return "topic" not in message and not ("arg" in message and "data" in message)


@asynccontextmanager
async def connect(venue: SimulatedVenue, path: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """Connect over TCP; leaving cuts the socket. Raises `ConnectionRejected` if the upgrade is refused."""
    socket = await trio.open_tcp_stream(venue.host, venue.port)
    stream = socket if tls is None else trio.SSLStream(socket, tls, server_hostname=venue.host)
    rejected: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield Client(await wrap_client_stream(nursery, stream, venue.host, path))
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as group:
        rejected = next(iter(group.exceptions))
    finally:
        await trio.aclose_forcefully(stream)
    if rejected is not None:
        raise rejected


@asynccontextmanager
async def connect_in_memory(venue: SimulatedVenue, path: str) -> AsyncIterator[Client]:
    """Connect without sockets, for tests under a mock clock."""
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(venue.serve, theirs)
        yield Client(await wrap_client_stream(nursery, ours, "simulated", path))  # type: ignore[arg-type] # any stream will do
        nursery.cancel_scope.cancel()


class Book:
    """A book kept by the rules that both venues share: absolute sizes, zero deletes."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def replace(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        """A snapshot."""
        self.bids, self.asks = {}, {}
        self.change(bids, asks)

    def change(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        """A delta."""
        for side, rows in ((self.bids, bids), (self.asks, asks)):
            for row in rows:
                if Decimal(row[1]):
                    side[Decimal(row[0])] = Decimal(row[1])
                else:
                    side.pop(Decimal(row[0]), None)


def true_book(venue: SimulatedVenue, market: str, symbol: str, depth: int) -> tuple[dict[Decimal, Decimal], ...]:
    """The best levels of the engine's own book: bids, asks."""
    engine = venue.engine(market, symbol)
    return tuple(
        {Decimal(engine.price(price)): Decimal(engine.size(lots)) for price, lots in side.top(depth).items()}
        for side in (engine.bids, engine.asks)
    )
