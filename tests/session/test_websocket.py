"""The transport against a real server on loopback, and against servers that misbehave byte by byte."""

from __future__ import annotations

import base64
import gc
import hashlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed as ServerSawClose
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from pipeline.model.errors import ConnectionLost, DeadlineMissed, ProtocolViolation
from pipeline.session.errors import ConnectionClosed, HandshakeRejected
from pipeline.session.limits import Limits
from pipeline.session.websocket import WebSocketTransport, connect
from tests.session.test_frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame

QUICK = Limits(connect=5, handshake=5, send=0.3, close=0.3, max_message_bytes=100_000)
WRONG_ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: wrong\r\n\r\n"
)
Handler = Callable[[WebSocketConnection], Awaitable[None]]
Script = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    yield
    gc.collect()  # warns of each socket that nobody has closed, and warnings are errors; other descriptors are others'


@asynccontextmanager
async def library_server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def accept(request: WebSocketRequest) -> None:
        await handler(await request.accept())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, accept, "127.0.0.1", 0, tls)
            yield server.port
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted_server(script: Script, *, ends: bool = True) -> AsyncIterator[int]:
    """Runs `script` on each connection, hangs up when it returns; waits for that unless the script never `ends`."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await script(stream)

    with trio.fail_after(60):
        async with trio.open_nursery() as handlers, trio.open_nursery() as accepting:
            accepting.start_soon(partial(trio.serve_listeners, serve, [listener], handler_nursery=handlers))
            yield listener.socket.getsockname()[1]
            accepting.cancel_scope.cancel()
            if not ends:
                handlers.cancel_scope.cancel()


async def upgrade(stream: trio.SocketStream, glued: bytes = b"", extra: bytes = b"") -> bytes:
    """Answer the upgrade; returns the request."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += await stream.receive_some()
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + extra
        + b"Sec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
        + glued
    )
    return request


async def until_hang_up(stream: trio.SocketStream) -> bytes:
    received = b""
    with suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            received += data
    return received


@asynccontextmanager
async def connected(
    port: int, limits: Limits = QUICK, tls: ssl.SSLContext | None = None, *, compression: bool = False
) -> AsyncIterator[WebSocketTransport]:
    url = f"ws://127.0.0.1:{port}/stream?a=b" if tls is None else f"wss://localhost:{port}/stream?a=b"
    async with trio.open_nursery() as wire:
        transport = await connect(wire, url, limits=limits, tls=tls, compression=compression)
        try:
            yield transport
        finally:
            await transport.aclose()


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and its client's."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def receive_count(transport: WebSocketTransport, count: int) -> list[bytes]:
    messages: list[bytes] = []
    while len(messages) < count:
        messages += await transport.receive()
    return messages


@pytest.mark.parametrize("secure", [False, True])
async def test_echo_of_every_size(secure: bool) -> None:
    server_tls, client_tls = tls_contexts() if secure else (None, None)

    async def echo(server: WebSocketConnection) -> None:
        while True:
            try:
                await server.send_message(await server.get_message())
            except ServerSawClose as closed:
                codes.append(closed.reason.code if closed.reason else 0)
                return

    codes: list[int] = []
    texts = ["", "ä", *("x" * size for size in (125, 126, 127, 65535, 65536, 99_999))]
    async with library_server(echo, server_tls) as port, connected(port, tls=client_tls) as transport:
        for text in texts:
            await transport.send(text)
            assert await transport.receive() == [text.encode()]
        await transport.aclose()
    assert codes == [1000]


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_messages_leave_before_other_tasks_have_their_turn(secure: bool) -> None:
    texts = [f"message {number}" for number in range(3)]
    received: list[object] = []

    async def handler(server: WebSocketConnection) -> None:
        received.extend([await server.get_message() for _ in texts])
        await server.send_message("all")

    server_tls, client_tls = tls_contexts() if secure else (None, None)
    async with library_server(handler, server_tls) as port, connected(port, tls=client_tls) as transport:
        with trio.testing.assert_no_checkpoints():
            for text in texts:
                await transport.send(text)
        assert await transport.receive() == [b"all"]
    assert received == texts


async def test_nothing_is_sent_behind_our_good_bye() -> None:
    async def handler(server: WebSocketConnection) -> None:
        with suppress(ServerSawClose):
            await server.get_message()

    async with library_server(handler) as port, connected(port) as transport:
        await transport.aclose()
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await transport.send("late")


async def test_request_and_socket_options() -> None:
    request = b""

    async def script(stream: trio.SocketStream) -> None:
        nonlocal request
        request = await upgrade(stream)
        await until_hang_up(stream)

    async with scripted_server(script) as port, trio.open_nursery() as wire:
        url = f"ws://127.0.0.1:{port}/v5/private?max_active_time=1m"
        transport = await connect(wire, url, limits=QUICK, headers=[("X-Simulated", "1")])
        raw = transport._raw
        assert isinstance(raw, trio.SocketStream)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await transport.aclose()
    assert request.startswith(b"GET /v5/private?max_active_time=1m HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in request
    assert b"X-Simulated: 1\r\n" in request
    assert b"permessage-deflate" not in request


async def test_one_read_brings_all_that_came_and_no_more_than_a_batch() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, b"".join(frame(TEXT, b"%d" % index) for index in range(600)))
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port, Limits(batch=256, close=0.1)) as transport:
        batches = [await transport.receive() for _ in range(3)]
    assert [len(batch) for batch in batches] == [256, 256, 88]
    assert list(chain.from_iterable(batches)) == [b"%d" % index for index in range(600)]


async def test_receive_lets_others_run_even_if_nothing_has_to_be_read() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, frame(TEXT, b"x") * 50)
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port, Limits(batch=1, close=0.1)) as transport:
        for _ in range(50):
            with trio.testing.assert_checkpoints():
                assert await transport.receive() == [b"x"]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
async def test_order_is_kept_between_plain_and_other_messages(chunk: int) -> None:
    wire = (
        frame(TEXT, b"1")
        + frame(PING, b"are you there")
        + frame(TEXT, b"2a", fin=False)
        + frame(PING, b"still")
        + frame(CONTINUATION, b"2b")
        + frame(TEXT, b"3")
        + frame(BINARY, b"4\x00")
        + frame(TEXT, b"5")
        + frame(CLOSE, struct.pack("!H", 4004) + b"No data received in 30s")
    )
    answers = b""

    async def script(stream: trio.SocketStream) -> None:
        nonlocal answers
        await upgrade(stream, wire[:3])
        for at in range(3, len(wire), chunk):
            await stream.send_all(wire[at : at + chunk])
        answers = await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port) as transport:
        assert await receive_count(transport, 5) == [b"1", b"2a2b", b"3", b"4\x00", b"5"]
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="4004 No data received in 30s") as closed:
                await transport.receive()
        assert (closed.value.code, closed.value.reason) == (4004, "No data received in 30s")
        with pytest.raises(ConnectionClosed):
            await transport.send("too late")
    assert opcodes(answers) == [0xA, 0xA, CLOSE]


def opcodes(wire: bytes) -> list[int]:
    """Of short masked frames."""
    found = []
    while wire:
        found.append(wire[0] & 0x0F)
        wire = wire[6 + (wire[1] & 0x7F) :]
    return found


async def test_close_by_a_real_server_leaves_nothing_open() -> None:
    async def close(server: WebSocketConnection) -> None:
        await server.send_message("last words")
        await server.aclose(4007, "API key deleted")

    async with library_server(close) as port, connected(port) as transport:
        assert await transport.receive() == [b"last words"]
        with pytest.raises(ConnectionClosed) as closed:
            await transport.receive()
        assert closed.value.code == 4007


async def test_vanishing_peer() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, frame(TEXT, b"whole") + frame(TEXT, b"cut off")[:5])

    async with scripted_server(script) as port, connected(port) as transport:
        assert await transport.receive() == [b"whole"]
        with pytest.raises(ConnectionClosed) as closed:
            await transport.receive()
        assert closed.value.code == 1006


async def test_reset_by_the_peer() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with scripted_server(script) as port, connected(port) as transport:
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}.*reset"):
            await transport.receive()


async def test_a_silent_peer_cannot_keep_us_from_closing() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await trio.sleep_forever()

    async with scripted_server(script, ends=False) as port, connected(port) as transport:
        begin = trio.current_time()
        await transport.aclose()
        assert 0.2 < trio.current_time() - begin < 20


async def test_good_bye_is_said_even_when_cancelled() -> None:
    answers = b""

    async def script(stream: trio.SocketStream) -> None:
        nonlocal answers
        await upgrade(stream)
        answers = await stream.receive_some()
        await stream.send_all(frame(CLOSE, struct.pack("!H", 1000)))
        answers += await until_hang_up(stream)

    async with scripted_server(script) as port:
        with trio.CancelScope() as scope:
            async with connected(port, Limits(close=5)) as transport, trio.open_nursery() as nursery:
                nursery.start_soon(transport.receive)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert opcodes(answers) == [CLOSE]


async def test_closing_skips_messages_that_are_still_on_their_way() -> None:
    # Read from its middle, the last message looks like the start of one that swallows the good-bye.
    tail = frame(BINARY, frame(BINARY, bytes(65535))[:4])

    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, frame(TEXT, b"unread") * 1000 + tail[:2])
        await stream.receive_some()
        await stream.send_all(tail[2:] + frame(CLOSE, b""))
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port, Limits(close=30)) as transport:
        assert len(await transport.receive()) == 256
        await receive_count(transport, 744)
        begin = trio.current_time()
        await transport.aclose()
        assert trio.current_time() - begin < 15  # without the bound of 30 s


async def test_a_ping_after_our_good_bye_does_not_cut_the_peers_off() -> None:
    heard_out = False

    async def script(stream: trio.SocketStream) -> None:
        nonlocal heard_out
        await upgrade(stream)
        await stream.receive_some()
        await stream.send_all(frame(PING, b""))
        await trio.testing.wait_all_tasks_blocked()
        heard_out = True
        await stream.send_all(frame(CLOSE, b""))
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port, Limits(close=30)) as transport:
        begin = trio.current_time()
        await transport.aclose()
        assert heard_out
        assert trio.current_time() - begin < 15  # without the bound of 30 s


async def test_closing_under_a_reader() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await until_hang_up(stream)

    async def read(transport: WebSocketTransport) -> None:
        with pytest.raises(ConnectionLost):
            await transport.receive()

    async with scripted_server(script) as port, connected(port) as transport, trio.open_nursery() as nursery:
        nursery.start_soon(read, transport)
        await trio.testing.wait_all_tasks_blocked()
        await transport.aclose()


async def test_a_peer_that_stops_reading_is_given_up() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await trio.sleep_forever()

    async with (
        scripted_server(script, ends=False) as port,
        connected(port) as transport,
        trio.open_nursery() as nursery,
    ):

        async def read() -> None:
            with pytest.raises(ConnectionLost, match=r"has not read for 0.3 s"):
                await transport.receive()

        nursery.start_soon(read)
        with pytest.raises(ConnectionLost, match=r"has not read for 0.3 s"):
            await transport.send("x" * 50_000_000)


async def test_a_flood_of_pings_without_reading_the_pongs_is_bounded() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(frame(PING, b"x" * 125) * 500_000)

    async with scripted_server(script) as port, connected(port) as transport:
        with pytest.raises(ConnectionLost, match="has not read"):
            await transport.receive()
        assert len(transport._inlet._fed) < 200_000


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"\xff\xff\xff\xff garbage", "."),
        (frame(TEXT, b"masked", mask=b"abcd"), "masked"),
        (frame(TEXT, b"zipped", rsv=0x40), "Reserved bit"),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), "expected CONTINUATION"),
        (
            frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"x" * 99_999, fin=False) + frame(CONTINUATION, b"x"),
            "100001 bytes",
        ),
        (frame(TEXT, b"\xff", fin=False) + frame(CONTINUATION, b"."), "utf-8"),
        (b"\x81\x7f" + struct.pack("!Q", 100_001), "100001 bytes or more; 100000 accepted"),
        (frame(CLOSE, b"\x03"), "half a code"),
    ],
)
async def test_violations_end_the_connection_after_what_was_good(wire: bytes, why: str) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, frame(TEXT, b"good") + wire)
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port) as transport:
        assert await transport.receive() == [b"good"]
        with pytest.raises(ProtocolViolation, match=f"127.0.0.1:{port}: .*{why}"):
            await transport.receive()


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x81\x7f" + struct.pack("!Q", 100_001), 1009),
        (frame(TEXT, b"zipped", rsv=0x40), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(TEXT, b"\xff", fin=False), 1007),
    ],
)
async def test_the_peer_is_told_what_it_did_wrong(wire: bytes, code: int) -> None:
    answers, heard_out = b"", False

    async def script(stream: trio.SocketStream) -> None:
        nonlocal answers, heard_out
        await upgrade(stream, wire)
        answers = await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(frame(TEXT, b"x" * 125) * 10)  # unread, it might take our last words back
        heard_out = True

    patient = Limits(close=30, max_message_bytes=100_000)
    async with scripted_server(script) as port, connected(port, patient) as transport:
        with pytest.raises(ProtocolViolation):
            await transport.receive()
        begin = trio.current_time()
        await transport.aclose()
        assert heard_out
        assert trio.current_time() - begin < 15  # without the bound of 30 s
    mask, masked_code = answers[2:6], answers[6:8]
    assert int.from_bytes(bytes(a ^ b for a, b in zip(mask, masked_code, strict=False)), "big") == code


async def test_a_silent_violator_cannot_keep_us_from_closing() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, frame(TEXT, b"masked", mask=b"abcd"))
        await trio.sleep_forever()

    async with scripted_server(script, ends=False) as port, connected(port) as transport:
        with pytest.raises(ProtocolViolation):
            await transport.receive()
        begin = trio.current_time()
        await transport.aclose()
        assert 0.2 < trio.current_time() - begin < 20


@pytest.mark.parametrize(
    "wire",
    [
        frame(PING, b"", fin=False),
        frame(PING, b"", rsv=0x20),
        frame(PING, b"x" * 126),
        frame(PING, b"masked", mask=b"abcd"),
        frame(0xB, b"reserved"),
        frame(TEXT, b"begun", rsv=0x10, fin=False),
        frame(TEXT, b"\xff", fin=False),
    ],
)
async def test_a_violation_is_noticed_at_once_and_nothing_is_taken_after_it(wire: bytes) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, wire + frame(TEXT, b"after"))
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port) as transport:
        with pytest.raises(ProtocolViolation):
            await transport.receive()


async def serve_compressed(
    stream: trio.SocketStream, texts: list[str], extension: PerMessageDeflate, chunk: int
) -> None:
    """A wsproto server that sends `texts`, its answer to the upgrade included, in pieces of `chunk` bytes."""
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(await stream.receive_some())
    (request,) = server.events()
    assert isinstance(request, Request)
    wire = server.send(AcceptConnection(extensions=[extension]))
    assert extension.enabled()
    for index, text in enumerate(texts):
        middle = len(text) // 2
        wire += server.send(Ping(b"%d" % index))
        if index % 3 == 2:
            wire += server.send(TextMessage(text[:middle], message_finished=False)) + server.send(
                TextMessage(text[middle:])
            )
        else:
            wire += server.send(TextMessage(text))
    for at in range(0, len(wire), chunk):
        await stream.send_all(wire[at : at + chunk])
    received = await stream.receive_some()
    await stream.send_all(server.send(TextMessage("too late")))
    while True:
        server.receive_data(received)
        for event in server.events():
            if isinstance(event, CloseConnection):
                await stream.send_all(server.send(event.response()))
                return
        received = await stream.receive_some()


@pytest.mark.parametrize("chunk", [1, 1 << 16])
@pytest.mark.parametrize(
    "extension",
    [
        {},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        {"server_max_window_bits": 9, "client_max_window_bits": 9},
    ],
    ids=str,
)
async def test_compressed_messages(extension: dict[str, int], chunk: int) -> None:
    texts = ["", "tick", "tick" * 100, "ä" * 70, "tick" * 20_000, "tock" * 20]
    ended = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        await serve_compressed(stream, texts, PerMessageDeflate(**extension), chunk)  # type: ignore[arg-type]
        ended.set()
        await until_hang_up(stream)

    limits = Limits(close=30, max_message_bytes=100_000)
    async with scripted_server(script) as port, connected(port, limits, compression=True) as transport:
        assert await receive_count(transport, len(texts)) == [text.encode() for text in texts]
        begin = trio.current_time()
        await transport.aclose()
        assert trio.current_time() - begin < 15  # a compressed message on its way does not end the good-bye
        with trio.fail_after(30):
            await ended.wait()


async def test_a_server_that_does_not_compress() -> None:
    request = b""

    async def script(stream: trio.SocketStream) -> None:
        nonlocal request
        request = await upgrade(stream, frame(TEXT, b"plain") + frame(TEXT, b"\x00", rsv=0x40))
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port, compression=True) as transport:
        assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" in request
        assert await transport.receive() == [b"plain"]
        with pytest.raises(ProtocolViolation, match="Reserved bit"):
            await transport.receive()


async def test_a_compressed_message_that_cannot_be_read() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, frame(TEXT, b"\xff", rsv=0x40), b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        await until_hang_up(stream)

    async with scripted_server(script) as port, connected(port, compression=True) as transport:
        for _ in range(2):
            with pytest.raises(ProtocolViolation, match=f"127.0.0.1:{port}: a message cannot be inflated"):
                await transport.receive()


@pytest.mark.parametrize(
    "extra",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n",
        b"Sec-WebSocket-Extensions: permessage-deflate;\r\n server_max_window_bits=99\r\n",
        b"sec-websocket-extensions:permessage-deflate\r\nX: y\r\nSEC-WEBSOCKET-EXTENSIONS: permessage-deflate\r\n",
    ],
)
async def test_compression_that_was_not_offered_so(extra: bytes) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, extra=extra)
        await until_hang_up(stream)

    async with scripted_server(script) as port:
        with pytest.RaisesGroup(pytest.RaisesExc(ProtocolViolation, match=f"127.0.0.1:{port}: .*permessage-deflate")):
            async with connected(port, compression=True):
                pass


@pytest.mark.parametrize("chunk", [1, 1 << 16])
@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\ntoo often", 403, b"too often"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 401, b""),
        (b"HTTP/1.1 429 Slow Down\r\nConnection: close\r\n\r\nuntil the end", 429, b"until the end"),
        (b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n", 503, b"busy"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ],
)
async def test_http_answers_to_the_upgrade(answer: bytes, status: int, body: bytes, chunk: int) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for at in range(0, len(answer), chunk):
            await stream.send_all(answer[at : at + chunk])

    async with scripted_server(script) as port:
        with pytest.RaisesGroup(pytest.RaisesExc(HandshakeRejected, match=f"127.0.0.1:{port}.*{status}")) as group:
            async with connected(port):
                pass
    rejected = group.value.exceptions[0]
    assert isinstance(rejected, HandshakeRejected)
    assert (rejected.status, rejected.body) == (status, body)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionLost),
        (b"HTTP/1.1 101 Switch", ConnectionLost),
        (b"220 smtp.example ESMTP\r\n\r\n", ProtocolViolation),
        (WRONG_ACCEPT, ProtocolViolation),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, ProtocolViolation),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, HandshakeRejected),
    ],
)
async def test_nonsense_in_answer_to_the_upgrade(answer: bytes, error: type[Exception]) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(answer)

    async with scripted_server(script) as port:
        with pytest.RaisesGroup(pytest.RaisesExc(error, match=f"127.0.0.1:{port}")):
            async with connected(port):
                pass


async def test_an_extension_that_we_did_not_offer() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await upgrade(stream, extra=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        await until_hang_up(stream)

    async with scripted_server(script) as port:
        with pytest.RaisesGroup(pytest.RaisesExc(ProtocolViolation, match="unrecognized extension")):
            async with connected(port):
                pass


async def test_a_server_that_never_answers() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with scripted_server(script, ends=False) as port:
        for url, what in (("ws", "WebSocket upgrade"), ("wss", "TLS handshake")):
            with pytest.RaisesGroup(
                pytest.RaisesExc(DeadlineMissed, match=f"127.0.0.1:{port}: {what}: not within 0.1 s")
            ):
                async with trio.open_nursery() as wire:
                    await connect(wire, f"{url}://127.0.0.1:{port}/", limits=Limits(handshake=0.1))


async def test_no_one_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionLost, match=f"127.0.0.1:{port}: .*refused")):
            async with connected(port):
                pass


async def test_an_unknown_host() -> None:
    async with trio.open_nursery() as wire:
        with pytest.raises(ConnectionLost, match=r"nowhere\.invalid"):
            await connect(wire, "wss://nowhere.invalid/ws", limits=QUICK)


async def test_an_untrusted_certificate() -> None:
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(server_tls)

    async def never(server: WebSocketConnection) -> None:
        raise AssertionError

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve() -> None:
        async with await listener.accept() as stream:
            with pytest.raises(trio.BrokenResourceError):
                await trio.SSLStream(stream, server_tls, server_side=True).do_handshake()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ConnectionLost, match=f"localhost:{port}: .*certificate verify failed"):
            await connect(nursery, f"wss://localhost:{port}/", limits=QUICK, tls=ssl.create_default_context())


@pytest.mark.parametrize("url", ["http://example.org/", "wss:///path", "example.org"])
async def test_not_a_websocket_url(url: str) -> None:
    async with trio.open_nursery() as wire:
        with pytest.raises(ValueError, match="not a WebSocket URL"):
            await connect(wire, url, limits=QUICK)
