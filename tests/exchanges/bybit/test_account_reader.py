"""An account read over REST, from the venue's documented answers and from scripted ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace

from pipeline.exchanges.accounts import AccountReader, AccountSpec, Steps, T
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.model.account import AccountGreeks, Balance, Fill, Order, Position
from pipeline.model.errors import BadMessage, Refused, Retryable, SessionError
from pipeline.model.events import Event, Micros
from tests.exchanges.bybit.samples import PRIVATE_CONNECTION, body, catalogue, first, head, private, values

VENUE = Bybit()
NOW = 1_700_000_000_000
"""The venue's time in scripted answers, in milliseconds."""
DAY = 86_400_000
ORDERS, HISTORY = "/v5/order/realtime?category=", "/v5/order/history?category="
POSITIONS, FILLS = "/v5/position/list?category=", "/v5/execution/list?category="
WALLET, GREEKS = "/v5/account/wallet-balance?accountType=UNIFIED", "/v5/asset/coin-greeks"
Answers = Callable[[str], bytes] | Mapping[str, bytes]

ORDER = json.loads(body("rest.order.realtime"))["result"]["list"][0]
FILL = json.loads(body("rest.execution.list"))["result"]["list"][0]
POSITION = json.loads(body("rest.position.list"))["result"]["list"][0]


def reader(known: Catalogue | None = None) -> AccountReader:
    side = VENUE.accounts
    assert side is not None
    return side.reader("main", PRIVATE_CONNECTION, catalogue() if known is None else known)


def subscription(channel: str, market: str | None = None) -> Subscription:
    side = VENUE.accounts
    assert side is not None
    (found,) = side.subscriptions(AccountSpec(channel, market))
    return found


def answer(*rows: Mapping[str, Any], cursor: str = "", time: int = NOW) -> bytes:
    result = {"list": rows, "nextPageCursor": cursor}
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": time}).encode()


def refusal(code: int, why: str = "why") -> bytes:
    return json.dumps({"retCode": code, "retMsg": why, "result": {}, "time": NOW}).encode()


def walk(steps: Steps[T], answers: Answers) -> tuple[list[str], T]:
    """The paths that were asked for, and the result; a path that nothing is scripted for has no rows."""
    paths = []
    try:
        path = next(steps)
        while True:
            paths.append(path)
            path = steps.send(answers.get(path, answer()) if isinstance(answers, Mapping) else answers(path))
    except StopIteration as end:
        value: T = end.value
        return paths, value


def snapshot(channel: str, answers: Answers, market: str | None = None) -> tuple[list[str], list[Event]]:
    make = reader().snapshot(subscription(channel, market))
    assert make is not None
    paths, events = walk(make(), answers)
    assert all(getattr(event, "is_snapshot", False) for event in events)
    return paths, events


def fills(since: int, answers: Answers, market: str | None = None) -> tuple[list[str], list[Fill]]:
    make = reader().fills(subscription("fill", market), Micros(since * 1000))
    assert make is not None
    paths, events = walk(make(), answers)
    found = [event for event in events if isinstance(event, Fill)]
    assert found == events
    assert all(event.is_snapshot for event in found)
    return paths, found


def query(path: str) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(path).query).items()}


# Every query, and what it reads.


def test_open_orders_of_every_market() -> None:
    paths, events = snapshot("order", {})
    assert paths == [
        f"{ORDERS}spot&limit=50",
        f"{ORDERS}spot&orderFilter=StopOrder&limit=50",
        f"{ORDERS}linear&settleCoin=USDT&limit=50",
        f"{ORDERS}linear&settleCoin=USDC&limit=50",
        f"{ORDERS}inverse&limit=50",
        f"{ORDERS}option&limit=50",
    ]
    assert events == []


def test_positions_of_every_market() -> None:
    assert snapshot("position", {})[0] == [
        f"{POSITIONS}linear&settleCoin=USDT&limit=200",
        f"{POSITIONS}linear&settleCoin=USDC&limit=200",
        f"{POSITIONS}inverse&limit=200",
        f"{POSITIONS}option&limit=200",
    ]


@pytest.mark.parametrize("channel", ["order", "position"])
def test_one_market_alone(channel: str) -> None:
    for market in ("linear", "inverse", "option"):
        paths, _ = snapshot(channel, {}, market)
        assert {query(path)["category"] for path in paths} == {market}
        assert len(paths) == (2 if market == "linear" else 1)


def test_channels_without_a_state_to_read() -> None:
    one = reader()
    for channel in ("fill", "fast_fill", "spread_order", "spread_fill", "strategy", "rfq.open.rfqs"):
        assert one.snapshot(subscription(channel)) is None
    assert one.snapshot(subscription("dcp", "spot")) is None
    for channel in ("order", "fast_fill", "spread_fill", "position", "balance"):
        assert one.fills(subscription(channel), Micros(0)) is None


# Rows are what the stream would have brought.


def streamed(topic: str, sample: str, category: str | None, **renamed: str) -> list[Event]:
    """The events of the sample's rows, had they come by the stream."""
    saved = json.loads(body(sample))
    rows = [{renamed.get(key, key): value for key, value in row.items()} for row in saved["result"]["list"]]
    if category is not None:
        rows = [{**row, "category": category} for row in rows]
    return private(json.dumps({"topic": topic, "id": "x", "creationTime": saved["time"], "data": rows}).encode())


def same(found: list[Event], expected: list[Event]) -> None:
    assert [type(event) for event in found] == [type(event) for event in expected]
    assert [head(event) for event in found] == [head(event) for event in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert {**values(ours), "is_snapshot": False, "receive_time": 0} == {**values(theirs), "receive_time": 0}


def test_an_open_order_equals_the_streams() -> None:
    path = f"{ORDERS}linear&settleCoin=USDT&limit=50"
    paths, events = snapshot("order", {path: body("rest.order.realtime")}, "linear")
    assert f"{path}&cursor=page_args%3Dfd4300ae-7847-404e-b947-b46980a4d140%26symbol%3D6%26" in paths
    assert len(events) == 1
    same(events, streamed("order", "rest.order.realtime", "linear"))
    assert events[0].receive_time == 1684765770483000


def test_a_position_equals_the_streams() -> None:
    _, events = snapshot("position", {f"{POSITIONS}inverse&limit=200": body("rest.position.list")})
    same(
        events,
        streamed(
            "position", "rest.position.list", "inverse", avgPrice="entryPrice", mmrSysUpdateTime="mmrSysUpdatedTime"
        ),
    )
    (event,) = events
    assert isinstance(event, Position)
    assert (event.entry_price, event.side, event.size, event.size_unit) == ("27464.50441675", "short", "300", "quote")


def test_a_wallet_equals_the_streams_and_has_the_time_of_the_answer() -> None:
    paths, events = snapshot("balance", {WALLET: body("rest.account.wallet-balance")})
    assert paths == [WALLET]
    same(events, streamed("wallet", "rest.account.wallet-balance", None))
    assert [type(event) for event in events] == [Balance, Balance]
    assert {event.exchange_time for event in events} == {1690872862481000}


def test_greeks_equal_the_streams() -> None:
    paths, events = snapshot("account_greeks", {GREEKS: body("rest.asset.coin-greeks")})
    assert paths == [GREEKS]
    same(events, streamed("greeks", "rest.asset.coin-greeks", None))
    assert type(events[0]) is AccountGreeks


def test_a_fill_equals_the_streams() -> None:
    since = 1672282722000
    path = f"{FILLS}linear&startTime={since}&endTime={since + 7 * DAY}&limit=100"
    paths, events = fills(since, {path: body("rest.execution.list")}, "linear")
    assert paths[1] == f"{path}&cursor=132766%3A2%2C132766%3A2"
    same(list(events), streamed("execution", "rest.execution.list", "linear"))


def test_a_closed_order_equals_the_streams() -> None:
    (lost,) = streamed("order", "rest.order.history", "linear")
    assert isinstance(lost, Order)
    steps = reader().order(lost)
    assert steps is not None
    history = f"{HISTORY}linear&symbol=BTCUSDT&orderId={lost.order_id}"
    paths, events = walk(steps(), {history: body("rest.order.history")})
    assert paths[:3] == [
        f"{ORDERS}linear&symbol=BTCUSDT&orderId={lost.order_id}&openOnly=1",
        f"{ORDERS}linear&symbol=BTCUSDT&orderId={lost.order_id}",
        history,
    ]
    same(events, [lost])


def test_what_only_rest_has_and_what_rest_writes_otherwise() -> None:
    order = {**ORDER, "basePrice": "1600", "extraFees": "", "positionIdx": "2"}
    _, (event,) = snapshot("order", {f"{ORDERS}spot&limit=50": answer(order)}, "spot")
    assert isinstance(event, Order)
    assert (event.position_side, event.origin.market) == ("short", "spot")
    leg = {**FILL, "execFeeV2": "0.5", "feeCurrency": "USDC", "markPrice": 1183.54, "seq": "7"}
    _, (fill,) = fills(NOW, {f"{FILLS}linear&startTime={NOW}&endTime={NOW + 7 * DAY}&limit=100": answer(leg)}, "linear")
    assert (fill.fee, fill.fee_currency, fill.mark_price, fill.sequence) == ("0.071409", "USDC", "1183.54", 7)
    flat = {
        **POSITION,
        "size": "0",
        "side": "",
        "seq": "-1",
        "updatedTime": "",
        "avgPrice": "0",
        "mmrSysUpdateTime": "7",
    }
    _, (position,) = snapshot("position", {f"{POSITIONS}inverse&limit=200": answer(flat)}, "inverse")
    assert isinstance(position, Position)
    assert (position.side, position.size, position.sequence, position.entry_price) == ("flat", "0", None, None)
    assert position.extras["mmrSysUpdatedTime"] == "7"
    # The time of the answer is no time of the state: the stream may yet tell of an earlier one.
    assert position.exchange_time is None


# Pages.


def test_pages_are_read_to_the_end_and_their_cursors_sent_as_they_came() -> None:
    path = f"{ORDERS}inverse&limit=50"
    answers = {
        path: answer({**ORDER, "orderId": "3"}, {**ORDER, "orderId": "2"}, cursor="page%3D1%26x"),
        f"{path}&cursor=page%3D1%26x": answer(cursor="b&c=d"),
        f"{path}&cursor=b%26c%3Dd": answer({**ORDER, "orderId": "1"}),
    }
    paths, events = snapshot("order", answers, "inverse")
    assert paths == list(answers)
    assert [values(event)["order_id"] for event in events] == ["3", "2", "1"]


def test_an_order_that_two_queries_bring_is_one_and_the_later_reading_counts() -> None:
    answers = {
        f"{ORDERS}spot&limit=50": answer({**ORDER, "orderId": "1"}, {**ORDER, "orderId": "2", "qty": "1"}),
        f"{ORDERS}spot&orderFilter=StopOrder&limit=50": answer({**ORDER, "orderId": "2", "qty": "2"}),
    }
    _, events = snapshot("order", answers, "spot")
    assert [(values(event)["order_id"], values(event)["size"]) for event in events] == [("1", "0.10"), ("2", "2")]


def test_both_positions_of_hedge_mode_are_kept() -> None:
    rows = [{**POSITION, "positionIdx": index} for index in (1, 2)]
    _, events = snapshot("position", {f"{POSITIONS}inverse&limit=200": answer(*rows)}, "inverse")
    assert [values(event)["position_side"] for event in events] == ["long", "short"]


def test_all_coins_are_kept() -> None:
    saved = json.loads(body("rest.account.wallet-balance"))
    (row,) = saved["result"]["list"]
    (coin,) = row["coin"]
    row["coin"] = [{**coin, "coin": name} for name in ("BTC", "ETH")]
    _, events = snapshot("balance", {WALLET: json.dumps(saved).encode()})
    assert [values(event).get("currency") for event in events] == [None, "BTC", "ETH"]


def test_pages_that_go_round_in_circles_end() -> None:
    with pytest.raises(BadMessage, match="a page that was read before"):
        snapshot("order", lambda path: answer(cursor="b" if path.endswith("cursor=a") else "a"), "inverse")


# Fills: windows of seven days up to the venue's present.


def test_fills_of_every_market_and_of_options_by_coin() -> None:
    paths, _ = fills(NOW - 1, {})
    window = f"&startTime={NOW - 1}&endTime={NOW - 1 + 7 * DAY}&limit=100"
    assert paths == [
        *(f"{FILLS}{market}{window}" for market in ("spot", "linear", "inverse")),
        *(f"{FILLS}option&baseCoin={coin}{window}" for coin in ("BTC", "ETH", "SOL")),
    ]


def test_options_of_coins_that_only_the_catalogue_knows() -> None:
    known = dict(catalogue())
    key, entry = next((key, each) for key, each in known.items() if key[0] == "option")
    known["option", "XRP-1"], known["option", "BTC-2"] = replace(entry, base="XRP"), entry
    make = reader(known).fills(subscription("fill", "option"), Micros(NOW * 1000))
    assert make is not None
    paths, _ = walk(make(), {})
    assert key[0] == "option"
    assert [query(path)["baseCoin"] for path in paths] == ["BTC", "ETH", "SOL", "XRP"]


@pytest.mark.parametrize(("days", "windows"), [(0, 1), (6.9, 1), (7, 1), (7.1, 2), (20, 3)])
def test_windows_reach_the_present(days: float, windows: int) -> None:
    since = NOW - round(days * DAY)
    paths, _ = fills(since, {}, "spot")
    spans = [(int(query(path)["startTime"]), int(query(path)["endTime"])) for path in paths]
    assert spans == [(since + n * 7 * DAY, since + (n + 1) * 7 * DAY) for n in range(windows)]
    assert spans[-1][1] >= NOW


def test_windows_end_by_the_venues_clock_and_not_by_ours() -> None:
    paths, _ = fills(NOW, lambda path: answer(time=NOW + 30 * DAY), "spot")
    assert len(paths) == 5


def test_fills_come_oldest_first_over_all_markets_and_windows() -> None:
    def row(number: int, time: int) -> dict[str, Any]:
        return {**FILL, "execId": str(number), "execTime": str(time), "symbol": "X"}

    since = NOW - 8 * DAY
    border = since + 7 * DAY

    def answers(path: str) -> bytes:
        asked = query(path)
        if asked["category"] == "spot":
            return answer(row(5, NOW - 5)) if int(asked["startTime"]) == border else answer(row(2, since + 2))
        if asked["category"] != "linear":
            return answer()
        if int(asked["startTime"]) == border:
            return answer(row(6, NOW - 1), row(4, border))
        if "cursor" in asked:
            return answer(row(3, since + 3), row(1, since))
        # The newest come first, also within a millisecond; the one on the border comes twice.
        return answer(row(4, border), row(8, since + 4), row(7, since + 4), cursor="next")

    _, events = fills(since, answers)
    assert [event.fill_id for event in events] == ["1", "2", "3", "7", "8", "4", "5", "6"]
    assert [event.origin.market for event in events if event.fill_id in {"2", "5"}] == ["spot", "spot"]


def test_one_fill_may_concern_two_orders() -> None:
    rows = [{**FILL, "orderId": each} for each in ("b", "a")]
    _, events = fills(NOW, lambda path: answer(*rows), "linear")
    assert [event.order_id for event in events] == ["a", "b"]


# An order that is open no longer.


def lost_order(**fields: Any) -> Order:
    (event,) = private(first("derived.private.order.linear.sequence", **fields))
    assert isinstance(event, Order)
    return event


def closed(order: Order, answers: Answers) -> tuple[list[str], list[Event]]:
    steps = reader().order(order)
    assert steps is not None
    return walk(steps(), answers)


def test_a_recently_closed_order_needs_no_history() -> None:
    order = lost_order(orderId="id/1", symbol="A+B", category="spot")
    path = f"{ORDERS}spot&symbol=A%2BB&orderId=id%2F1&openOnly=1"
    paths, events = closed(order, {path: answer({**ORDER, "orderId": "id/1", "orderStatus": "Filled"})})
    assert paths == [path]
    assert [(values(event)["status"], values(event)["is_snapshot"]) for event in events] == [("filled", True)]
    assert events[0].origin.market == "spot"


def test_an_order_without_a_time_of_its_last_change_has_none() -> None:
    _, events = closed(lost_order(), lambda path: answer({**ORDER, "updatedTime": ""}))
    assert [event.exchange_time for event in events] == [None]


def test_an_order_that_the_venue_has_forgotten() -> None:
    paths, events = closed(lost_order(), {})
    assert len(paths) == 3
    assert events == []


def test_an_order_that_is_open_after_all() -> None:
    path = f"{ORDERS}linear&symbol=ETHUSDT&orderId=1"
    paths, events = closed(lost_order(orderId="1", symbol="ETHUSDT"), {path: answer({**ORDER, "orderId": "1"})})
    assert paths == [f"{path}&openOnly=1", path]
    assert [values(event)["status"] for event in events] == ["new"]


def test_orders_of_spreads_cannot_be_asked_for() -> None:
    assert reader().order(replace(lost_order(), channel="spread.order")) is None


# Errors.


@pytest.mark.parametrize(
    "answered",
    [
        refusal(10024, "not available in your region"),
        refusal(10028, "unified account only"),
        refusal(100028, "forbidden for unified account"),
        refusal(10001, "params error: accountType only support UNIFIED"),
        refusal(10001, "category only support linear or option"),
    ],
    ids=["region", "unified only", "not unified", "accountType", "category"],
)
def test_a_product_that_the_account_cannot_have_is_empty(answered: bytes) -> None:
    def answers(path: str) -> bytes:
        if query(path)["category"] in {"option", "inverse"}:
            return answered
        return answer(ORDER) if "settleCoin=USDT" in path else answer()

    paths, events = snapshot("order", answers)
    assert len(paths) == 6
    assert [values(event)["order_id"] for event in events] == [ORDER["orderId"]]
    paths, found = fills(NOW, lambda path: answered if "option" in path else answer(FILL))
    assert len(paths) == 6
    assert {event.origin.market for event in found} == {"spot", "linear", "inverse"}


@pytest.mark.parametrize("channel", ["order", "position", "balance"])
def test_an_account_that_can_have_nothing_is_refused(channel: str) -> None:
    with pytest.raises(Refused, match="bybit answered 10028: why"):
        snapshot(channel, lambda path: refusal(10028))
    with pytest.raises(Refused):
        fills(NOW, lambda path: refusal(10028))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (10002, Retryable),
        (10006, Retryable),
        (10016, Retryable),
        (10777, Retryable),
        (10001, Refused),
        (10003, Refused),
        (10005, Refused),
        (33004, Refused),
    ],
)
def test_any_other_error_ends_the_reading_so_that_nothing_is_taken_for_gone(
    code: int, error: type[SessionError]
) -> None:
    with pytest.raises(error, match=f"{code}.*{POSITIONS.removesuffix('?category=')}.*option"):
        snapshot("position", lambda path: refusal(code) if "option" in path else answer())
    with pytest.raises(error):
        fills(NOW, lambda path: refusal(code) if "inverse" in path else answer())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "position/list"),
        (b"[]", "retCode is missing"),
        (b'{"retCode":0,"result":{},"time":1}', r"result\.list"),
        (b'{"retCode":0,"result":{"list":[7]},"time":1}', r"result\.list"),
        (b'{"retCode":0,"result":{"list":[]}}', "time is missing"),
        (answer({**POSITION, "size": None}), r"\$\.data\[0\]\.size"),
        (answer({**POSITION, "updatedTime": "soon"}), "soon"),
    ],
)
def test_answers_of_another_form(text: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=f"^bybit /v5/position/list.*{why}|^bybit .*{why}"):
        snapshot("position", lambda path: text)
