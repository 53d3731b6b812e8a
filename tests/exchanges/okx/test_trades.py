from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Trade
from tests.exchanges.okx.samples import CATALOGUE, RECEIVED, events_of, fields, normalizer, push

COMMON = {"receive_time": RECEIVED, "is_block": False, "is_rpi": False}


def row(trade_id: str, **more: Any) -> dict[str, Any]:
    return {"instId": "BTC-USDT", "tradeId": trade_id, "px": "1.10", "sz": "2", "side": "buy", "ts": "1", **more}


def ids(events: list[Event]) -> list[str]:
    return [event.trade_id for event in events if isinstance(event, Trade)]


def test_recorded_trades_of_2026() -> None:
    assert [fields(event) for event in events_of("recording2026.trades")] == [
        COMMON
        | {
            "of": ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
            "exchange_time": 1786540435948000,
            "sequence": 333793117432,
            "trade_id": "2832749635",
            "price": "63913.5",
            "size": "1",
            "size_unit": "contract",
            "base_size": "0.01",
            "aggressor": "buy",
            "match_count": 1,
        },
        COMMON
        | {
            "of": ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
            "exchange_time": 1786540436090000,
            "sequence": 333793118093,
            "trade_id": "2832749645",
            "price": "63913.4",
            "size": "34.95",
            "size_unit": "contract",
            "base_size": "0.3495",
            "aggressor": "sell",
            "match_count": 10,
        },
        COMMON
        | {
            "of": ("okx", "spot", "BTC-USDT", "BTC-USDT"),
            "exchange_time": 1786538760218000,
            "sequence": 79706765242,
            "trade_id": "1040968613",
            "price": "64040.2",
            "size": "0.00240857",
            "size_unit": "base",
            "base_size": "0.00240857",
            "aggressor": "buy",
            "match_count": 2,
        },
        COMMON
        | {
            "of": ("okx", "spot", "BTC-USDT", "BTC-USDT"),
            "exchange_time": 1786538760479000,
            "sequence": 79706765292,
            "trade_id": "1040968614",
            "price": "64040.2",
            "size": "0.06681896",
            "size_unit": "base",
            "base_size": "0.06681896",
            "aggressor": "buy",
            "match_count": 1,
        },
    ]


def test_recorded_trades_of_2022_had_neither_count_nor_sequence() -> None:
    events = events_of("recording.trades")
    assert fields(events[3]) == {
        "receive_time": RECEIVED,
        "is_block": False,
        "of": ("okx", "futures", "BTC-USD-220527", "BTC-USD-20220527"),
        "exchange_time": 1652459234354000,
        "trade_id": "7852",
        "price": "30229.6",
        "size": "30",
        "size_unit": "contract",
        "quote_size": "3000",
        "aggressor": "buy",
    }
    assert ids(events) == ["7849", "7850", "7851", "7852"]


@pytest.mark.parametrize(
    ("name", "count", "sequence"), [("public.trades", 3, 1234), ("business.trades-all", None, None)]
)
def test_documented_trades(name: str, count: int | None, sequence: int | None) -> None:
    (event,) = events_of(name)
    assert isinstance(event, Trade)
    assert (event.trade_id, event.price, event.size, event.aggressor) == ("130639474", "42219.9", "0.12060306", "buy")
    assert (event.exchange_time, event.match_count, event.sequence) == (1630048897897000, count, sequence)


def test_option_trades_carry_volatility_and_reference_prices() -> None:
    (event,) = events_of("public.option-trades")
    assert fields(event) == {
        "receive_time": RECEIVED,
        "of": ("okx", "option", "BTC-USD-230224-18000-C", None),
        "exchange_time": 1672286551080000,
        "trade_id": "38",
        "price": "0.045",
        "size": "2",
        "size_unit": "contract",
        "aggressor": "sell",
        "implied_volatility": 0.5066007836914062,
        "mark_price": "0.04690107010619562",
        "index_price": "16537.2",
        "forward_price": "16469.69928595038",
    }


def test_contracts_of_options_are_multiplied_by_value_and_multiplier() -> None:
    option = row("1") | {"instId": "BTC-USD-261225-50000-C"}
    (event,) = normalizer().normalize(push("option-trades", "", option), RECEIVED)
    assert isinstance(event, Trade)
    assert (event.base_size, event.quote_size) == ("0.02", None)


def test_without_a_catalogue_sizes_are_as_the_market_has_them() -> None:
    swap, spot = (
        normalizer({}).normalize(push("trades", name, row("1")), RECEIVED)[0] for name in ("BTC-USDT-SWAP", "BTC-USDT")
    )
    assert isinstance(swap, Trade)
    assert isinstance(spot, Trade)
    assert (swap.size_unit, swap.base_size, swap.quote_size) == ("contract", None, None)
    assert (spot.size_unit, spot.base_size, spot.quote_size) == ("base", "2", None)


def test_a_catalogue_entry_that_comes_later_is_found_within_a_second() -> None:
    known = dict[Any, Any]()
    reader = normalizer(known)
    (before,) = reader.normalize(push("trades", "BTC-USDT-SWAP", row("1")), RECEIVED)
    known["swap", "BTC-USDT-SWAP"] = CATALOGUE["swap", "BTC-USDT-SWAP"]
    (early,) = reader.normalize(push("trades", "BTC-USDT-SWAP", row("2")), RECEIVED + 999_999)
    (after,) = reader.normalize(push("trades", "BTC-USDT-SWAP", row("3")), RECEIVED + 1_000_000)
    assert isinstance(after, Trade)
    assert early.origin is before.origin
    assert (before.origin.symbol, after.origin.symbol, after.base_size) == (None, "BTC-USDT-PERP", "0.02")


def test_a_changed_contract_value_keeps_the_origin() -> None:
    entry = CATALOGUE["swap", "BTC-USDT-SWAP"]
    known = {("swap", "BTC-USDT-SWAP"): entry}
    reader = normalizer(known)
    (before,) = reader.normalize(push("trades", "BTC-USDT-SWAP", row("1")), RECEIVED)
    known["swap", "BTC-USDT-SWAP"] = replace(entry, contract_value=DecimalText("0.1"))
    (after,) = reader.normalize(push("trades", "BTC-USDT-SWAP", row("2")), RECEIVED + 1_000_000)
    assert isinstance(after, Trade)
    assert after.base_size == "0.2"
    assert after.origin is before.origin


@pytest.mark.parametrize(("source", "is_rpi"), [("0", False), ("1", True), ("", None), (None, None)])
def test_source_tells_rpi(source: str | None, is_rpi: bool | None) -> None:
    (event,) = normalizer().normalize(push("trades", "BTC-USDT", row("1", source=source)), RECEIVED)
    assert isinstance(event, Trade)
    assert event.is_rpi is is_rpi


def test_the_cached_trade_of_a_new_connection_is_published_only_once() -> None:
    resume: dict[str, int] = {}
    first = normalizer(resume=resume)
    assert ids(first.normalize(push("trades", "BTC-USDT", row("10")), 1)) == ["10"]
    assert ids(first.normalize(push("trades", "BTC-USDT", row("11"), row("12")), 2)) == ["11", "12"]
    assert resume == {"trades:BTC-USDT": 12}

    same = normalizer(resume=resume)
    assert ids(same.normalize(push("trades", "BTC-USDT", row("12")), 3)) == []
    assert ids(same.normalize(push("trades", "BTC-USDT", row("13")), 4)) == ["13"]

    older = normalizer(resume=resume)
    assert ids(older.normalize(push("trades", "BTC-USDT", row("9")), 5)) == []

    missed = normalizer(resume=resume)
    assert ids(missed.normalize(push("trades", "BTC-USDT", row("14")), 6)) == ["14"]


def test_a_trade_repeated_by_a_second_subscription_on_one_connection_is_dropped_but_a_lower_id_is_not() -> None:
    reader = normalizer()
    published = [ids(reader.normalize(push("trades", "BTC-USDT", row(i)), 1)) for i in ("10", "10", "9", "11")]
    assert published == [["10"], [], ["9"], ["11"]]


def test_channels_and_instruments_are_remembered_apart() -> None:
    resume = {"trades:BTC-USDT": 100}
    reader = normalizer(resume=resume)
    assert ids(reader.normalize(push("trades-all", "BTC-USDT", row("50")), 1)) == ["50"]
    assert ids(reader.normalize(push("trades", "ETH-USDT", row("50")), 1)) == ["50"]
    assert resume == {"trades:BTC-USDT": 100, "trades-all:BTC-USDT": 50, "trades:ETH-USDT": 50}


def test_cached_option_trades_are_judged_per_instrument() -> None:
    resume = {"option-trades:BTC-USD-261225-50000-C": 7}
    old, new = (row("7") | {"instId": f"BTC-USD-261225-50000-{side}"} for side in "CP")
    reader = normalizer(resume=resume)
    assert [event.origin.instrument for event in reader.normalize(push("option-trades", "", old, new), 1)] == [
        "BTC-USD-261225-50000-P"
    ]
    assert resume["option-trades:BTC-USD-261225-50000-P"] == 7


def test_ids_that_are_no_numbers_are_published_and_not_remembered() -> None:
    resume: dict[str, int] = {}
    reader = normalizer(resume=resume)
    assert ids(reader.normalize(push("trades", "BTC-USDT", row("a"), row("a"), row("-1")), 1)) == ["a", "a", "-1"]
    assert resume == {}


def test_nothing_of_a_message_is_published_or_remembered_when_one_row_is_bad() -> None:
    resume: dict[str, int] = {}
    reader = normalizer(resume=resume)
    with pytest.raises(BadMessage, match='"trades"'):
        reader.normalize(push("trades", "BTC-USDT-SWAP", row("1"), row("2", sz="many")), 1)
    assert resume == {}
    assert [stream.messages for stream in reader.streams.values()] == [0]
    assert ids(reader.normalize(push("trades", "BTC-USDT-SWAP", row("1")), 1)) == ["1"]
