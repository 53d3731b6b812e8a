"""Everything of spreads: market data, orders, fills."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.book.checksum import okx_checksum
from pipeline.model.account import Fill, Order
from pipeline.model.events import BookUpdate, Trade
from tests.exchanges.okx.samples import (
    CATALOGUE,
    RECEIVED,
    VENUE,
    account_events,
    events_of,
    normalizer,
    own_fields,
    sample,
)

NAME = "BTC-USDT_BTC-USDT-SWAP"
OF = ("okx", "spread", NAME, None)
SPREAD_FILL = {
    "of": ("okx", "spread", "BTC-USDT-SWAP_BTC-USDT-200329", None),
    "exchange_time": 1597026383085000,
    "channel": "sprd-trades",
    "is_snapshot": False,
    "is_fast": False,
    "order_id": "123445",
    "client_order_id": "b16",
    "liquidity": "maker",
}


def push(channel: str, *rows: Any, **top: Any) -> bytes:
    return json.dumps({"arg": {"channel": channel, "sprdId": NAME}, **top, "data": list(rows)}).encode()


def test_trades_may_be_below_zero() -> None:
    (event,) = events_of("business.sprd-public-trades")
    assert own_fields(event) == {
        "of": OF,
        "exchange_time": 1726801105519000,
        "trade_id": "2499206329160695808",
        "price": "-10",
        "size": "0.001",
        "size_unit": "base",
        "base_size": "0.001",
        "aggressor": "sell",
        "is_block": False,
    }


def test_a_repeated_trade_is_dropped() -> None:
    (line,) = sample("business.sprd-public-trades")
    reader = normalizer()
    assert [len(reader.normalize(line, RECEIVED)) for _ in range(2)] == [1, 0]


def test_tickers() -> None:
    (event,) = events_of("business.sprd-tickers")
    assert own_fields(event) == {
        "of": OF,
        "exchange_time": 1715247061026000,
        "size_unit": "base",
        "last_price": "4",
        "last_size": "0.01",
        "bid_price": "5.9",
        "bid_size": "5.79",
        "ask_price": "19.7",
        "ask_size": "5.79",
        "open_24h": "-7",
        "high_24h": "19.6",
        "low_24h": "-7",
        "volume_24h": "9.87",
        "base_volume_24h": "9.87",
    }


def test_candles_of_a_spread_with_a_coin_margined_leg_count_dollars() -> None:
    (event,) = events_of("business.sprd-candle1D")
    assert own_fields(event) == {
        "of": ("okx", "spread", "BTC-USDT_BTC-USD-SWAP", None),
        "price_type": "trade",
        "interval": "1d",
        "venue_interval": "1D",
        "open_time": 1597026383085000,
        "open": "8533.02",
        "high": "8553.74",
        "low": "8527.17",
        "close": "8548.26",
        "closed": False,
        "volume": "45247",
        "size_unit": "quote",
        "quote_volume": "45247",
    }


@pytest.mark.parametrize(
    ("name", "base", "quote"),
    [
        ("BTC-USDT_BTC-USDT-SWAP", "2", None),
        ("BTC-USD-SWAP_BTC-USD-261225", None, "2"),
        ("BTC-USDT-SWAP_BTC-USDT-261225", "2", None),
        ("BTC-USDC_BTC-USD_UM-SWAP", "2", None),
    ],
)
def test_what_spreads_are_counted_in(name: str, base: str | None, quote: str | None) -> None:
    row = {"sprdId": name, "tradeId": "1", "px": "0", "sz": "2", "side": "buy", "ts": "1"}
    message = {"arg": {"channel": "sprd-public-trades", "sprdId": name}, "data": [row]}
    (event,) = normalizer().normalize(json.dumps(message).encode(), RECEIVED)
    assert isinstance(event, Trade)
    assert (event.base_size, event.quote_size) == (base, quote)


def test_best_quotes() -> None:
    (event,) = events_of("business.sprd-bbo-tbt.constructed")
    assert own_fields(event) == {
        "of": OF,
        "exchange_time": 1670324386802000,
        "sequence": 1724294007352168320,
        "channel": "sprd-bbo-tbt",
        "bid_price": "111.05",
        "bid_size": "57745",
        "ask_price": "111.06",
        "ask_size": "55154",
        "size_unit": "base",
        "bid_order_count": 2,
        "ask_order_count": 2,
        "is_derived": False,
    }


def test_the_first_books5() -> None:
    (event,) = events_of("business.sprd-books5")
    found = own_fields(event)
    assert len(found.pop("bids")) == len(found.pop("asks")) == 5
    assert found == {
        "of": OF,
        "exchange_time": 1670324386802000,
        "sequence": 1724294007352168320,
        "channel": "sprd-books5",
        "is_snapshot": True,
        "layout": ("price", "size", "order_count"),
        "size_unit": "base",
        "depth": 5,
        "is_reset": False,
        "is_periodic": False,
        "epoch": 0,
    }
    assert VENUE.sequence_rule("sprd-books5") is None


def test_a_snapshot_of_400_levels_and_its_update() -> None:
    (event,) = events_of("business.sprd-books-l2-tbt")
    assert own_fields(event) == {
        "of": OF,
        "exchange_time": 1724391380926000,
        "sequence": 1724294007352168320,
        "channel": "sprd-books-l2-tbt",
        "is_snapshot": True,
        "bids": [
            ("1.8", "0.165", "1"),
            ("0.6", "0.2", "2"),
            ("0", "23.49", "1"),
            ("-0.1", "1", "1"),
            ("-0.6", "1", "1"),
            ("-3.9", "4.921", "1"),
        ],
        "asks": [
            ("1.9", "1.1", "3"),
            ("2.5", "0.9", "1"),
            ("3.2", "4.921", "1"),
            ("4.8", "0.165", "1"),
            ("5.2", "4.921", "1"),
        ],
        "layout": ("price", "size", "order_count"),
        "size_unit": "base",
        "depth": 400,
        "checksum": -1285595583,
        "is_reset": False,
        "is_periodic": False,
        "epoch": 0,
    }
    row = {"asks": [["1.9", "0", "0"]], "bids": [], "ts": "5", "seqId": 9, "prevSeqId": 8, "checksum": 7}
    (update,) = normalizer().normalize(push("sprd-books-l2-tbt", row, action="update"), RECEIVED)
    assert isinstance(update, BookUpdate)
    assert (update.is_snapshot, update.previous_sequence, update.sequence, update.checksum) == (False, 8, 9, 7)


def test_books_of_spreads_still_have_a_checksum() -> None:
    rule = VENUE.sequence_rule("sprd-books-l2-tbt")
    assert rule is not None
    assert rule.checksum is okx_checksum


def test_orders() -> None:
    (event,) = account_events("business.sprd-orders")
    assert own_fields(event) == {
        "of": ("okx", "spread", "BTC-USDT_BTC-UST-SWAP", None),
        "exchange_time": 1597026383085000,
        "channel": "sprd-orders",
        "is_snapshot": False,
        "order_id": "312269865356374016",
        "status": "new",
        "venue_status": "live",
        "side": "buy",
        "order_type": "limit",
        "size_unit": "base",
        "filled_size_unit": "base",
        "client_order_id": "b1",
        "leg_kind": "combination",
        "venue_order_type": "limit",
        "time_in_force": "gtc",
        "price": "999",
        "size": "3",
        "filled_size": "0",
        "remaining_size": "2",
        "is_post_only": False,
        "created_time": 1597026383085000,
        "extras": {"pendingFillSz": "2", "pendingSettleSz": "1", "canceledSz": "1"},
    }


def test_members_of_orders_that_the_sample_leaves_empty() -> None:
    row = json.loads(sample("business.sprd-orders")[0])["data"][0]
    row |= {"tag": "t", "cancelSource": "32", "code": "51010", "msg": "no", "reqId": "r", "amendResult": "-1"}
    (event,) = normalizer().normalize(push("sprd-orders", row | {"pendingFillSz": ""}), RECEIVED)
    assert isinstance(event, Order)
    assert (event.tag, event.cancel_reason, event.reject_reason, event.reject_message) == ("t", "32", "51010", "no")
    assert (event.request_id, event.amend_result, event.remaining_size) == ("r", "-1", "3")


def test_an_order_brings_its_fill_early_and_once() -> None:
    row = json.loads(sample("business.sprd-orders")[0])["data"][0]
    row |= {"tradeId": "77", "fillPx": "-0.5", "fillSz": "1", "accFillSz": "1", "avgPx": "0"}
    reader = VENUE.normalizer("business", "c#1", CATALOGUE, account="main")
    order, fill = reader.normalize(push("sprd-orders", row), RECEIVED)
    assert own_fields(order)["average_price"] == "0"
    assert own_fields(fill) == {
        "of": ("okx", "spread", "BTC-USDT_BTC-UST-SWAP", None),
        "exchange_time": 1597026383085000,
        "channel": "sprd-orders",
        "is_snapshot": False,
        "fill_id": "77",
        "side": "buy",
        "price": "-0.5",
        "size": "1",
        "size_unit": "base",
        "kind": "trade",
        "is_fast": True,
        "order_id": "312269865356374016",
        "client_order_id": "b1",
        "leg_kind": "combination",
        "base_size": "1",
        "remaining_size": "2",
        "order_price": "999",
        "order_size": "3",
        "order_type": "limit",
    }
    assert [event.KIND for event in reader.normalize(push("sprd-orders", row), RECEIVED)] == ["order"]


def test_fills_are_followed_by_their_legs() -> None:
    assert [own_fields(event) for event in account_events("business.sprd-trades")] == [
        SPREAD_FILL
        | {
            "fill_id": "123",
            "side": "buy",
            "price": "999",
            "size": "3",
            "size_unit": "base",
            "base_size": "3",
            "kind": "trade",
            "leg_kind": "combination",
            "extras": {"state": "filled"},
        },
        SPREAD_FILL
        | {
            "of": ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
            "fill_id": "1232342342",
            "parent_fill_id": "123",
            "side": "buy",
            "price": "20000",
            "size": "0.03",
            "size_unit": "contract",
            "base_size": "0.0003",
            "kind": "spread_leg",
            "leg_kind": "future_leg",
        },
        SPREAD_FILL
        | {
            "of": ("okx", "futures", "BTC-USDT-200329", None),
            "fill_id": "5345646634",
            "parent_fill_id": "123",
            "side": "sell",
            "price": "21000",
            "size": "0.03",
            "size_unit": "contract",
            "kind": "spread_leg",
            "leg_kind": "future_leg",
        },
    ]


def test_a_spot_leg_is_counted_as_the_spread_and_fees_are_positive_when_paid() -> None:
    leg = {"instId": "BTC-USDT", "px": "1", "sz": "3", "side": "sell", "tradeId": "5", "fee": "-0.1", "feeCcy": "USDT"}
    row = {"tradeId": "4", "fillPx": "0", "fillSz": "3", "side": "buy", "state": "rejected", "ts": "1", "legs": [leg]}
    row |= {"sprdId": NAME, "code": "51010", "msg": "no"}
    whole, part = normalizer().normalize(push("sprd-trades", row), RECEIVED)
    assert isinstance(whole, Fill)
    assert isinstance(part, Fill)
    assert (whole.kind, whole.extras) == ("rejected", {"state": "rejected", "code": "51010", "msg": "no"})
    assert (part.kind, part.leg_kind, part.size, part.size_unit, part.base_size, part.fee, part.fee_currency) == (
        "rejected",
        "spot_leg",
        "3",
        "base",
        "3",
        "0.1",
        "USDT",
    )
