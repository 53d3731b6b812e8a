"""What holds for all channels: spelling, control messages, unknown channels, garbage."""

from __future__ import annotations

import json
import random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from pipeline.exchanges.okx.families import CANDLES, FAMILIES, PASSED_ON
from pipeline.exchanges.okx.normalizer import MAX_ALIASES
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Trade
from tests.exchanges.okx.samples import DATA, RECEIVED, normalizer, push, sample

SUPPORTED = (*FAMILIES, *CANDLES, *PASSED_ON, "unheard-of")
CONTROL = sorted(path.stem for path in DATA.glob("control.*.jsonl")) + sorted(
    path.stem for path in DATA.glob("trade.*.jsonl")
)


def channel_of(line: bytes) -> str:
    message = json.loads(line)
    return str(message["arg"]["channel"]) if "data" in message and "arg" in message else ""


LINES = [line for path in sorted(DATA.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
# Each is read alone: what is a second page has to be a first one.
PUSHES = [
    line.replace(b'"curPage":2', b'"curPage":1') for line in LINES if channel_of(line) and json.loads(line)["data"]
]
UNFINISHED = b'"lastPage":false'


def plain(events: list[Event]) -> list[dict[str, Any]]:
    """As mappings, without the text of what is passed on: that is as the message was spelled."""
    drop = {"payload", "payload_sha256"}
    return [{key: value for key, value in _fields(event).items() if key not in drop} for event in events]


def _fields(event: Event) -> dict[str, Any]:
    return {**asdict(event), "origin": attrs.asdict(event.origin)}


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(member, chance)) for key, member in value.items()]
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(member, chance) for member in value]
    return value


def numeric(value: Any, key: str = "") -> Any:
    """Numbers as JSON numbers, spelled exactly as the text was; marked, for JSON has no verbatim number."""
    if isinstance(value, dict):
        return {name: numeric(member, name) for name, member in value.items()}
    if isinstance(value, list):
        return [numeric(member, key) for member in value]
    if isinstance(value, str) and value and value.lstrip("-").replace(".", "", 1).isdigit():
        return f"@{value}@"
    return value


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_keys_and_white_space_gives_the_same_events(seed: int) -> None:
    chance = random.Random(seed)
    for line in PUSHES:
        other = json.dumps(shuffled(json.loads(line), chance), indent=seed).encode()
        straight, spelled = normalizer(), normalizer()
        expected = plain(straight.normalize(line, RECEIVED))
        assert expected or UNFINISHED in line
        assert plain(spelled.normalize(other, RECEIVED)) == expected
        assert list(spelled.streams) == list(straight.streams)


def test_numbers_are_taken_by_their_text() -> None:
    for line in PUSHES:
        other = json.dumps(numeric(json.loads(line))).replace('"@', "").replace('@"', "").encode()
        assert b":1" in other or b"[1" in other or b": " in other
        expected = plain(normalizer().normalize(line, RECEIVED))
        assert plain(normalizer().normalize(other, RECEIVED)) == expected


def test_null_is_as_absent() -> None:
    for line in PUSHES:
        message = json.loads(line)
        rows = [row for row in message["data"] if isinstance(row, dict)]
        for row in rows:
            row.update({key: None for key, value in row.items() if value == ""}, later="unknown")
        expected = plain(normalizer().normalize(line, RECEIVED))
        assert plain(normalizer().normalize(json.dumps(message).encode(), RECEIVED)) == expected


def test_an_arg_with_further_keys_is_the_same_stream() -> None:
    reader = normalizer()
    plain_arg = sample("public.trades")[0]
    longer = plain_arg.replace(
        b'"channel":"trades",', b'"instType":"","connId":"a4d3ae55","channel":"trades","uid":"7",'
    )
    later = longer.replace(b"130639474", b"130639475")
    assert longer != plain_arg
    events = [event for line in (plain_arg, longer, later) for event in reader.normalize(line, 1)]
    assert [event.trade_id for event in events if isinstance(event, Trade)] == ["130639474", "130639475"]
    assert {stream.messages for stream in reader.streams.values()} == {3}


def test_spellings_of_an_arg_are_remembered_within_bounds() -> None:
    reader = normalizer()
    for number in range(MAX_ALIASES + 10):
        reader.normalize(push("trades", "BTC-USDT").replace(b'"channel"', b'"n":%d,"channel"' % number), 1)
    (stream,) = reader.streams.values()
    assert stream.messages == MAX_ALIASES + 10
    assert len(reader._by_arg) == MAX_ALIASES  # type: ignore[attr-defined]


def test_an_arg_with_an_object_inside_is_read_each_time() -> None:
    reader = normalizer()
    nested = b'{"arg":{"x":{},"channel":"tickers","instId":"%s"},"data":[{"ts":"1"}]}'
    instruments = [
        event.origin.instrument for name in (b"A-B", b"C-D", b"A-B") for event in reader.normalize(nested % name, 1)
    ]
    assert instruments == ["A-B", "C-D", "A-B"]


@pytest.mark.parametrize("name", CONTROL)
def test_control_messages_give_no_events(name: str) -> None:
    reader = normalizer()
    for line in sample(name):
        assert reader.normalize(line, RECEIVED) == []
    assert reader.streams == {}


@pytest.mark.parametrize("text", [b"pong", b"ping"])
def test_heartbeats_give_no_events(text: bytes) -> None:
    assert normalizer().normalize(text, RECEIVED) == []


def test_an_acknowledgement_that_begins_like_a_push_gives_no_events() -> None:
    reader = normalizer()
    ack = b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"event":"subscribe","connId":"a4d3ae55"}'
    assert reader.normalize(ack, 1) == []
    assert len(reader.normalize(sample("public.trades")[0], 1)) == 1
    assert reader.normalize(ack, 2) == []


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "unreadable message"),
        (b"\xff", "unreadable message"),
        (b"{}", r"neither a push \(arg\) nor a control message"),
        (b"[]", "unreadable message"),
        (b'{"data":[]}', "neither a push"),
        (b'{"arg":[],"data":[]}', "unreadable message"),
        (b'{"arg":{"instId":"X"},"data":[]}', "missing required field `channel`"),
        (b'{"arg":{"channel":"tickers"},"data":[]}', "names no instId"),
        (b'{"arg":{"channel":"candles","instId":"X"},"data":[]}', '"instId":"X"}: unknown channel "candles"$'),
        (b'{"arg":{"channel":"candle","instId":"X"},"data":[]}', 'unknown channel "candle"$'),
        (b'{"arg":{"channel":"books-grouped","instId":"X"},"data":[]}', 'unknown channel "books-grouped"$'),
        (b'{"arg":{"channel":"rfqs"}}', "missing required field `data`"),
        (b'{"arg":{"channel":"sprd-tickers"},"data":[]}', "names no sprdId"),
        (b'{"arg":{"channel":"tickers","instId":"X"}}', "missing required field `data`"),
        (b'{"arg":{"channel":"tickers","instId":"X"},"data":{}}', r"Expected `array`"),
        (b'{"arg":{"channel":"tickers","instId":"X"},"data":[', "truncated"),
        (b'{"arg":{"channel":"tickers","instId":"X"},"data":[{"ts":"1","last":"\xff"}]}', "tickers"),
        (b'{"arg":{"channel":"tickers","instId":"X"},"x":' + b"[" * 100_000, "tickers|unreadable"),
        (b"[" * 100_000, "unreadable message"),
    ],
    ids=range(19),
)
def test_what_cannot_be_read_is_a_bad_message(message: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        normalizer().normalize(message, RECEIVED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "-", "1e9"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["ts", "px", "sz", "x"]), inner),
    max_leaves=12,
)


def normalize_or_bad(message: bytes) -> None:
    try:
        events = normalizer().normalize(message, RECEIVED)
    except BadMessage:
        return
    assert all(isinstance(event, Event) for event in events)


@given(st.binary(max_size=60))
def test_bytes_raise_nothing_else(message: bytes) -> None:
    normalize_or_bad(message)


@given(st.sampled_from(SUPPORTED), st.text(max_size=12), JSON)
def test_pushes_with_odd_data_raise_nothing_else(channel: str, instrument: str, data: Any) -> None:
    arg = {"channel": channel + ("1m" if channel.endswith("candle") else ""), "instId": instrument}
    normalize_or_bad(json.dumps({"arg": arg, "action": "update", "data": data}).encode())


@given(st.sampled_from(PUSHES), st.data())
def test_damaged_pushes_raise_nothing_else(line: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line) - 1))
    cut = data.draw(st.integers(0, 12))
    normalize_or_bad(line[:at] + data.draw(st.binary(max_size=6)) + line[at + cut :])


@given(st.sampled_from(PUSHES), st.data())
def test_pushes_with_a_replaced_field_raise_nothing_else(line: bytes, data: st.DataObject) -> None:
    message = json.loads(line)
    row = message["data"][0]
    place = data.draw(st.sampled_from(sorted(row)) if isinstance(row, dict) else st.integers(0, len(row) - 1))
    row[place] = data.draw(JSON)
    normalize_or_bad(json.dumps(message).encode())
