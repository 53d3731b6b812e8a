"""Fields that the venues add without notice: ignored, and told once per connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.exchanges import VENUES
from pipeline.exchanges.bybit import wire as bybit_wire
from pipeline.exchanges.bybit.normalizer import FAMILIES as BYBIT_FAMILIES
from pipeline.exchanges.bybit.topics import family_of
from pipeline.exchanges.okx import wire as okx_wire
from pipeline.exchanges.okx.families import CANDLES, FAMILIES
from pipeline.exchanges.venue import Normalizer
from pipeline.exchanges.vocabulary import MAX_UNKNOWN
from pipeline.model.errors import BadMessage
from pipeline.model.events import Ticker
from tests.exchanges.bybit.test_normalizer import bare, shapes

DATA = Path(__file__).parent.parent / "data"
RECEIVED = 1_800_000_000_000_000
NEW = "brandNew"
OPEN = {"cumFeeDetail", "advChaseParams", "trades", "upcChg", "mb"}
"""Members whose own members are no fields, or that are not read."""
BYBIT_STREAMS = {"misc": "status", "lt": "spot", "kline_lt": "spot", "tickers_lt": "spot", "liquidation": "linear"}


def sample_files(venue: str) -> Iterator[tuple[str, list[bytes]]]:
    """Stream and messages of each sample of data."""
    for path in sorted((DATA / venue).glob("*.jsonl")):
        parts = path.stem.removeprefix("derived.").removeprefix("public.").removeprefix("deprecated.").split(".")
        stream = (BYBIT_STREAMS.get(parts[0], parts[0])) if venue == "bybit" else "public"
        lines = [line for line in path.read_bytes().splitlines() if is_data(venue, json.loads(line))]
        if lines:
            yield stream, lines


def is_data(venue: str, message: dict[str, Any]) -> bool:
    return "topic" in message if venue == "bybit" else "data" in message and "channel" in message.get("arg", {})


def family(venue: str, stream: str, message: dict[str, Any]) -> str:
    """The family of a message that is read by a type; "" if it is passed on."""
    if venue == "bybit":
        name = family_of(message["topic"])
        return name if name in BYBIT_FAMILIES.get(stream, {}) else ""
    channel = message["arg"]["channel"]
    found = (prefix for prefix in CANDLES if channel.startswith(prefix))
    return channel if channel in FAMILIES else next(found, "")


FILES = [(venue, stream, lines) for venue in ("bybit", "okx") for stream, lines in sample_files(venue)]
# Each is read alone: what is a second page has to be a first one.
TYPED = [
    (venue, stream, line.replace(b'"curPage":2', b'"curPage":1'))
    for venue, stream, lines in FILES
    for line in lines
    if family(venue, stream, json.loads(line))
]


def normalizer(venue: str, stream: str) -> Normalizer:
    return VENUES[venue].normalizer(stream, "c#1", {}, account="main")


def extended(value: Any, path: str, found: dict[str, None]) -> Any:
    """The same with a new member in each object, whose paths are put into `found`."""
    if isinstance(value, dict):
        found[f"{path}.{NEW}".removeprefix(".")] = None
        members = {
            name: member if name in OPEN else extended(member, f"{path}.{name}".removeprefix("."), found)
            for name, member in value.items()
        }
        return members | {NEW: {"x": [1]}}
    return [extended(each, f"{path}[]", found) for each in value] if isinstance(value, list) else value


def test_the_samples_have_no_unknown_field() -> None:
    assert len(FILES) > 140
    for venue, stream, lines in FILES:
        one = normalizer(venue, stream)
        for line in lines:
            one.normalize(line, RECEIVED)
        assert one.unknown_fields == [], lines


def test_a_new_field_in_any_object_is_noted_and_changes_nothing() -> None:
    assert len(TYPED) > 200
    for venue, stream, line in TYPED:
        message = json.loads(line)
        found: dict[str, None] = {}
        other = json.dumps(extended(message, "", found)).encode()
        one, plain = normalizer(venue, stream), normalizer(venue, stream)
        for _ in range(2):
            assert shapes(one.normalize(other, RECEIVED)) == shapes(plain.normalize(line, RECEIVED))
        name = family(venue, stream, message)
        # Ticker deltas mean nothing without a snapshot before them.
        expected = {f"{name}: {path}" for path in found}
        assert set(one.unknown_fields) | {"tickers: data.brandNew"} == expected | {"tickers: data.brandNew"}, line
        assert len(one.unknown_fields) == len(set(one.unknown_fields))
        assert plain.unknown_fields == []


def test_a_field_once_noted_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowWayError(Exception):
        pass

    def refuse(*_: object) -> None:
        raise SlowWayError

    fast = 0
    for venue, stream, line in TYPED:
        other = json.dumps(extended(json.loads(line), "", {}), separators=(",", ":")).encode()
        one, plain = normalizer(venue, stream), normalizer(venue, stream)
        one.normalize(other, RECEIVED)
        with monkeypatch.context() as patch:
            patch.setattr(bybit_wire, "loosely", refuse)
            patch.setattr(okx_wire, "leniently", refuse)
            try:
                plain.normalize(line, RECEIVED)
            except SlowWayError:
                continue  # it is of loose types itself
            one.normalize(other, RECEIVED)
            fast += 1
    assert fast > 0.9 * len(TYPED)


@pytest.mark.parametrize(
    ("venue", "stream", "message", "noted"),
    [
        (
            "bybit",
            "linear",
            b'{"topic":"publicTrade.X","data":[{"T":"1","s":"X","S":"Buy","v":1.5,"p":2,"i":3,"new":4}],"more":5}',
            ["publicTrade: data[].new", "publicTrade: more"],
        ),
        (
            "bybit",
            "linear",
            b'{"topic":"tickers.X","type":"snapshot","ts":"1","data":{"symbol":"X","lastPrice":2,"new":[3]}}',
            ["tickers: data.new"],
        ),
        (
            "okx",
            "public",
            (
                b'{"arg":{"channel":"trades","instId":"X-Y","new":1},"more":null,'
                b'"data":[{"tradeId":1,"px":2,"sz":3,"side":"buy","ts":4,"new":""}]}'
            ),
            ["trades: arg.new", "trades: data[].new", "trades: more"],
        ),
    ],
    ids=["bybit trades", "bybit ticker", "okx trades"],
)
def test_loosely_typed_messages_count_too(venue: str, stream: str, message: bytes, noted: list[str]) -> None:
    one = normalizer(venue, stream)
    assert len(one.normalize(message, RECEIVED)) == 1
    assert sorted(one.unknown_fields) == noted
    one.normalize(message, RECEIVED)
    assert sorted(one.unknown_fields) == noted


def test_numbers_and_texts_are_interchangeable_beside_new_fields() -> None:
    for venue, stream, line in TYPED:
        if venue == "bybit":
            found: dict[str, None] = {}
            other = extended(json.loads(line), "", found)
            one, plain = normalizer(venue, stream), normalizer(venue, stream)
            assert shapes(one.normalize(bare(other).encode(), RECEIVED)) == shapes(plain.normalize(line, RECEIVED))
            assert len(one.unknown_fields) >= len(found) - 1


@pytest.mark.parametrize(
    ("venue", "stream", "message"),
    [
        ("bybit", "linear", b'{"topic":"publicTrade.X","new":1,"data":[{"new":1,"T":1,"s":"X"}]}'),
        ("bybit", "linear", b'{"topic":"unheard.X","new":1,"data":[]}'),
        ("okx", "public", b'{"arg":{"channel":"trades","instId":"X-Y"},"new":1,"data":[{"new":1}]}'),
        ("okx", "public", b'{"arg":{"channel":"unheard","instId":"X-Y","new":1},"new":1,"data":[]}'),
    ],
)
def test_messages_that_cannot_be_read_count_nothing(venue: str, stream: str, message: bytes) -> None:
    one = normalizer(venue, stream)
    with pytest.raises(BadMessage):
        one.normalize(message, RECEIVED)
    assert one.unknown_fields == []


@pytest.mark.parametrize(
    ("venue", "stream", "message"),
    [
        ("bybit", "private", b'{"topic":"strategy","creationTime":1,"new":1,"data":[{"new":1}]}'),
        ("bybit", "linear", b'{"op":"subscribe","success":true,"new":1}'),
        ("okx", "business", b'{"arg":{"channel":"rfqs","uid":"7","new":1},"new":1,"data":[{"new":1}]}'),
        ("okx", "public", b'{"event":"subscribe","arg":{"channel":"trades","instId":"X-Y","new":1},"new":1}'),
        ("okx", "public", b'{"arg":{"channel":"trades","instId":"X-Y","new":1},"event":"subscribe","data":[]}'),
    ],
)
def test_what_is_passed_on_whole_and_control_messages_count_nothing(venue: str, stream: str, message: bytes) -> None:
    one = normalizer(venue, stream)
    one.normalize(message, RECEIVED)
    assert one.unknown_fields == []


def test_a_control_message_that_begins_like_a_push_is_none_whatever_else_it_has() -> None:
    one = normalizer("okx", "public")
    start = b'{"arg":{"channel":"tickers","instId":"X-Y"},'
    assert len(one.normalize(start + b'"data":[{"ts":"1"}]}', RECEIVED)) == 1
    assert one.normalize(start + b'"event":"error","data":[{"ts":"1"}]}', RECEIVED) == []
    assert one.unknown_fields == []


TRADE = {
    "bybit": '{{"topic":"publicTrade.X","data":[{{"T":1,"s":"X","S":"Buy","v":"1","p":"2","i":"{id}",{more}}}]}}',
    "okx": '{{"arg":{{"channel":"trades-all","instId":"X-Y"}},"data":[{{"instId":"X-Y","tradeId":"{id}","px":"1",'
    '"sz":"2","side":"buy","ts":"3",{more}}}]}}',
}


@pytest.mark.parametrize("venue", TRADE)
def test_so_many_fields_are_remembered_per_connection(venue: str) -> None:
    one = normalizer(venue, "linear")

    def trade(number: int, *names: str) -> None:
        more = ",".join(f'"{name}":1' for name in names)
        assert len(one.normalize(TRADE[venue].format(id=number, more=more).encode(), RECEIVED)) == 1

    for number in range(MAX_UNKNOWN + 20):
        trade(number, f"n{number}")
    trade(999, *(f"m{number}" for number in range(500)))
    assert [each.rpartition(".")[2] for each in one.unknown_fields] == [f"n{number}" for number in range(MAX_UNKNOWN)]


def test_a_name_that_no_struct_can_have_is_no_obstacle() -> None:
    for venue, text in TRADE.items():
        one = normalizer(venue, "linear")
        for number in range(3):
            assert len(one.normalize(text.format(id=number, more='"a\\"b":1').encode(), RECEIVED)) == 1
        assert [each.rpartition(".")[2] for each in one.unknown_fields] == ['a"b']


def test_ticker_fields_are_met_where_they_are_merged() -> None:
    one = normalizer("bybit", "linear")
    start = '{"topic":"tickers.X","type":"%s","ts":1,"data":{"symbol":"X",%s}}'
    assert one.normalize((start % ("delta", '"early":"1"')).encode(), RECEIVED) == []
    assert one.unknown_fields == []
    one.normalize((start % ("snapshot", '"lastPrice":"1","b":"2","a":"3"')).encode(), RECEIVED)
    one.normalize((start % ("delta", '"a":"4","c":""')).encode(), RECEIVED)
    one.normalize((start % ("delta", '"a":"4","d":null')).encode(), RECEIVED)
    assert one.unknown_fields == [f"tickers: data.{name}" for name in "bacd"]
    (ticker,) = one.normalize(
        (start % ("delta", '"a":["4"],"highPrice24h":2.50,"lowPrice24h":null')).encode(), RECEIVED
    )
    assert isinstance(ticker, Ticker)
    assert (ticker.last_price, ticker.high_24h, ticker.low_24h) == ("1", "2.50", None)
    with pytest.raises(BadMessage, match=r"\$.data.highPrice24h: expected text, got list"):
        one.normalize((start % ("delta", '"highPrice24h":[]')).encode(), RECEIVED)


def test_streams_that_are_open_already_learn_too() -> None:
    one = normalizer("okx", "public")
    for number, instrument in enumerate(("A-B", "C-D", "A-B", "C-D", "E-F")):
        text = TRADE["okx"].replace("X-Y", instrument).format(id=number, more='"new":1')
        assert len(one.normalize(text.encode(), RECEIVED)) == 1
    families = {id(stream.family) for stream in one.streams.values()}  # type: ignore[attr-defined]
    assert len(families) == 1
    assert one.unknown_fields == ["trades-all: data[].new"]


def test_each_connection_has_its_own() -> None:
    first, second = normalizer("bybit", "linear"), normalizer("bybit", "linear")
    message = TRADE["bybit"].format(id=1, more='"new":1').encode()
    first.normalize(message, RECEIVED)
    assert second.unknown_fields == []
    second.normalize(message, RECEIVED)
    assert first.unknown_fields == second.unknown_fields == ["publicTrade: data[].new"]
