from __future__ import annotations

from math import inf

import pytest

from pipeline.exchanges.okx.channels import OFFERED
from pipeline.exchanges.venue import ChannelSpec, Subscription, Venue
from pipeline.model.events import Instrument
from tests.exchanges.okx.samples import CATALOGUE, VENUE

SWAP = [CATALOGUE["swap", "BTC-USDT-SWAP"], CATALOGUE["swap", "ETH-USDT-SWAP"]]
OPTIONS = [entry for (market, _), entry in CATALOGUE.items() if market == "option"]


def topics(spec: ChannelSpec, instruments: list[Instrument]) -> list[tuple[str, str]]:
    assert VENUE.problems(spec) == []
    return [(subscription.endpoint, subscription.topic) for subscription in VENUE.subscriptions(spec, instruments)]


def test_it_is_a_venue() -> None:
    venue: Venue = VENUE
    assert venue.name == "okx"
    assert list(venue.channels) == list(OFFERED)


def test_a_subscription_in_full() -> None:
    spec = ChannelSpec("swap", "book", ("BTC-USDT-SWAP",))
    assert VENUE.subscriptions(spec, SWAP[:1]) == [
        Subscription(
            '{"channel":"books","instId":"BTC-USDT-SWAP"}', "book", "books", "swap", "BTC-USDT-SWAP", "public", 90.0
        )
    ]


@pytest.mark.parametrize(
    ("spec", "endpoint", "channel"),
    [
        (ChannelSpec("swap", "trade"), "public", "trades"),
        (ChannelSpec("swap", "trade", variant="trades"), "public", "trades"),
        (ChannelSpec("swap", "trade", variant="trades-all"), "business", "trades-all"),
        (ChannelSpec("swap", "book", depth=400), "public", "books"),
        (ChannelSpec("swap", "book", depth=5), "public", "books5"),
        (ChannelSpec("swap", "book", depth="rpi"), "public", "books-rpi"),
        (ChannelSpec("swap", "bbo"), "public", "bbo-tbt"),
        (ChannelSpec("swap", "ticker"), "public", "tickers"),
        (ChannelSpec("swap", "mark_price"), "public", "mark-price"),
        (ChannelSpec("swap", "price_limit"), "public", "price-limit"),
        (ChannelSpec("swap", "funding_rate"), "public", "funding-rate"),
        (ChannelSpec("swap", "open_interest"), "public", "open-interest"),
        (ChannelSpec("swap", "candle", interval="1m"), "business", "candle1m"),
        (ChannelSpec("swap", "candle", interval="4h"), "business", "candle4H"),
        (ChannelSpec("swap", "candle", interval="6h"), "business", "candle6Hutc"),
        (ChannelSpec("swap", "candle", interval="1d"), "business", "candle1Dutc"),
        (ChannelSpec("swap", "candle", interval="1M"), "business", "candle1Mutc"),
        (ChannelSpec("swap", "candle", interval="1D"), "business", "candle1D"),
        (ChannelSpec("swap", "candle", interval="1s"), "business", "candle1s"),
        (ChannelSpec("swap", "candle", interval="1w", price_type="mark"), "business", "mark-price-candle1Wutc"),
        (ChannelSpec("swap", "candle", interval="1Yutc", price_type="mark"), "business", "mark-price-candle1Yutc"),
    ],
    ids=range(21),
)
def test_topics_per_instrument(spec: ChannelSpec, endpoint: str, channel: str) -> None:
    assert topics(spec, [*SWAP, SWAP[0]]) == [
        (endpoint, f'{{"channel":"{channel}","instId":"BTC-USDT-SWAP"}}'),
        (endpoint, f'{{"channel":"{channel}","instId":"ETH-USDT-SWAP"}}'),
    ]


def test_index_channels() -> None:
    (index,) = [entry for (market, _), entry in CATALOGUE.items() if market == "spot"]
    assert topics(ChannelSpec("index", "index_price"), [index]) == [
        ("public", '{"channel":"index-tickers","instId":"BTC-USDT"}')
    ]
    assert topics(ChannelSpec("index", "candle", interval="30m", price_type="index"), [index]) == [
        ("business", '{"channel":"index-candle30m","instId":"BTC-USDT"}')
    ]


def test_option_trades_are_subscribed_by_family() -> None:
    assert len(OPTIONS) > 1
    spec = ChannelSpec("option", "trade")
    assert topics(spec, OPTIONS) == [
        ("public", '{"channel":"option-trades","instType":"OPTION","instFamily":"BTC-USD"}')
    ]
    assert [subscription.instrument for subscription in VENUE.subscriptions(spec, OPTIONS)] == [None]


@pytest.mark.parametrize("variant", ["trades", "option-trades"])
def test_block_trades_are_a_variant_of_trades(variant: str) -> None:
    market = "option" if variant == "option-trades" else "swap"
    spec = ChannelSpec(market, "trade", variant="public-block-trades")
    assert topics(spec, SWAP[:1]) == [("business", '{"channel":"public-block-trades","instId":"BTC-USDT-SWAP"}')]


@pytest.mark.parametrize(
    ("spec", "channel"),
    [
        (ChannelSpec("spread", "trade", ("A-B_A-B-SWAP",)), "sprd-public-trades"),
        (ChannelSpec("spread", "trade", ("A-B_A-B-SWAP",), variant="sprd-public-trades"), "sprd-public-trades"),
        (ChannelSpec("spread", "book", ("A-B_A-B-SWAP",)), "sprd-books-l2-tbt"),
        (ChannelSpec("spread", "book", ("A-B_A-B-SWAP",), depth=400), "sprd-books-l2-tbt"),
        (ChannelSpec("spread", "book", ("A-B_A-B-SWAP",), depth=5), "sprd-books5"),
        (ChannelSpec("spread", "bbo", ("A-B_A-B-SWAP",)), "sprd-bbo-tbt"),
        (ChannelSpec("spread", "ticker", ("A-B_A-B-SWAP",)), "sprd-tickers"),
        (ChannelSpec("spread", "candle", ("A-B_A-B-SWAP",), interval="1d"), "sprd-candle1Dutc"),
    ],
    ids=range(8),
)
def test_spreads_are_named_and_not_looked_up(spec: ChannelSpec, channel: str) -> None:
    assert VENUE.catalogue_markets(spec) == ()
    assert VENUE.problems(spec) == []
    assert VENUE.subscriptions(spec, []) == [
        Subscription(
            f'{{"channel":"{channel}","sprdId":"A-B_A-B-SWAP"}}',
            spec.channel,
            channel,
            "spread",
            "A-B_A-B-SWAP",
            "business",
            inf,
        )
    ]


def test_an_auction_is_subscribed_by_name_before_the_instrument_is_tradable() -> None:
    spec = ChannelSpec("spot", "call_auction", ("ONDO-USDC", "X-USDC"))
    assert VENUE.catalogue_markets(spec) == ()
    assert topics(spec, []) == [
        ("public", f'{{"channel":"call-auction-details","instId":"{name}"}}') for name in ("ONDO-USDC", "X-USDC")
    ]


@pytest.mark.parametrize(
    ("spec", "endpoint", "arg"),
    [
        (ChannelSpec("events", "event_contract"), "public", '{"channel":"event-contract-markets","instType":"EVENTS"}'),
        (ChannelSpec("swap", "struct_block_trade"), "business", '{"channel":"public-struc-block-trades"}'),
        (ChannelSpec("spread", "system_status"), "public", '{"channel":"status"}'),
        (
            ChannelSpec("swap", "economic_calendar", with_login=True),
            "business",
            '{"channel":"economic-calendar"}',
        ),
    ],
    ids=range(4),
)
def test_channels_that_are_passed_on_without_instruments(spec: ChannelSpec, endpoint: str, arg: str) -> None:
    assert VENUE.catalogue_markets(spec) == ()
    assert topics(spec, []) == [(endpoint, arg)]
    (subscription,) = VENUE.subscriptions(spec, [])
    assert subscription.needs_login == (spec.channel == "economic_calendar")


def test_block_tickers_are_subscribed_by_instrument() -> None:
    spec = ChannelSpec("swap", "block_ticker")
    assert VENUE.catalogue_markets(spec) == ("swap",)
    assert topics(spec, SWAP[:1]) == [("business", '{"channel":"block-tickers","instId":"BTC-USDT-SWAP"}')]


@pytest.mark.parametrize(
    ("depth", "channel", "rivals"),
    [
        (None, "books", ["books-l2-tbt"]),
        (400, "books", ["books-l2-tbt"]),
        (5, "books5", []),
        ("rpi", "books-rpi", []),
        (50, "books50-l2-tbt", ["books-l2-tbt"]),
        ("tbt", "books-l2-tbt", ["books", "books50-l2-tbt"]),
    ],
)
def test_books_of_accounts_with_a_fee_tier(depth: int | str | None, channel: str, rivals: list[str]) -> None:
    spec = ChannelSpec("swap", "book", depth=depth, with_login=True)
    assert topics(spec, SWAP[:1]) == [("public", f'{{"channel":"{channel}","instId":"BTC-USDT-SWAP"}}')]
    (subscription,) = VENUE.subscriptions(spec, SWAP[:1])
    assert subscription.needs_login == (depth in (50, "tbt"))
    assert subscription.max_silence == 90.0
    # OKX refuses them on one connection; without a login there is no such rival.
    assert subscription.rivals == {f'{{"channel":"{name}","instId":"BTC-USDT-SWAP"}}' for name in rivals}
    if depth not in (50, "tbt"):
        (subscription,) = VENUE.subscriptions(ChannelSpec("swap", "book", depth=depth), SWAP[:1])
        assert subscription.rivals == frozenset()


@pytest.mark.parametrize(
    ("spec", "arg"),
    [
        (ChannelSpec("futures", "instrument"), '{"channel":"instruments","instType":"FUTURES"}'),
        (ChannelSpec("margin", "liquidation"), '{"channel":"liquidation-orders","instType":"MARGIN"}'),
        (ChannelSpec("swap", "adl_alert"), '{"channel":"adl-warning","instType":"SWAP"}'),
        (ChannelSpec("index", "system_status"), '{"channel":"status"}'),
    ],
    ids=range(4),
)
def test_channels_over_a_whole_market_name_no_instrument(spec: ChannelSpec, arg: str) -> None:
    assert topics(spec, []) == topics(spec, SWAP) == [("public", arg)]
    assert [subscription.instrument for subscription in VENUE.subscriptions(spec, SWAP)] == [None]


@pytest.mark.parametrize(
    ("spec", "arg"),
    [
        (ChannelSpec("option", "option_summary"), '{"channel":"opt-summary","instFamily":"BTC-USD"}'),
        (
            ChannelSpec("option", "estimated_price"),
            '{"channel":"estimated-price","instType":"OPTION","instFamily":"BTC-USD"}',
        ),
    ],
    ids=range(2),
)
def test_channels_over_a_family_are_subscribed_once_each(spec: ChannelSpec, arg: str) -> None:
    assert topics(spec, OPTIONS) == [("public", arg)]
    assert topics(spec, []) == []


@pytest.mark.parametrize(
    ("channel", "markets"),
    [
        ("trade", ("futures",)),
        ("liquidation", ("futures",)),
        ("estimated_price", ("futures",)),
        ("instrument", ()),
        ("adl_alert", ()),
        ("system_status", ()),
    ],
)
def test_the_catalogue_is_read_where_instruments_or_their_sizes_are_needed(
    channel: str, markets: tuple[str, ...]
) -> None:
    assert VENUE.catalogue_markets(ChannelSpec("futures", channel)) == markets


@pytest.mark.parametrize(
    ("spec", "silence"),
    [
        (ChannelSpec("swap", "book"), 90.0),
        (ChannelSpec("swap", "bbo"), 90.0),
        (ChannelSpec("swap", "mark_price"), 30.0),
        (ChannelSpec("swap", "funding_rate"), 240.0),
        (ChannelSpec("swap", "trade"), inf),
        (ChannelSpec("swap", "ticker"), inf),
        (ChannelSpec("swap", "trade", max_silence=7.0), 7.0),
        (ChannelSpec("swap", "book", max_silence=inf), inf),
    ],
    ids=range(8),
)
def test_silence_is_bounded_where_the_venue_promises_something(spec: ChannelSpec, silence: float) -> None:
    assert {subscription.max_silence for subscription in VENUE.subscriptions(spec, SWAP)} == {silence}


@pytest.mark.parametrize("channel", OFFERED)
def test_every_offered_channel_is_accepted_in_its_markets_and_only_there(channel: str) -> None:
    for market in VENUE.markets:
        candles = {"margin": "mark", "index": "index"}.get(market, "trade")
        is_candle = channel == "candle"
        spec = ChannelSpec(
            market,
            channel,
            ("A-B_A-B-SWAP",),
            interval="1m" if is_candle else None,
            price_type=candles if is_candle else "trade",
            with_login=True,
        )
        assert [field for field, _ in VENUE.problems(spec)] == ([] if market in OFFERED[channel] else ["channel"])


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        (ChannelSpec("swaps", "trade"), "market", "unknown market 'swaps'; did you mean 'swap'?"),
        (ChannelSpec("swap", "trades"), "channel", "unknown channel 'trades'; did you mean 'trade'?"),
        (ChannelSpec("swap", "zzz"), "channel", "there is trade, book,"),
        (ChannelSpec("spot", "funding_rate"), "channel", "no funding_rate in market spot; there is swap, futures"),
        (ChannelSpec("swap", "book", depth=20), "depth", "no book of depth 20; there are 400, 5, rpi"),
        (
            ChannelSpec("swap", "book", depth=50),
            "depth",
            "of fee tier VIP4; without a login there are 400, 5, rpi; or give the entry an account",
        ),
        (ChannelSpec("swap", "book", depth=20, with_login=True), "depth", "there are 400, 5, rpi, 50, tbt"),
        (ChannelSpec("spread", "book", ("A_B",), depth="tbt", with_login=True), "depth", "there are 400, 5"),
        (ChannelSpec("spread", "book", ("A_B",), depth="rpi"), "depth", "no book of depth 'rpi'; there are 400, 5"),
        (ChannelSpec("spread", "book"), "instruments", "okx does not list spreads: name each in full"),
        (ChannelSpec("spread", "trade", ("A_B", "A_?")), "instruments", "okx does not list spreads"),
        (ChannelSpec("spot", "call_auction"), "instruments", "before their auction as tradable: name each in full"),
        (ChannelSpec("spread", "trade", ("A_B",), variant="trades"), "variant", "there is sprd-public-trades"),
        (ChannelSpec("spread", "candle", ("A_B",), interval="1s"), "interval", "unknown interval '1s'"),
        (
            ChannelSpec("spread", "candle", ("A_B",), interval="1m", price_type="mark"),
            "price_type",
            "there is trade",
        ),
        (ChannelSpec("swap", "economic_calendar"), "channel", "only to logged-in accounts; give the entry an account"),
        (ChannelSpec("swap", "event_contract"), "channel", "there is events"),
        (ChannelSpec("swap", "book", depth="tbt"), "depth", "books-l2-tbt only to logged-in accounts"),
        (ChannelSpec("swap", "trade", depth=5), "depth", "only channel book"),
        (ChannelSpec("swap", "trade", variant="trades-al"), "variant", "did you mean 'trades-all'?"),
        (ChannelSpec("option", "trade", variant="trades"), "variant", "option-trades"),
        (ChannelSpec("swap", "ticker", variant="trades"), "variant", "only channel trade"),
        (ChannelSpec("swap", "candle"), "interval", "missing; there is 1s, 1m"),
        (ChannelSpec("swap", "candle", interval="7m"), "interval", "unknown interval '7m'"),
        (ChannelSpec("swap", "candle", interval="1s", price_type="mark"), "interval", "unknown interval '1s'"),
        (ChannelSpec("swap", "candle", interval="1Yutc"), "interval", "unknown interval '1Yutc'"),
        (ChannelSpec("swap", "ticker", interval="1m"), "interval", "only channel candle"),
        (ChannelSpec("swap", "candle", interval="1m", price_type="marks"), "price_type", "did you mean 'mark'?"),
        (ChannelSpec("swap", "candle", interval="1m", price_type="index"), "price_type", "there is trade, mark"),
        (ChannelSpec("index", "candle", interval="1m"), "price_type", "there is index"),
        (ChannelSpec("swap", "ticker", price_type="mark"), "price_type", "only channel candle"),
        (ChannelSpec("swap", "trade", max_silence=0.0), "max_silence", "must be above 0"),
    ],
    ids=range(32),
)
def test_problems_name_the_field_and_what_there_is(spec: ChannelSpec, field: str, why: str) -> None:
    ((found, text),) = VENUE.problems(spec)
    assert found == field
    assert why in text
