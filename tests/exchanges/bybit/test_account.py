"""Orders, fills, positions, balances and greeks of an account, against the venue's own messages."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import Catalogue
from pipeline.model.account import AccountGreeks, Balance, Fill, Order, Position
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Raw
from tests.exchanges.bybit.samples import DATA, RECEIVED, catalogue, head, lines, values
from tests.exchanges.bybit.test_normalizer import bare, paths, replaced, shapes, shuffled

CONNECTION = "bybit.main.0#2"
SAMPLES = sorted(path.stem for path in DATA.glob("*private.*.jsonl") if "control" not in path.stem)
NORMALIZED = [name for name in SAMPLES if "rfq" not in name and "strategy" not in name]


def private(*messages: bytes, known: Catalogue | None = None) -> list[Event]:
    """All events of these messages on one private connection of the account "main"."""
    one = Bybit().normalizer("private", CONNECTION, catalogue() if known is None else known, account="main")
    return [event for message in messages for event in one.normalize(message, RECEIVED)]


def first(name: str, **fields: Any) -> bytes:
    """The first message of a sample, its first element with other fields; None leaves one out."""
    message = json.loads(lines(name)[0])
    row = {**message["data"][0], **fields}
    message["data"] = [{key: value for key, value in row.items() if value is not None}]
    return json.dumps(message).encode()


def order(**fields: Any) -> Order:
    (event,) = private(first("derived.private.order.linear.sequence", **fields))
    assert isinstance(event, Order)
    return event


def fill(**fields: Any) -> Fill:
    (event,) = private(first("private.execution", **fields))
    assert isinstance(event, Fill)
    return event


def position(**fields: Any) -> Position:
    (event,) = private(first("derived.private.position.open-long", **fields))
    assert isinstance(event, Position)
    return event


def test_an_option_order() -> None:
    (event,) = private(*lines("private.order"))
    assert type(event) is Order
    assert head(event) == ("bybit", "option", "ETH-30DEC22-1400-C", None, "main", CONNECTION)
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


def test_a_linear_fill() -> None:
    (event,) = private(*lines("private.execution"))
    assert type(event) is Fill
    assert head(event) == ("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", "main", CONNECTION)
    assert values(event) == {
        "exchange_time": 1746270400353000,
        "receive_time": RECEIVED,
        "sequence": 140612148849382,
        "channel": "execution",
        "is_snapshot": False,
        "fill_id": "0ab1bdf7-4219-438b-b30a-32ec863018f7",
        "side": "sell",
        "price": "95900.1",
        "size": "0.5",
        "size_unit": "base",
        "kind": "trade",
        "is_fast": False,
        "order_id": "9aac161b-8ed6-450d-9cab-c5cc67c21784",
        "base_size": "0.5",
        "value": "47950.05",
        "fee": "26.3725275",
        "fee_currency": "USDT",
        "fee_rate": "0.00055",
        "extra_fees": {"GST.IND_GST.USDT": "0.006403779"},
        "liquidity": "taker",
        "realized_pnl": "0.05",
        "closed_size": "0.5",
        "remaining_size": "0",
        "order_price": "94942.5",
        "order_size": "0.5",
        "order_type": "market",
        "created_by": "CreateByUser",
        "mark_price": "95901.48",
        "extras": {"isLeverage": "0"},
    }


def test_two_fills_in_one_message() -> None:
    events = private(*lines("derived.private.execution.two-fills-one-message"))
    names = ("fill_id", "size", "remaining_size", "value", "extra_fees")
    assert [tuple(values(event)[name] for name in names) for event in events] == [
        ("0ab1bdf7-4219-438b-b30a-32ec863018f7", "0.3", "0.2", "28770.03", {}),
        ("0ab1bdf7-4219-438b-b30a-32ec863018f9", "0.2", "0", "19180.02", {}),
    ]
    assert events[0].origin is events[1].origin


def test_funding_is_a_fill_of_its_own_kind() -> None:
    (event,) = private(*lines("derived.private.execution.funding"))
    assert isinstance(event, Fill)
    assert (event.kind, event.fee, event.fee_currency, event.fee_rate) == ("funding", "1.234", "USDT", "0.0001")
    assert (event.liquidity, event.order_type, event.stop_order_type) == (None, None, None)
    assert (event.order_id, event.realized_pnl) == ("1746259200-5-386825804-0-1", "0")


@pytest.mark.parametrize(
    ("venue_kind", "kind", "liquidity"),
    [
        ("AdlTrade", "adl", "taker"),
        ("BustTrade", "liquidation", "taker"),
        ("Delivery", "delivery", None),
        ("Settle", "settlement", None),
        ("BlockTrade", "block", "taker"),
        ("MovePosition", "move_position", "taker"),
        ("FutureSpread", "spread_leg", "taker"),
        ("CorporateAction", "corporate_action", None),
        ("Invented", "Invented", "taker"),
    ],
)
def test_kinds_of_fills(venue_kind: str, kind: str, liquidity: str | None) -> None:
    event = fill(execType=venue_kind)
    assert (event.kind, event.liquidity) == (kind, liquidity)


def test_an_option_fill() -> None:
    event = fill(category="option", tradeIv="0.5", markIv="0.51", indexPrice="1", underlyingPrice="2", isMaker=True)
    assert (event.implied_volatility, event.mark_implied_volatility) == (0.5, 0.51)
    assert (event.index_price, event.underlying_price, event.liquidity) == ("1", "2", "maker")


def test_an_inverse_fill_counts_dollars() -> None:
    event = fill(category="inverse", symbol="BTCUSD", execQty="300", execFee="0.0000015", feeCurrency="BTC")
    assert (event.size, event.size_unit, event.quote_size, event.base_size) == ("300", "quote", "300", None)
    assert event.order_size == "0.5"


def test_sizes_ordered_by_value_are_not_sizes_of_the_fill() -> None:
    event = fill(category="spot", side="Buy", orderQty="1000", leavesQty="4.5")
    assert (event.size, event.size_unit, event.order_size, event.remaining_size) == ("0.5", "base", None, None)
    assert event.extras == {"isLeverage": "0", "orderQty": "1000", "leavesQty": "4.5"}


@pytest.mark.parametrize(
    ("fields", "currency"),
    [
        ({"category": "spot", "side": "Buy"}, "BTC"),
        ({"category": "spot", "side": "Sell"}, "USDT"),
        ({"category": "spot", "side": "Buy", "isMaker": True}, "BTC"),
        ({"category": "spot", "side": "Buy", "isMaker": True, "feeRate": "-0.0001", "execFee": "-0.1"}, "USDT"),
        ({"category": "spot", "side": "Sell", "isMaker": True, "feeRate": "-0.0001", "execFee": "-0.1"}, "BTC"),
        ({"category": "spot", "side": "Sell", "isMaker": True, "feeRate": "", "execFee": "-0.1"}, "BTC"),
        ({"category": "spot", "side": "Buy", "feeRate": "-0.0001"}, "BTC"),
        ({"category": "linear", "side": "Buy"}, "USDT"),
        ({"category": "linear", "side": "Buy", "feeCurrency": "MNT"}, "MNT"),
        ({"category": "linear", "symbol": "NEWUSDT"}, None),
        ({"category": "linear", "execFee": ""}, None),
    ],
)
def test_currencies_of_fees(fields: dict[str, Any], currency: str | None) -> None:
    assert fill(**{"feeCurrency": None, **fields}).fee_currency == currency


def test_extra_fees_of_one_kind_add_up() -> None:
    fee = {"feeCoin": "EUR", "feeType": "VAT", "subFeeType": "", "feeRate": "0", "fee": "0.1"}
    event = fill(extraFees=[fee, {**fee, "fee": "0.25"}, {**fee, "fee": "-0.05"}, {**fee, "feeCoin": "MNT"}])
    assert event.extra_fees == {"VAT.EUR": "0.30", "VAT.MNT": "0.1"}
    with pytest.raises(BadMessage, match="extraFees: 'much' cannot be added"):
        fill(extraFees=[fee, {**fee, "fee": "much"}])


@pytest.mark.parametrize("topic", ["execution.fast", "execution.fast.linear"])
def test_a_fast_fill_is_early_and_incomplete(topic: str) -> None:
    (event,) = private(lines("private.execution.fast")[0].replace(b"execution.fast", topic.encode()))
    assert values(event) == {
        "exchange_time": 1716800399334000,
        "receive_time": RECEIVED,
        "sequence": 34771365464,
        "channel": "execution.fast",
        "is_snapshot": False,
        "fill_id": "3510f361-0add-5c7b-a2e7-9679810944fc",
        "side": "sell",
        "price": "12.015",
        "size": "3000",
        "size_unit": "base",
        "kind": "trade",
        "is_fast": True,
        "order_id": "443d63fa-b4c3-4297-b7b1-23bca88b04dc",
        "client_order_id": "test-00001",
        "base_size": "3000",
        "extra_fees": {},
        "liquidity": "taker",
        "extras": {},
    }


def test_fills_of_a_spread_and_of_its_leg() -> None:
    spread, leg = private(*lines("private.spread.execution"))
    assert head(spread)[1:3] == ("spread", "SOLUSDT_SOL/USDT")
    assert values(spread) == {
        "exchange_time": 1744104992220000,
        "receive_time": RECEIVED,
        "sequence": 241321,
        "channel": "spread.execution",
        "is_snapshot": False,
        "fill_id": "82c82077-0caa-5304-894d-58a50a342bd7",
        "side": "buy",
        "price": "20.9848",
        "size": "2",
        "size_unit": "base",
        "kind": "trade",
        "is_fast": False,
        "leg_kind": "combination",
        "order_id": "5e010c35-2b44-4f03-8081-8fa31fb73376",
        "base_size": "2",
        "extra_fees": {},
        "liquidity": "taker",
        "remaining_size": "0",
        "order_price": "21",
        "order_size": "2",
        "order_type": "limit",
        "created_by": "CreateByUser",
        "extras": {},
    }
    assert isinstance(leg, Fill)
    assert (leg.kind, leg.leg_kind, leg.parent_fill_id) == ("spread_leg", "future_leg", values(spread)["fill_id"])
    assert (leg.origin.market, leg.order_id, leg.fee, leg.fee_currency) == ("linear", None, "0.039712", None)
    spot = first("private.spread.execution", category="spot_leg", execFee="1", execFeeV2="0.5", feeCoin="SOL")
    (event,) = private(spot)
    assert isinstance(event, Fill)
    assert (event.origin.market, event.fee, event.fee_currency) == ("spot", "0.5", "SOL")


def test_a_flat_position_of_hedge_mode() -> None:
    (event,) = private(*lines("private.position"))
    assert type(event) is Position
    assert head(event)[1:5] == ("linear", "BTCUSDT", "BTC-USDT-PERP", "main")
    assert values(event) == {
        "exchange_time": 1697682317038000,
        "receive_time": RECEIVED,
        "sequence": 8327597863,
        "channel": "position",
        "is_snapshot": False,
        "side": "flat",
        "size": "0",
        "size_unit": "base",
        "position_side": "short",
        "base_size": "0",
        "break_even_price": "93556.73034991",
        "mark_price": "28184.5",
        "leverage": "10",
        "value": "0",
        "initial_margin": "0",
        "maintenance_margin": "0",
        "unrealized_pnl": "0",
        "realized_pnl": "1.26",
        "cumulative_realized_pnl": "-25.06579337",
        "state": "Normal",
        "adl_rank": 0,
        "is_reduce_only": False,
        "is_auto_margin": False,
        "is_liquidation_warning": False,
        "risk_id": 1,
        "risk_limit_value": "2000000",
        "created_time": 1694402496913000,
        "extras": {"positionIMByMp": "0", "positionMMByMp": "0"},
    }


def test_an_open_position() -> None:
    event = position()
    assert (event.side, event.size, event.position_side, event.base_size) == ("long", "0.5", None, "0.5")
    assert (event.entry_price, event.value, event.liquidation_price) == ("95900.1", "47950.05", None)
    assert (event.unrealized_pnl, event.opened_time) == ("0.69", 1746270400353000)


def test_a_position_with_everything() -> None:
    event = position(
        category="inverse",
        side="Sell",
        positionIdx=1,
        seq="-1",
        liqPrice="100000.5",
        sessionAvgPrice="95000",
        takeProfit="90000",
        stopLoss="99000",
        trailingStop="50",
        autoAddMargin=1,
        adlRankIndicator=3,
        riskId=0,
        riskLimitValue="0",
        leverage="",
        positionIM="",
        delta="0.5",
        gamma="-0.1",
        vega="2",
        theta="-3.5",
        openTime=0,
        isReduceOnly=True,
        positionStatus="Adl",
        mmrSysUpdatedTime="1697682317038",
        updatedTime="",
    )
    assert (event.side, event.size_unit, event.base_size, event.position_side) == ("short", "quote", None, "long")
    assert (event.sequence, event.exchange_time, event.opened_time) == (None, 1697682317044000, None)
    assert (event.liquidation_price, event.session_entry_price) == ("100000.5", "95000")
    assert (event.take_profit_price, event.stop_loss_price, event.trailing_stop) == ("90000", "99000", "50")
    assert (event.is_auto_margin, event.is_reduce_only, event.adl_rank, event.state) == (True, True, 3, "Adl")
    assert (event.risk_id, event.risk_limit_value, event.leverage, event.initial_margin) == (None, None, None, None)
    assert (event.delta, event.gamma, event.vega, event.theta) == (0.5, -0.1, 2.0, -3.5)
    assert event.extras["mmrSysUpdatedTime"] == "1697682317038"


def test_a_wallet_is_an_account_and_its_coins() -> None:
    whole, coin = private(*lines("private.wallet"))
    assert type(whole) is type(coin) is Balance
    assert head(whole) == ("bybit", "account", None, None, "main", CONNECTION)
    common = {
        "exchange_time": 1700034722104000,
        "receive_time": RECEIVED,
        "channel": "wallet",
        "is_snapshot": False,
        "account_type": "UNIFIED",
        "unrealized_pnl": "0",
        "extras": {},
    }
    assert values(whole) == {
        **common,
        "total": "9684.46297164",
        "available": "9556.6056555",
        "equity": "10262.91335023",
        "margin_balance": "9684.46297164",
        "initial_margin": "0",
        "maintenance_margin": "0",
        "initial_margin_rate": "0",
        "maintenance_margin_rate": "0",
    }
    assert values(coin) == {
        **common,
        "currency": "BTC",
        "total": "0.00102964",
        "locked": "0",
        "equity": "0.00102964",
        "usd_value": "36.70759517",
        "cumulative_realized_pnl": "-0.00000973",
        "borrowed": "0",
        "spot_borrowed": "0",
        "accrued_interest": "0",
        "bonus": "0",
        "hedging_size": "0.01592413",
        "is_collateral_allowed": True,
        "is_collateral_enabled": True,
    }


def test_the_other_spelling_of_a_wallet_and_margins_of_a_coin() -> None:
    fields = {"totalPositionIM": "1", "totalPositionMM": "2", "totalOrderIM": "3", "colRes": "-1"}
    flags = {"marginCollateral": True, "collateralSwitch": False}
    message = first("private.wallet", totalPerpUPL=None, totalPerpUpl="-7.5", coin=[{"coin": "ETH", **fields, **flags}])
    whole, coin = private(message)
    assert isinstance(whole, Balance)
    assert isinstance(coin, Balance)
    assert whole.unrealized_pnl == "-7.5"
    assert (coin.position_initial_margin, coin.maintenance_margin, coin.order_initial_margin) == ("1", "2", "3")
    assert (coin.is_collateral_allowed, coin.is_collateral_enabled) == (True, False)
    assert (coin.collateral_restriction, coin.total) == ("-1", None)


def test_greeks() -> None:
    (event,) = private(*lines("private.greeks"))
    assert type(event) is AccountGreeks
    assert head(event)[1:5] == ("account", None, None, "main")
    assert values(event) == {
        "exchange_time": 1672364262482000,
        "receive_time": RECEIVED,
        "channel": "greeks",
        "is_snapshot": False,
        "currency": "ETH",
        "delta": 0.06999986,
        "gamma": -0.00000001,
        "vega": -0.00000024,
        "theta": 0.00001314,
    }


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - set(NORMALIZED)))
def test_strategies_and_quotes_pass_as_they_are(name: str) -> None:
    (message,) = lines(name)
    (event,) = private(message)
    assert type(event) is Raw
    assert head(event)[1:5] == ("account", None, None, "main")
    assert (event.channel, event.payload.encode()) == (name.removeprefix("private."), message)
    assert event.exchange_time == json.loads(message)["creationTime"] * 1000


def test_plain_and_categorised_topics_are_one_channel() -> None:
    for name in ("private.order", "private.execution", "private.position"):
        message = lines(name)[0]
        topic = json.loads(message)["topic"]
        other = message.replace(f'"topic":"{topic}"'.encode(), f'"topic":"{topic}.option"'.encode())
        assert shapes(private(other)) == shapes(private(message))


def test_symbols_arrive_with_the_catalogue() -> None:
    known = dict(catalogue())
    entry = known.pop(("linear", "BTCUSDT"))
    one = Bybit().normalizer("private", CONNECTION, known, account="main")
    message = lines("private.execution")[0]
    (before,) = one.normalize(message, RECEIVED)
    known["linear", "BTCUSDT"] = attrs.evolve(entry)
    (after,) = one.normalize(message, RECEIVED)
    assert (before.origin.symbol, after.origin.symbol) == (None, "BTC-USDT-PERP")
    assert one.streams["execution"].messages == 2


def test_a_message_without_rows_gives_nothing() -> None:
    for topic in ("order", "execution", "position", "wallet", "greeks"):
        assert private(json.dumps({"topic": topic, "creationTime": 1, "data": []}).encode()) == []


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b'{"topic":"order","data":[]}', "order.*`creationTime`"),
        (b'{"topic":"wallet","creationTime":1,"data":{}}', r"wallet.*\$.data"),
        (first("private.order", orderId=None), "`orderId`"),
        (first("private.execution", execPrice=None), "`execPrice`"),
        (first("private.execution", execTime="soon"), "soon"),
        (first("private.execution", tradeIv="nan"), "nan"),
        (first("private.greeks", totalDelta="much"), "much"),
        (first("private.position", seq="many"), r"\$.data\[0\].seq"),
    ],
)
def test_unreadable_messages_name_the_fault(message: bytes, why: str) -> None:
    one = Bybit().normalizer("private", CONNECTION, {})
    with pytest.raises(BadMessage, match=f"^bybit private .*{why}"):
        one.normalize(message, RECEIVED)
    assert one.streams == {}


@given(st.sampled_from(NORMALIZED), st.randoms(use_true_random=False))
def test_key_order_does_not_matter(name: str, random: random.Random) -> None:
    others = [json.dumps(shuffled(json.loads(each), random)).encode() for each in lines(name)]
    assert shapes(private(*others)) == shapes(private(*lines(name)))


@pytest.mark.parametrize("name", NORMALIZED)
def test_numbers_and_texts_are_interchangeable_exactly(name: str) -> None:
    others = [bare(json.loads(each)).encode() for each in lines(name)]
    assert others != lines(name)
    assert shapes(private(*others)) == shapes(private(*lines(name)))


@given(
    st.data(),
    st.sampled_from(NORMALIZED),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just([]) | st.just({"a": [1]}),
)
def test_no_damaged_field_breaks_the_normalizer(data: st.DataObject, name: str, junk: object) -> None:
    message = json.loads(lines(name)[-1])
    damaged = replaced(message, data.draw(st.sampled_from(paths(message))), junk)
    with suppress(BadMessage):
        private(json.dumps(damaged).encode())
