from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.errors import BadMessage
from pipeline.model.events import Candle, FundingRate, MarkPrice, Ticker
from tests.exchanges.okx.samples import RECEIVED, events_of, fields, normalizer, push

BTC_SWAP = ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP")
BTC_SPOT = ("okx", "spot", "BTC-USDT", "BTC-USDT")
FUTURE_2022 = ("okx", "futures", "BTC-USD-220527", "BTC-USD-20220527")


def test_recorded_tickers_of_spot_and_swap() -> None:
    events = [fields(event) for event in events_of("recording2026.tickers")]
    assert events[0] == {
        "of": BTC_SPOT,
        "exchange_time": 1786613174873000,
        "receive_time": RECEIVED,
        "size_unit": "base",
        "last_price": "63707.3",
        "last_size": "0.00164251",
        "bid_price": "63707.2",
        "bid_size": "1.70080521",
        "ask_price": "63707.3",
        "ask_size": "0.15455902",
        "open_24h": "63958.9",
        "high_24h": "64496.9",
        "low_24h": "63309.4",
        "volume_24h": "3601.1585121",
        "base_volume_24h": "3601.1585121",
        "quote_volume_24h": "229576048.730317321",
        "open_utc0": "63484.7",
        "open_utc8": "63445.9",
    }
    assert events[1] == events[0] | {"exchange_time": 1786613175081000, "bid_size": "1.91873057"}
    assert events[2] == {
        "of": BTC_SWAP,
        "exchange_time": 1786540471710000,
        "receive_time": RECEIVED,
        "size_unit": "contract",
        "last_price": "63921",
        "last_size": "0.4",
        "bid_price": "63921",
        "bid_size": "779.3",
        "ask_price": "63921.1",
        "ask_size": "1871.75",
        "open_24h": "64297.6",
        "high_24h": "64466",
        "low_24h": "63162.7",
        "volume_24h": "7399887.86",
        "base_volume_24h": "73998.8786",
        "open_utc0": "63566",
        "open_utc8": "63584.6",
    }
    assert events[3] == events[2] | {
        "exchange_time": 1786540471871000,
        "last_price": "63921.1",
        "last_size": "18.68",
        "bid_size": "751.56",
        "ask_size": "1853.07",
    }


def test_recorded_tickers_of_a_future() -> None:
    first, second = events_of("recording.tickers")
    assert isinstance(first, Ticker)
    assert isinstance(second, Ticker)
    assert fields(first) == {
        "of": FUTURE_2022,
        "exchange_time": 1652459223003000,
        "receive_time": RECEIVED,
        "size_unit": "contract",
        "last_price": "30218.8",
        "last_size": "1",
        "bid_price": "30210.4",
        "bid_size": "4",
        "ask_price": "30220.1",
        "ask_size": "3",
        "open_24h": "29571.4",
        "high_24h": "31003.3",
        "low_24h": "27930.8",
        "volume_24h": "779573",
        "base_volume_24h": "2620.289",
        "open_utc0": "28935.3",
        "open_utc8": "30320.5",
    }
    assert (second.last_price, second.volume_24h, second.base_volume_24h) == ("30229.6", "779607", "2620.4014")
    assert (second.bid_price, second.ask_price, second.ask_size) == ("30211.8", "30217.8", "695")


def test_documented_ticker() -> None:
    (event,) = events_of("public.tickers")
    assert isinstance(event, Ticker)
    assert (event.last_price, event.bid_price, event.ask_size, event.open_utc0) == ("9999.99", "8888.88", "11", "2222")


def test_an_option_that_never_traded_has_neither_prices_nor_placeholder_sizes() -> None:
    (event,) = events_of("public.tickers.constructed")
    assert fields(event) == {
        "of": ("okx", "option", "BTC-USD-261225-200000-C", None),
        "exchange_time": 1786541241000000,
        "receive_time": RECEIVED,
        "size_unit": "contract",
        "bid_price": "0.0005",
        "bid_size": "1",
        "volume_24h": "0",
        "base_volume_24h": "0",
    }


def test_mark_prices() -> None:
    assert [fields(event) for event in events_of("public.mark-price") + events_of("public.mark-price.constructed")] == [
        {
            "of": ("okx", "futures", "LTC-USD-190628", None),
            "exchange_time": 1597026383085000,
            "receive_time": RECEIVED,
            "price": "0.1",
        },
        {"of": BTC_SWAP, "exchange_time": 1786541241000000, "receive_time": RECEIVED, "price": "63921.3"},
        {
            "of": ("okx", "margin", "BTC-USDT", None),
            "exchange_time": 1786541241000000,
            "receive_time": RECEIVED,
            "price": "64073.1",
        },
        {
            "of": ("okx", "option", "BTC-USD-261225-50000-C", "BTC-USD-20261225-50000-C"),
            "exchange_time": 1786541241000000,
            "receive_time": RECEIVED,
            "price": "0.2412",
        },
    ]


def test_the_type_that_a_row_tells_goes_before_the_name() -> None:
    reader = normalizer()
    for market in ("SPOT", "SPOT", "MARGIN", ""):
        row = {"instType": market, "instId": "BTC-USDT", "markPx": "1", "ts": "1"}
        (event,) = reader.normalize(push("mark-price", "BTC-USDT", row), 1)
        assert isinstance(event, MarkPrice)
        assert event.origin.market == (market or "MARGIN").lower()
        assert reader.streams['{"channel":"mark-price","instId":"BTC-USDT"}'].origin is event.origin


def test_index_prices() -> None:
    documented, constructed = events_of("public.index-tickers") + events_of("public.index-tickers.constructed")
    assert (documented.origin.instrument, documented.exchange_time) == ("BTC-USDT", 1597026383085000)
    assert fields(constructed) == {
        "of": ("okx", "index", "BTC-USD", None),
        "exchange_time": 1786541241000000,
        "receive_time": RECEIVED,
        "price": "63903.2",
        "open_24h": "64297.6",
        "high_24h": "64466",
        "low_24h": "63162.7",
        "open_utc0": "63566",
        "open_utc8": "63584.6",
    }


def test_funding_rates() -> None:
    documented, swap, future = events_of("public.funding-rate") + events_of("public.funding-rate.constructed")
    assert fields(documented) == {
        "of": ("okx", "swap", "BTC-USD-SWAP", "BTC-USD-PERP"),
        "exchange_time": 1700724675402000,
        "receive_time": RECEIVED,
        "funding_rate": "0.0001875391284828",
        "funding_time": 1700726400000000,
        "next_funding_time": 1700755200000000,
        "interval_hours": 8,
        "min_funding_rate": "-0.00375",
        "max_funding_rate": "0.00375",
        "settled_funding_rate": "0.0001699799259033",
        "settlement_state": "settled",
        "premium": "0.0001233824646391",
        "formula_type": "noRate",
        "method": "current_period",
    }
    assert fields(swap) == {
        "of": BTC_SWAP,
        "exchange_time": 1786541241000000,
        "receive_time": RECEIVED,
        "funding_rate": "-0.0000312",
        "funding_time": 1786550400000000,
        "next_funding_time": 1786564800000000,
        "interval_hours": 4,
        "min_funding_rate": "-0.00375",
        "max_funding_rate": "0.00375",
        "settled_funding_rate": "0.0000451",
        "settlement_state": "processing",
        "premium": "-0.00003",
        "interest_rate": "0.0001",
        "impact_value": "20000",
        "formula_type": "withRate",
        "method": "current_period",
    }
    assert future.origin.key == b"okx.futures.BTC-USDT-310404"


@pytest.mark.parametrize(("at", "after", "hours"), [("", "", None), ("0", "5400000", None), ("3600000", "0", None)])
def test_an_interval_that_is_no_whole_hours_is_not_told(at: str, after: str, hours: int | None) -> None:
    row = {"fundingRate": "0.1", "fundingTime": at, "nextFundingTime": after, "ts": "1"}
    (event,) = normalizer().normalize(push("funding-rate", "BTC-USDT-SWAP", row), 1)
    assert isinstance(event, FundingRate)
    assert event.interval_hours == hours
    assert event.funding_time == (int(at) * 1000 if at else None)


def test_open_interest() -> None:
    swap, option = events_of("public.open-interest") + events_of("public.open-interest.constructed")
    assert fields(swap) == {
        "of": BTC_SWAP,
        "exchange_time": 1743041250440000,
        "receive_time": RECEIVED,
        "open_interest": "2216113.01000000309",
        "size_unit": "contract",
        "base_open_interest": "22161.1301000000309",
        "usd_value": "1939251795.54769270396321",
    }
    assert (option.origin.market, fields(option)["open_interest"], fields(option)["usd_value"]) == (
        "option",
        "120",
        "76684",
    )


def candle(of: tuple[str, ...], start: int, ohlc: str, **more: Any) -> dict[str, Any]:
    prices = dict(zip(("open", "high", "low", "close"), ohlc.split(), strict=True))
    common = {"of": of, "receive_time": RECEIVED, "price_type": "trade", "interval": "1m", "venue_interval": "1m"}
    return common | {"open_time": start} | prices | more


def test_recorded_candles() -> None:
    assert [fields(event) for event in events_of("recording2026.candle1m")] == [
        candle(
            BTC_SWAP,
            1786540440000000,
            "63913.0 63951.8 63913.0 63951.8",
            closed=False,
            volume="1803.61",
            size_unit="contract",
            base_volume="18.0361",
            quote_volume="1153203.99426000",
        ),
        candle(
            BTC_SWAP,
            1786540440000000,
            "63913.0 63952.0 63913.0 63952.0",
            closed=False,
            volume="1803.74",
            size_unit="contract",
            base_volume="18.0374",
            quote_volume="1153287.13186000",
        ),
        candle(
            BTC_SPOT,
            1786538760000000,
            "64040.2 64040.2 64025.7 64033.5",
            closed=False,
            volume="2.16787395",
            size_unit="base",
            base_volume="2.16787395",
            quote_volume="138825.265446816",
        ),
        candle(
            BTC_SPOT,
            1786538760000000,
            "64040.2 64040.2 64025.7 64038.2",
            closed=False,
            volume="2.25101046",
            size_unit="base",
            base_volume="2.25101046",
            quote_volume="144148.787477696",
        ),
    ]


def test_a_candle_is_closed_by_its_last_message() -> None:
    events = events_of("business.candle1m.constructed") + events_of("business.candle1s.constructed")
    assert [(event.closed, event.interval) for event in events if isinstance(event, Candle)] == [
        (False, "1m"),
        (True, "1m"),
        (False, "1m"),
        (True, "1s"),
    ]


@pytest.mark.parametrize(
    ("name", "of", "price_type", "interval", "venue_interval", "closed"),
    [
        ("business.candle1D", BTC_SPOT, "trade", "1d", "1D", [False]),
        ("business.mark-price-candle1m.constructed", BTC_SWAP, "mark", "1m", "1m", [False, True]),
        (
            "business.mark-price-candle1D",
            ("okx", "futures", "BTC-USD-190628", None),
            "mark",
            "1d",
            "1D",
            [False, True],
        ),
        (
            "business.index-candle1m.constructed",
            ("okx", "index", "BTC-USD", None),
            "index",
            "1m",
            "1m",
            [False, True],
        ),
        ("business.index-candle30m", ("okx", "index", "BTC-USD", None), "index", "30m", "30m", [False]),
    ],
)
def test_candles_of_all_prices(
    name: str, of: tuple[str, ...], price_type: str, interval: str, venue_interval: str, closed: list[bool]
) -> None:
    events = [fields(event) for event in events_of(name)]
    assert [event["closed"] for event in events] == closed
    for event in events:
        assert (event["of"], event["price_type"]) == (of, price_type)
        assert (event["interval"], event["venue_interval"]) == (interval, venue_interval)
        assert ("volume" in event, "size_unit" in event) == (price_type == "trade", price_type == "trade")


def test_prices_of_a_mark_candle() -> None:
    assert fields(events_of("business.mark-price-candle1m.constructed")[1]) == candle(
        BTC_SWAP, 1786540440000000, "63913 63952 63910 63944.2", closed=True, price_type="mark"
    )


def test_mark_candles_of_a_pair_are_those_of_margin_trading() -> None:
    (event,) = normalizer().normalize(push("mark-price-candle1H", "BTC-USDT", ["1", "1", "1", "1", "1", "1"]), 1)
    assert (event.origin.market, fields(event)["interval"]) == ("margin", "1h")


@pytest.mark.parametrize(
    ("instrument", "base", "quote"), [("BTC-USDT", "6", "7"), ("BTC-USDT-SWAP", "7", None)], ids=["spot", "swap"]
)
def test_short_rows_of_2022(instrument: str, base: str, quote: str | None) -> None:
    (event,) = normalizer().normalize(push("candle1Dutc", instrument, ["1", "2", "3", "4", "5", "6", "7"]), 1)
    assert isinstance(event, Candle)
    assert (event.interval, event.venue_interval, event.closed, event.open_time) == ("1d", "1Dutc", None, 1000)
    assert (event.volume, event.base_volume, event.quote_volume) == ("6", base, quote)


def test_a_bar_of_no_known_form_passes_as_it_is() -> None:
    (event,) = normalizer().normalize(push("candle7X", "BTC-USDT", ["1"] * 9), 1)
    assert (fields(event)["interval"], fields(event)["venue_interval"]) == ("7X", "7X")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (push("candle1m", "BTC-USDT", ["1"] * 6), "length >= 7"),
        (push("index-candle1m", "BTC-USD", ["1"] * 5), "length >= 6"),
        (push("candle1m", "BTC-USDT", ["yesterday", *["1"] * 8]), "'yesterday' is no time in milliseconds"),
        (push("candle1m", "BTC-USDT", ["9" * 16, *["1"] * 8]), "no time in milliseconds"),
        (push("tickers", "BTC-USDT", {"last": "1"}), r"missing required field `ts` - at `\$.data\[0\]`"),
        (push("mark-price", "BTC-USDT", {"markPx": "", "ts": "1"}), "missing required field `markPx`"),
        (push("funding-rate", "BTC-USDT-SWAP", {"ts": "1"}), "missing required field `fundingRate`"),
        (push("open-interest", "BTC-USDT-SWAP", {"oi": "1", "ts": "-1"}), "ts"),
        (push("open-interest", "BTC-USDT-SWAP", {"oi": "1", "ts": "9" * 19}), "ts"),
    ],
    ids=["candle", "index", "time", "long", "ts", "mark", "funding", "negative", "overflow"],
)
def test_what_is_missing_or_wrong_is_named(message: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        normalizer().normalize(message, RECEIVED)
