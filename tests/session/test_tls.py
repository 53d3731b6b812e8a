"""The batch TLS stream against Trio's own TLS, over real sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
import trustme

from pipeline.session.tls import BatchTLSStream


@attrs.frozen
class Pair:
    client: BatchTLSStream
    server: trio.SSLStream[trio.SocketStream]


class CountingStream(trio.abc.Stream):
    """A socket that counts its reads, so that a test sees what one of them brought."""

    def __init__(self, inner: trio.SocketStream) -> None:
        self.inner = inner
        self.reads = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.reads += 1
        return await self.inner.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def contexts(authority: trustme.CA, request: pytest.FixtureRequest) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    client.minimum_version = client.maximum_version = request.param
    return client, server


async def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return client, await listener.accept()


@asynccontextmanager
async def shaken(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Pair]:
    near, far = await sockets()
    client = BatchTLSStream(CountingStream(near), contexts[0], server_hostname="localhost")
    server = trio.SSLStream(far, contexts[1], server_side=True)
    async with near, far:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            await client.do_handshake()
        yield Pair(client, server)


async def receive_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive_some(size - len(data))
    return data


async def test_one_read_brings_all_records(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair:
        for index in range(100):
            await pair.server.send_all(b"%04d" % index)
        transport = pair.client.transport
        assert isinstance(transport, CountingStream)
        reads_before = transport.reads
        received = await pair.client.receive_some()
        reads = transport.reads - reads_before
        received += await receive_exactly(pair.client, 400 - len(received))
        assert received == b"".join(b"%04d" % index for index in range(100))
        assert reads <= 2  # the first may hold nothing but session tickets
        assert len(received) / (transport.reads - reads_before) > 40  # ten records or more per read


async def test_both_directions_with_more_than_fits_into_the_kernel(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    data = bytes(range(256)) * 20_000
    async with shaken(contexts) as pair, trio.open_nursery() as nursery:

        async def echo() -> None:
            await pair.server.send_all(await receive_exactly(pair.server, len(data)))

        nursery.start_soon(echo)
        nursery.start_soon(pair.client.send_all, data)
        assert await receive_exactly(pair.client, len(data)) == data


async def test_at_most_as_much_as_asked_for(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair:
        await pair.server.send_all(b"abcdefgh")
        assert await pair.client.receive_some(3) == b"abc"
        assert await pair.client.receive_some(3) == b"def"
        assert await pair.client.receive_some(3) == b"gh"


async def test_the_announced_end_comes_after_the_data(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair, trio.open_nursery() as nursery:
        await pair.server.send_all(b"last")
        nursery.start_soon(pair.server.aclose)
        assert await receive_exactly(pair.client, 4) == b"last"
        assert await pair.client.receive_some() == b""
        assert await pair.client.receive_some() == b""
        await pair.client.aclose()


async def test_the_unannounced_end(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair:
        await trio.aclose_forcefully(pair.server)
        assert await pair.client.receive_some() == b""
        assert await pair.client.receive_some() == b""


async def test_our_end_is_announced(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair:
        await pair.client.aclose()
        assert await pair.server.receive_some() == b""  # an SSLStream raises if the end was not announced
        with pytest.raises(trio.ClosedResourceError):
            await pair.client.receive_some()
        with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
            await pair.client.send_all(b"x")


async def test_garbage_breaks_the_stream_after_what_was_good(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair:
        await pair.server.send_all(b"good")
        assert await receive_exactly(pair.client, 4) == b"good"
        await pair.server.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"?" * 32)
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="TLS"):
                await pair.client.receive_some()


async def test_closing_does_not_wait_for_a_stuck_sender(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with shaken(contexts) as pair, trio.open_nursery() as nursery:

        async def send_to_a_peer_that_reads_nothing() -> None:
            with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
                await pair.client.send_all(bytes(50_000_000))

        nursery.start_soon(send_to_a_peer_that_reads_nothing)
        await trio.testing.wait_all_tasks_blocked()
        pair.client._close_within_s = 60  # to announce the end
        begin = trio.current_time()
        await pair.client.aclose()
        assert trio.current_time() - begin < 30


async def test_a_cancelled_send_leaves_nothing_that_could_be_misread(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with shaken(contexts) as pair:
        with trio.move_on_after(0.05) as scope:
            await pair.client.send_all(bytes(50_000_000))
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError, match="cut off"):
            await pair.client.send_all(b"more")
        await pair.client.aclose()


async def test_an_unknown_certificate_is_refused_and_named(authority: trustme.CA) -> None:
    near, far = await sockets()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server = trio.SSLStream(far, server_context, server_side=True)
    client = BatchTLSStream(near, client_context, server_hostname="localhost")
    async with near, far, trio.open_nursery() as nursery:

        async def serve() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await server.do_handshake()  # gets our alert

        nursery.start_soon(serve)
        with pytest.raises(trio.BrokenResourceError, match="not valid for 'localhost'"):
            await client.do_handshake()


async def test_a_server_that_speaks_no_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    near, far = await sockets()
    client = BatchTLSStream(near, contexts[0], server_hostname="localhost")
    async with near, far:
        await far.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError, match="TLS handshake"):
            await client.do_handshake()


async def test_a_server_that_hangs_up_in_the_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    near, far = await sockets()
    client = BatchTLSStream(near, contexts[0], server_hostname="localhost")
    async with near:
        await far.aclose()
        with pytest.raises(trio.BrokenResourceError, match=r"TLS handshake|connection"):
            await client.do_handshake()


class HeldStream(CountingStream):
    """A socket whose second read waits until it is released, so that what comes meanwhile is read at once."""

    def __init__(self, inner: trio.SocketStream) -> None:
        super().__init__(inner)
        self.released = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.reads:
            await self.released.wait()
        return await super().receive_some(max_bytes)


async def test_what_came_with_the_end_of_the_handshake_is_read(authority: trustme.CA) -> None:
    client_context, server_context = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client_context.minimum_version = ssl.TLSVersion.TLSv1_3  # here the client has the last word, and may go on at once
    authority.configure_trust(client_context)
    authority.issue_cert("localhost").configure_cert(server_context)
    near, far = await sockets()
    held = HeldStream(far)
    client = trio.SSLStream(near, client_context, server_hostname="localhost")
    server = BatchTLSStream(held, server_context, server_side=True)
    async with near, far:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            await client.send_all(b"early")
            held.released.set()
        with trio.fail_after(60):
            assert await server.receive_some() == b"early"
