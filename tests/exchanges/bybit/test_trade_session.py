"""One connection for orders, against the manual's own answers, on a clock of numbers."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.accounts import Credentials, Login
from pipeline.exchanges.bybit.signing import signature
from pipeline.exchanges.bybit.trade_answers import verdict
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.trading import Answer, ItemAnswer, ReportedLimit, TradeItem, TradeRequest, TradeSession
from pipeline.exchanges.venue import SessionTimes
from pipeline.model.errors import DeadlineMissed, HeartbeatLost, LoginFailed, Refused, Retryable, SessionError
from pipeline.model.events import Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE
from tests.exchanges.bybit.samples import lines
from tests.exchanges.bybit.trade_items import NOW, limit, request, trade

EPOCH = NOW / 1e6
"""The session's clock starts at 0, when the venue's shows `NOW`."""
GRANTED, PONG = lines("trade.auth.response")[0], lines("trade.pong")[0]
ORDER_ID = "a4c1718e-fe53-4659-a118-1f6ecce04ad9"
BATCH_ORDER_ID = "c551eeed-1eb6-4ff5-98d3-4b9b5a9a1d0c"


def opened() -> TradeSession:
    trading = Bybit().trading
    assert trading is not None
    session = trading.session(SessionTimes(20.0, 10.0), Login(Credentials("KEY", "SECRET"), EPOCH))
    session.start(0.0)
    return session


def live() -> TradeSession:
    """A session whose login was granted."""
    session = opened()
    session.data_to_send()
    assert session.receive(GRANTED, 0.1) == []
    assert session.ready
    return session


def ask(session: TradeSession, *requests: TradeRequest) -> None:
    for each in requests:
        session.submit(each, 0.2)
    assert len(session.data_to_send()) == len(requests)


def reply(session: TradeSession, now: float = 0.3, **fields: Any) -> list[Answer]:
    return session.receive(json.dumps({"reqId": "r1", "retCode": 0, "retMsg": "OK", **fields}).encode(), now)


def answer_to(action: str, count: int = 1, **fields: Any) -> Answer:
    session = live()
    ask(session, request(action, *[limit()] * count))
    (answer,) = reply(session, **fields)
    assert answer.request_id == "r1"
    assert session.notices() == []
    return answer


def first_item(**fields: Any) -> ItemAnswer:
    (item,) = answer_to(CREATE, **fields).items
    return item


# Login and life.


def test_the_login_comes_first() -> None:
    session = opened()
    assert not session.ready
    expires = NOW // 1000 + 10_000
    (text,) = session.data_to_send()
    proof = signature("SECRET", f"GET/realtime{expires}")
    assert json.loads(text) == {"reqId": "login", "op": "auth", "args": ["KEY", expires, proof]}
    assert session.receive(GRANTED, 0.1) == []
    assert session.ready
    assert not session.ends_soon
    assert session.notices() == []


def test_nothing_happens_before_the_start() -> None:
    trading = Bybit().trading
    assert trading is not None
    session = trading.session(SessionTimes(20.0, 10.0), Login(Credentials("KEY", "SECRET"), EPOCH))
    assert (session.data_to_send(), session.next_deadline(), session.ready) == ([], inf, False)


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (10003, "API key is invalid", Refused),
        (10003, "Too many sessions under the same UID", Retryable),
        (10001, "params error", LoginFailed),
        (10016, "server error", Retryable),
    ],
)
@pytest.mark.parametrize("op", ["auth", ""])
def test_a_login_that_is_not_granted(code: int, text: str, error: type[SessionError], op: str) -> None:
    fields = {"retCode": code, "retMsg": text, "connId": "c"} | ({"op": op} if op else {})
    with pytest.raises(error, match=f"login: bybit answered {code}: trade: {text}"):
        opened().receive(json.dumps(fields).encode(), 0.1)


def test_the_documented_refusals_of_a_login() -> None:
    wrong, repeated = lines("derived.trade.auth.error.response")
    with pytest.raises(Refused, match="invalid sign"):
        opened().receive(wrong, 0.1)
    session = live()
    assert session.receive(repeated, 0.2) == []
    assert session.ready


def test_a_login_without_an_answer() -> None:
    session = opened()
    assert session.next_deadline() == 10.0
    with pytest.raises(DeadlineMissed, match="login"):
        session.on_deadline(10.0)


def test_pings_and_silence() -> None:
    session = live()
    assert session.next_deadline() == 20.0
    session.on_deadline(20.0)
    (text,) = session.data_to_send()
    assert json.loads(text)["op"] == "ping"
    assert session.receive(PONG, 20.5) == []
    assert session.notices() == []
    session.on_deadline(40.0)
    session.on_deadline(60.0)
    assert session.next_deadline() == 70.5
    with pytest.raises(HeartbeatLost, match="bybit trade"):
        session.on_deadline(70.5)


def test_answers_are_life_too() -> None:
    session = live()
    ask(session, request(CREATE, limit()))
    assert len(reply(session, 65.0)) == 1
    session.on_deadline(70.5)


# The documented answers.


def documented(sample: str, action: str, *items: TradeItem, id: str) -> Answer:
    session = live()
    ask(session, request(action, *items, id=id))
    (line,) = lines(sample)
    (answer,) = session.receive(line, 0.3)
    assert session.receive(line, 0.4) == []  # once answered, an answer is nobody's
    assert len(session.notices()) == 1
    return answer


@pytest.mark.parametrize(
    ("name", "action", "id", "key"),
    [
        ("trade.order.create", CREATE, "test-005", "create futures"),
        ("derived.trade.order.amend", AMEND, "test-006", "amend futures"),
        ("derived.trade.order.cancel", CANCEL, "test-007", "cancel futures"),
    ],
)
def test_an_order_is_accepted(name: str, action: str, id: str, key: str) -> None:
    assert documented(f"{name}.response", action, limit(), id=id) == Answer(
        id,
        (ItemAnswer(True, ORDER_ID, "0", "OK"),),
        out_time=Micros(1_711_001_595_209_000),
        limits=(ReportedLimit(key, 9, Micros(1_711_001_595_208_000)),),
    )


@pytest.mark.parametrize(("name", "action", "id"), [("amend", AMEND, "b-amend-1"), ("cancel", CANCEL, "b-cancel-1")])
def test_a_batch_of_which_one_failed(name: str, action: str, id: str) -> None:
    answer = documented(f"derived.trade.order.{name}-batch.response", action, limit(), limit(), id=id)
    assert answer == Answer(
        id,
        (
            ItemAnswer(True, BATCH_ORDER_ID, "0", "OK"),
            ItemAnswer(False, None, "110001", "order not exists or too late to cancel", "permanent"),
        ),
        out_time=Micros(1_740_453_408_556_000),
        limits=(ReportedLimit(f"{name}-batch futures", 148, Micros(1_740_453_408_555_000)),),
    )


def test_a_batch_that_was_accepted_and_failed_as_a_whole() -> None:
    """The manual's example: its top level says 0, and no order was taken. It has no `reqId`, for none was sent."""
    session = live()
    ask(session, request(CREATE, *[limit()] * 3, id="b1"))
    (line,) = lines("trade.order.create-batch.response")
    assert session.receive(line, 0.3) == []
    assert len(session.notices()) == 1
    (answer,) = session.receive(line.replace(b"{", b'{"reqId":"b1",', 1), 0.4)
    failed = ItemAnswer(False, None, "10001", "position idx not match position mode", "permanent")
    assert answer.items == (failed,) * 3
    assert answer.limits == (ReportedLimit("create-batch futures", 147, Micros(1_740_453_408_555_000)),)


def test_the_documented_errors() -> None:
    session = live()
    samples = lines("derived.trade.order.error.response")
    found = []
    for line in samples:
        ask(session, request(CREATE, limit(), id=json.loads(line)["reqId"]))
        ((item,),) = [answer.items for answer in session.receive(line, 0.3)]
        found.append((item.accepted, item.code, item.message, item.error_class))
    assert found == [
        (False, "110001", "order not exists or too late to cancel", "permanent"),
        (None, "20006", "reqId is duplicated", "permanent"),
        (None, "10006", "Too many visits!", "rate_limited"),
        (None, "10019", "service is restarting", "retryable"),
        (False, "10404", "op type is not found", "permanent"),
    ]
    assert session.ends_soon
    assert not session.ready


# Codes.


OPEN = [
    *(429, 10000, 10006, 10014, 10016, 10019, 10403, 10429, 20003, 20006, 500000, 10999, 10011),
    *(170001, 170005, 170007, 170032, 170146, 170147, 170234, 170310, 40004, 110030, 110072, 170141),
]


@pytest.mark.parametrize("code", OPEN)
def test_codes_that_leave_it_open(code: int) -> None:
    accepted, error_class = verdict(code)
    assert accepted is None
    limited = code in (429, 10006, 10403, 10429, 20003, 170005)
    names = code in (10014, 20006, 110030, 110072, 170141)
    assert error_class == ("rate_limited" if limited else "permanent" if names else "retryable")


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        *((code, "retryable") for code in (-1, 10002, 110063, 110066, 110071, 110074, 110079, 170191, 170212, 3100197)),
        *((code, "rate_limited") for code in (10018, 30035, 170222)),
        *((code, "permanent") for code in (10001, 10003, 10004, 10005, 10007, 10010, 10017, 10024, 10029, 10404)),
        *(
            (code, "permanent")
            for code in (-2015, 33004, 110001, 110003, 110007, 110008, 110094, 170131, 170213, 34040)
        ),
        *((code, "permanent") for code in (11000, 9999, 123456789)),
    ],
)
def test_codes_that_say_no(code: int, error_class: str) -> None:
    assert verdict(code) == (False, error_class)


def test_the_documented_refusal_keeps_its_order_id() -> None:
    assert first_item(retCode=110001, retMsg="no", data={"orderId": "o"}) == ItemAnswer(
        False, "o", "110001", "no", "permanent"
    )


# Answers that miss something.


def test_the_least_that_an_answer_has() -> None:
    assert answer_to(CREATE) == Answer("r1", (ItemAnswer(True, None, "0", "OK"),))
    assert first_item(data={"orderId": ""}).order_id is None
    assert first_item(data=[], retMsg=None) == ItemAnswer(True, None, "0", "")
    assert first_item(retCode="0").accepted is True
    assert first_item(retCode="10005").accepted is False


@pytest.mark.parametrize("code", [None, "", "x", 0.5, True, [0], "1" * 5000, 10**20])
def test_an_answer_without_a_code_leaves_it_open(code: object) -> None:
    item = first_item(retCode=code, retMsg="")
    assert (item.accepted, item.code, item.error_class) == (None, "", "retryable")
    assert item.message


def test_a_refused_batch_refuses_each_item() -> None:
    answer = answer_to(CREATE, 2, retCode=10005, retMsg="no permission", data={}, retExtInfo={})
    assert answer.items == (ItemAnswer(False, None, "10005", "no permission", "permanent"),) * 2


ROWS = {"list": [{"orderId": "o1"}, {"orderId": "o2"}]}


@pytest.mark.parametrize(
    "said", [None, {}, [], {"list": None}, {"list": [{"code": 0}]}, {"list": [{"code": 0}] * 3}, {"list": [7, "x"]}]
)
def test_a_batch_that_does_not_say_which_item_leaves_all_open(said: object) -> None:
    answer = answer_to(CREATE, 2, data=ROWS, retExtInfo=said)
    assert [(item.accepted, item.order_id) for item in answer.items] == [(None, "o1"), (None, "o2")]


def test_items_go_by_position() -> None:
    said = {"list": [{"code": 10006, "msg": "later"}, {"code": 0, "msg": "OK"}]}
    answer = answer_to(CREATE, 2, data=ROWS, retExtInfo=said)
    assert [(item.accepted, item.order_id, item.message) for item in answer.items] == [
        (None, "o1", "later"),
        (True, "o2", "OK"),
    ]
    short = answer_to(CREATE, 2, data={"list": ["x"]}, retExtInfo=said)
    assert [(item.accepted, item.order_id) for item in short.items] == [(None, None), (True, None)]


def test_the_header_is_read_in_any_case() -> None:
    header = {"TIMENOW": "5", "x-bapi-limit-status": 3, "X-BAPI-LIMIT-RESET-TIMESTAMP": "7"}
    answer = answer_to(CREATE, header=header)
    assert (answer.out_time, answer.limits) == (5000, (ReportedLimit("create futures", 3, Micros(7000)),))


@pytest.mark.parametrize(
    "header", [None, [], {}, {"Timenow": ""}, {"Timenow": "soon", "X-Bapi-Limit-Status": "9"}, {"Timenow": "9" * 16}]
)
def test_a_header_without_values(header: object) -> None:
    answer = answer_to(CREATE, header=header)
    assert (answer.out_time, answer.limits) == (None, ())


def test_long_messages_are_cut() -> None:
    assert len(first_item(retCode=1, retMsg="x" * 10_000).message) == 500


# Answers out of order, and those of nobody.


def test_requests_are_not_waited_for() -> None:
    session = live()
    ask(session, request(CREATE, limit(), id="a"), request(CANCEL, trade(order_id="o"), id="b"))
    assert [each.request_id for each in reply(session, reqId="b")] == ["b"]
    assert [each.request_id for each in reply(session, reqId="a", op="order.create")] == ["a"]
    assert session.notices() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"reqId": "other", "op": "order.create"},
        {"reqId": ["r1"], "op": "order.create"},
        {"reqId": "other", "retCode": 10001, "op": "order.create"},
        {"reqId": None, "retCode": 10003, "retMsg": "invalid"},
        {"retCode": 10005, "op": "order.create", "reqId": ""},
        {"topic": "order", "reqId": "x"},
        {"success": False, "reqId": "x"},
        {"type": "COMMAND_RESP", "reqId": "x"},
        {"op": "subscribe", "reqId": "x"},
    ],
)
def test_what_nobody_waits_for_is_a_notice(fields: dict[str, Any]) -> None:
    session = live()
    ask(session, request(CREATE, limit()))
    assert reply(session, **fields) == []
    assert len(session.notices()) == 1
    assert session.ready
    assert len(reply(session)) == 1


@pytest.mark.parametrize("message", [b"", b"\xff", b"[]", b"pong", b'{"topic":"x"}', b'{"id":"x"}', b"[" * 5000])
def test_what_cannot_be_read_is_a_notice(message: bytes) -> None:
    session = live()
    assert session.receive(message, 0.3) == []
    assert len(session.notices()) == 1
    assert session.notices() == []


# What ends a connection.


def test_a_restart_is_announced_by_any_answer() -> None:
    session = live()
    ask(session, request(CREATE, limit()), request(CREATE, limit(), id="r2"))
    assert reply(session, reqId="", retCode=10019) == []
    assert (session.ready, session.ends_soon) == (False, True)
    assert len(session.notices()) == 1
    assert len(reply(session, reqId="r2")) == 1  # those on the way are not affected


def test_a_restart_during_the_login() -> None:
    with pytest.raises(Retryable, match="10019"):
        opened().receive(b'{"retCode":10019,"retMsg":"restarting","op":"auth"}', 0.1)


def test_a_request_that_the_venue_calls_late_though_it_is_not_ends_the_connection() -> None:
    session = live()
    ask(session, request(CREATE, limit()))
    (answer,) = reply(session, retCode=10002, retMsg="timestamp")
    assert answer.items == (ItemAnswer(False, None, "10002", "timestamp", "retryable"),)
    assert session.ends_soon
    assert "clocks differ" in session.notices()[0]


def test_a_request_that_was_late_is_refused_and_nothing_else() -> None:
    session = live()
    ask(session, request(CREATE, limit(), not_after=NOW + 250_000))
    (answer,) = reply(session, retCode=10002)
    assert answer.items[0].accepted is False
    assert not session.ends_soon


# Anything at all.


FIELDS = st.sampled_from(
    ["reqId", "retCode", "retMsg", "op", "data", "retExtInfo", "header", "list", "code", "topic", "success", "type"]
)
VALUES = st.sampled_from(
    ["r1", "r2", "auth", "order.create", "pong", "COMMAND_RESP", "OK", "10019", 0, 1, 10002, 10019]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(), inner, max_size=8),
    max_leaves=20,
)


@given(st.lists(ANYTHING, max_size=5), st.booleans())
def test_no_message_breaks_a_session(messages: list[object], is_live: bool) -> None:
    session = live() if is_live else opened()
    session.submit(request(CREATE, limit()), 0.2)
    session.submit(request(CREATE, limit(), limit(), id="r2"), 0.2)
    try:
        answers = [each for message in messages for each in session.receive(json.dumps(message).encode(), 0.3)]
    except SessionError:
        # Before the login, or by an answer to one: what else is odd says nothing about the connection.
        assert not is_live or any(isinstance(each, dict) and each.get("op") == "auth" for each in messages)
        return
    assert [len(each.items) for each in answers] == [1 if each.request_id == "r1" else 2 for each in answers]
    assert len(answers) == len({each.request_id for each in answers})
