"""One connection for order entry: login, heartbeats, and what became of each item of a request."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.accounts import Credentials, Login
from pipeline.exchanges.session import MAX_NOTICES
from pipeline.exchanges.trading import ItemAnswer, TradeItem, TradeRequest, TradeSession
from pipeline.exchanges.venue import SessionTimes
from pipeline.model.errors import DeadlineMissed, HeartbeatLost, LoginFailed, Refused
from pipeline.model.events import Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE, MASS_CANCEL
from tests.exchanges.okx.samples import sample
from tests.exchanges.okx.trade_items import OPTION, SWAP, TRADING, item, limit_order, listed, request

TIMES = SessionTimes(ping_every=15.0, pong_within=10.0, acknowledge_within=10.0)
LOGIN = Login(Credentials("key", "22582BD0CFF14C41EDBF1AB98506286D", "phrase"), epoch=1704876942.3)
GRANTED = b'{"event":"login","msg":"","code":"0","connId":"a4d3ae55"}'
IN_TIME, OUT_TIME = 1695190491421339, 1695190491423240
NO = ItemAnswer(False, None, "60013", "Invalid args", "permanent")


def session_of(*requests: TradeRequest) -> TradeSession:
    """A session that is logged in and has sent these."""
    session = TRADING.session(TIMES, LOGIN)
    session.start(5.0)
    assert session.receive(GRANTED, 5.1) == []
    session.data_to_send()
    for made in requests:
        session.submit(made, 6.0)
    assert len(session.data_to_send()) == len(requests)
    return session


def told(made: TradeRequest, message: bytes) -> list[ItemAnswer]:
    """What an answer says of the items of a request."""
    session = session_of(made)
    (answer,) = session.receive(message, 7.0)
    assert answer.request_id == made.id
    assert session.notices() == []
    assert session.receive(message, 8.0) == []  # it has been answered
    assert len(session.notices()) == 1
    return list(answer.items)


def response(code: str, *rows: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"id": "1512", "op": "order", "code": code, "msg": "", "data": rows, **more}).encode()


def row(code: str, name: str = "arb1001", **more: Any) -> dict[str, Any]:
    return {"ordId": "", "clOrdId": name, "sCode": code, "sMsg": "why", **more}


def pair(action: str = CREATE) -> TradeRequest:
    names = ("oktswap6", "oktswap7")
    return request(*(limit_order(client_order_id=name) for name in names), action=action, name="1513")


def numbered(*names: str, action: str, request_id: str) -> TradeRequest:
    entries = [item(listed(SWAP), order_id=name, size="2") for name in names]
    return request(*entries, action=action, name=request_id)


def test_the_login_comes_first_and_opens_the_session() -> None:
    session = TRADING.session(TIMES, LOGIN)
    assert (session.ready, session.data_to_send(), session.next_deadline()) == (False, [], inf)
    session.start(5.0)
    assert not session.ready
    (text,) = session.data_to_send()
    (arg,) = json.loads(text)["args"]
    assert (json.loads(text)["op"], arg["sign"]) == ("login", "5/36BgGV6m/6pmdc20zdqk0mzF5ZalmzzPD2fo3wavU=")
    assert session.receive(GRANTED, 5.1) == []
    assert session.ready
    assert session.data_to_send() == []


def test_a_login_without_an_answer_is_given_up() -> None:
    session = TRADING.session(TIMES, LOGIN)
    session.start(5.0)
    assert session.next_deadline() == 15.0
    with pytest.raises(DeadlineMissed, match="login"):
        session.on_deadline(15.0)


@pytest.mark.parametrize(("code", "error"), [("60009", LoginFailed), ("60024", Refused), ("60032", Refused)])
def test_a_refused_login(code: str, error: type[Exception]) -> None:
    session = TRADING.session(TIMES, LOGIN)
    session.start(5.0)
    with pytest.raises(error, match=code):
        session.receive(json.dumps({"event": "error", "code": code, "msg": "no"}).encode(), 5.1)


def test_heartbeats_are_plain_text_and_answers_count_as_such() -> None:
    session = session_of(request(limit_order()))
    assert session.next_deadline() == pytest.approx(20.1)
    session.on_deadline(20.1)
    assert session.data_to_send() == ["ping"]
    assert session.next_deadline() == pytest.approx(30.1)
    session.receive(b"pong", 21.0)
    assert session.next_deadline() == 36.0
    (_,) = session.receive(sample("trade.order.response.constructed")[0], 30.0)
    assert session.next_deadline() == 45.0
    session.on_deadline(45.0)
    with pytest.raises(HeartbeatLost):
        session.on_deadline(55.0)


def test_requests_go_out_once_and_in_order() -> None:
    session = session_of()
    for name in ("a", "b", "c"):
        session.submit(request(limit_order(), name=name), 6.0)
    assert [json.loads(text)["id"] for text in session.data_to_send()] == ["a", "b", "c"]
    assert session.data_to_send() == []


def test_answers_find_their_requests_in_any_order() -> None:
    session = session_of(*(request(limit_order(), name=name) for name in ("a", "b")))
    for name in ("b", "a"):
        (answer,) = session.receive(response("0", row("0", ordId="9"), id=name), 7.0)
        assert (answer.request_id, answer.items) == (name, (ItemAnswer(True, "9"),))


@pytest.mark.parametrize("name", ["control.notice", "control.notice.observed"])
def test_an_announced_upgrade_ends_the_session_soon(name: str) -> None:
    for line in sample(name):
        session = session_of(request(limit_order()))
        assert session.receive(line, 7.0) == []
        assert (session.ends_soon, session.ready) == (True, False)
        assert len(session.notices()) == 1
        assert len(session.receive(sample("trade.order.response.constructed")[0], 8.0)) == 1


def test_connection_counts_are_none_of_its_business() -> None:
    session = session_of()
    for line in sample("control.channel-conn-count"):
        assert session.receive(line, 7.0) == []
    assert (session.ready, session.notices()) == (True, [])


def test_an_accepted_order_of_the_manual() -> None:
    accepted, refused, odd = sample("trade.order.response")
    made = request(limit_order())
    session = session_of(made)
    (answer,) = session.receive(accepted, 7.0)
    assert answer.items == (ItemAnswer(True, "12345689"),)
    assert (answer.in_time, answer.out_time, answer.limits) == (IN_TIME, OUT_TIME, ())
    assert told(made, refused) == [ItemAnswer(False, None, "5XXXX", "not exist", "permanent")]
    assert told(made, odd) == [NO]


def test_answers_of_older_servers() -> None:
    (accepted, duplicate) = sample("trade.order.response.observed")
    session = session_of(request(limit_order(client_order_id="abcABC123"), name="1000001"))
    (answer,) = session.receive(accepted, 7.0)
    assert (answer.items, answer.in_time, answer.out_time) == ((ItemAnswer(True, "393513242072608785"),), None, None)
    made = request(limit_order(client_order_id="abcABC125"), name="2000001")
    assert told(made, duplicate) == [ItemAnswer(None, None, "51016", "Duplicated client order ID")]
    (cancelled,) = sample("trade.cancel-order.response.observed")
    made = numbered("393940260828377089", action=CANCEL, request_id="2000003")
    assert told(made, cancelled) == [ItemAnswer(True, "393940260828377089")]
    (amended,) = sample("trade.amend-order.response.observed")
    made = numbered("393936310213439488", action=AMEND, request_id="2000002")
    assert told(made, amended) == [ItemAnswer(True, "393936310213439488")]


def test_refusals_of_an_order() -> None:
    made = request(limit_order())
    found = [told(made, line)[0] for line in sample("trade.order.response.constructed")]
    assert [(answer.accepted, answer.code, answer.error_class) for answer in found] == [
        (False, "51008", "permanent"),
        (None, "51016", None),
        (False, "50011", "rate_limited"),
        (False, "50061", "rate_limited"),
        (False, "50036", "retryable"),
        (False, "60011", "retryable"),
    ]
    assert found[0].message == "Order failed. Insufficient USDT balance in account (subCode 1000)"


def test_single_changes_of_the_manual() -> None:
    cancel = numbered("2510789768709120", action=CANCEL, request_id="1514")
    assert [told(cancel, line) for line in sample("trade.cancel-order.response")] == [
        [ItemAnswer(True, "2510789768709120")],
        [ItemAnswer(False, "2510789768709120", "5XXXX", "Order not exist", "permanent")],
        [NO],
    ]
    amend = numbered("2510789768709120", action=AMEND, request_id="1512")
    text = "Order failed. Insufficient USDT balance in account (subCode 10000)"
    assert [told(amend, line) for line in sample("trade.amend-order.response")] == [
        [ItemAnswer(True, "2510789768709120")],
        [ItemAnswer(False, "2510789768709120", "51008", text, "permanent")],
        [NO],
    ]


def test_each_row_of_a_batch_decides_for_itself() -> None:
    text = "Order failed. Insufficient USDT balance in account (subCode 1000)"
    broke = ItemAnswer(False, None, "51008", text, "permanent")
    assert [told(pair(), line) for line in sample("trade.batch-orders.response")] == [
        [ItemAnswer(True, "12345689"), ItemAnswer(True, "12344")],
        [ItemAnswer(True, "12345689"), broke],
        [broke, broke],
        [NO, NO],
    ]
    first, second = "2517748157541376", "2517748155771904"
    cancel = numbered(first, second, action=CANCEL, request_id="1515")
    gone = [ItemAnswer(False, name, "5XXXX", "order not exist", "permanent") for name in (first, second)]
    assert [told(cancel, line) for line in sample("trade.batch-cancel-orders.response")] == [
        [ItemAnswer(True, first), ItemAnswer(True, second)],
        [ItemAnswer(True, first), gone[1]],
        gone,
        [NO, NO],
    ]


def test_a_batch_of_amendments() -> None:
    made = numbered("12345689", "12344", action=AMEND, request_id="1513")
    found = [told(made, line) for line in sample("trade.batch-amend-orders.response")]
    assert [[answer.accepted for answer in items] for items in found] == [
        [True, True],
        [False, False],
        # The manual's third answer names another order in its second row: of ours nothing is known.
        [True, None],
        [False, False],
    ]


def test_a_mass_cancel() -> None:
    made = request(action=MASS_CANCEL, market="option", family="BTC-USD")
    assert [told(made, line) for line in sample("trade.mass-cancel.response")] == [[ItemAnswer(True)], [NO]]
    assert told(made, response("0", {"result": False}))[0].accepted is False
    assert told(made, response("0"))[0].accepted is None
    assert told(made, response("50004"))[0].accepted is None


@pytest.mark.parametrize("code", ["50004", "50026", "50042", "51149", "64007"])
@pytest.mark.parametrize("action", [CREATE, AMEND, CANCEL])
def test_what_leaves_open_whether_it_was_done(code: str, action: str) -> None:
    made = request(limit_order(), action=action)
    for message in (response("1", row(code)), response(code)):
        (answer,) = told(made, message)
        assert (answer.accepted, answer.code, answer.error_class) == (None, code, None)


@pytest.mark.parametrize("code", ["50071", "51011", "51016"])
def test_a_taken_identifier_may_be_ours_only_of_a_new_order(code: str) -> None:
    (answer,) = told(request(limit_order()), response("1", row(code)))
    assert answer.accepted is None
    (answer,) = told(request(limit_order(), action=AMEND), response("1", row(code)))
    assert answer.accepted is False


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, "rate_limited") for code in ("50011", "50040", "50061", "60014")),
        *((code, "retryable") for code in ("50001", "50013", "50037", "51030", "51513", "54008", "60011")),
        *((code, "permanent") for code in ("51000", "51008", "51020", "51121", "51400", "51603", "60012", "1")),
    ],
)
def test_classes_of_refusals(code: str, kind: str) -> None:
    made = request(limit_order())
    messages = [response(code)] if code == "1" else [response("1", row(code)), response(code)]
    for message in messages:
        (answer,) = told(made, message)
        assert (answer.accepted, answer.code, answer.error_class) == (False, code, kind)


@pytest.mark.parametrize(
    "message",
    [
        response("0"),
        response("2"),
        response("0", row("0"), row("0")),
        response("0", row("0", name="other")),
        response("0", {"ordId": "1"}),
        response("0", 5),  # type: ignore[arg-type]
        response("1", {"sCode": ["0"]}),
    ],
    ids=["done but no row", "partly", "too many rows", "another order", "no code", "no row", "odd code"],
)
def test_what_is_not_told_is_not_assumed(message: bytes) -> None:
    (answer,) = told(request(limit_order()), message)
    assert (answer.accepted, answer.order_id, answer.error_class) == (None, None, None)


def test_rows_in_another_order_than_the_items() -> None:
    rows = (row("51008", "oktswap7"), row("0", "oktswap6", ordId="6"))
    first, second = told(pair(), response("2", *rows, id="1513"))
    assert (first, second.accepted, second.code) == (ItemAnswer(True, "6"), False, "51008")
    first, second = told(pair(), response("2", rows[0], id="1513"))
    assert (first.accepted, second.accepted) == (None, False)


def test_an_order_that_is_named_twice_in_a_batch() -> None:
    made = numbered("7", "7", action=AMEND, request_id="1512")
    first, second = told(made, response("2", row("0", ordId="7"), row("51503", ordId="7")))
    assert (first.accepted, second.accepted, second.code) == (True, False, "51503")


def test_an_error_event_in_the_place_of_an_answer() -> None:
    message = json.dumps({"event": "error", "id": "1513", "code": "60012", "msg": "Invalid request"}).encode()
    assert [(answer.accepted, answer.code) for answer in told(pair(), message)] == [(False, "60012")] * 2
    (answer,) = told(request(limit_order()), b'{"event":"error","id":"1512"}')
    assert answer.accepted is None


def test_an_error_event_about_nothing_of_ours_is_told() -> None:
    session = session_of(request(limit_order()))
    assert session.receive(b'{"event":"error","code":"60012","msg":"Invalid request"}', 7.0) == []
    assert session.notices() == ["okx error 60012: Invalid request"]


def test_a_forgotten_login_wants_another_connection() -> None:
    session = session_of(request(limit_order()))
    session.receive(response("60011", msg="Please log in"), 7.0)
    assert (session.ends_soon, session.ready) == (True, False)


@pytest.mark.parametrize("out_time", [OUT_TIME, None])
def test_used_up_budgets_are_told_by_the_keys_of_the_costs(out_time: int | None) -> None:
    entries = [limit_order(client_order_id="a"), limit_order(listed(OPTION), client_order_id="b")]
    entries.append(limit_order(client_order_id="c"))
    made = request(*entries)
    session = session_of(made)
    rows = (row("50011", "a"), row("50061", "b"), row("50011", "c"))
    more = {} if out_time is None else {"outTime": str(out_time)}
    (answer,) = session.receive(response("1", *rows, **more), 7.7)
    assert [limit.key for limit in answer.limits] == ["batch-orders BTC-USDT-SWAP", "new and amended orders"]
    assert {limit.key for limit in answer.limits} <= {cost.key for cost in TRADING.costs(made)}
    reset = Micros(1704876950000000 if out_time is None else out_time) + 2_000_000
    assert {(limit.remaining, limit.reset) for limit in answer.limits} == {(0, reset)}


def test_a_used_up_budget_of_a_mass_cancel() -> None:
    session = session_of(request(action=MASS_CANCEL, market="option", family="BTC-USD"))
    (answer,) = session.receive(response("50011"), 7.0)
    assert [limit.key for limit in answer.limits] == ["mass-cancel"]


def test_numbers_in_the_place_of_texts() -> None:
    message = (
        b'{"id":1512,"op":"order","code":0,"msg":null,"inTime":1695190491421339,"outTime":"soon",'
        b'"data":[{"ordId":12345689,"clOrdId":null,"sCode":0,"sMsg":"","ts":1695190491421.5}]}'
    )
    (answer,) = session_of(request(limit_order())).receive(message, 7.0)
    assert (answer.items, answer.in_time, answer.out_time) == ((ItemAnswer(True, "12345689"),), IN_TIME, None)


@pytest.mark.parametrize("time", ["9" * 19, "9" * 5000, "-1", "1.5", "\u0661"])
def test_a_time_that_is_none_costs_no_answer(time: str) -> None:
    (answer,) = session_of(request(limit_order())).receive(response("0", row("0"), inTime=time, outTime=time), 7.0)
    assert (answer.items[0].accepted, answer.in_time, answer.out_time) == (True, None, None)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"op":"order"}',
        b'{"arg":{"channel":"orders"},"data":[]}',
        response("0", id="other"),
        response("0", id=""),
        response("", row("0")),
        b'{"id":"1512","op":"order","code":"0","data":{}}',
        b"[" * 100_000,
    ],
    ids=range(10),
)
def test_odd_messages_become_notices(message: bytes) -> None:
    session = session_of(request(limit_order()))
    assert session.receive(message, 7.0) == []
    (notice,) = session.notices()
    assert notice.startswith("okx sent a message of no known form")
    assert len(session.receive(response("0", row("0")), 8.0)) == 1


def test_notices_are_bounded() -> None:
    session = session_of()
    for _ in range(MAX_NOTICES + 10):
        session.receive(b"{}", 7.0)
    assert len(session.notices()) == MAX_NOTICES


LEAVES = st.sampled_from(["0", "1", "2", "50004", "51008"]) | st.text(max_size=5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["0", "1", "2", "50004", "51008"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["sCode", "ordId", "clOrdId", "result", "sMsg"]) | st.text(max_size=2), inner)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({"id": st.just("1513")}, optional={"code": JSON, "data": JSON, "msg": JSON, "inTime": JSON}),
    st.booleans(),
)
def test_an_answer_of_any_form_is_one_per_item_or_a_notice(fields: dict[str, Any], as_event: bool) -> None:
    made = pair()
    session = session_of(made)
    event = {"event": "error"} if as_event else {"op": "batch-orders"}
    found = session.receive(json.dumps({**fields, **event}).encode(), 7.0)
    notices = session.notices()
    assert (len(found), len(notices)) in {(1, 0), (0, 1)}
    for answer in found:
        assert (answer.request_id, len(answer.items)) == (made.id, 2)
        for part in answer.items:
            assert (part.error_class is None) == (part.accepted is not False)
        accepted = sum(part.accepted is True for part in answer.items)
        rows = data if isinstance(data := fields.get("data"), list) and not as_event else []
        assert accepted <= sum(isinstance(row, dict) and str(row.get("sCode")) == "0" for row in rows)


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(message: bytes) -> None:
    session = session_of(request(limit_order()))
    assert session.receive(message, 7.0) == []
    assert session.ready


def test_an_item_needs_no_client_order_id_to_be_cancelled() -> None:
    entry: TradeItem = item(listed(SWAP), order_id="5")
    assert told(request(entry, action=CANCEL), response("0", row("0", name="whatever", ordId="5")))[0].accepted
