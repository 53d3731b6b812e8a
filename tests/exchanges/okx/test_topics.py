from __future__ import annotations

import pytest

from pipeline.exchanges.okx.topics import interval_of, market_of, micros, topic


@pytest.mark.parametrize(
    ("channel", "instrument", "market"),
    [
        ("trades", "BTC-USDT", "spot"),
        ("mark-price", "BTC-USDT", "margin"),
        ("mark-price-candle1m", "BTC-USDT", "margin"),
        ("index-tickers", "BTC-USDT", "index"),
        ("index-candle1m", "BTC-USD", "index"),
        ("books", "BTC-USD_UM-SWAP", "swap"),
        ("books", "BTC-USD-SWAP", "swap"),
        ("mark-price", "BTC-USDT-250808", "futures"),
        ("trades", "BTC-USD-241227-50000-C", "option"),
        ("trades", "BTC-USD-241227-0.5-P", "option"),
        ("trades", "BTC-USD-241227-50000-X", "option"),
        ("trades", "BTC-ABOVE-DAILY-260224-1600-65000", "events"),
        ("trades", "BTC-USD-12345", "events"),
    ],
)
def test_markets_by_name(channel: str, instrument: str, market: str) -> None:
    assert market_of(channel, instrument) == market


@pytest.mark.parametrize(
    ("bar", "interval"),
    [
        ("1s", "1s"),
        ("1m", "1m"),
        ("1H", "1h"),
        ("12Hutc", "12h"),
        ("1D", "1d"),
        ("1Dutc", "1d"),
        ("1Wutc", "1w"),
        ("1M", "1M"),
        ("3Mutc", "3M"),
        ("1Yutc", "1y"),
        ("9x", "9x"),
    ],
)
def test_intervals(bar: str, interval: str) -> None:
    assert interval_of(bar) == interval


def test_a_topic_is_compact_json_in_the_order_of_the_venue() -> None:
    assert topic("option-trades", instFamily="BTC-USD", instType="OPTION") == (
        '{"channel":"option-trades","instType":"OPTION","instFamily":"BTC-USD"}'
    )
    assert topic("status") == '{"channel":"status"}'


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", " 1", "١", "1" * 16])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="no time in milliseconds"):
        micros(text)
