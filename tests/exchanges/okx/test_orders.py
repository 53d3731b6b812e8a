"""Orders, the fills they bring, fast fills, algo orders."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.exchanges.okx import orders as module
from pipeline.exchanges.venue import Normalizer
from pipeline.model.account import Fill, Order
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event
from tests.exchanges.okx.samples import CATALOGUE, RECEIVED, VENUE, account_events, own_fields, sample

SPOT = ("okx", "spot", "BTC-USDT", "BTC-USDT")
SWAP = ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP")
ORDER = {
    "of": SWAP,
    "exchange_time": 1786541241000000,
    "channel": "orders",
    "is_snapshot": False,
    "order_id": "2510789768709120",
    "status": "new",
    "venue_status": "live",
    "side": "buy",
    "order_type": "limit",
    "size_unit": "contract",
    "filled_size_unit": "contract",
    "client_order_id": "arb1001",
    "venue_order_type": "limit",
    "time_in_force": "gtc",
    "price": "63900",
    "size": "3",
    "filled_size": "0",
    "remaining_size": "3",
    "usd_value": "1917",
    "fees": {"USDT": "0"},
    "rebates": {"USDT": "0"},
    "realized_pnl": "0",
    "is_post_only": False,
    "is_reduce_only": False,
    "margin_mode": "cross",
    "margin_currency": "USDT",
    "leverage": "10",
    "created_by": "normal",
    "self_match_prevention": "cancel_maker",
    "created_time": 1786541241000000,
    "extras": {"lastPx": "63921.4", "isTpLimit": "false"},
}
FILL = {
    "of": SWAP,
    "exchange_time": 1786541242000000,
    "channel": "orders",
    "is_snapshot": False,
    "fill_id": "2832749700",
    "side": "buy",
    "price": "63900",
    "size": "1",
    "size_unit": "contract",
    "base_size": "0.01",
    "kind": "trade",
    "is_fast": False,
    "order_id": "2510789768709120",
    "client_order_id": "arb1001",
    "fee": "0.1278",
    "fee_currency": "USDT",
    "liquidity": "maker",
    "realized_pnl": "0",
    "remaining_size": "2",
    "order_price": "63900",
    "order_size": "3",
    "order_type": "limit",
    "created_by": "normal",
    "mark_price": "63905",
    "index_price": "63902",
}


def private() -> Normalizer:
    return VENUE.normalizer("private", "okx.private.0#1", CATALOGUE, account="main")


def row(**more: Any) -> dict[str, Any]:
    base = {"instType": "SWAP", "instId": "BTC-USDT-SWAP", "ordId": "1", "side": "buy", "ordType": "limit"}
    return base | {"state": "live", "uTime": "5", "sz": "3", "accFillSz": "1"} | more


def push(channel: str, *rows: Any) -> bytes:
    return json.dumps({"arg": {"channel": channel, "instType": "ANY", "uid": "7"}, "data": list(rows)}).encode()


def order(**more: Any) -> Order:
    event = private().normalize(push("orders", row(**more)), RECEIVED)[0]
    assert isinstance(event, Order)
    return event


def fill(**more: Any) -> Fill:
    traded = {"tradeId": "9", "fillPx": "1", "fillSz": "2", "fillTime": "4"} | more
    _, event = private().normalize(push("orders", row(**traded)), RECEIVED)
    assert isinstance(event, Fill)
    return event


def fill_ids(events: list[Event]) -> list[str]:
    return [event.fill_id for event in events if isinstance(event, Fill)]


def test_the_documented_order_and_its_fill() -> None:
    filled, traded = account_events("private.orders")
    assert own_fields(filled) == {
        "of": SPOT,
        "exchange_time": 1654084353264000,
        "channel": "orders",
        "is_snapshot": False,
        "order_id": "452197707845865472",
        "status": "filled",
        "venue_status": "filled",
        "side": "sell",
        "order_type": "limit",
        "size_unit": "base",
        "filled_size_unit": "base",
        "venue_order_type": "limit",
        "time_in_force": "gtc",
        "price": "31527.1",
        "size": "0.001",
        "filled_size": "0.001",
        "remaining_size": "0",
        "average_price": "31527.1",
        "usd_value": "31.50818374",
        "fees": {"USDT": "0.02522168"},
        "rebates": {"BTC": "0"},
        "realized_pnl": "0",
        "is_post_only": False,
        "is_reduce_only": False,
        "margin_mode": "cash",
        "leverage": "0",
        "created_by": "normal",
        "created_time": 1654084334977000,
        "extras": {
            "tradeQuoteCcy": "USDT",
            "fillNotionalUsd": "31.50818374",
            "lastPx": "38892.2",
            "isTpLimit": "false",
        },
    }
    assert own_fields(traded) == {
        "of": SPOT,
        "exchange_time": 1654084353263000,
        "channel": "orders",
        "is_snapshot": False,
        "fill_id": "242589207",
        "side": "sell",
        "price": "31527.1",
        "size": "0.001",
        "size_unit": "base",
        "base_size": "0.001",
        "kind": "trade",
        "is_fast": False,
        "order_id": "452197707845865472",
        "fee": "0.02522168",
        "fee_currency": "USDT",
        "liquidity": "maker",
        "realized_pnl": "0.01",
        "remaining_size": "0",
        "order_price": "31527.1",
        "order_size": "0.001",
        "order_type": "limit",
        "created_by": "normal",
    }


def test_the_life_of_an_order() -> None:
    """Accepted, filled in two parts, and the last message again with a later time."""
    live, partly, first, filled, second, again, *_ = account_events("private.orders.constructed")
    assert own_fields(live) == ORDER
    assert own_fields(partly) == ORDER | {
        "exchange_time": 1786541242001000,
        "status": "partially_filled",
        "venue_status": "partially_filled",
        "filled_size": "1",
        "remaining_size": "2",
        "average_price": "63900",
        "fees": {"USDT": "0.1278"},
        "extras": {"fillNotionalUsd": "639", "lastPx": "63921.4", "isTpLimit": "false"},
    }
    assert own_fields(first) == FILL
    complete = ORDER | {
        "exchange_time": 1786541243001000,
        "status": "filled",
        "venue_status": "filled",
        "filled_size": "3",
        "remaining_size": "0",
        "average_price": "63900",
        "fees": {"USDT": "0.3834"},
        "extras": {"fillNotionalUsd": "1917", "lastPx": "63921.4", "isTpLimit": "false"},
    }
    assert own_fields(filled) == complete
    assert own_fields(second) == FILL | {
        "exchange_time": 1786541243000000,
        "fill_id": "2832749702",
        "size": "2",
        "base_size": "0.02",
        "fee": "0.2556",
        "remaining_size": "0",
    }
    assert own_fields(again) == complete | {"exchange_time": 1786541243055000}


def test_cancels_amendments_a_liquidation_an_option_and_a_market_order() -> None:
    cancelled, crossing, amended, failed, liquidated, taken, option, market = account_events(
        "private.orders.constructed"
    )[6:]
    assert own_fields(cancelled) == ORDER | {
        "exchange_time": 1786541244000000,
        "order_id": "2510789768709121",
        "client_order_id": "arb1002",
        "status": "cancelled",
        "venue_status": "canceled",
        "remaining_size": "0",
        "cancel_reason": "1",
    }
    found = own_fields(crossing)
    assert [found[name] for name in ("venue_order_type", "is_post_only", "status", "cancel_reason")] == [
        "post_only",
        True,
        "cancelled",
        "31",
    ]
    amendment = ORDER | {"order_id": "2510789768709123", "client_order_id": "arb1004", "price": "63880"}
    assert own_fields(amended) == amendment | {
        "exchange_time": 1786541244200000,
        "request_id": "amd1",
        "amend_source": "1",
        "amend_result": "0",
    }
    assert own_fields(failed) == amendment | {
        "exchange_time": 1786541244300000,
        "request_id": "amd2",
        "amend_source": "1",
        "amend_result": "-1",
        "reject_reason": "51006",
        "reject_message": "Order price is not within the price limit",
    }
    found = own_fields(liquidated)
    assert [found[name] for name in ("order_type", "created_by", "is_reduce_only", "fees", "realized_pnl")] == [
        "market",
        "full_liquidation",
        True,
        {"USDT": "1.575"},
        "-12.5",
    ]
    found = own_fields(taken)
    assert [found[name] for name in ("kind", "liquidity", "size", "base_size", "fee", "realized_pnl")] == [
        "liquidation",
        "taker",
        "5",
        "0.05",
        "1.575",
        "-12.5",
    ]
    found = own_fields(option)
    assert [found[name] for name in ("of", "price", "price_type", "implied_volatility", "usd_price")] == [
        ("okx", "option", "BTC-USD-261225-50000-C", "BTC-USD-20261225-50000-C"),
        "0.24",
        "px",
        0.61,
        "15341",
    ]
    found = own_fields(market)
    names = ("order_type", "size", "size_unit", "filled_size", "filled_size_unit", "remaining_size", "average_price")
    assert [found[name] for name in names] == ["market", "100", "quote", "0.0015", "base", "0", "64073.1"]
    assert market.KIND == "order"


@pytest.mark.parametrize(
    ("word", "kind", "time_in_force", "is_post_only"),
    [
        ("market", "market", None, False),
        ("post_only", "limit", "gtc", True),
        ("fok", "limit", "fok", False),
        ("ioc", "limit", "ioc", False),
        ("optimal_limit_ioc", "market", "ioc", False),
        ("mmp", "limit", "gtc", False),
        ("mmp_and_post_only", "limit", "gtc", True),
        ("op_fok", "limit", "fok", False),
        ("RPI", "rpi", None, None),
    ],
)
def test_order_types(word: str, kind: str, time_in_force: str | None, is_post_only: bool | None) -> None:
    event = order(ordType=word)
    assert (event.venue_order_type, event.order_type) == (word, kind)
    assert (event.time_in_force, event.is_post_only) == (time_in_force, is_post_only)


@pytest.mark.parametrize(
    ("state", "status", "remaining"),
    [
        ("live", "new", "2"),
        ("partially_filled", "partially_filled", "2"),
        ("filled", "filled", "0"),
        ("canceled", "cancelled", "0"),
        ("mmp_canceled", "cancelled", "0"),
    ],
)
def test_states(state: str, status: str, remaining: str) -> None:
    event = order(state=state)
    assert (event.status, event.venue_status, event.remaining_size) == (status, state, remaining)


def test_what_remains_of_an_order_by_value_is_not_known_while_it_is_open() -> None:
    event = order(instType="SPOT", instId="BTC-USDT", tgtCcy="quote_ccy")
    assert (event.size_unit, event.filled_size_unit, event.remaining_size) == ("quote", "base", None)


def test_exits_are_the_orders_own_or_those_of_one_attached_order() -> None:
    own = order(tpTriggerPx="5", tpOrdPx="6", tpTriggerPxType="mark", slTriggerPx="3", slOrdPx="-1")
    assert (own.take_profit_price, own.take_profit_limit_price, own.take_profit_price_type) == ("5", "6", "mark")
    assert (own.stop_loss_price, own.stop_loss_limit_price, own.stop_loss_price_type) == ("3", None, None)
    attached = {"attachAlgoId": "8", "tpTriggerPx": "7", "tpTriggerPxType": "last", "tpOrdPx": "-1"}
    event = order(attachAlgoOrds=[attached], slTriggerPxType="last")
    assert (event.take_profit_price, event.take_profit_price_type, event.take_profit_limit_price) == ("7", "last", None)
    assert event.stop_loss_price_type is None
    assert json.loads(event.extras["attachAlgoOrds"]) == [attached]
    assert order(attachAlgoOrds=[attached, attached]).take_profit_price is None


def test_identifiers_around_an_order() -> None:
    event = order(algoId="2", algoClOrdId="a", tag="t", linkedAlgoOrd={"algoId": "3"}, posSide="short", avgPx="0")
    assert (event.algo_order_id, event.algo_client_order_id, event.tag) == ("2", "a", "t")
    assert (event.linked_order_id, event.position_side, event.average_price) == ("3", "short", None)


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("normal", "trade"),
        ("twap", "trade"),
        ("ddh", "trade"),
        ("", "trade"),
        ("adl", "adl"),
        ("partial_liquidation", "liquidation"),
        ("delivery", "delivery"),
        ("auto_conversion", "auto_conversion"),
    ],
)
def test_kinds_of_fills(category: str, kind: str) -> None:
    assert fill(category=category).kind == kind


def test_a_rebate_is_a_negative_fee() -> None:
    event = fill(fillFee="0.01", fillFeeCcy="USDT")
    assert (event.fee, event.fee_currency) == ("-0.01", "USDT")
    assert order(fee="0.01", feeCcy="USDT", rebate="0.5", rebateCcy="BTC").fees == {"USDT": "-0.01"}


def test_fills_of_inverse_contracts_tell_their_quote_size() -> None:
    event = fill(instId="BTC-USD-SWAP")
    assert (event.size, event.base_size, event.quote_size) == ("2", None, "200")


def test_fills_of_options_have_volatilities() -> None:
    event = fill(fillPxVol="0.5", fillMarkVol="0.6", fillFwdPx="7", fillPxUsd="8")
    assert (event.implied_volatility, event.mark_implied_volatility) == (0.5, 0.6)
    assert (event.forward_price, event.usd_price) == ("7", "8")


def test_a_fill_is_published_once_and_another_with_its_number_elsewhere_is_too() -> None:
    reader = private()
    traded = row(tradeId="9", fillPx="1", fillSz="2")
    other = traded | {"instId": "ETH-USDT-SWAP"}
    counter = traded | {"ordId": "2"}
    published = [fill_ids(reader.normalize(push("orders", each, each), RECEIVED)) for each in (traded, other, counter)]
    assert published == [["9"], ["9"], ["9"]]
    assert fill_ids(reader.normalize(push("orders", traded, other, counter), RECEIVED)) == []


@pytest.mark.parametrize("trade_id", ["", "0"])
def test_a_fill_without_an_identifier_is_left_to_the_listing_of_fills(trade_id: str) -> None:
    (event,) = private().normalize(push("orders", row(tradeId=trade_id)), RECEIVED)
    assert isinstance(event, Order)


def test_a_fill_of_an_unreadable_message_is_not_remembered() -> None:
    reader = private()
    traded = row(tradeId="9", fillPx="1", fillSz="2")
    with pytest.raises(BadMessage, match="orders"):
        reader.normalize(push("orders", traded, row(cTime="never")), RECEIVED)
    assert fill_ids(reader.normalize(push("orders", traded), RECEIVED)) == ["9"]


def test_fills_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILLS", 2)
    reader = private()
    published = [
        fill_ids(reader.normalize(push("orders", row(tradeId=name, fillPx="1", fillSz="2")), RECEIVED))
        for name in ("1", "2", "3", "3", "2", "1")
    ]
    assert published == [["1"], ["2"], ["3"], [], [], ["1"]]


def test_fast_fills() -> None:
    (documented,) = account_events("private.fills")
    assert own_fields(documented) == {
        "of": SWAP,
        "exchange_time": 1705449605015000,
        "channel": "fills",
        "is_snapshot": False,
        "fill_id": "12345",
        "side": "buy",
        "price": "70000",
        "size": "100",
        "size_unit": "contract",
        "base_size": "1",
        "kind": "trade",
        "is_fast": True,
        "order_id": "680800019749904384",
        "client_order_id": "1234567890",
        "liquidity": "taker",
        "match_count": 10,
    }
    (maker,) = account_events("private.fills.constructed")
    assert isinstance(maker, Fill)
    assert (maker.liquidity, maker.client_order_id, maker.match_count) == ("maker", None, 1)


def test_a_fast_fill_is_published_once() -> None:
    (line,) = sample("private.fills")
    reader = private()
    assert [len(reader.normalize(line, RECEIVED)) for _ in range(2)] == [1, 0]


def test_a_conditional_order() -> None:
    (event,) = account_events("business.orders-algo")
    assert own_fields(event) == {
        "of": ("okx", "spot", "BTC-USDC", None),
        "exchange_time": 1708679675245000,
        "channel": "orders-algo",
        "is_snapshot": False,
        "order_id": "581878926302093312",
        "status": "untriggered",
        "venue_status": "live",
        "side": "buy",
        "order_type": "market",
        "venue_order_type": "conditional",
        "stop_order_type": "conditional",
        "size": "11",
        "size_unit": "quote",
        "filled_size_unit": "base",
        "linked_order_id": "98192973880283",
        "usd_value": "11.0",
        "is_reduce_only": False,
        "margin_mode": "cross",
        "leverage": "0",
        "take_profit_price": "1",
        "take_profit_price_type": "last",
        "created_time": 1685002746818000,
        "extras": {
            "actualPx": "0",
            "actualSz": "0",
            "last": "26174.8",
            "amendPxOnTriggerType": "0",
            "tradeQuoteCcy": "USDT",
        },
    }


def test_a_triggered_order() -> None:
    (event,) = account_events("business.orders-algo.constructed")
    assert own_fields(event) == {
        "of": SWAP,
        "exchange_time": 1786541260010000,
        "channel": "orders-algo",
        "is_snapshot": False,
        "order_id": "581878926302093312",
        "status": "triggered",
        "venue_status": "effective",
        "side": "sell",
        "order_type": "market",
        "venue_order_type": "trigger",
        "stop_order_type": "trigger",
        "size": "3",
        "size_unit": "contract",
        "filled_size_unit": "contract",
        "linked_order_id": "98192973880283",
        "usd_value": "11.0",
        "is_reduce_only": False,
        "margin_mode": "cross",
        "leverage": "0",
        "trigger_price": "63000",
        "trigger_price_type": "mark",
        "trigger_time": 1786541260000000,
        "created_time": 1685002746818000,
        "extras": {
            "actualPx": "62990",
            "actualSz": "3",
            "last": "26174.8",
            "amendPxOnTriggerType": "0",
            "tradeQuoteCcy": "USDT",
            "ordIdList": '["2510789768709160"]',
        },
    }


def test_advanced_orders() -> None:
    advanced = {
        "exchange_time": 1630924295204000,
        "channel": "algo-advance",
        "is_snapshot": False,
        "order_id": "355056228680335360",
        "side": "buy",
        "tag": "adadadadad",
        "leverage": "0",
        "created_time": 1630924001545000,
    }
    (iceberg,) = account_events("business.algo-advance")
    assert own_fields(iceberg) == advanced | {
        "of": SPOT,
        "status": "pause",
        "venue_status": "pause",
        "order_type": "iceberg",
        "venue_order_type": "iceberg",
        "stop_order_type": "iceberg",
        "size": "0.1",
        "size_unit": "base",
        "filled_size_unit": "base",
        "margin_mode": "cash",
        "extras": {
            "actualSz": "0",
            "pxSpread": "1",
            "szLimit": "0.1",
            "pxLimit": "10",
            "count": "1",
            "tradeQuoteCcy": "USDT",
            "isTradeBorrowMode": "true",
        },
    }
    (trailing,) = account_events("business.algo-advance.constructed")
    assert own_fields(trailing) == advanced | {
        "of": SWAP,
        "status": "untriggered",
        "venue_status": "live",
        "order_type": "move_order_stop",
        "venue_order_type": "move_order_stop",
        "stop_order_type": "move_order_stop",
        "size": "3",
        "size_unit": "contract",
        "filled_size_unit": "contract",
        "margin_mode": "cross",
        "trigger_price": "65000",
        "callback_ratio": "0.01",
        "extras": {"actualSz": "0", "tradeQuoteCcy": "USDT", "isTradeBorrowMode": "true"},
    }


def algo(**more: Any) -> Order:
    base = row(algoId="8", cTime="3", uTime="")
    (event,) = private().normalize(push("orders-algo", base | more), RECEIVED)
    assert isinstance(event, Order)
    return event


def test_algo_orders_that_failed() -> None:
    event = algo(state="order_failed", failCode="51008", advChaseParams=[{"chaseVal": "1", "chaseType": "distance"}])
    assert (event.status, event.reject_reason, event.exchange_time) == ("rejected", "51008", 3000)
    assert event.extras["advChaseParams"] == '[{"chaseType":"distance","chaseVal":"1"}]'


def test_a_cancelled_algo_order() -> None:
    assert algo(state="canceled").status == "cancelled"


@pytest.mark.parametrize(
    "member",
    [
        "clOrdId",
        "actualPx",
        "actualSz",
        "actualSide",
        "closeFraction",
        "last",
        "advanceOrdType",
        "amendPxOnTriggerType",
        "chaseType",
        "chaseVal",
        "maxChaseType",
        "maxChaseVal",
        "moveTriggerPx",
        "pxVar",
        "pxSpread",
        "szLimit",
        "pxLimit",
        "timeInterval",
        "count",
        "tradeQuoteCcy",
    ],
)
def test_extras_of_algo_orders(member: str) -> None:
    assert algo(**{member: "7"}).extras == {member: "7"}


@pytest.mark.parametrize("member", ["attachAlgoClOrdId", "outcome", "source", "cancelSourceReason"])
def test_extras_of_orders_that_samples_leave_empty(member: str) -> None:
    assert order(**{member: "7"}).extras == {member: "7"}


@pytest.mark.parametrize(
    ("member", "attribute"),
    [
        ("algoClOrdId", "client_order_id"),
        ("ccy", "margin_currency"),
        ("callbackSpread", "callback_spread"),
        ("slTriggerPx", "stop_loss_price"),
        ("slOrdPx", "stop_loss_limit_price"),
        ("tpOrdPx", "take_profit_limit_price"),
        ("reqId", "request_id"),
        ("amendResult", "amend_result"),
    ],
)
def test_members_of_algo_orders_that_samples_leave_empty(member: str, attribute: str) -> None:
    assert getattr(algo(**{member: "7"}), attribute) == "7"


def test_a_fill_repeats_what_its_order_says() -> None:
    event = fill(tag="t", posSide="short", clOrdId="c")
    assert (event.tag, event.position_side, event.client_order_id, event.exchange_time) == ("t", "short", "c", 4000)
    assert fill(fillTime="").exchange_time == 5000


@pytest.mark.parametrize(
    ("prices", "kind", "price"),
    [
        ({"ordPx": "-1"}, "market", None),
        ({"ordPx": "7"}, "limit", "7"),
        ({"slOrdPx": "-1"}, "market", None),
        ({"tpOrdPx": "7"}, "limit", None),
        ({}, "oco", None),
    ],
)
def test_what_an_algo_order_will_place(prices: dict[str, str], kind: str, price: str | None) -> None:
    event = algo(ordType="oco", **prices)
    assert (event.order_type, event.price) == (kind, price)
