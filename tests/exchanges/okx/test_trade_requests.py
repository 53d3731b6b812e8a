"""What goes to the venue, byte by byte, what does not, and what it costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.okx import trade_requests
from pipeline.exchanges.okx.trade_requests import EXTRAS, costs, frame, problems
from pipeline.exchanges.trading import TradeItem, TradeRequest
from pipeline.model.orders import AMEND, CANCEL, CREATE, MASS_CANCEL
from tests.exchanges.okx.samples import sample
from tests.exchanges.okx.trade_items import (
    MARGIN,
    OPTION,
    SPOT,
    SWAP,
    TRADING,
    item,
    limit_order,
    listed,
    market_order,
    request,
)


def args(made: TradeRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(frame(made))["args"]
    return found


def asked(entry: TradeItem, action: str = CREATE) -> dict[str, Any]:
    assert problems(action, entry) == []
    (found,) = args(request(entry, action=action))
    return found


def refused(entry: TradeItem, action: str = CREATE) -> list[str]:
    return [field for field, _ in problems(action, entry)]


def amendment(**changes: Any) -> TradeItem:
    return item(listed(SWAP), **{"client_order_id": "a1", "size": "2", **changes})


def test_a_new_order() -> None:
    entry = limit_order(
        extras={"ccy": "USDT", "tag": "pipeline", "stpMode": "cancel_maker"}, position_side="long", is_reduce_only=True
    )
    assert problems(CREATE, entry) == []
    assert frame(request(entry)) == (
        '{"id":"1512","op":"order","expTime":"1786541246000","args":[{"instIdCode":10458,"tdMode":"cross",'
        '"clOrdId":"arb1001","side":"buy","posSide":"long","ordType":"limit","px":"63900.10","sz":"3",'
        '"reduceOnly":true,"ccy":"USDT","tag":"pipeline","stpMode":"cancel_maker"}]}'
    )


def test_new_orders_of_the_manual() -> None:
    (line,) = sample("trade.order.request.constructed")
    wanted = json.loads(line)
    entry = limit_order(price="63900", extras={"ccy": "USDT", "tag": "pipeline", "stpMode": "cancel_maker"})
    made = json.loads(frame(request(entry)))
    # The manual writes out what is so by default.
    assert wanted["args"][0].pop("posSide") == "net"
    assert wanted["args"][0].pop("reduceOnly") is False
    assert made == wanted
    (line,) = sample("trade.order.request")
    (wanted,) = json.loads(line)["args"]
    entry = market_order(listed(SWAP), size="100", margin_mode="isolated")
    assert asked(entry) == {**wanted, "clOrdId": "arb1001"}


def test_a_batch_of_new_orders() -> None:
    first, second = (market_order(listed(SPOT, code), client_order_id=f"c{code}") for code in (123456, 654321))
    assert frame(request(first, second, name="1513")) == (
        '{"id":"1513","op":"batch-orders","expTime":"1786541246000","args":['
        '{"instIdCode":123456,"tdMode":"cash","clOrdId":"c123456","side":"buy","ordType":"market","sz":"3","tgtCcy":"base_ccy"},'
        '{"instIdCode":654321,"tdMode":"cash","clOrdId":"c654321","side":"buy","ordType":"market","sz":"3","tgtCcy":"base_ccy"}]}'
    )


def test_cancels_are_the_manuals() -> None:
    entry = item(listed(SWAP), order_id="2510789768709120")
    assert problems(CANCEL, entry) == []
    assert [frame(request(entry, action=CANCEL, name="1514")).encode()] == sample("trade.cancel-order.request")
    pair = (
        item(listed(SWAP), order_id="2517748157541376"),
        item(listed(SWAP, 654321), order_id="2517748155771904"),
    )
    made = frame(request(*pair, action=CANCEL, name="1515"))
    assert [made.encode()] == sample("trade.batch-cancel-orders.request")


def test_amendments_are_the_manuals_with_a_deadline() -> None:
    def without_deadline(made: str) -> bytes:
        return made.replace('"expTime":"1786541246000",', "").encode()

    entry = item(listed(SWAP), order_id="2510789768709120", size="2")
    assert problems(AMEND, entry) == []
    assert frame(request(entry, action=AMEND)).startswith('{"id":"1512","op":"amend-order","expTime":"1786541246000",')
    assert [without_deadline(frame(request(entry, action=AMEND)))] == sample("trade.amend-order.request")
    pair = [item(listed(SWAP), order_id=name, size="2") for name in ("12345689", "12344")]
    made = frame(request(*pair, action=AMEND, name="1513"))
    assert [without_deadline(made)] == sample("trade.batch-amend-orders.request")


def test_a_mass_cancel_is_the_manuals() -> None:
    made = frame(request(action=MASS_CANCEL, market="option", family="BTC-USD"))
    assert [made.encode()] == sample("trade.mass-cancel.request")


def test_a_deadline_is_never_later_than_told() -> None:
    assert json.loads(frame(request(limit_order())))["expTime"] == "1786541246000"  # of …246.000999


def test_an_order_is_named_by_the_venues_number_if_there_is_one() -> None:
    assert asked(item(listed(SWAP), client_order_id="a1"), CANCEL) == {"instIdCode": 123456, "clOrdId": "a1"}
    both = item(listed(SWAP), client_order_id="a1", order_id="7")
    assert asked(both, CANCEL) == {"instIdCode": 123456, "ordId": "7"}


def test_an_amendment_of_the_price() -> None:
    entry = amendment(size="2.50", price="1.20", extras={"reqId": "r1", "cxlOnFail": "true"})
    assert asked(entry, AMEND) == {
        "instIdCode": 123456,
        "clOrdId": "a1",
        "newSz": "2.50",
        "newPx": "1.20",
        "reqId": "r1",
        "cxlOnFail": True,
    }


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "limit"),
        ({"time_in_force": "gtc"}, "limit"),
        ({"is_post_only": True}, "post_only"),
        ({"time_in_force": "ioc"}, "ioc"),
        ({"time_in_force": "fok"}, "fok"),
        ({"order_type": "market", "price": None}, "market"),
        ({"order_type": "market", "price": None, "time_in_force": "ioc"}, "optimal_limit_ioc"),
        ({"order_type": "market", "price": None, "extras": {"ordType": "optimal_limit_ioc"}}, "optimal_limit_ioc"),
        ({"extras": {"ordType": "mmp"}}, "mmp"),
        ({"extras": {"ordType": "mmp_and_post_only"}, "is_post_only": True}, "mmp_and_post_only"),
        ({"extras": {"ordType": "op_fok"}, "time_in_force": "fok"}, "op_fok"),
        ({"extras": {"ordType": "rpi"}}, "rpi"),
    ],
)
def test_one_word_for_type_time_in_force_and_post_only(fields: dict[str, Any], word: str) -> None:
    assert asked(limit_order(**fields))["ordType"] == word


@pytest.mark.parametrize(
    "fields",
    [
        {"order_type": "stop"},
        {"time_in_force": "gtd"},
        {"is_post_only": True, "time_in_force": "ioc"},
        {"order_type": "market", "price": None, "time_in_force": "gtc"},
        {"order_type": "market", "price": None, "time_in_force": "fok"},
        {"order_type": "market", "price": None, "is_post_only": True},
        # What the order says of itself is what is checked: the extras must not make another one of it.
        {"extras": {"ordType": "optimal_limit_ioc"}},
        {"extras": {"ordType": "market"}},
        {"extras": {"ordType": "op_fok"}, "time_in_force": "ioc"},
        {"extras": {"ordType": "mmp"}, "is_post_only": True},
    ],
)
def test_combinations_that_okx_has_no_word_for(fields: dict[str, Any]) -> None:
    assert refused(limit_order(**fields)) == ["order_type"]


def test_a_market_order_for_coins_at_once_or_never_is_a_plain_one() -> None:
    assert asked(market_order(listed(SPOT), time_in_force="ioc"))["ordType"] == "market"


def test_options_have_no_market_orders() -> None:
    assert refused(market_order(listed(OPTION))) == ["order_type"]


@pytest.mark.parametrize(
    ("name", "given", "mode"),
    [
        (SPOT, None, "cash"),
        (SWAP, None, "cross"),
        (OPTION, None, "cross"),
        (MARGIN, None, "cross"),
        (SWAP, "isolated", "isolated"),
        (SPOT, "cross", "cross"),
        (SPOT, "spot_isolated", "spot_isolated"),
    ],
)
def test_trade_modes(name: str, given: str | None, mode: str) -> None:
    assert asked(limit_order(listed(name), margin_mode=given))["tdMode"] == mode


@pytest.mark.parametrize(
    ("side", "unit", "told"), [("buy", None, "base_ccy"), ("buy", "quote", "quote_ccy"), ("sell", "base", "base_ccy")]
)
def test_the_unit_of_a_spot_market_order_is_always_told(side: str, unit: str | None, told: str) -> None:
    assert asked(market_order(listed(SPOT), side=side, size_unit=unit))["tgtCcy"] == told


@pytest.mark.parametrize(
    ("entry", "good"),
    [
        (limit_order(listed(SPOT), size_unit="base"), True),
        (limit_order(listed(SPOT), size_unit="quote"), False),
        (limit_order(size_unit="contract"), True),
        (limit_order(size_unit="base"), False),
        (market_order(size_unit="quote"), False),
        (market_order(listed(SPOT), size_unit="contract"), False),
        # On margin a purchase at market is counted in quote currency, whatever is told.
        (market_order(listed(SPOT), margin_mode="cross"), False),
        (market_order(listed(SPOT), margin_mode="cross", size_unit="quote"), True),
        (market_order(listed(MARGIN), size_unit="base"), False),
        (market_order(listed(MARGIN), side="sell"), True),
        (market_order(listed(MARGIN), side="sell", size_unit="quote"), False),
    ],
)
def test_a_size_in_another_unit_than_okx_takes_is_refused(entry: TradeItem, good: bool) -> None:
    assert refused(entry) == ([] if good else ["size_unit"])
    if good:
        assert "tgtCcy" not in asked(entry) or entry.instrument.size_unit == "base"


def test_an_amendment_in_another_unit_is_refused() -> None:
    assert refused(amendment(size_unit="base"), AMEND) == ["size_unit"]
    assert refused(amendment(size_unit="contract"), AMEND) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"client_order_id": None}, "client_order_id"),
        ({"client_order_id": "a-1"}, "client_order_id"),
        ({"client_order_id": "a_1"}, "client_order_id"),
        ({"client_order_id": ""}, "client_order_id"),
        ({"client_order_id": "a" * 33}, "client_order_id"),
        ({"client_order_id": "ä1"}, "client_order_id"),
        ({"client_order_id": "a1\n"}, "client_order_id"),
        ({"order_id": "7x"}, "order_id"),
        ({"side": None}, "side"),
        ({"side": "Buy"}, "side"),
        ({"price": None}, "price"),
        ({"order_type": "market"}, "price"),
        ({"size": None}, "size"),
        ({"margin_mode": "portfolio"}, "margin_mode"),
        ({"position_side": "net"}, "position_side"),
        ({"trigger_price": "5"}, "trigger_price"),
        ({"price": "1" * 65}, "price"),
        ({"size": "0." + "0" * 64}, "size"),
        ({"extras": {"tag": "t" * 65}}, "extras.tag"),
        ({"extras": {"tgtCcy": "quote_ccy"}}, "extras.tgtCcy"),
        ({"extras": {"px": "1"}}, "extras.px"),
        ({"extras": {"pxVol": "1"}}, "extras.pxVol"),
        ({"extras": {"instIdCode": "1"}}, "extras.instIdCode"),
        ({"extras": {"banAmend": "yes"}}, "extras.banAmend"),
    ],
)
def test_what_okx_could_not_take(fields: dict[str, Any], field: str) -> None:
    assert refused(limit_order(**fields)) == [field]


def test_what_okx_would_not_honour_is_refused() -> None:
    assert refused(limit_order(listed(SPOT), is_reduce_only=True)) == ["is_reduce_only"]
    assert refused(limit_order(listed(OPTION), is_reduce_only=True)) == ["is_reduce_only"]
    assert asked(limit_order(listed(SPOT), is_reduce_only=True, margin_mode="cross"))["reduceOnly"] is True
    assert refused(limit_order(listed(SPOT), position_side="long")) == ["position_side"]


@pytest.mark.parametrize("action", [CREATE, AMEND, CANCEL])
def test_an_instrument_without_a_code_cannot_be_traded(action: str) -> None:
    entry = limit_order(listed(SWAP, None))
    assert problems(action, entry) == [("instrument", "the venue gives no code")]


def test_changes_must_name_an_order() -> None:
    for action in (AMEND, CANCEL):
        assert refused(amendment(client_order_id=None), action) == ["client_order_id"]
        assert refused(amendment(client_order_id=None, order_id="1"), action) == []
        assert refused(amendment(order_id="-1"), action) == ["order_id"]
    assert refused(item(listed(SWAP), client_order_id="a1"), AMEND) == ["size"]
    assert refused(amendment(trigger_price="1"), AMEND) == ["trigger_price"]
    assert refused(amendment(extras={"newPxVol": "1"}), AMEND) == ["extras.newPxVol"]
    assert refused(amendment(extras={"reqId": "1"}), CANCEL) == ["extras.reqId"]


def test_every_extra_goes_out_in_its_type() -> None:
    texts = {name: "true" if kind is bool else "0" for name, kind in EXTRAS[CREATE].items() if name != "ordType"}
    made = asked(limit_order(extras=texts))
    for name, kind in EXTRAS[CREATE].items():
        if name != "ordType":
            assert type(made[name]) is kind


def test_what_single_orders_cost() -> None:
    order = request(limit_order())
    assert [(cost.key, cost.rate.count, cost.units) for cost in costs(order)] == [
        ("order BTC-USDT-SWAP", 60, 1),
        (trade_requests.ACCOUNT_BUDGET, 1000, 1),
    ]
    spot = limit_order(listed(SPOT))
    assert [cost.key for cost in costs(request(spot))] == ["order BTC-USDT"]
    option = limit_order(listed(OPTION))
    assert costs(request(option))[0].key == "order BTC-USD"
    assert [cost.key for cost in costs(request(option, action=CANCEL))] == ["cancel-order BTC-USD"]
    assert [cost.key for cost in costs(request(option, action=AMEND))] == [
        "amend-order BTC-USD",
        trade_requests.ACCOUNT_BUDGET,
    ]


def test_a_batch_costs_by_orders_and_instruments() -> None:
    made = request(*(limit_order(entry) for entry in (listed(OPTION), listed(OPTION), listed(SWAP))))
    assert [(cost.key, cost.rate.count, cost.units) for cost in costs(made)] == [
        ("batch-orders BTC-USD", 300, 2),
        ("batch-orders BTC-USDT-SWAP", 300, 1),
        (trade_requests.ACCOUNT_BUDGET, 1000, 3),
    ]


def test_two_orders_are_a_batch() -> None:
    made = request(limit_order(), limit_order(), action=CANCEL)
    assert [(cost.key, cost.rate.count, cost.units) for cost in costs(made)] == [
        ("batch-cancel-orders BTC-USDT-SWAP", 300, 2)
    ]


def test_a_mass_cancel_costs_little() -> None:
    made = request(action=MASS_CANCEL, market="option", family="BTC-USD")
    assert [(cost.key, cost.rate.count, cost.units) for cost in costs(made)] == [("mass-cancel", 5, 1)]


def test_budgets_are_no_faster_than_the_venues() -> None:
    for made in (request(limit_order()), request(limit_order(), limit_order()), request(action=MASS_CANCEL)):
        assert all(cost.rate.seconds > 2 and cost.units <= cost.rate.count for cost in costs(made))


def mostly(*good: str | None) -> st.SearchStrategy[str | None]:
    return st.sampled_from(good * 4 + ("", "1", "Buy")) | st.sampled_from(good) | st.sampled_from(good) | st.text()


@given(
    st.sampled_from([CREATE, AMEND, CANCEL]),
    st.sampled_from([SPOT, MARGIN, SWAP, OPTION]),
    st.fixed_dictionaries(
        {
            "client_order_id": mostly("a1", None),
            "order_id": mostly("7", None),
            "side": mostly("buy", "sell"),
            "order_type": mostly("limit", "market"),
            "size": st.sampled_from(["1.0", "0.50"]),
        },
        optional={
            "time_in_force": mostly("gtc", "ioc", "fok", None),
            "size_unit": mostly("base", "quote", "contract", None),
            "position_side": mostly("long", None),
            "margin_mode": mostly("cash", "cross", "isolated", None),
            "is_post_only": st.booleans(),
            "is_reduce_only": st.booleans(),
            "price": st.sampled_from(["1.0", "0.50"]),
            "extras": st.dictionaries(st.sampled_from(sorted(EXTRAS[CREATE])) | st.text(), st.text(), max_size=2),
        },
    ),
)
def test_an_order_is_refused_or_goes_out_as_it_is(action: str, name: str, fields: dict[str, Any]) -> None:
    entry = item(listed(name), **fields)
    if problems(action, entry):
        return
    (made,) = args(request(entry, action=action))
    assert None not in made.values()
    assert made["instIdCode"] == 123456
    assert made.get("sz", made.get("newSz")) == (None if action == CANCEL else entry.item.size)
    assert made.get("px", made.get("newPx")) == (None if action == CANCEL else entry.item.price)
    assert made.get("side") == (entry.item.side if action == CREATE else None)
    assert ("clOrdId" in made) != ("ordId" in made)


def test_batches() -> None:
    assert {TRADING.batch(action, "swap") for action in (CREATE, AMEND, CANCEL)} == {20}
    assert (TRADING.batch(MASS_CANCEL, "option"), TRADING.batch(MASS_CANCEL, "swap")) == (1, 0)
