from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.avro.codec import Decimals, Schemas
from pipeline.avro.decoder import decode, event_to_json, record_to_json
from pipeline.avro.schemas import load_schema, split_header
from pipeline.model.account import Fill
from pipeline.model.decimals import DecimalText
from pipeline.model.events import (
    KINDS,
    PRICE_SIZE_COUNT,
    PRICE_SIZE_RPI,
    BookTop,
    DeadLetter,
    MarkPrice,
    Micros,
    Origin,
    Row,
    SystemStatus,
)
from tests.avro.strategies import events

SCHEMAS: dict[Decimals, Schemas] = {"text": Schemas.load("text"), "decimal": Schemas.load("decimal")}
ENCODERS = {
    (decimals, kind): codec.encoder() for decimals, schemas in SCHEMAS.items() for kind, codec in schemas.codecs.items()
}
TIME = Micros(1_700_000_000_123_456)


def origin() -> Origin:
    return Origin("okx", "swap", "BTC-USDT-SWAP", None, None, "okx.public.0#1")


def same(left: Any, right: Any) -> bool:
    """Equality in which NaN is itself."""
    return json.dumps(left) == json.dumps(right)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_what_was_encoded_is_decoded(kind: str, data: st.DataObject) -> None:
    event = data.draw(events(kind))
    name, fields = split_header(ENCODERS["text", kind](event))
    assert isinstance(name, bytes)
    assert SCHEMAS["text"].kind_of(name) == kind
    record = SCHEMAS["text"][kind].decode(fields)
    assert same(record_to_json(kind, record), event_to_json(event))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_decimals_keep_their_value(kind: str, data: st.DataObject) -> None:
    event = data.draw(events(kind))
    _, fields = split_header(ENCODERS["decimal", kind](event))
    decoded = record_to_json(kind, SCHEMAS["decimal"][kind].decode(fields))
    expected = event_to_json(event)
    assert list(decoded) == list(expected)
    types = {field["name"]: json.dumps(field["type"]) for field in load_schema(kind)["fields"]}
    for name, value in expected.items():
        if name in ("bids", "asks"):
            for level, decoded_level in zip(value, decoded[name], strict=True):
                assert {key: Decimal(text) for key, text in decoded_level.items()} == {
                    key: Decimal(text) for key, text in level.items()
                }
        elif isinstance(value, dict) and "decimal-text" in types[name]:
            assert {key: Decimal(text) for key, text in decoded[name].items()} == {
                key: Decimal(text) for key, text in value.items()
            }
        elif "decimal-text" in types.get(name, "") and value is not None:
            assert Decimal(decoded[name]) == Decimal(value)
            assert "e" not in decoded[name].lower()
        else:
            assert same(decoded[name], value)


def test_json_of_a_book() -> None:
    rows: list[Row] = [("65000.50", "2", "0", "3")]
    event = BookTop(origin(), TIME, TIME, 9, "books", 1, rows, [], PRICE_SIZE_COUNT, "contract")
    assert event_to_json(event) == {
        "event": "book_top",
        "venue": "okx",
        "market": "swap",
        "instrument": "BTC-USDT-SWAP",
        "symbol": None,
        "account": None,
        "connection": "okx.public.0#1",
        "exchange_time": TIME,
        "receive_time": TIME,
        "sequence": 9,
        "channel": "books",
        "epoch": 1,
        "bids": [{"price": "65000.50", "size": "2", "order_count": 3}],
        "asks": [],
        "size_unit": "contract",
    }
    rpi = replace(event, bids=[("1", "2", "3")], layout=PRICE_SIZE_RPI)
    assert event_to_json(rpi)["bids"] == [{"price": "1", "size": "2", "rpi_size": "3"}]


def test_json_has_the_fields_in_the_order_of_the_schema() -> None:
    event = BookTop(origin(), TIME, TIME, 9, "books", 1, [], [], PRICE_SIZE_COUNT, "contract")
    assert list(event_to_json(event)) == ["event", *(field["name"] for field in load_schema("book_top")["fields"])]


def test_json_of_lists_and_maps() -> None:
    status = SystemStatus(origin(), TIME, TIME, None, "ongoing", "Upgrade", service_types=("2", "3"))
    assert event_to_json(status)["service_types"] == ["2", "3"]
    fees = {"USDT": DecimalText("-0.10"), "MNT": DecimalText("1E-7")}
    event = Fill(origin(), TIME, TIME, None, "orders", False, "1", "buy", fees["MNT"], fees["MNT"], "base")
    event = replace(event, extra_fees=fees, extras={"source": "6"})
    assert event_to_json(event)["extra_fees"] == fees
    _, fields = split_header(ENCODERS["decimal", "fill"](event))
    record = record_to_json("fill", SCHEMAS["decimal"]["fill"].decode(fields))
    assert record["extra_fees"] == {"USDT": "-0.1", "MNT": "0.0000001"}
    assert record["extras"] == {"source": "6"}


def test_payloads_are_shown_as_text() -> None:
    payload = '{"a":"ß"}'.encode() + b"\xff\x00"
    event = DeadLetter(origin(), None, TIME, None, "parse", "bad", payload, len(payload), "00")
    assert event_to_json(event)["payload"] == '{"a":"ß"}\\xff\x00'
    json.dumps(event_to_json(event))


@pytest.mark.parametrize(
    ("price", "shown"), [("65000.50", "65000.5"), ("100", "100"), ("0", "0"), ("-0.000000000000000001",) * 2]
)
def test_avro_decimals_are_shown_without_exponent_or_padding(price: str, shown: str) -> None:
    event = MarkPrice(origin(), TIME, TIME, None, DecimalText(price))
    _, fields = split_header(ENCODERS["decimal", "mark_price"](event))
    assert record_to_json("mark_price", SCHEMAS["decimal"]["mark_price"].decode(fields))["price"] == shown


def test_avro_decimals_of_any_scale_keep_their_zeros_before_the_point() -> None:
    record = {"price": Decimal(100), "size": Decimal("1E+3"), "mark_price": Decimal("100.00")}
    assert record_to_json("x", record) == {"event": "x", "price": "100", "size": "1000", "mark_price": "100"}


def test_broken_records_are_refused() -> None:
    event = MarkPrice(origin(), TIME, TIME, None, DecimalText("1"))
    _, fields = split_header(ENCODERS["text", "mark_price"](event))
    schema = load_schema("mark_price")
    assert decode(schema, fields)["price"] == "1"
    with pytest.raises(ValueError, match="1 bytes are left"):
        decode(schema, fields + b"\x00")
    with pytest.raises(EOFError):
        decode(schema, fields[:-1])
