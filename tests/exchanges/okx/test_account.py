"""Balances, positions, greeks: complete snapshots, changes, warnings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.exchanges.venue import Normalizer
from pipeline.model.account import Balance, Position, SnapshotEnd
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event
from tests.exchanges.okx.samples import CATALOGUE, RECEIVED, VENUE, account_events, own_fields, sample, told

ACCOUNT = ("okx", "account", None, None)
SWAP = ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP")
WHOLE = {
    "of": ACCOUNT,
    "exchange_time": 1705564223311000,
    "channel": "account",
    "is_snapshot": True,
    "equity": "55868.06403501676",
    "available_equity": "55444.12216906034",
    "adjusted_equity": "55444.12216906034",
    "isolated_equity": "0",
    "order_locked": "0",
    "initial_margin": "0",
    "maintenance_margin": "0",
    "unrealized_pnl": "0",
    "usd_notional": "0",
    "usd_delta": "0",
    "delta_leverage": "0",
    "extras": {
        "borrowFroz": "0",
        "notionalUsdForBorrow": "0",
        "notionalUsdForSwap": "0",
        "notionalUsdForFutures": "0",
        "notionalUsdForOption": "0",
        "deltaNeutralStatus": "0",
    },
}
USDT = {
    "of": ACCOUNT,
    "exchange_time": 1705564213903000,
    "channel": "account",
    "is_snapshot": True,
    "currency": "USDT",
    "total": "4750.426970691436",
    "available": "4734.371190691436",
    "locked": "158.57998",
    "order_locked": "0",
    "equity": "4892.951170691435",
    "available_equity": "4734.371190691435",
    "adjusted_equity": "4889.379316336831",
    "isolated_equity": "0",
    "strategy_equity": "150",
    "usd_value": "4889.379316336831",
    "usd_price": "0.99927",
    "unrealized_pnl": "-7.475800000000003",
    "isolated_unrealized_pnl": "0",
    "liability": "0",
    "cross_liability": "0",
    "isolated_liability": "0",
    "unrealized_pnl_liability": "0",
    "accrued_interest": "0",
    "max_loan": "0",
    "bonus": "0",
    "is_collateral_enabled": False,
    "collateral_restriction": "0",
    "repayment_risk": 0,
    "extras": {
        "fixedBal": "0",
        "frpType": "0",
        "borrowFroz": "0",
        "colBorrAutoConversion": "0",
        "smtSyncEq": "0",
        "spotCopyTradingEq": "0",
        "spotIsoBal": "0",
    },
}
FUTURE = {
    "of": ("okx", "futures", "ETH-USD-210430", None),
    "exchange_time": 1619507761462000,
    "channel": "positions",
    "is_snapshot": True,
    "side": "long",
    "size": "1",
    "size_unit": "contract",
    "position_id": "307173036051017730",
    "position_side": "long",
    "margin_mode": "isolated",
    "margin_currency": "ETH",
    "available_size": "1",
    "entry_price": "2566.31",
    "mark_price": "2353.849",
    "last_price": "2566.22",
    "index_price": "2566.13",
    "liquidation_price": "2352.8496681818233",
    "leverage": "10",
    "usd_value": "2276.2546609009605",
    "maintenance_margin": "0.0000311811092368",
    "isolated_margin": "0.0003896645377994",
    "margin_ratio": "11.731726509588816",
    "interest": "0",
    "unrealized_pnl": "-0.0000009932766034",
    "unrealized_pnl_ratio": "-0.0025490556801078",
    "last_unrealized_pnl": "-0.0000009932766034",
    "last_unrealized_pnl_ratio": "-0.0025490556801078",
    "realized_pnl": "0.001",
    "close_pnl": "0.0011",
    "fee": "0.0001",
    "funding_fee": "0",
    "liquidation_penalty": "0",
    "take_profit_price": "123",
    "stop_loss_price": "123",
    "adl_rank": 1,
    "is_liquidation_warning": False,
    "last_trade_id": "109844",
    "created_time": 1619507758793000,
    "extras": {
        "pendingCloseOrdLiabVal": "0.1",
        "closeOrderAlgo": '[{"algoId":"123","slTriggerPx":"123","slTriggerPxType":"mark","tpTriggerPx":"123",'
        '"tpTriggerPxType":"mark","closeFraction":"0.6"},{"algoId":"123","slTriggerPx":"123","slTriggerPxType":"mark",'
        '"tpTriggerPx":"123","tpTriggerPxType":"mark","closeFraction":"0.4"}]',
    },
}


def private() -> Normalizer:
    return VENUE.normalizer("private", "okx.private.0#1", CATALOGUE, account="main")


def push(channel: str, *rows: Any, **top: Any) -> bytes:
    return json.dumps({"arg": {"channel": channel, "uid": "7"}, **top, "data": list(rows)}).encode()


def position(**row: Any) -> Position:
    base = {"instType": "SWAP", "instId": "BTC-USDT-SWAP", "pos": "1", "posSide": "net", "uTime": "5"}
    (event,) = private().normalize(push("positions", base | row, eventType="event_update"), RECEIVED)
    assert isinstance(event, Position)
    return event


def cash(currency: str) -> dict[str, Any]:
    return {"uTime": "1", "details": [{"ccy": currency, "uTime": "2", "cashBal": "1"}]}


def currencies(events: list[Event]) -> list[str | None]:
    return [event.currency for event in events if isinstance(event, Balance)]


def test_an_account_and_its_currency() -> None:
    assert [own_fields(event) for event in account_events("private.account")] == [WHOLE, USDT]


def test_a_paged_snapshot_is_published_when_its_last_page_has_come() -> None:
    first, second, change, empty = sample("private.account.constructed")
    reader = private()
    assert reader.normalize(first, RECEIVED) == []
    whole, usdt, btc, _ = reader.normalize(second, RECEIVED)
    assert [own_fields(whole), own_fields(usdt)] == [WHOLE, USDT]
    assert isinstance(btc, Balance)
    assert (btc.is_snapshot, btc.currency, btc.total, btc.usd_price) == (True, "BTC", "0.5", "63900")
    events = reader.normalize(change, RECEIVED)
    assert [(event.is_snapshot, event.exchange_time) for event in events if isinstance(event, Balance)] == [
        (False, 1786541242010000),
        (False, 1786541242000000),
    ]
    assert told(reader.normalize(empty, RECEIVED)) == []


def ends(events: list[Event]) -> list[tuple[str, str | None]]:
    """Which states these events complete; an end is always the last of its kind."""
    found = [event for event in events if isinstance(event, SnapshotEnd)]
    assert all(end.origin.account == "main" and end.receive_time == RECEIVED for end in found)
    assert all(end.exchange_time is None and end.origin.instrument is None for end in found)
    return [(f"{end.channel} {end.kind}", end.market) for end in found]


@pytest.mark.parametrize(
    ("name", "told_by_line"),
    [
        ("private.account", [["account balance"]]),
        ("private.account.constructed", [[], ["account balance"], [], ["account balance"]]),
        ("private.positions.constructed", [[], ["positions position"], [], [], ["positions position"]]),
        (
            "private.balance_and_position",
            [["balance_and_position balance", "balance_and_position position"]],
        ),
        ("private.balance_and_position.constructed", [[], []]),
        ("private.account-greeks", [[], []]),
        ("private.liquidation-warning", [[]]),
        ("private.orders", [[]]),
    ],
)
def test_the_end_of_a_complete_snapshot_is_told(name: str, told_by_line: list[list[str]]) -> None:
    reader = private()
    assert [ends(reader.normalize(line, RECEIVED)) for line in sample(name)] == [
        [(each, None) for each in line] for line in told_by_line
    ]


@pytest.mark.parametrize(
    ("channel", "arg", "expected"),
    [
        ("positions", {"instType": "ANY"}, [("positions position", None)]),
        ("positions", {"instType": "SWAP"}, [("positions position", "swap")]),
        ("positions", {"instType": "SWAP", "instFamily": "BTC-USDT"}, []),
        ("positions", {"instType": "ANY", "instId": "BTC-USDT-SWAP"}, []),
        ("account", {}, [("account balance", None)]),
        ("account", {"ccy": "BTC"}, []),
    ],
    ids=range(6),
)
def test_what_a_snapshot_is_the_whole_of(
    channel: str, arg: dict[str, str], expected: list[tuple[str, str | None]]
) -> None:
    message = {"arg": {"channel": channel, **arg, "uid": "7"}, "eventType": "snapshot", "curPage": 1, "lastPage": True}
    assert ends(private().normalize(json.dumps({**message, "data": []}).encode(), RECEIVED)) == expected


def test_the_end_of_a_snapshot_comes_after_what_it_tells() -> None:
    (line,) = sample("private.balance_and_position")
    kinds = [type(event) for event in private().normalize(line, RECEIVED)]
    assert kinds == [Balance, Position, SnapshotEnd, SnapshotEnd]


def test_changes_between_pages_are_published_at_once() -> None:
    reader = private()
    pages = [
        push("account", cash("A"), eventType="snapshot", curPage=1, lastPage=False),
        push("account", cash("B"), eventType="event_update"),
        push("account", cash("C"), eventType="snapshot", curPage=2, lastPage=False),
        push("account", cash("D"), eventType="snapshot", curPage=3, lastPage=True),
    ]
    published = [currencies(reader.normalize(page, RECEIVED)) for page in pages]
    assert published == [[], [None, "B"], [], [None, "A", "C", "D"]]


def test_a_currency_without_a_time_has_that_of_the_account() -> None:
    details = [{"ccy": "A", "uTime": ""}, {"ccy": "B", "uTime": "2"}]
    events = private().normalize(push("account", {"uTime": "1", "details": details}), RECEIVED)
    assert [event.exchange_time for event in events] == [1000, 1000, 2000]


def test_an_unknown_type_of_push_is_a_change() -> None:
    events = private().normalize(push("account", cash("A"), eventType="news"), RECEIVED)
    assert [event.is_snapshot for event in events if isinstance(event, Balance)] == [False, False]


def test_a_missing_page_loses_that_snapshot_and_no_other() -> None:
    reader = private()
    first = push("account", cash("A"), eventType="snapshot", curPage=1, lastPage=False)
    third = push("account", cash("C"), eventType="snapshot", curPage=3, lastPage=True)
    assert reader.normalize(first, RECEIVED) == []
    for _ in range(2):
        with pytest.raises(BadMessage, match="page 3 of a snapshot after page"):
            reader.normalize(third, RECEIVED)
    again = push("account", cash("D"), eventType="snapshot", curPage=1, lastPage=True)
    assert currencies(reader.normalize(again, RECEIVED)) == [None, "D"]


def test_a_snapshot_that_begins_anew_forgets_the_pages_before() -> None:
    reader = private()
    for name, last in (("A", False), ("B", True)):
        page = push("account", cash(name), eventType="snapshot", curPage=1, lastPage=last)
        events = reader.normalize(page, RECEIVED)
    assert currencies(events) == [None, "B"]


def test_before_types_were_sent_the_first_push_was_the_snapshot_and_perhaps_not_the_whole() -> None:
    reader = private()
    events = [reader.normalize(push("account", cash("A")), RECEIVED)[1] for _ in range(2)]
    assert [event.is_snapshot for event in events if isinstance(event, Balance)] == [True, False]


def test_positions_over_two_pages_and_their_changes() -> None:
    future, swap, short, flat = account_events("private.positions.constructed")
    assert own_fields(future) == FUTURE
    assert isinstance(swap, Position)
    assert isinstance(short, Position)
    assert isinstance(flat, Position)
    shared = own_fields(swap)
    assert [shared[name] for name in ("of", "side", "size", "base_size", "initial_margin", "unrealized_pnl")] == [
        SWAP,
        "long",
        "3",
        "0.03",
        "191.76",
        "0.639",
    ]
    assert (swap.position_side, swap.is_snapshot, swap.take_profit_price) == (None, True, None)
    assert (short.side, short.size, short.base_size, short.entry_price, short.is_snapshot) == (
        "short",
        "2",
        "0.02",
        "63950",
        False,
    )
    assert (flat.side, flat.size, flat.entry_price, flat.liquidation_price) == ("flat", "0", None, None)


def test_documented_positions() -> None:
    first, second, swap = account_events("private.positions")
    assert own_fields(first) == FUTURE
    assert own_fields(second) == FUTURE | {"break_even_price": "2353.949"}
    assert swap.origin.instrument == "ETH-USD-SWAP"


@pytest.mark.parametrize(
    ("row", "side", "hedge"),
    [
        ({"pos": "2"}, "long", None),
        ({"pos": "-2"}, "short", None),
        ({"pos": "2", "posSide": "long"}, "long", "long"),
        ({"pos": "2", "posSide": "short"}, "short", "short"),
        ({"pos": "0", "posSide": "short"}, "flat", "short"),
        ({"pos": "-0.00"}, "flat", None),
        ({"instType": "MARGIN", "instId": "BTC-USDT", "pos": "2", "posCcy": "BTC"}, "long", None),
        ({"instType": "MARGIN", "instId": "BTC-USDT", "pos": "2", "posCcy": "USDT"}, "short", None),
    ],
    ids=range(8),
)
def test_sides(row: dict[str, str], side: str, hedge: str | None) -> None:
    event = position(**row)
    assert (event.side, event.position_side) == (side, hedge)
    assert not event.size.startswith("-")


def test_contracts_of_inverse_swaps_have_no_exact_base_size() -> None:
    assert position(instId="BTC-USD-SWAP").base_size is None
    margin = position(instType="MARGIN", instId="BTC-USDT")
    assert (margin.base_size, margin.size_unit) == ("1", "base")


def test_what_is_paid_is_positive() -> None:
    event = position(fee="-0.5", fundingFee="0.25", liqPenalty="-3", realizedPnl="-1")
    assert (event.fee, event.funding_fee, event.liquidation_penalty, event.realized_pnl) == ("0.5", "-0.25", "3", "-1")


def test_greeks_of_options() -> None:
    event = position(deltaBS="0.5", gammaBS="-1e-3", thetaBS="2", vegaBS="3", deltaPA="4", gammaPA="5", thetaPA="6")
    assert (event.delta, event.gamma, event.theta, event.vega) == (0.5, -0.001, 2.0, 3.0)
    assert (event.coin_delta, event.coin_gamma, event.coin_theta, event.coin_vega) == (4.0, 5.0, 6.0, None)


@pytest.mark.parametrize(
    ("member", "attribute"),
    [
        ("hedgedPos", "hedged_size"),
        ("nonSettleAvgPx", "original_entry_price"),
        ("bePx", "break_even_price"),
        ("usdPx", "usd_price"),
        ("optVal", "option_value"),
        ("liab", "liability"),
        ("liabCcy", "liability_currency"),
        ("settledPnl", "settled_pnl"),
    ],
)
def test_members_of_positions_that_samples_leave_empty(member: str, attribute: str) -> None:
    assert getattr(position(**{member: "7"}), attribute) == "7"


@pytest.mark.parametrize(
    "member",
    ["posCcy", "spotInUseAmt", "spotInUseCcy", "clSpotInUseAmt", "maxSpotInUseAmt", "bizRefId", "bizRefType"],
)
def test_extras_of_positions(member: str) -> None:
    assert position(**{member: "7"}).extras == {member: "7"}


@pytest.mark.parametrize(
    ("member", "attribute"),
    [
        ("imr", "initial_margin"),
        ("mmr", "maintenance_margin"),
        ("mgnRatio", "margin_ratio"),
        ("spotInUseAmt", "hedging_size"),
    ],
)
def test_members_of_balances_that_samples_leave_empty(member: str, attribute: str) -> None:
    row = {"uTime": "1", "mgnRatio": "9", "details": [{"ccy": "A", member: "7"}]}
    whole, event = private().normalize(push("account", row), RECEIVED)
    assert isinstance(whole, Balance)
    assert (whole.margin_ratio, getattr(event, attribute)) == ("9", "7")


@pytest.mark.parametrize(
    "member",
    [
        "notionalLever",
        "clSpotInUseAmt",
        "maxSpotInUseAmt",
        "spotBal",
        "openAvgPx",
        "accAvgPx",
        "spotUpl",
        "spotUplRatio",
        "totalPnl",
        "totalPnlRatio",
        "autoLendStatus",
        "autoLendMtAmt",
    ],
)
def test_extras_of_balances(member: str) -> None:
    row = {"uTime": "1", "details": [{"ccy": "A", member: "7"}]}
    _, event = private().normalize(push("account", row), RECEIVED)
    assert isinstance(event, Balance)
    assert event.extras == {member: "7"}


def test_exits_at_different_prices_are_in_the_extras_only() -> None:
    event = position(closeOrderAlgo=[{"slTriggerPx": "1"}, {"slTriggerPx": "2", "tpTriggerPx": "3"}])
    assert (event.stop_loss_price, event.take_profit_price) == (None, "3")
    assert event.extras["closeOrderAlgo"] == '[{"slTriggerPx":"1"},{"slTriggerPx":"2","tpTriggerPx":"3"}]'


def test_a_liquidation_leaves_no_trade() -> None:
    assert position(tradeId="0").last_trade_id is None


@pytest.mark.parametrize("row", [{"pos": "many"}, {"adl": "x"}, {"deltaBS": "nan"}, {"cTime": "-1"}, {"pos": None}])
def test_an_unreadable_position_is_a_bad_message(row: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match="positions"):
        position(**row)


def test_balance_and_position() -> None:
    balance, changed, funding = account_events("private.balance_and_position.constructed")
    channel = {"channel": "balance_and_position", "is_snapshot": False}
    assert own_fields(balance) == channel | {
        "of": ACCOUNT,
        "exchange_time": 1786541243001000,
        "currency": "USDT",
        "total": "4699.9",
        "cause": "filled",
    }
    assert own_fields(changed) == channel | {
        "of": SWAP,
        "exchange_time": 1786541243001000,
        "side": "long",
        "size": "3",
        "size_unit": "contract",
        "base_size": "0.03",
        "position_id": "1111111111",
        "margin_mode": "cross",
        "margin_currency": "USDT",
        "entry_price": "63900",
        "is_liquidation_warning": False,
        "cause": "filled",
        "last_trade_id": "2832749702",
    }
    assert own_fields(funding) == channel | {
        "of": ACCOUNT,
        "exchange_time": 1786550400050000,
        "currency": "USDT",
        "total": "4699.4",
        "cause": "funding_fee",
    }


def test_the_snapshot_of_balance_and_position_has_no_cause() -> None:
    balance, held = account_events("private.balance_and_position")
    assert isinstance(balance, Balance)
    assert isinstance(held, Position)
    assert (balance.is_snapshot, balance.cause, balance.currency, balance.total) == (True, None, "BTC", "1")
    assert (held.is_snapshot, held.cause, held.side, held.size, held.position_side) == (
        True,
        None,
        "long",
        "10",
        "long",
    )


def test_liquidation_warnings_are_positions() -> None:
    (event,) = account_events("private.liquidation-warning")
    assert own_fields(event) == {
        "of": ("okx", "futures", "ETH-USD-210430", None),
        "exchange_time": 1619507761462000,
        "channel": "liquidation-warning",
        "is_snapshot": False,
        "side": "long",
        "size": "1",
        "size_unit": "contract",
        "position_id": "307173036051017730",
        "position_side": "long",
        "margin_mode": "isolated",
        "margin_currency": "ETH",
        "mark_price": "2353.849",
        "leverage": "10",
        "margin_ratio": "11.731726509588816",
        "is_liquidation_warning": True,
        "created_time": 1619507758793000,
    }


def test_account_greeks() -> None:
    bitcoin, *both = account_events("private.account-greeks")
    assert own_fields(bitcoin) == {
        "of": ACCOUNT,
        "exchange_time": 1729179082006000,
        "channel": "account-greeks",
        "is_snapshot": False,
        "currency": "BTC",
        "delta": 1.124666540194431,
        "gamma": 0.0,
        "vega": 0.0,
        "theta": 2.0356991946421226,
        "coin_delta": -0.0074076183688949,
        "coin_gamma": 0.0148152367377899,
        "coin_vega": 0.0,
        "coin_theta": -0.0000000200174309,
    }
    assert [own_fields(event)["currency"] for event in both] == ["BTC", "ETH"]
    assert own_fields(both[1])["coin_vega"] == -0.0000000000017267


def test_without_an_account_the_key_is_that_of_the_market() -> None:
    (event,) = VENUE.normalizer("private", "c#1", {}).normalize(
        push("positions", {"instId": "A-USDT-SWAP", "pos": "1", "uTime": "1"}), RECEIVED
    )
    assert event.origin.key == b"okx.swap.A-USDT-SWAP"
    (event,) = private().normalize(push("positions", {"instId": "A-USDT-SWAP", "pos": "1", "uTime": "1"}), RECEIVED)
    assert event.origin.key == b"okx.main.A-USDT-SWAP"
