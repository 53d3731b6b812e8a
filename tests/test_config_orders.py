from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, loads
from pipeline.exchanges import VENUES
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.model.errors import ConfigError
from pipeline.orders.settings import AccountOrderSettings, OrderSettings

MAIN = "orders.accounts.bybit.main"
GOOD = {"instruments": {"spot": "BTCUSDT", "linear": ["*USDT"]}, "max_order_value": 5000}
KEYS = {"api_key": {"env": "K"}, "api_secret": {"env": "S"}}


class Trading:
    """What the rules ask of a venue's order entry, and nothing else."""

    environments = ("mainnet", "testnet")

    def batch(self, action: str, market: str) -> int:
        return 0 if market == "spread" else 10

    def arm_problems(self, seconds: float, channels: Sequence[str], markets: Sequence[str]) -> list[str]:
        return [f"{seconds:g} s, {', '.join(channels)}, {', '.join(markets)}"]


class Exchange(Bybit):
    """A venue whose order entry the tests choose."""

    trading: Any = Trading()


class Listening(Bybit):
    """A venue without order entry."""

    trading: Any = None


def read(
    orders: dict[str, Any],
    channels: Any = ("order",),
    environment: str = "testnet",
    venue: Bybit | None = None,
    **rest: Any,
) -> Config:
    accounts = {"main": {**KEYS, "channels": [*channels]}, "side": {**KEYS, "channels": [*channels]}}
    wanted = [{"market": "spot", "channel": "trade"}]
    document = {
        "venues": {"bybit": {"environment": environment, "channels": wanted, "accounts": accounts}},
        "orders": {"accounts": orders},
        **rest,
    }
    return loads(json.dumps(document), {**VENUES, "bybit": venue or Exchange()})


def main(**changes: Any) -> dict[str, Any]:
    return {"bybit": {"main": {**GOOD, **changes}}}


def problems(orders: dict[str, Any], **rest: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(orders, **rest)
    return caught.value.problems


def test_off_unless_configured() -> None:
    assert loads("venues: {bybit: {channels: [{market: spot, channel: trade}]}}").orders == OrderSettings()


def test_an_account_with_the_defaults() -> None:
    account = read(main()).orders.accounts["bybit"]["main"]
    instruments = {"spot": ("BTCUSDT",), "linear": ("*USDT",)}
    assert account == AccountOrderSettings(instruments, account.max_order_value)
    assert (account.max_order_value, account.price_band) == ("5000", "0.05")


def test_decimals_stay_as_they_are_written() -> None:
    account = read(main(max_order_value="0.10", price_band="0.050")).orders.accounts["bybit"]["main"]
    assert (account.max_order_value, account.price_band) == ("0.10", "0.050")


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (0.5, "expected text, got 0.5; put it in quotes"),
        (True, "expected text, got true; put it in quotes"),
        ("1,000", 'expected a decimal number, got "1,000"'),
        ("NaN", 'expected a decimal number, got "NaN"'),
        (0, "must be above 0, not 0"),
        ("-5", "must be above 0, not -5"),
    ],
)
def test_the_largest_value_is_an_exact_number(written: object, why: str) -> None:
    assert f"{MAIN}.max_order_value: {why}" in problems(main(max_order_value=written))


@pytest.mark.parametrize("band", ["0", "1", "1.5", "-0.1"])
def test_the_band_is_a_fraction(band: str) -> None:
    why = f"must be above 0 and below 1, not {band}: it is a fraction of the mark price"
    assert problems(main(price_band=band)) == [f"{MAIN}.price_band: {why}"]


def test_what_may_be_ordered_has_to_be_said() -> None:
    missing = [f"{MAIN}.instruments: is missing", f"{MAIN}.max_order_value: is missing"]
    assert problems({"bybit": {"main": {}}}) == missing
    nothing = "allows nothing; name markets and what may be ordered there"
    assert problems(main(instruments={})) == [f"{MAIN}.instruments: {nothing}"]
    assert problems(main(instruments={"linear": []})) == [f"{MAIN}.instruments.linear: names no instrument"]
    unknown = 'unknown market "lnear"; did you mean "linear"?'
    assert f"{MAIN}.instruments.lnear: {unknown}" in problems(main(instruments={"lnear": "*"}))


def test_venues_and_environments_without_order_entry() -> None:
    environment = 'no order entry in environment "demo"; there is in mainnet, testnet'
    assert problems(main(), environment="demo") == [f"orders.accounts.bybit: {environment}"]
    assert problems(main(), venue=Listening()) == ["orders.accounts.bybit: there is no order entry with bybit"]


def test_accounts_and_venues_are_those_of_the_file() -> None:
    absent = "is not under venues, where its accounts belong"
    assert problems({"okx": {"desk": GOOD}}) == [f'orders.accounts.okx: "okx" {absent}; known: bybit']
    assert problems({"bybti": {"main": GOOD}}) == [f'orders.accounts.bybti: "bybti" {absent}; did you mean "bybit"?']
    unknown = '"mian" is not under venues.bybit.accounts; did you mean "main"?'
    assert problems({"bybit": {"mian": GOOD}}) == [f"orders.accounts.bybit.mian: {unknown}"]


@pytest.mark.parametrize(
    ("channels", "missing"),
    [
        (["position"], "spot, linear, inverse, option"),
        ([{"channel": "order", "market": market} for market in ("linear", "spot")], "inverse, option"),
    ],
)
def test_orders_of_every_market_come_by_the_order_channel(channels: Any, missing: str) -> None:
    left = "kill and cancel_all, which are for the whole account, would leave orders there"
    why = f"the account has no order channel for {missing}: {left}"
    assert problems(main(), channels=channels) == [f"{MAIN}: {why}"]


def test_an_order_channel_for_each_market_will_do() -> None:
    channels = [{"channel": "order", "market": market} for market in ("linear", "spot", "inverse", "option")]
    assert read(main(), channels=channels).orders.accounts


@pytest.mark.parametrize("rest", [{"workers": 2}, {"shard": {"index": 0, "count": 2}}])
def test_an_instance_of_its_own(rest: dict[str, Any]) -> None:
    assert problems(main(), **rest) == ["orders: runs in an instance of its own: workers and shard.count must be 1"]


def test_the_venue_tells_what_arming_lacks() -> None:
    found = problems(main(cancel_on_disconnect="1m"), channels=["order", "position"])
    assert found == [f"{MAIN}.cancel_on_disconnect: 60 s, order, position, spot, linear"]


def test_a_command_topic_is_nobody_elses() -> None:
    assert problems(main(command_topic="market.trade")) == [
        f'{MAIN}.command_topic: "market.trade" is where the connector publishes'
    ]
    both = {"bybit": {"main": GOOD, "side": {**GOOD, "command_topic": "order.order_command.bybit.main"}}}
    taken = '"order.order_command.bybit.main" is the command topic of bybit.main'
    assert problems(both) == [f"orders.accounts.bybit.side.command_topic: {taken}"]
    (odd,) = problems(main(command_topic="a/b"))
    assert odd.startswith(f'{MAIN}.command_topic: "a/b": topic names are')


def test_the_topics_of_commands_can_be_configured() -> None:
    config = read(main(), kafka={"topics": {"order_command": {"retention": "2d"}}})
    assert config.kafka.topics["order_command"].retention == 172_800


def test_waiting_for_the_rate_may_be_off() -> None:
    assert read(main(rate_wait=0)).orders.accounts["bybit"]["main"].rate_wait == 0
    assert problems(main(answer_within=0)) == [f"{MAIN}.answer_within: must be above 0, not 0"]


def test_the_example_is_one() -> None:
    example = (Path(__file__).parent.parent / "config.example.yaml").read_text("utf-8")
    accounts = example.partition("  okx:\n")[2].partition("\n    channels:")[0].replace("    # ", "    ")
    orders = example.partition("\n# orders:")[2].partition("\n\n")[0].replace("\n# ", "\n")
    config = loads(f"venues:\n  okx:\n{accounts}\norders:{orders}")
    assert config.orders.accounts["okx"]["desk"].cancel_on_disconnect == 30
