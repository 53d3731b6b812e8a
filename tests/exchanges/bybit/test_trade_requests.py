"""What goes to /v5/trade, against the manual's own requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.bybit.trade_requests import EXTRAS, batch_size, cost, frame, parameters, problems, validity
from pipeline.exchanges.trading import Cost, TradeItem
from pipeline.model.events import Micros
from pipeline.model.orders import AMEND, CANCEL, CANCEL_ALL, CREATE, MASS_CANCEL
from pipeline.model.rate import Rate
from tests.exchanges.bybit.samples import lines
from tests.exchanges.bybit.trade_items import NOW, limit, market_order, request, trade

SOL = "SOLUSDT"
AMENDED = "a4c1718e-fe53-4659-a118-1f6ecce04ad9"


def words(action: str, item: TradeItem) -> dict[str, Any]:
    assert problems(action, item) == []
    return parameters(action, item.item)


def faults(action: str, item: TradeItem) -> list[str]:
    return [field for field, _ in problems(action, item)]


def batch_item(size: str, price: str, name: str) -> TradeItem:
    return limit(symbol=SOL, size=size, price=price, time_in_force="gtc", client_order_id=name)


# The manual's requests. Ours differ by what the manual leaves out: a name per order, and a window in each header.


@pytest.mark.parametrize(
    ("sample", "action", "items"),
    [
        ("trade.order.create", CREATE, [limit(is_post_only=True)]),
        (
            "trade.order.create-batch",
            CREATE,
            [
                batch_item("10", "500", "-batch-000"),
                batch_item("20", "1000", "batch-001"),
                batch_item("30", "1500", "batch-002"),
            ],
        ),
        ("derived.trade.order.amend", AMEND, [trade(order_id=AMENDED, price="2801")]),
        (
            "derived.trade.order.amend-batch",
            AMEND,
            [trade(symbol=SOL, client_order_id=f"batch-00{n}", price="501") for n in (0, 1)],
        ),
        ("derived.trade.order.cancel", CANCEL, [trade(order_id=AMENDED)]),
        (
            "derived.trade.order.cancel-batch",
            CANCEL,
            [trade(symbol=SOL, client_order_id=f"batch-00{n}") for n in (0, 1)],
        ),
    ],
)
def test_the_manuals_requests(sample: str, action: str, items: list[TradeItem]) -> None:
    (line,) = lines(f"{sample}.request")
    wanted = json.loads(line)
    stamp = wanted["header"]["X-BAPI-TIMESTAMP"]
    assert [problems(action, each) for each in items] == [[]] * len(items)
    time = Micros(int(stamp) * 1000)
    ours = json.loads(frame(request(action, *items, id="r1", not_after=time + 60_000_000), time))
    assert ours.pop("reqId") == "r1"
    assert ours.pop("header") == {"X-BAPI-TIMESTAMP": stamp, "X-BAPI-RECV-WINDOW": "5000"}
    del wanted["header"]
    wanted.pop("reqId", None)
    if sample == "trade.order.create":
        assert ours["args"][0].pop("orderLinkId") == "c1"
    assert ours == wanted


def test_frames_to_the_byte() -> None:
    assert frame(request(CREATE, limit(is_post_only=True), id="test-005"), NOW) == (
        '{"reqId":"test-005","header":{"X-BAPI-TIMESTAMP":"1711001595207","X-BAPI-RECV-WINDOW":"5000"},'
        '"op":"order.create","args":[{"category":"linear","symbol":"ETHUSDT","side":"Buy","orderType":"Limit",'
        '"qty":"0.2","price":"2800","timeInForce":"PostOnly","orderLinkId":"c1"}]}'
    )
    two = [trade(client_order_id="c1"), trade(order_id="o2")]
    assert frame(request(CANCEL, *two), NOW) == (
        '{"reqId":"r1","header":{"X-BAPI-TIMESTAMP":"1711001595207","X-BAPI-RECV-WINDOW":"5000"},'
        '"op":"order.cancel-batch","args":[{"category":"linear","request":['
        '{"symbol":"ETHUSDT","orderLinkId":"c1"},{"symbol":"ETHUSDT","orderId":"o2"}]}]}'
    )


# How long a request is good.


@pytest.mark.parametrize(
    ("left", "stamp", "window"),
    [
        (60_000_000, 0, 5000),
        (5_000_000, 0, 5000),
        (4_999_000, 0, 4999),
        (1_000, 0, 1),
        (999, -1, 1),
        (0, -1, 1),
        (-1, -2, 1),
        (-7_000_000, -7001, 1),
    ],
)
def test_a_request_is_good_until_its_deadline(left: int, stamp: int, window: int) -> None:
    assert validity(NOW, Micros(NOW + left)) == (NOW // 1000 + stamp, window)


@given(st.integers(0, 2 * 10**15), st.integers(-(10**10), 10**10))
def test_no_request_is_good_for_longer_than_it_may_be(now: int, left: int) -> None:
    stamp, window = validity(Micros(now), Micros(now + left))
    assert 1 <= window <= 5000  # 0 might mean the venue's default
    assert (stamp + window) * 1000 <= now + left
    assert stamp <= now // 1000  # a stamp from the future would be refused


# Orders in the venue's words.


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        (limit(), {"side": "Buy", "orderType": "Limit", "qty": "0.2", "price": "2800"}),
        (limit(side="sell", time_in_force="gtc"), {"side": "Sell", "timeInForce": "GTC"}),
        (limit(time_in_force="ioc"), {"timeInForce": "IOC"}),
        (limit(time_in_force="fok"), {"timeInForce": "FOK"}),
        (limit(is_post_only=True, time_in_force="gtc"), {"timeInForce": "PostOnly"}),
        (limit(extras={"timeInForce": "RPI"}), {"timeInForce": "RPI"}),
        (limit(size="0.200", price="2800.10"), {"qty": "0.200", "price": "2800.10"}),
        (limit(is_reduce_only=True, position_side="long"), {"reduceOnly": True, "positionIdx": 1}),
        (limit(position_side="short"), {"positionIdx": 2}),
        (limit("inverse", size_unit="contract"), {"qty": "0.2"}),
        (limit("option", size_unit="base"), {"side": "Buy", "qty": "0.2"}),
        (market_order("linear", time_in_force="ioc"), {"orderType": "Market", "timeInForce": "IOC"}),
        (market_order(), {"orderType": "Market", "marketUnit": "baseCoin"}),
        (market_order(side="sell", size_unit="base"), {"marketUnit": "baseCoin"}),
        (market_order(size_unit="quote"), {"marketUnit": "quoteCoin"}),
        (
            limit(trigger_price="2700", extras={"triggerDirection": "2", "triggerBy": "MarkPrice"}),
            {"triggerPrice": "2700", "triggerDirection": 2, "triggerBy": "MarkPrice"},
        ),
        (limit("spot", trigger_price="27"), {"triggerPrice": "27", "orderFilter": "StopOrder"}),
        (
            limit("spot", trigger_price="27", extras={"orderFilter": "tpslOrder"}),
            {"triggerPrice": "27", "orderFilter": "tpslOrder"},
        ),
        (
            limit(extras={"closeOnTrigger": "true", "takeProfit": "3000"}),
            {"closeOnTrigger": True, "takeProfit": "3000"},
        ),
        (limit("spot", extras={"isLeverage": "1", "orderFilter": "Order"}), {"isLeverage": 1, "orderFilter": "Order"}),
        (limit("option", extras={"mmp": "false"}), {"mmp": False}),
    ],
)
def test_new_orders(item: TradeItem, wanted: dict[str, Any]) -> None:
    found = words(CREATE, item)
    assert wanted.items() <= found.items()
    plain = {"symbol", "side", "orderType", "qty", "orderLinkId"} | (
        {"price"} if item.item.price is not None else set()
    )
    assert found.keys() - wanted.keys() - {"marketUnit"} <= plain


def test_a_plain_limit_order_says_nothing_else() -> None:
    assert words(CREATE, limit("spot")) == {
        "symbol": "BTCUSDT",
        "side": "Buy",
        "orderType": "Limit",
        "qty": "0.2",
        "price": "2800",
        "orderLinkId": "c1",
    }


def test_an_amendment_says_what_changes() -> None:
    assert words(AMEND, trade(client_order_id="c1", size="3")) == {
        "symbol": "ETHUSDT",
        "orderLinkId": "c1",
        "qty": "3",
    }
    changes = trade(order_id="o1", price="5", trigger_price="4", extras={"stopLoss": "0", "triggerBy": "LastPrice"})
    assert words(AMEND, changes) == {
        "symbol": "ETHUSDT",
        "orderId": "o1",
        "price": "5",
        "triggerPrice": "4",
        "stopLoss": "0",
        "triggerBy": "LastPrice",
    }
    # What an amendment cannot change is there for our own checks alone.
    assert words(AMEND, limit(side="sell", size=None)) == {
        "symbol": "ETHUSDT",
        "orderLinkId": "c1",
        "price": "2800",
    }


def test_an_order_is_meant_by_one_name() -> None:
    """The one by which it is looked up: two that contradict each other would mean two orders."""
    both = trade(client_order_id="c1", order_id="o1")
    assert words(CANCEL, both) == {"symbol": "ETHUSDT", "orderLinkId": "c1"}


def test_conditional_spot_orders_are_cancelled_among_their_own() -> None:
    waiting = trade("spot", order_id="o1", trigger_price="27")
    assert words(CANCEL, waiting) == {"symbol": "BTCUSDT", "orderId": "o1", "orderFilter": "StopOrder"}
    exits = trade("spot", order_id="o1", extras={"orderFilter": "tpslOrder"})
    assert words(CANCEL, exits) == {"symbol": "BTCUSDT", "orderId": "o1", "orderFilter": "tpslOrder"}
    assert words(CANCEL, trade("linear", order_id="o1", trigger_price="27")) == {"symbol": "ETHUSDT", "orderId": "o1"}


@pytest.mark.parametrize("action", [CREATE, AMEND, CANCEL])
@pytest.mark.parametrize("market", ["spot", "linear", "inverse", "option"])
def test_every_parameter_in_its_type(action: str, market: str) -> None:
    texts = {bool: "true", int: "-1", str: "w"}
    for name, kind in EXTRAS[action][market].items():
        fields = {"trigger_price": "5"} if name.startswith("trigger") or name == "orderFilter" else {}
        more = {"triggerDirection": "1"} if fields and action == CREATE and market in ("linear", "inverse") else {}
        if market == "option":
            fields = {}
        item = limit(market, **fields, extras={**more, name: texts[kind]})
        value = parameters(action, item.item)[name]
        assert value == {bool: True, int: -1, str: "w"}[kind]
        assert type(value) is kind


# What the venue could not even be asked.


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (limit("spread"), "market"),
        (limit("futures"), "market"),
        (limit(client_order_id=None), "client_order_id"),
        (limit(client_order_id=None, order_id="o1"), "client_order_id"),
        (limit(client_order_id=""), "client_order_id"),
        (limit(client_order_id="x" * 37), "client_order_id"),
        (limit(client_order_id="a.b"), "client_order_id"),
        (limit(client_order_id="é"), "client_order_id"),
        (limit(client_order_id="c1\n"), "client_order_id"),
        (limit(price="1e3"), "price"),
        (limit(size="1E-3"), "size"),
        (limit(trigger_price="1e1", extras={"triggerDirection": "1"}), "trigger_price"),
        (limit(price=None), "price"),
        (limit(size=None), "size"),
        (limit(order_type="market"), "price"),
        (limit(side=None), "side"),
        (limit(side="Buy"), "side"),
        (limit(order_type=None), "order_type"),
        (limit(order_type="stop"), "order_type"),
        (limit(time_in_force="day"), "time_in_force"),
        (market_order(time_in_force="gtc"), "time_in_force"),
        (market_order(time_in_force="fok"), "time_in_force"),
        (limit(is_post_only=True, time_in_force="ioc"), "is_post_only"),
        (limit(is_post_only=True, time_in_force="fok"), "is_post_only"),
        (market_order(is_post_only=True), "is_post_only"),
        (limit(size_unit="quote"), "size_unit"),
        (limit(size_unit="contract"), "size_unit"),
        (limit("spot", size_unit="quote"), "size_unit"),
        (market_order("linear", size_unit="quote"), "size_unit"),
        (market_order(size_unit="contract"), "size_unit"),
        (limit("inverse", size_unit="base"), "size_unit"),
        (limit(margin_mode="isolated"), "margin_mode"),
        (limit(position_side="both"), "position_side"),
        (limit("spot", position_side="long"), "position_side"),
        (limit("option", position_side="long"), "position_side"),
        (limit("spot", is_reduce_only=True), "is_reduce_only"),
        (limit("option", trigger_price="5"), "trigger_price"),
        (limit(trigger_price="5"), "extras.triggerDirection"),
        (limit("inverse", trigger_price="5"), "extras.triggerDirection"),
        (limit("spot", trigger_price="5", extras={"orderFilter": "Order"}), "extras.orderFilter"),
        (limit(extras={"triggerDirection": "1"}), "trigger_price"),
        (limit(extras={"triggerBy": "LastPrice"}), "trigger_price"),
        (limit("spot", extras={"orderFilter": "StopOrder"}), "trigger_price"),
        (limit(extras={"tickSize": "1"}), "extras.tickSize"),
        (limit("option", extras={"orderIv": "1"}), "extras.orderIv"),
        (limit(extras={"bboSideType": "Queue"}), "extras.bboSideType"),
        (limit(extras={"closeOnTrigger": "1"}), "extras.closeOnTrigger"),
        (limit("spot", extras={"isLeverage": "yes"}), "extras.isLeverage"),
        (limit(time_in_force="gtc", extras={"timeInForce": "RPI"}), "extras.timeInForce"),
        (limit(is_post_only=True, extras={"timeInForce": "GTC"}), "extras.timeInForce"),
    ],
)
def test_orders_that_could_not_be_asked_for(item: TradeItem, field: str) -> None:
    assert faults(CREATE, item) == [field]


@pytest.mark.parametrize("name", ["marketUnit", "positionIdx", "reduceOnly", "qty", "price", "side", "category"])
def test_what_was_checked_cannot_be_said_otherwise(name: str) -> None:
    assert faults(CREATE, market_order(extras={name: "1"})) == [f"extras.{name}"]


@pytest.mark.parametrize(
    ("action", "item", "field"),
    [
        (AMEND, trade(price="1"), "client_order_id"),
        (CANCEL, trade(), "client_order_id"),
        (CANCEL, trade(order_id=""), "client_order_id"),
        (CANCEL, trade(client_order_id="a b"), "client_order_id"),
        (CANCEL, trade("spread", order_id="o"), "market"),
        (AMEND, trade(order_id="o", price="1e1"), "price"),
        (AMEND, trade("option", order_id="o", trigger_price="1"), "trigger_price"),
        (AMEND, trade(order_id="o", size="1", size_unit="quote"), "size_unit"),
        (AMEND, trade(order_id="o", extras={"closeOnTrigger": "true"}), "extras.closeOnTrigger"),
        (CANCEL, trade(order_id="o", extras={"orderFilter": "Order"}), "extras.orderFilter"),
    ],
)
def test_changes_that_could_not_be_asked_for(action: str, item: TradeItem, field: str) -> None:
    assert faults(action, item) == [field]


def test_all_that_is_wrong_is_said_at_once() -> None:
    item = limit(client_order_id="a.b", price="1e3", margin_mode="cross", side=None)
    assert faults(CREATE, item) == ["client_order_id", "price", "margin_mode", "side"]


# What requests take.


@pytest.mark.parametrize(
    ("action", "market", "most"),
    [
        (CREATE, "linear", 10),
        (AMEND, "inverse", 10),
        (CANCEL, "spot", 10),
        (CREATE, "option", 20),
        (CREATE, "spread", 0),
        (MASS_CANCEL, "option", 0),
        (CANCEL_ALL, "linear", 0),
    ],
)
def test_items_of_a_request(action: str, market: str, most: int) -> None:
    assert batch_size(action, market) == most


@pytest.mark.parametrize(
    ("action", "items", "wanted"),
    [
        (CREATE, [limit()], Cost("create futures", Rate(10, 1.0))),
        (CANCEL, [limit("inverse")], Cost("cancel futures", Rate(10, 1.0))),
        (CREATE, [limit("spot")], Cost("create spot", Rate(20, 1.0))),
        (AMEND, [limit("spot")], Cost("amend spot", Rate(10, 1.0))),
        (CANCEL, [limit("option")], Cost("cancel option", Rate(10, 1.0))),
        (CREATE, [limit()] * 3, Cost("create-batch futures", Rate(10, 1.0), 3)),
        (AMEND, [limit("spot")] * 10, Cost("amend-batch spot", Rate(20, 1.0), 10)),
        (CREATE, [limit("option")] * 20, Cost("create-batch option", Rate(10, 1.0), 1)),
    ],
)
def test_costs(action: str, items: list[TradeItem], wanted: Cost) -> None:
    assert cost(request(action, *items)) == wanted


@pytest.mark.parametrize("market", ["spot", "linear", "inverse", "option"])
@pytest.mark.parametrize("action", [CREATE, AMEND, CANCEL])
def test_the_largest_request_is_within_its_budget(action: str, market: str) -> None:
    whole = cost(request(action, *[limit(market)] * batch_size(action, market)))
    assert whole.units <= whole.rate.count
