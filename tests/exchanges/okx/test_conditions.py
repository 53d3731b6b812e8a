"""Liquidations, limits, option summaries, estimated prices, ADL warnings, status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.model.errors import BadMessage
from pipeline.model.events import AdlAlert, Liquidation
from tests.exchanges.okx.samples import RECEIVED, VENUE, events_of, normalizer, own_fields, push

SWAP = ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP")


def liquidation(instrument_type: str, instrument: str, **detail: Any) -> Liquidation:
    row = {
        "instType": instrument_type,
        "instId": instrument,
        "details": [{"bkPx": "1", "sz": "2", "side": "buy", "posSide": "short", "ts": "3"} | detail],
    }
    message = {"arg": {"channel": "liquidation-orders", "instType": instrument_type}, "data": [row]}
    (event,) = normalizer().normalize(json.dumps(message).encode(), RECEIVED)
    assert isinstance(event, Liquidation)
    return event


def test_each_detail_is_a_liquidation() -> None:
    swap = {"of": ("okx", "swap", "IOST-USDT-SWAP", None), "size_unit": "contract", "loss": "0"}
    assert [own_fields(event) for event in events_of("public.liquidation-orders.constructed")] == [
        swap
        | {
            "exchange_time": 1692266434010000,
            "price": "0.007831",
            "size": "13",
            "position_side": "short",
            "order_side": "buy",
        },
        swap
        | {
            "exchange_time": 1692266430000000,
            "price": "0.007812",
            "size": "5",
            "position_side": "long",
            "order_side": "sell",
        },
        {
            "of": ("okx", "margin", "BTC-USDT", None),
            "exchange_time": 1786541241000000,
            "size": "0.5",
            "size_unit": "base",
            "base_size": "0.5",
            "loss": "0",
            "currency": "BTC",
        },
    ]


def test_the_documented_liquidation_has_an_id_before_its_arg() -> None:
    (event,) = events_of("public.liquidation-orders")
    assert own_fields(event)["price"] == "0.007831"


@pytest.mark.parametrize(
    ("instrument_type", "instrument", "base", "quote"),
    [
        ("SWAP", "BTC-USDT-SWAP", "0.02", None),
        ("SWAP", "BTC-USD-SWAP", None, "200"),
        ("MARGIN", "BTC-USDT", "2", None),
        ("SWAP", "UNKNOWN-USDT-SWAP", None, None),
    ],
)
def test_liquidated_contracts_are_resolved(
    instrument_type: str, instrument: str, base: str | None, quote: str | None
) -> None:
    event = liquidation(instrument_type, instrument)
    assert (event.size, event.base_size, event.quote_size) == ("2", base, quote)


@pytest.mark.parametrize(
    ("position", "order", "told"),
    [("long", "sell", "long"), ("net", "buy", "short"), ("net", "sell", "long"), ("net", "", None), ("", "", None)],
)
def test_in_net_mode_the_order_tells_the_side(position: str, order: str, told: str | None) -> None:
    event = liquidation("SWAP", "BTC-USDT-SWAP", posSide=position, side=order)
    assert (event.position_side, event.order_side) == (told, order or None)


def test_price_limits() -> None:
    assert [own_fields(event) for event in events_of("public.price-limit.constructed")] == [
        {"of": SWAP, "exchange_time": 1786541241000000, "is_enabled": False},
        {
            "of": SWAP,
            "exchange_time": 1786541241200000,
            "max_buy_price": "65100.5",
            "min_sell_price": "62700.1",
            "is_enabled": True,
        },
    ]
    (documented,) = events_of("public.price-limit")
    assert own_fields(documented) == {
        "of": ("okx", "futures", "LTC-USD-190628", None),
        "exchange_time": 1597026383085000,
        "max_buy_price": "200",
        "min_sell_price": "300",
        "is_enabled": True,
    }


def test_limits_that_do_not_tell_whether_they_are_enabled() -> None:
    row = {"instId": "BTC-USDT-SWAP", "buyLmt": "2", "sellLmt": "1", "ts": "1"}
    (event,) = normalizer().normalize(push("price-limit", "BTC-USDT-SWAP", row), RECEIVED)
    assert own_fields(event) == {"of": SWAP, "exchange_time": 1000, "max_buy_price": "2", "min_sell_price": "1"}


PUT = {
    "of": ("okx", "option", "BTC-USD-241013-70000-P", None),
    "exchange_time": 1728703155650000,
    "bid_implied_volatility": 0.0,
    "ask_implied_volatility": 1.1669998535,
    "mark_implied_volatility": 0.3675503331,
    "forward_price": "62604.6993093463",
    "delta": -0.9999672034,
    "gamma": 0.0000000002,
    "vega": 0.0000114332,
    "theta": 28.2649858387,
    "coin_delta": -1.1180902625,
    "coin_gamma": 2.2361957091,
    "coin_vega": 0.0000000001,
    "coin_theta": 0.0000032334,
    "leverage": "8.465747567",
    "atm_implied_volatility": 0.2044711229,
}


def test_option_summaries() -> None:
    put, call = (own_fields(event) for event in events_of("public.opt-summary.constructed"))
    assert put == PUT
    assert "ask_implied_volatility" not in call
    assert (call["of"][2], call["delta"], call["coin_delta"]) == ("BTC-USD-241013-70000-C", 0.0000327, 0.0000012)
    assert [own_fields(event) for event in events_of("public.opt-summary")] == [PUT]


@pytest.mark.parametrize("volatility", ["much", "1_0", "nan", [], {}])
def test_a_volatility_that_is_no_number_is_a_bad_message(volatility: Any) -> None:
    row = {"instId": "BTC-USD-241013-70000-P", "ts": "1", "realVol": volatility}
    with pytest.raises(BadMessage, match="opt-summary"):
        normalizer().normalize(push("opt-summary", "", row), RECEIVED)


def test_estimated_prices() -> None:
    assert [own_fields(event) for event in events_of("public.estimated-price.constructed")] == [
        {
            "of": ("okx", "option", "BTC-USD-261225-50000-C", "BTC-USD-20261225-50000-C"),
            "exchange_time": 1786541241000000,
            "price": "63900.12",
            "settlement_type": "exercise",
        },
        {
            "of": ("okx", "futures", "BTC-USD-261225", "BTC-USD-20261225"),
            "exchange_time": 1786541241000000,
            "price": "63900.12",
            "settlement_type": "delivery",
        },
    ]
    (documented,) = events_of("public.estimated-price")
    assert own_fields(documented) == {
        "of": ("okx", "futures", "XRP-USDT-250307", None),
        "exchange_time": 1741244598708000,
        "price": "2.4230631578947368",
        "settlement_type": "settlement",
    }


def test_adl_warnings_tell_the_fund_too() -> None:
    fund = {
        "of": ("okx", "futures", None, None),
        "exchange_time": 1700210763001000,
        "pool": "BTC-USDT",
        "balance": "280784384.9564228289548144",
    }
    alert, balance = events_of("public.adl-warning")
    assert own_fields(alert) == fund | {"state": "warning", "is_active": False}
    assert own_fields(balance) == fund | {"is_snapshot": False}
    alert, balance = events_of("public.adl-warning.constructed")
    assert isinstance(alert, AdlAlert)
    assert (alert.state, alert.is_active, alert.balance) == ("adl", True, "1000000.5")
    assert balance.KIND == "insurance_fund"


def test_a_warning_without_a_balance_tells_nothing_of_the_fund() -> None:
    row = {"instType": "SWAP", "instFamily": "BTC-USD", "state": "pos_adl_start", "bal": "", "ts": "1"}
    (alert,) = normalizer().normalize(push("adl-warning", "", row), RECEIVED)
    assert isinstance(alert, AdlAlert)
    assert (alert.state, alert.is_active, alert.balance) == ("pos_adl_start", None, None)


def test_statuses() -> None:
    common = {
        "of": ("okx", "system", None, None),
        "exchange_time": 1786541241000000,
        "system": "unified",
    }
    assert [own_fields(event) for event in events_of("public.status.constructed")] == [
        common
        | {
            "state": "ongoing",
            "title": "Trading service maintenance",
            "begin_time": 1786541241000000,
            "end_time": 1786543041000000,
            "pre_open_time": 1786542741000000,
            "service_types": ("5",),
            "maintenance_type": "1",
            "environment": "1",
        },
        common
        | {
            "state": "canceled",
            "title": "Trading account WebSocket system upgrade",
            "begin_time": 1672823400000000,
            "end_time": 1672825980000000,
            "description": "Rescheduled from 2026-08-12T16:30:00.000Z to 2026-08-13T16:30:00.000Z",
            "service_types": ("0",),
            "maintenance_type": "2",
            "environment": "2",
        },
    ]
    (documented,) = events_of("public.status")
    assert own_fields(documented)["state"] == "completed"


def test_a_status_may_have_a_page() -> None:
    row = {"title": "t", "state": "s", "ts": "1", "href": "https://example.com"}
    (event,) = normalizer().normalize(push("status", "", row), RECEIVED)
    assert own_fields(event)["href"] == "https://example.com"


@pytest.mark.parametrize("channel", ["liquidation-orders", "adl-warning", "status", "estimated-price", "opt-summary"])
def test_public_events_name_no_account_on_a_private_stream(channel: str) -> None:
    reader = VENUE.normalizer("private", "c#1", {}, account="main")
    row: dict[str, Any] = {"instType": "SWAP", "instId": "A-USDT-SWAP", "ts": "1", "title": "t", "state": "s"}
    row |= {"settlePx": "1", "details": [{"sz": "1", "ts": "1"}]}
    (event,) = reader.normalize(push(channel, "", row), RECEIVED)
    assert event.origin.account is None
