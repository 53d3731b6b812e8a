"""A client of server-sent events: one request, and what it is told until it goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import h11
import trio


@attrs.define(eq=False)
class Watcher:
    """One that was let in or not, as `status` tells."""

    stream: trio.SocketStream
    status: int = 0
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict)
    _parser: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))
    _body: bytes = b""

    async def ask(self, host: str, token: str = "none") -> None:
        """Send the request and wait for the head of the answer."""
        request = h11.Request(
            method="GET", target="/events", headers=[("host", host), ("authorization", f"Bearer {token}")]
        )
        await self.stream.send_all(self._parser.send(request) or b"")
        await self.stream.send_all(self._parser.send(h11.EndOfMessage()) or b"")
        answer = await self._next()
        assert isinstance(answer, h11.Response)
        self.status, self.headers = answer.status_code, dict(answer.headers)

    async def begun(self) -> None:
        """Wait for the beginning of an event."""
        while b"data: " not in self._body:
            data = await self._next()
            assert isinstance(data, h11.Data), "the server ended the stream"
            self._body += data.data

    async def event(self) -> dict[str, Any]:
        """The next event."""
        while b"\n\n" not in self._body:
            data = await self._next()
            assert isinstance(data, h11.Data), "the server ended the stream"
            self._body += data.data
        line, _, self._body = self._body.partition(b"\n\n")
        if line.startswith(b"retry:"):
            return await self.event()
        told: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return told

    async def _next(self) -> Any:
        while (found := self._parser.next_event()) is h11.NEED_DATA:
            self._parser.receive_data(await self.stream.receive_some())
        return found


@asynccontextmanager
async def watching(address: str, token: str = "none") -> AsyncIterator[Watcher]:
    """Watch the service at this address."""
    place = urlsplit(address)
    async with await trio.open_tcp_stream(str(place.hostname), place.port or 80) as stream:
        watcher = Watcher(stream)
        await watcher.ask(place.netloc, token)
        yield watcher
