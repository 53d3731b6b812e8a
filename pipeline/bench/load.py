"""The load generator: one port that speaks REST, WebSocket and TLS, and sends what was made up beforehand.

It runs in a process of its own: `python -m pipeline.bench.load JSON`. Frames are built before the first is sent,
and while sending, one message costs it little more than its encryption, so that it is never what is measured.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import attrs
import trio
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from pipeline.bench.moments import Moments
from pipeline.bench.stream import Subject, subject
from pipeline.session.tls import BatchTLSStream
from pipeline.sim import bybit_rest, okx_rest
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.floor import Floor, Market
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import many
from pipeline.sim.sent import SentRecord
from pipeline.sim.server import Handover, serve_stream
from pipeline.sim.settings import MarketSettings

_TLS_HANDSHAKE = b"\x16"
_TEXT_FRAME = b"\x81"
_CHUNK = 128
"""Messages per write to the socket when flat out: enough to fill it, and few enough to look at requests between."""


@attrs.frozen
class LoadSettings:
    """What the generator is told."""

    venue: str
    stream: str
    """A file with one wire message per line."""
    instruments: int
    certificate: str
    """PEM file with key and chain, for clients that speak TLS."""
    rate: float | None = None
    """Messages per second; None is flat out."""
    burst: int = 1
    """Messages that leave at the same moment, when there is a rate."""
    moments: str | None = None
    """A file for the time at which each message was sent."""


class RecordStream(BatchTLSStream):
    """TLS that puts many messages into one write to the socket, each in a record of its own."""

    async def send_each(self, pieces: Sequence[bytes]) -> None:
        """Send every piece as one TLS record."""
        async with self._sending:
            write = self._tls.write
            for piece in pieces:
                write(piece)
            await self._flush_locked()


def frame(message: bytes) -> bytes:
    """An unmasked WebSocket text frame."""
    length = len(message)
    if length < 126:
        return _TEXT_FRAME + bytes((length,)) + message
    if length < 1 << 16:
        return _TEXT_FRAME + b"\x7e" + length.to_bytes(2, "big") + message
    return _TEXT_FRAME + b"\x7f" + length.to_bytes(8, "big") + message


@attrs.define(eq=False)
class Load:
    """A server that begins to send once every subject of the stream has a subscriber."""

    settings: LoadSettings
    frames: list[bytes] = attrs.field(init=False)
    subjects: list[Subject] = attrs.field(init=False)
    _missing: set[Subject] = attrs.field(init=False)
    _started: trio.Event = attrs.field(factory=trio.Event, init=False)
    _start: float = attrs.field(default=inf, init=False)
    _floor: Floor = attrs.field(init=False)
    _tls: ssl.SSLContext = attrs.field(init=False)
    _moments: Moments | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        lines = Path(settings.stream).read_bytes().splitlines()
        self.frames = [frame(line) for line in lines]
        self.subjects = [subject(line) for line in lines]
        self._missing = set(self.subjects)
        listings = many(settings.venue, settings.instruments)
        market = Market(MarketSettings(), {(each.market, each.symbol): each for each in listings})
        self._floor = Floor(SimulatedClock(), market, SentRecord(False))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(settings.certificate)
        if settings.moments is not None:
            self._moments = Moments.create(Path(settings.moments), len(lines))

    async def run(self) -> None:
        """Serve until standard input ends; prints the port."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve, [listener])
            sys.stdout.write(f"{listener.socket.getsockname()[1]}\n")
            sys.stdout.flush()
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()

    async def _serve(self, raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = raw
        try:
            if await raw.socket.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                stream = RecordStream(raw, self._tls, server_side=True)
                await stream.do_handshake()
            handover = await serve_stream(stream, None, self._rest, lambda request: None)
            if handover is not None:
                await self._converse(handover)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError, OSError):
            pass  # the client has gone
        finally:
            await trio.aclose_forcefully(stream)

    def _rest(self, request: Request) -> Response:
        answer = bybit_rest.answer if self.settings.venue == "bybit" else okx_rest.answer
        return answer(self._floor, request) or Response.json({"error": f"nothing at {request.path}"}, 404)

    async def _converse(self, handover: Handover) -> None:
        stream, websocket = handover.stream, handover.websocket
        subscribed: set[Subject] = set()
        answers: list[bytes] = []
        sending = trio.Lock()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, stream, subscribed, sending)
            while True:
                for event in websocket.events():
                    if isinstance(event, TextMessage):
                        answers += map(frame, self._answer(event.data, subscribed))
                    elif isinstance(event, Ping):
                        answers.append(websocket.send(event.response()))
                    elif isinstance(event, CloseConnection):
                        await stream.send_all(websocket.send(event.response()))
                        nursery.cancel_scope.cancel()
                        return
                async with sending:
                    await self._send_answers(stream, answers)
                data = await stream.receive_some(65_536)
                if not data:
                    nursery.cancel_scope.cancel()
                    return
                websocket.receive_data(bytes(data))

    async def _send_answers(self, stream: trio.abc.Stream, answers: list[bytes]) -> None:
        while answers:
            await stream.send_all(answers.pop(0))
        if not self._missing and not self._started.is_set():
            self._start = time.monotonic()
            self._started.set()

    def _answer(self, text: str, subscribed: set[Subject]) -> list[bytes]:
        if text == "ping":
            return [b"pong"]
        request: dict[str, Any] = json.loads(text)
        if request["op"] == "ping":
            return [json.dumps({"success": True, "ret_msg": "pong", "conn_id": "load", **request}).encode()]
        wanted = request["args"]
        added = {Subject(a["channel"], a["instId"]) if isinstance(a, dict) else Subject.of_topic(a) for a in wanted}
        if request["op"] == "subscribe":
            subscribed |= added
            self._missing -= added
        if self.settings.venue == "bybit":
            answer = {"success": True, "ret_msg": "", "conn_id": "load", "op": request["op"]}
            return [json.dumps({**answer, "req_id": request.get("req_id", "")}).encode()]
        head = {"event": request["op"], "connId": "load"} | ({"id": request["id"]} if "id" in request else {})
        return [json.dumps({**head, "arg": arg}).encode() for arg in wanted]

    async def _send(self, stream: trio.abc.Stream, subscribed: set[Subject], sending: trio.Lock) -> None:
        await self._started.wait()
        chosen = [number for number, each in enumerate(self.subjects) if each in subscribed]
        rate, size = self.settings.rate, self.settings.burst if self.settings.rate else _CHUNK
        for at in range(0, len(chosen), size):
            numbers = chosen[at : at + size]
            if rate is not None:
                await trio.sleep(max(0.0, self._start + numbers[0] / rate - time.monotonic()))
            if self._moments is not None:
                self._moments.note(numbers, time.monotonic_ns())
            pieces = [self.frames[number] for number in numbers]
            async with sending:
                if isinstance(stream, RecordStream):
                    await stream.send_each(pieces)
                else:
                    await stream.send_all(b"".join(pieces))


async def main(text: str) -> None:
    """Serve as `text`, the settings in JSON, says."""
    await Load(LoadSettings(**json.loads(text))).run()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
