from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import attrs
import httpx
import pytest
import trio.testing
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.sim.http import Request
from pipeline.sim.settings import Account
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.bybit_client import ACCOUNT, NOW_MS, OTHER, SLOW, ask, body, documented, get, signature, signed

INFO = "/v5/account/info"
LINEAR = "category=linear&settleCoin=USDT"
DAY_MS = 24 * 3600 * 1000
OPTION = "BTC-26MAR27-65000-C-USDT"


@pytest.fixture
async def venue() -> AsyncIterator[SimulatedVenue]:
    async with open_venue(
        "bybit", listen=False, market=SLOW, accounts=[ACCOUNT, OTHER], start_us=NOW_MS * 1000
    ) as running:
        yield running


def code(venue: SimulatedVenue, target: str) -> int:
    return int(ask(venue, target)["retCode"])


def order_ids(result: Any) -> list[str]:
    return [row["orderId"] for row in result["list"]]


def pages(venue: SimulatedVenue, target: str) -> list[list[dict[str, Any]]]:
    """Every page, the cursor passed on as it came."""
    found: list[list[dict[str, Any]]] = []
    cursor = ""
    while True:
        result = get(venue, target + (f"&cursor={cursor}" if cursor else ""))
        found.append(result["list"])
        cursor = result["nextPageCursor"]
        if not cursor:
            return found


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("GET/realtime1662350400000", "0275f66dd946f3d1fc4b8958ea3f134c6702284d719ff4acb110e927415cca6e"),
        (
            "1658384314791XXXXXXXXXX5000category=option&symbol=BTC-29JUL22-25000-C",
            "faf76debd29add8316b0b1cec70b5eb111d9fa21ce62719d1f47011b7c4814ef",
        ),
        (
            '1658385579423XXXXXXXXXX5000{"category": "option"}',
            "bcc45c89edffbaa387fde5ec8a44193c8fb0f20746d4b73eed9ade333d66649a",
        ),
    ],
)
def test_signatures_are_those_of_the_manual(text: str, digest: str) -> None:
    assert signature("TESTSECRET", text) == digest


async def test_the_request_of_the_manual_is_accepted(autojump_clock: trio.testing.MockClock) -> None:
    account = Account("XXXXXXXXXX", "TESTSECRET")
    headers = {
        "x-bapi-api-key": "XXXXXXXXXX",
        "x-bapi-timestamp": "1658384314791",
        "x-bapi-recv-window": "5000",
        "x-bapi-sign": "faf76debd29add8316b0b1cec70b5eb111d9fa21ce62719d1f47011b7c4814ef",
    }
    target = "/v5/order/realtime?category=option&symbol=BTC-29JUL22-25000-C"
    async with open_venue(
        "bybit", listen=False, market=SLOW, accounts=[account], start_us=1_658_384_314_791_000
    ) as venue:
        assert body(venue.dialect.rest(Request("GET", target, headers)))["retCode"] == 0
        other = target.replace("25000", "26000")
        assert body(venue.dialect.rest(Request("GET", other, headers)))["retCode"] == 10004
        # The query is signed as it is sent, whatever it means.
        reordered = "/v5/order/realtime?symbol=BTC-29JUL22-25000-C&category=option"
        assert body(venue.dialect.rest(Request("GET", reordered, headers)))["retCode"] == 10004


async def test_a_request_must_be_signed_by_a_known_key_in_time(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    assert code(venue, INFO) == 0
    assert ask(venue, INFO, Account("no-key", "TESTSECRET"))["retCode"] == 10003
    assert ask(venue, INFO, attrs.evolve(ACCOUNT, secret="WRONG"))["retCode"] == 10004
    for shift_ms, expected in ((-5000, 0), (-5001, 10002), (999, 0), (1000, 10002)):
        assert ask(venue, INFO, shift_ms=shift_ms)["retCode"] == expected, shift_ms
    wide: dict[str, Any] = {"x-bapi-recv-window": "60000"}
    assert ask(venue, INFO, shift_ms=-60_000, **wide)["retCode"] == 0
    assert ask(venue, INFO, shift_ms=-60_001, **wide)["retCode"] == 10002
    late: dict[str, Any] = {"x-bapi-timestamp": "soon"}
    assert ask(venue, INFO, **late)["retCode"] == 10001
    bare = Request("GET", INFO, {"x-bapi-api-key": ACCOUNT.key})
    with_body = attrs.evolve(signed(venue, INFO), body=b"{}")
    for request, status in ((bare, 401), (with_body, 403)):
        response = venue.dialect.rest(request)
        assert response is not None
        assert response.status == status
    assert venue.dialect.rest(attrs.evolve(signed(venue, INFO), method="POST")) is None
    assert venue.dialect.rest(signed(venue, "/v5/user/query-api")) is None


async def test_conditional_orders_are_asked_for_by_themselves(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    order_id = venue.accounts["main"].place("spot", "BTCUSDT", "buy", "60000", "0.1", client_order_id="mine")
    for filter_, expected in (("", [order_id]), ("Order", [order_id]), ("StopOrder", []), ("tpslOrder", [])):
        target = f"/v5/order/realtime?category=spot&orderLinkId=mine&orderFilter={filter_}"
        assert order_ids(get(venue, target)) == expected


async def test_a_key_of_its_own_making_signs_requests(autojump_clock: trio.testing.MockClock) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    text = f"{NOW_MS}rsa-key5000"
    good = base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), SHA256())).decode()
    account = Account("rsa-key", "", public_key=pem)
    async with open_venue("bybit", listen=False, market=SLOW, accounts=[account], start_us=NOW_MS * 1000) as venue:
        for sign, expected in ((good, 0), (good.swapcase(), 10004)):
            headers: dict[str, Any] = {"x-bapi-sign": sign}
            assert ask(venue, INFO, account, **headers)["retCode"] == expected


async def test_requests_of_an_account_are_limited_per_endpoint(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    codes = [code(venue, INFO) for _ in range(51)]
    assert codes == [0] * 50 + [10006]
    assert code(venue, "/v5/asset/coin-greeks") == 0
    assert ask(venue, INFO, OTHER)["retCode"] == 0
    venue.floor.clock.start_us += 1_000_000
    response = venue.dialect.rest(signed(venue, INFO))
    assert response is not None
    assert response.headers["X-Bapi-Limit"] == "50"
    assert response.headers["X-Bapi-Limit-Status"] == "49"
    assert int(response.headers["X-Bapi-Limit-Reset-Timestamp"]) >= NOW_MS


async def test_it_is_served_over_http() -> None:
    async with (
        open_venue("bybit", market=SLOW, accounts=[ACCOUNT]) as venue,
        httpx.AsyncClient(base_url=venue.rest_url) as http,
    ):
        request = signed(venue, "/v5/account/wallet-balance?accountType=UNIFIED&coin=BTC%2CETH")
        answer = await http.get(request.target, headers=dict(request.headers))
        assert answer.json()["retCode"] == 0
        assert [row["coin"] for row in answer.json()["result"]["list"][0]["coin"]] == ["BTC", "ETH"]
        assert answer.headers["X-Bapi-Limit-Status"] == "49"
        assert answer.json().keys() == documented("rest.common.envelope.json").keys()


async def test_open_orders_are_told_newest_first_in_pages(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    ids = [account.place("linear", "BTCUSDT", "buy", "60000", "1") for _ in range(45)]
    account.place("linear", "BTCPERP", "buy", "60000", "1")
    account.place("spot", "BTCUSDT", "buy", "60000", "1")
    account.cancel(ids.pop(7))
    found = pages(venue, f"/v5/order/realtime?{LINEAR}")
    assert [len(page) for page in found] == [20, 20, 4]
    assert [row["orderId"] for page in found for row in page] == ids[::-1]
    assert [len(page) for page in pages(venue, f"/v5/order/realtime?{LINEAR}&limit=50")] == [44]

    first = get(venue, f"/v5/order/realtime?{LINEAR}")
    cursor = first["nextPageCursor"]
    assert "%3D" in cursor
    assert "=" not in cursor, "a cursor comes encoded"
    account.place("linear", "BTCUSDT", "buy", "60000", "1")
    second = get(venue, f"/v5/order/realtime?{LINEAR}&cursor={cursor}")
    assert order_ids(second) == ids[::-1][20:40], "a page does not move with what is new"
    for wrong in (quote(cursor), "page_token%3Dnothing%26", "x"):
        assert code(venue, f"/v5/order/realtime?{LINEAR}&cursor={wrong}") == 10001


async def test_open_orders_can_be_asked_for_by_what_they_are(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    btc = account.place("linear", "BTCUSDT", "buy", "60000", "1", client_order_id="mine")
    eth = account.place("linear", "ETHUSDT", "buy", "3000", "1")
    usdc = account.place("linear", "BTCPERP", "buy", "60000", "1")
    spot = account.place("spot", "BTCUSDT", "buy", "60000", "1")
    closed = account.place("linear", "ETHUSDT", "buy", "3000", "1")
    account.fill(closed)
    for query, expected in (
        ("category=linear&symbol=BTCUSDT", [btc]),
        ("category=linear&baseCoin=BTC", [usdc, btc]),
        ("category=linear&settleCoin=USDT", [eth, btc]),
        ("category=linear&settleCoin=USDC", [usdc]),
        ("category=linear&symbol=ETHUSDT&orderLinkId=mine", [btc]),
        (f"category=linear&symbol=ETHUSDT&orderId={usdc}&orderLinkId=mine", [usdc]),
        ("category=linear&settleCoin=USDT&openOnly=1", [closed]),
        ("category=spot", [spot]),
        ("category=inverse", []),
        ("category=option&settleCoin=USDT", []),
    ):
        assert order_ids(get(venue, f"/v5/order/realtime?{query}")) == expected, query
    for query in (
        "category=linear", f"category=linear&orderId={btc}", "category=spot&settleCoin=USDT", "symbol=BTCUSDT",
        "category=option&settleCoin=BTC", "category=futures", "category=spot&openOnly=2", "category=spot&limit=51",
        "category=spot&limit=0", "category=spot&limit=x",
    ):  # fmt: skip
        assert code(venue, f"/v5/order/realtime?{query}") == 10001, query


async def test_closed_orders_are_history_for_a_window(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    began = venue.floor.clock.now_ms()
    filled = account.place("linear", "BTCUSDT", "buy", "60000", "1")
    account.fill(filled)
    account.place("linear", "BTCUSDT", "buy", "60000", "1")
    venue.floor.clock.start_us += 5 * DAY_MS * 1000
    cancelled = account.place("linear", "BTCUSDT", "buy", "60000", "1")
    account.cancel(cancelled)
    history = get(venue, "/v5/order/history?category=linear")
    assert [(row["orderId"], row["orderStatus"]) for row in history["list"]] == [
        (cancelled, "Cancelled"), (filled, "Filled"),
    ]  # fmt: skip
    assert order_ids(get(venue, f"/v5/order/history?category=linear&startTime={began + DAY_MS}")) == [cancelled]
    assert order_ids(get(venue, f"/v5/order/history?category=linear&endTime={began + DAY_MS}")) == [filled]
    venue.floor.clock.start_us += 3 * DAY_MS * 1000
    assert order_ids(get(venue, "/v5/order/history?category=linear")) == [cancelled]


async def test_executions_are_told_newest_first_within_a_window(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    order_id = account.place("linear", "BTCUSDT", "buy", "60000", "1", client_order_id="mine")
    began = venue.floor.clock.now_ms()
    fills: list[str] = []
    for _ in range(120):
        venue.floor.clock.start_us += 1000
        fills.append(account.fill(order_id, "0.001"))
    found = pages(venue, "/v5/execution/list?category=linear")
    assert [len(page) for page in found] == [50, 50, 20]
    assert [row["execId"] for page in found for row in page] == fills[::-1]
    assert [len(page) for page in pages(venue, "/v5/execution/list?category=linear&limit=100")] == [100, 20]

    def told(query: str) -> list[str]:
        return [row["execId"] for row in get(venue, f"/v5/execution/list?category=linear&limit=100&{query}")["list"]]

    assert told(f"startTime={began + 119}") == fills[:-3:-1]
    assert told(f"startTime={began + 1}&endTime={began + 3}") == fills[2::-1]
    assert told(f"endTime={began + 1}") == fills[:1]
    assert told(f"endTime={began}") == []
    week = 7 * DAY_MS
    assert code(venue, f"/v5/execution/list?category=linear&startTime={began - 1}&endTime={began + week}") == 10001
    assert code(venue, f"/v5/execution/list?category=linear&startTime={began}&endTime={began + week}") == 0
    assert code(venue, f"/v5/execution/list?category=linear&startTime={began}&endTime={began - 1}") == 10001
    assert code(venue, "/v5/execution/list?category=linear&startTime=then") == 10001
    assert code(venue, "/v5/execution/list?category=linear&limit=101") == 10001
    venue.floor.clock.start_us += (week + 1) * 1000
    assert told("symbol=BTCUSDT") == []
    assert told(f"startTime={began + 120}") == fills[-1:]


async def test_executions_can_be_asked_for_by_what_they_are(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    btc = account.place("linear", "BTCUSDT", "buy", "60000", "1", client_order_id="mine")
    first = account.fill(btc)
    second = account.fill(account.place("linear", "ETHUSDT", "buy", "3000", "1"))
    funding = account.fund("linear", "BTCUSDT", "0.0001")
    eth_option = next(each.symbol for each in venue.floor.market.of("option") if each.base == "ETH")
    option = account.fill(account.place("option", OPTION, "buy", "3000", "1"))
    account.fill(account.place("option", eth_option, "buy", "100", "1"))
    for query, expected in (
        ("category=linear", {first, second, funding}),
        (f"category=linear&orderId={btc}", {first}),
        ("category=linear&orderLinkId=mine", {first}),
        ("category=linear&symbol=ETHUSDT", {second}),
        ("category=linear&baseCoin=ETH", {second}),
        ("category=linear&settleCoin=USDC", set()),
        ("category=linear&execType=Funding", {funding}),
        ("category=linear&execType=Trade", {first, second}),
        ("category=option", {option}),
        ("category=spot", set()),
    ):
        found = {row["execId"] for row in get(venue, f"/v5/execution/list?{query}")["list"]}
        assert found == expected, query


async def test_positions_are_told_flat_only_by_symbol(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    for market, symbol in (("linear", "BTCUSDT"), ("linear", "BTCPERP"), ("inverse", "BTCUSD"), ("option", OPTION)):
        account.fill(account.place(market, symbol, "sell", "60000", "2"))
    account.fill(account.place("linear", "ETHUSDT", "buy", "3000", "1"))
    account.fill(account.place("linear", "ETHUSDT", "sell", "3000", "1"))

    def told(query: str) -> list[tuple[str, str, str]]:
        rows = get(venue, f"/v5/position/list?{query}")["list"]
        return [(row["symbol"], row["side"], row["size"]) for row in rows]

    assert told("category=linear&settleCoin=USDT") == [("BTCUSDT", "Sell", "2")]
    assert told("category=linear&settleCoin=USDC") == [("BTCPERP", "Sell", "2")]
    assert told("category=linear&symbol=ETHUSDT") == [("ETHUSDT", "", "0")]
    assert told("category=linear&symbol=SOLUSDT") == [("SOLUSDT", "", "0")]
    assert told("category=inverse") == [("BTCUSD", "Sell", "2")]
    assert told("category=option&baseCoin=BTC") == [(OPTION, "Sell", "2")]
    assert told("category=option&baseCoin=ETH") == []
    for query in ("category=linear", "category=linear&baseCoin=BTC", "category=spot", "category=linear&symbol=X", ""):
        assert code(venue, f"/v5/position/list?{query}") == 10001, query
    assert [len(page) for page in pages(venue, "/v5/position/list?category=linear&settleCoin=USDT&limit=1")] == [1]


async def test_the_wallet_is_valued_in_dollars(venue: SimulatedVenue, autojump_clock: trio.testing.MockClock) -> None:
    account = venue.accounts["main"]
    account.deposit("USDT", "1000")
    account.deposit("BTC", "0.5")
    account.deposit("DUST", "1")
    account.deposit("SOL", "1")
    account.deposit("SOL", "-1")
    (wallet,) = get(venue, "/v5/account/wallet-balance?accountType=UNIFIED")["list"]
    coins = {row["coin"]: row for row in wallet["coin"]}
    assert coins.keys() == {"USDT", "BTC", "DUST"}, "only what there is"
    mark = account.mark(venue.floor.market.listings["linear", "BTCUSDT"])
    assert Decimal(coins["BTC"]["usdValue"]) == mark / 2
    assert coins["DUST"]["usdValue"] == "0"
    assert Decimal(wallet["totalEquity"]) == Decimal(wallet["totalWalletBalance"]) == 1000 + mark / 2
    (wallet,) = get(venue, "/v5/account/wallet-balance?accountType=UNIFIED&coin=USDT,ETH")["list"]
    assert [(row["coin"], row["walletBalance"]) for row in wallet["coin"]] == [("USDT", "1000"), ("ETH", "0")]
    account.fill(account.place("linear", "BTCUSDT", "buy", "50000", "0.1"))
    (wallet,) = get(venue, "/v5/account/wallet-balance?accountType=UNIFIED&coin=USDT")["list"]
    gain = (mark - 50000) / 10
    assert Decimal(wallet["coin"][0]["equity"]) == 1000 - 1 + gain
    assert Decimal(wallet["coin"][0]["totalPositionIM"]) == 500
    assert Decimal(wallet["totalPerpUPL"]) == gain
    assert code(venue, "/v5/account/wallet-balance") == 10001


@pytest.mark.parametrize(
    ("target", "name", "extras"),
    [
        ("/v5/order/realtime?category=linear&symbol=BTCUSDT", "rest.order.realtime.json",
         {"closedPnl", "createType", "extraFees", "feeCurrency", "parentOrderLinkId", "rpiMatchedQty",
          "rpiTakerAccess", "slippageTolerance", "slippageToleranceType"}),
        ("/v5/order/history?category=linear", "rest.order.history.json",
         {"closedPnl", "createType", "feeCurrency", "parentOrderLinkId"}),
        ("/v5/execution/list?category=linear", "rest.execution.list.json",
         {"createType", "execFeeV2", "execPnl", "isLeverage", "marketUnit"}),
        ("/v5/position/list?category=linear&symbol=BTCUSDT", "rest.position.list.json", {"openTime"}),
        ("/v5/account/wallet-balance?accountType=UNIFIED", "rest.account.wallet-balance.json", set()),
        ("/v5/asset/coin-greeks", "rest.asset.coin-greeks.json", set()),
        ("/v5/account/info", "rest.account.info.json", set()),
    ],
)  # fmt: skip
async def test_answers_have_the_fields_of_the_samples(
    venue: SimulatedVenue, target: str, name: str, extras: set[str], autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    account.place("linear", "BTCUSDT", "buy", "60000", "1")
    account.fill(account.place("linear", "BTCUSDT", "buy", "60000", "1"))
    account.fill(account.place("option", OPTION, "buy", "3000", "1"))
    expected, result = documented(name)["result"], get(venue, target)
    assert result.keys() == expected.keys()
    if "list" in expected:
        left, right = result["list"][0], expected["list"][0]
        assert right.keys() - left.keys() == set()
        assert left.keys() - right.keys() == extras
        assert {key: type(left[key]) for key in right} == {key: type(right[key]) for key in right}


async def test_what_rest_tells_is_what_the_account_has(
    venue: SimulatedVenue, autojump_clock: trio.testing.MockClock
) -> None:
    account = venue.accounts["main"]
    order_id = account.place("spot", "BTCUSDT", "buy", "60000", "1", client_order_id="mine")
    account.fill(order_id, "0.25", maker=False)
    (order,) = get(venue, "/v5/order/realtime?category=spot")["list"]
    assert (order["orderId"], order["orderLinkId"], order["orderStatus"]) == (order_id, "mine", "PartiallyFilled")
    assert (order["leavesQty"], order["cumExecQty"], order["avgPrice"]) == ("0.75", "0.25", "60000")
    assert order["basePrice"] == "60000"
    assert order["cumFeeDetail"] == {"BTC": "0.0001375"}
    (execution,) = get(venue, "/v5/execution/list?category=spot")["list"]
    assert (execution["orderId"], execution["execQty"], execution["isMaker"]) == (order_id, "0.25", False)
    assert (execution["execFee"], execution["feeCurrency"]) == ("0.0001375", "BTC")
    (wallet,) = get(venue, "/v5/account/wallet-balance?accountType=UNIFIED&coin=USDT")["list"]
    assert (wallet["coin"][0]["walletBalance"], wallet["coin"][0]["locked"]) == ("-15000.00", "45000.00")
    assert venue.accounts["other"].orders == {}
