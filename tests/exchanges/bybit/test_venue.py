"""What Bybit offers and allows."""

from __future__ import annotations

from math import inf, nan

import pytest
from msgspec.structs import replace

from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import ChannelSpec, SessionTimes, Venue
from pipeline.model.rate import Rate
from tests.exchanges.bybit.samples import catalogue

VENUE = Bybit()


def topics(spec: ChannelSpec, market: str | None = None) -> list[tuple[str, str, str | None, float]]:
    known = [each for (where, _), each in catalogue().items() if where == (market or spec.market)]
    assert VENUE.problems(spec) == []
    found = VENUE.subscriptions(spec, known)
    endpoint = {"system_status": "status", "rfq_trade": "rfq", "earn": "fp"}.get(spec.channel, spec.market)
    assert all((each.market, each.endpoint, each.kind) == (spec.market, endpoint, spec.channel) for each in found)
    return [(each.topic, each.channel, each.instrument, each.max_silence) for each in found]


def test_it_is_a_venue() -> None:
    venue: Venue = VENUE
    assert venue.name == "bybit"
    assert next(iter(venue.environments)) == "mainnet"
    assert venue.markets == ("spot", "linear", "inverse", "option", "spread")
    assert venue.streams == (*venue.markets, "private", "trade", "status", "rfq", "fp")


def test_environments() -> None:
    hosts = {name: (each.websocket, each.rest) for name, each in VENUE.environments.items()}
    assert hosts["mainnet"] == hosts["demo"] == ("wss://stream.bybit.com", "https://api.bybit.com")
    assert hosts["testnet"] == ("wss://stream-testnet.bybit.com", "https://api-testnet.bybit.com")
    assert hosts["turkey"][0] == "wss://stream.bybit.tr"
    assert hosts["turkey-legacy"][0] == "wss://stream.bybit-tr.com"
    assert hosts["japan"] == ("wss://stream.manepa.jp", "https://api.manepa.jp")
    assert hosts["bytick"] == ("wss://stream.bytick.com", "https://api.bytick.com")
    assert hosts.keys() >= {"kazakhstan", "georgia", "indonesia", "eu"}


def test_paper_trading_has_private_hosts_of_its_own_and_public_data_of_the_mainnet() -> None:
    hosts = VENUE.environments["demo"]
    assert (hosts.private_websocket, hosts.private_rest) == (
        "wss://stream-demo.bybit.com",
        "https://api-demo.bybit.com",
    )
    assert {each.private_websocket for name, each in VENUE.environments.items() if name != "demo"} == {""}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ChannelSpec("linear", "trade"), ("publicTrade.BTCUSDT", "publicTrade", "BTCUSDT", inf)),
        (ChannelSpec("option", "trade"), ("publicTrade.BTC", "publicTrade", None, inf)),
        (ChannelSpec("spot", "book"), ("orderbook.50.BTCUSDT", "orderbook.50", "BTCUSDT", inf)),
        (ChannelSpec("linear", "book", depth=1000), ("orderbook.1000.BTCUSDT", "orderbook.1000", "BTCUSDT", inf)),
        (ChannelSpec("linear", "book", depth="rpi"), ("orderbook.rpi.BTCUSDT", "orderbook.rpi", "BTCUSDT", inf)),
        (
            ChannelSpec("option", "book"),
            ("orderbook.25.BTC-27MAR26-70000-P-USDT", "orderbook.25", "BTC-27MAR26-70000-P-USDT", inf),
        ),
        (ChannelSpec("spot", "bbo"), ("orderbook.1.BTCUSDT", "orderbook.1", "BTCUSDT", 15.0)),
        (ChannelSpec("spot", "bbo", max_silence=60.0), ("orderbook.1.BTCUSDT", "orderbook.1", "BTCUSDT", 60.0)),
        (ChannelSpec("spot", "candle", interval="1h"), ("kline.60.BTCUSDT", "kline.60", "BTCUSDT", 180.0)),
        (ChannelSpec("spot", "candle", interval="D"), ("kline.D.BTCUSDT", "kline.D", "BTCUSDT", 180.0)),
        (ChannelSpec("spot", "candle", interval="1M"), ("kline.M.BTCUSDT", "kline.M", "BTCUSDT", 180.0)),
        (ChannelSpec("spot", "index_price"), ("tickers.BTCUSDT", "tickers", "BTCUSDT", inf)),
        (
            ChannelSpec("option", "option_summary"),
            ("tickers.BTC-27MAR26-70000-P-USDT", "tickers", "BTC-27MAR26-70000-P-USDT", inf),
        ),
        (ChannelSpec("linear", "liquidation"), ("allLiquidation.BTCUSDT", "allLiquidation", "BTCUSDT", inf)),
        (ChannelSpec("spot", "price_limit"), ("priceLimit.BTCUSDT", "priceLimit", "BTCUSDT", inf)),
        (ChannelSpec("linear", "insurance_fund"), ("insurance.USDT", "insurance", None, inf)),
        (ChannelSpec("linear", "adl_alert", max_silence=9.0), ("adlAlert.USDT", "adlAlert", None, 9.0)),
        (ChannelSpec("option", "system_status"), ("system.status", "system.status", None, inf)),
        (ChannelSpec("spot", "rfq_trade"), ("rfq.open.public.trades", "rfq.open.public.trades", None, inf)),
        (ChannelSpec("spot", "earn"), ("earn.dualassets.offers", "earn.dualassets.offers", None, inf)),
        (ChannelSpec("spread", "book"), ("orderbook.25.SOLUSDT_SOL/USDT", "orderbook.25", "SOLUSDT_SOL/USDT", inf)),
        (ChannelSpec("spread", "trade"), ("publicTrade.SOLUSDT_SOL/USDT", "publicTrade", "SOLUSDT_SOL/USDT", inf)),
        (ChannelSpec("spread", "ticker"), ("tickers.SOLUSDT_SOL/USDT", "tickers", "SOLUSDT_SOL/USDT", inf)),
    ],
)
def test_topics(spec: ChannelSpec, expected: tuple[str, str, str | None, float]) -> None:
    assert topics(spec)[0] == expected


def test_one_topic_serves_all_channels_of_the_ticker() -> None:
    channels = ("ticker", "mark_price", "index_price", "funding_rate", "open_interest")
    assert {topics(ChannelSpec("linear", channel))[0][0] for channel in channels} == {"tickers.BTCUSDT"}


def test_option_trades_are_one_subscription_per_coin() -> None:
    (known,) = [each for (market, _), each in catalogue().items() if market == "option"]
    twins = [known, replace(known), replace(known, base="ETH")]
    found = VENUE.subscriptions(ChannelSpec("option", "trade"), twins)
    assert [each.topic for each in found] == ["publicTrade.BTC", "publicTrade.ETH"]


def test_funds_and_alerts_are_one_subscription_per_pool() -> None:
    known = next(each for (market, _), each in catalogue().items() if market == "linear")
    mixed = [known, replace(known), replace(known, settle="USDC")]
    found = VENUE.subscriptions(ChannelSpec("linear", "insurance_fund"), mixed)
    assert [each.topic for each in found] == ["insurance.USDT", "insurance.USDC"]
    found = VENUE.subscriptions(ChannelSpec("inverse", "adl_alert"), [replace(known, settle="BTC")])
    assert [each.topic for each in found] == ["adlAlert.inverse"]


@pytest.mark.parametrize(("channel", "endpoints"), [("system_status", ["status"]), ("rfq_trade", ["rfq"])])
def test_what_is_the_same_everywhere_needs_no_instruments(channel: str, endpoints: list[str]) -> None:
    spec = ChannelSpec("linear", channel)
    assert VENUE.catalogue_markets(spec) == ()
    assert [each.endpoint for each in VENUE.subscriptions(spec, [])] == endpoints


def test_offers_are_one_topic_per_product() -> None:
    found = VENUE.subscriptions(ChannelSpec("spot", "earn"), [])
    assert {(each.topic, each.endpoint) for each in found} == {
        (f"earn.{product}.offers", "fp") for product in ("dualassets", "smartleverage", "doublewin", "discountbuy")
    }


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        (
            ChannelSpec("swap", "trade"),
            "market",
            'unknown market "swap"; bybit has spot, linear, inverse, option, spread',
        ),
        (ChannelSpec("linea", "trade"), "market", 'unknown market "linea"; did you mean "linear"?'),
        (ChannelSpec("linear", "tickers"), "channel", 'unknown channel "tickers"; did you mean "ticker"?'),
        (ChannelSpec("spot", "funding_rate"), "channel", "no funding_rate in spot, only in linear, inverse"),
        (ChannelSpec("option", "bbo"), "channel", "derive the BBO from a book"),
        (ChannelSpec("spread", "bbo"), "channel", "no level-1 book in spread; derive the BBO from a book"),
        (ChannelSpec("option", "candle", interval="1m"), "channel", "no candle in option"),
        (ChannelSpec("spot", "liquidation"), "channel", "no liquidation in spot, only in linear, inverse"),
        (ChannelSpec("linear", "option_summary"), "channel", "only in option"),
        (ChannelSpec("spread", "book", depth=50), "depth", "no 50 levels in spread; it has 25"),
        (ChannelSpec("linear", "book", depth=500), "depth", "no 500 levels in linear; it has 50, 200, 1000, rpi"),
        (ChannelSpec("option", "book", depth=50), "depth", "no 50 levels in option; it has 25, 100"),
        (ChannelSpec("option", "book", depth="rpi"), "depth", "it has 25, 100"),
        (ChannelSpec("linear", "book", depth=1), "depth", "level 1 is the channel bbo"),
        (ChannelSpec("option", "book", depth="full"), "depth", "no full levels in option"),
        (ChannelSpec("linear", "book", depth=0), "depth", "no 0 levels"),
        (ChannelSpec("linear", "trade", depth=50), "depth", "trade has no depth"),
        (ChannelSpec("linear", "candle"), "interval", "is missing"),
        (ChannelSpec("linear", "candle", interval="1s"), "interval", 'no candles of "1s"; it has 1m, 3m'),
        (ChannelSpec("linear", "trade", interval="1m"), "interval", "trade has no interval"),
        (ChannelSpec("linear", "candle", interval="1m", price_type="mark"), "price_type", "trades only"),
        (ChannelSpec("linear", "trade", variant="trades-all"), "variant", "one channel"),
        (ChannelSpec("linear", "trade", instruments=()), "instruments", "names none"),
        (ChannelSpec("linear", "trade", max_silence=0.0), "max_silence", "above 0"),
    ],
)
def test_problems_name_field_and_remedy(spec: ChannelSpec, field: str, why: str) -> None:
    ((found, text),) = VENUE.problems(spec)
    assert found == field
    assert why in text


@pytest.mark.parametrize(
    ("times", "fields"),
    [
        (SessionTimes(20.0, 10.0), []),
        (SessionTimes(599.0, 10.0), []),
        (SessionTimes(600.0, 10.0), ["ping_every"]),
        (SessionTimes(0.0, 10.0), ["ping_every"]),
        (SessionTimes(nan, 0.0, inf), ["ping_every", "pong_within", "acknowledge_within"]),
        (SessionTimes(20.0, 10.0, max_active_time=30.0), []),
        (SessionTimes(20.0, 10.0, max_active_time=600.0), []),
        (SessionTimes(20.0, 10.0, max_active_time=29.0), ["max_active_time"]),
        (SessionTimes(20.0, 10.0, max_active_time=601.0), ["max_active_time"]),
        (SessionTimes(20.0, 10.0, max_active_time=45.5), ["max_active_time"]),
        (SessionTimes(45.0, 10.0, max_active_time=45.0), ["max_active_time"]),
        (SessionTimes(45.0, 10.0, max_active_time=nan), ["max_active_time"]),
    ],
)
def test_session_times(times: SessionTimes, fields: list[str]) -> None:
    assert [field for field, _ in VENUE.session_problems(times)] == fields


def test_limits() -> None:
    for market in VENUE.markets:
        limits = VENUE.limits(market)
        assert limits.topics_per_request == (10 if market == "spot" else 200)
        assert (limits.topics_per_connection, limits.topic_bytes_per_connection) == (2_000, 20_000)
    assert VENUE.connects == Rate(500, 300.0)
    assert VENUE.rest_requests.count / VENUE.rest_requests.seconds < 600 / 5
    assert VENUE.session_problems(VENUE.session_times) == []


def test_paths() -> None:
    assert [VENUE.path(stream, VENUE.session_times) for stream in VENUE.streams] == [
        "/v5/public/spot",
        "/v5/public/linear",
        "/v5/public/inverse",
        "/v5/public/option",
        "/v5/public/spread",
        "/v5/private",
        "/v5/trade",
        "/v5/public/misc/status",
        "/v5/public/rfq",
        "/v5/public/fp",
    ]


def test_the_idle_time_is_told_where_there_is_a_login() -> None:
    times = SessionTimes(20.0, 10.0, max_active_time=60.0)
    paths = {stream: VENUE.path(stream, times) for stream in VENUE.streams}
    assert {stream: path for stream, path in paths.items() if "?" in path} == {
        "private": "/v5/private?max_active_time=60s",
        "trade": "/v5/trade?max_active_time=60s",
    }


def test_books_ignore_what_is_old_and_nothing_else_is_chained() -> None:
    for level in ("25", "50", "100", "200", "500", "1000", "rpi", "full"):
        rule = VENUE.sequence_rule(f"orderbook.{level}")
        assert rule is not None
        assert rule.ignores_old
    for channel in ("orderbook.1", "publicTrade", "tickers", "kline.1"):
        assert VENUE.sequence_rule(channel) is None


def test_every_channel_needs_the_catalogue_of_its_market() -> None:
    assert VENUE.catalogue_markets(ChannelSpec("option", "trade")) == ("option",)
