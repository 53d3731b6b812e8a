"""Tickers: merged whole, and what is published beside them only when it changed."""

from __future__ import annotations

import json

import pytest

from pipeline.exchanges.bybit.tickers import iso_or_millis, millis, number, unless_zero
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, FundingRate, IndexPrice, MarkPrice, OpenInterest, Ticker
from tests.exchanges.bybit.samples import RECEIVED, head, lines, normalize, normalizer, values


def kinds(events: list[Event]) -> list[str]:
    return [type(event).KIND for event in events]


def ticker(kind: str, **fields: str) -> bytes:
    data = {"symbol": "BTCUSDT", **fields}
    message = {"topic": "tickers.BTCUSDT", "type": kind, "data": data, "cs": 1, "ts": 1760325052630}
    return json.dumps(message, separators=(",", ":")).encode()


def test_perpetual_snapshot() -> None:
    events = normalize("linear", *lines("public.linear.tickers"))
    assert kinds(events) == ["ticker", "mark_price", "index_price", "funding_rate", "open_interest"]
    assert len({id(event.origin) for event in events}) == 1
    assert head(events[0])[2:4] == ("BTCUSDT", "BTC-USDT-PERP")
    common = {"exchange_time": 1760325052630000, "receive_time": RECEIVED, "sequence": 9532239429}
    assert values(events[0]) == {
        **common,
        "size_unit": "base",
        "last_price": "66666.60",
        "bid_price": "66666.60",
        "bid_size": "23789.165",
        "ask_price": "66666.70",
        "ask_size": "23775.469",
        "open_24h": "79206.20",
        "high_24h": "79266.30",
        "low_24h": "65076.90",
        "price_1h_ago": "66666.60",
        "change_24h": -0.158315,
        "volume_24h": "73191.3870",
        "base_volume_24h": "73191.3870",
        "quote_volume_24h": "4936790807.6521",
        "tick_direction": "MinusTick",
        "mark_price": "66666.60",
        "index_price": "115418.19",
        "open_interest": "492373.72",
        "open_interest_value": "32824881841.75",
        "funding_rate": "-0.005",
        "funding_time": 1760342400000000,
    }
    assert values(events[1]) == {**common, "price": "66666.60"}
    assert values(events[2]) == {**common, "price": "115418.19"}
    assert values(events[3]) == {
        **common,
        "funding_rate": "-0.005",
        "funding_time": 1760342400000000,
        "interval_hours": 8,
        "max_funding_rate": "0.005",
    }
    assert values(events[4]) == {
        **common,
        "open_interest": "492373.72",
        "size_unit": "base",
        "base_open_interest": "492373.72",
        "value": "32824881841.75",
    }


def test_dated_future_has_no_funding() -> None:
    events = normalize("linear", *lines("public.linear.tickers.futures"))
    assert kinds(events) == ["ticker", "mark_price", "index_price", "open_interest"]
    found = values(events[0])
    assert "funding_rate" not in found
    assert "funding_time" not in found
    assert "predicted_delivery_price" not in found
    assert found["delivery_time"] == 1766736000000000
    assert {name: found[name] for name in found if "basis" in name or "fee" in name} == {
        "basis": "-4730.84",
        "basis_rate": "0.06129209",
        "basis_rate_year": "0.30655351",
        "delivery_fee_rate": "0",
    }


def test_single_sided_interest_is_merged_into_what_was_known() -> None:
    snapshot, delta = lines("public.linear.tickers")[0], lines("derived.public.linear.tickers.singleoi.delta")[0]
    events = normalize("linear", snapshot, delta)[5:]
    assert kinds(events) == ["ticker", "open_interest"]
    merged, before = values(events[0]), values(normalize("linear", snapshot)[0])
    assert merged == {
        **before,
        "exchange_time": 1760325052730000,
        "sequence": 9532239500,
        "open_interest": "492373.70",
        "open_interest_value": "32824880508.43",
    }
    assert values(events[1]) == {
        "exchange_time": 1760325052730000,
        "receive_time": RECEIVED,
        "sequence": 9532239500,
        "open_interest": "492373.70",
        "size_unit": "base",
        "base_open_interest": "492373.70",
        "value": "32824880508.43",
        "single_side": "246186.85",
        "single_side_value": "16412440254.21",
    }


def test_recorded_linear_tickers_keep_symbols_apart() -> None:
    one = normalizer("linear")
    bitcoin, nkn, nkn_delta, aave_delta = lines("public.linear.tickers.recorded")
    assert len(one.normalize(bitcoin, RECEIVED)) == 5
    assert len(one.normalize(nkn, RECEIVED)) == 5
    (merged,) = one.normalize(nkn_delta, RECEIVED)
    assert isinstance(merged, Ticker)
    assert (merged.last_price, merged.ask_price, merged.ask_size) == ("0.13947", "0.13942", "3691")
    assert merged.funding_rate == "0.00137968"
    assert one.normalize(aave_delta, RECEIVED) == []
    assert one.streams["tickers.AAVEUSDT"].messages == 1
    assert head(merged)[2:4] == ("NKNUSDT", None)


def test_recorded_inverse_tickers() -> None:
    perpetual, delta, future, future_delta = lines("public.inverse.tickers.recorded")
    events = normalize("inverse", perpetual, delta)
    assert kinds(events) == [
        *("ticker", "mark_price", "index_price", "funding_rate", "open_interest"),
        *("ticker", "open_interest"),
    ]
    found = values(events[0])
    assert {name: found[name] for name in found if "volume" in name or "unit" in name} == {
        "size_unit": "quote",
        "volume_24h": "661543991",
        "quote_volume_24h": "661543991",
        "base_volume_24h": "23389.1894",
    }
    assert values(events[4])["value"] == "15747.08"
    assert "base_open_interest" not in values(events[4])
    assert values(events[6])["open_interest"] == "449736674"
    dated = normalize("inverse", future, future_delta)
    assert kinds(dated) == ["ticker", "mark_price", "index_price", "open_interest", "ticker"]
    assert values(dated[0])["delivery_time"] == 1695974400000000
    assert values(dated[4])["basis_rate"] == "0.01603111"
    assert values(dated[4])["basis"] == "459.06"


def test_spot_ticker_has_an_index_in_dollars() -> None:
    events = normalize("spot", *lines("public.spot.tickers"))
    common = {"exchange_time": 1673853746003000, "receive_time": RECEIVED, "sequence": 2588407389}
    assert kinds(events) == ["ticker", "index_price"]
    assert values(events[0]) == {
        **common,
        "size_unit": "base",
        "last_price": "21109.77",
        "open_24h": "20704.93",
        "high_24h": "21426.99",
        "low_24h": "20575",
        "change_24h": 0.0196,
        "volume_24h": "6780.866843",
        "base_volume_24h": "6780.866843",
        "quote_volume_24h": "141946527.22907118",
    }
    assert values(events[1]) == {**common, "price": "21120.2400136", "currency": "USD"}
    assert kinds(normalize("spot", lines("public.spot.tickers")[0].replace(b"21120.2400136", b""))) == ["ticker"]


def test_option_ticker_without_bids() -> None:
    events = normalize("option", *lines("public.option.tickers"))
    common = {"exchange_time": 1672917511074000, "receive_time": RECEIVED}
    assert kinds(events) == ["ticker", "option_summary", "mark_price", "index_price", "open_interest"]
    assert values(events[1]) == {
        **common,
        "size_unit": "base",
        "ask_price": "10",
        "ask_size": "5.1",
        "ask_implied_volatility": 0.514,
        "mark_price": "7.86976724",
        "mark_implied_volatility": 0.4896,
        "underlying_price": "16815.1",
        "index_price": "16823.73",
        "delta": 0.047831,
        "gamma": 0.00021453,
        "vega": 0.81351067,
        "theta": -19.9115368,
        "open_interest": "49.85",
    }
    assert values(events[0]) == {
        **common,
        "size_unit": "base",
        "last_price": "10",
        "ask_price": "10",
        "ask_size": "5.1",
        "high_24h": "25",
        "low_24h": "5",
        "change_24h": -0.33333334,
        "volume_24h": "26.55",
        "base_volume_24h": "26.55",
        "quote_volume_24h": "446802.8473",
        "mark_price": "7.86976724",
        "index_price": "16823.73",
        "open_interest": "49.85",
        "underlying_price": "16815.1",
        "ask_implied_volatility": 0.514,
        "mark_implied_volatility": 0.4896,
        "delta": 0.047831,
        "gamma": 0.00021453,
        "vega": 0.81351067,
        "theta": -19.9115368,
        "total_volume": "86",
        "total_turnover": "1437431",
    }
    assert values(events[4]) == {
        **common,
        "open_interest": "49.85",
        "size_unit": "base",
        "base_open_interest": "49.85",
    }


def test_recorded_option_tickers() -> None:
    solana, ether = lines("public.option.tickers.recorded")
    first, second = values(normalize("option", solana)[0]), values(normalize("option", ether)[0])
    assert (first["bid_price"], first["bid_size"], first["bid_implied_volatility"]) == ("0.34", "10", 0.6004)
    assert (first["ask_price"], first["ask_size"], first["ask_implied_volatility"]) == ("3.11", "51", 2.0007)
    assert not {"ask_price", "ask_size", "ask_implied_volatility", "high_24h", "low_24h"} & second.keys()
    assert (second["volume_24h"], second["change_24h"], second["gamma"]) == ("0", 0.0, 0.00000128)
    late = solana.replace(b'"predictedDeliveryPrice":"0"', b'"predictedDeliveryPrice":"20.5"')
    summary = values(normalize("option", late)[1])
    assert summary["predicted_delivery_price"] == "20.5"
    assert (summary["bid_price"], summary["bid_size"], summary["bid_implied_volatility"]) == ("0.34", "10", 0.6004)


def test_spread_ticker_has_one_side_and_prices_below_zero() -> None:
    (event,) = normalize("spread", *lines("public.spread.tickers"))
    assert type(event) is Ticker
    assert head(event)[1:4] == ("spread", "SOLUSDT_SOL/USDT", None)
    assert values(event) == {
        "exchange_time": 1744168585009000,
        "receive_time": RECEIVED,
        "size_unit": "base",
        "last_price": "21.8182",
        "bid_price": "20.3359",
        "bid_size": "1.7",
        "open_24h": "22.1468",
        "high_24h": "24.2356",
        "low_24h": "-3",
        "volume_24h": "23309.9",
        "base_volume_24h": "23309.9",
    }


def test_companions_come_only_with_a_change() -> None:
    one = normalizer("linear")
    everything = {"markPrice": "1", "indexPrice": "2", "fundingRate": "3", "openInterest": "4"}
    assert len(one.normalize(ticker("snapshot", **everything), 1)) == 5
    assert kinds(one.normalize(ticker("delta", **everything), 2)) == ["ticker"]
    assert kinds(one.normalize(ticker("snapshot", **everything), 3)) == ["ticker"]
    cases = {
        "markPrice": MarkPrice,
        "indexPrice": IndexPrice,
        "fundingRate": FundingRate,
        "nextFundingTime": FundingRate,
        "fundingIntervalHour": FundingRate,
        "fundingCap": FundingRate,
        "openInterest": OpenInterest,
        "singleOpenInterest": OpenInterest,
    }
    for field, kind in cases.items():
        events = one.normalize(ticker("delta", **{field: "5"}), 4)
        assert [type(event) for event in events] == [Ticker, kind], field
    assert kinds(one.normalize(ticker("delta", openInterestValue="9"), 5)) == ["ticker"]
    assert kinds(one.normalize(ticker("delta", fundingRate="", markPrice=""), 6)) == ["ticker"]


def test_a_snapshot_forgets_what_it_does_not_hold() -> None:
    one = normalizer("linear")
    one.normalize(ticker("snapshot", lastPrice="1", markPrice="2"), 1)
    (whole,) = one.normalize(ticker("snapshot", lastPrice="3"), 2)
    assert isinstance(whole, Ticker)
    assert (whole.last_price, whole.mark_price) == ("3", None)


def test_an_unreadable_delta_changes_nothing() -> None:
    one = normalizer("linear")
    one.normalize(ticker("snapshot", lastPrice="1"), 1)
    with pytest.raises(BadMessage, match="BTCUSDT"):
        one.normalize(ticker("delta", lastPrice="2", nextFundingTime="soon"), 2)
    (after,) = one.normalize(ticker("delta", bid1Price="3"), 3)
    assert isinstance(after, Ticker)
    assert (after.last_price, after.bid_price) == ("1", "3")
    assert one.streams["tickers.BTCUSDT"].messages == 2


def test_pre_market_fields() -> None:
    fields = {"preOpenPrice": "1.5", "preQty": "10", "curPreListingPhase": "CallAuction"}
    (event,) = normalize("linear", ticker("snapshot", **fields))
    assert isinstance(event, Ticker)
    assert (event.pre_open_price, event.pre_open_size, event.pre_listing_phase) == ("1.5", "10", "CallAuction")


def test_fields_of_unknown_form_and_null() -> None:
    message = json.loads(ticker("snapshot", lastPrice="1"))
    message["data"] |= {"news": {"a": [1]}, "markPrice": None, "fundingIntervalHour": 8, "fundingRate": 0.0001}
    events = normalize("linear", json.dumps(message).encode())
    assert kinds(events) == ["ticker", "funding_rate"]
    assert values(events[1])["funding_rate"] == "0.0001"
    assert values(events[1])["interval_hours"] == 8


def test_readers_of_fields() -> None:
    assert number("") is None
    assert number("-0.5") == -0.5
    assert [unless_zero(text) for text in ("", "0", "0.00", "0.010", "100")] == [None, None, None, "0.010", "100"]
    assert [millis(text) for text in ("", "0", "1")] == [None, None, 1000]
    assert iso_or_millis("2025-12-26T08:00:00Z") == iso_or_millis("1766736000000") == 1766736000000000
    assert iso_or_millis("2025-12-26T08:00:00.25") == 1766736000250000
    assert iso_or_millis("") is None
