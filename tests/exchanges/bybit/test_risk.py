"""Liquidations, limits, insurance funds and the venue's status, and what has no kind of event."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from pipeline.model.account import AccountRaw
from pipeline.model.errors import BadMessage
from pipeline.model.events import (
    AdlAlert,
    BookUpdate,
    InsuranceFund,
    Liquidation,
    PriceLimit,
    Raw,
    SystemStatus,
    Trade,
)
from tests.exchanges.bybit.samples import (
    CONNECTION,
    DATA,
    RECEIVED,
    head,
    lines,
    normalize,
    normalizer,
    private,
    values,
)


def test_a_liquidated_short_is_bought_back() -> None:
    (event,) = normalize("linear", *lines("public.linear.allLiquidation"))
    assert type(event) is Liquidation
    assert head(event) == ("bybit", "linear", "ROSEUSDT", None, None, CONNECTION)
    assert values(event) == {
        "exchange_time": 1739502302929000,
        "receive_time": RECEIVED,
        "price": "0.04499",
        "size": "20000",
        "size_unit": "base",
        "position_side": "short",
        "order_side": "buy",
        "base_size": "20000",
    }
    (recorded,) = normalize("linear", *lines("public.linear.allLiquidation.recorded"))
    assert (values(recorded)["price"], values(recorded)["size"]) == ("0.02456", "2846")


def test_inverse_liquidations_of_long_positions() -> None:
    rows = [{"T": 1, "s": "BTCUSD", "S": side, "v": "300", "p": "65000.5"} for side in ("Buy", "Both")]
    message = json.dumps({"topic": "allLiquidation.BTCUSD", "type": "snapshot", "ts": 2, "data": rows}).encode()
    one = normalizer("inverse")
    long, odd = one.normalize(message, RECEIVED)
    assert values(long) == {
        "exchange_time": 1000,
        "receive_time": RECEIVED,
        "price": "65000.5",
        "size": "300",
        "size_unit": "quote",
        "position_side": "long",
        "order_side": "sell",
        "quote_size": "300",
    }
    assert (values(odd)["position_side"], "order_side" in values(odd)) == ("both", False)
    stream = one.streams["allLiquidation.BTCUSD"]
    assert (stream.origin, stream.messages, stream.last_receive) == (long.origin, 1, RECEIVED)


def test_price_limits() -> None:
    (event,) = normalize("linear", *lines("public.linear.priceLimit"))
    assert type(event) is PriceLimit
    assert head(event)[2:4] == ("BTCUSDT", "BTC-USDT-PERP")
    assert values(event) == {
        "exchange_time": 1750059683782000,
        "receive_time": RECEIVED,
        "max_buy_price": "114450.00",
        "min_sell_price": "103550.00",
    }
    (one_sided,) = normalize("linear", lines("public.linear.priceLimit")[0].replace(b"114450.00", b""))
    assert isinstance(one_sided, PriceLimit)
    assert (one_sided.max_buy_price, one_sided.min_sell_price) == (None, "103550.00")


def test_insurance_funds_of_single_contracts() -> None:
    events = normalize("linear", *lines("public.linear.insurance"))
    assert [event.origin.instrument for event in events] == ["GRIFFAINUSDT", "CGPTUSDT", "GOATUSDT", "XTERUSDT"]
    assert type(events[0]) is InsuranceFund
    assert values(events[0]) == {
        "exchange_time": 1747722930000000,
        "receive_time": RECEIVED,
        "balance": "25614.92972633",
        "currency": "USDT",
        "pool": "USDT",
        "is_snapshot": False,
    }
    (snapshot,) = normalize("linear", *lines("derived.public.linear.insurance.snapshot"))
    assert values(snapshot)["is_snapshot"] is True


def test_a_shared_insurance_fund_is_named_by_its_contracts() -> None:
    row = {"coin": "BTC", "symbols": "BTCUSD,ETHUSD", "balance": "-1.5", "updateTime": ""}
    message = {"topic": "insurance.inverse", "type": "snapshot", "ts": 7, "data": [row]}
    (event,) = normalize("inverse", json.dumps(message).encode())
    assert isinstance(event, InsuranceFund)
    assert (event.origin.instrument, event.pool, event.exchange_time) == (None, "BTCUSD,ETHUSD", 7000)


def test_alerts_keep_numbers_exactly() -> None:
    events = normalize("linear", *lines("public.linear.adlAlert"))
    assert [event.origin.instrument for event in events] == ["FWOGUSDT", "ZORAUSDT", "BERAUSDT"]
    common = {
        "exchange_time": 1757736794000000,
        "receive_time": RECEIVED,
        "pool": "USDT",
        "currency": "USDT",
        "trigger_ratio": "-0.3",
        "trigger_balance": "10000",
        "stop_ratio": "-0.25",
    }
    assert [values(event) for event in events] == [
        {**common, "is_active": True, "balance": "-5421.29889888", "pnl_ratio": "0"},
        {**common, "is_active": False, "balance": "19873.46255153", "pnl_ratio": "0.000174"},
        {**common, "is_active": False, "balance": "453.36427074", "pnl_ratio": "0.24576"},
    ]


def alert(**fields: Any) -> bytes:
    row = {
        "s": "X",
        "c": "USDT",
        "b": "20000",
        "i_pr": "-0.3",
        "pr": "0",
        "adl_tt": "10000",
        "adl_sr": "-0.25",
        **fields,
    }
    return json.dumps({"topic": "adlAlert.USDT", "type": "snapshot", "ts": 1, "data": [row]}).encode()


@pytest.mark.parametrize(
    ("fields", "is_active"),
    [
        ({"b": "0"}, True),
        ({"b": "-0.00000001"}, True),
        ({"pr": "-0.31"}, True),
        ({"pr": "-0.3"}, None),
        ({"pr": "-0.26"}, None),
        ({"pr": "-0.25"}, None),
        ({"pr": "-0.2499"}, False),
        ({"pr": "-0.31", "b": "10000"}, None),
        ({"pr": "-0.31", "b": "10000.1"}, True),
        ({"b": "9007199254740993e3", "adl_tt": "9007199254740993001", "pr": "-0.31"}, None),
        ({"b": ""}, None),
        ({"pr": ""}, None),
        ({"adl_sr": ""}, None),
    ],
)
def test_when_positions_are_reduced(fields: dict[str, str], is_active: bool | None) -> None:
    (event,) = normalize("linear", alert(**fields))
    assert isinstance(event, AdlAlert)
    assert event.is_active is is_active


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (alert(b="much"), "'much' is not a decimal number"),
        (alert(pr="NaN"), "'NaN' is not a decimal number"),
        (b'{"topic":"insurance.USDT","type":"gone","ts":1,"data":[]}', "'gone'"),
        (b'{"topic":"insurance.USDT","type":"delta","ts":1,"data":[{"balance":"1","updateTime":"soon"}]}', "soon"),
        (b'{"topic":"priceLimit.X","ts":1,"data":{}}', r"priceLimit.X.*`symbol`"),
        (b'{"topic":"allLiquidation.X","ts":1,"data":[{"T":1,"s":"X","S":"Buy","v":"1"}]}', r"\$.data\[0\]"),
    ],
)
def test_unreadable_messages_name_the_fault(message: bytes, why: str) -> None:
    one = normalizer("linear")
    with pytest.raises(BadMessage, match=why):
        one.normalize(message, RECEIVED)
    assert one.streams == {}


def test_system_status() -> None:
    (event,) = normalize("status", *lines("public.misc.system.status"))
    assert type(event) is SystemStatus
    assert head(event)[1:3] == ("system", None)
    assert values(event) == {
        "exchange_time": 1751858399649000,
        "receive_time": RECEIVED,
        "state": "completed",
        "title": "t06",
        "status_id": "4d95b2a0-587f-11f0-bcc9-56f28c94d6ea",
        "begin_time": 1751596902000000,
        "end_time": 1751597011000000,
        "service_types": ("2", "3", "4", "5"),
        "products": ("1", "2"),
        "uid_suffixes": (),
        "maintenance_type": "1",
        "environment": "1",
    }


def test_system_status_with_texts_for_codes() -> None:
    row = {"state": "ongoing", "title": "t", "href": "https://x", "maintainType": "3", "env": "", "uidSuffix": [0, 7]}
    message = {"topic": "system.status", "ts": 1, "data": [row]}
    (event,) = normalize("status", json.dumps(message).encode())
    assert isinstance(event, SystemStatus)
    assert (event.maintenance_type, event.environment, event.href) == ("3", None, "https://x")
    assert (event.uid_suffixes, event.begin_time) == (("0", "7"), None)


def test_spread_book_and_trades() -> None:
    book, trade = normalize("spread", *lines("public.spread.orderbook.25"), *lines("public.spread.publicTrade"))
    assert isinstance(book, BookUpdate)
    assert (book.channel, book.depth, book.previous_sequence, book.sequence) == ("orderbook.25", 25, 64891, 64892)
    assert (book.bids, book.asks, book.size_unit) == ([], [("22.3755", "4.7")], "base")
    assert head(book)[1:3] == ("spread", "SOLUSDT_SOL/USDT")
    assert isinstance(trade, Trade)
    assert (trade.price, trade.size, trade.aggressor, trade.sequence) == ("19.3928", "2.5", "sell", 1783284617)
    assert (trade.trade_id, trade.base_size) == ("31d0fc58-933b-57b3-8378-f73da06da843", "2.5")
    assert (trade.is_block, trade.is_rpi) == (None, None)


RAW = [
    ("spot", "public.deprecated.kline_lt", "kline_lt.5", "EOS3LUSDT", 1672325322393000),
    ("spot", "public.deprecated.tickers_lt", "tickers_lt", "EOS3LUSDT", 1672325446847000),
    ("spot", "public.deprecated.lt", "lt", "EOS3LUSDT", 1672325564669000),
    ("linear", "public.deprecated.liquidation.recorded", "liquidation", "GALAUSDT", 1673251091822000),
    ("rfq", "public.rfq.trades", "rfq.open.public.trades", None, 1757579314358000),
    ("fp", "public.fp.earn.dualassets.offers", "earn.dualassets.offers", None, None),
    ("fp", "public.fp.earn.smartleverage.offers", "earn.smartleverage.offers", None, None),
    ("fp", "public.fp.earn.doublewin.offers", "earn.doublewin.offers", None, None),
    ("fp", "public.fp.earn.discountbuy.offers", "earn.discountbuy.offers", None, None),
]


@pytest.mark.parametrize(("stream", "name", "channel", "instrument", "time"), RAW)
def test_messages_without_a_kind_pass_as_they_are(
    stream: str, name: str, channel: str, instrument: str | None, time: int | None
) -> None:
    message = lines(name)[0]
    (event,) = normalize(stream, message)
    assert type(event) is Raw
    assert head(event)[:3] == ("bybit", stream, instrument)
    assert (event.exchange_time, event.receive_time, event.sequence) == (time, RECEIVED, None)
    assert (event.channel, event.payload.encode()) == (channel, message)
    assert event.payload_sha256 == hashlib.sha256(message).hexdigest()


@pytest.mark.parametrize("topic", ["liquidation", "liquidation."])
def test_topics_without_an_instrument_pass_too(topic: str) -> None:
    message = json.dumps(
        {"data": {"\u00e9": None}, "topic": topic, "ts": "soon"}, ensure_ascii=False, indent=1
    ).encode()
    one = normalizer("linear")
    (event,) = one.normalize(message, RECEIVED)
    assert isinstance(event, Raw)
    assert (event.channel, event.origin.instrument, event.exchange_time) == (topic, None, None)
    assert event.payload.encode() == message
    assert one.streams[topic].messages == 1


@pytest.mark.parametrize(
    ("stream", "topic"),
    [
        ("linear", "nonsense.X"),
        ("linear", ""),
        ("linear", "orderbooks.50.X"),
        ("linear", "system.status"),
        ("linear", "order"),
        ("linear", "order.linear"),
        ("linear", "lt.X"),
        ("linear", "rfq.open.public.trades"),
        ("spot", "liquidation.X"),
        ("spot", "allLiquidation.X"),
        ("spot", "insurance.USDT"),
        ("option", "kline.1.X"),
        ("option", "orderbook.rpi.X"),
        ("option", "priceLimit.X"),
        ("private", "publicTrade.X"),
        ("private", "orders"),
        ("private", "earn.dualassets.offers"),
        ("status", "system"),
        ("status", "tickers.X"),
        ("rfq", "strategy"),
        ("fp", "rfq.open.rfqs"),
        ("trade", "order"),
    ],
)
def test_a_topic_is_unknown_on_the_wrong_stream(stream: str, topic: str) -> None:
    one = normalizer(stream)
    for data in ("[]", "{}"):
        message = f'{{"topic":"{topic}","type":"snapshot","ts":1,"creationTime":1,"data":{data}}}'.encode()
        with pytest.raises(BadMessage, match=f'^bybit {stream} .*: unknown topic "{topic}"$'):
            one.normalize(message, RECEIVED)
    assert not one.streams


@pytest.mark.parametrize("topic", ["dcp.future", "rfq.site.rfqs", "strategy"])
def test_what_may_come_on_the_private_stream_is_of_the_account(topic: str) -> None:
    message = json.dumps({"topic": topic, "creationTime": 5, "data": []}).encode()
    (event,) = private(message)
    assert type(event) is AccountRaw
    assert (event.channel, event.exchange_time, event.origin.account) == (topic, 5000, "main")
    assert (event.payload.encode(), event.payload_sha256) == (message, hashlib.sha256(message).hexdigest())


def test_every_public_sample_gives_events() -> None:
    streams = {"spot", "linear", "inverse", "option", "spread", "misc", "rfq", "fp", "deprecated"}
    names = [path.stem for path in DATA.glob("*public.*.jsonl") if "control" not in path.stem]
    assert len(names) > 45
    for name in names:
        part = name.removeprefix("derived.").split(".")[1]
        assert part in streams
        stream = {"misc": "status", "deprecated": "linear" if "liquidation" in name else "spot"}.get(part, part)
        one = normalizer(stream)
        events = [event for message in lines(name) for event in one.normalize(message, RECEIVED)]
        assert events or "tickers.singleoi.delta" in name, name
