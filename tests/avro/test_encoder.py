from __future__ import annotations

from io import BytesIO
from typing import Any, cast

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.avro import encoder as encoder_module
from pipeline.avro.codec import Decimals, Schemas
from pipeline.avro.encoder import compile_encoder
from pipeline.avro.schemas import confluent_header, load_schema, single_object_header
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import Unencodable
from pipeline.model.events import (
    KINDS,
    PRICE_SIZE,
    PRICE_SIZE_COUNT,
    PRICE_SIZE_RPI,
    PRICE_SIZE_RPI_COUNT,
    Bbo,
    BookTop,
    BookUpdate,
    DeadLetter,
    Event,
    FeedStatus,
    Layout,
    MarkPrice,
    Micros,
    Origin,
    Raw,
    SystemStatus,
    Ticker,
    Trade,
)
from tests.avro.strategies import LAYOUTS, events, to_record

SCHEMAS = {decimals: Schemas.load(decimals) for decimals in ("text", "decimal")}
ENCODERS = {
    (decimals, kind): codec.encoder(b"")
    for decimals, schemas in SCHEMAS.items()
    for kind, codec in schemas.codecs.items()
}
NULL, FIVE = cast("str", None), cast("str", 5)
BOTH = pytest.mark.parametrize("decimals", ["text", "decimal"])


def fastavro_bytes(event: Event, decimals: Decimals) -> bytes:
    schema = SCHEMAS[decimals].schema(event.KIND)
    stream = BytesIO()
    fastavro.schemaless_writer(stream, schema, to_record(event, schema))
    return stream.getvalue()


def origin() -> Origin:
    return Origin("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", None, "bybit.linear.0#3")


def text(value: str) -> DecimalText:
    return DecimalText(value)


def trade(**changes: Any) -> Trade:
    arguments: dict[str, Any] = {
        "origin": origin(),
        "exchange_time": Micros(1_700_000_000_000_000),
        "receive_time": Micros(1_700_000_000_012_345),
        "sequence": 9_000_000_001,
        "trade_id": "a1b2",
        "price": text("65000.50"),
        "size": text("0.001"),
        "size_unit": "base",
        "base_size": text("0.001"),
        "quote_size": None,
        "aggressor": "buy",
    }
    return Trade(**{**arguments, **changes})


def book(layout: Layout, bids: list[Any], asks: list[Any]) -> BookUpdate:
    time = Micros(1_700_000_000_000_000)
    return BookUpdate(origin(), time, time, 7, "orderbook.50", False, 6, bids, asks, layout, "base", 50)


def order(**changes: Any) -> Order:
    time = Micros(1_700_000_000_000_000)
    head = Origin("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP", "main", "okx.private.main#1")
    arguments: dict[str, Any] = {
        "channel": "orders",
        "is_snapshot": False,
        "order_id": "2510789768709120",
        "status": "new",
        "venue_status": "live",
        "side": "buy",
        "order_type": "limit",
        "size_unit": "contract",
        "filled_size_unit": "contract",
    }
    return Order(head, time, time, None, **{**arguments, **changes})


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_bytes_are_those_of_fastavro(decimals: Decimals, kind: str, data: st.DataObject) -> None:
    event = data.draw(events(kind, any_time=True))
    assert ENCODERS[decimals, kind](event) == fastavro_bytes(event, decimals)


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout(decimals: Decimals, layout: Layout) -> None:
    values: dict[str | None, str] = {
        "price": "65000.5",
        "size": "0.1",
        "rpi_size": "0.02",
        "order_count": "12",
        None: "x",
    }
    row = tuple(values[name] for name in layout)
    for bids, asks in (([row] * 70, []), ([], [row]), ([], []), ([[*row, "more"]], [list(row)])):
        event = book(layout, bids, asks)
        assert ENCODERS[decimals, "book_update"](event) == fastavro_bytes(event, decimals)


def test_layouts_are_told_apart_by_what_they_name() -> None:
    row = ("1", "2", "3", "4")
    encode = ENCODERS["text", "book_update"]
    with_count, with_both = book(PRICE_SIZE_COUNT, [row], []), book(PRICE_SIZE_RPI_COUNT, [row], [])
    assert encode(with_count) == fastavro_bytes(with_count, "text")
    assert encode(with_both) == fastavro_bytes(with_both, "text")
    equal = book(layout_of("price", "size", None, "order_count"), [row], [])
    assert encode(equal) == encode(with_count)


def test_a_nullable_position_may_be_null() -> None:
    event = book(PRICE_SIZE_RPI, [("1", "2", None)], [])
    assert ENCODERS["text", "book_update"](event) == fastavro_bytes(event, "text")


def test_the_header_comes_first() -> None:
    codec = SCHEMAS["text"]["trade"]
    bare = codec.encoder(b"")(trade())
    assert codec.encoder(confluent_header(300))(trade()) == b"\x00\x00\x00\x01\x2c" + bare
    assert codec.encoder()(trade()) == single_object_header(codec.schema) + bare


def test_the_head_is_encoded_once_for_all_kinds() -> None:
    head = origin()
    time = Micros(1)
    first = trade(origin=head)
    assert ENCODERS["text", "trade"](first) == fastavro_bytes(first, "text")
    prepared = head.prefix
    assert prepared
    for decimals in ("text", "decimal"):
        second = MarkPrice(head, time, time, None, text("1"))
        assert ENCODERS[decimals, "mark_price"](second) == fastavro_bytes(second, decimals)
    assert head.prefix is prepared


def test_receive_times_of_batches_are_told_apart() -> None:
    encode = ENCODERS["text", "trade"]
    for time in (1_000_000, 1_000_000, 2_000_000, 10**15, 10**15 + 1, 1_000_000):
        event = trade(receive_time=Micros(time))
        assert encode(event) == fastavro_bytes(event, "text")


def test_a_new_encoder_knows_no_receive_time() -> None:
    with pytest.raises(Unencodable, match="receive_time: must not be null"):
        SCHEMAS["text"]["trade"].encoder()(trade(receive_time=None))


def test_caches_do_not_confuse_null_with_text() -> None:
    encode = ENCODERS["text", "trade"]
    for direction in (None, "", "None", None, "PlusTick"):
        event = trade(tick_direction=direction)
        assert encode(event) == fastavro_bytes(event, "text")


def test_a_float_is_no_time_even_if_it_equals_one() -> None:
    time = 1_700_000_000_000_000
    good = trade(exchange_time=time)
    assert ENCODERS["text", "trade"](good) == fastavro_bytes(good, "text")
    assert refusal(trade(exchange_time=float(time))).startswith("trade.exchange_time: is of the wrong type float")
    raw = Raw(origin(), Micros(time), Micros(1), None, "BTCUSDT", "{}", "0" * 64)
    assert ENCODERS["text", "raw"](raw) == fastavro_bytes(raw, "text")
    wrong = replace(raw, exchange_time=float(time))
    assert refusal(wrong).startswith("raw.exchange_time: is of the wrong type float")


@pytest.mark.parametrize("time", [0, -1, 63, 8191, 8192, 2**62, -(2**63), 2**63 - 1])
def test_times_are_told_apart_from_their_neighbours(time: int) -> None:
    encode = ENCODERS["text", "trade"]
    for other in (time, time, max(time - 1, -(2**63)), min(time + 1, 2**63 - 1), time):
        event = trade(exchange_time=Micros(other), sequence=other)
        assert encode(event) == fastavro_bytes(event, "text")


def test_the_caches_stay_bounded() -> None:
    encode = ENCODERS["text", "mark_price"]
    time = Micros(1)
    for number in range(40_000):
        encode(MarkPrice(origin(), time, time, None, text(str(number))))
    assert all(len(pieces) <= pieces.limit for pieces in encoder_module._PIECES.values())
    assert encoder_module._PIECES["DECIMAL_TEXT"]


def test_the_generated_code_can_be_read() -> None:
    source = ENCODERS["text", "trade"].source  # type: ignore[attr-defined]
    assert "DECIMAL_TEXT(v := event.price)" in source
    assert "return (" in source


def layout_of(*names: str | None) -> Layout:
    """An object of its own, not the constant."""
    return names


def refusal(event: Event, decimals: Decimals = "text", kind: str = "") -> str:
    with pytest.raises(Unencodable) as caught:
        ENCODERS[decimals, kind or event.KIND](event)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": "abc"}, "trade.price: is no decimal number: 'abc'"),
        ({"price": ""}, "trade.price: is no decimal number: ''"),
        ({"price": None}, "trade.price: must not be null: None"),
        ({"price": 65000.5}, "trade.price: is of the wrong type float: 65000.5"),
        ({"quote_size": "1,5"}, "trade.quote_size: is no decimal number: '1,5'"),
        ({"trade_id": None}, "trade.trade_id: must not be null: None"),
        ({"trade_id": 12}, "trade.trade_id: is of the wrong type int: 12"),
        ({"trade_id": b"12"}, "trade.trade_id: is of the wrong type bytes: b'12'"),
        ({"trade_id": "\ud800"}, "trade.trade_id: is no text that UTF-8 can carry: '\\ud800'"),
        ({"size_unit": None}, "trade.size_unit: must not be null: None"),
        ({"size_unit": b"base"}, "trade.size_unit: is of the wrong type bytes: b'base'"),
        ({"tick_direction": 1}, "trade.tick_direction: is of the wrong type int: 1"),
        ({"exchange_time": None}, "trade.exchange_time: must not be null: None"),
        ({"exchange_time": 1.5}, "trade.exchange_time: is of the wrong type float: 1.5"),
        ({"receive_time": None}, "trade.receive_time: must not be null: None"),
        ({"receive_time": 2**63}, f"trade.receive_time: does not fit 64 bits: {2**63}"),
        ({"sequence": -(2**63) - 1}, f"trade.sequence: does not fit 64 bits: {-(2**63) - 1}"),
        ({"sequence": "7"}, "trade.sequence: is of the wrong type str: '7'"),
        ({"match_count": 2**31}, f"trade.match_count: does not fit 32 bits: {2**31}"),
        ({"is_block": 1}, "trade.is_block: is of the wrong type int: 1"),
        ({"implied_volatility": "0.5"}, "trade.implied_volatility: is of the wrong type str: '0.5'"),
        ({"price": ["1"]}, "trade.price: is of the wrong type list: ['1']"),
        ({"price": "x" * 500}, "trade.price: is no decimal number: '" + "x" * 78 + "…"),
        ({"origin": None}, "trade.origin: is of the wrong type: None"),
        (
            {"origin": Origin("bybit", "linear", None, None, None, NULL)},
            "trade.connection: must not be null",
        ),
        (
            {"origin": Origin("bybit", "linear", None, FIVE, None, "c")},
            "trade.symbol: is of the wrong type int: 5",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(trade(**changes)).startswith(message)
    good = trade()
    assert ENCODERS["text", "trade"](good) == fastavro_bytes(good, "text")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fees": {"USDT": "0.1", "MNT": "x"}}, "order.fees['MNT']: is no decimal number: 'x'"),
        ({"fees": {"USDT": None}}, "order.fees['USDT']: must not be null: None"),
        ({"is_snapshot": None}, "order.is_snapshot: must not be null: None"),
        ({"fees": {"USDT": 0.1}}, "order.fees['USDT']: is of the wrong type float: 0.1"),
        ({"fees": {None: "0.1"}}, "order.fees: key: must not be null: None"),
        ({"fees": {5: "0.1"}}, "order.fees: key: is of the wrong type int: 5"),
        ({"fees": None}, "order.fees: must not be null: None"),
        ({"fees": ["USDT"]}, "order.fees: is of the wrong type list: ['USDT']"),
        ({"extras": {"source": 6}}, "order.extras['source']: is of the wrong type int: 6"),
        ({"extras": {"msg": "\ud800"}}, "order.extras['msg']: is no text that UTF-8 can carry: '\\ud800'"),
        ({"price": "1,5"}, "order.price: is no decimal number: '1,5'"),
    ],
    ids=str,
)
def test_amounts_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(order(**changes)) == message
    good = order(fees={"USDT": text("-0.10")}, extras={"source": "6"})
    assert ENCODERS["text", "order"](good) == fastavro_bytes(good, "text")


def test_amounts_that_avro_cannot_hold_exactly_are_refused() -> None:
    event = order(fees={"BTC": text("1e-19")})
    assert refusal(event, "decimal") == "order.fees['BTC']: has more than 18 fractional digits: '1e-19'"
    assert ENCODERS["text", "order"](event) == fastavro_bytes(event, "text")


@pytest.mark.parametrize(
    ("products", "message"),
    [
        (["1", 2], "system_status.products[1]: is of the wrong type int: 2"),
        (("1", None), "system_status.products[1]: must not be null: None"),
        ("12", "system_status.products: is of the wrong type str: '12'"),
        (None, "system_status.products: must not be null: None"),
    ],
    ids=str,
)
def test_lists_that_do_not_fit_are_named(products: Any, message: str) -> None:
    time = Micros(1)
    event = SystemStatus(origin(), time, time, None, "ongoing", "Upgrade", products=["1"])
    assert ENCODERS["text", "system_status"](event) == fastavro_bytes(event, "text")
    assert refusal(replace(event, products=products)) == message


def test_events_do_not_share_their_maps() -> None:
    first, second = order(), order()
    assert first.fees == second.fees == {}
    assert first.fees is not second.fees
    assert first.extras is not second.extras


def test_payloads_do_not_fill_the_cache() -> None:
    before = set(encoder_module._PIECES["TEXT"])
    raw = Raw(origin(), None, Micros(1), None, "BTCUSDT", '{"short":1}', "0" * 64)
    assert ENCODERS["text", "raw"](raw) == fastavro_bytes(raw, "text")
    assert encoder_module._PIECES["TEXT"].keys() - before <= {"BTCUSDT"}


@pytest.mark.parametrize(
    ("layout", "bids", "message"),
    [
        (PRICE_SIZE, [("1", "2"), ("1",)], "book_update.bids[1]: has fewer than 2 positions: ('1',)"),
        (PRICE_SIZE_COUNT, [("1", "2", "0")], "book_update.bids[0]: has fewer than 4 positions: ('1', '2', '0')"),
        (PRICE_SIZE, [("1", "2"), ("1", "")], "book_update.bids[1].size: is no decimal number: ''"),
        (PRICE_SIZE, [("1,2", "3")], "book_update.bids[0].price: is no decimal number: '1,2'"),
        (PRICE_SIZE, [("1", None)], "book_update.bids[0].size: must not be null: None"),
        (PRICE_SIZE, [(1.5, "2")], "book_update.bids[0].price: is of the wrong type float: 1.5"),
        (PRICE_SIZE, [{"price": "1", "size": "2"}], "book_update.bids[0]: is of the wrong type dict"),
        (PRICE_SIZE, [None], "book_update.bids[0]: must not be null: None"),
        (PRICE_SIZE, None, "book_update.bids: must not be null: None"),
        (PRICE_SIZE_RPI, [("1", "2", "x")], "book_update.bids[0].rpi_size: is no decimal number: 'x'"),
        (PRICE_SIZE_COUNT, [("1", "2", "0", "1.0")], "book_update.bids[0].order_count: is no count: '1.0'"),
        (PRICE_SIZE_COUNT, [("1", "2", "0", "-1")], "book_update.bids[0].order_count: is no count: '-1'"),
        (PRICE_SIZE_COUNT, [("1", "2", "0", "2147483648")], "book_update.bids[0].order_count: does not fit 32 bits"),
        (PRICE_SIZE_COUNT, [("1", "2", "0", 5)], "book_update.bids[0].order_count: is of the wrong type int: 5"),
        (("price",), [("1",)], "book_update.layout: lacks size: ('price',)"),
        (
            ("price", "size", "colour"),
            [],
            "book_update.layout: names what a level does not have: ('price', 'size', 'colour')",
        ),
    ],
    ids=str,
)
def test_rows_that_do_not_fit_are_named(layout: Layout, bids: list[Any], message: str) -> None:
    assert refusal(book(layout, bids, [])).startswith(message)
    good = book(PRICE_SIZE, [("1", "2")], [])
    assert ENCODERS["text", "book_update"](good) == fastavro_bytes(good, "text")


@pytest.mark.parametrize("digits", [27, 28, 29, 63, 64, 200])
@pytest.mark.parametrize("levels", [1, 63, 64])
def test_levels_of_any_length_are_written(digits: int, levels: int) -> None:
    long = f"{'9' * digits}.{'1' * digits}"
    event = book(PRICE_SIZE_RPI, [("1", "2e-10", None)] * levels, [("-1", long, "1" * digits + "E+100")])
    assert ENCODERS["text", "book_update"](event) == fastavro_bytes(event, "text")


def test_a_null_is_a_missing_list_too() -> None:
    assert (
        refusal(book(PRICE_SIZE, [("1", "2")], cast("list[Any]", None))) == "book_update.asks: must not be null: None"
    )


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ("1e-19", "has more than 18 fractional digits: '1e-19'"),
        ("0.1234567890123456789", "has more than 18 fractional digits: '0.1234567890123456789'"),
        ("100000000000000000000", "has more than 20 integer digits: '100000000000000000000'"),
        ("1e20", "has more than 20 integer digits: '1e20'"),
    ],
)
def test_decimals_that_avro_cannot_hold_exactly_are_refused(price: str, message: str) -> None:
    assert refusal(trade(price=price), "decimal") == "trade.price: " + message
    event = book(PRICE_SIZE, [], [(price, "1")])
    assert refusal(event, "decimal") == "book_update.asks[0].price: " + message
    lossless = trade(price=text(price))
    assert ENCODERS["text", "trade"](lossless) == fastavro_bytes(lossless, "text")


def test_exponents_are_converted_exactly() -> None:
    event = trade(price=text("1e-7"), size=text("12.5E+3"))
    codec = SCHEMAS["decimal"]["trade"]
    record = codec.decode(ENCODERS["decimal", "trade"](event))
    assert (str(record["price"]), record["size"]) == ("1.00000000000E-7", 12500)


def test_an_event_of_another_kind_is_refused() -> None:
    assert refusal(trade(), kind="bbo").startswith("bbo: not an event of this kind: Trade(")


def test_times_may_be_null_only_where_nothing_happened_at_the_venue() -> None:
    time = Micros(1)
    status = FeedStatus(origin(), None, time, None, "lost", "connection", "closed")
    letter = DeadLetter(origin(), None, time, None, "parse", "bad", b"\x00\xff", 2, "00")
    for event in (status, letter):
        assert ENCODERS["text", event.KIND](event) == fastavro_bytes(event, "text")
    assert "exchange_time" in refusal(Ticker(origin(), None, time, None, "base"))
    assert "exchange_time" in refusal(Bbo(origin(), None, time, None, "c", None, None, None, None, "base"))
    assert "exchange_time" in refusal(BookTop(origin(), None, time, None, "c", 0, [], [], PRICE_SIZE, "base"))


def test_a_schema_that_is_not_of_the_class_is_not_compiled() -> None:
    with pytest.raises(ValueError, match="fields"):
        compile_encoder(Trade, load_schema("bbo"), b"")
    schema = load_schema("trade")
    schema["fields"][2]["type"] = "string"
    with pytest.raises(ValueError, match="head"):
        compile_encoder(Trade, schema, b"")


@pytest.mark.parametrize(
    "avro_type",
    [
        ["string", "null"],
        "float",
        {"type": "bytes", "logicalType": "uuid"},
        {"type": "array", "items": "long"},
        {"type": "map", "values": "float"},
        {"type": "map", "values": ["null", "string"]},
    ],
    ids=str,
)
def test_types_without_an_encoding_are_not_compiled(avro_type: Any) -> None:
    schema = load_schema("mark_price")
    schema["fields"][-1]["type"] = avro_type
    with pytest.raises(ValueError, match=r"encoding|unions"):
        compile_encoder(MarkPrice, schema, b"")


def test_events_are_not_changed() -> None:
    event = trade()
    before = replace(event)
    ENCODERS["text", "trade"](event)
    assert event == before
