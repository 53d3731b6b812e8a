"""The catalogue, from the venue's documented answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.exchanges.bybit.instruments import LIKELY_OPTION_BASES, OPTION_BASES
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import RestPage
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.model.events import Instrument
from tests.exchanges.bybit.samples import RECEIVED, body, head, values

VENUE = Bybit()
LINEAR = RestPage("/v5/market/instruments-info?category=linear&limit=1000")


def parse(market: str, name: str) -> Instrument:
    (instrument,), _ = VENUE.parse_instruments(market, VENUE.instrument_pages(market)[0], body(name), RECEIVED)
    return instrument


def answer(*rows: dict[str, Any], cursor: str | None = "", **result: Any) -> bytes:
    listing = {"list": list(rows), "nextPageCursor": cursor, **result}
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": listing, "time": 1}).encode()


def test_linear_perpetual() -> None:
    instrument = parse("linear", "rest.market.instruments-info.linear")
    assert head(instrument) == ("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", None, "bybit.rest")
    assert values(instrument) == {
        "receive_time": RECEIVED,
        "kind": "perpetual",
        "state": "Trading",
        "is_tradable": True,
        "base": "BTC",
        "quote": "USDT",
        "settle": "USDT",
        "size_unit": "base",
        "is_inverse": False,
        "tick_size": "0.10",
        "lot_size": "0.001",
        "min_size": "0.001",
        "max_limit_size": "1190.000",
        "max_market_size": "500.000",
        "min_value": "5",
        "min_price": "0.10",
        "max_price": "1999999.80",
        "listing_time": 1585526400000000,
        "funding_interval_minutes": 480,
        "max_leverage": "100.00",
        "instrument_code": 5,
    }


def test_pre_market_perpetual_and_its_next_page() -> None:
    page = VENUE.instrument_pages("linear")[1]
    text = body("rest.market.instruments-info.linear.prelaunch")
    (instrument,), following = VENUE.parse_instruments("linear", page, text, RECEIVED)
    assert (instrument.state, instrument.is_tradable) == ("PreLaunch", True)
    assert head(instrument)[3] == "BIO-USDT-PERP"
    assert following == RestPage(f"{page.path}&cursor=first%3DBIOUSDT%26last%3DBIOUSDT")
    auction = text.replace(b'"curAuctionPhase": "ContinuousTrading"', b'"curAuctionPhase": "CallAuction"')
    (waiting,), _ = VENUE.parse_instruments("linear", page, auction, RECEIVED)
    assert not waiting.is_tradable


def test_spread() -> None:
    (page,) = VENUE.instrument_pages("spread")
    assert page == RestPage("/v5/spread/instrument?limit=500")
    (instrument,), following = VENUE.parse_instruments("spread", page, body("rest.spread.instrument"), RECEIVED)
    assert following == RestPage(f"{page.path}&cursor=first%3D100008%26last%3D100008")
    assert head(instrument) == ("bybit", "spread", "SOLUSDT_SOL/USDT", None, None, "bybit.rest")
    assert values(instrument) == {
        "receive_time": RECEIVED,
        "kind": "spread",
        "state": "Trading",
        "is_tradable": True,
        "base": "SOL",
        "quote": "USDT",
        "settle": "USDT",
        "size_unit": "base",
        "is_inverse": False,
        "tick_size": "0.0001",
        "lot_size": "0.1",
        "min_size": "0.1",
        "max_limit_size": "50000",
        "min_price": "-1999.9998",
        "max_price": "1999.9998",
        "listing_time": 1743675300000000,
    }


def test_option() -> None:
    instrument = parse("option", "rest.market.instruments-info.option")
    assert head(instrument)[2:4] == ("BTC-27MAR26-70000-P-USDT", "BTC-USDT-20260327-70000-P")
    assert values(instrument) == {
        "receive_time": RECEIVED,
        "kind": "option",
        "state": "Trading",
        "is_tradable": True,
        "base": "BTC",
        "quote": "USDT",
        "settle": "USDT",
        "size_unit": "base",
        "is_inverse": False,
        "tick_size": "5",
        "lot_size": "0.01",
        "min_size": "0.01",
        "max_limit_size": "500",
        "min_price": "5",
        "max_price": "1110000",
        "listing_time": 1743669649256000,
        "expiry_time": 1774598400000000,
        "strike": "70000",
        "option_type": "put",
        "underlying": "BTC",
    }


def test_spot() -> None:
    instrument = parse("spot", "rest.market.instruments-info.spot")
    assert head(instrument)[2:4] == ("BTCUSDT", "BTC-USDT")
    assert values(instrument) == {
        "receive_time": RECEIVED,
        "kind": "spot",
        "state": "Trading",
        "is_tradable": True,
        "base": "BTC",
        "quote": "USDT",
        "size_unit": "base",
        "is_inverse": False,
        "tick_size": "0.1",
        "lot_size": "0.000001",
        "min_size": "0.000011",
        "max_limit_size": "83",
        "max_market_size": "41.5",
        "min_value": "5",
        "instrument_code": 9,
    }


INVERSE = {
    "symbol": "BTCUSDU23",
    "status": "Trading",
    "contractType": "InverseFutures",
    "baseCoin": "BTC",
    "quoteCoin": "USD",
    "settleCoin": "BTC",
    "deliveryTime": "1695974400000",
}


def test_inverse_future_is_one_dollar_a_contract() -> None:
    ((instrument,), _) = VENUE.parse_instruments("inverse", LINEAR, answer(INVERSE), RECEIVED)
    assert (instrument.kind, instrument.size_unit, instrument.is_inverse) == ("future", "quote", True)
    assert (instrument.contract_value, instrument.contract_currency, instrument.settle) == ("1", "USD", "BTC")
    assert head(instrument)[1:4] == ("inverse", "BTCUSDU23", "BTC-USD-20230929")


def test_states_and_kinds_to_come() -> None:
    rows: list[dict[str, Any]] = [
        {"symbol": "A", "status": "Closed", "contractType": "LinearPerpetual", "deliveryTime": "1695974400000"},
        {"symbol": "B", "status": "NewState", "contractType": "EventContract", "deliveryTime": 0},
        {"symbol": "C", "status": "Trading", "contractType": "EventContract", "deliveryTime": "1"},
    ]
    found, _ = VENUE.parse_instruments("linear", LINEAR, answer(*rows), RECEIVED)
    assert [(each.kind, each.state, each.is_tradable) for each in found] == [
        ("perpetual", "Closed", False),
        ("perpetual", "NewState", False),
        ("future", "Trading", True),
    ]
    assert found[0].expiry_time == 1695974400000000
    assert [each.origin.symbol for each in found] == [None, None, None]


def test_a_listing_holds_only_its_market() -> None:
    found, _ = VENUE.parse_instruments("linear", LINEAR, answer(INVERSE), RECEIVED)
    assert found == []


def test_saved_answers_tell_their_market() -> None:
    cases = {"linear": "linear", "linear.prelaunch": "linear", "option": "option", "spot": "spot"}
    for name, market in cases.items():
        (instrument,) = VENUE.read_instruments(body(f"rest.market.instruments-info.{name}"), RECEIVED)
        assert instrument.origin.market == market
    (inverse,) = VENUE.read_instruments(answer(INVERSE), RECEIVED)
    assert inverse.origin.market == "inverse"
    (option,) = VENUE.read_instruments(answer({"symbol": "X-1-2-C", "status": "", "optionsType": "Call"}), RECEIVED)
    assert (option.origin.market, option.option_type) == ("option", "call")
    (mixed,) = VENUE.read_instruments(answer(INVERSE, category="linear"), RECEIVED)
    assert mixed.origin.market == "inverse"


def test_first_pages() -> None:
    path = "/v5/market/instruments-info?category="
    assert [page.path for market in VENUE.markets for page in VENUE.instrument_pages(market)] == [
        f"{path}spot",
        f"{path}linear&limit=1000",
        f"{path}linear&status=PreLaunch&limit=1000",
        f"{path}inverse&limit=1000",
        *(f"{path}option&baseCoin={coin}&limit=1000" for coin in (*OPTION_BASES, *LIKELY_OPTION_BASES)),
        "/v5/spread/instrument?limit=500",
    ]


def test_a_coin_that_may_have_no_options_has_none_where_the_venue_does_not_know_it() -> None:
    unknown = json.dumps({"retCode": 10001, "retMsg": "params error: baseCoin", "result": {}}).encode()
    banned = json.dumps({"retCode": 10024, "retMsg": "compliance", "result": {}}).encode()
    pages = VENUE.instrument_pages("option")
    assert VENUE.parse_instruments("option", pages[-1], unknown, RECEIVED) == ([], None)
    for page, text in ((pages[0], unknown), (pages[-1], banned)):
        with pytest.raises(Refused):
            VENUE.parse_instruments("option", page, text, RECEIVED)


def test_paging_replaces_the_cursor_and_encodes_it_once() -> None:
    _, second = VENUE.parse_instruments("linear", LINEAR, answer(cursor="a%3D1"), RECEIVED)
    assert second == RestPage(f"{LINEAR.path}&cursor=a%3D1")
    _, third = VENUE.parse_instruments("linear", second, answer(cursor="b&c=d"), RECEIVED)
    assert third == RestPage(f"{LINEAR.path}&cursor=b%26c%3Dd")
    for last in ("", None):
        assert VENUE.parse_instruments("linear", third, answer(cursor=last), RECEIVED) == ([], None)
    with pytest.raises(BadMessage, match="next page"):
        VENUE.parse_instruments("linear", second, answer(cursor="a%3D1"), RECEIVED)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (10006, Retryable),
        (10016, Retryable),
        (10018, Retryable),
        (10777, Retryable),
        (10001, Refused),
        (10003, Refused),
        (10010, Refused),
        (33004, Refused),
        (110001, Refused),
    ],
)
def test_error_answers(code: int, error: type[Exception]) -> None:
    text = json.dumps({"retCode": code, "retMsg": "why not", "result": {}}).encode()
    with pytest.raises(error, match=f"bybit answered {code}: why not"):
        VENUE.parse_instruments("linear", LINEAR, text, RECEIVED)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "instruments"),
        (b"<html>", "instruments"),
        (b"[]", "retCode is missing"),
        (b"{}", "retCode is missing"),
        (b'{"retCode":0,"result":{}}', r"`list`.*\$.result"),
        (answer({"status": "Trading"}), r"`symbol`.*\$.result.list\[0\]"),
        (answer({"symbol": "X", "status": "Trading", "deliveryTime": "soon"}), "instrument X.*soon"),
    ],
)
def test_answers_of_another_form(text: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        VENUE.parse_instruments("linear", LINEAR, text, RECEIVED)
