"""Compressed messages: what is agreed, what they inflate to, and that hostile ones are bounded."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from pipeline.model.errors import ProtocolViolation
from pipeline.session.deflate import OFFER, Inflater, agreed
from pipeline.session.errors import MessageRefused
from pipeline.session.frames import FrameSplitter
from tests.session.test_frames import BINARY, CONTINUATION, PING, TEXT, frame

RSV1 = 0x40
LIMIT = 100_000


def deflate(*parts: bytes) -> list[bytes]:
    """The parts of one message, compressed as one."""
    stream = zlib.compressobj(wbits=-15)
    wire = [stream.compress(part) + stream.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*wire[:-1], wire[-1][:-4]]


def take_all(splitter: FrameSplitter) -> tuple[list[bytes], list[bytes]]:
    """Whole texts, and the raw frames of all else."""
    texts, frames = [], []
    while True:
        some, other = splitter.take(9)
        texts += some
        if other is not None:
            frames.append(other.raw)
        elif not some:
            return texts, frames


server_parameters = st.fixed_dictionaries(
    {
        "client_no_context_takeover": st.booleans(),
        "server_no_context_takeover": st.booleans(),
        "client_max_window_bits": st.integers(9, 15),
        "server_max_window_bits": st.integers(9, 15),
    }
)
messages = st.lists(st.tuples(st.text(max_size=40), st.integers(1, 2000)).map(lambda it: it[0] * it[1]), max_size=8)


@given(server_parameters, messages)
def test_all_that_wsproto_can_negotiate_and_compress(parameters: dict[str, int], texts: list[str]) -> None:
    server = PerMessageDeflate(**parameters)  # type: ignore[arg-type]
    answer = server.accept(OFFER)
    sender = FrameProtocol(client=False, extensions=[server])
    splitter = FrameSplitter(1 << 20, agreed([f"permessage-deflate; {answer}"]))
    for text in texts:
        wire = bytes(sender.send_data(text))
        assert wire[0] == 0xC1
        splitter.feed(wire)
    assert take_all(splitter) == ([text.encode() for text in texts], [])


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        ("f2 48 cd c9 c9 07 00", b"Hello"),
        ("00 05 00 fa ff 48 65 6c 6c 6f 00", b"Hello"),  # not compressed
        ("f3 48 cd c9 c9 07 00 00", b"Hello"),  # a final block instead of a flush
        ("f2 48 05 00 00 00 ff ff ca c9 c9 07 00", b"Hello"),  # two blocks
        ("f3 48 cd c9 c9 07 00 f2 48 cd c9 c9 07 00", b"HelloHello"),  # and another block after it
        ("00", b""),
        ("02 00", b""),
    ],
)
def test_examples_of_the_standard_and_one_more(payload: str, content: bytes) -> None:
    inflater = Inflater()
    for _ in range(2):
        assert inflater.inflate(bytes.fromhex(payload), len(content), last=True) == content


def test_context_is_kept_unless_agreed_otherwise() -> None:
    stream = zlib.compressobj(wbits=-15)
    first, second = (stream.compress(b"Hello") + stream.flush(zlib.Z_SYNC_FLUSH)[:-4] for _ in range(2))
    keeping, forgetting = agreed(["permessage-deflate"]), agreed(["permessage-deflate; server_no_context_takeover"])
    assert keeping is not None
    assert forgetting is not None
    assert keeping.inflate(first, 9, last=True) == forgetting.inflate(first, 9, last=True) == b"Hello"
    assert keeping.inflate(second, 9, last=True) == b"Hello"
    with pytest.raises(MessageRefused, match="too far back"):
        forgetting.inflate(second, 9, last=True)


def test_compressed_plain_and_other_frames_stay_in_order() -> None:
    begin, middle, end = deflate(b"2a", b"2b", b"2c")
    (whole,) = deflate(b"1")
    (binary,) = deflate(b"\x00\x01")
    splitter = FrameSplitter(LIMIT, Inflater(keeps_context=False))
    wire = (
        frame(TEXT, b"0")
        + frame(TEXT, whole, rsv=RSV1)
        + frame(TEXT, begin, rsv=RSV1, fin=False)
        + frame(PING, b"between")
        + frame(CONTINUATION, middle, fin=False)
        + frame(CONTINUATION, end)
        + frame(TEXT, b"3")
        + frame(BINARY, binary, rsv=RSV1)
        + frame(TEXT, whole, rsv=RSV1)
        + frame(TEXT, b"5a", fin=False)
        + frame(CONTINUATION, b"5b")
    )
    seen: list[bytes] = []
    for at in range(len(wire)):
        splitter.feed(wire[at : at + 1])
        texts, other = splitter.take(9)
        seen += texts
        if other is not None:
            seen.append(other.raw)
    assert seen == [
        b"0",
        b"1",
        frame(TEXT, b"2a", fin=False),
        frame(PING, b"between"),
        frame(CONTINUATION, b"2b", fin=False),
        frame(CONTINUATION, b"2c"),
        b"3",
        frame(BINARY, b"\x00\x01"),
        b"1",
        frame(TEXT, b"5a", fin=False),
        frame(CONTINUATION, b"5b"),
    ]


@pytest.mark.parametrize(
    "wire",
    [
        frame(PING, b"", rsv=RSV1),
        frame(CONTINUATION, b"", rsv=RSV1),
        frame(TEXT, b"\x00", rsv=RSV1 | 0x20),
        frame(TEXT, b"\x00", rsv=RSV1, mask=b"abcd"),
        frame(0x3, b"\x00", rsv=RSV1),
        b"\xc1\x7e\x00\x01\x00",  # 16-bit length where 7 bits do
        b"\x41\x7e\x00\x01\x00",
    ],
)
def test_irregular_frames_are_not_inflated(wire: bytes) -> None:
    splitter = FrameSplitter(LIMIT, Inflater())
    splitter.feed(wire)
    assert take_all(splitter) == ([], [wire])


def test_nothing_new_is_inflated_inside_a_message() -> None:
    splitter = FrameSplitter(LIMIT, Inflater())
    (whole,) = deflate(b"new")
    begun, new = frame(TEXT, b"begun", fin=False), frame(TEXT, whole, rsv=RSV1)
    splitter.feed(begun + new)
    assert take_all(splitter) == ([], [begun, new])


@pytest.mark.parametrize("last", [True, False])
def test_a_bomb_is_not_inflated_beyond_the_limit(last: bool) -> None:
    (bomb,) = deflate(bytes(20_000_000))
    splitter = FrameSplitter(LIMIT, Inflater())
    splitter.feed(frame(TEXT, b"good") + frame(TEXT, bomb, rsv=RSV1, fin=last))
    tracemalloc.start()
    assert splitter.take(9) == ([b"good"], None)
    for _ in range(2):
        with pytest.raises(MessageRefused, match="inflates to more than the 100000 bytes") as refused:
            splitter.take(9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * LIMIT
    assert refused.value.close_code == 1009


def test_fragments_of_a_compressed_message_count_together_when_inflated() -> None:
    begin, end = deflate(bytes(60_000), bytes(40_001))
    splitter = FrameSplitter(LIMIT, Inflater())
    splitter.feed(frame(TEXT, begin, rsv=RSV1, fin=False) + frame(CONTINUATION, end))
    assert splitter.take(9)[1] is not None
    with pytest.raises(MessageRefused, match="40000 bytes") as refused:
        splitter.take(9)
    assert refused.value.close_code == 1009


def test_what_fits_exactly_is_accepted() -> None:
    (whole,) = deflate(b"x" * LIMIT)
    splitter = FrameSplitter(LIMIT, Inflater())
    splitter.feed(frame(TEXT, whole, rsv=RSV1) * 2)
    assert take_all(splitter) == ([b"x" * LIMIT] * 2, [])


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x07garbage", b"\x03\x00" * 2000, b"Hello" * 10])
def test_what_cannot_be_inflated_is_refused_every_time(payload: bytes) -> None:
    splitter = FrameSplitter(LIMIT, Inflater())
    splitter.feed(frame(TEXT, payload, rsv=RSV1) + frame(TEXT, b"after"))
    for _ in range(2):
        with pytest.raises(MessageRefused, match="cannot be inflated") as refused:
            splitter.take(9)
    assert refused.value.close_code == 1007


@pytest.mark.parametrize("headers", [[], [""], [" , "]])
def test_a_server_that_declines(headers: list[str]) -> None:
    assert agreed(headers) is None


@pytest.mark.parametrize(
    ("header", "keeps_context"),
    [
        ("permessage-deflate", True),
        ("Permessage-Deflate ;Server_Max_Window_Bits = 8", True),
        ('permessage-deflate; server_max_window_bits="10"; client_max_window_bits=15', True),
        ("permessage-deflate; client_no_context_takeover", True),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", False),
    ],
)
def test_agreements(header: str, keeps_context: bool) -> None:
    inflater = agreed(["", header])
    assert inflater is not None
    assert inflater._keeps_context is keeps_context


@pytest.mark.parametrize(
    "headers",
    [
        ["x-webkit-deflate-frame"],
        ["permessage-deflate, permessage-deflate"],
        ["permessage-deflate", "bbf-usp-protocol"],
        ["permessage-deflate; unknown"],
        ["permessage-deflate; server_no_context_takeover=1"],
        ["permessage-deflate; server_no_context_takeover="],
        ["permessage-deflate; server_max_window_bits"],
        ["permessage-deflate; server_max_window_bits=7"],
        ["permessage-deflate; server_max_window_bits=16"],
        ["permessage-deflate; server_max_window_bits=08"],
        ["permessage-deflate; client_max_window_bits=x"],
        ["permessage-deflate; client_max_window_bits=9; client_max_window_bits=9"],
        ["permessage-deflate;"],
    ],
)
def test_answers_that_end_the_connection(headers: list[str]) -> None:
    with pytest.raises(ProtocolViolation):
        agreed(headers)


def test_the_offer_is_one_that_wsproto_takes() -> None:
    assert PerMessageDeflate().accept(OFFER)
    assert Opcode.TEXT == TEXT
