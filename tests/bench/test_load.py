"""The load generator sends what it says, when it says so: checked from the other end of real sockets."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from pipeline.bench.contestants.bare import subscribe_request, url
from pipeline.bench.laps import Laps
from pipeline.bench.load import Load, LoadSettings, frame
from pipeline.bench.measure import Task
from pipeline.bench.moments import Moments
from pipeline.bench.stream import MIXES, is_data, messages
from pipeline.session.frames import FrameSplitter
from pipeline.session.limits import Limits
from pipeline.session.websocket import WebSocketTransport, connect

WITHIN_S = 30.0
START_MS = 1_790_000_000_000
INSTRUMENTS = 3


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Bench:
    """A stream in a file, and what is needed to be sent it."""

    def __init__(self, folder: Path, authority: trustme.CA, mix: str = "bybit", count: int = 200) -> None:
        self.lines = list(messages(MIXES[mix], count, INSTRUMENTS, 1, START_MS))
        self.venue, self.channels = MIXES[mix].venue, MIXES[mix].channels
        self.stream, self.certificate, self.moments = folder / "stream", folder / "server.pem", folder / "moments"
        self.stream.write_bytes(b"\n".join(self.lines))
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(self.certificate))
        self.tls = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())

    def load(self, total: int | None = None, rate: float | None = None, burst: int = 1) -> Load:
        return Load(
            LoadSettings(
                self.venue,
                str(self.stream),
                len(self.lines) if total is None else total,
                INSTRUMENTS,
                str(self.certificate),
                rate,
                burst,
                str(self.moments) if rate is not None else None,
            )
        )

    def task(self, port: int, scheme: str = "ws", channels: Sequence[str] | None = None) -> Task:
        return Task(
            name="ours",
            venue=self.venue,
            websocket=f"{scheme}://localhost:{port}",
            rest=f"http://localhost:{port}",
            ca_file="",
            kafka="",
            create_topics=False,
            channels=self.channels if channels is None else tuple(channels),
            instruments=INSTRUMENTS,
            warm=0,
            messages=0,
            folder="",
        )


@pytest.fixture
def bench(tmp_path: Path, authority: trustme.CA) -> Bench:
    return Bench(tmp_path, authority)


@asynccontextmanager
async def subscribed(
    nursery: trio.Nursery, task: Task, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebSocketTransport]:
    """A connection that has asked for all of the task's channels."""
    transport = await connect(nursery, url(task), limits=Limits(), tls=tls)
    try:
        await transport.send(subscribe_request(task))
        yield transport
    finally:  # its background task outlives cancellation
        await transport.aclose()


async def received(bench: Bench, load: Load, count: int, scheme: str = "ws") -> list[bytes]:
    """The first messages, all of which one connection has asked for."""
    found: list[bytes] = []
    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            task = bench.task(await nursery.start(load.serve), scheme)
            async with subscribed(nursery, task, bench.tls) as transport:
                while len(found) < count:
                    found += filter(is_data, await transport.receive())
            nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_the_whole_stream_is_sent_in_its_order(bench: Bench, scheme: str) -> None:
    assert await received(bench, bench.load(), len(bench.lines), scheme) == bench.lines


async def test_okx_is_spoken_too(tmp_path: Path, authority: trustme.CA) -> None:
    bench = Bench(tmp_path, authority, "okx-recorded")
    assert await received(bench, bench.load(), len(bench.lines)) == bench.lines


async def test_a_long_run_goes_over_the_stream_again(bench: Bench) -> None:
    size = len(bench.lines)
    total = 2 * size + 30
    laps = Laps(bench.lines)
    expected = [laps.message(number % size, number // size) for number in range(total)]
    assert await received(bench, bench.load(total), total) == expected
    assert expected[size:][:size] != bench.lines


async def test_nothing_is_sent_before_every_subject_has_a_subscriber(bench: Bench) -> None:
    load = bench.load()
    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(load.serve)
            books, rest = bench.task(port, channels=["book"]), bench.task(port, channels=["trade", "ticker"])
            found: list[bytes] = []
            async with subscribed(nursery, books) as one:
                [answer] = await one.receive()
                assert json.loads(answer)["success"]
                async with subscribed(nursery, rest):
                    while len(found) < sum(b'"orderbook' in line for line in bench.lines):
                        found += await one.receive()
            assert found == [line for line in bench.lines if b'"orderbook' in line]
            nursery.cancel_scope.cancel()


async def test_each_message_is_a_tls_record_of_its_own(bench: Bench) -> None:
    task = bench.task(0, "wss")
    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(bench.load().serve)
            raw = await trio.open_tcp_stream("localhost", port)
            stream = trio.SSLStream(raw, bench.tls, server_hostname="localhost")
            upgrade = (
                "GET /v5/public/linear HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            )
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            await stream.send_all((upgrade + key).encode())
            assert b" 101 " in await stream.receive_some()
            await stream.send_all(_masked(subscribe_request(task).encode()))
            assert b'"success":' in await stream.receive_some()
            # It returns at most one record per call.
            records = [bytes(await stream.receive_some(65_536)) for _ in range(20)]
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()
    assert records == [frame(line) for line in bench.lines[:20]]


@pytest.mark.parametrize("burst", [1, 50])
async def test_a_rate_is_kept_and_the_moments_are_noted(bench: Bench, burst: int) -> None:
    rate = 1_000.0
    begin = time.monotonic_ns()
    await received(bench, bench.load(rate=rate, burst=burst), len(bench.lines))
    end = time.monotonic_ns()
    moments = Moments.open(bench.moments)
    sent = [moments[number] for number in range(len(moments))]
    assert len(sent) == len(bench.lines)
    assert begin < sent[0] <= sent[-1] < end
    assert sent == sorted(sent)
    # Whoever is late catches up; nobody is early.
    assert all(moments.due(at, rate) >= number - number % burst for number, at in enumerate(sent))
    if burst > 1:
        assert len(set(sent)) <= -(-len(sent) // burst)
    assert moments.due(sent[0] + round(1e12), rate) == len(sent)
    assert moments.due(begin, rate) == 0


def test_frames_of_all_lengths_are_what_a_reader_takes_apart() -> None:
    payloads = [b"x" * length for length in (0, 1, 125, 126, 65_535, 65_536)]
    splitter = FrameSplitter(1_000_000)
    splitter.feed(b"".join(map(frame, payloads)))
    assert splitter.take(100) == (payloads, None)


def _masked(payload: bytes) -> bytes:
    """A client's text frame, with a mask of zeros."""
    return b"\x81" + bytes((0x80 | 126,)) + len(payload).to_bytes(2, "big") + bytes(4) + payload
