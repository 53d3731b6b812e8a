"""What order entry asks over REST: single orders, prices, and to cancel everything when we are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import inf, nan
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.accounts import Post, Requests, Steps
from pipeline.exchanges.trading import TradeItem
from pipeline.model.account import Order
from pipeline.model.errors import BadMessage, Refused, Retryable, SessionError
from pipeline.model.events import Instrument
from tests.exchanges.okx.samples import CATALOGUE, VENUE, sample
from tests.exchanges.okx.trade_items import MARGIN, OPTION, SPOT, SWAP, TRADING, item, limit_order, listed

T = TypeVar("T")

NOTHING = b'{"code":"0","msg":"","data":[]}'
UNKNOWN = b'{"code":"51603","msg":"Order does not exist","data":[]}'
NO_INSTRUMENT = b'{"code":"51001","msg":"Instrument ID does not exist","data":[]}'
ORDER, CLOSED = "/api/v5/trade/order", "/api/v5/trade/orders-history"
MARK, TICKER = "/api/v5/public/mark-price", "/api/v5/market/ticker"


def drive(steps: Steps[T] | Requests[T], answers: Iterable[bytes]) -> tuple[T, list[Any]]:
    """The result of the steps and what they asked for: paths with their parameters, or POSTs."""
    asked: list[Any] = []
    waiting = iter(answers)
    try:
        ask = next(steps)
        while True:
            if isinstance(ask, Post):
                asked.append(ask)
            else:
                parts = urlsplit(ask)
                asked.append((parts.path, dict(parse_qsl(parts.query))))
            ask = steps.send(next(waiting))
    except StopIteration as end:
        assert list(waiting) == []
        return end.value, asked


def find(entry: TradeItem, *bodies: bytes) -> tuple[Order | None, list[Any]]:
    return drive(TRADING.finder("main", "okx.main.trade#1", CATALOGUE)(entry), bodies)


def rows(*changes: dict[str, Any]) -> bytes:
    (example,) = json.loads(sample("rest.trade.order")[0])["data"]
    return json.dumps({"code": "0", "msg": "", "data": [{**example, **change} for change in changes]}).encode()


def test_it_is_offered_on_the_private_path_of_every_environment() -> None:
    assert TRADING.endpoint == "private"
    assert list(TRADING.environments) == list(VENUE.environments)


def test_an_order_is_found_by_its_client_order_id() -> None:
    body = rows({"clOrdId": "arb1001", "instId": SWAP, "instType": "SWAP", "tgtCcy": ""})
    order, asked = find(limit_order(), body)
    assert asked == [(ORDER, {"instId": SWAP, "clOrdId": "arb1001"})]
    assert order is not None
    assert (order.origin.account, order.origin.connection, order.origin.symbol) == (
        "main",
        "okx.main.trade#1",
        "BTC-USDT-PERP",
    )
    assert (order.order_id, order.client_order_id, order.status) == ("680800019749904384", "arb1001", "filled")
    assert order.is_snapshot


def test_an_order_is_found_by_the_venues_number_if_there_is_one() -> None:
    order, asked = find(item(listed(SPOT), client_order_id="a", order_id="680800019749904384"), rows({}))
    assert asked == [(ORDER, {"instId": SPOT, "ordId": "680800019749904384"})]
    assert order is not None


def test_a_closed_order_is_found_among_others() -> None:
    body = rows({"clOrdId": "other"}, {"clOrdId": "arb1001", "ordId": "7", "instId": SWAP, "instType": "SWAP"})
    order, asked = find(limit_order(), UNKNOWN, body)
    assert asked[1:] == [(CLOSED, {"instType": "SWAP", "instId": SWAP, "limit": "100"})]
    assert order is not None
    assert order.order_id == "7"


def test_a_closed_order_for_coins_may_have_been_on_margin() -> None:
    entry = limit_order(listed(SPOT))
    order, asked = find(entry, UNKNOWN, rows({"clOrdId": "other"}), rows({"clOrdId": "arb1001", "instType": "MARGIN"}))
    assert [params["instType"] for path, params in asked if path == CLOSED] == ["SPOT", "MARGIN"]
    assert order is not None
    assert order.origin.market == "margin"


def test_an_order_that_okx_does_not_know() -> None:
    assert find(limit_order(), UNKNOWN, NOTHING)[0] is None
    assert find(limit_order(), NOTHING, rows({"clOrdId": "ARB1001"}))[0] is None
    assert find(limit_order(listed(SPOT)), UNKNOWN, NOTHING, NOTHING)[0] is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"code":"50011","msg":"slow down","data":[]}', Retryable),
        (b'{"code":"50111","msg":"bad key","data":[]}', Refused),
        (b"<html>", BadMessage),
        (b'{"code":"0","data":[{}]}', BadMessage),
        (rows({"clOrdId": "arb1001", "accFillSz": "x", "state": "live", "tgtCcy": ""}), BadMessage),
    ],
)
def test_trouble_is_never_taken_for_an_unknown_order(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        find(limit_order(), body)
    with pytest.raises(error):
        find(limit_order(), UNKNOWN, body)


def price_of(instrument: Instrument, *bodies: bytes) -> tuple[str | None, list[Any]]:
    return drive(TRADING.reference_price(instrument), bodies)


def test_the_mark_price() -> None:
    price, asked = price_of(listed(SWAP), sample("rest.mark-price")[0])
    assert (price, asked) == ("200", [(MARK, {"instType": "SWAP", "instId": SWAP})])
    _, asked = price_of(listed(OPTION), sample("rest.mark-price")[0])
    assert asked == [(MARK, {"instType": "OPTION", "instId": OPTION})]


@pytest.mark.parametrize("name", [SPOT, MARGIN])
def test_coins_have_the_mark_price_of_margin_or_else_the_last_one(name: str) -> None:
    price, asked = price_of(listed(name), NO_INSTRUMENT, sample("rest.ticker")[0])
    assert price == "9999.99"
    assert asked == [(MARK, {"instType": "MARGIN", "instId": SPOT}), (TICKER, {"instId": SPOT})]


@pytest.mark.parametrize("none", [NOTHING, NO_INSTRUMENT, b'{"code":"0","data":[{"markPx":""}]}'])
def test_no_price_at_all(none: bytes) -> None:
    assert price_of(listed(SWAP), none, NOTHING)[0] is None
    assert price_of(listed(SWAP), none, b'{"code":"0","data":[{"last":""}]}')[0] is None
    assert price_of(listed(SWAP), none, b'{"code":"0","data":[{"last":"0.00"}]}')[0] is None


def test_a_price_that_is_no_number_is_not_used() -> None:
    with pytest.raises(BadMessage, match="markPx"):
        price_of(listed(SWAP), b'{"code":"0","data":[{"markPx":"NaN"}]}')
    with pytest.raises(Retryable):
        price_of(listed(SWAP), b'{"code":"50011","msg":"slow down","data":[]}')


def test_arming() -> None:
    taken = b'{"code":"0","msg":"","data":[{"triggerTime":"1587971460","tag":"","ts":"1587971400"}]}'
    _, asked = drive(TRADING.arm(60.0, ("swap",)), [taken])
    assert asked == [Post("/api/v5/trade/cancel-all-after", b'{"timeOut":"60"}')]
    _, asked = drive(TRADING.arm(None, ("swap",)), [taken])
    assert asked == [Post("/api/v5/trade/cancel-all-after", b'{"timeOut":"0"}')]


def test_arming_that_was_not_taken_is_noticed() -> None:
    with pytest.raises(Refused, match="51000"):
        drive(TRADING.arm(60.0, ()), [b'{"code":"51000","msg":"Parameter timeOut error","data":[]}'])
    with pytest.raises(BadMessage):
        drive(TRADING.arm(60.0, ()), [NOTHING])


@pytest.mark.parametrize("seconds", [10.0, 60.0, 120.0])
def test_times_to_arm_for(seconds: float) -> None:
    assert TRADING.arm_problems(seconds, (), ("swap",)) == []
    assert TRADING.arm_every(seconds) == seconds / 3


@pytest.mark.parametrize("seconds", [0.0, 9.0, 121.0, 10.5, inf, nan, -20.0])
def test_times_that_okx_does_not_take(seconds: float) -> None:
    assert len(TRADING.arm_problems(seconds, ("orders",), ("swap",))) == 1


@given(st.binary(max_size=100) | st.just(NOTHING), st.binary(max_size=100))
def test_any_body_is_an_answer_or_an_error_that_is_expected(first: bytes, second: bytes) -> None:
    for steps in (TRADING.reference_price(listed(SWAP)), TRADING.finder("main", "c", CATALOGUE)(limit_order())):
        try:
            drive(steps, [first, second])
        except (BadMessage, SessionError):
            continue
        except StopIteration:
            raise AssertionError("it asked for more than it should") from None
