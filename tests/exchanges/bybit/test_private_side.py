"""What an account may be asked for, the venue's clock, and whether a key is good."""

from __future__ import annotations

import json
from math import inf

import pytest

from pipeline.exchanges.accounts import Accounts, AccountSpec
from pipeline.exchanges.bybit.private_side import BybitAccounts
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.model.errors import BadMessage, LoginFailed, Refused, Retryable, SessionError
from tests.exchanges.bybit.samples import body, lines

VENUE = Bybit()
ACCOUNTS = BybitAccounts()
MARKETS = ("spot", "linear", "inverse", "option")


def subscribed(channel: str, market: str | None = None) -> tuple[str, str, str, str]:
    spec = AccountSpec(channel, market)
    assert ACCOUNTS.problems(spec) == []
    (found,) = ACCOUNTS.subscriptions(spec)
    assert (found.endpoint, found.needs_login, found.max_silence, found.instrument) == ("private", True, inf, None)
    return found.topic, found.kind, found.channel, found.market


def test_bybit_has_accounts() -> None:
    side: Accounts | None = VENUE.accounts
    assert isinstance(side, BybitAccounts)
    assert not side.needs_passphrase


@pytest.mark.parametrize(
    ("channel", "topic"),
    [
        ("order", "order"),
        ("fill", "execution"),
        ("position", "position"),
        ("balance", "wallet"),
        ("account_greeks", "greeks"),
        ("fast_fill", "execution.fast"),
        ("spread_order", "spread.order"),
        ("spread_fill", "spread.execution"),
        ("strategy", "strategy"),
    ],
)
def test_our_names_and_the_venues_are_one_channel(channel: str, topic: str) -> None:
    assert channel in ACCOUNTS.channels
    assert subscribed(channel) == subscribed(topic) == (topic, channel, topic, "account")


@pytest.mark.parametrize("topic", ["rfq.open.rfqs", "rfq.open.quotes", "rfq.open.trades"])
def test_topics_without_a_name_of_ours(topic: str) -> None:
    assert subscribed(topic) == (topic, topic, topic, "account")


@pytest.mark.parametrize(
    ("channel", "markets"),
    [("order", MARKETS), ("fill", MARKETS), ("fast_fill", MARKETS), ("position", MARKETS[1:])],
)
def test_one_market_alone_is_the_categorised_topic(channel: str, markets: tuple[str, ...]) -> None:
    plain = subscribed(channel)[0]
    for market in markets:
        expected = (f"{plain}.{market}", channel, plain, market)
        assert subscribed(channel, market) == subscribed(f"{plain}.{market}") == expected
        assert subscribed(f"{plain}.{market}", market) == expected
        assert ACCOUNTS.catalogue_markets(AccountSpec(channel, market)) == (market,)
        assert ACCOUNTS.catalogue_markets(AccountSpec(f"{plain}.{market}")) == (market,)
    assert ACCOUNTS.catalogue_markets(AccountSpec(channel)) == markets


def test_disconnection_protection_is_armed_by_market_and_never_for_all() -> None:
    assert subscribed("dcp", "spot") == ("dcp.spot", "dcp", "dcp.spot", "spot")
    assert subscribed("dcp", "option") == ("dcp.option", "dcp", "dcp.option", "option")
    for market in ("linear", "inverse"):
        assert subscribed("dcp", market) == ("dcp.future", "dcp", "dcp.future", market)
    assert subscribed("dcp.future")[0] == "dcp.future"
    ((field, why),) = ACCOUNTS.problems(AccountSpec("dcp"))
    assert field == "market"
    assert "cancels all orders" in why


def test_markets_whose_instruments_are_in_the_events() -> None:
    assert ACCOUNTS.catalogue_markets(AccountSpec("spread_order")) == ("spread", "spot", "linear")
    for channel in ("balance", "account_greeks", "strategy", "rfq.open.rfqs"):
        assert ACCOUNTS.catalogue_markets(AccountSpec(channel)) == ()
    assert ACCOUNTS.catalogue_markets(AccountSpec("dcp", "spot")) == ()


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        (AccountSpec("orders"), "channel", 'unknown channel "orders"; did you mean "order"?'),
        (AccountSpec("walet"), "channel", 'did you mean "wallet"?'),
        (AccountSpec("zzz"), "channel", "bybit has order, fill, position"),
        (AccountSpec("position.spot"), "channel", "unknown channel"),
        (AccountSpec("position", "spot"), "market", "no position in spot, only in linear, inverse, option"),
        (AccountSpec("order", "spread"), "market", "no order in spread, only in spot"),
        (AccountSpec("order.linear", "spot"), "market", "contradicts order.linear, which is of linear"),
        (AccountSpec("balance", "linear"), "market", "of the account as a whole"),
        (AccountSpec("rfq.open.rfqs", "linear"), "market", "of the account as a whole"),
        (AccountSpec("order", params={"updateInterval": "0"}), "params", "have none"),
    ],
)
def test_problems_name_field_and_remedy(spec: AccountSpec, field: str, why: str) -> None:
    ((found, text),) = ACCOUNTS.problems(spec)
    assert found == field
    assert why in text


@pytest.mark.parametrize("channel", sorted({*ACCOUNTS.channels, "rfq.open.quotes"} - {"dcp"}))
def test_a_topic_brings_the_channel_it_promises(channel: str) -> None:
    (found,) = ACCOUNTS.subscriptions(AccountSpec(channel))
    normalizer = VENUE.normalizer("private", "c#1", {}, account="main")
    events = normalizer.normalize(lines(f"private.{found.topic}")[0], 1)
    assert {getattr(event, "channel", None) for event in events} == {found.channel}


def test_both_forms_of_a_stream_never_share_a_request() -> None:
    wanted = [each for market in (None, "linear") for each in ACCOUNTS.subscriptions(AccountSpec("order", market))]
    session = VENUE.session("private", wanted, VENUE.session_times)
    session.start(0.0)
    assert [json.loads(text)["args"] for text in session.data_to_send()] == [["order"], ["order.linear"]]


def test_the_servers_time() -> None:
    assert ACCOUNTS.time_path == "/v5/market/time"
    assert ACCOUNTS.read_time(body("rest.market.time")) == 1688639403423213
    coarse = {"retCode": 0, "retMsg": "OK", "result": {"timeSecond": "1"}, "time": 1688639403423}
    assert ACCOUNTS.read_time(json.dumps(coarse).encode()) == 1688639403423000


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", BadMessage),
        (b"[]", BadMessage),
        (b'{"retCode":0,"result":{}}', BadMessage),
        (b'{"retCode":0,"result":{"timeNano":"soon"}}', BadMessage),
        (b'{"retCode":0,"result":{"timeNano":[1]}}', BadMessage),
        (b'{"retCode":10006,"retMsg":"Too many visits!"}', Retryable),
        (b'{"retCode":10009,"retMsg":"banned"}', Refused),
    ],
)
def test_a_time_that_cannot_be_read(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        ACCOUNTS.read_time(text)


def verified(text: bytes) -> None:
    steps = ACCOUNTS.verify()
    assert next(steps) == "/v5/account/info"
    with pytest.raises(StopIteration):
        steps.send(text)


def test_a_good_key() -> None:
    verified(body("rest.account.info"))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *((code, Refused) for code in (10003, 10004, 10005, 10007, 10008, 10009, 10010, 10028, 33004, -2015)),
        *((code, Retryable) for code in (-1, 10000, 10002, 10006, 10016, 10429, 110071)),
    ],
)
def test_what_a_refused_request_says_of_the_key(code: int, error: type[SessionError]) -> None:
    with pytest.raises(error, match=rf"^bybit answered {code}: why \(/v5/account/info\)$") as raised:
        verified(json.dumps({"retCode": code, "retMsg": "why", "result": {}}).encode())
    assert not isinstance(raised.value, LoginFailed)
