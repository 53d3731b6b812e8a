"""The whole reader against wsproto alone: any frames, cut anywhere, come to the same messages, pongs and end.

Deliberate differences, which the reference below is taught:

- A whole text frame is not judged to be UTF-8: whoever decodes the JSON does that.
- A message that is too long is refused as soon as a header says so (1009), whatever else may be wrong with it.
- A message inside a compressed one is a violation (1002); wsproto inflates it first, and may find that worse (1007).
- A ping inside a compressed message changes nothing; wsproto takes what follows it for uncompressed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from functools import partial

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate

from pipeline.model.errors import ProtocolViolation, SessionError
from pipeline.session.errors import ConnectionClosed
from pipeline.session.limits import Limits
from pipeline.session.websocket import upgrade
from tests.session.test_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, chunks

LIMIT = 70_000
RSV1 = 0x40
END_OF_STREAM = (1006, "the stream ended without a close frame")


@attrs.frozen
class Wire:
    """One frame. `content` is what a compressed part stands for, if it is sound."""

    first: int
    payload: bytes
    content: bytes | None = None
    mask: bytes = b""
    length_form: int = 0  # 126 or 127 for a longer one than need be

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def length(self) -> int:
        return len(self.payload)

    @property
    def header_bytes(self) -> int:
        """Up to the length."""
        return len(self.encode()) - len(self.mask) - len(self.payload)

    def encode(self, *, as_binary: bool = False) -> bytes:
        first = self.first & 0xF0 | BINARY if as_binary else self.first
        flag, length = 0x80 if self.mask else 0, len(self.payload)
        if length < 126 and not self.length_form:
            header = struct.pack("!BB", first, flag | length)
        elif length < 1 << 16 and self.length_form != 127:
            header = struct.pack("!BBH", first, flag | 126, length)
        else:
            header = struct.pack("!BBQ", first, flag | 127, length)
        return header + self.mask + self.payload


@attrs.frozen
class Claim(Wire):
    """The header of a frame whose payload never comes."""

    claimed: int = 0

    @property
    def length(self) -> int:
        return self.claimed

    def encode(self, *, as_binary: bool = False) -> bytes:
        return struct.pack("!BBQ", self.first, 127, self.claimed)


@attrs.frozen
class Outcome:
    messages: list[bytes]
    pongs: list[bytes]
    end: tuple[int, str] | str  # the peer's code and reason, or what is at fault
    told: int | None  # the code of our own close frame


texts = st.one_of(st.text(max_size=30), st.text(min_size=1, max_size=3).map(lambda text: text * 1000))
contents = st.one_of(
    texts.map(str.encode),
    st.binary(max_size=20),
    st.sampled_from([125, 126, 65535, 65536, LIMIT - 1, LIMIT, LIMIT + 1]).map(lambda size: b"x" * size),
)
heartbeats = st.builds(Wire, st.sampled_from([0x80 | PING, 0x80 | PONG]), st.binary(max_size=125))
close_payloads = st.one_of(
    st.just(b""),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason,
        st.one_of(
            st.sampled_from([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4004, 4999]),
            st.sampled_from([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]),
            st.integers(0, 65535),
        ),
        st.one_of(st.text(max_size=20).map(str.encode), st.binary(max_size=20), st.just(b"r" * 123)),
    ),
    st.binary(max_size=1),
)
# None of them ends a deflate stream: wsproto then loses the messages that follow.
garbage = st.sampled_from(
    [b"", b"\x00", b"\xfe\xff", b"\x06garbage", b"\x04\x00\x00", b"\x00\x01\x00\x00\x00a", b"z" * 126]
)
wild = st.builds(
    Wire,
    st.one_of(st.sampled_from([0x80, 0xC1, 0x82, 0x01, 0x00, 0x88, 0x89, 0x08, 0x09, 0x41, 0xC0]), st.integers(0, 255)),
    garbage,
    mask=st.sampled_from([b"", b"", b"mask"]),
    length_form=st.sampled_from([0, 0, 126, 127]),
)
claims = st.builds(
    Claim,
    st.sampled_from([0x81, 0x82, 0x01, 0xC1]),
    st.just(b""),
    claimed=st.sampled_from([LIMIT + 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
)


@attrs.frozen
class Conversation:
    frames: list[Wire]
    compression: str | None  # as agreed
    cut_off: int = 0  # bytes that are missing at the end

    def wire(self) -> bytes:
        wire = b"".join(frame.encode() for frame in self.frames)
        return wire[: max(0, len(wire) - self.cut_off)]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    compression = draw(
        st.sampled_from(
            [None, "", "; server_no_context_takeover", "; server_max_window_bits=9; client_max_window_bits=9"]
        )
    )
    deflater: zlib._Compress | None = None
    frames: list[Wire] = []
    for kind in draw(st.lists(st.sampled_from("mmmmmmmmhhhhcwl"), max_size=10)):
        if kind == "h":
            frames.append(draw(heartbeats))
        elif kind == "c":
            frames.append(Wire(0x80 | CLOSE, draw(close_payloads)))
        elif kind == "w":
            frames.append(draw(wild))
        elif kind == "l":
            frames.append(draw(claims))
        else:
            opcode = draw(st.sampled_from([TEXT, TEXT, BINARY]))
            compressed = compression is not None and draw(st.booleans())
            parts = draw(st.lists(contents, min_size=1, max_size=draw(st.sampled_from([1, 1, 3]))))
            if draw(st.booleans()):
                parts = [part.decode("utf-8", "replace").encode() for part in parts]
            for index, part in enumerate(parts):
                last, payload = index == len(parts) - 1, part
                first = (0x80 if last else 0) | (opcode if index == 0 else CONTINUATION)
                if compressed:
                    first |= RSV1 if index == 0 else 0
                    if deflater is None:
                        deflater = zlib.compressobj(wbits=-9 if compression and "9" in compression else -15)
                    payload = deflater.compress(part) + deflater.flush(zlib.Z_SYNC_FLUSH)
                    payload = payload[:-4] if last else payload
                frames.append(Wire(first, payload, part if compressed else None))
                if not last:
                    frames += draw(st.lists(heartbeats, max_size=2))
            if compression and "server_no_context_takeover" in compression:
                deflater = None
    return Conversation(frames, compression, draw(st.sampled_from([0, 0, 0, 1, 5])))


def too_long(frame: Wire, size: int) -> bool:
    """Whether its header says so, after `size` bytes of the message that it goes on with."""
    return (0 if frame.opcode >= CLOSE else size) + frame.length > LIMIT


def judged_by_wsproto(conversation: Conversation) -> Outcome:
    """What wsproto makes of the frames, with the deliberate differences."""
    extension = PerMessageDeflate()
    if conversation.compression is not None:
        extension.finalize(f"permessage-deflate{conversation.compression}")
        extension.server_max_window_bits = 15
    library = Connection(ConnectionType.CLIENT, [extension])
    messages: list[bytes] = []
    pongs: list[bytes] = []
    parts: list[bytes] | None = None
    size = 0
    inflating = False

    def outcome(end: tuple[int, str] | str, told: int | None) -> Outcome:
        return Outcome(messages, pongs, end, told)

    whole, missing = list(conversation.frames), conversation.cut_off
    begun: Wire | None = None
    while whole and missing > 0:
        begun = whole.pop()
        missing -= len(begun.encode())
    for frame in whole:
        if too_long(frame, size):
            return outcome("violation", 1009)
        if isinstance(frame, Claim):
            return outcome(END_OF_STREAM, 1000)
        if inflating and frame.first in (0x80 | PING, 0x80 | PONG) and not frame.mask and not frame.length_form:
            if frame.first == 0x80 | PING:
                pongs.append(frame.payload)
            continue
        if inflating and frame.opcode in (TEXT, BINARY):
            return outcome("violation", 1002)
        lone_text = parts is None and frame.opcode == TEXT and bool(frame.first & 0x80)
        library.receive_data(frame.encode(as_binary=lone_text))
        for event in library.events():
            if isinstance(event, CloseConnection):
                if library.state is ConnectionState.REMOTE_CLOSING:
                    return outcome((int(event.code), event.reason or ""), int(event.code))
                return outcome("violation", int(event.code))
            if isinstance(event, Ping):
                pongs.append(bytes(event.payload))
            elif isinstance(event, (TextMessage, BytesMessage)):
                data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                parts = [*(parts or []), data]
                inflating = bool(inflating or frame.first & RSV1)
                size += len(data if frame.content is None else frame.content) if inflating else len(frame.payload)
                if size > LIMIT:
                    return outcome("violation", 1009)
                if event.message_finished:
                    messages.append(b"".join(parts))
                    parts, size, inflating = None, 0, False
    if begun is not None and -missing >= begun.header_bytes and too_long(begun, size):
        return outcome("violation", 1009)
    return outcome(END_OF_STREAM, 1000)


class Peer(trio.abc.Stream):
    """A server that answers the upgrade, sends its chunks whatever it is told, and hangs up."""

    def __init__(self, to_send: list[bytes], extensions: str | None) -> None:
        self._to_send = to_send
        self._extensions = extensions
        self._answered = False
        self.request = b""
        self.received = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._answered:
            self.received += data
        else:
            self.request += data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._answered:
            return self._to_send.pop(0) if self._to_send else b""
        self._answered = True
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", self.request)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        extensions = f"Sec-WebSocket-Extensions: {self._extensions}\r\n" if self._extensions else ""
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + extensions.encode()
            + b"Sec-WebSocket-Accept: "
            + accept
            + b"\r\n\r\n"
            + (self._to_send.pop(0) if self._to_send else b"")
        )

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def sent(wire: bytes) -> list[tuple[int, bytes]]:
    """Opcodes and payloads of a client's frames, none of them long."""
    frames = []
    while wire:
        length = wire[1] & 0x7F
        mask, payload = wire[2:6], wire[6 : 6 + length]
        frames.append((wire[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))))
        wire = wire[6 + length :]
    return frames


async def read_all(peer: Peer, *, batch: int, compression: bool) -> Outcome:
    """What the transport makes of what `peer` sends."""
    limits = Limits(max_message_bytes=LIMIT, batch=batch)
    messages: list[bytes] = []
    async with trio.open_nursery() as wire:
        transport = await upgrade(wire, peer, "ws://fuzz.example/", limits=limits, compression=compression)
        try:
            while True:
                some = await transport.receive()
                assert 1 <= len(some) <= batch
                messages += some
        except ConnectionClosed as closed:
            end: tuple[int, str] | str = (closed.code, closed.reason)
        except ProtocolViolation:
            end = "violation"
        except SessionError as error:
            end = str(error)
        await transport.aclose()
    frames = sent(peer.received)
    pongs = [payload for opcode, payload in frames if opcode == PONG]
    closes = [payload for opcode, payload in frames if opcode == CLOSE]
    assert len(closes) <= 1
    assert len(frames) == len(pongs) + len(closes)
    told = None
    if closes:
        assert frames[-1][0] == CLOSE
        told = int.from_bytes(closes[0][:2], "big") if closes[0] else 1005
    return Outcome(messages, pongs, end, told)


@settings(max_examples=200)
@given(
    conversations(),
    st.lists(st.sampled_from([1, 2, 3, 7, 50, 1000, 70_000]), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_the_same_outcome_as_wsproto(conversation: Conversation, sizes: list[int], batch: int) -> None:
    wire = conversation.wire()
    sizes = [size + len(wire) // 100 for size in sizes]
    extensions = None if conversation.compression is None else f"permessage-deflate{conversation.compression}"
    peer = Peer(chunks(wire, sizes), extensions)
    read = partial(read_all, peer, batch=batch, compression=extensions is not None)
    outcome = trio.run(read, clock=trio.testing.MockClock(autojump_threshold=0))
    assert outcome == judged_by_wsproto(conversation)
