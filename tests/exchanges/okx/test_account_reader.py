"""Reading an account over REST: the answers are the venue's, the reader is driven by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.exchanges.accounts import AccountReader, Accounts, AccountSpec, Credentials, Steps
from pipeline.exchanges.okx import account_reader
from pipeline.model.account import Fill, Order
from pipeline.model.errors import BadMessage, Refused, Retryable, SessionError
from pipeline.model.events import Event, Micros
from tests.exchanges.okx.samples import CATALOGUE, RECEIVED, VENUE, account_events, own_fields, sample

T = TypeVar("T")

NOW = Micros(1597026383085000)
TIME = sample("rest.time")[0]
SPOT = ("okx", "spot", "BTC-USDT", "BTC-USDT")
SWAP = "BTC-USDT-SWAP"


def side() -> Accounts:
    assert VENUE.accounts is not None
    return VENUE.accounts


def reader() -> AccountReader:
    return side().reader("main", "okx.main.private.0#1", CATALOGUE)


def answer(*rows: Any, code: str = "0", msg: str = "") -> bytes:
    return json.dumps({"code": code, "msg": msg, "data": list(rows)}).encode()


def subscription(channel: str, market: str | None = None, **params: str) -> Any:
    return side().subscriptions(AccountSpec(channel, market, params))[0]


def drive(steps: Steps[T], answers: Iterable[bytes]) -> tuple[T, list[tuple[str, dict[str, str]]]]:
    """The result of the steps, and what they asked for: paths with their parameters."""
    asked = []
    waiting = iter(answers)
    try:
        path = next(steps)
        while True:
            parts = urlsplit(path)
            asked.append((parts.path, dict(parse_qsl(parts.query))))
            path = steps.send(next(waiting))
    except StopIteration as end:
        assert list(waiting) == []
        return end.value, asked


def made(steps: Callable[[], Steps[T]] | None) -> Steps[T]:
    assert steps is not None
    return steps()


def identity(event: Event) -> list[Any]:
    """What tells a repeated record from a new one."""
    head = {"venue", "market", "instrument", "account"}
    return [getattr(event.origin if name in head else event, name) for name in event.IDENTITY]


def open_order(number: int, **row: Any) -> dict[str, Any]:
    (example,) = json.loads(sample("rest.trade.orders-pending")[0])["data"]
    return {**example, "ordId": str(number), **row}


def bill(number: int, **row: Any) -> dict[str, Any]:
    (example,) = json.loads(sample("rest.trade.fills")[0])["data"]
    return {**example, "billId": str(number), "tradeId": str(number), **row}


def test_open_orders() -> None:
    steps = made(reader().snapshot(subscription("order")))
    (event,), asked = drive(steps, [sample("rest.trade.orders-pending")[0]])
    assert asked == [("/api/v5/trade/orders-pending", {"limit": "100"})]
    assert (event.origin.account, event.origin.connection) == ("main", "okx.main.private.0#1")
    assert own_fields(event) == {
        "of": SPOT,
        "exchange_time": 1724733617998000,
        "channel": "orders",
        "is_snapshot": True,
        "order_id": "1752588852617379840",
        "status": "new",
        "venue_status": "live",
        "side": "buy",
        "order_type": "limit",
        "size_unit": "base",
        "filled_size_unit": "base",
        "venue_order_type": "post_only",
        "time_in_force": "gtc",
        "price": "13013.5",
        "size": "0.001",
        "filled_size": "0",
        "remaining_size": "0.001",
        "fees": {"BTC": "0"},
        "rebates": {"USDT": "0"},
        "realized_pnl": "0",
        "is_post_only": True,
        "is_reduce_only": False,
        "margin_mode": "cash",
        "created_by": "normal",
        "self_match_prevention": "cancel_maker",
        "created_time": 1724733617998000,
        "extras": {"tradeQuoteCcy": "USDT", "isTpLimit": "false"},
    }


def test_open_orders_over_several_pages_are_told_oldest_first() -> None:
    pages = [
        answer(*(open_order(n) for n in range(250, 150, -1))),
        answer(*(open_order(n) for n in range(150, 50, -1))),
        answer(),
    ]
    events, asked = drive(made(reader().snapshot(subscription("order"))), pages)
    assert [params.get("after") for _, params in asked] == [None, "151", "51"]
    assert [event.order_id for event in events if isinstance(event, Order)] == [str(n) for n in range(51, 251)]


@pytest.mark.parametrize(
    ("wanted", "pending", "fills"),
    [
        (("order", "swap"), {"instType": "SWAP"}, {"instType": "SWAP"}),
        (("order", None), {}, {}),
        (
            ("order", "swap", ("instFamily", "BTC-USDT")),
            {"instType": "SWAP", "instFamily": "BTC-USDT"},
            {"instType": "SWAP"},
        ),
        (("order", None, ("instId", SWAP)), {"instId": SWAP}, {"instId": SWAP}),
    ],
    ids=range(4),
)
def test_a_narrowed_subscription_is_read_as_narrow(
    wanted: tuple[Any, ...], pending: dict[str, str], fills: dict[str, str]
) -> None:
    channel, market, *params = wanted
    narrowed = subscription(channel, market, **dict(params))
    _, asked = drive(made(reader().snapshot(narrowed)), [answer()])
    assert asked[0] == ("/api/v5/trade/orders-pending", {**pending, "limit": "100"})
    _, asked = drive(made(reader().fills(narrowed, Micros(1_999_999))), [answer()])
    assert asked[0] == ("/api/v5/trade/fills", {**fills, "begin": "1999", "limit": "100"})


def test_a_fill() -> None:
    steps = made(reader().fills(subscription("order"), Micros(5_000)))
    (event,), asked = drive(steps, [sample("rest.trade.fills")[0]])
    assert asked == [("/api/v5/trade/fills", {"begin": "5", "limit": "100"})]
    assert own_fields(event) == {
        "of": SPOT,
        "exchange_time": 1708587373361000,
        "channel": "orders",
        "is_snapshot": True,
        "fill_id": "744876980",
        "side": "buy",
        "price": "51858",
        "size": "0.00192834",
        "size_unit": "base",
        "kind": "trade",
        "is_fast": False,
        "order_id": "680800019749904384",
        "base_size": "0.00192834",
        "fee": "0.00000192834",
        "fee_currency": "BTC",
        "fee_rate": "0.001",
        "liquidity": "taker",
        "realized_pnl": "0",
    }


def test_fills_over_several_pages_are_told_oldest_first() -> None:
    pages = [answer(*(bill(n) for n in range(230, 130, -1))), answer(*(bill(n) for n in range(130, 100, -1)))]
    events, asked = drive(made(reader().fills(subscription("order"), Micros(0))), pages)
    assert [params.get("after") for _, params in asked] == [None, "131"]
    assert [event.fill_id for event in events if isinstance(event, Fill)] == [str(n) for n in range(101, 231)]


def test_fills_of_a_family_are_picked_out() -> None:
    rows = [
        bill(n, instType="SWAP", instId=name)
        for n, name in enumerate(("BTC-USD-SWAP", "BTC-USD_UM-SWAP", "BTC-USDT-SWAP"))
    ]
    narrowed = subscription("order", "swap", instFamily="BTC-USD")
    events, _ = drive(made(reader().fills(narrowed, Micros(0))), [answer(*rows)])
    assert [event.origin.instrument for event in events] == ["BTC-USD-SWAP"]


@pytest.mark.parametrize(
    ("subtype", "kind"),
    [
        ("", "trade"),
        ("1", "trade"),
        ("6", "trade"),
        ("7", "7"),
        ("100", "liquidation"),
        ("107", "liquidation"),
        ("112", "delivery"),
        ("125", "adl"),
        ("128", "adl"),
        ("204", "block"),
        ("275", "spread_leg"),
        ("324", "move_position"),
        ("413", "trade"),
        ("236", "236"),
    ],
)
def test_kinds_of_fills(subtype: str, kind: str) -> None:
    steps = made(reader().fills(subscription("order"), Micros(0)))
    (event,), _ = drive(steps, [answer(bill(1, subType=subtype, tradeId="-44"))])
    assert isinstance(event, Fill)
    assert (event.kind, event.fill_id) == (kind, "-44")


@given(
    kind=st.sampled_from(["SPOT", "MARGIN", "SWAP"]),
    trade=st.integers(1, 10**12),
    order=st.integers(1, 10**18),
    price=st.decimals("0.0001", "100000", places=4).map(str),
    size=st.decimals("0.01", "1000", places=2).map(str),
    fee=st.decimals("-10", "10", places=6).map(lambda value: f"{value:f}"),
    at=st.integers(1_700_000_000_000, 1_800_000_000_000),
    side=st.sampled_from(["buy", "sell"]),
    liquidity=st.sampled_from(["T", "M"]),
    held=st.sampled_from(["net", "long", "short"]),
)
def test_a_fill_read_is_the_fill_that_the_stream_brings(
    kind: str,
    trade: int,
    order: int,
    price: str,
    size: str,
    fee: str,
    at: int,
    side: str,
    liquidity: str,
    held: str,
) -> None:
    instrument = SWAP if kind == "SWAP" else "BTC-USDT"
    shared = {
        "instType": kind,
        "instId": instrument,
        "tradeId": str(trade),
        "ordId": str(order),
        "clOrdId": "mine",
        "tag": "t",
        "side": side,
        "posSide": held,
        "fillPx": price,
        "fillSz": size,
        "fillTime": str(at),
        "execType": liquidity,
        "fillPnl": "0.5",
        "fillMarkPx": "5",
        "fillIdxPx": "6",
    }
    pushed = {
        **shared,
        "ordType": "limit",
        "state": "filled",
        "uTime": str(at + 1),
        "px": price,
        "sz": size,
        "accFillSz": size,
        "fillFee": fee,
        "fillFeeCcy": "USDT",
        "fee": "-99",
        "feeCcy": "USDT",
        "category": "normal",
    }
    listed = {**shared, "billId": "1", "ts": str(at + 2), "subType": "1", "fee": fee, "feeCcy": "USDT", "feeRate": "1"}
    stream = VENUE.normalizer("private", "c#1", CATALOGUE, account="main")
    arg = {"channel": "orders", "instType": "ANY", "uid": "7"}
    _, streamed = stream.normalize(json.dumps({"arg": arg, "data": [pushed]}).encode(), RECEIVED)
    (read,), _ = drive(made(reader().fills(subscription("order"), Micros(0))), [answer(listed)])
    assert identity(read) == identity(streamed)
    # What a fill does not tell of its order is not known over REST; the fee's rate is known only there.
    of_the_order = {"remaining_size", "order_price", "order_size", "order_type", "created_by"}
    seen, told = own_fields(streamed), own_fields(read)
    assert told.pop("fee_rate") == "-1"
    assert told == {name: value for name, value in seen.items() if name not in of_the_order} | {"is_snapshot": True}


@pytest.mark.parametrize("name", ["rest.trade.order", "rest.trade.orders-pending"])
def test_an_order_read_is_the_order_that_the_stream_brings(name: str) -> None:
    (row,) = json.loads(sample(name)[0])["data"]
    stream = VENUE.normalizer("private", "c#1", CATALOGUE, account="main")
    arg = {"channel": "orders", "instType": "ANY", "uid": "7"}
    streamed = stream.normalize(json.dumps({"arg": arg, "data": [row]}).encode(), RECEIVED)[0]
    (read,), _ = drive(made(reader().snapshot(subscription("order"))), [sample(name)[0]])
    assert identity(read) == identity(streamed)
    assert own_fields(read) == own_fields(streamed) | {"is_snapshot": True}


def lost_order() -> Order:
    order = account_events("private.orders.constructed")[0]
    assert isinstance(order, Order)
    return order


def test_what_became_of_an_order() -> None:
    (event,), asked = drive(made(reader().order(lost_order())), [sample("rest.trade.order")[0]])
    assert asked == [
        ("/api/v5/trade/order", {"instId": SWAP, "ordId": "2510789768709120"}),
    ]
    assert isinstance(event, Order)
    assert (event.status, event.is_snapshot, event.size_unit) == ("filled", True, "quote")


def test_an_order_that_okx_has_forgotten() -> None:
    gone = answer(code="51603", msg="Order does not exist")
    assert drive(made(reader().order(lost_order())), [gone])[0] == []
    with pytest.raises(Refused, match="51603"):
        drive(made(reader().snapshot(subscription("order"))), [gone])


def test_what_is_not_read_over_rest() -> None:
    wanted = [name for name in side().channels if name != "order"]
    for name in wanted:
        for each in side().subscriptions(AccountSpec(name)):
            assert reader().snapshot(each) is None, name
            assert reader().fills(each, Micros(0)) is None, name
    algo = replace(lost_order(), channel="orders-algo")
    assert reader().order(algo) is None


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (b"<html>", BadMessage, "/api/v5/trade/"),
        (b"[]", BadMessage, "/api/v5/trade/"),
        (answer({"instId": "A"}), BadMessage, "instType"),
        (answer(code="50011", msg="Too Many Requests"), Retryable, "50011"),
        (answer(code="50102", msg="Timestamp request expired"), Retryable, "50102"),
        (answer(code="50113", msg="Invalid Sign"), Refused, "50113"),
    ],
    ids=range(6),
)
def test_other_answers_are_errors(body: bytes, error: type[Exception], why: str) -> None:
    every: list[Callable[[], Steps[list[Event]]] | None] = [
        reader().snapshot(subscription("order")),
        reader().fills(subscription("order"), Micros(0)),
        reader().order(lost_order()),
    ]
    for each in every:
        with pytest.raises(error, match=why):
            drive(made(each), [body])


@pytest.mark.parametrize("row", [{"cTime": "soon"}, {"accFillSz": "x"}, {"pxVol": "nan"}])
def test_rows_that_cannot_be_read_are_bad_messages(row: dict[str, str]) -> None:
    with pytest.raises(BadMessage, match="okx orders"):
        drive(made(reader().snapshot(subscription("order"))), [answer(open_order(1, **row))])
    with pytest.raises(BadMessage, match="okx fills"):
        drive(made(reader().fills(subscription("order"), Micros(0))), [answer(bill(1, fillTime="soon"))])


def test_a_listing_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_reader, "MAX_PAGES", 3)
    full = answer(*(bill(n) for n in range(100)))
    with pytest.raises(Retryable, match="more than 3 pages"):
        drive(made(reader().fills(subscription("order"), Micros(0))), [full] * 3)


def test_the_servers_time() -> None:
    assert side().time_path == "/api/v5/public/time"
    assert side().read_time(TIME) == NOW
    for body in (b"", answer(), answer({"ts": "soon"}), answer({})):
        with pytest.raises(BadMessage):
            side().read_time(body)
    with pytest.raises(Retryable):
        side().read_time(answer(code="50011"))


def test_a_key_that_is_good() -> None:
    assert drive(side().verify(), [sample("rest.account.config")[0]]) == (None, [("/api/v5/account/config", {})])


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        ("50111", Refused, ""),
        ("50113", Refused, ""),
        ("50105", Refused, ""),
        ("50101", Refused, "the other environment"),
        ("50110", Refused, "other addresses"),
        ("50102", Retryable, ""),
        ("50001", Retryable, ""),
    ],
)
def test_a_key_that_is_not(code: str, kind: type[SessionError], hint: str) -> None:
    with pytest.raises(kind, match=f"okx /api/v5/account/config: error {code}: no.*{hint}"):
        drive(side().verify(), [answer(code=code, msg="no")])


def test_an_answer_without_an_account_proves_nothing() -> None:
    with pytest.raises(BadMessage, match="no account"):
        drive(side().verify(), [answer()])


def test_requests_are_signed() -> None:
    assert side().needs_passphrase
    keys = Credentials("key", "22582BD0CFF14C41EDBF1AB98506286D", "phrase")
    headers = side().sign(keys, "/api/v5/account/balance?ccy=BTC", Micros(1607418537715000))
    assert headers["OK-ACCESS-SIGN"] == "HiZhvSfMtWJA3uUIVXV3a/bSXNPCWvYFXoGCVS8V4zY="
