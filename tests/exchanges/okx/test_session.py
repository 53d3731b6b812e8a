from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest

from pipeline.exchanges.accounts import Credentials, Login
from pipeline.exchanges.okx.session import OkxSession
from pipeline.exchanges.okx.topics import topic
from pipeline.exchanges.okx.venue import LIMITS
from pipeline.exchanges.session import MAX_NOTICES
from pipeline.exchanges.venue import ChannelSpec, SessionTimes, Subscription
from pipeline.model.errors import DeadlineMissed, HeartbeatLost, LoginFailed, Refused
from tests.exchanges.okx.samples import CATALOGUE, VENUE, sample

TIMES = SessionTimes(ping_every=15.0, pong_within=10.0, acknowledge_within=10.0)
LOGIN = Login(Credentials("key", "22582BD0CFF14C41EDBF1AB98506286D", "phrase"), epoch=1704876942.3)
DATA = b'{"arg":{"channel":"trades","instId":"I0-USDT"},"data":[]}'


def subscription(number: int, channel: str = "trades") -> Subscription:
    name = f"I{number}-USDT"
    return Subscription(topic(channel, instId=name), "trade", channel, "spot", name, "public")


def session_of(
    *subscriptions: Subscription, now: float = 0.0, times: SessionTimes = TIMES, login: Login | None = None
) -> OkxSession:
    session = VENUE.session("public", subscriptions, times, login)
    assert isinstance(session, OkxSession)
    assert session.data_to_send() == []
    assert not session.ready
    session.start(now)
    return session


def sent(session: OkxSession) -> list[dict[str, Any]]:
    return [json.loads(text) for text in session.data_to_send() if text != "ping"]


def ack(of: Subscription, op: str = "subscribe", **more: Any) -> bytes:
    return json.dumps({"event": op, "arg": json.loads(of.topic), **more}).encode()


def error(code: str, msg: str = "no", **more: Any) -> bytes:
    return json.dumps({"event": "error", "msg": msg, "code": code, **more}).encode()


def statuses(session: OkxSession) -> list[tuple[str | None, str]]:
    return [(outcome.subscription.instrument, outcome.status) for outcome in session.outcomes()]


def test_one_request_carries_many_topics_with_an_alphanumeric_id() -> None:
    session = session_of(subscription(0), subscription(1))
    args = '{"channel":"trades","instId":"I0-USDT"},{"channel":"trades","instId":"I1-USDT"}'
    assert session.data_to_send() == [f'{{"id":"1","op":"subscribe","args":[{args}]}}']
    assert session.data_to_send() == []


def test_requests_are_cut_at_the_limits() -> None:
    session = session_of(*(subscription(number) for number in range(120)))
    requests = sent(session)
    assert [len(request["args"]) for request in requests] == [50, 50, 20]
    assert len({request["id"] for request in requests}) == 3
    assert LIMITS.topics_per_request * 200 < LIMITS.bytes_per_request < 64 * 1024


def test_acknowledgements_come_per_arg_and_in_any_order() -> None:
    first, second = subscription(0), subscription(1)
    session = session_of(first, second)
    assert not session.receive(ack(second, id="1", connId="a4d3ae55"), 0.1)
    assert not session.ready
    assert not session.receive(ack(first), 0.2)  # servers of 2022 sent no id and no connId
    assert session.ready
    assert statuses(session) == [("I1-USDT", "subscribed"), ("I0-USDT", "subscribed")]
    assert session.outcomes() == []
    assert session.notices() == []


@pytest.mark.parametrize("name", ["control.subscribe.ack", "control.subscribe.ack.observed"])
def test_every_acknowledgement_on_record_is_understood(name: str) -> None:
    for line in sample(name):
        arg = json.loads(line)["arg"]
        arg.pop("connId", None)  # one example has it inside
        wanted = Subscription(topic(**arg), "x", arg["channel"], "spot", None, "public")
        session = session_of(wanted)
        assert not session.receive(line, 0.1)
        assert [(o.subscription, o.status) for o in session.outcomes()] == [(wanted, "subscribed")]
        assert (session.ready, session.notices()) == (True, [])


def test_an_acknowledgement_with_its_keys_in_another_order() -> None:
    wanted = VENUE.subscriptions(ChannelSpec("option", "trade"), [CATALOGUE["option", "BTC-USD-261225-50000-C"]])[0]
    session = session_of(wanted)
    session.receive(
        b'{"arg": {"instFamily":"BTC-USD","connId":"1","instType":"OPTION","channel":"option-trades"},'
        b'"connId":"1", "event":"subscribe"}',
        0.1,
    )
    assert [outcome.status for outcome in session.outcomes()] == ["subscribed"]


def test_data_before_the_acknowledgement_are_data() -> None:
    session = session_of(subscription(0))
    assert session.receive(DATA, 0.1)
    assert not session.ready
    session.receive(ack(subscription(0)), 0.2)
    assert session.ready


@pytest.mark.parametrize(
    "message",
    [
        DATA,
        sample("public.books")[0],
        sample("private.positions.constructed")[0],
        b'{"data":[],"arg":{"channel":"trades","instId":"A-B"}}',
        b'{ "arg": {"channel":"trades","instId":"A-B"}, "data": []}',
        b'{"arg":{"channel":"trades","instId":"A-B"}, "data":[]}',
        sample("business.economic-calendar")[0],
    ],
    ids=["trades", "books", "positions", "data first", "white space", "space after arg", "event inside a row"],
)
def test_what_is_data(message: bytes) -> None:
    session = session_of()
    assert session.receive(message, 1.0)
    assert session.notices() == []


def test_what_cannot_be_read_is_left_to_the_normalizer_to_report() -> None:
    session = session_of()
    for message in (b"", b"\xff\xfe", b'{"arg":', b"[" * 100_000, DATA[20:]):
        assert session.receive(message, 1.0)


def test_one_bad_topic_does_not_take_its_neighbours_along() -> None:
    good, bad, other = subscription(0), subscription(1), subscription(2)
    session = session_of(good, bad, other)
    sent(session)
    session.receive(ack(good, id="1"), 0.1)
    session.receive(error("60018", id="1"), 0.2)
    singles = sent(session)
    assert [request["args"] for request in singles] == [[json.loads(bad.topic)], [json.loads(other.topic)]]
    session.receive(error("60018", "Wrong URL or channel", id=singles[0]["id"]), 0.3)
    session.receive(ack(other, id=singles[1]["id"]), 0.4)
    assert [(o.subscription.instrument, o.status, o.reason) for o in session.outcomes()] == [
        ("I0-USDT", "subscribed", ""),
        ("I1-USDT", "refused", "okx error 60018: Wrong URL or channel"),
        ("I2-USDT", "subscribed", ""),
    ]
    assert session.ready


@pytest.mark.parametrize(
    "code", ["60008", "60011", "60012", "60013", "60018", "60033", "64000", "64001", "64002", "64003", "64004", "99999"]
)
def test_errors_that_refuse_a_topic(code: str) -> None:
    session = session_of(subscription(0))
    assert len(sent(session)) == 1
    session.receive(error(code, id="1"), 0.1)
    assert statuses(session) == [("I0-USDT", "refused")]
    assert session.ready
    session.on_deadline(14.0)
    assert sent(session) == []


@pytest.mark.parametrize("code", ["60014", "64007", "63999", "60023"])
def test_passing_errors_are_asked_again_after_a_pause(code: str) -> None:
    session = session_of(subscription(0))
    (first,) = sent(session)
    session.receive(error(code, id="1"), 1.0)
    assert sent(session) == []
    assert session.next_deadline() == 11.0
    session.on_deadline(11.0)
    (second,) = sent(session)
    assert (second["args"], second["id"]) == (first["args"], "2")
    session.receive(ack(subscription(0), id="2"), 11.1)
    assert statuses(session) == [("I0-USDT", "subscribed")]


@pytest.mark.parametrize("code", ["60005", "60007", "60024", "60026", "60031", "60032"])
def test_refused_logins_end_the_attempts(code: str) -> None:
    for login in (LOGIN, None):
        with pytest.raises(Refused, match=f"okx error {code}: no"):
            session_of(subscription(0), login=login).receive(error(code), 0.1)


@pytest.mark.parametrize("code", ["60004", "60006", "60009", "99999", "60012", "60018", "64003"])
def test_logins_that_fail_for_a_reason_of_which_okx_says_too_little(code: str) -> None:
    with pytest.raises(LoginFailed, match=f"okx error {code}: no"):
        session_of(subscription(0), login=LOGIN).receive(error(code), 0.1)


def test_a_login_answer_with_an_error_code_is_as_an_error() -> None:
    session = session_of(login=LOGIN)
    with pytest.raises(LoginFailed, match="60009"):
        session.receive(b'{"event":"login","code":"60009","msg":"Login failed."}', 0.1)


def test_nothing_is_asked_for_before_the_login_is_granted() -> None:
    orders = subscription(0, "orders")
    session = session_of(orders, login=LOGIN, now=5.0)
    (login,) = sent(session)
    # 1704876942 + 5 s, cut to the second; the signature is the manual's example.
    assert login == {
        "op": "login",
        "args": [
            {
                "apiKey": "key",
                "passphrase": "phrase",
                "timestamp": "1704876947",
                "sign": "5/36BgGV6m/6pmdc20zdqk0mzF5ZalmzzPD2fo3wavU=",
            }
        ],
    }
    session.subscribe([subscription(1, "orders")], 5.1)
    assert sent(session) == []
    assert not session.ready
    assert not session.receive(sample("control.login.ack")[0], 5.2)
    assert [len(request["args"]) for request in sent(session)] == [2]
    session.receive(ack(orders), 5.3)
    assert not session.ready
    session.receive(ack(subscription(1, "orders")), 5.3)
    assert session.ready
    assert session.notices() == []


def test_a_login_without_an_answer_is_missed_at_its_deadline() -> None:
    session = session_of(subscription(0), login=LOGIN)
    assert session.next_deadline() == 10.0
    session.on_deadline(9.9)
    with pytest.raises(DeadlineMissed, match="login"):
        session.on_deadline(10.0)


@pytest.mark.parametrize("code", ["60014", "60023", "63999"])
def test_a_login_that_okx_has_no_time_for_is_repeated_after_a_pause(code: str) -> None:
    session = session_of(subscription(0), login=LOGIN)
    sent(session)
    session.receive(error(code), 1.0)
    assert session.notices() == [f"okx error {code}: no"]
    assert (sent(session), session.ready, session.next_deadline()) == ([], False, 11.0)
    session.on_deadline(11.0)
    (again,) = sent(session)
    assert again["args"][0]["timestamp"] == "1704876953"
    session.on_deadline(20.9)
    assert sent(session) == []
    with pytest.raises(DeadlineMissed, match="login"):
        session.on_deadline(21.0)


def test_a_repeated_login_goes_out_once_and_may_be_granted() -> None:
    session = session_of(subscription(0), login=LOGIN)
    session.receive(error("63999"), 1.0)
    session.on_deadline(11.0)
    session.receive(b'{"event":"login","code":"0","msg":""}', 11.1)
    assert [request["op"] for request in sent(session)] == ["login", "login", "subscribe"]
    session.receive(ack(subscription(0)), 11.2)
    session.on_deadline(24.0)
    assert (sent(session), session.ready) == ([], True)


def test_logins_count_against_the_budget_of_requests() -> None:
    session = session_of(login=LOGIN)
    session.receive(sample("control.login.ack")[0], 0.1)
    for number in range(LIMITS.requests.count):
        session.subscribe([subscription(number)], 1.0)
    assert len(sent(session)) == LIMITS.requests.count


def test_a_request_that_came_before_the_login_has_one_more_chance() -> None:
    session = session_of(subscription(0), login=LOGIN)
    session.receive(sample("control.login.ack")[0], 0.1)
    session.receive(error("60011", "Please log in", id="1"), 0.2)
    assert session.outcomes() == []
    session.on_deadline(10.2)
    session.receive(error("60011", "Please log in", id="2"), 10.3)
    assert [(o.status, o.reason) for o in session.outcomes()] == [("refused", "okx error 60011: Please log in")]


def test_a_channel_that_needs_a_login_says_so() -> None:
    session = session_of(subscription(0, "books-l2-tbt"))
    session.receive(error("60011", "Please log in", id="1"), 0.2)
    (outcome,) = session.outcomes()
    assert outcome.reason == "okx error 60011: Please log in; it needs a login: give the entry an account"


@pytest.mark.parametrize("code", ["60029", "60030", "64003"])
@pytest.mark.parametrize(
    ("channel", "hint"),
    [
        ("books-l2-tbt", "; depth 400 needs no fee tier"),
        ("books50-l2-tbt", "; depth 400 and depth 5 need no fee tier"),
        ("fills", "; channel order brings the same fills"),
        ("economic-calendar", ""),
    ],
)
def test_a_fee_tier_that_is_too_low_comes_with_what_to_take_instead(code: str, channel: str, hint: str) -> None:
    session = session_of(subscription(0, channel))
    session.receive(error(code, "fee tier", id="1"), 0.2)
    assert [(o.status, o.reason) for o in session.outcomes()] == [("refused", f"okx error {code}: fee tier{hint}")]


def test_parameters_that_okx_leaves_out_of_its_answers() -> None:
    slow, quiet = (
        Subscription(topic, "balance", "account", "account", None, "private", needs_login=True)
        for topic in ('{"channel":"account"}', r'{"channel":"account","extraParams":"{\"updateInterval\":\"0\"}"}')
    )
    session = session_of(quiet)
    (request,) = sent(session)
    assert request["args"] == [{"channel": "account", "extraParams": '{"updateInterval":"0"}'}]
    for _ in range(2):
        session.receive(b'{"event":"subscribe","arg":{"channel":"account"}}', 0.1)
    assert [(o.subscription, o.status) for o in session.outcomes()] == [(quiet, "subscribed")]
    session.unsubscribe([quiet], 1.0)
    session.subscribe([slow], 1.0)
    session.receive(b'{"event":"unsubscribe","arg":{"channel":"account"}}', 1.1)
    session.receive(b'{"event":"subscribe","arg":{"channel":"account"}}', 1.2)
    assert [(o.subscription, o.status) for o in session.outcomes()] == [(quiet, "unsubscribed"), (slow, "subscribed")]
    assert (session.ready, session.notices()) == (True, [])


def test_answers_without_parameters_are_told_apart_by_their_operation() -> None:
    never, often = (
        Subscription(
            rf'{{"channel":"positions","instType":"ANY","extraParams":"{{\"updateInterval\":\"{interval}\"}}"}}',
            "position",
            "positions",
            "account",
            None,
            "private",
        )
        for interval in ("0", "2000")
    )
    session = session_of(never)
    arg = b'"arg":{"channel":"positions","instType":"ANY"}}'
    session.receive(b'{"event":"subscribe",' + arg, 0.1)
    session.unsubscribe([never], 1.0)
    session.subscribe([often], 1.0)
    session.receive(b'{"event":"subscribe",' + arg, 1.1)
    session.receive(b'{"event":"unsubscribe",' + arg, 1.2)
    assert [(o.subscription, o.status) for o in session.outcomes()] == [
        (never, "subscribed"),
        (often, "subscribed"),
        (never, "unsubscribed"),
    ]


def test_an_error_without_an_id_is_matched_by_the_names_in_its_text() -> None:
    first, second = subscription(0, "trades"), subscription(1, "index-tickers")
    session = session_of(first)
    session.subscribe([second], 0.1)
    session.receive(error("60018", "Wrong URL or channel:index-tickers, instId:I1-USDT doesn't exist."), 0.2)
    assert statuses(session) == [("I1-USDT", "refused")]
    session.receive(error("64001", "This channel has been migrated"), 0.3)  # names nothing: the oldest request
    assert statuses(session) == [("I0-USDT", "refused")]


def test_an_error_that_no_request_waits_for_is_a_notice() -> None:
    session = session_of(subscription(0))
    session.receive(error("60012", "Invalid request", id="1512"), 0.1)
    assert session.notices() == ["okx error 60012: Invalid request"]
    session.receive(ack(subscription(0)), 0.2)
    session.receive(error("60014", "Requests too frequent"), 0.3)
    assert session.notices() == ["okx error 60014: Requests too frequent"]
    assert statuses(session) == [("I0-USDT", "subscribed")]


@pytest.mark.parametrize("name", ["control.error", "control.error.constructed", "control.error.observed"])
def test_every_error_on_record_is_no_data(name: str) -> None:
    for line in sample(name):
        session = session_of(subscription(0), subscription(1))
        try:
            assert not session.receive(line, 0.1)
        except Refused:
            assert json.loads(line)["code"] in ("60005", "60007", "60024", "60031", "60032")
        except LoginFailed:
            assert json.loads(line)["code"] in ("60004", "60006", "60009")


def test_what_is_acknowledged_again_changes_nothing() -> None:
    session = session_of(subscription(0))
    for at in (0.1, 0.2):
        session.receive(ack(subscription(0)), at)
    assert statuses(session) == [("I0-USDT", "subscribed")]
    assert session.notices() == []
    session.subscribe([subscription(0)], 0.3)
    assert len(sent(session)) == 1  # the first request only


def test_an_acknowledgement_that_nobody_waits_for_is_a_notice() -> None:
    session = session_of()
    session.receive(ack(subscription(3)), 0.1)
    (notice,) = session.notices()
    assert "I3-USDT" in notice


def test_a_missing_acknowledgement_is_missed_at_its_deadline() -> None:
    session = session_of(subscription(0), now=100.0)
    assert session.next_deadline() == 110.0
    session.receive(DATA, 109.0)
    session.on_deadline(109.9)
    with pytest.raises(DeadlineMissed, match=r"subscribe of .*I0-USDT.*no answer within 10 s"):
        session.on_deadline(110.0)


def test_unsubscribe() -> None:
    session = session_of(subscription(0), subscription(1))
    for number in (0, 1):
        session.receive(ack(subscription(number)), 0.1)
    sent(session)
    session.unsubscribe([subscription(0), subscription(9)], 1.0)
    assert sent(session) == [{"id": "2", "op": "unsubscribe", "args": [json.loads(subscription(0).topic)]}]
    session.receive(ack(subscription(0), "unsubscribe", id="2"), 1.1)
    assert statuses(session)[2:] == [("I0-USDT", "unsubscribed")]
    assert session.ready


def test_resync_unsubscribes_and_subscribes_after_the_acknowledgement() -> None:
    book = subscription(0, "books")
    session = session_of(book)
    session.receive(ack(book), 0.1)
    sent(session)
    session.outcomes()
    session.resync(book, 1.0)
    session.resync(book, 1.1)
    assert [request["op"] for request in sent(session)] == ["unsubscribe"]
    session.receive(ack(book, "unsubscribe", id="2"), 1.2)
    assert [request["op"] for request in sent(session)] == ["subscribe"]
    assert statuses(session) == []
    session.receive(ack(book, id="3"), 1.3)
    assert statuses(session) == [("I0-USDT", "subscribed")]


def test_a_subscription_that_the_venue_ends_is_refused() -> None:
    session = session_of(subscription(0))
    session.receive(ack(subscription(0)), 0.1)
    session.outcomes()
    session.receive(ack(subscription(0), "unsubscribe"), 5.0)
    assert [(o.status, o.reason) for o in session.outcomes()] == [("refused", "okx unsubscribed it by itself")]


def test_too_many_connections_of_a_channel_end_its_subscriptions() -> None:
    orders = subscription(0, "orders")
    session = session_of(orders, subscription(1))
    for wanted in (orders, subscription(1)):
        session.receive(ack(wanted), 0.1)
    session.outcomes()
    session.receive(sample("control.channel-conn-count")[0], 0.2)
    assert (session.outcomes(), session.notices()) == ([], [])
    session.receive(sample("control.channel-conn-count-error")[0], 0.3)
    (outcome,) = session.outcomes()
    assert (outcome.subscription, outcome.status) == (orders, "refused")
    assert "30 are open" in outcome.reason
    session.receive(sample("control.channel-conn-count-error")[0], 0.4)
    assert len(session.notices()) == 1


@pytest.mark.parametrize(("count", "is_told"), [("24", False), ("25", True), ("30", True), ("many", False)])
def test_the_limit_of_connections_is_told_when_it_is_near(count: str, is_told: bool) -> None:
    session = session_of()
    session.receive(json.dumps({"event": "channel-conn-count", "channel": "orders", "connCount": count}).encode(), 0.2)
    expected = [f"okx: {count} of at most 30 connections of this account carry channel orders"] if is_told else []
    assert session.notices() == expected


def test_ping_after_silence_and_any_frame_as_the_answer() -> None:
    session = session_of(now=100.0)
    assert session.next_deadline() == 115.0
    session.on_deadline(114.9)
    assert session.data_to_send() == []
    session.on_deadline(115.0)
    assert session.data_to_send() == ["ping"]
    assert session.next_deadline() == 125.0
    assert not session.receive(b"pong", 117.0)
    assert session.next_deadline() == 132.0
    session.on_deadline(132.0)
    session.receive(DATA, 133.0)  # no pong, but a frame
    assert session.next_deadline() == 148.0
    assert session.notices() == []


def test_one_ping_is_enough_however_long_its_answer_may_take() -> None:
    session = session_of(now=0.0, times=SessionTimes(ping_every=5.0, pong_within=20.0))
    session.on_deadline(5.0)
    assert session.data_to_send() == ["ping"]
    assert session.next_deadline() == 25.0
    session.on_deadline(10.0)
    assert session.data_to_send() == []


def test_every_frame_starts_the_silence_anew() -> None:
    session = session_of(now=0.0)
    for now in (5.0, 10.0, 19.0):
        session.receive(DATA, now)
        assert session.next_deadline() == now + 15.0
    session.on_deadline(20.0)
    assert session.data_to_send() == []


def test_a_missed_pong_is_noticed_at_its_time() -> None:
    session = session_of(now=0.0)
    session.on_deadline(15.0)
    session.on_deadline(24.9)
    with pytest.raises(HeartbeatLost, match="no frame within 10 s"):
        session.on_deadline(25.0)


def test_requests_wait_for_the_budget_of_the_venue() -> None:
    session = session_of()
    budget = LIMITS.requests.count
    for number in range(budget + 1):
        session.subscribe([subscription(number)], 1.0)
    assert len(sent(session)) == budget
    for number in range(budget):
        session.receive(ack(subscription(number)), 2.0)
    assert not session.ready
    session.receive(b"pong", 3590.0)
    assert session.next_deadline() == 3601.0
    session.on_deadline(3600.9)
    assert sent(session) == []
    session.on_deadline(3601.0)
    assert len(sent(session)) == 1


def test_announcements_are_handed_out_once() -> None:
    session = session_of()
    for line in sample("control.notice") + sample("control.notice.observed"):
        assert not session.receive(line, 1.0)
    text = "okx notice 64008: The connection will soon be closed for a service upgrade. Please reconnect."
    assert session.notices() == [text] * 3
    assert session.notices() == []


def test_an_upgrade_of_the_service_ends_the_connection_soon() -> None:
    for name in ("control.notice", "control.notice.observed"):
        for line in sample(name):
            session = session_of()
            assert not session.ends_soon
            session.receive(line, 1.0)
            assert session.ends_soon
            session.receive(b'{"event":"notice","code":"1","msg":"else"}', 1.0)
            assert session.ends_soon
    session = session_of()
    session.receive(b'{"event":"notice","code":"1","msg":"else"}', 1.0)
    assert not session.ends_soon


@pytest.mark.parametrize(
    "message",
    [
        b"1",
        b"[]",
        b'"text"',
        b"{}",
        b'{"event":"surprise"}',
        b'{"event":{}}',
        b'{"event":"subscribe"}',
        b'{"event":"subscribe","arg":{"instId":"X"}}',
        b'{"event":"unsubscribe","arg":[1]}',
        b'{"op":"order","code":"0","data":[]}',
    ],
    ids=range(10),
)
def test_messages_of_no_known_form_are_notices(message: bytes) -> None:
    session = session_of(subscription(0))
    assert not session.receive(message, 1.0)
    (notice,) = session.notices()
    assert message.decode() in notice


def test_notices_are_bounded_in_number_and_length() -> None:
    session = session_of()
    for _ in range(MAX_NOTICES + 5):
        session.receive(b'{"x":"' + b"y" * 10_000 + b'"}', 1.0)
    notices = session.notices()
    assert len(notices) == MAX_NOTICES
    assert max(len(notice) for notice in notices) < 500


def test_odd_fields_in_events_raise_nothing() -> None:
    session = session_of(subscription(0))
    for event in ("subscribe", "unsubscribe", "error", "login", "notice", "channel-conn-count-error"):
        odd_values: list[Any] = [None, 7, [], {}, "x", {"channel": 7}]
        for value in odd_values:
            odd = {"event": event, "arg": value, "id": value, "code": value, "msg": value, "channel": value}
            assert not session.receive(json.dumps(odd).encode(), 1.0)


@pytest.mark.parametrize(
    ("times", "fields"),
    [
        (TIMES, []),
        (SessionTimes(29.9, 10.0), []),
        (SessionTimes(30.0, 10.0), ["ping_every"]),
        (SessionTimes(0.0, -1.0, 0.0), ["ping_every", "pong_within", "acknowledge_within"]),
        (SessionTimes(inf, 10.0), ["ping_every"]),
    ],
    ids=range(5),
)
def test_times_that_the_venue_does_not_allow(times: SessionTimes, fields: list[str]) -> None:
    assert [field for field, _ in VENUE.session_problems(times)] == fields
