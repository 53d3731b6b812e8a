"""Order entry beside the stream: where it is offered, orders looked up, prices to compare with, dead man's switch."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from math import inf
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from pipeline.exchanges.accounts import Post, T
from pipeline.exchanges.bybit.trading import BybitTrading
from pipeline.exchanges.bybit.venue import ENVIRONMENTS, PATHS, Bybit
from pipeline.exchanges.trading import TradeItem
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.model.events import Instrument
from pipeline.model.orders import AMEND, CREATE
from tests.exchanges.bybit.samples import PRIVATE_CONNECTION, body, catalogue, head
from tests.exchanges.bybit.trade_items import instrument, limit, request, trade

TRADING = BybitTrading()
NOW = 1_700_000_000_000
"""The venue's time in scripted answers, in milliseconds."""
OPEN, CLOSED = "/v5/order/realtime?category={}", "/v5/order/history?category={}"
ROW = json.loads(body("rest.order.realtime"))["result"]["list"][0] | {"orderLinkId": "c1"}
Asked = str | Post


def answer(*rows: Mapping[str, Any]) -> bytes:
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": {"list": rows}, "time": NOW}).encode()


def refusal(code: int, why: str = "why") -> bytes:
    return json.dumps({"retCode": code, "retMsg": why, "result": {}, "time": NOW}).encode()


def walk(steps: Generator[Asked, bytes, T] | Generator[str, bytes, T], answers: Callable[[Asked], bytes]) -> T:
    """The result of steps whose requests are answered like this."""
    try:
        asked: Asked = next(steps)
        while True:
            asked = steps.send(answers(asked))
    except StopIteration as end:
        value: T = end.value
        return value


def find(item: TradeItem, answers: Mapping[str, bytes]) -> tuple[list[str], Order | None]:
    """The paths that were asked for, and what was found; a path that nothing is scripted for has no rows."""
    paths: list[str] = []

    def respond(asked: Asked) -> bytes:
        assert isinstance(asked, str)
        paths.append(asked)
        return answers.get(asked, answer())

    return paths, walk(TRADING.finder("main", PRIVATE_CONNECTION, catalogue())(item), respond)


def paths_of(market: str, query: str) -> list[str]:
    kinds = ["", "&orderFilter=StopOrder", "&orderFilter=tpslOrder"] if market == "spot" else [""]
    states = [f"{OPEN}&{query}", f"{OPEN}&{query}&openOnly=1", f"{CLOSED}&{query}"]
    return [state.format(market) + kind for state in states for kind in kinds]


# Where, and how much.


def test_where_orders_can_be_entered() -> None:
    venue = Bybit()
    assert isinstance(venue.trading, BybitTrading)
    assert set(TRADING.environments) == set(ENVIRONMENTS) - {"demo"}
    assert PATHS[TRADING.endpoint] == "/v5/trade"
    assert venue.path(TRADING.endpoint, attrs.evolve(venue.session_times, max_active_time=60.0)) == (
        "/v5/trade?max_active_time=60s"
    )


def test_requests_are_judged_and_counted() -> None:
    assert TRADING.problems(CREATE, limit()) == []
    assert [field for field, _ in TRADING.problems(CREATE, limit("spread"))] == ["market"]
    assert TRADING.batch(CREATE, "option") == 20
    (one,) = TRADING.costs(request(AMEND, limit(), limit()))
    assert (one.key, one.units) == ("amend-batch futures", 2)


# Orders, looked up.


@pytest.mark.parametrize("market", ["linear", "inverse", "option", "spot"])
def test_an_order_that_nobody_knows(market: str) -> None:
    item = trade(market, client_order_id="c_1-x")
    symbol = item.item.instrument
    assert find(item, {}) == (paths_of(market, f"symbol={symbol}&orderLinkId=c_1-x"), None)


def test_orders_are_looked_up_by_the_name_that_means_them() -> None:
    by_order = trade(order_id="o/1")
    assert find(by_order, {})[0] == paths_of("linear", f"symbol=ETHUSDT&orderId={quote('o/1', safe='')}")
    both = trade(client_order_id="c1", order_id="o1")
    assert find(both, {})[0] == paths_of("linear", "symbol=ETHUSDT&orderLinkId=c1")
    odd = trade(symbol="A&B", order_id="o1")
    assert find(odd, {})[0][0] == f"{OPEN}&symbol=A%26B&orderId=o1".format("linear")


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_an_order_is_found_where_it_is(turn: int) -> None:
    paths = paths_of("linear", "symbol=ETHUSDT&orderLinkId=c1")
    asked, found = find(limit(), {paths[turn]: answer(ROW)})
    assert asked == paths[: turn + 1]
    assert found is not None
    assert (found.order_id, found.client_order_id) == ("fd4300ae-7847-404e-b947-b46980a4d140", "c1")
    assert (found.status, found.price, found.size, found.channel) == ("new", "1600.00", "0.10", "order")
    assert head(found)[:3] == ("bybit", "linear", "ETHUSDT")
    assert head(found)[4:] == ("main", PRIVATE_CONNECTION)


def test_an_order_is_found_by_the_venues_name() -> None:
    item = trade(order_id=ROW["orderId"])
    (path, *_) = paths_of("linear", f"symbol=ETHUSDT&orderId={ROW['orderId']}")
    found = find(item, {path: answer({**ROW, "orderId": "other"}, ROW)})[1]
    assert found is not None
    assert found.order_id == ROW["orderId"]


def test_a_rejected_order_is_found_as_one() -> None:
    path = paths_of("linear", "symbol=ETHUSDT&orderLinkId=c1")[2]
    row = {**ROW, "orderStatus": "Rejected", "rejectReason": "EC_PostOnlyWillTakeLiquidity"}
    found = find(limit(), {path: answer(row)})[1]
    assert found is not None
    assert (found.status, found.reject_reason) == ("rejected", "EC_PostOnlyWillTakeLiquidity")


def test_conditional_spot_orders_are_found_among_their_own() -> None:
    paths = paths_of("spot", "symbol=BTCUSDT&orderLinkId=c1")
    row = {**ROW, "symbol": "BTCUSDT", "orderStatus": "Untriggered"}
    asked, found = find(limit("spot", trigger_price="5"), {paths[1]: answer(row)})
    assert asked == paths[:2]
    assert found is not None
    assert (found.status, found.origin.market) == ("untriggered", "spot")


def test_answers_about_other_orders_say_nothing_about_this_one() -> None:
    """As if the venue had not taken the name into account: then no listing proves that there is no such order."""
    paths = paths_of("linear", "symbol=ETHUSDT&orderLinkId=c1")
    other = answer({**ROW, "orderLinkId": "c2"})
    with pytest.raises(BadMessage, match="the answer has other orders instead"):
        find(limit(), {paths[1]: other})
    asked, found = find(limit(), {paths[0]: other, paths[2]: answer(ROW)})
    assert asked == paths
    assert found is not None


@pytest.mark.parametrize(("code", "error"), [(10006, Retryable), (10005, Refused), (10016, Retryable)])
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_listing_that_is_not_given_is_never_an_empty_one(code: int, error: type[Exception], turn: int) -> None:
    path = paths_of("linear", "symbol=ETHUSDT&orderLinkId=c1")[turn]
    with pytest.raises(error, match=str(code)):
        find(limit(), {path: refusal(code)})


# Prices to compare with.


def price(market: str, body: bytes, symbol: str | None = None) -> DecimalText | None:
    paths: list[Asked] = []

    def respond(asked: Asked) -> bytes:
        paths.append(asked)
        return body

    entry: Instrument = instrument(market, symbol)
    found = walk(TRADING.reference_price(entry), respond)
    assert paths == [f"/v5/market/tickers?category={market}&symbol={entry.origin.instrument}"]
    return found


@pytest.mark.parametrize(
    ("market", "symbol", "wanted"),
    [
        ("inverse", "BTCUSD", "114898.43"),
        ("option", "BTC-30DEC22-18000-C", "0.00000009"),
        ("spot", "BTCUSDT", "20533.13"),
        ("spot", "ETHUSDT", None),
    ],
)
def test_documented_prices(market: str, symbol: str, wanted: str | None) -> None:
    assert price(market, body(f"rest.market.tickers.{market}"), symbol) == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"markPrice": "1.50", "lastPrice": "2"}, "1.50"),
        ({"markPrice": "", "lastPrice": "2"}, "2"),
        ({"markPrice": "0", "lastPrice": "2"}, "2"),
        ({"markPrice": "0.00", "lastPrice": "0"}, None),
        ({"lastPrice": None}, None),
        ({}, None),
    ],
)
def test_prices(fields: dict[str, object], wanted: str | None) -> None:
    assert price("linear", answer({"symbol": "ETHUSDT", **fields})) == wanted


@pytest.mark.parametrize("text", ["soon", "1,5", 5, "NaN", ["1"]])
def test_what_is_no_price(text: object) -> None:
    with pytest.raises(BadMessage, match="is no price"):
        price("linear", answer({"symbol": "ETHUSDT", "markPrice": text}))


def test_a_symbol_that_is_not_listed() -> None:
    with pytest.raises(Refused, match="10001"):
        price("linear", refusal(10001, "symbol invalid"))


# What happens without us.


def arm(seconds: float | None, *markets: str, body: bytes = body("rest.order.disconnected-cancel-all")) -> list[Asked]:
    posts: list[Asked] = []

    def respond(asked: Asked) -> bytes:
        posts.append(asked)
        return body

    assert walk(TRADING.arm(seconds, markets), respond) is None
    return posts


def post(product: str, seconds: int) -> Post:
    return Post("/v5/order/disconnected-cancel-all", f'{{"product":"{product}","timeWindow":{seconds}}}'.encode())


def test_each_product_is_armed_once() -> None:
    assert arm(40.0, "linear", "inverse") == [post("DERIVATIVES", 40)]
    assert arm(3, "spot", "option", "linear") == [post("DERIVATIVES", 3), post("OPTIONS", 3), post("SPOT", 3)]
    assert arm(40, "spread") == []
    assert arm(None, "linear") == []
    assert TRADING.arm_every(40.0) == inf


def test_arming_can_be_refused() -> None:
    with pytest.raises(Refused, match=r"10005.*disconnected-cancel-all of SPOT"):
        arm(40, "spot", body=refusal(10005))
    with pytest.raises(BadMessage):
        arm(40, "spot", body=b"{}")


@pytest.mark.parametrize("seconds", [3, 3.0, 10, 300])
def test_what_can_be_armed(seconds: float) -> None:
    topics = ["order", "dcp.spot", "dcp.future", "dcp.option"]
    assert TRADING.arm_problems(seconds, topics, ["spot", "linear", "inverse", "option"]) == []
    assert TRADING.arm_problems(seconds, ["dcp.future"], ["linear", "spread"]) == []


@pytest.mark.parametrize("seconds", [0, 2.9, 2, 301, 10.5, inf])
def test_seconds_that_cannot_be_armed(seconds: float) -> None:
    (why,) = TRADING.arm_problems(seconds, ["dcp.spot"], ["spot"])
    assert why == f"bybit takes whole seconds from 3 to 300, not {seconds:g}"


def test_what_is_not_subscribed_is_not_protected() -> None:
    found = TRADING.arm_problems(10, ["order", "dcp.future"], ["inverse", "option", "spot"])
    assert [why.split(",")[0] for why in found] == [
        "needs the private channel dcp of market spot",
        "needs the private channel dcp of market option",
    ]
