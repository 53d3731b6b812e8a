"""`check`: the plan as text and as JSON, without contacting anybody; `--connect` is tested end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from pipeline import check
from pipeline.config import load, loads
from pipeline.model.errors import ConfigError

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
