"""Known channels without a kind of event: the message as it came."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from pipeline.model.account import AccountRaw
from pipeline.model.errors import BadMessage
from pipeline.model.events import Raw
from tests.exchanges.okx.samples import CATALOGUE, RECEIVED, VENUE, normalizer, sample

OF = {
    "business.algo-recurring-buy": ("spot", None, "main", 1699933314691),
    "business.block-tickers": ("swap", "LTC-USD-SWAP", None, 1597026383085),
    "business.copytrading-lead-notification": ("swap", None, "main", None),
    "business.deposit-info": ("account", None, "main", 1674103661123),
    "business.economic-calendar": ("system", None, None, 1698648096590),
    "business.grid-orders-contract": ("swap", "BTC-USDT-SWAP", "main", 1682492574068),
    "business.grid-orders-spot": ("spot", "BTC-USDT", "main", 1682416738467),
    "business.grid-positions": ("swap", "BTC-USDT-SWAP", "main", 1653536068723),
    "business.grid-sub-orders": ("swap", "BTC-USDT-SWAP", "main", 1653486524502),
    "business.public-struc-block-trades": ("system", None, None, 1608267227834),
    "business.quotes": ("account", None, "main", 1608267227834),
    "business.rfqs": ("account", None, "main", 1611033737572),
    "business.struc-block-trades": ("account", None, "main", 1608267227834),
    "business.withdrawal-info": ("account", None, "main", 1674103268472),
    "public.call-auction-details": ("spot", "ONDO-USDC", None, 1726542000007),
    "public.event-contract-markets": ("events", "BTC-ABOVE-DAILY-260224-1600-65000", None, None),
}
"""Market, instrument, account and milliseconds by sample."""


@pytest.mark.parametrize("name", OF)
def test_messages_are_passed_on_as_they_came(name: str) -> None:
    (line,) = sample(name)
    (event,) = VENUE.normalizer("business", "c#1", CATALOGUE, account="main").normalize(line, RECEIVED)
    market, instrument, account, millis = OF[name]
    assert isinstance(event, Raw if account is None else AccountRaw)
    assert not isinstance(event, AccountRaw) or not event.is_snapshot
    assert (event.origin.market, event.origin.instrument, event.origin.account) == (market, instrument, account)
    assert event.exchange_time == (None if millis is None else millis * 1000)
    assert event.channel == name.partition(".")[2]
    assert event.payload.encode() == line
    assert event.payload_sha256 == sha256(line).hexdigest()
    assert event.receive_time == RECEIVED


def test_white_space_and_numbers_are_kept() -> None:
    line = b' {"data": [{"ts": 1.50, "x": 1e2}], "arg": {"channel": "block-tickers", "instId": "BTC-USDT-SWAP"}} '
    (event,) = normalizer().normalize(line, RECEIVED)
    assert isinstance(event, Raw)
    assert event.payload.encode() == line
    assert (event.origin.symbol, event.exchange_time) == ("BTC-USDT-PERP", None)


def test_rows_of_several_instruments_name_none() -> None:
    rows = [{"instType": "SWAP", "instId": name, "ts": "5"} for name in ("A-USDT-SWAP", "B-USDT-SWAP")]
    line = json.dumps({"arg": {"channel": "block-tickers", "instType": "SWAP"}, "data": rows}).encode()
    (event,) = normalizer().normalize(line, RECEIVED)
    assert (event.origin.market, event.origin.instrument, event.exchange_time) == ("swap", None, 5000)


@pytest.mark.parametrize(("kind", "market"), [("OPTION", "option"), ("", "swap"), (["OPTION"], "swap"), (None, "swap")])
def test_the_one_row_names_the_instrument(kind: object, market: str) -> None:
    line = json.dumps(
        {"arg": {"channel": "block-tickers"}, "data": [{"instType": kind, "instId": "A-B-SWAP"}]}
    ).encode()
    (event,) = normalizer().normalize(line, RECEIVED)
    assert (event.origin.market, event.origin.instrument) == (market, "A-B-SWAP")


@pytest.mark.parametrize(
    ("row", "time"),
    [
        ({"ts": "x", "pTime": "5"}, 5000),
        ({"ts": "\u0661", "uTime": 6}, 6000),
        ({"ts": True, "cTime": ""}, None),
        ({"ts": ["1"]}, None),
        (["1"], None),
    ],
    ids=range(5),
)
def test_the_time_is_the_first_that_can_be_read(row: object, time: int | None) -> None:
    line = json.dumps({"arg": {"channel": "economic-calendar"}, "data": [row]}).encode()
    (event,) = normalizer().normalize(line, RECEIVED)
    assert event.exchange_time == time


def test_spreads_are_named_by_the_arg() -> None:
    line = b'{"arg":{"channel":"call-auction-details","sprdId":"A-USDT_A-USDT-SWAP"},"data":[1]}'
    (event,) = normalizer().normalize(line, RECEIVED)
    assert (event.origin.market, event.origin.instrument) == ("spread", "A-USDT_A-USDT-SWAP")


def test_without_rows_there_is_nothing_to_pass_on() -> None:
    assert normalizer().normalize(b'{"arg":{"channel":"grid-positions","uid":"7"},"data":[]}', RECEIVED) == []


@pytest.mark.parametrize("data", [b"", b',"data":{}', b',"data":null', b',"data":["\xff"]'])
def test_what_is_no_push_is_a_bad_message(data: bytes) -> None:
    with pytest.raises(BadMessage, match=r"rfqs|unreadable"):
        normalizer().normalize(b'{"arg":{"channel":"rfqs"}' + data + b"}", RECEIVED)


def test_a_user_in_the_arg_makes_it_private() -> None:
    line = b'{"arg":{"channel":"economic-calendar","uid":"7"},"data":[{"ts":"5"}]}'
    (event,) = VENUE.normalizer("business", "c#1", CATALOGUE, account="main").normalize(line, RECEIVED)
    assert isinstance(event, AccountRaw)
    assert (event.origin.account, event.origin.market, event.channel) == ("main", "account", "economic-calendar")


def test_a_private_channel_is_private_without_a_user_in_the_arg() -> None:
    line = b'{"arg":{"channel":"rfqs"},"data":[{"uTime":"5"}]}'
    (event,) = VENUE.normalizer("business", "c#1", CATALOGUE, account="main").normalize(line, RECEIVED)
    assert isinstance(event, AccountRaw)
    assert (event.origin.account, event.origin.market, event.exchange_time) == ("main", "account", 5000)


@pytest.mark.parametrize("channel", ["new-thing", "sprd-new", "rfq", "grid-orders"])
def test_unknown_channels_are_no_raw_events(channel: str) -> None:
    reader = normalizer()
    for _ in range(2):
        with pytest.raises(BadMessage, match=f'unknown channel "{channel}"$'):
            reader.normalize(b'{"arg":{"channel":"%s","uid":"7"},"data":[]}' % channel.encode(), RECEIVED)
    assert reader.streams == {}
