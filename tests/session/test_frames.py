"""The splitter against wsproto: cut anywhere, both see the same messages in the same order."""

from __future__ import annotations

import struct
import tracemalloc

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from pipeline.model.errors import ProtocolViolation
from pipeline.session.frames import Frame, FrameSplitter, text_frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LIMIT = 1 << 20


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bytes = b"") -> bytes:
    first = (0x80 if fin else 0) | rsv | opcode
    flag = 0x80 if mask else 0
    if len(payload) < 126:
        header = bytes([first, flag | len(payload)])
    elif len(payload) < 1 << 16:
        header = bytes([first, flag | 126]) + struct.pack("!H", len(payload))
    else:
        header = bytes([first, flag | 127]) + struct.pack("!Q", len(payload))
    return header + mask + payload


def text_of(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=8).map(lambda seed: (seed.hex().encode() * (length // 2 + 1))[:length])


payloads = st.one_of(
    st.integers(0, 300).flatmap(text_of), st.sampled_from([125, 126, 127, 65535, 65536, 70000]).flatmap(text_of)
)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)).map(lambda it: frame(*it))


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """One message: whole or in fragments, perhaps with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, TEXT, TEXT, BINARY]))
    parts = draw(st.lists(payloads, min_size=1, max_size=draw(st.sampled_from([1, 1, 1, 4]))))
    wire = b""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        wire += frame(opcode if index == 0 else CONTINUATION, part, fin=last)
        if not last:
            wire += b"".join(draw(st.lists(controls, max_size=2)))
    return wire


@st.composite
def stream(draw: st.DrawFn) -> bytes:
    wire = b"".join(draw(st.lists(st.one_of(message(), controls), max_size=12)))
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1008, 3000, 4004]))
        wire += frame(CLOSE, struct.pack("!H", code) + draw(st.text(max_size=20)).encode())
    return wire


@attrs.define
class Reader:
    """What the transport does with a splitter, with wsproto in the place of the library."""

    splitter: FrameSplitter = attrs.field(factory=lambda: FrameSplitter(LIMIT))
    library: Connection = attrs.field(factory=lambda: Connection(ConnectionType.CLIENT))
    messages: list[bytes] = attrs.field(factory=list)
    parts: list[bytes] = attrs.field(factory=list)
    closed: tuple[int, str] | None = None
    limit: int = 3
    passed: list[Frame] = attrs.field(factory=list)

    def feed(self, data: bytes) -> None:
        self.splitter.feed(data)
        while True:
            texts, other = self.splitter.take(self.limit)
            assert len(texts) <= self.limit
            self.messages += texts
            if other is not None:
                self.passed.append(other)
                if other.is_close:
                    self.closed = other.close_code()
                self.judge(other.raw)
            elif not texts:
                return

    def judge(self, data: bytes) -> None:
        self.library.receive_data(data)
        for event in self.library.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                part = event.data
                self.parts.append(part.encode() if isinstance(part, str) else bytes(part))
                if event.message_finished:
                    self.messages.append(b"".join(self.parts))
                    self.parts.clear()
            elif isinstance(event, CloseConnection):
                closed = (int(event.code), event.reason or "")
                assert self.closed in (None, closed)
                self.closed = closed


def chunks(wire: bytes, sizes: list[int]) -> list[bytes]:
    cut: list[bytes] = []
    at = 0
    while at < len(wire):
        size = sizes[len(cut) % len(sizes)]
        cut.append(wire[at : at + size])
        at += size
    return cut


@given(stream(), st.lists(st.sampled_from([1, 2, 3, 5, 50, 1000, 70000]), min_size=1, max_size=6), st.integers(1, 20))
def test_same_messages_as_wsproto_however_cut(wire: bytes, sizes: list[int], limit: int) -> None:
    sizes = [size if len(wire) < 5000 else size + 500 for size in sizes]
    expected, split = Reader(), Reader(limit=limit)
    expected.judge(wire)
    for chunk in chunks(wire, sizes):
        split.feed(chunk)
    assert split.messages == expected.messages
    assert split.closed == expected.closed


def test_texts_bypass_the_library_and_the_rest_arrives_unchanged() -> None:
    ping, binary = frame(PING, b"x"), frame(BINARY, b"\x00\x01")
    reader = Reader()
    reader.feed(frame(TEXT, b"a") + ping + frame(TEXT, b"b") + binary + frame(TEXT, b""))
    assert reader.messages == [b"a", b"b", b"\x00\x01", b""]
    assert [other.raw for other in reader.passed] == [ping, binary]


@pytest.mark.parametrize(
    "wire",
    [
        frame(TEXT, b"zipped", rsv=0x40),
        frame(TEXT, b"masked", mask=b"abcd"),
        frame(TEXT, b"m" * 130, mask=b"abcd"),
        b"\x81\x7e\x00\x05hello",  # 16-bit length where 7 bits do
        b"\x81\x7f" + struct.pack("!Q", 5) + b"hello",
        b"\x81\x7f" + struct.pack("!Q", 300) + b"h" * 300,
        frame(0x3, b"reserved opcode"),
        frame(PING, b"", fin=False),
        frame(TEXT, b"begun", fin=False) + frame(TEXT, b"not continued"),
    ],
)
def test_irregular_frames_are_left_to_the_library(wire: bytes) -> None:
    reader = Reader()
    reader.feed(wire)
    assert reader.messages == []
    assert b"".join(other.raw for other in reader.passed) == wire
    assert reader.closed is not None
    assert reader.closed[0] == 1002


@pytest.mark.parametrize("length", [11, 126, 65535, 65536, 1 << 40])
def test_too_long_is_known_from_the_header_and_after_what_came_before(length: int) -> None:
    splitter = FrameSplitter(10)
    header = frame(TEXT, b"x" * length)[:4] if length < 65536 else b"\x81\x7f" + struct.pack("!Q", length)
    splitter.feed(frame(TEXT, b"0123456789") + header)
    assert splitter.take(9) == ([b"0123456789"], None)
    for _ in range(2):
        with pytest.raises(ProtocolViolation, match=f"{length} bytes or more; 10 accepted"):
            splitter.take(9)


def test_fragments_count_together_but_control_frames_between_do_not() -> None:
    splitter = FrameSplitter(10)
    splitter.feed(frame(TEXT, b"123456", fin=False) + frame(PING, b"12345678"))
    assert splitter.take(9)[1] is not None
    assert splitter.take(9)[1] is not None
    splitter.feed(frame(CONTINUATION, b"12345")[:2])
    with pytest.raises(ProtocolViolation, match="11 bytes"):
        splitter.take(9)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", (1005, "")),
        (struct.pack("!H", 4004), (4004, "")),
        (struct.pack("!H", 4001) + "nein·".encode(), (4001, "nein·")),
    ],
)
def test_close_code(payload: bytes, expected: tuple[int, str]) -> None:
    assert Frame(frame(CLOSE, payload), 2).close_code() == expected


@pytest.mark.parametrize(
    "raw",
    [
        frame(CLOSE, b"\x03"),
        frame(CLOSE, b"\x03\xe8\xff"),
        *(frame(CLOSE, struct.pack("!H", code)) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
        frame(CLOSE, struct.pack("!H", 1000), rsv=0x10),
        frame(CLOSE, struct.pack("!H", 1000), fin=False),
        frame(CLOSE, struct.pack("!H", 1000), mask=b"abcd"),
        frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124),
    ],
)
def test_unsound_close_frames(raw: bytes) -> None:
    splitter = FrameSplitter(LIMIT)
    splitter.feed(raw)
    close = splitter.take(1)[1]
    assert close is not None
    assert close.is_close
    with pytest.raises(ProtocolViolation):
        close.close_code()


@pytest.mark.parametrize("length", [11, 200, 70_000])
def test_a_whole_message_that_is_too_long_is_not_taken_either(length: int) -> None:
    splitter = FrameSplitter(length - 1)
    splitter.feed(frame(TEXT, b"x" * length))
    with pytest.raises(ProtocolViolation, match=f"{length} bytes"):
        splitter.take(9)


def test_a_big_frame_in_single_bytes_is_neither_copied_for_each_nor_kept_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joins = 0
    join = FrameSplitter._join

    def count(self: FrameSplitter) -> None:
        nonlocal joins
        joins += 1
        join(self)

    monkeypatch.setattr(FrameSplitter, "_join", count)
    splitter, wire = FrameSplitter(LIMIT), frame(TEXT, b"x" * 70_000)
    tracemalloc.start()
    for index in range(len(wire) - 1):
        splitter.feed(wire[index : index + 1])
        assert splitter.take(9) == ([], None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(wire)
    splitter.feed(wire[-1:])
    assert splitter.take(9) == ([b"x" * 70_000], None)
    assert joins <= 4  # its first two bytes, its length, all of it


@given(
    st.text(max_size=200) | st.sampled_from([125, 126, 127, 65535, 65536, 70000]).map("x".__mul__),
    st.binary(min_size=4, max_size=4),
)
def test_what_we_send_is_what_a_server_reads(text: str, mask: bytes) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(text_frame(text, mask))
    events = list(server.events())
    assert "".join(str(event.data) for event in events if isinstance(event, TextMessage)) == text
    assert [event.message_finished for event in events if isinstance(event, TextMessage)][-1:] == [True]
