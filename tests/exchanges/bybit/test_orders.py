"""Orders of an account, against the venue's own messages."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.account import Order
from tests.exchanges.bybit.samples import (
    PRIVATE_CONNECTION,
    RECEIVED,
    first,
    head,
    lines,
    private,
    values,
)


def order(**fields: Any) -> Order:
    (event,) = private(first("derived.private.order.linear.sequence", **fields))
    assert isinstance(event, Order)
    return event


def test_an_option_order() -> None:
    (event,) = private(*lines("private.order"))
    assert type(event) is Order
    assert head(event) == ("bybit", "option", "ETH-30DEC22-1400-C", None, "main", PRIVATE_CONNECTION)
    assert event.origin.key == b"bybit.main.ETH-30DEC22-1400-C"
    assert values(event) == {
        "exchange_time": 1672364262457000,
        "receive_time": RECEIVED,
        "channel": "order",
        "is_snapshot": False,
        "order_id": "5cf98598-39a7-459e-97bf-76ca765ee020",
        "status": "filled",
        "venue_status": "Filled",
        "side": "sell",
        "order_type": "market",
        "venue_order_type": "Market",
        "size_unit": "base",
        "filled_size_unit": "base",
        "time_in_force": "ioc",
        "size": "1",
        "filled_size": "1",
        "average_price": "75",
        "filled_value": "75",
        "fees": {"MNT": "0.00242968"},
        "rebates": {},
        "realized_pnl": "0",
        "is_post_only": False,
        "is_reduce_only": False,
        "is_close_on_trigger": False,
        "price_type": "price",
        "is_rpi_taker": False,
        "rpi_filled_size": "0",
        "created_time": 1672364262444000,
        "extras": {"price": "72.5", "cumExecFee": "0.358635"},
    }


def test_the_life_of_a_linear_order() -> None:
    events = private(*lines("derived.private.order.linear.sequence"))
    assert {event.origin.market for event in events} == {"linear"}
    assert values(events[0]) == {
        "exchange_time": 1711001595209000,
        "receive_time": RECEIVED,
        "channel": "order",
        "is_snapshot": False,
        "order_id": "a4c1718e-fe53-4659-a118-1f6ecce04ad9",
        "client_order_id": "test-005",
        "status": "new",
        "venue_status": "New",
        "side": "buy",
        "order_type": "limit",
        "venue_order_type": "Limit",
        "size_unit": "base",
        "filled_size_unit": "base",
        "time_in_force": "gtc",
        "price": "2800",
        "size": "0.2",
        "filled_size": "0",
        "remaining_size": "0.2",
        "filled_value": "0",
        "fees": {},
        "rebates": {},
        "realized_pnl": "0",
        "is_post_only": True,
        "is_reduce_only": False,
        "is_close_on_trigger": False,
        "created_by": "CreateByUser",
        "is_rpi_taker": False,
        "rpi_filled_size": "0",
        "created_time": 1711001595207000,
        "extras": {"leavesValue": "560", "lastPriceOnCreated": "2810.55"},
    }
    names = ("status", "filled_size", "remaining_size", "average_price", "fees", "cancel_reason", "reject_reason")
    assert [tuple(values(event).get(name) for name in names) for event in events] == [
        ("new", "0", "0.2", None, {}, None, None),
        ("partially_filled", "0.1", "0.1", "2800", {"USDT": "0.056"}, None, None),
        ("filled", "0.2", "0", "2800", {"USDT": "0.112"}, None, None),
        ("filled", "0.2", "0", "2800", {"USDT": "0.112"}, "CancelByUser", "EC_OrigClOrdIDDoesNotExist"),
    ]


def test_a_cancel_that_came_too_late_is_another_record_of_the_same_state() -> None:
    filled, again = private(*lines("derived.private.order.linear.sequence")[2:])
    different = {name for name in Order.IDENTITY if getattr(filled, name, None) != getattr(again, name, None)}
    assert different == {"cancel_reason"}


def test_a_rejected_order() -> None:
    (event,) = private(*lines("derived.private.order.rejected"))
    assert isinstance(event, Order)
    assert (event.status, event.reject_reason) == ("rejected", "EC_PostOnlyWillTakeLiquidity")
    assert (event.cancel_reason, event.filled_size) == (None, "0")


@pytest.mark.parametrize(
    ("venue_status", "filled", "status"),
    [
        ("Cancelled", "0", "cancelled"),
        ("PartiallyFilledCanceled", "0.1", "cancelled"),
        ("Rejected", "0.1", "cancelled"),
        ("Rejected", "", "rejected"),
        ("Untriggered", "0", "untriggered"),
        ("Triggered", "0", "triggered"),
        ("Deactivated", "0", "expired"),
        ("Invented", "0", "Invented"),
    ],
)
def test_states_of_orders(venue_status: str, filled: str, status: str) -> None:
    event = order(orderStatus=venue_status, cumExecQty=filled)
    assert (event.status, event.venue_status) == (status, venue_status)


def test_a_conditional_order_with_everything() -> None:
    event = order(
        triggerPrice="3000.5",
        triggerBy="MarkPrice",
        triggerDirection=1,
        stopOrderType="Stop",
        takeProfit="3100",
        tpLimitPrice="3101",
        tpTriggerBy="LastPrice",
        stopLoss="2700",
        slLimitPrice="0",
        slTriggerBy="IndexPrice",
        tpslMode="Partial",
        positionIdx=2,
        isLeverage="1",
        smpType="CancelMaker",
        smpGroup=7,
        smpOrderId="other",
        slippageToleranceType="Percent",
        slippageTolerance="0.5",
        parentOrderLinkId="parent",
        blockTradeId="block",
        timeInForce="RPI",
        ocoTriggerBy="OcoTriggerByTp",
        reduceOnly=True,
        rpiTakerAccess=True,
        rpiMatchedQty="0.05",
        closedPnl="-1.5",
    )
    assert (event.trigger_price, event.trigger_price_type, event.trigger_direction) == ("3000.5", "mark", "rise")
    assert (event.stop_order_type, event.exit_mode, event.position_side) == ("Stop", "partial", "short")
    assert (event.take_profit_price, event.take_profit_limit_price) == ("3100", "3101")
    assert (event.stop_loss_price, event.stop_loss_limit_price) == ("2700", None)
    assert (event.take_profit_price_type, event.stop_loss_price_type) == ("last", "index")
    assert (event.is_leveraged, event.is_reduce_only, event.is_post_only, event.time_in_force) == (
        *(True, True, None),
        "rpi",
    )
    assert (event.self_match_prevention, event.self_match_group, event.self_match_order_id) == (
        *("CancelMaker", 7),
        "other",
    )
    assert (event.slippage_tolerance_type, event.slippage_tolerance) == ("Percent", "0.5")
    assert (event.parent_client_order_id, event.block_trade_id) == ("parent", "block")
    assert (event.is_rpi_taker, event.rpi_filled_size, event.realized_pnl) == (True, "0.05", "-1.5")
    assert event.extras["ocoTriggerBy"] == "OcoTriggerByTp"


def test_placeholders_of_orders_are_no_values() -> None:
    event = order(
        price="0.00",
        avgPrice="0",
        triggerPrice="0",
        triggerBy="UNKNOWN",
        triggerDirection=0,
        stopOrderType="",
        takeProfit="0.00",
        slippageToleranceType="UNKNOWN",
        slippageTolerance="0",
        tpslMode="UNKNOWN",
        ocoTriggerBy="OcoTriggerByUnknown",
        isLeverage="",
        timeInForce="",
        createType=None,
        reduceOnly=None,
        cumFeeDetail=None,
        updatedTime="",
        createdTime="0",
        orderIv="0",
        positionIdx=None,
    )
    assert set(values(event)) == {
        *("exchange_time", "receive_time", "channel", "is_snapshot", "order_id", "client_order_id", "status"),
        *("venue_status", "side", "order_type", "venue_order_type", "size_unit", "filled_size_unit", "size"),
        *("filled_size", "remaining_size", "filled_value", "fees", "rebates", "realized_pnl"),
        *("is_close_on_trigger", "is_rpi_taker", "rpi_filled_size", "extras"),
    }
    assert event.exchange_time == 1711001595211000


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({"side": "Buy"}, "quote"),
        ({"side": "Buy", "marketUnit": ""}, "quote"),
        ({"side": "Buy", "marketUnit": "baseCoin"}, "base"),
        ({"side": "Sell"}, "base"),
        ({"side": "Sell", "marketUnit": "quoteCoin"}, "quote"),
        ({"side": "Buy", "orderType": "Limit"}, "base"),
        ({"side": "Buy", "category": "linear"}, "base"),
        ({"side": "Buy", "category": "inverse"}, "quote"),
    ],
)
def test_units_of_orders(fields: dict[str, Any], unit: str) -> None:
    event = order(**{"category": "spot", "orderType": "Market", **fields})
    assert event.size_unit == unit
    assert event.filled_size_unit == ("quote" if fields.get("category") == "inverse" else "base")


def test_fees_without_details_are_paid_in_what_the_catalogue_says() -> None:
    known = order(symbol="BTCUSDT", cumFeeDetail={}, cumExecFee="-0.25")
    assert (known.fees, "cumExecFee" in known.extras) == ({"USDT": "-0.25"}, False)
    named = order(cumFeeDetail=None, cumExecFee="0.25", feeCurrency="ETH")
    assert named.fees == {"ETH": "0.25"}
    unknown = order(cumFeeDetail={}, cumExecFee="0.25")
    assert (unknown.fees, unknown.extras["cumExecFee"]) == ({}, "0.25")


def test_empty_texts_are_no_values() -> None:
    event = order(rejectReason="", smpType="", cumFeeDetail={"BTC": "", "MNT": "0.1"})
    assert (event.reject_reason, event.self_match_prevention, event.fees) == (None, None, {"MNT": "0.1"})


def test_an_order_triggered_from_above() -> None:
    assert order(triggerPrice="1", triggerDirection=2).trigger_direction == "fall"
    assert order(triggerPrice="1", triggerDirection=3).trigger_direction == "3"


def test_an_option_order_by_volatility() -> None:
    event = order(category="option", placeType="iv", orderIv="0.55")
    assert (event.price_type, event.implied_volatility) == ("iv", 0.55)


def test_a_spread_order_and_its_leg() -> None:
    spread, leg = private(*lines("private.spread.order"))
    assert head(spread)[1:5] == ("spread", "SOLUSDT_SOL/USDT", None, "main")
    assert values(spread) == {
        "exchange_time": 1744170555905000,
        "receive_time": RECEIVED,
        "channel": "spread.order",
        "is_snapshot": False,
        "order_id": "aa858ea9-f3a0-40b6-ad57-888d47307345",
        "leg_kind": "combination",
        "status": "filled",
        "venue_status": "Filled",
        "side": "buy",
        "order_type": "limit",
        "venue_order_type": "Limit",
        "size_unit": "base",
        "filled_size_unit": "base",
        "time_in_force": "gtc",
        "price": "14",
        "size": "2",
        "filled_size": "2",
        "remaining_size": "0",
        "fees": {"MNT": "0.00242968"},
        "rebates": {},
        "is_post_only": False,
        "created_by": "CreateByUser",
        "created_time": 1744170534447000,
        "extras": {},
    }
    assert head(leg)[1:3] == ("linear", "SOLUSDT")
    assert isinstance(leg, Order)
    assert (leg.leg_kind, leg.parent_order_id) == ("future_leg", "aa858ea9-f3a0-40b6-ad57-888d47307345")
    assert (leg.average_price, leg.filled_value, leg.realized_pnl) == ("118.2", "236.4", "0")
    assert leg.extras == {"leavesValue": "0", "cumExecFee": "0.01182"}
    (free,) = private(first("private.spread.order", price="0", avgPrice="0.0"))
    assert isinstance(free, Order)
    assert (free.price, free.average_price) == ("0", "0.0")
    (spot,) = private(first("private.spread.order", category="spot_leg", orderType="Market"))
    assert isinstance(spot, Order)
    assert (spot.origin.market, spot.leg_kind, spot.size_unit) == ("spot", "spot_leg", "base")
