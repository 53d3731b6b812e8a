from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from pipeline.config import Config, load, loads
from pipeline.config_reader import Bounds, Rules, read
from pipeline.feeds.settings import (
    BookSettings,
    ChannelSettings,
    HeartbeatSettings,
    ReconnectSettings,
    TimeoutSettings,
    UrlSettings,
    VenueSettings,
)
from pipeline.feeds.shares import Ordinal, ShardSettings, Share
from pipeline.model.errors import ConfigError
from pipeline.model.events import KINDS
from pipeline.model.secret import Secret
from pipeline.observe.settings import HttpSettings, LogSettings
from pipeline.sink.settings import KafkaSettings, RegistrySettings, SpoolSettings, TopicSettings
from pipeline.sink.topics import group_of

ROOT = Path(__file__).parent.parent

CHANNELS = "channels: [{market: spot, channel: trade}]"
MINIMAL = f"venues: {{bybit: {{{CHANNELS}}}}}"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return caught.value.problems


def kafka(text: str) -> str:
    return f"{MINIMAL}\nkafka: {{{text}}}"


def bybit(text: str) -> str:
    return f"venues: {{bybit: {{{CHANNELS}, {text}}}}}"


def okx(text: str) -> str:
    return f"venues: {{okx: {{{CHANNELS}, {text}}}}}"


def account(text: str) -> str:
    return f"accounts: {{main: {{api_key: {{env: K}}, api_secret: {{env: S}}, {text}}}}}"


def channel(text: str, venue: str = "bybit") -> str:
    return f"venues: {{{venue}: {{channels: [{{{text}}}]}}}}"


LONG_SILENCE = "okx closes after 30 s of silence; 30 s is too late"
BARE_STAR = "expected alphabetic or numeric character, but found ']'; a value that begins with * needs quotes"
PROPERTY = "expected text or a number or true or false or {env: NAME} or {file: PATH}, got a list"
TOP = "venues, kafka, log, orders, http, shutdown_within, workers, worker_silence, shard, reload"
HTTP = "enabled, host, port, token, protect_metrics, listeners, send_within, loop_late"
INTERVALS = "1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 12h, 1d, 1w, 1M"
NOT_SHOWN = "a value that is not shown"
NOT_HERE = "expected {env: NAME} or {file: PATH}: secrets are not written into this file"
SECONDS = "expected a number of seconds (or 500ms, 15s, 5m, 2h, 7d)"
SIZE = "expected a number of bytes (or 64MiB, 10GB)"

FAULTS = {
    # Shares
    "no workers": (f"{MINIMAL}\nworkers: 0", "workers: must be at least 1, not 0"),
    "a slip of the workers": (f"{MINIMAL}\nworkers: 100", "workers: must be between 1 and 64, not 100"),
    "a shard too far": (
        f"{MINIMAL}\nshard: {{index: 2, count: 2}}",
        "shard.index: must be below count, which is 2, not 2",
    ),
    "a negative shard": (f"{MINIMAL}\nshard: {{index: -1}}", "shard.index: must be at least 0, not -1"),
    "a shard by name": (
        f"{MINIMAL}\nshard: {{index: pipeline-1}}",
        'shard.index: expected a whole number or {env: NAME}, got "pipeline-1"',
    ),
    "a shard out of a file": (
        f"{MINIMAL}\nshard: {{index: {{env: POD, file: x}}}}",
        "shard.index.file: unknown key; known: env",
    ),
    "no shards": (f"{MINIMAL}\nshard: {{count: 0}}", "shard.count: must be between 1 and 1000, not 0"),
    # YAML
    "nothing": ("", "venues: no channel of any venue is configured"),
    "a text": ("hello", 'expected a mapping, got "hello"'),
    "a syntax error": (f"{MINIMAL}\nkafka: [1, 2", "line 2, column 13: expected ',' or ']', but got '<stream end>'"),
    "a bare pattern": (
        f"{MINIMAL}\nlog: *USDT",
        "line 2, column 6: found undefined alias 'USDT'; a value that begins with * needs quotes",
    ),
    "a bare star": (f"{MINIMAL}\nlog: [*]", f"line 2, column 8: {BARE_STAR}"),
    "two documents": (f"{MINIMAL}\n---\n{MINIMAL}", "line 2, column 1: a second document begins; the file must be one"),
    "a foreign tag": (
        f"{MINIMAL}\nlog: !!python/object:os.system {{}}",
        "line 2, column 6: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
    ),
    "a control character": (f"{MINIMAL}\n\x07", "line 2: special characters are not allowed"),
    "an escaped control character": (
        kafka('client_id: "a\\0b"'),
        "line 2, column 20: a text with a control character",
    ),
    "half a character": (kafka('client_id: "\\ud800"'), "line 2, column 20: a text with a control character"),
    "a word that is to be a number": (f"{MINIMAL}\nworkers: !!int two", "line 2, column 10: no value of its type"),
    "more digits than can be read": (f"{MINIMAL}\nworkers: {'9' * 5000}", "line 2, column 10: no value of its type"),
    "more digits than can be written": (
        f"{MINIMAL}\nworkers: 0x{'f' * 5000}",
        "line 2, column 10: a number with too many digits",
    ),
    "a number beyond all counts": (f"{MINIMAL}\nworkers: {2**63}", "workers: is too large: it must be below 2^63"),
    "a size beyond all disks": (
        kafka(f"spool: {{max_bytes: {'9' * 5000}GiB}}"),
        "kafka.spool.max_bytes: is too large: it must be below 2^63",
    ),
    "brackets without end": ("[" * 10_000, "is nested too deeply"),
    "a key twice": (f"{MINIMAL}\nlog: {{}}\nlog: {{}}", 'line 3: key "log" is given twice, first in line 2'),
    "a key twice, deep": (
        kafka("linger: 1, client_id: a, linger: 2"),
        'line 2: key "linger" is given twice, first in line 2',
    ),
    # Keys and types
    "an unknown key": (bybit("chanels: []"), 'venues.bybit.chanels: unknown key; did you mean "channels"?'),
    "an unknown key like no other": (
        f"{MINIMAL}\nhttp: {{tls: true}}",
        f"http.tls: unknown key; known: {HTTP}",
    ),
    "a number as a key": (
        f"{MINIMAL}\n7: 8",
        f"7: unknown key; known: {TOP}",
    ),
    "a number as a name": ("venues: {5: {}}", "venues.5: a key must be text; put it in quotes"),
    "a word for a duration": (kafka("linger: fast"), f'kafka.linger: {SECONDS}, got "fast"'),
    "true for a duration": (kafka("linger: true"), f"kafka.linger: {SECONDS}, got true"),
    "a quoted number": (kafka("linger: '5'"), f'kafka.linger: {SECONDS}, got "5"'),
    "an unknown unit": (kafka("linger: 5 sec"), f'kafka.linger: {SECONDS}, got "5 sec"'),
    "no duration at all": (kafka("linger: "), f"kafka.linger: {SECONDS}, got nothing"),
    "infinity": (kafka("linger: .inf"), "kafka.linger: expected a finite number, got Infinity"),
    "not a number": (kafka("linger: .nan"), "kafka.linger: expected a finite number, got NaN"),
    "true for a count": (kafka("queue_messages: true"), "kafka.queue_messages: expected a whole number, got true"),
    "a fraction": (kafka("queue_messages: 1.5"), "kafka.queue_messages: expected a whole number, got 1.5"),
    "a size for a count": (
        kafka("queue_messages: 1MB"),
        'kafka.queue_messages: expected a whole number, got "1MB"',
    ),
    "a size without a known unit": (kafka("queue_bytes: 1Mb"), f'kafka.queue_bytes: {SIZE}, got "1Mb"'),
    "a part of a byte": (kafka("queue_bytes: 1.0001kB"), f'kafka.queue_bytes: {SIZE}, got "1.0001kB"'),
    "a duration for a factor": (
        bybit("reconnect: {factor: 2s}"),
        'venues.bybit.reconnect.factor: expected a number, got "2s"',
    ),
    "one for true": (kafka("create_topics: 1"), "kafka.create_topics: expected true or false, got 1"),
    "a list for a mapping": (f"{MINIMAL}\nlog: []", "log: expected a mapping, got a list"),
    "a secret in the wrong place": (f"{MINIMAL}\nlog: password=hunter2", f"log: expected a mapping, got {NOT_SHOWN}"),
    "a scalar for a mapping": (bybit("urls: 5"), "venues.bybit.urls: expected a mapping, got 5"),
    "a number for a list": (kafka("bootstrap_servers: 9092"), "kafka.bootstrap_servers: expected a list, got 9092"),
    "a number for a text": (kafka("client_id: 7"), "kafka.client_id: expected text, got 7; put it in quotes"),
    "no for a text": (
        channel("market: spot, channel: trade, instruments: [NO]"),
        "venues.bybit.channels[0].instruments[0]: expected text, got false; put it in quotes",
    ),
    "an unquoted interval": (
        channel("market: spot, channel: candle, interval: [1m, 60]"),
        "venues.bybit.channels[0].interval[1]: expected text, got 60; put it in quotes",
    ),
    "an empty text": (kafka("client_id: ''"), "kafka.client_id: must not be empty"),
    "a long text": (kafka(f"linger: {'x' * 100}"), f'kafka.linger: {SECONDS}, got "{"x" * 56}…'),
    "a wrong choice": (
        f"{MINIMAL}\nlog: {{level: INFO}}",
        'log.level: expected one of debug, info, warning, error, got "INFO"',
    ),
    "a text for a mapping of channels": (
        "venues: {bybit: {channels: trade}}",
        'venues.bybit.channels: expected a list, got "trade"',
    ),
    "a property that is a list": (
        kafka("properties: {client.rack: [a]}"),
        f"kafka.properties.client.rack: {PROPERTY}",
    ),
    # Ranges
    "no time to connect": (
        bybit("timeouts: {connect: 0}"),
        "venues.bybit.timeouts.connect: must be above 0, not 0",
    ),
    "a negative duration": (kafka("linger: -1"), "kafka.linger: must be between 0 and 900, not -1"),
    "a negative time": (f"{MINIMAL}\nshutdown_within: -0.5", "shutdown_within: must be above 0, not -0.5"),
    "no room": (kafka("spool: {max_memory_bytes: 0}"), "kafka.spool.max_memory_bytes: must be at least 1, not 0"),
    "no partitions": (
        kafka("topics: {trade: {partitions: 0}}"),
        "kafka.topics.trade.partitions: must be at least 1, not 0",
    ),
    "a port too high": (f"{MINIMAL}\nhttp: {{port: 70000}}", "http.port: must be between 0 and 65535, not 70000"),
    "records too large": (
        kafka("max_record_bytes: 2GB"),
        "kafka.max_record_bytes: must be between 1000 and 1000000000, not 2000000000",
    ),
    # Kafka
    "no broker": (kafka("bootstrap_servers: []"), "kafka.bootstrap_servers: names no broker"),
    "a broker as a web address": (
        kafka("bootstrap_servers: ['http://kafka/path']"),
        'kafka.bootstrap_servers[0]: expected host:port, got "http://kafka/path"',
    ),
    "two brokers in one text": (
        kafka("bootstrap_servers: 'a:1,b:2'"),
        'kafka.bootstrap_servers[0]: expected host:port, got "a:1,b:2"',
    ),
    "a port that is none": (
        kafka("bootstrap_servers: [a:1, 'b:65536']"),
        'kafka.bootstrap_servers[1]: expected host:port, got "b:65536"',
    ),
    "an unknown event kind": (
        kafka("topics: {trades: {}}"),
        'kafka.topics.trades: unknown event kind; did you mean "trade"?',
    ),
    "one topic for all": (
        kafka("topic_template: events"),
        'kafka.topic_template: expected a text with {kind}, and {group} if wanted, got "events"',
    ),
    "an unknown placeholder": (
        kafka("topic_template: '{kind}.{venue}'"),
        'kafka.topic_template: expected a text with {kind}, and {group} if wanted, got "{kind}.{venue}"',
    ),
    "a broken template": (
        kafka("topic_template: '{kind'"),
        'kafka.topic_template: expected a text with {kind}, and {group} if wanted, got "{kind"',
    ),
    "a topic name with spaces": (
        kafka("topic_template: 'my {kind}'"),
        "kafka.topic_template: topic names are at most 249 ASCII letters, digits, dots, underscores and hyphens",
    ),
    "a setting as a property": (
        kafka("properties: {linger.ms: 5}"),
        "kafka.properties.linger.ms: is set by kafka.linger",
    ),
    "a promise broken by a property": (
        kafka("properties: {acks: 1}"),
        "kafka.properties.acks: is always all: with less a broker's failure loses acknowledged records",
    ),
    "a transactional id as a property": (
        kafka("properties: {transactional.id: mine}"),
        "kafka.properties.transactional.id: is set by kafka.shard",
    ),
    "a shard without transactions": (
        kafka("shard: mine"),
        "kafka.shard: is for delivery: exactly_once",
    ),
    "transactions without brokers": (
        kafka("delivery: exactly_once, properties: {test.mock.num.brokers: 1}"),
        "kafka.delivery: exactly_once needs real brokers: a cluster inside the process has one client",
    ),
    "segments too large to be given up": (
        kafka("spool: {when_full: drop_oldest, max_bytes: 100MB, segment_bytes: 30MB}"),
        "kafka.spool.segment_bytes: must be at most a quarter of max_bytes for drop_oldest, so 25000000",
    ),
    "a registry without address": (
        kafka("schema_registry: {}"),
        "kafka.schema_registry.url: is missing",
    ),
    "a registry that is no URL": (
        kafka("schema_registry: {url: 'registry:8081'}"),
        'kafka.schema_registry.url: expected http://host:port or https://host:port, not "registry:8081"',
    ),
    "a user without password": (
        kafka("schema_registry: {url: 'http://r', username: u}"),
        "kafka.schema_registry.password: is missing beside username",
    ),
    "a password without user": (
        kafka("schema_registry: {url: 'http://r', password: {env: P}}"),
        "kafka.schema_registry.username: is missing beside password",
    ),
    "two ways to authenticate": (
        kafka("schema_registry: {url: 'http://r', username: u, password: {env: P}, bearer_token: {env: T}}"),
        "kafka.schema_registry.bearer_token: contradicts username and password; give one of them",
    ),
    "segments larger than the spool": (
        kafka("spool: {max_bytes: 1MB}"),
        "kafka.spool.segment_bytes: must not be above max_bytes, which is 1000000",
    ),
    "a drain that cannot end": (
        f"{kafka('drain_within: 1m')}\nshutdown_within: 45s",
        "kafka.drain_within: 60 s do not fit into shutdown_within, which is 45 s",
    ),
    # Secrets
    "a literal password": (
        kafka("properties: {sasl.password: hunter2}"),
        f"kafka.properties.sasl.password: {NOT_HERE}",
    ),
    "a numeric password": (
        kafka("properties: {ssl.key.password: 1234}"),
        f"kafka.properties.ssl.key.password: {NOT_HERE}",
    ),
    "a literal token": (
        kafka("schema_registry: {url: 'http://r', bearer_token: hunter2}"),
        f"kafka.schema_registry.bearer_token: {NOT_HERE}",
    ),
    "a secret from two places": (
        kafka("properties: {sasl.password: {env: A, file: b}}"),
        "kafka.properties.sasl.password: expected exactly one of {env: NAME} or {file: PATH}",
    ),
    "a secret from nowhere": (
        kafka("properties: {sasl.password: {}}"),
        "kafka.properties.sasl.password: expected exactly one of {env: NAME} or {file: PATH}",
    ),
    "a secret from elsewhere": (
        kafka("properties: {sasl.password: {vault: hunter2}}"),
        'kafka.properties.sasl.password: unknown key "vault"; expected {env: NAME} or {file: PATH}',
    ),
    "a secret without a name": (
        kafka("properties: {sasl.password: {env: 5}}"),
        "kafka.properties.sasl.password: expected {env: NAME} or {file: PATH}, with a text in it",
    ),
    "a list of secrets": (
        kafka("properties: {sasl.password: [hunter2]}"),
        f"kafka.properties.sasl.password: {PROPERTY}",
    ),
    "a password in a URL": (
        kafka("schema_registry: {url: 'http://me:hunter2@r'}"),
        "kafka.schema_registry.url: must not hold a user name or password",
    ),
    "a secret where nothing belongs": (
        f"{MINIMAL}\napi_secret: hunter2",
        f"api_secret: unknown key; known: {TOP}",
    ),
    # Venues
    "no channels": ("venues: {bybit: {}, okx: {}}", "venues: no channel of any venue is configured"),
    "an unknown venue": (f"venues: {{binance: {{{CHANNELS}}}}}", "venues.binance: unknown venue; known: bybit, okx"),
    "a misspelt venue": (f"venues: {{bybti: {{{CHANNELS}}}}}", 'venues.bybti: unknown venue; did you mean "bybit"?'),
    "an unknown environment": (
        bybit("environment: tesnet"),
        'venues.bybit.environment: unknown environment "tesnet"; did you mean "testnet"?',
    ),
    "an environment of which nothing is used": (
        bybit("environment: testnet, urls: {websocket: 'ws://h', rest: 'http://h'}"),
        "venues.bybit.environment: contradicts urls, which replace both of its hosts; give one of them",
    ),
    "a wrong scheme": (
        bybit("urls: {websocket: 'https://h'}"),
        'venues.bybit.urls.websocket: expected ws://host:port or wss://host:port, not "https://h"',
    ),
    "a port of letters": (
        bybit("urls: {rest: 'http://h:port'}"),
        "venues.bybit.urls.rest: expected http://host:port or https://host:port",
    ),
    "a query": (bybit("urls: {rest: 'http://h/?a=b'}"), "venues.bybit.urls.rest: must not have a query or fragment"),
    "a passphrase that is missing": (
        okx(account("channels: [order]")),
        "venues.okx.accounts.main.passphrase: is missing; okx gives one to every key",
    ),
    "a passphrase where there is none": (
        bybit(account("passphrase: {env: P}, channels: [order]")),
        "venues.bybit.accounts.main.passphrase: bybit has none",
    ),
    "a secret in the file": (
        bybit("accounts: {main: {api_key: {env: K}, api_secret: abc123, channels: [order]}}"),
        ("venues.bybit.accounts.main.api_secret: expected {env: NAME} or {file: PATH}: "
        "secrets are not written into this file"),
    ),
    "a private channel that is misspelt": (
        bybit(account("channels: [order, positon]")),
        'venues.bybit.accounts.main.channels[1].channel: unknown channel "positon"; did you mean "position"?',
    ),
    "a market without the private channel": (
        bybit(account("channels: [{channel: position, market: spot}]")),
        "venues.bybit.accounts.main.channels[0].market: bybit has no position in spot, only in linear, inverse, option",
    ),
    "a private channel as a whole and in part": (
        bybit(account("channels: [order, {channel: order, market: linear}]")),
        ("venues.bybit.accounts.main.channels: "
        "order is asked for as a whole and for linear: its events would come twice"),
    ),
    "a private channel twice": (
        okx(account("passphrase: {env: P}, channels: [balance, {channel: balance, params: {updateInterval: '0'}}]")),
        "venues.okx.accounts.main.channels: balance is asked for twice, with different params",
    ),
    "a name that cannot be part of a key": (
        bybit("accounts: {a.b: {api_key: {env: K}, api_secret: {env: S}, channels: [order]}}"),
        "venues.bybit.accounts.a.b: a name is at most 64 ASCII letters, digits, underscores and hyphens",
    ),
    "an account that is not there": (
        "venues: {okx: {channels: [{market: swap, channel: book, depth: tbt, account: desk}]}}",
        'venues.okx.channels[0].account: unknown account "desk"; no accounts are configured',
    ),
    "authorities of no host": (
        bybit("urls: {ca_file: ca.pem}"),
        "venues.bybit.urls.ca_file: is for the hosts named beside it, and there are none",
    ),
    "a maximum below the start": (
        bybit("reconnect: {first: 2m}"),
        "venues.bybit.reconnect.max: must be at least first, which is 120 s, not 60 s",
    ),
    "a shrinking back-off": (
        bybit("reconnect: {factor: 0.5}"),
        "venues.bybit.reconnect.factor: must be at least 1, not 0.5",
    ),
    "a ping too late": (okx("heartbeat: {ping_every: 30s}"), f"venues.okx.heartbeat.ping_every: {LONG_SILENCE}"),
    "an idle time too short": (
        bybit("heartbeat: {max_active_time: 29}"),
        "venues.bybit.heartbeat.max_active_time: must be between 30 and 600, not 29",
    ),
    "an idle time too long": (
        bybit("heartbeat: {max_active_time: 11m}"),
        "venues.bybit.heartbeat.max_active_time: must be between 30 and 600, not 660",
    ),
    "an idle time elsewhere": (
        okx("heartbeat: {max_active_time: 60}"),
        "venues.okx.heartbeat.max_active_time: only bybit has it",
    ),
    "a patience beyond the system's": (
        f"{MINIMAL}\nhttp: {{send_within: 30d}}",
        "http.send_within: must be between 0.001 and 86400, not 2592000",
    ),
    # Channels
    "no market": (channel("channel: trade"), "venues.bybit.channels[0].market: is missing"),
    "an unknown market": (
        channel("market: swap, channel: trade"),
        'venues.bybit.channels[0].market: unknown market "swap"; known: spot, linear, inverse, option, spread',
    ),
    "a misspelt market": (
        channel("market: swp, channel: trade", "okx"),
        'venues.okx.channels[0].market: unknown market "swp"; did you mean "swap"?',
    ),
    "a misspelt channel": (
        channel("market: spot, channel: tickers"),
        'venues.bybit.channels[0].channel: unknown channel "tickers"; did you mean "ticker"?',
    ),
    "a misspelt channel among others": (
        channel("market: spot, channel: [trade, boook]"),
        'venues.bybit.channels[0].channel[1]: unknown channel "boook"; did you mean "book"?',
    ),
    "no channel": (channel("market: spot, channel: []"), "venues.bybit.channels[0].channel: names no channel"),
    "no instrument": (
        channel("market: spot, channel: trade, instruments: []"),
        "venues.bybit.channels[0].instruments: names no instrument",
    ),
    "a depth that is not offered": (
        channel("market: linear, channel: book, depth: 7"),
        "venues.bybit.channels[0].depth: bybit has no 7 levels in linear; it has 50, 200, 1000, rpi, full",
    ),
    "a depth of trades": (
        channel("market: linear, channel: trade, depth: 50"),
        'venues.bybit.channels[0].depth: only channel "book" has a depth',
    ),
    "a depth of true": (
        channel("market: linear, channel: book, depth: true"),
        "venues.bybit.channels[0].depth: expected a whole number or text, got true",
    ),
    "book options of trades": (
        channel("market: linear, channel: trade, book: {top_levels: 5}"),
        'venues.bybit.channels[0].book: only channel "book" has it',
    ),
    "candles of no length": (
        channel("market: linear, channel: candle"),
        'venues.bybit.channels[0].interval: channel "candle" needs at least one, such as 1m or 1h',
    ),
    "one fault of several candles": (
        channel("market: linear, channel: candle, interval: [1m, 1h], price_type: mark"),
        "venues.bybit.channels[0].price_type: bybit streams candles of trades only",
    ),
    "an interval of trades": (
        channel("market: linear, channel: trade, interval: 1m"),
        'venues.bybit.channels[0].interval: only channel "candle" has an interval',
    ),
    "a price type of trades": (
        channel("market: swap, channel: trade, price_type: mark", "okx"),
        'venues.okx.channels[0].price_type: only channel "candle" has a price type',
    ),
    "a variant of several": (
        channel("market: swap, channel: [trade, ticker], variant: trades-all", "okx"),
        "venues.okx.channels[0].variant: belongs to one channel; give that channel an entry of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), [pytest.param(*case, id=name) for name, case in FAULTS.items()])
def test_a_fault_gives_one_exact_line_without_secrets(text: str, line: str) -> None:
    assert problems(text) == [line]
    assert "hunter2" not in line


def test_all_faults_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = """
kafka:
  bootstrap_servers: broker
  linger: fast
  lingr: 3
  spool: {max_bytes: none, segment_bytes: 0}
  properties: {sasl.password: hunter2, ssl.ca.location: [x]}
venues:
  binance: {}
  bybit:
    chanels: []
    channels:
      - {market: linear, channel: book, depth: 7}
      - {channel: [trade, tickerz]}
      - nonsense
      - {market: spot, channel: [candle, trade], interval: [7m, 1m, 9m], depth: 5}
log: {format: xml}
"""
    assert problems(text) == [
        f'kafka.linger: {SECONDS}, got "fast"',
        'kafka.lingr: unknown key; did you mean "linger"?',
        f'kafka.spool.max_bytes: {SIZE}, got "none"',
        "kafka.spool.segment_bytes: must be at least 1, not 0",
        f"kafka.properties.sasl.password: {NOT_HERE}",
        f"kafka.properties.ssl.ca.location: {PROPERTY}",
        "venues.binance: unknown venue; known: bybit, okx",
        'venues.bybit.chanels: unknown key; did you mean "channels"?',
        "venues.bybit.channels[0].depth: bybit has no 7 levels in linear; it has 50, 200, 1000, rpi, full",
        "venues.bybit.channels[1].market: is missing",
        'venues.bybit.channels[2]: expected a mapping, got "nonsense"',
        'venues.bybit.channels[3].depth: only channel "book" has a depth',
        f'venues.bybit.channels[3].interval: bybit has no candles of "7m"; it has {INTERVALS}',
        f'venues.bybit.channels[3].interval: bybit has no candles of "9m"; it has {INTERVALS}',
        'log.format: expected one of auto, console, json, got "xml"',
    ]


def test_the_smallest_file_is_all_defaults() -> None:
    channels = (ChannelSettings(market="spot", channel=("trade",)),)
    assert loads(MINIMAL) == Config(venues={"bybit": VenueSettings(channels=channels)})


def test_empty_sections_are_defaults() -> None:
    assert loads(f"{MINIMAL}\nkafka:\nlog:\nhttp: ") == loads(MINIMAL)


SECTIONS: dict[type, str] = {
    KafkaSettings: "kafka",
    LogSettings: "log",
    HttpSettings: "http",
    SpoolSettings: "kafka.spool",
    TopicSettings: "kafka.topic_defaults",
    VenueSettings: "venues.bybit",
    UrlSettings: "venues.bybit.urls",
    HeartbeatSettings: "venues.bybit.heartbeat",
    TimeoutSettings: "venues.bybit.timeouts",
    ReconnectSettings: "venues.bybit.reconnect",
    ShardSettings: "shard",
}


@pytest.mark.parametrize("cls", SECTIONS)
def test_the_defaults_of_every_class_can_be_written_out(cls: type) -> None:
    document = yaml.safe_load(MINIMAL)
    section = document
    for step in SECTIONS[cls].split("."):
        section = section.setdefault(step, {})
    for name, value in attrs.asdict(cls(), value_serializer=_plain).items():
        section.setdefault(name, value)
    assert loads(yaml.safe_dump(document)) == loads(MINIMAL)


def _plain(instance: object, field: Any, value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_book_and_registry_settings_can_be_written_out() -> None:
    document = yaml.safe_load(MINIMAL)
    entry = {"market": "linear", "channel": ["book"], "book": attrs.asdict(BookSettings())}
    document["venues"]["bybit"]["channels"] = [entry]
    document["kafka"] = {"schema_registry": attrs.asdict(RegistrySettings("http://registry"))}
    config = loads(yaml.safe_dump(document))
    assert config.venues["bybit"].channels == (ChannelSettings("linear", ("book",)),)
    assert config.kafka.schema_registry == RegistrySettings("http://registry")


def test_what_people_write() -> None:
    config = loads(
        """
shutdown_within: 1.5m
kafka:
  bootstrap_servers: "[::1]:9092"
  client_id: 2026-01-01
  linger: 0
  queue_bytes: 64MiB
  spool: {max_bytes: 1.5 GB, flush_interval: 20ms}
  topics:
    trade: {retention: 7d, config: {segment.bytes: 1048576, preallocate: true, min.cleanable.dirty.ratio: 0.5, x: y}}
  properties:
    sasl.password: {env: KAFKA_PASSWORD}
    ssl.key.password: {file: /run/secrets/key}
    ssl.key.location: /run/key.pem
    sasl.oauthbearer.token.endpoint.url: https://host/token
    socket.keepalive.enable: true
    retry.backoff.ms: 200
venues:
  okx:
    environment: demo
    urls: {websocket: "wss://gateway/okx/", rest: "https://gateway", ca_file: ca.pem}
    channels: &defaults
      - &candles {market: swap, channel: candle, interval: 1m, instruments: "BTC-*", max_silence: 2h}
      - {<<: *candles, market: spot, interval: [1h, 1d]}
  bybit:
    heartbeat: {ping_every: 10, max_active_time: 10m}
    channels:
      - {market: linear, channel: [book, trade], depth: 50, book: {snapshot_interval: null}}
      - {market: linear, channel: book, depth: rpi}
"""
    )
    assert config.shutdown_within == 90
    assert config.kafka.bootstrap_servers == ("[::1]:9092",)
    assert config.kafka.client_id == "2026-01-01"
    assert config.kafka.linger == 0
    assert config.kafka.queue_bytes == 67_108_864
    assert config.kafka.spool == SpoolSettings(max_bytes=1_500_000_000, flush_interval=0.02)
    assert config.kafka.topics["trade"] == TopicSettings(
        retention=604_800,
        config={"segment.bytes": "1048576", "preallocate": "true", "min.cleanable.dirty.ratio": "0.5", "x": "y"},
    )
    assert config.kafka.properties == {
        "sasl.password": Secret(env="KAFKA_PASSWORD"),
        "ssl.key.password": Secret(file="/run/secrets/key"),
        "ssl.key.location": "/run/key.pem",
        "sasl.oauthbearer.token.endpoint.url": "https://host/token",
        "socket.keepalive.enable": True,
        "retry.backoff.ms": 200,
    }
    assert config.venues["okx"].urls == UrlSettings("wss://gateway/okx/", "https://gateway", ca_file="ca.pem")
    assert config.venues["okx"].channels == (
        ChannelSettings("swap", ("candle",), ("BTC-*",), interval=("1m",), max_silence=7200.0),
        ChannelSettings("spot", ("candle",), ("BTC-*",), interval=("1h", "1d"), max_silence=7200.0),
    )
    assert config.venues["bybit"].heartbeat == HeartbeatSettings(ping_every=10.0, max_active_time=600.0)
    assert config.venues["bybit"].channels == (
        ChannelSettings("linear", ("book", "trade"), depth=50, book=BookSettings(snapshot_interval=None)),
        ChannelSettings("linear", ("book",), depth="rpi"),
    )


@attrs.frozen
class Login:
    passphrase: int


def test_a_value_under_a_secret_name_is_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        read({"passphrase": "hunter2"}, Login, Rules(bounds=lambda cls, name: Bounds(), checks={}))
    assert caught.value.problems == [f"passphrase: expected a whole number, got {NOT_SHOWN}"]


def test_the_in_process_cluster_needs_no_broker() -> None:
    config = loads(kafka("bootstrap_servers: [], properties: {test.mock.num.brokers: 1}"))
    assert config.kafka.bootstrap_servers == ()


@pytest.mark.parametrize("name", ["config.example.yaml", "config.demo.yaml"])
def test_the_files_we_ship_load(name: str) -> None:
    config = load(ROOT / name)
    assert set(config.venues) == {"bybit", "okx"}
    assert all(settings.channels for settings in config.venues.values())


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, line in (
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.problems == [line]
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"log: \xe9")
    with pytest.raises(ConfigError) as caught:
        load(latin)
    assert caught.value.problems == ["byte 5: not UTF-8"]


def test_accounts_are_enough_to_run_for() -> None:
    text = "venues: {bybit: {accounts: {main: {api_key: {env: K}, api_secret: {file: f}, channels: [order, fill]}}}}"
    [(name, account)] = loads(text).venues["bybit"].accounts.items()
    assert (name, account.api_key, account.api_secret) == ("main", Secret(env="K"), Secret(file="f"))
    assert [entry.channel for entry in account.channels] == [("order",), ("fill",)]


@pytest.mark.parametrize(
    ("venues", "groups", "without"),
    [
        ("bybit: {channels: [{market: linear, channel: trade}]}", {"market", "control"}, set()),
        (
            "bybit: {channels: [{market: linear, channel: trade}], archive: {topic: true}}",
            {"market", "control", "archive"},
            set(),
        ),
        (
            "bybit: {accounts: {main: {api_key: {env: K}, api_secret: {env: S}, channels: [order]}}}",
            {"account", "control"},
            set(),
        ),
        (
            """bybit: {
                publish_instruments: false,
                accounts: {main: {api_key: {env: K}, api_secret: {env: S}, channels: [fill]}}
            }""",
            {"account", "control"},
            {"instrument"},
        ),
    ],
    ids=["market", "archive", "accounts", "no catalogue"],
)
def test_what_an_installation_can_publish(venues: str, groups: set[str], without: set[str]) -> None:
    expected = {kind for kind in KINDS if group_of(kind) in groups} | {"instrument"} - without
    assert loads(f"venues: {{{venues}}}").written_kinds == expected


def test_several_parts_of_a_private_channel_are_no_repetition() -> None:
    loads(bybit(account("channels: [{channel: order, market: linear}, {channel: order, market: spot}, fill]")))


@pytest.mark.parametrize(
    ("value", "index"), [("pipeline-3", 3), ("0", 0), (" 2\n", 2), ("exchange-pipeline-demo-1", 1)]
)
def test_the_environment_tells_which_shard_this_is(value: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = loads(f"{MINIMAL}\nworkers: 3\nshard: {{index: {{env: POD_NAME}}, count: 4}}")
    assert config.shard.index == Ordinal("POD_NAME")
    monkeypatch.setenv("POD_NAME", value)
    assert [config.share(worker) for worker in range(3)] == [Share(3 * index + worker, 12) for worker in range(3)]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "is not set"),
        ("", "is not set"),
        ("pipeline", 'is "pipeline": neither a number nor a name ending in -N'),
        ("pipeline-", 'is "pipeline-": neither a number nor a name ending in -N'),
        ("pipeline-²", 'is "pipeline-²": neither a number nor a name ending in -N'),
        ("pipeline-4", "says 4, which is not below shard.count, which is 4"),
    ],
)
def test_an_environment_that_does_not_tell_the_shard(
    value: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loads(f"{MINIMAL}\nshard: {{index: {{env: POD_NAME}}, count: 4}}")
    monkeypatch.delenv("POD_NAME", raising=False)
    if value is not None:
        monkeypatch.setenv("POD_NAME", value)
    with pytest.raises(ConfigError) as caught:
        config.share()
    assert caught.value.problems == [f"shard.index: environment variable POD_NAME {why}"]


def test_shares_have_nothing_in_common_and_the_whole_is_as_configured() -> None:
    archive = "archive: {files: {directory: tape}}"
    config = loads(
        f"{bybit(archive)}\nworkers: 2\nkafka: {{delivery: exactly_once, shard: a, spool: {{directory: s}}}}"
    )
    own = config.for_share(config.share(1))
    assert own.kafka.client_id == "exchange-pipeline-1-of-2"
    assert own.kafka.shard_name == "a-1-of-2"
    assert own.kafka.spool.directory == "s/share-1-of-2"
    assert own.venues["bybit"].archive is not None
    assert own.venues["bybit"].archive.files is not None
    assert own.venues["bybit"].archive.files.directory == "tape/share-1-of-2"
    assert loads(bybit(archive)).for_share(Share()) == loads(bybit(archive))
