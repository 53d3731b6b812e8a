"""The control protocol, in all dialects, on a clock of numbers."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.accounts import Credentials, Login
from pipeline.exchanges.bybit.session import BybitSession
from pipeline.exchanges.bybit.signing import signature
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import SessionTimes, Subscription
from pipeline.model.errors import DeadlineMissed, HeartbeatLost, LoginFailed, Refused, Retryable, SessionError
from tests.exchanges.bybit.samples import lines

VENUE = Bybit()
ACK: dict[str, dict[str, Any]] = {
    "spot": {"success": True, "ret_msg": "subscribe", "conn_id": "c", "req_id": "1", "op": "subscribe"},
    "linear": {"success": True, "ret_msg": "", "conn_id": "c", "req_id": "1", "op": "subscribe"},
    "inverse": {"success": True, "ret_msg": "", "conn_id": "c", "req_id": "1", "op": "subscribe"},
    "option": {
        "success": True,
        "conn_id": "c",
        "data": {"failTopics": [], "successTopics": ["publicTrade.A", "publicTrade.B"]},
        "type": "COMMAND_RESP",
    },
}
PONGS = {
    name: lines(name)[0]
    for name in (
        "control.pong.public.spot",
        "control.pong.public.linear",
        "control.pong.public.option",
        "control.pong.private",
        "trade.pong",
    )
}


def subscription(topic: str, market: str = "linear") -> Subscription:
    channel, _, instrument = topic.rpartition(".")
    return Subscription(topic, "trade", channel, market, instrument, market)


def started(endpoint: str, *topics: str, **times: float) -> BybitSession:
    wanted = [subscription(topic, endpoint) for topic in topics]
    session = VENUE.session(endpoint, wanted, SessionTimes(**{"ping_every": 20.0, "pong_within": 10.0, **times}))
    session.start(0.0)
    return session


def sent(session: BybitSession) -> list[dict[str, Any]]:
    return [json.loads(text) for text in session.data_to_send()]


def answer(session: BybitSession, now: float = 0.0, **fields: Any) -> None:
    assert session.receive(json.dumps(fields).encode(), now) is False


def ack(session: BybitSession, request: dict[str, Any], now: float = 0.0) -> None:
    answer(session, now, success=True, ret_msg="", conn_id="c", req_id=request["req_id"], op=request["op"])


def refuse(session: BybitSession, request: dict[str, Any], why: str, now: float = 0.0) -> None:
    answer(session, now, success=False, ret_msg=why, conn_id="c", req_id=request["req_id"], op=request["op"])


def outcomes(session: BybitSession) -> list[tuple[str, str, str]]:
    return [(each.subscription.topic, each.status, each.reason) for each in session.outcomes()]


def test_nothing_happens_before_the_start() -> None:
    session = VENUE.session("linear", [subscription("publicTrade.A")], VENUE.session_times)
    assert (session.data_to_send(), session.next_deadline(), session.ready) == ([], inf, False)


def test_a_connection_without_subscriptions_is_ready_at_once() -> None:
    assert started("linear").ready


@pytest.mark.parametrize("endpoint", list(ACK))
def test_acknowledgement_in_every_dialect(endpoint: str) -> None:
    session = started(endpoint, "publicTrade.A", "publicTrade.B")
    assert sent(session) == [{"req_id": "1", "op": "subscribe", "args": ["publicTrade.A", "publicTrade.B"]}]
    assert not session.ready
    answer(session, **ACK[endpoint])
    assert session.ready
    assert outcomes(session) == [("publicTrade.A", "subscribed", ""), ("publicTrade.B", "subscribed", "")]
    assert outcomes(session) == []
    assert session.notices() == []


def test_an_acknowledgement_without_identifier_is_of_the_oldest_request() -> None:
    session = started("spot", *(f"publicTrade.{n}" for n in range(11)))
    assert len(sent(session)) == 2
    (without_id,) = lines("control.subscribe.ack.public.spot")[1:]
    assert session.receive(without_id, 0.0) is False
    assert [topic for topic, _, _ in outcomes(session)] == [f"publicTrade.{n}" for n in range(10)]
    assert not session.ready
    assert session.receive(lines("control.subscribe.ack.public.linear")[0], 0.0) is False
    assert session.ready


def test_an_acknowledgement_of_another_request_is_a_notice() -> None:
    session = started("spot", "publicTrade.A")
    assert session.receive(lines("control.subscribe.ack.public.spot")[0], 0.0) is False
    assert not session.ready
    assert "10001" in session.notices()[0]
    assert session.notices() == []


def test_requests_are_chunked_by_market() -> None:
    topics = [f"publicTrade.{n}" for n in range(25)]
    chunks = [request["args"] for request in sent(started("spot", *topics))]
    assert chunks == [topics[:10], topics[10:20], topics[20:]]
    topics = [f"publicTrade.{n}" for n in range(401)]
    requests = sent(started("linear", *topics))
    assert [len(request["args"]) for request in requests] == [200, 200, 1]
    assert [request["req_id"] for request in requests] == ["1", "2", "3"]


def test_requests_keep_to_their_budget() -> None:
    session = started("spot", *(f"publicTrade.{n}" for n in range(205)))
    first = sent(session)
    assert len(first) == 20
    assert session.next_deadline() == 1.0
    session.on_deadline(0.5)
    assert sent(session) == []
    session.on_deadline(1.0)
    assert len(sent(session)) == 1
    assert session.next_deadline() == 10.0


def test_a_silent_server_misses_the_acknowledgement() -> None:
    session = started("linear", "publicTrade.A")
    assert session.next_deadline() == 10.0
    session.on_deadline(9.99)
    with pytest.raises(DeadlineMissed, match=r"subscribe of publicTrade\.A: no answer within 10 s"):
        session.on_deadline(10.0)


def test_pings_keep_their_cadence() -> None:
    session = started("linear")
    for turn in range(1, 4):
        assert session.next_deadline() == 20.0 * turn
        session.on_deadline(20.0 * turn)
        assert sent(session) == [{"req_id": f"ping-{turn}", "op": "ping"}]
        assert session.receive(PONGS["control.pong.public.linear"], 20.0 * turn + 0.1) is False
    assert session.notices() == []


@pytest.mark.parametrize("pong", PONGS.values(), ids=list(PONGS))
def test_a_pong_of_any_dialect_is_life(pong: bytes) -> None:
    session = started("linear")
    session.on_deadline(20.0)
    assert session.receive(pong, 20.5) is False
    assert session.notices() == []
    session.on_deadline(40.0)
    session.on_deadline(60.0)
    assert session.next_deadline() == 70.5
    session.on_deadline(70.4)
    with pytest.raises(HeartbeatLost, match="neither data nor pong for 50 s, 3 pings sent"):
        session.on_deadline(70.5)


def test_silence_since_the_start_ends_the_connection() -> None:
    session = started("linear", ping_every=5.0, pong_within=2.0)
    session.on_deadline(5.0)
    session.on_deadline(10.0)
    assert session.next_deadline() == 12.0
    with pytest.raises(HeartbeatLost):
        session.on_deadline(12.0)


def test_data_are_life_without_any_pong() -> None:
    session = started("linear")
    for second in range(1, 300):
        assert session.receive(b'{"topic":"publicTrade.A","data":[]}', float(second)) is True
        session.on_deadline(float(second))
    assert len(sent(session)) == 14


def test_data_may_come_before_the_acknowledgement() -> None:
    session = started("linear", "publicTrade.A")
    assert session.receive(b'{"topic":"publicTrade.A","data":[]}', 0.1) is True
    assert session.receive(b'{"id":"tickers.A-1-2","topic":"tickers.A"}', 0.2) is True
    assert session.receive(b' { "ts": 1, "topic":"publicTrade.A","data":[]}', 0.3) is True
    assert not session.ready


def test_every_data_sample_is_data_and_no_control_sample_is() -> None:
    session = started("linear")
    for name in ("public.linear.orderbook.50", "public.option.tickers", "public.spot.tickers", "private.order"):
        assert all(session.receive(message, 1.0) for message in lines(name)), name


def test_one_bad_topic_does_not_take_its_neighbours_along() -> None:
    session = started("linear", "publicTrade.A", "orderbook.500.BTCUSDT", "publicTrade.B")
    (request,) = sent(session)
    refuse(session, request, "error:handler not found,topic:orderbook.500.BTCUSDT")
    alone = sent(session)
    assert [each["args"] for each in alone] == [["publicTrade.A"], ["orderbook.500.BTCUSDT"], ["publicTrade.B"]]
    ack(session, alone[0])
    refuse(session, alone[1], "error:handler not found,topic:orderbook.500.BTCUSDT")
    assert not session.ready
    ack(session, alone[2])
    assert session.ready
    assert outcomes(session) == [
        ("publicTrade.A", "subscribed", ""),
        ("orderbook.500.BTCUSDT", "refused", "error:handler not found,topic:orderbook.500.BTCUSDT"),
        ("publicTrade.B", "subscribed", ""),
    ]


def test_recorded_error_without_identifier() -> None:
    session = started("spot", "publicTrade.A", "publicTrade.B")
    sent(session)
    assert session.receive(lines("control.subscribe.error.public.recorded")[0], 0.0) is False
    assert [each["args"] for each in sent(session)] == [["publicTrade.A"], ["publicTrade.B"]]


def test_already_subscribed_is_a_success() -> None:
    session = started("linear", "orderbook.50.BTCUSDT")
    (request,) = sent(session)
    refuse(session, request, "error:already subscribed,topic:orderbook.50.BTCUSDT")
    assert outcomes(session) == [("orderbook.50.BTCUSDT", "subscribed", "")]
    both = started("linear", "orderbook.50.BTCUSDT", "publicTrade.A")
    (request,) = sent(both)
    refuse(both, request, "error:already subscribed,topic:orderbook.50.BTCUSDT")
    first, second = sent(both)
    refuse(both, first, "error:already subscribed,topic:orderbook.50.BTCUSDT")
    ack(both, second)
    assert [status for _, status, _ in outcomes(both)] == ["subscribed", "subscribed"]


def test_options_name_what_failed() -> None:
    session = started("option", "orderbook.100.BTC-6JAN23-18000-C", "orderbook.50.BTC-6JAN23-18000-C")
    sent(session)
    assert session.receive(lines("derived.control.subscribe.error.option")[0], 0.0) is False
    assert session.ready
    assert outcomes(session) == [
        ("orderbook.100.BTC-6JAN23-18000-C", "subscribed", ""),
        ("orderbook.50.BTC-6JAN23-18000-C", "refused", "listed in failTopics"),
    ]


def test_options_are_judged_by_their_failures_not_by_success() -> None:
    session = started("option", "publicTrade.A", "publicTrade.B")
    data = {"failTopics": ["publicTrade.A"], "successTopics": ["publicTrade.B"]}
    answer(session, success=True, data=data, type="COMMAND_RESP")
    assert [status for _, status, _ in outcomes(session)] == ["subscribed", "refused"]
    answer(session, success=True, data={"successTopics": ["publicTrade.Z"]}, type="COMMAND_RESP")
    assert len(session.notices()) == 1


def test_an_option_answer_without_topics_is_of_the_oldest_request() -> None:
    session = started("option", "publicTrade.A")
    answer(session, success=True, conn_id="c", type="COMMAND_RESP")
    assert session.ready
    answer(session, success=True, conn_id="c", type="COMMAND_RESP")
    assert len(session.notices()) == 1
    refused = started("option", "publicTrade.A")
    answer(refused, success=False, ret_msg="no", data={"failTopics": [], "successTopics": []}, type="COMMAND_RESP")
    assert outcomes(refused) == [("publicTrade.A", "refused", "no")]


def test_trouble_that_passes_is_asked_again_later() -> None:
    session = started("linear", "publicTrade.A")
    (request,) = sent(session)
    refuse(session, request, "Too many visits!", now=1.0)
    assert sent(session) == []
    assert session.next_deadline() == 11.0
    session.on_deadline(11.0)
    (again,) = sent(session)
    assert again["args"] == ["publicTrade.A"]
    ack(session, again, 11.0)
    assert outcomes(session) == [("publicTrade.A", "subscribed", "")]


@pytest.mark.parametrize("endpoint", ["linear", "option"])
def test_resync_unsubscribes_waits_and_subscribes(endpoint: str) -> None:
    session = started(endpoint, "publicTrade.A", "publicTrade.B")
    answer(session, **ACK[endpoint])
    sent(session)
    outcomes(session)
    session.resync(subscription("publicTrade.A", endpoint), 5.0)
    session.resync(subscription("publicTrade.A", endpoint), 5.0)
    (leave,) = sent(session)
    assert (leave["op"], leave["args"]) == ("unsubscribe", ["publicTrade.A"])
    command = {"success": True, "data": {"failTopics": [], "successTopics": ["publicTrade.A"]}, "type": "COMMAND_RESP"}

    def grant(request: dict[str, Any]) -> None:
        if endpoint == "option":
            answer(session, 6.0, **command)
        else:
            ack(session, request, 6.0)

    grant(leave)
    assert not session.ready
    (join,) = sent(session)
    assert (join["op"], join["args"]) == ("subscribe", ["publicTrade.A"])
    grant(join)
    assert session.ready
    assert outcomes(session) == [("publicTrade.A", "subscribed", "")]


def test_unsubscribing_and_subscribing_more() -> None:
    session = started("linear", "publicTrade.A")
    ack(session, sent(session)[0])
    outcomes(session)
    session.subscribe([subscription("publicTrade.A"), subscription("publicTrade.B")], 1.0)
    (more,) = sent(session)
    assert more["args"] == ["publicTrade.B"]
    session.unsubscribe([subscription("publicTrade.A")], 2.0)
    (leave,) = sent(session)
    ack(session, more)
    ack(session, leave)
    assert [(topic, status) for topic, status, _ in outcomes(session)] == [
        ("publicTrade.B", "subscribed"),
        ("publicTrade.A", "unsubscribed"),
    ]


@pytest.mark.parametrize(
    ("code", "error"), [(10003, Refused), (10010, Refused), (10016, Retryable), (10429, Retryable)]
)
def test_error_codes_end_the_conversation(code: int, error: type[SessionError]) -> None:
    with pytest.raises(error, match=f"{code}: linear: why"):
        started("linear").receive(json.dumps({"retCode": code, "retMsg": "why", "op": "auth"}).encode(), 0.0)


def test_unknown_messages_become_notices_and_unreadable_ones_go_to_the_normalizer() -> None:
    session = started("linear")
    unknown = [b'{"hello":1}', b'{"op":["subscribe"]}', b'{"type":{}}', b"[1]", b'{"success":false}']
    for message in unknown:
        assert session.receive(message, 0.0) is False
    assert session.notices() == [f"bybit linear: {message.decode()}" for message in unknown]
    for message in (b"", b"{", b"\xff", b"[" * 100_000):
        assert session.receive(message, 0.0) is True
    session.receive(json.dumps({"hello": "x" * 5000}).encode(), 0.0)
    assert len(session.notices()[0]) < 400


def logging_in(*topics: str, endpoint: str = "private", now: float = 0.0, epoch: float = 1.6e9) -> BybitSession:
    wanted = [subscription(topic, endpoint) for topic in topics]
    login = Login(Credentials("KEY", "TESTSECRET"), epoch)
    session = VENUE.session(endpoint, wanted, VENUE.session_times, login)
    session.start(now)
    return session


@pytest.mark.parametrize(("endpoint", "identifier"), [("private", "req_id"), ("trade", "reqId")])
def test_the_login_goes_first_by_the_venues_clock(endpoint: str, identifier: str) -> None:
    # Our clock says 50.25 s on; the venue's, to which the run's seconds are added, is what counts.
    session = logging_in("order", endpoint=endpoint, now=50.25, epoch=1662350339.75)
    proof = "0275f66dd946f3d1fc4b8958ea3f134c6702284d719ff4acb110e927415cca6e"
    assert signature("TESTSECRET", "GET/realtime1662350400000") == proof
    assert sent(session) == [{identifier: "login", "op": "auth", "args": ["KEY", 1662350400000, proof]}]
    assert not session.ready


@pytest.mark.parametrize(
    "granted",
    [
        lines("control.auth.ack.private")[0],
        lines("trade.auth.response")[0],
        lines("derived.trade.auth.error.response")[1],
        b'{"retCode":0,"retMsg":"OK","op":"auth","reqId":"login","connId":"c"}',
        b'{"success":true,"ret_msg":"","type":"AUTH_RESP","conn_id":"c"}',
        b'{"success":true,"ret_msg":"","op":"auth","req_id":"login","conn_id":"c"}',
    ],
    ids=["private", "trade", "repeated", "with reqId", "AUTH_RESP", "with req_id"],
)
def test_what_was_wanted_is_asked_for_when_the_login_is_granted(granted: bytes) -> None:
    session = logging_in("order", "execution")
    assert len(sent(session)) == 1
    session.subscribe([subscription("wallet", "private")], 0.5)
    assert sent(session) == []
    assert session.receive(granted, 1.0) is False
    requests = sent(session)
    assert [(each["op"], each["args"]) for each in requests] == [
        ("subscribe", [topic]) for topic in ("order", "execution", "wallet")
    ]
    assert not session.ready
    for _ in requests:
        assert session.receive(lines("control.subscribe.ack.private")[0], 1.5) is False
    assert session.ready
    assert [status for _, status, _ in outcomes(session)] == ["subscribed"] * 3
    assert session.notices() == []


def test_a_login_without_subscriptions_is_ready_when_it_is_granted() -> None:
    session = logging_in(endpoint="trade")
    assert not session.ready
    session.receive(lines("trade.auth.response")[0], 1.0)
    assert session.ready


def test_pings_do_not_wait_for_the_login_nor_answer_it() -> None:
    session = logging_in("order")
    sent(session)
    session.receive(PONGS["control.pong.private"], 1.0)
    assert not session.ready
    assert session.next_deadline() == 10.0
    with pytest.raises(DeadlineMissed, match="login: no answer within 10 s"):
        session.on_deadline(10.0)


def test_a_granted_login_is_waited_for_no_longer() -> None:
    session = logging_in()
    session.receive(lines("control.auth.ack.private")[0], 1.0)
    assert session.next_deadline() == 20.0
    session.on_deadline(10.0)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        *((text.decode(), LoginFailed) for text in lines("control.auth.error.private.recorded")),
        ('{"success":false,"ret_msg":"Params Error","type":"AUTH_RESP"}', LoginFailed),
        ('{"success":false,"ret_msg":"Params Error","conn_id":"c"}', LoginFailed),
        ('{"success":false,"ret_msg":"Too many visits!","op":"auth"}', Retryable),
        ('{"success":false,"op":"auth"}', LoginFailed),
        ('{"op":"auth"}', LoginFailed),
        (lines("derived.trade.auth.error.response")[0].decode(), Refused),
        ('{"retCode":10004,"retMsg":"invalid sign","connId":"c"}', Refused),
    ],
    ids=str,
)
def test_a_login_that_is_not_granted(text: str, error: type[SessionError]) -> None:
    with pytest.raises(error, match=r"^login: bybit answered") as raised:
        logging_in("order").receive(text.encode(), 1.0)
    assert type(raised.value) is error
    assert "TESTSECRET" not in str(raised.value)


LOGIN_ERRORS: dict[int, type[SessionError]] = {
    **dict.fromkeys((10003, 10004, 10005, 10007, 10008, 10009, 10010, 10024, 10027, 10028, 33004, -2015), Refused),
    **dict.fromkeys((10000, 10006, 10016, 10018, 10019, 10403, 10429, 20003, 429, 3100197), Retryable),
    **dict.fromkeys((-1, 10001, 10002, 10777, 99999), LoginFailed),
}


@pytest.mark.parametrize(("code", "error"), LOGIN_ERRORS.items(), ids=map(str, LOGIN_ERRORS))
def test_what_the_code_of_a_failed_login_says(code: int, error: type[SessionError]) -> None:
    answered = json.dumps({"retCode": code, "retMsg": "why", "op": "auth", "connId": "c"})
    with pytest.raises(error, match=f"login: bybit answered {code}: trade: why") as raised:
        logging_in(endpoint="trade").receive(answered.encode(), 1.0)
    assert type(raised.value) is error


def test_too_many_sessions_have_the_code_of_a_bad_key_and_pass() -> None:
    answered = b'{"retCode":10003,"retMsg":"Too many sessions under the same UID.","op":"auth"}'
    with pytest.raises(Retryable):
        logging_in(endpoint="trade").receive(answered, 1.0)


def test_a_secret_that_cannot_sign_is_refused_at_the_start() -> None:
    login = Login(Credentials("KEY", "-----BEGIN PRIVATE KEY-----"), 0.0)
    with pytest.raises(Refused, match="api_secret"):
        VENUE.session("private", [], VENUE.session_times, login).start(0.0)


def test_an_answer_to_no_login_is_a_notice() -> None:
    session = started("linear", "publicTrade.A")
    for message in (lines("control.auth.ack.private")[0], lines("control.auth.error.private.recorded")[0]):
        assert session.receive(message, 0.0) is False
    assert len(session.notices()) == 2


def test_a_subscription_that_came_before_the_login_is_asked_again() -> None:
    session = logging_in("order")
    session.receive(lines("control.auth.ack.private")[0], 1.0)
    _, request = sent(session)
    refuse(session, request, "error:topic:order needs auth first", now=2.0)
    assert outcomes(session) == []
    session.on_deadline(12.0)
    assert [each["args"] for each in sent(session)] == [["order"]]


def test_a_private_topic_that_fails_does_not_take_its_neighbours_along() -> None:
    session = logging_in("order", "strategy")
    session.receive(lines("control.auth.ack.private")[0], 1.0)
    _, order, strategy = sent(session)
    refuse(session, strategy, "error:handler not found,topic:strategy")
    ack(session, order)
    assert session.ready
    assert outcomes(session) == [
        ("strategy", "refused", "error:handler not found,topic:strategy"),
        ("order", "subscribed", ""),
    ]


@given(
    st.dictionaries(
        st.sampled_from(["op", "type", "success", "ret_msg", "data", "req_id", "failTopics", "successTopics"]),
        st.sampled_from(["subscribe", "unsubscribe", "COMMAND_RESP", "1", "pong", True, False, None])
        | st.dictionaries(st.sampled_from(["failTopics", "successTopics"]), st.lists(st.none() | st.text(max_size=2))),
    )
)
def test_no_answer_breaks_the_session(fields: dict[str, Any]) -> None:
    session = started("linear", "a", "b")
    assert session.receive(json.dumps(fields).encode(), 0.0) is False
    assert {status for _, status, _ in outcomes(session)} <= {"subscribed", "refused"}
