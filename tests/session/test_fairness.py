"""A connection that always has more to give leaves turns to the others, to timers and to HTTP."""

from __future__ import annotations

import base64
import hashlib
import math
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise

import attrs
import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock

from pipeline.observe.http import Pages, serve_http
from pipeline.observe.settings import HttpSettings
from pipeline.session.connection import run_connection
from pipeline.session.limits import Limits
from pipeline.session.transport import Dial, Transport
from pipeline.session.websocket import connect
from pipeline.sim.wire import TEXT, frame
from tests.observe.statuses import healthy
from tests.session.test_connection import Talk, Wire

TURN_S = 0.001
BATCH = 40
FLOODS = 2
LIMITS = Limits(connect=20, handshake=20, send=20, close=0.2, batch=BATCH)
FLOOD = frame(b'{"topic":"trade","price":"65000.5"}', TEXT) * 5_000


@attrs.define
class Flood(Wire):
    """A transport that is never empty; a turn takes a millisecond of virtual time."""

    clock: MockClock | None = None
    turns: int = 0

    async def receive(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        assert self.clock is not None
        self.turns += 1
        self.clock.jump(TURN_S)
        return [b"data"] * BATCH


async def test_a_flood_delays_messages_pings_and_timers_by_a_few_turns(mock_clock: MockClock) -> None:
    flood, busy = Flood(clock=mock_clock), Talk(ping_every=0.1)
    wire, quiet = Wire(), Talk(ping_every=0.1)
    delays: list[int] = []
    quiet.on_message = lambda message: delays.append(flood.turns - int(message))
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, flood.dial, busy, LIMITS)
        nursery.start_soon(run_connection, wire.dial, quiet, LIMITS)
        for number in range(1, 11):
            await trio.sleep_until(number / 10)
            late.append(trio.current_time() - number / 10)
            wire.to_client.send_nowait([str(flood.turns).encode()])
        await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert flood.turns == pytest.approx(1_050, abs=5)
    assert len(busy.received) == flood.turns * BATCH
    assert len(delays) == 10
    assert max(delays) <= 3
    assert max(late) <= 3 * TURN_S
    for sent in (flood.sent, wire.sent):
        pings = [at for at, text in sent if text == "ping"]
        assert len(pings) >= 10
        assert all(after - before <= 0.1 + 4 * TURN_S for before, after in pairwise(pings))


@attrs.define
class Counting(Talk):
    """Counts turns, and the most messages that one of them brought."""

    turns: int = 0
    most: int = 0
    heard: Callable[[], None] = lambda: None
    late: list[float] = attrs.field(factory=list)
    """Seconds by which each ping was."""

    def receive(self, messages: list[bytes], now: float) -> None:
        self.ready = True
        self.turns += 1
        self.most = max(self.most, len(messages))
        assert self.turns < 50_000, "nothing else gets a turn, deadlines of the test included"
        self.heard()

    def next_deadline(self) -> float:
        return self.ping_at

    def on_deadline(self, now: float) -> None:
        self.late.append(now - self.ping_at)
        super().on_deadline(now)


@contextmanager
def listening(serve: Callable[[socket.socket], None], tls: ssl.SSLContext | None) -> Iterator[int]:
    """A server in threads, so that it never shares the event loop with what it sends to."""
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threads.append(threading.Thread(target=one, args=(raw,)))
                threads[-1].start()

    def one(raw: socket.socket) -> None:
        # OSError: the client hangs up.
        with suppress(OSError), raw, raw if tls is None else tls.wrap_socket(raw, server_side=True) as stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += stream.recv(4096)
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
            assert key is not None
            accepted = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            stream.sendall(head + b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n")
            serve(stream)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept, args=(listener,)))
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def flood_it(stream: socket.socket) -> None:
    while True:
        stream.sendall(FLOOD)


@pytest.mark.parametrize("is_secure", [False, True])
async def test_sockets_that_are_never_empty_starve_nobody(is_secure: bool) -> None:
    authority, server, client = trustme.CA(), None, None
    if is_secure:
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(server)
        authority.configure_trust(client)
    streams: queue.Queue[socket.socket] = queue.Queue()
    is_over = threading.Event()

    def stay_quiet(stream: socket.socket) -> None:
        streams.put(stream)
        is_over.wait()

    def dial_to(port: int) -> Dial:
        async def dial(nursery: trio.Nursery) -> Transport:
            url = f"ws{'s' if is_secure else ''}://localhost:{port}/"
            return await connect(nursery, url, limits=LIMITS, tls=client)

        return dial

    floods = [Counting(ping_every=math.inf) for _ in range(FLOODS)]
    quiet = Counting(ping_every=0.005)

    def turns() -> int:
        return max(flood.turns for flood in floods)

    pages = Pages(lambda: b"", healthy, list)
    with listening(flood_it, server) as flooding, listening(stay_quiet, server) as calm, trio.fail_after(60):
        try:
            async with trio.open_nursery() as nursery:
                address = await nursery.start(serve_http, HttpSettings(port=0), pages)
                nursery.start_soon(run_connection, dial_to(calm), quiet, LIMITS)
                stream = await trio.to_thread.run_sync(streams.get, abandon_on_cancel=True)
                for flood in floods:
                    await nursery.start(partial(run_connection, dial_to(flooding), flood, LIMITS))
                for _ in range(20):
                    heard = trio.Event()
                    quiet.heard = heard.set
                    before = turns()
                    stream.sendall(frame(b"tick", TEXT))  # from here: a thread would have to wait for its own turn
                    await heard.wait()
                    assert turns() - before <= 10
                async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
                    before = turns()
                    assert (await http.get("/healthz")).status_code == 200
                    assert 0 < turns() - before <= 500
                while len(quiet.late) < 3:  # noqa: ASYNC110 - pings go out by themselves
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
        finally:
            is_over.set()
    assert max(quiet.late) < 5.0, "heartbeats are in time"
    assert quiet.most == 1
    assert {flood.most for flood in floods} == {BATCH}
