"""Trades, books, quotes and candles against the venue's own messages."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.book.continuity import Verdict
from pipeline.exchanges.bybit import wire
from pipeline.exchanges.bybit.topics import MARKETS
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import BookSeed, Subscription
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.model.events import PRICE_SIZE, PRICE_SIZE_RPI, Bbo, BookUpdate, Candle, Event, Trade
from tests.exchanges.bybit.samples import (
    CONNECTION,
    DATA,
    RECEIVED,
    body,
    catalogue,
    head,
    lines,
    normalize,
    normalizer,
    values,
)

DATA_SAMPLES = [
    (market, path.stem)
    for path in sorted(DATA.glob("*public.*.jsonl"))
    for market in MARKETS
    if f"public.{market}." in path.name and "control" not in path.name
]
SUPPORTED = [*DATA_SAMPLES, ("status", "public.misc.system.status")]


def changed(message: bytes, **fields: Any) -> bytes:
    """The message with these top-level fields replaced."""
    return json.dumps({**json.loads(message), **fields}, separators=(",", ":")).encode()


def shuffled(value: Any, random: random.Random) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return [shuffled(each, random) for each in value] if isinstance(value, list) else value


def shapes(events: list[Event]) -> list[tuple[object, ...]]:
    return [(type(event), head(event), values(event)) for event in events]


def books(events: list[Event]) -> list[BookUpdate]:
    """The events, which must all be book updates."""
    assert all(isinstance(event, BookUpdate) for event in events)
    return [event for event in events if isinstance(event, BookUpdate)]


def test_linear_trades() -> None:
    first, second = normalize("linear", *lines("derived.public.linear.publicTrade.current"))
    assert type(first) is Trade
    assert head(first) == ("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", None, CONNECTION)
    assert values(first) == {
        "exchange_time": 1772694601509000,
        "receive_time": RECEIVED,
        "sequence": 1783284617,
        "trade_id": "20f43950-d8dd-5b31-9112-a178eb6023af",
        "price": "65485.50",
        "size": "0.001",
        "size_unit": "base",
        "base_size": "0.001",
        "aggressor": "buy",
        "is_block": False,
        "is_rpi": False,
        "tick_direction": "PlusTick",
    }
    assert values(second)["trade_id"] == "20f43950-d8dd-5b31-9112-a178eb6023b0"
    assert values(second)["size"] == "0.250"
    assert second.origin is first.origin


def test_recorded_linear_trade_without_sequence() -> None:
    (trade,) = normalize("linear", *lines("public.linear.publicTrade.recorded"))
    assert head(trade) == ("bybit", "linear", "LTCUSDT", None, None, CONNECTION)
    assert values(trade) == {
        "exchange_time": 1680688979983000,
        "receive_time": RECEIVED,
        "trade_id": "4c7b6bdc-b4a3-5716-9c7b-bbe01dc7072f",
        "price": "94.53",
        "size": "0.4",
        "size_unit": "base",
        "base_size": "0.4",
        "aggressor": "buy",
        "is_block": False,
        "tick_direction": "ZeroMinusTick",
    }


def test_inverse_sizes_are_contracts_of_one_dollar() -> None:
    trades = normalize("inverse", *lines("public.inverse.publicTrade.recorded"))
    assert [values(trade)["size"] for trade in trades] == ["5823", "3", "5593"]
    assert values(trades[0]) == {
        "exchange_time": 1680673823564000,
        "receive_time": RECEIVED,
        "trade_id": "0cbf2330-952d-5d03-a462-4bf826c867af",
        "price": "28560.50",
        "size": "5823",
        "size_unit": "quote",
        "quote_size": "5823",
        "aggressor": "buy",
        "is_block": False,
        "tick_direction": "PlusTick",
    }


def test_spot_trades() -> None:
    trades = normalize("spot", *lines("public.spot.publicTrade.recorded"))
    assert [values(trade)["trade_id"] for trade in trades] == [
        "2290000000050703789",
        "2290000000050703790",
        "2290000000050703791",
        "2290000000050703792",
        "2240000000041223438",
    ]
    assert head(trades[0])[2:4] == ("BTCUSDT", "BTC-USDT")
    assert head(trades[4])[2:4] == ("BTCUSDC", None)
    assert values(trades[0]) == {
        "exchange_time": 1680652847524000,
        "receive_time": RECEIVED,
        "trade_id": "2290000000050703789",
        "price": "28165.38",
        "size": "0.041732",
        "size_unit": "base",
        "base_size": "0.041732",
        "aggressor": "sell",
        "is_block": False,
    }


def test_option_trades_carry_their_own_symbol() -> None:
    one = normalizer("option")
    (trade,) = one.normalize(lines("derived.public.option.publicTrade.current")[0], RECEIVED)
    assert head(trade)[2:4] == ("BTC-27MAR26-70000-P-USDT", "BTC-USDT-20260327-70000-P")
    assert values(trade) == {
        "exchange_time": 1772694601491000,
        "receive_time": RECEIVED,
        "sequence": 26718245500,
        "trade_id": "0404c393-8419-5bac-95c3-5fea28404754",
        "price": "985",
        "size": "0.01",
        "size_unit": "base",
        "base_size": "0.01",
        "aggressor": "sell",
        "is_block": False,
        "is_rpi": False,
        "implied_volatility": 0.4987,
        "mark_implied_volatility": 0.5012,
        "mark_price": "987.12",
        "index_price": "65480.11",
    }
    stream = one.streams["publicTrade.BTC"]
    assert (stream.origin, stream.messages, stream.last_receive) == (None, 1, RECEIVED)


def test_block_rpi_and_unknown_values_pass() -> None:
    row = {"T": 1, "s": "X", "S": "Both", "v": "1", "p": "2", "i": "3", "L": "NewTick", "BT": True, "RPI": True}
    message = json.dumps({"topic": "publicTrade.X", "data": [{**row, "news": [1]}], "news": {}}).encode()
    (trade,) = normalize("linear", message)
    assert isinstance(trade, Trade)
    assert (trade.is_block, trade.is_rpi, trade.aggressor, trade.tick_direction) == (True, True, "both", "NewTick")


def test_documented_book() -> None:
    snapshot, delta = books(normalize("linear", *lines("public.linear.orderbook.50")))
    assert values(snapshot) == {
        "exchange_time": 1672304484976000,
        "receive_time": RECEIVED,
        "sequence": 18521288,
        "channel": "orderbook.50",
        "is_snapshot": True,
        "bids": [("16493.50", "0.006"), ("16493.00", "0.100")],
        "asks": [("16611.00", "0.029"), ("16612.00", "0.213")],
        "layout": PRICE_SIZE,
        "size_unit": "base",
        "depth": 50,
        "cross_sequence": 7961638724,
        "is_reset": False,
        "is_periodic": False,
        "epoch": 0,
    }
    assert not delta.is_snapshot
    assert (delta.previous_sequence, delta.sequence, delta.cross_sequence) == (177400506, 177400507, 66544703342)
    assert delta.bids[4] == ("30240.00", "0")
    assert len(delta.asks) == 7
    assert delta.origin is snapshot.origin


def test_book_sequence_with_gap_reset_and_unsolicited_snapshot() -> None:
    updates = books(normalize("linear", *lines("derived.public.linear.orderbook.50.sequence")))
    assert [(each.is_snapshot, each.previous_sequence, each.sequence, each.is_reset) for each in updates] == [
        (True, None, 1000, False),
        (False, 1000, 1001, False),
        (False, 1001, 1002, False),
        (False, 1003, 1004, False),
        (True, None, 1, True),
        (False, 1, 2, False),
        (True, None, 3, False),
    ]


def test_a_delta_numbered_one_is_a_reset_too() -> None:
    message = lines("derived.public.linear.orderbook.50.sequence")[4].replace(b'"snapshot"', b'"delta"')
    (update,) = books(normalize("linear", message))
    assert (update.is_snapshot, update.is_reset, update.previous_sequence) == (True, True, None)


def test_recorded_books_of_every_depth() -> None:
    cases = {
        "public.linear.orderbook.50.recorded": ("linear", "orderbook.50", 50),
        "public.linear.orderbook.500.recorded": ("linear", "orderbook.500", 500),
        "public.spot.orderbook.50.recorded": ("spot", "orderbook.50", 50),
        "public.option.orderbook.25.recorded": ("option", "orderbook.25", 25),
        "derived.public.option.orderbook.100": ("option", "orderbook.100", 100),
        "derived.public.linear.orderbook.1000": ("linear", "orderbook.1000", 1000),
        "derived.public.inverse.orderbook.200": ("inverse", "orderbook.200", 200),
    }
    for name, (market, channel, depth) in cases.items():
        messages = lines(name)
        updates = books(normalize(market, *messages))
        assert len(updates) == len(messages)
        for update, message in zip(updates, map(json.loads, messages), strict=True):
            data = message["data"]
            assert [list(row) for row in update.bids] == data["b"]
            assert [list(row) for row in update.asks] == data["a"]
            assert (update.channel, update.depth, update.layout) == (channel, depth, PRICE_SIZE)
            assert update.sequence == data["u"]
            assert update.cross_sequence == data.get("seq")
            assert update.is_snapshot == (message["type"] == "snapshot")
            assert update.exchange_time == message.get("cts", message["ts"]) * 1000
            assert update.origin.instrument == data["s"]
            assert update.size_unit == ("quote" if market == "inverse" else "base")


def test_recorded_chain_is_unbroken_by_the_venues_rule() -> None:
    rule = Bybit().sequence_rule("orderbook.500")
    assert rule is not None
    updates = books(normalize("linear", *lines("public.linear.orderbook.500.recorded")))
    sequences = [None, *(update.sequence for update in updates)]
    verdicts = [rule.judge(last, update).value for last, update in zip(sequences, updates, strict=False)]
    assert verdicts == ["snapshot"] + ["next"] * 29


def test_empty_option_book_is_a_snapshot() -> None:
    (update,) = books(normalize("option", lines("public.option.orderbook.25.recorded")[0]))
    assert (update.is_snapshot, update.sequence, update.bids, update.asks) == (True, 0, [], [])


def test_what_begins_as_an_earlier_message_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ("orderbook.rpi", "orderbook.50.recorded", "publicTrade.recorded", "allLiquidation.recorded")
    messages = [changed(lines(f"public.linear.{name}")[0]) for name in samples]
    one = normalizer()
    before = [shapes(one.normalize(message, RECEIVED)) for message in messages]
    monkeypatch.delattr(wire, "decode_envelope")
    monkeypatch.delattr(wire, "decode_plain")
    assert [shapes(one.normalize(message, RECEIVED)) for message in messages] == before


def test_what_begins_without_its_topic_is_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = (json.loads(lines(f"public.linear.{name}.recorded")[0]) for name in ("orderbook.50", "publicTrade"))
    messages = [json.dumps({"type": message.pop("type"), **message}).encode() for message in plain]
    one = normalizer()
    monkeypatch.delattr(wire, "decode_plain")
    assert [type(one.normalize(message, RECEIVED)[0]) for message in messages * 2] == [BookUpdate, Trade] * 2


def test_a_new_field_is_no_obstacle_to_what_begins_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    (old, *_) = lines("public.linear.publicTrade")
    new = changed(old, brandNew=1)
    one = normalizer()
    for message in (old, new, new):
        assert one.normalize(message, RECEIVED)
    assert one.unknown_fields == ["publicTrade: brandNew"]
    monkeypatch.delattr(wire, "decode_plain")
    assert one.normalize(new, RECEIVED)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_trades_of_several_instruments_in_one_message(known: bool) -> None:
    message = json.loads(lines("public.linear.publicTrade")[0])
    names = ["BTCUSDT", "BTCUSDT", "ETHUSDT", "BTCUSDT"]
    message["data"] = [{**message["data"][0], "s": name} for name in names]
    events = normalizer(known=None if known else {}).normalize(json.dumps(message).encode(), RECEIVED)
    assert [event.origin.instrument for event in events] == names
    assert events[0].origin is events[1].origin is events[3].origin


def test_rpi_book_has_three_columns() -> None:
    snapshot, delta = books(
        normalize(
            "linear",
            *lines("derived.public.linear.orderbook.rpi.snapshot"),
            *lines("public.linear.orderbook.rpi"),
        )
    )
    assert (snapshot.channel, snapshot.layout, snapshot.depth) == ("orderbook.rpi", PRICE_SIZE_RPI, 50)
    assert snapshot.bids == [("65485.4", "0.114259", "0"), ("65485.3", "0", "0.163986")]
    assert snapshot.asks == [("65485.5", "0.441585", "0.78821")]
    assert (delta.sequence, delta.previous_sequence, delta.is_snapshot) == (2258980, 2258979, False)
    assert delta.bids[1] == ("121969.9", "0", "0")


def test_quotes_are_published_once() -> None:
    first, second = normalize("spot", *lines("derived.public.spot.orderbook.1.sequence"))
    assert type(first) is Bbo
    assert head(first)[2:4] == ("BTCUSDT", "BTC-USDT")
    assert values(first) == {
        "exchange_time": 1772694601510000,
        "receive_time": RECEIVED,
        "sequence": 7003305,
        "channel": "orderbook.1",
        "bid_price": "65485.40",
        "bid_size": "46.760",
        "ask_price": "65485.50",
        "ask_size": "16.606",
        "size_unit": "base",
        "is_derived": False,
    }
    assert (values(second)["sequence"], values(second)["bid_size"]) == (7003306, "46.100")


def test_repeated_quotes_still_count_as_life() -> None:
    one = normalizer("spot")
    for at, message in enumerate(lines("derived.public.spot.orderbook.1.sequence")[:2]):
        one.normalize(message, RECEIVED + at)
    stream = one.streams["orderbook.1.BTCUSDT"]
    assert (stream.messages, stream.last_receive) == (2, RECEIVED + 1)


def quotes(events: list[Event]) -> list[tuple[object, ...]]:
    found = [event for event in events if isinstance(event, Bbo)]
    assert len(found) == len(events)
    return [(each.bid_price, each.bid_size, each.ask_price, each.ask_size) for each in found]


def level_one(kind: str, update: int, bids: list[list[str]], asks: list[list[str]]) -> bytes:
    data = {"s": "X", "b": bids, "a": asks, "u": update, "seq": 1}
    return json.dumps({"topic": "orderbook.1.X", "type": kind, "ts": 1, "data": data}).encode()


def test_old_recordings_with_deltas_of_quotes() -> None:
    spot = lines("public.spot.orderbook.1.recorded")
    assert quotes(normalize("spot", *spot)) == [
        ("28165.07", "0.175231", "28165.08", "0.996816"),
        ("28165.07", "0.166754", "28165.08", "0.996816"),
    ]
    snapshot, following, stray = lines("public.linear.orderbook.1.recorded")
    assert quotes(normalize("linear", snapshot, following)) == [
        ("28552.00", "0.047", "28552.10", "25.433"),
        ("28552.00", "0.012", "28552.10", "25.433"),
    ]
    adjacent = changed(stray, data={**json.loads(stray)["data"], "u": 7003307})
    assert quotes(normalize("linear", snapshot, following, adjacent))[2] == ("27991.70", "0.777", "27994.40", "0.058")


def test_a_delta_of_quotes_that_does_not_follow_waits_for_a_snapshot() -> None:
    snapshot = level_one("snapshot", 7, [["1", "2"]], [["3", "4"]])
    stray, late = level_one("delta", 9, [["1", "5"]], []), level_one("delta", 10, [["1", "6"]], [])
    assert normalize("linear", stray) == []
    assert len(normalize("linear", snapshot, stray, late)) == 1
    assert quotes(normalize("linear", snapshot, stray, snapshot, level_one("delta", 8, [], [["3", "0"]]))) == [
        ("1", "2", "3", "4"),
        ("1", "2", "3", "4"),
        ("1", "2", None, None),
    ]


def test_a_delta_deletes_only_the_quote_it_names() -> None:
    snapshot = level_one("snapshot", 7, [["1", "2"]], [["3", "4"]])
    delta = level_one("delta", 8, [["2", "9"], ["1", "0"]], [["5", "0.00"]])
    assert quotes(normalize("linear", snapshot, delta))[1] == ("2", "9", "3", "4")


def test_a_side_without_orders_is_none() -> None:
    assert quotes(normalize("linear", level_one("snapshot", 7, [], [["3", "4"]]))) == [(None, None, "3", "4")]


def test_restart_of_quotes_is_published() -> None:
    one = [level_one("snapshot", 1, [["1", "2"]], []), level_one("snapshot", 1, [["1", "3"]], [])]
    assert len(quotes(normalize("linear", *one))) == 2


def test_documented_candle() -> None:
    (candle,) = normalize("linear", *lines("public.linear.kline.5"))
    assert type(candle) is Candle
    assert values(candle) == {
        "exchange_time": 1672324988882000,
        "receive_time": RECEIVED,
        "price_type": "trade",
        "interval": "5m",
        "venue_interval": "5",
        "open_time": 1672324800000000,
        "close_time": 1672325099999000,
        "open": "16649.5",
        "high": "16677",
        "low": "16608",
        "close": "16677",
        "closed": False,
        "volume": "2.081",
        "size_unit": "base",
        "base_volume": "2.081",
        "quote_volume": "34666.4005",
    }


def test_closed_candles_come_once_even_after_a_reconnect() -> None:
    forming, closed = lines("derived.public.linear.kline.1.confirm")
    resume: dict[str, int] = {}
    venue = Bybit()
    before = venue.normalizer("linear", "bybit.linear.0#1", {}, resume)
    assert [values(event)["closed"] for event in before.normalize(forming, 1)] == [False]
    assert [values(event)["closed"] for event in before.normalize(closed, 2)] == [True]
    assert before.normalize(closed, 3) == []
    after = venue.normalizer("linear", "bybit.linear.0#2", {}, resume)
    assert after.normalize(closed, 4) == []
    other = venue.normalizer("inverse", "bybit.inverse.0#1", {}, resume)
    (candle,) = other.normalize(closed, 5)
    assert isinstance(candle, Candle)
    assert (candle.volume, candle.base_volume, candle.quote_volume) == ("12.081", "791130.1", "12.081")
    assert candle.size_unit == "quote"


def test_every_supported_sample_gives_events() -> None:
    assert len(SUPPORTED) >= 38
    for market, name in SUPPORTED:
        one = normalizer(market)
        events = [event for message in lines(name) for event in one.normalize(message, RECEIVED)]
        assert events or ("tickers" in name and "delta" in name), name


def test_control_messages_give_nothing_on_any_stream() -> None:
    names = [path.stem for path in DATA.glob("*control.*.jsonl")] + ["trade.pong", "trade.auth.response"]
    assert len(names) > 15
    for stream in Bybit().streams:
        for name in names:
            assert normalize(stream, *lines(name)) == [], name


def test_order_answers_are_not_swallowed() -> None:
    with pytest.raises(BadMessage, match="neither data nor a known answer"):
        normalize("trade", *lines("trade.order.create.response"))


@given(st.sampled_from(SUPPORTED), st.randoms(use_true_random=False), st.sampled_from([None, 1]))
def test_key_order_and_white_space_do_not_matter(
    sample: tuple[str, str], random: random.Random, indent: int | None
) -> None:
    market, name = sample
    messages = lines(name)
    others = [json.dumps(shuffled(json.loads(each), random), indent=indent).encode() for each in messages]
    assert shapes(normalize(market, *others)) == shapes(normalize(market, *messages))


def bare(value: Any) -> str:
    """JSON in which numbers are quoted and decimal texts are not."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{bare(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(bare(each) for each in value) + "]"
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return json.dumps(str(value))
    return json.dumps(value)


def test_numbers_and_texts_are_interchangeable_exactly() -> None:
    for market, name in SUPPORTED:
        messages = lines(name)
        others = [bare(json.loads(each)).encode() for each in messages]
        assert others != messages
        assert shapes(normalize(market, *others)) == shapes(normalize(market, *messages)), name


def test_long_fractions_survive_as_numbers() -> None:
    text = "0.100000000000000000000000000000000001"
    row = f'{{"T":1,"s":"X","S":"Buy","v":{text},"p":1e-30,"i":9007199254740993}}'
    (trade,) = normalize("linear", f'{{"topic":"publicTrade.X","data":[{row}]}}'.encode())
    assert isinstance(trade, Trade)
    assert (trade.size, trade.price, trade.trade_id) == (text, "1e-30", "9007199254740993")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "message"),
        (b"{", "message"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff\xfe", "message"),
        (b"{}", "neither data nor a known answer"),
        (b'{"topic":5}', "neither data"),
        (b'{"topic":"orderbook.50.X","type":"delta","ts":1,"data":{"b":[],"a":[]}}', r"orderbook.50.X.*`u`.*\$.data"),
        (b'{"topic":"orderbook.50.X","type":"delta","ts":1,"data":{"b":[["1"]],"a":[],"u":1}}', r"\$.data.b\[0\]"),
        (b'{"topic":"orderbook.50.X","type":"gone","ts":1,"data":{"b":[],"a":[],"u":1}}', "'gone'"),
        (b'{"topic":"orderbook.50.X","ts":1,"data":{"b":[],"a":[],"u":1}}', "`type`"),
        (b'{"topic":"orderbook.50","type":"delta","ts":1,"data":{"b":[],"a":[],"u":1}}', "names no instrument"),
        (b'{"topic":"orderbook.x.X","type":"delta","ts":1,"data":{"b":[],"a":[],"u":1}}', "no depth"),
        (b'{"topic":"tickers.X","type":"gone","ts":1,"data":{}}', "'gone'"),
        (b'{"topic":"tickers.X","type":"snapshot","ts":1,"data":{"markPrice":[1]}}', r"\$.data.markPrice"),
        (b'{"topic":"tickers.X","type":"snapshot","ts":1,"data":{"nextFundingTime":"soon"}}', "soon"),
        (b'{"topic":"tickers.X","type":"snapshot","ts":1,"data":{"price24hPcnt":"nan"}}', "nan"),
        (b'{"topic":"publicTrade.X","data":[{"T":1,"s":"X","S":"Buy","v":"1","p":"2"}]}', r"publicTrade.X.*`i`"),
        (b'{"topic":"publicTrade.X","data":[{"T":1,"s":"X","S":"Buy","v":"1","p":null,"i":"1"}]}', r"\$.data\[0\].p"),
        (b'{"topic":"publicTrade.X","data":[{"T":1,"s":"X","S":"Buy","v":"1","p":true,"i":"1"}]}', r"\$.data\[0\].p"),
        (b'{"topic":"kline.1.X","data":[{"start":1}]}', "kline.1.X"),
        (b'{"topic":"kline.1","data":[]}', "names no instrument"),
        (b"[" * 100_000, "message"),
        (b'{"topic":"publicTrade.X","data":' + b"[" * 100_000, "linear"),
        (b'{"topic":"publicTrade.X","data":[' + b"9" * 5000 + b"]}", "linear"),
    ],
)
def test_unreadable_messages_name_the_fault(message: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        normalize("linear", message)


def test_a_bad_row_spoils_the_whole_message_and_nothing_else() -> None:
    one = normalizer("linear")
    good = lines("derived.public.linear.publicTrade.current")[0]
    with pytest.raises(BadMessage):
        one.normalize(good.replace(b'"65485.60"', b"null"), RECEIVED)
    assert one.streams == {}
    assert len(one.normalize(good, RECEIVED)) == 2


def test_the_symbol_arrives_with_the_catalogue() -> None:
    known = dict(catalogue())
    entry = known.pop(("linear", "BTCUSDT"))
    one = normalizer("linear", known)
    message = lines("derived.public.linear.orderbook.50.sequence")[0]
    trade = lines("derived.public.linear.publicTrade.current")[0]
    (before,) = one.normalize(message, RECEIVED)
    (again,) = one.normalize(message, RECEIVED)
    assert (before.origin.symbol, before.origin) == (None, again.origin)
    one.normalize(trade, RECEIVED)
    known["linear", "BTCUSDT"] = entry
    (after,) = one.normalize(message, RECEIVED)
    assert after.origin.symbol == "BTC-USDT-PERP"
    assert one.normalize(trade, RECEIVED)[0].origin is after.origin
    assert one.streams["orderbook.50.BTCUSDT"].origin is after.origin
    assert one.streams["publicTrade.BTCUSDT"].origin is after.origin


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(MARKETS), st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_break_the_normalizer(market: str, message: bytes) -> None:
    with suppress(BadMessage):
        assert normalize(market, message) == []


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in children for found in paths(each, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@given(st.data(), st.sampled_from(DATA_SAMPLES), _JSON)
def test_no_damaged_field_breaks_the_normalizer(data: st.DataObject, sample: tuple[str, str], junk: object) -> None:
    market, name = sample
    message = json.loads(lines(name)[0])
    damaged = replaced(message, data.draw(st.sampled_from(paths(message)[:200])), junk)
    with suppress(BadMessage):
        normalize(market, json.dumps(damaged).encode())


@given(st.data(), st.sampled_from(SUPPORTED))
def test_no_cut_or_flipped_byte_breaks_the_normalizer(data: st.DataObject, sample: tuple[str, str]) -> None:
    market, name = sample
    message = bytearray(lines(name)[-1])
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadMessage):
        normalize(market, bytes(message[: data.draw(st.integers(0, len(message)))]))


FULL_BOOK = Subscription("orderbook.full.BTCUSDT", "book", "orderbook.full", "linear", "BTCUSDT", "linear")


def test_the_full_book_sends_updates_only() -> None:
    (update,) = books(normalize("spot", lines("public.spot.orderbook.full")[0]))
    assert (update.channel, update.depth, update.is_snapshot, update.is_reset) == ("orderbook.full", None, False, False)
    assert (update.previous_sequence, update.sequence, update.cross_sequence) == (278546, 278547, 1501100579)
    assert update.bids[0] == ("0.4758", "2342.47")
    (reset,) = books(normalize("spot", lines("derived.public.spot.orderbook.full.reset")[0]))
    assert (reset.sequence, reset.is_snapshot, reset.is_reset) == (1, False, True)


def test_a_full_book_that_counts_anew_is_read_anew() -> None:
    rule = Bybit().sequence_rule("orderbook.full")
    assert rule is not None
    (reset,) = books(normalize("spot", lines("derived.public.spot.orderbook.full.reset")[0]))
    assert rule.judge(278547, reset) is Verdict.GAP


def test_the_full_book_starts_from_rest() -> None:
    venue = Bybit()
    assert venue.book_seed(FULL_BOOK) == BookSeed(
        "/v5/market/full_orderbook?category=linear&symbol=BTCUSDT", is_required=True
    )
    assert venue.book_seed(attrs.evolve(FULL_BOOK, channel="orderbook.50")) is None
    snapshot = normalizer("linear").seed(FULL_BOOK, body("rest.market.full_orderbook"), RECEIVED)
    assert (snapshot.channel, snapshot.is_snapshot, snapshot.sequence) == ("orderbook.full", True, 439925)
    assert (snapshot.exchange_time, snapshot.cross_sequence) == (1784103578350000, 2164890076)
    assert (snapshot.asks[0], snapshot.bids[-1]) == (("62998.2", "0.198738"), ("0.1", "10"))
    assert (snapshot.origin.instrument, snapshot.origin.symbol) == ("BTCUSDT", "BTC-USDT-PERP")


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"<html>", BadMessage, "snapshot of orderbook.full.BTCUSDT"),
        (b'{"retCode":0,"result":{"b":[],"a":[]},"time":1}', BadMessage, "u"),
        (b'{"retCode":10006,"retMsg":"Too many visits!","result":{},"time":1}', Retryable, "10006"),
        (b'{"retCode":10001,"retMsg":"symbol invalid","result":{},"time":1}', Refused, "10001"),
    ],
)
def test_an_answer_that_is_no_book_says_why(answer: bytes, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        normalizer("linear").seed(FULL_BOOK, answer, RECEIVED)
