from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.trading import TradeItem
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument
from pipeline.model.orders import AMEND, CANCEL, CANCEL_ALL, CREATE, MASS_CANCEL, OrderItem
from pipeline.orders.guards import Facts, Refusal, check, check_scope
from pipeline.orders.open_orders import KnownOrder
from pipeline.orders.settings import AccountOrderSettings
from tests.orders.samples import instrument, item, named

ANY = dict.fromkeys(("linear", "spot", "inverse", "option", "swap"), ("*",))
SETTINGS = AccountOrderSettings(ANY, DecimalText("1000000"))
FACTS = Facts(reference_price=DecimalText("65000"))
SPOT = instrument(market="spot", kind="spot", min_value="5", tick_size="0.01", lot_size="0.000001", min_size="0.00001")
SWAP = instrument(
    "BTC-USDT-SWAP", "swap", size_unit="contract", contract_value="0.01", contract_currency="BTC", lot_size="0.1"
)
INVERSE = instrument(
    "BTCUSD",
    "inverse",
    size_unit="quote",
    contract_value="1",
    contract_currency="USD",
    quote="USD",
    settle="BTC",
    is_inverse=True,
    lot_size="1",
    min_size="1",
    max_limit_size="100000000",
    min_value=None,
)
INVERSE_SWAP = msgspec.structs.replace(INVERSE, size_unit="contract", contract_value=DecimalText("100"))
COIN_OPTION = instrument(
    "BTC-USD-260327-70000-C",
    "option",
    kind="option",
    size_unit="contract",
    contract_value="0.01",
    contract_currency="BTC",
    quote="USD",
    settle="BTC",
    strike="70000",
    tick_size="0.0001",
    lot_size="1",
    min_size="1",
    min_price=None,
    min_value=None,
)


def refusal(
    wanted: OrderItem | None = None,
    action: str = CREATE,
    facts: Facts = FACTS,
    at: Instrument | None = None,
    **changes: Any,
) -> Refusal | None:
    at = at or instrument()
    given = wanted or item()
    given = attrs.evolve(given, market=at.origin.market, instrument=str(at.origin.instrument))
    return check(action, TradeItem(given, at), facts, attrs.evolve(SETTINGS, **changes))


def rule(*arguments: Any, **named: Any) -> str | None:
    found = refusal(*arguments, **named)
    return None if found is None else found.rule


def test_a_good_order_passes() -> None:
    assert refusal() is None


@pytest.mark.parametrize(
    ("action", "market", "name", "expected"),
    [
        (CANCEL_ALL, None, None, None),
        (CANCEL_ALL, "linear", None, None),
        (CANCEL_ALL, "linear", "BTCUSDT", None),
        (CANCEL_ALL, "Linear", None, "bybit has no market Linear that is known"),
        (CANCEL_ALL, "option", "BTCUSDT", "bybit option has no instrument BTCUSDT that is known"),
        (MASS_CANCEL, "option", "BTC-USD", None),
        (MASS_CANCEL, "option", "BTC", "bybit option has no family BTC that is known"),
        (MASS_CANCEL, "linear", "BTC-USD", "bybit linear has no family BTC-USD that is known"),
        (MASS_CANCEL, "swap", "BTC-USD", "bybit has no market swap that is known"),
    ],
)
def test_what_is_cancelled_as_a_whole_has_to_be_there(
    action: str, market: str | None, name: str | None, expected: str | None
) -> None:
    option = instrument("BTC-USD-261225-60000-C", "option", underlying="BTC-USD")
    catalogue = {("linear", "BTCUSDT"): instrument(), ("option", "BTC-USD-261225-60000-C"): option}
    refusal = check_scope(action, market, name, "bybit", catalogue)
    assert refusal == (None if expected is None else Refusal("instrument", expected))


def test_nothing_holds_a_cancellation_up() -> None:
    halted = instrument(is_tradable=False)
    facts = Facts(is_killed=True, open_orders=1_000)
    assert refusal(named(), CANCEL, facts, halted, instruments={}) is None


@pytest.mark.parametrize("action", [CREATE, AMEND])
def test_the_kill_switch_comes_first(action: str) -> None:
    found = refusal(item(price="1"), action, Facts(is_killed=True))
    assert found == Refusal("kill_switch", f"the kill switch is on: no {action} until it is resumed", "retryable")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"linear": ("BTCUSDT",)}, None),
        ({"linear": ("ETH*", "BTC*")}, None),
        ({"linear": ("ETH*",)}, "instrument"),
        ({"linear": ("btcusdt",)}, "instrument"),
        ({"spot": ("*",)}, "instrument"),
        ({}, "instrument"),
    ],
)
def test_instruments_have_to_be_allowed(patterns: dict[str, tuple[str, ...]], expected: str | None) -> None:
    assert rule(instruments=patterns) == expected
    assert rule(named(price="65000"), AMEND, instruments=patterns) == expected


def test_an_instrument_has_to_be_traded() -> None:
    found = refusal(at=instrument(is_tradable=False, state="PreLaunch"))
    assert found == Refusal(
        "instrument", "linear BTCUSDT is not traded now: the venue calls its state PreLaunch", "retryable"
    )


@pytest.mark.parametrize(
    ("tick", "price", "expected"),
    [
        ("0.10", "65000.5", None),
        ("0.10", "65000.55", "tick_size"),
        ("0.05", "65000.55", None),
        ("5", "65003", "tick_size"),
        ("0.0000001", "65000.0000001", None),
        ("0.0000001", "65000.00000011", "tick_size"),
        (None, "65000.123456", None),
        ("0", "65000.123456", None),
    ],
)
def test_tick_size(tick: str | None, price: str, expected: str | None) -> None:
    assert rule(item(price=price), at=instrument(tick_size=tick)) == expected
    assert rule(named(price=price), AMEND, at=instrument(tick_size=tick)) == expected


def test_a_trigger_price_has_ticks_too() -> None:
    found = refusal(item(trigger_price="65000.55"))
    assert found == Refusal("tick_size", "trigger_price 65000.55 is not a multiple of 0.10")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("0.001", None),
        ("0.0015", "lot_size"),
        ("0.0010", None),
        ("0.0005", "lot_size"),
        ("15", None),
        ("15.001", "max_size"),
    ],
)
def test_sizes_of_limit_orders(size: str, expected: str | None) -> None:
    at = instrument(max_limit_size="15", min_value=None)
    assert rule(item(size=size), at=at) == expected
    assert rule(named(size=size), AMEND, at=at) == expected


def test_the_smallest_size() -> None:
    at = instrument(min_size="0.005", min_value=None)
    assert refusal(item(size="0.004"), at=at) == Refusal("min_size", "size 0.004 is below 0.005")
    assert refusal(item(size="0.005"), at=at) is None


def test_market_orders_have_another_largest_size() -> None:
    market = {"order_type": "market", "price": None}
    assert rule(item(size="10", **market)) is None
    assert rule(item(size="10.001", **market)) == "max_size"
    assert rule(item(size="10.001")) is None


def test_price_limits() -> None:
    at = instrument(min_price="64000", max_price="66000")
    assert refusal(item(price="63999.9"), at=at) == Refusal("price_limits", "price 63999.9 is below 64000")
    assert refusal(item(price="66000.1"), at=at) == Refusal("price_limits", "price 66000.1 is above 66000")
    assert refusal(item(price="66000"), at=at) is None
    assert refusal(item(price="64000"), at=at) is None


@pytest.mark.parametrize(
    ("price", "expected"),
    [("68250", None), ("68250.1", "price_band"), ("61750", None), ("61749.9", "price_band")],
)
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_the_band_is_on_either_side(side: str, price: str, expected: str | None) -> None:
    assert rule(item(price=price, side=side)) == expected
    assert rule(named(price=price), AMEND) == expected


@pytest.mark.parametrize("reference", [None, "0"])
def test_a_price_needs_one_to_be_held_against(reference: DecimalText | None) -> None:
    found = refusal(facts=Facts(reference_price=reference))
    assert found is not None
    assert (found.rule, found.error_class) == ("price_band", "retryable")


MARKET = {"order_type": "market", "price": None}


@pytest.mark.parametrize(
    ("at", "changes", "most"),
    [
        (instrument(), {"price": "65000", "size": "0.010"}, "650"),
        (instrument(), {"size": "0.010", **MARKET}, "650"),
        (SPOT, {"price": "65000", "size": "0.01"}, "650"),
        (SPOT, {"size": "650.123", "size_unit": "quote", **MARKET}, "650.123"),
        (SWAP, {"price": "65000", "size": "1"}, "650"),
        (SWAP, {"size": "1", **MARKET}, "650"),
        (INVERSE, {"price": "65000", "size": "650"}, "650"),
        (INVERSE_SWAP, {"price": "65000", "size": "7"}, "700"),
        (INVERSE_SWAP, {"size": "7", **MARKET}, "700"),
        (COIN_OPTION, {"price": "0.0500", "size": "2"}, "1400"),
    ],
)
def test_the_largest_value(at: Instrument, changes: dict[str, Any], most: str) -> None:
    at = msgspec.structs.replace(at, max_market_size=None)
    facts = Facts(reference_price=DecimalText("0.0500")) if at.kind == "option" else FACTS
    below = f"{most[:-1]}{int(most[-1]) - 1}" if most[-1] != "0" else f"{int(most) - 1}.9999999"
    assert rule(item(**changes), facts=facts, at=at, max_order_value=DecimalText(most)) is None
    assert rule(item(**changes), facts=facts, at=at, max_order_value=DecimalText(below)) == "max_order_value"


def test_a_market_order_needs_a_price_to_tell_its_value() -> None:
    found = refusal(item(**MARKET), facts=Facts())
    assert found is not None
    assert (found.rule, found.error_class) == ("max_order_value", "retryable")
    assert rule(item(size="7", **MARKET), facts=Facts(), at=INVERSE) is None, "whose size is its value"
    spot = item(size="7", size_unit="quote", **MARKET)
    assert rule(spot, facts=Facts(), at=SPOT) is None


def test_contracts_of_no_known_value() -> None:
    assert rule(at=instrument(size_unit="contract")) == "max_order_value"


def test_the_smallest_value() -> None:
    at = instrument(min_size=None, lot_size="0.00001")
    found = refusal(item(price="65000", size="0.00007"), at=at)
    assert found == Refusal("min_value", "value 4.55000 is below 5")
    assert refusal(item(price="65000", size="0.00007", is_reduce_only=True), at=at) is None
    assert refusal(item(price="65000", size="0.00008"), at=at) is None


@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (instrument(), {"size_unit": "contract"}),
        (instrument(), {"size_unit": "quote", **MARKET}),
        (SPOT, {"size_unit": "quote"}),
        (SWAP, {"size_unit": "base"}),
        (INVERSE, {"size_unit": "base"}),
    ],
)
def test_other_units_than_the_instruments(at: Instrument, changes: dict[str, Any]) -> None:
    assert rule(item(**changes), at=at) == "lot_size"


def test_open_orders_are_counted() -> None:
    facts = attrs.evolve(FACTS, open_orders=99)
    assert refusal(facts=facts) is None
    facts = attrs.evolve(FACTS, open_orders=100)
    why = "100 orders are open, max_open_orders is 100"
    assert refusal(facts=facts) == Refusal("max_open_orders", why, "retryable")
    assert refusal(named(price="65000"), AMEND, facts) is None, "an amendment opens none"


class TestAmendments:
    KNOWN = KnownOrder("linear", "BTCUSDT", "mine-1", "7", "limit", DecimalText("65000"), DecimalText("0.010"), "base")
    FACTS = attrs.evolve(FACTS, known_order=KNOWN)

    def test_the_known_rest_counts(self) -> None:
        most = DecimalText("650")
        assert rule(named(size="0.010"), AMEND, self.FACTS, max_order_value=most) is None
        assert rule(named(size="0.011"), AMEND, self.FACTS, max_order_value=most) == "max_order_value"
        assert rule(named(price="65000.1"), AMEND, self.FACTS, max_order_value=most) == "max_order_value"
        assert rule(named(price="64999.9"), AMEND, self.FACTS, max_order_value=most) is None

    def test_its_own_price_counts_more_than_the_mark(self) -> None:
        cheaper = attrs.evolve(FACTS, known_order=attrs.evolve(self.KNOWN, price=DecimalText("64000")))
        assert rule(named(size="0.010"), AMEND, cheaper, max_order_value=DecimalText("640")) is None

    def test_its_own_unit_counts(self) -> None:
        assert rule(named(size="1"), AMEND, self.FACTS, SWAP) == "lot_size"

    def test_the_known_unit_counts(self) -> None:
        inverse = attrs.evolve(self.KNOWN, size_unit="quote", size=DecimalText("600"))
        facts = attrs.evolve(FACTS, known_order=inverse)
        most = DecimalText("599")
        assert rule(named(price="65000"), AMEND, facts, INVERSE, max_order_value=most) == "max_order_value"

    def test_a_position_can_be_closed_for_less(self) -> None:
        at = instrument(min_size=None, lot_size="0.00001")
        assert rule(named(size="0.00007"), AMEND, self.FACTS, at) == "min_value"
        closing = attrs.evolve(FACTS, known_order=attrs.evolve(self.KNOWN, is_reduce_only=True))
        assert rule(named(size="0.00007"), AMEND, closing, at) is None

    def test_of_an_order_that_is_not_known(self) -> None:
        most = DecimalText("650")
        assert rule(named(price="65000"), AMEND, max_order_value=most) is None
        assert rule(named(size="0.010"), AMEND, max_order_value=most) is None
        assert rule(named(size="0.011"), AMEND, max_order_value=most) == "max_order_value", "by the reference price"
        assert rule(named(size="0.011", price="60000"), AMEND, max_order_value=most) == "price_band"


prices = st.decimals("0.0000001", "1e15", allow_nan=False, places=9).map(lambda number: DecimalText(f"{number:f}"))


@given(prices, prices, prices, prices)
def test_any_numbers_are_judged(
    price: DecimalText, size: DecimalText, step: DecimalText, reference: DecimalText
) -> None:
    at = instrument(tick_size=step, lot_size=step)
    found = refusal(item(price=price, size=size), facts=Facts(reference_price=reference), at=at)
    assert found is None or found.message
