"""`check`: the plan as text and as JSON, without contacting anybody; `--connect` is tested end to end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pipeline import check, check_orders
from pipeline.config import load, loads
from pipeline.model.errors import ConfigError
from tests.services import KafkaBroker

EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"


async def report(text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with trio.fail_after(60):
        assert await check.run(loads(text), as_json=True, connect=False) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


CONFIG = """
kafka: {decimals: decimal, topic_template: "test.{group}.{kind}", schema_registry: {url: "http://registry:1"}}
venues:
  bybit:
    environment: testnet
    channels:
      - {market: spot, channel: trade, instruments: [BTCUSDT, "ETH*"]}
      - {market: linear, channel: [trade, ticker], instruments: [BTCUSDT]}
      - {market: option, channel: trade, instruments: [BTC-27MAR26-70000-C]}
  okx:
    heartbeat: {ping_every: 20s}
    channels:
      - {market: swap, channel: book, depth: 5, instruments: [BTC-USDT-SWAP]}
      - {market: index, channel: index_price, instruments: [BTC-USD], max_silence: 7s}
"""


async def test_names_and_patterns_stand_for_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    found = await report(CONFIG, capsys)
    topics = {
        connection["id"]: [subscription["topic"] for subscription in connection["subscriptions"]]
        for venue in found["venues"].values()
        for connection in venue["connections"]
    }
    assert topics == {
        "bybit.spot.trade.0": ["publicTrade.BTCUSDT", "publicTrade.ETH*"],
        "bybit.linear.trade.0": ["publicTrade.BTCUSDT"],
        "bybit.linear.ticker.0": ["tickers.BTCUSDT"],
        "bybit.option.trade.0": ["publicTrade.BTC"],
        "okx.swap.book.0": ['{"channel":"books5","instId":"BTC-USDT-SWAP"}'],
        "okx.index.index_price.0": ['{"channel":"index-tickers","instId":"BTC-USD"}'],
    }
    assert found["venues"]["bybit"]["unmatched"] == []


async def test_hosts_times_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    found = await report(CONFIG, capsys)
    bybit, okx = found["venues"]["bybit"], found["venues"]["okx"]
    assert bybit["environment"] == "testnet"
    assert bybit["connections"][0]["url"] == "wss://stream-testnet.bybit.com/v5/public/spot"
    assert bybit["limits"]["spot"]["topics_per_request"] == 10
    assert okx["environment"] == "production"
    assert okx["heartbeat"]["ping_every"] == 20
    assert okx["new_connections"]["count"] == 3
    [index] = [c for c in okx["connections"] if c["id"] == "okx.index.index_price.0"]
    assert index["subscriptions"][0]["max_silence"] == 7


async def test_topics_with_their_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    kafka = (await report(CONFIG, capsys))["kafka"]
    trade = next(topic for topic in kafka["topics"] if topic["event"] == "trade")
    assert trade["topic"] == "test.market.trade"
    assert trade["schema"] == "pipeline.events.Trade"
    assert trade["subject"] == "test.market.trade-value"
    assert kafka["decimals"] == "decimal"
    status = next(topic for topic in kafka["topics"] if topic["event"] == "feed_status")
    assert status["topic"] == "test.control.feed_status"
    assert not [topic for topic in kafka["topics"] if ".account." in topic["topic"]], "no account is configured"


async def test_the_example_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert await check.run(load(EXAMPLE), as_json=False, connect=False) == 0
    text = capsys.readouterr().out
    assert "bybit (mainnet)  wss://stream.bybit.com" in text
    assert "okx.swap.book.0  wss://ws.okx.com:8443/ws/v5/public  2 subscriptions" in text
    assert "market.book_update  pipeline.events.BookUpdate  12 partitions" in text
    assert "matches nothing" not in text


async def test_what_becomes_of_records_and_messages_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = """
    kafka: {delivery: exactly_once, shard: a, spool: {when_full: stop_reading}}
    venues:
      okx:
        archive: {topic: true}
        channels: [{market: swap, channel: book, depth: tbt, instruments: [BTC-USDT-SWAP], account: desk}]
        accounts:
          desk: {api_key: {env: K}, api_secret: {env: S}, passphrase: {env: P}, channels: [order]}
    """
    assert await check.run(loads(text), as_json=False, connect=False) == 0
    shown = capsys.readouterr().out
    assert "1 subscriptions  logs in as desk  archived\n" in shown
    assert "1 subscriptions  logs in as desk\n" in shown  # the account's own stream is not archived
    assert "delivery: exactly_once out of a journal, shard a" in shown
    assert "spool_when_full: stop_reading" in shown


ORDERS = """
kafka: {topic_template: "test.{group}.{kind}"}
venues:
  okx:
    environment: demo
    accounts:
      desk: {api_key: {env: K}, api_secret: {env: S}, passphrase: {env: P}, channels: [order]}
orders:
  directory: %s
  kill_file: %s
  accounts:
    okx:
      desk:
        instruments: {swap: [BTC-USDT-SWAP, "ETH-*"], option: "BTC-USD-*"}
        max_order_value: 5000
        price_band: "0.025"
        max_open_orders: 20
        cancel_on_disconnect: 30s
"""


async def test_what_order_entry_will_do_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = ORDERS % (tmp_path / "ledgers", tmp_path / "kill")
    orders = (await report(text, capsys))["orders"]
    [desk] = orders["accounts"]
    assert (desk["account"], desk["environment"]) == ("okx.desk", "demo")
    assert desk["url"] == "wss://wspap.okx.com:8443/ws/v5/private"
    assert desk["command_topic"] == "test.order.order_command.okx.desk"
    assert desk["instruments"] == {"swap": ["BTC-USDT-SWAP", "ETH-*"], "option": ["BTC-USD-*"]}
    assert (desk["max_order_value"], desk["price_band"], desk["cancel_on_disconnect"]) == ("5000", "0.025", 30)
    assert orders["result_topic"] == "test.order.order_result"
    assert await check.run(loads(text), as_json=False, connect=False) == 0
    shown = capsys.readouterr().out
    assert f"orders  ledgers in {tmp_path / 'ledgers'}, kill file {tmp_path / 'kill'}\n" in shown
    assert "okx.desk (demo)  wss://wspap.okx.com:8443/ws/v5/private\n" in shown
    assert "commands from test.order.order_command.okx.desk, results to test.order.order_result\n" in shown
    assert "may order in swap: BTC-USDT-SWAP, ETH-*\n" in shown
    limits = "at most 5000 in quote currency an order, 20 open orders, prices within 2.5 % of the mark price"
    assert f"    {limits}\n" in shown
    assert "open orders are cancelled by the venue when we are gone for 30 s\n" in shown
    assert await check.run(loads(CONFIG), as_json=False, connect=False) == 0
    assert "orders" not in capsys.readouterr().out


async def test_command_topics_are_looked_for(broker: KafkaBroker, tmp_path: Path) -> None:
    config = loads(ORDERS % (tmp_path, tmp_path / "kill"))
    kafka = attrs.evolve(config.kafka, bootstrap_servers=(broker.bootstrap,), create_topics=False)
    checks: list[dict[str, Any]] = []
    await check._try_kafka(attrs.evolve(config, kafka=kafka), checks)
    missing = {entry["what"] for entry in checks if not entry["ok"]}
    assert {"topic test.order.order_command.okx.desk", "topic test.order.order_result"} <= missing


def test_what_the_machine_has_for_order_entry_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kill_file = tmp_path / "a" / "ledgers", tmp_path / "kill"
    orders = {"directory": str(folder), "kill_file": str(kill_file)}

    def found() -> list[tuple[bool, str]]:
        return [(ok, detail) for _, ok, detail in check_orders.tried(orders)]

    assert found() == [(True, f"will be created in {tmp_path}"), (True, "is not there")]
    assert not folder.parent.exists(), "looking changes nothing"
    folder.mkdir(parents=True)
    kill_file.touch()
    assert found() == [(True, "can be written"), (True, "is there: no account takes orders")]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    orders["kill_file"] = str(kill_file / "below")
    refused, odd = found()
    assert refused == (False, f"{folder} cannot be written by us")
    assert odd[0] is False
    orders["directory"] = str(kill_file)
    assert found()[0] == (False, f"{kill_file} is no folder")


SPLIT = """
workers: 2
shard: {index: {env: NOT_HERE}, count: 2}
kafka: {delivery: exactly_once, shard: a}
venues:
  bybit:
    channels: [{market: linear, channel: [book, trade, ticker], instruments: [%s]}]
    accounts: {main: {api_key: {env: K}, api_secret: {env: S}, channels: [order]}}
""" % ", ".join(f"C{n}USDT" for n in range(20))  # noqa: UP031 - braces belong to YAML


async def test_the_split_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    whole = await report(SPLIT, capsys)
    shares = whole["shares"]
    assert [(each["instance"], each["worker"]) for each in shares] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sum(each["subscriptions"] for each in shares) == 61
    assert sum(each["load"] for each in shares) == 20 * (6 + 3 + 2) + 1
    assert max(each["load"] for each in shares) <= 1.05 * 221 / 4 + 7
    assert [account for each in shares for account in each["accounts"]] == ["bybit.main"]
    connections = whole["venues"]["bybit"]["connections"]
    assert sum(each["connections"] for each in shares) == len(connections)
    assert {"bybit.linear.trade.0-0", "bybit.linear.book.3-0"} <= {each["id"] for each in connections}
    assert await check.run(loads(SPLIT), as_json=False, connect=False) == 0
    text = capsys.readouterr().out
    assert f"  2  instance 1, worker 0:  {shares[2]['connections']} connections" in text


async def test_one_share_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    whole = await report(SPLIT, capsys)
    assert await check.run(loads(SPLIT), as_json=True, connect=False, share=3) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["shares"] == [whole["shares"][3]]
    assert one["venues"]["bybit"]["connections"] == [
        each for each in whole["venues"]["bybit"]["connections"] if each["id"].split(".")[-1].startswith("3-")
    ]
    assert one["kafka"]["shard"] == "a-3-of-4"
    assert one["limits"]["spool_directory"] == "spool/share-3-of-4"


@pytest.mark.parametrize("share", [-1, 4])
async def test_a_share_that_is_not_there(share: int) -> None:
    with pytest.raises(ConfigError, match=f"--share: there is no share {share}; the last one is 3"):
        await check.run(loads(SPLIT), as_json=True, connect=False, share=share)
