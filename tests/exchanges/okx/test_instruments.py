from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.exchanges.venue import RestPage
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.model.events import Instrument
from tests.exchanges.okx.samples import RECEIVED, VENUE, events_of, fields, sample


def answer(*rows: Any, code: str = "0", msg: str = "") -> bytes:
    return json.dumps({"code": code, "msg": msg, "data": list(rows)}).encode()


def row(**more: Any) -> dict[str, Any]:
    return {"instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "state": "live", **more}


def one(**more: Any) -> Instrument:
    (entry,) = VENUE.read_instruments(answer(row(**more)), RECEIVED)
    return entry


def test_a_spot_pair() -> None:
    (line,) = sample("rest.instruments")
    (entry,) = VENUE.read_instruments(line, RECEIVED)
    assert fields(entry) == {
        "of": ("okx", "spot", "BTC-USDT", "BTC-USDT"),
        "receive_time": RECEIVED,
        "kind": "spot",
        "state": "live",
        "is_tradable": True,
        "base": "BTC",
        "quote": "USDT",
        "size_unit": "base",
        "is_inverse": False,
        "tick_size": "0.1",
        "lot_size": "0.00000001",
        "min_size": "0.00001",
        "max_limit_size": "9999999999",
        "listing_time": 1606468572000000,
        "max_leverage": "10",
        "instrument_code": 1000000000,
    }


def test_derivatives() -> None:
    linear, inverse, future, option = (
        entry for line in sample("rest.instruments.constructed") for entry in VENUE.read_instruments(line, RECEIVED)
    )
    common = {
        "receive_time": RECEIVED,
        "state": "live",
        "is_tradable": True,
        "base": "BTC",
        "size_unit": "contract",
        "max_limit_size": "9999999999",
    }
    assert fields(linear) == common | {
        "of": ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
        "kind": "perpetual",
        "quote": "USDT",
        "settle": "USDT",
        "contract_value": "0.01",
        "contract_currency": "BTC",
        "is_inverse": False,
        "tick_size": "0.1",
        "lot_size": "0.01",
        "min_size": "0.01",
        "listing_time": 1606468572000000,
        "underlying": "BTC-USDT",
        "max_leverage": "125",
        "instrument_code": 10458,
    }
    assert fields(inverse) == common | {
        "of": ("okx", "swap", "BTC-USD-SWAP", "BTC-USD-PERP"),
        "kind": "perpetual",
        "quote": "USD",
        "settle": "BTC",
        "contract_value": "100",
        "contract_currency": "USD",
        "is_inverse": True,
        "tick_size": "0.1",
        "lot_size": "1",
        "min_size": "1",
        "listing_time": 1606468572000000,
        "underlying": "BTC-USD",
        "max_leverage": "100",
        "instrument_code": 10459,
    }
    assert fields(future) == fields(inverse) | {
        "of": ("okx", "futures", "BTC-USD-261225", "BTC-USD-20261225"),
        "kind": "future",
        "listing_time": 1782460800000000,
        "expiry_time": 1798185600000000,
        "instrument_code": 20461,
    }
    assert fields(option) == common | {
        "of": ("okx", "option", "BTC-USD-261225-50000-C", "BTC-USD-20261225-50000-C"),
        "kind": "option",
        "quote": "USD",
        "settle": "BTC",
        "contract_value": "0.01",
        "contract_currency": "BTC",
        "is_inverse": False,
        "tick_size": "0.0001",
        "lot_size": "1",
        "min_size": "1",
        "listing_time": 1782460800000000,
        "expiry_time": 1798185600000000,
        "strike": "50000",
        "option_type": "call",
        "underlying": "BTC-USD",
        "instrument_code": 30500,
    }


def test_recorded_answers_of_2022() -> None:
    entries = [
        entry for line in sample("recording.rest.instruments") for entry in VENUE.read_instruments(line, RECEIVED)
    ]
    assert [(e.origin.market, e.origin.symbol, e.contract_value, e.max_market_size) for e in entries] == [
        ("spot", "BTC-USDT", None, None),
        ("swap", "BTC-USD-PERP", "100", "4000"),
        ("swap", "BTC-USDT-PERP", "0.01", "1600"),
        ("swap", "ETH-USDT-PERP", "0.1", entries[3].max_market_size),
        ("futures", "BTC-USD-20220527", "100", "6000"),
        ("option", "BTC-USD-20220514-22000-C", "0.1", "5000"),
        ("option", "BTC-USD-20220514-22000-P", "0.1", "5000"),
    ]
    assert (entries[6].option_type, entries[6].strike, entries[6].underlying) == ("put", "22000", "BTC-USD")


def test_pushes_give_instrument_events() -> None:
    events = [e for e in events_of("public.instruments") if isinstance(e, Instrument)]
    events += [e for e in events_of("public.instruments.constructed") if isinstance(e, Instrument)]
    assert [(e.origin.instrument, e.origin.symbol, e.kind, e.state, e.is_tradable) for e in events] == [
        ("BTC-USDT", "BTC-USDT", "spot", "live", True),
        ("BTC-USDT-SWAP", "BTC-USDT-PERP", "perpetual", "live", True),
        ("BTC-USD-SWAP", "BTC-USD-PERP", "perpetual", "live", True),
        ("BTC-USD-261225", "BTC-USD-20261225", "future", "live", True),
        ("BTC-USD-261225-50000-C", "BTC-USD-20261225-50000-C", "option", "live", True),
        ("NEWCOIN-USDT", "NEWCOIN-USDT", "spot", "preopen", False),
        ("BTC-USDT-SWAP", "BTC-USDT-PERP", "perpetual", "live", True),
        ("BTC-USD-261225", "BTC-USD-20261225", "future", "expired", False),
    ]
    assert {event.origin.connection for event in events} == {"okx.public.0#1"}
    assert fields(events[5]) == {
        "of": ("okx", "spot", "NEWCOIN-USDT", "NEWCOIN-USDT"),
        "receive_time": RECEIVED,
        "kind": "spot",
        "state": "preopen",
        "is_tradable": False,
        "base": "NEWCOIN",
        "quote": "USDT",
        "size_unit": "base",
        "is_inverse": False,
        "listing_time": 1786600000000000,
    }


@pytest.mark.parametrize(
    ("state", "tradable"),
    [("live", True), ("preopen", False), ("suspend", False), ("post_only", False), ("expired", False), ("", False)],
)
def test_states(state: str, tradable: bool) -> None:
    entry = one(state=state)
    assert (entry.state, entry.is_tradable) == (state, tradable)


def test_a_family_suffix_keeps_the_symbol_unique() -> None:
    swap = {"instType": "SWAP", "baseCcy": "", "quoteCcy": "", "uly": "BTC-USD"}
    coin = one(**swap, instId="BTC-USD-SWAP", instFamily="BTC-USD")
    stable = one(**swap, instId="BTC-USD_UM-SWAP", instFamily="BTC-USD_UM")
    assert (coin.origin.symbol, stable.origin.symbol) == ("BTC-USD-PERP", "BTC-USD_UM-PERP")
    assert (coin.quote, stable.quote, stable.underlying) == ("USD", "USD", "BTC-USD_UM")


def test_an_announced_future_has_no_symbol_before_its_expiry_is_known() -> None:
    entry = one(instType="FUTURES", instId="BTC-USD-270326", instFamily="BTC-USD", baseCcy="", quoteCcy="", expTime="")
    assert (entry.origin.symbol, entry.base, entry.quote, entry.kind) == (None, "BTC", "USD", "future")


def test_margin_pairs_and_unknown_types() -> None:
    margin, event = one(instType="MARGIN"), one(instType="EVENTS", instId="BTC-ABOVE-DAILY-260224-1600-65000")
    assert (margin.origin.market, margin.kind, margin.origin.symbol, margin.size_unit) == (
        "margin",
        "spot",
        "BTC-USDT",
        "base",
    )
    assert (event.origin.market, event.kind, event.origin.symbol) == ("events", "events", None)


def test_indices_are_read_from_their_tickers() -> None:
    (line,) = sample("rest.index-tickers")
    (entry,) = VENUE.read_instruments(line, RECEIVED)
    assert fields(entry) == {
        "of": ("okx", "index", "BTC-USDT", None),
        "receive_time": RECEIVED,
        "kind": "index",
        "state": "live",
        "is_tradable": True,
        "base": "BTC",
        "quote": "USDT",
        "size_unit": "base",
        "is_inverse": False,
    }


@pytest.mark.parametrize(
    ("market", "paths"),
    [
        ("spot", ["/api/v5/public/instruments?instType=SPOT"]),
        ("margin", ["/api/v5/public/instruments?instType=MARGIN"]),
        ("swap", ["/api/v5/public/instruments?instType=SWAP"]),
        ("futures", ["/api/v5/public/instruments?instType=FUTURES"]),
        ("option", ["/api/v5/public/underlying?instType=OPTION"]),
        ("index", [f"/api/v5/market/index-tickers?quoteCcy={c}" for c in ("USDT", "USD", "USDC", "BTC")]),
        ("events", []),
    ],
)
def test_first_pages(market: str, paths: list[str]) -> None:
    assert [page.path for page in VENUE.instrument_pages(market)] == paths


def family_path(name: str) -> str:
    return f"/api/v5/public/instruments?instType=OPTION&instFamily={name}"


def families(underlyings: list[str], *swaps: dict[str, Any]) -> RestPage | None:
    """The first page of options of a family."""
    (page,) = VENUE.instrument_pages("option")
    found, following = VENUE.parse_instruments("option", page, answer(underlyings), RECEIVED)
    assert found == []
    assert following is not None
    assert following.path == "/api/v5/public/instruments?instType=SWAP"
    found, following = VENUE.parse_instruments("option", following, answer(*swaps), RECEIVED)
    assert found == []
    return following


def test_options_are_listed_family_by_family() -> None:
    following = families(["BTC-USD", "ETH-USD", "X/Y-USD"])
    option = row(instType="OPTION", instId="BTC-USD-261225-50000-C", instFamily="BTC-USD")
    paths = []
    while following is not None:
        paths.append(following.path)
        assert following.if_refused is None
        found, following = VENUE.parse_instruments("option", following, answer(option), RECEIVED)
        assert [entry.origin.instrument for entry in found] == ["BTC-USD-261225-50000-C"]
    assert paths == [family_path(name) for name in ("BTC-USD", "ETH-USD", "X%2FY-USD")]


def test_a_family_need_not_have_the_name_of_its_underlying() -> None:
    def swap(family: str, underlying: str) -> dict[str, Any]:
        return row(instType="SWAP", instId=f"{family}-SWAP", instFamily=family, uly=underlying, baseCcy="")

    page = families(
        ["BTC-USD", "ETH-USD"],
        swap("BTC-USD", "BTC-USD"),
        swap("BTC-USD_UM", "BTC-USD"),
        swap("BTC-USDT", "BTC-USDT"),
        swap("SOL-USD_UM", "SOL-USD"),
    )
    option = row(instType="OPTION", instId="BTC-USD_UM-261225-50000-C", instFamily="BTC-USD_UM", uly="BTC-USD")
    asked = []
    while page is not None:
        asked.append((page.path, page.if_refused))
        of_this = [option] if "_UM" in page.path else []
        found, page = VENUE.parse_instruments("option", page, answer(*of_this), RECEIVED)
    assert [path for path, _ in asked] == [family_path(name) for name in ("BTC-USD", "ETH-USD", "BTC-USD_UM")]
    assert [entry.underlying for entry in found] == ["BTC-USD_UM"]
    # Nobody knows whether there are such options: a refusal is no fault of the catalogue.
    assert [if_refused is None for _, if_refused in asked] == [True, True, False]
    _, body = asked[-1]
    assert body is not None
    assert VENUE.parse_instruments("option", RestPage(*asked[-1]), body, RECEIVED) == ([], None)
    refused = answer(code="51000", msg="Parameter instFamily error")
    assert VENUE.parse_instruments("option", RestPage(*asked[-1]), refused, RECEIVED) == ([], None)
    with pytest.raises(Refused, match="51000"):
        VENUE.parse_instruments("option", RestPage(asked[0][0]), refused, RECEIVED)
    with pytest.raises(Retryable, match="50011"):
        VENUE.parse_instruments("option", RestPage(*asked[-1]), answer(code="50011"), RECEIVED)


@pytest.mark.parametrize("body", [answer(), answer([]), answer("BTC-USD")], ids=["none", "empty", "flat"])
def test_the_list_of_families_may_be_empty_or_flat(body: bytes) -> None:
    (page,) = VENUE.instrument_pages("option")
    _, following = VENUE.parse_instruments("option", page, body, RECEIVED)
    assert (following is None) == (b"BTC" not in body)


def test_a_page_gives_only_instruments_of_its_market() -> None:
    page = RestPage("/api/v5/public/instruments?instType=SPOT")
    body = answer(row(), row(instType="SWAP", instId="BTC-USDT-SWAP"))
    found, following = VENUE.parse_instruments("spot", page, body, RECEIVED)
    assert ([entry.origin.instrument for entry in found], following) == (["BTC-USDT"], None)
    assert VENUE.parse_instruments("spot", page, answer(), RECEIVED) == ([], None)


@pytest.mark.parametrize("code", ["50011", "50001", "50004", "50013", "50026", "50061"])
def test_passing_errors_are_worth_another_attempt(code: str) -> None:
    page = RestPage("/api/v5/public/instruments?instType=SPOT")
    with pytest.raises(Retryable, match=f"okx /api/v5/public/instruments: error {code}: Too Many Requests"):
        VENUE.parse_instruments("spot", page, answer(code=code, msg="Too Many Requests"), RECEIVED)


def test_other_errors_are_not() -> None:
    page = RestPage("/api/v5/public/instruments?instType=SPOTS")
    with pytest.raises(Refused, match="error 51000: Parameter instType error"):
        VENUE.parse_instruments("spot", page, answer(code="51000", msg="Parameter instType error"), RECEIVED)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>502</html>", "malformed"),
        (b"\xff", "okx"),
        (b"[]", "Expected `object`"),
        (b"{}", "no code and data"),
        (b'{"code":"0"}', "no code and data"),
        (answer({"instId": "X"}), r"missing required field `instType` - at `\$\[0\]`"),
        (answer(row(listTime="soon")), "'soon' is no time"),
        (answer(row(ctVal="x")), "okx instruments"),
        (answer(1), "Expected `object`"),
    ],
    ids=["html", "bytes", "array", "empty", "no data", "no type", "time", "value", "number"],
)
def test_other_bodies_are_bad_messages(body: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        VENUE.read_instruments(body, RECEIVED)
    with pytest.raises(BadMessage):
        VENUE.parse_instruments("option", VENUE.instrument_pages("option")[0], body, RECEIVED)


def test_a_quote_currency_without_indices_is_an_empty_listing_and_elsewhere_an_error() -> None:
    unknown = answer(code="51001", msg="Instrument ID does not exist.")
    [first, *_] = VENUE.instrument_pages("index")
    assert VENUE.parse_instruments("index", first, unknown, RECEIVED) == ([], None)
    with pytest.raises(Refused, match="51001"):
        VENUE.parse_instruments("spot", RestPage("/api/v5/public/instruments?instType=SPOT"), unknown, RECEIVED)


def test_numbers_and_null_are_accepted() -> None:
    entry = one(tickSz=0.10, lotSz=None, instIdCode="7", listTime=1606468572000)
    assert (entry.tick_size, entry.lot_size, entry.instrument_code) == ("0.1", None, 7)
    assert entry.listing_time == 1606468572000000
