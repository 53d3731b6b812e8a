"""Positions, balances and greeks of an account, and what all private messages have in common."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.exchanges.bybit.venue import Bybit
from pipeline.model.account import AccountGreeks, AccountRaw, Balance, Position
from pipeline.model.errors import BadMessage
from tests.exchanges.bybit.samples import (
    DATA,
    PRIVATE_CONNECTION,
    RECEIVED,
    catalogue,
    first,
    head,
    lines,
    private,
    values,
)
from tests.exchanges.bybit.test_normalizer import bare, paths, replaced, shapes, shuffled

SAMPLES = sorted(path.stem for path in DATA.glob("*private.*.jsonl") if "control" not in path.stem)
NORMALIZED = [name for name in SAMPLES if "rfq" not in name and "strategy" not in name]


def position(**fields: Any) -> Position:
    (event,) = private(first("derived.private.position.open-long", **fields))
    assert isinstance(event, Position)
    return event


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


@pytest.mark.parametrize("missing", ["", "0", None])
def test_without_a_time_of_its_own_the_message_tells_it(missing: str | None) -> None:
    assert position(updatedTime=missing).exchange_time == 1697682317044000


def test_a_wallet_is_an_account_and_its_coins() -> None:
    whole, coin = private(*lines("private.wallet"))
    assert type(whole) is type(coin) is Balance
    assert head(whole) == ("bybit", "account", None, None, "main", PRIVATE_CONNECTION)
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


def test_a_position_without_a_side_is_not_taken_for_a_flat_one() -> None:
    with pytest.raises(BadMessage, match="`side`"):
        position(side=None)


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - set(NORMALIZED)))
def test_strategies_and_quotes_pass_as_they_are(name: str) -> None:
    (message,) = lines(name)
    (event,) = private(message)
    assert type(event) is AccountRaw
    assert not event.is_snapshot
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
    one = Bybit().normalizer("private", PRIVATE_CONNECTION, known, account="main")
    message = lines("private.execution")[0]
    (before,) = one.normalize(message, RECEIVED)
    known["linear", "BTCUSDT"] = replace(entry)
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
    one = Bybit().normalizer("private", PRIVATE_CONNECTION, {})
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
