"""Fills of an account, against the venue's own messages."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.account import Fill
from pipeline.model.errors import BadMessage
from tests.exchanges.bybit.samples import (
    PRIVATE_CONNECTION,
    RECEIVED,
    first,
    head,
    lines,
    private,
    values,
)


def fill(**fields: Any) -> Fill:
    (event,) = private(first("private.execution", **fields))
    assert isinstance(event, Fill)
    return event


def test_a_linear_fill() -> None:
    (event,) = private(*lines("private.execution"))
    assert type(event) is Fill
    assert head(event) == ("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", "main", PRIVATE_CONNECTION)
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
