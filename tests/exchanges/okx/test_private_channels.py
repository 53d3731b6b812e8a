"""The channels of accounts: which there are, what narrows them, and the topics that bring them."""

from __future__ import annotations

import json
from math import inf

import pytest

from pipeline.exchanges.accounts import Accounts, AccountSpec
from pipeline.exchanges.okx.private_channels import BY_NAME, OURS
from pipeline.exchanges.okx.topics import echo_of
from pipeline.exchanges.venue import Subscription
from tests.exchanges.okx.samples import VENUE, sample

SIDE = VENUE.accounts
LISTED = ("spot", "margin", "swap", "futures", "option")


def side() -> Accounts:
    assert SIDE is not None
    return SIDE


def subscriptions(spec: AccountSpec) -> list[Subscription]:
    assert side().problems(spec) == []
    return side().subscriptions(spec)


def test_a_subscription_in_full() -> None:
    assert subscriptions(AccountSpec("order")) == [
        Subscription(
            '{"channel":"orders","instType":"ANY"}',
            "order",
            "orders",
            "account",
            None,
            "private",
            max_silence=inf,
            needs_login=True,
        )
    ]


@pytest.mark.parametrize(
    ("spec", "endpoint", "kind", "topics"),
    [
        (AccountSpec("order", "swap"), "private", "order", ['{"channel":"orders","instType":"SWAP"}']),
        (AccountSpec("fill"), "private", "fill", ['{"channel":"fills"}']),
        (AccountSpec("position"), "private", "position", ['{"channel":"positions","instType":"ANY"}']),
        (AccountSpec("balance"), "private", "balance", ['{"channel":"account"}']),
        (
            AccountSpec("balance_and_position"),
            "private",
            "balance_and_position",
            ['{"channel":"balance_and_position"}'],
        ),
        (AccountSpec("account_greeks"), "private", "account_greeks", ['{"channel":"account-greeks"}']),
        (
            AccountSpec("liquidation_warning"),
            "private",
            "liquidation_warning",
            ['{"channel":"liquidation-warning","instType":"ANY"}'],
        ),
        (
            AccountSpec("algo_order"),
            "business",
            "algo_order",
            [f'{{"channel":"orders-algo","instType":"{kind}"}}' for kind in ("SPOT", "MARGIN", "SWAP", "FUTURES")],
        ),
        (
            AccountSpec("algo_advance_order", "futures", {"algoId": "7"}),
            "business",
            "algo_advance_order",
            ['{"channel":"algo-advance","instType":"FUTURES","algoId":"7"}'],
        ),
        (AccountSpec("deposit"), "business", "deposit", ['{"channel":"deposit-info"}']),
        (
            AccountSpec("withdrawal", params={"ccy": "BTC"}),
            "business",
            "withdrawal",
            ['{"channel":"withdrawal-info","ccy":"BTC"}'],
        ),
        (AccountSpec("spread_order"), "business", "spread_order", ['{"channel":"sprd-orders"}']),
        (
            AccountSpec("spread_fill", params={"sprdId": "A_B"}),
            "business",
            "spread_fill",
            ['{"channel":"sprd-trades","sprdId":"A_B"}'],
        ),
        (
            AccountSpec("position", "swap", {"instId": "B-C-SWAP", "instFamily": "B-C"}),
            "private",
            "position",
            ['{"channel":"positions","instType":"SWAP","instFamily":"B-C","instId":"B-C-SWAP"}'],
        ),
        (AccountSpec("orders"), "private", "order", ['{"channel":"orders","instType":"ANY"}']),
        (
            AccountSpec("grid-orders-spot"),
            "business",
            "grid-orders-spot",
            ['{"channel":"grid-orders-spot","instType":"ANY"}'],
        ),
        (
            AccountSpec("grid-sub-orders", params={"algoId": "7"}),
            "business",
            "grid-sub-orders",
            ['{"channel":"grid-sub-orders","algoId":"7"}'],
        ),
        (AccountSpec("rfqs"), "business", "rfqs", ['{"channel":"rfqs"}']),
    ],
    ids=range(18),
)
def test_topics(spec: AccountSpec, endpoint: str, kind: str, topics: list[str]) -> None:
    found = subscriptions(spec)
    assert [each.topic for each in found] == topics
    assert {(each.endpoint, each.kind, each.needs_login) for each in found} == {(endpoint, kind, True)}
    markets = ["spot", "margin", "swap", "futures"] if len(found) > 1 else [spec.market or "account"]
    assert [each.market for each in found] == markets


@pytest.mark.parametrize(
    ("channel", "start"),
    [("balance", '{"channel":"account",'), ("position", '{"channel":"positions","instType":"ANY",')],
)
def test_parameters_beyond_the_arg_are_json_in_a_text(channel: str, start: str) -> None:
    (found,) = subscriptions(AccountSpec(channel, params={"updateInterval": "0"}))
    assert found.topic == start + r'"extraParams":"{\"updateInterval\":\"0\"}"}'
    assert json.loads(json.loads(found.topic)["extraParams"]) == {"updateInterval": "0"}
    assert echo_of(found.topic) == start.rstrip(",") + "}"


def test_the_manuals_own_requests_can_be_made() -> None:
    """Every private arg in the manual's examples is the topic of some spec."""
    known = 0
    for line in sample("control.subscribe.request"):
        for arg in json.loads(line)["args"]:
            if arg["channel"] not in BY_NAME:
                continue
            known += 1
            market = arg.get("instType", "ANY").lower()
            params = {name: value for name, value in arg.items() if name not in ("channel", "instType", "extraParams")}
            params |= json.loads(arg.get("extraParams", "{}"))
            spec = AccountSpec(arg["channel"], None if market == "any" else market, params)
            assert arg in [json.loads(found.topic) for found in subscriptions(spec)]
    assert known > 20


def test_every_channel_is_known_by_the_normalizer_under_the_name_that_is_subscribed() -> None:
    for name, channel in BY_NAME.items():
        params = {channel.required: "7"} if channel.required else {}
        for subscription in subscriptions(AccountSpec(name, params=params)):
            arg = {**json.loads(subscription.topic), "uid": "7"}
            reader = VENUE.normalizer(subscription.endpoint, "c#1", {}, account="main")
            reader.normalize(json.dumps({"arg": arg, "data": []}).encode(), 1)
            assert list(reader.streams) == [subscription.topic]


@pytest.mark.parametrize("name", OURS)
def test_our_names_and_theirs_mean_the_same(name: str) -> None:
    assert name in side().channels
    assert subscriptions(AccountSpec(name)) == subscriptions(AccountSpec(OURS[name]))


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        (AccountSpec("ordr"), "channel", "unknown private channel 'ordr'; did you mean 'order'?"),
        (AccountSpec("trade"), "channel", "unknown private channel 'trade'"),
        (AccountSpec("order", "linear"), "market", "no market 'linear'; there is spot, margin, swap"),
        (AccountSpec("position", "spot"), "market", "no market 'spot'; there is margin, swap"),
        (AccountSpec("balance", "swap"), "market", "balance is not divided by market"),
        (AccountSpec("balance", params={"cc": "BTC"}), "params.cc", "unknown parameter 'cc'; did you mean 'ccy'?"),
        (AccountSpec("rfqs", params={"ccy": "BTC"}), "params.ccy", "rfqs takes none"),
        (AccountSpec("order", params={"updateInterval": "0"}), "params.updateInterval", "there is instFamily, instId"),
        (AccountSpec("balance", params={"ccy": ""}), "params.ccy", "is empty"),
        (AccountSpec("grid-positions"), "params", "grid-positions needs algoId"),
    ],
    ids=range(10),
)
def test_problems_name_the_field_and_what_there_is(spec: AccountSpec, field: str, why: str) -> None:
    ((found, text),) = side().problems(spec)
    assert found == field
    assert why in text


@pytest.mark.parametrize(
    ("spec", "markets"),
    [
        (AccountSpec("order"), LISTED),
        (AccountSpec("position"), LISTED),
        (AccountSpec("fill"), LISTED),
        (AccountSpec("balance_and_position"), LISTED),
        (AccountSpec("position", "swap"), ("swap",)),
        (AccountSpec("order", "events"), ()),
        (AccountSpec("algo_order"), ("spot", "margin", "swap", "futures")),
        (AccountSpec("spread_fill"), ("spot", "swap", "futures")),
        (AccountSpec("balance"), ()),
        (AccountSpec("account_greeks"), ()),
        (AccountSpec("deposit"), ()),
    ],
    ids=range(11),
)
def test_the_catalogue_is_read_where_contract_values_are_needed(spec: AccountSpec, markets: tuple[str, ...]) -> None:
    assert side().catalogue_markets(spec) == markets
