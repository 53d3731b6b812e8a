"""Tickers: merge what changed into what was known, and tell what else follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import attrs

from pipeline.exchanges.venue import StreamState
from pipeline.model.events import (
    BASE,
    QUOTE,
    Event,
    FundingRate,
    IndexPrice,
    MarkPrice,
    Micros,
    OpenInterest,
    OptionSummary,
    Origin,
    Ticker,
)

Read = Callable[[str], Any]
Fields = Mapping[str, tuple[int, Read | None]]
"""By the venue's field name: where it goes among the values, and how it is read; None for plain text."""

_TICKER = list(Ticker.__struct_fields__)
_EXTRA = ["interval_hours", "funding_cap", "single_open_interest", "single_open_interest_value", "usd_index_price"]
_AT = {name: position for position, name in enumerate(_TICKER + _EXTRA)}
"""A ticker's state is one list: the attributes of `Ticker` in order, then what only its companions publish."""

TICKER_SIZE = len(_TICKER)
_ORIGIN, _TIME, _RECEIVE, _SEQUENCE, _UNIT = (
    _AT[name] for name in ("origin", "exchange_time", "receive_time", "sequence", "size_unit")
)
_MARK, _INDEX, _USD_INDEX = _AT["mark_price"], _AT["index_price"], _AT["usd_index_price"]
_RATE, _FUNDING_TIME, _HOURS, _CAP = (
    _AT[name] for name in ("funding_rate", "funding_time", "interval_hours", "funding_cap")
)
_INTEREST, _INTEREST_VALUE = _AT["open_interest"], _AT["open_interest_value"]
_SINGLE, _SINGLE_VALUE = _AT["single_open_interest"], _AT["single_open_interest_value"]
_VOLUME, _BASE_VOLUME, _QUOTE_VOLUME = _AT["volume_24h"], _AT["base_volume_24h"], _AT["quote_volume_24h"]

_SUMMARY = [_AT.get(name) for name in OptionSummary.__struct_fields__]
"""Where a ticker's state has the attributes of `OptionSummary`, in order."""


def number(text: str) -> float | None:
    """An analytical value; "" is none. Raises `ValueError` for what is no finite number."""
    if not text:
        return None
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def unless_zero(text: str) -> str | None:
    """Text, where the venue writes zero ("0", "0.00") or "" for no value."""
    return text if text.strip("0.") else None


def number_unless_zero(text: str) -> float | None:
    """A number, where the venue writes zero or "" for no value."""
    return number(text) if text.strip("0.") else None


def millis(text: str) -> Micros | None:
    """Milliseconds in text; "" and "0" are none. Raises `ValueError`."""
    return Micros(int(text) * 1000) if text and text != "0" else None


def iso_or_millis(text: str) -> Micros | None:
    """The one time on the public streams that is ISO 8601 ("2025-12-26T08:00:00Z"). Raises `ValueError`."""
    if "T" not in text:
        return millis(text)
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Micros(int(moment.timestamp()) * 1_000_000 + moment.microsecond)


def whole(text: str) -> int | None:
    """An integer; "" is none. Raises `ValueError`."""
    return int(text) if text else None


def _fields(table: dict[str, str | tuple[str, Read]]) -> Fields:
    named = {key: (to, None) if isinstance(to, str) else to for key, to in table.items()}
    return {key: (_AT[name], read) for key, (name, read) in named.items()}


_PRICES: dict[str, str | tuple[str, Read]] = {
    "lastPrice": "last_price",
    "prevPrice24h": "open_24h",
    "highPrice24h": "high_24h",
    "lowPrice24h": "low_24h",
    "price24hPcnt": ("change_24h", number),
    "volume24h": "volume_24h",
}
_CONTRACT: dict[str, str | tuple[str, Read]] = _PRICES | {
    "prevPrice1h": "price_1h_ago",
    "tickDirection": "tick_direction",
    "markPrice": "mark_price",
    "indexPrice": "index_price",
    "openInterest": "open_interest",
    "openInterestValue": "open_interest_value",
    "singleOpenInterest": "single_open_interest",
    "singleOpenInterestValue": "single_open_interest_value",
    "nextFundingTime": ("funding_time", millis),
    "fundingRate": "funding_rate",
    "fundingIntervalHour": ("interval_hours", whole),
    "fundingCap": "funding_cap",
    "bid1Price": "bid_price",
    "bid1Size": "bid_size",
    "ask1Price": "ask_price",
    "ask1Size": "ask_size",
    "deliveryTime": ("delivery_time", iso_or_millis),
    "basis": "basis",
    "basisRate": "basis_rate",
    "basisRateYear": "basis_rate_year",
    "deliveryFeeRate": "delivery_fee_rate",
    "predictedDeliveryPrice": ("predicted_delivery_price", unless_zero),
    "preOpenPrice": "pre_open_price",
    "preQty": "pre_open_size",
    "curPreListingPhase": "pre_listing_phase",
}
FIELDS: Mapping[str, Fields] = {
    "spot": _fields(_PRICES | {"turnover24h": "quote_volume_24h", "usdIndexPrice": "usd_index_price"}),
    "linear": _fields(_CONTRACT | {"turnover24h": "quote_volume_24h"}),
    "inverse": _fields(_CONTRACT | {"turnover24h": "base_volume_24h"}),
    "option": _fields(
        {
            "bidPrice": ("bid_price", unless_zero),
            "bidSize": ("bid_size", unless_zero),
            "bidIv": ("bid_implied_volatility", number_unless_zero),
            "askPrice": ("ask_price", unless_zero),
            "askSize": ("ask_size", unless_zero),
            "askIv": ("ask_implied_volatility", number_unless_zero),
            "lastPrice": ("last_price", unless_zero),
            "highPrice24h": ("high_24h", unless_zero),
            "lowPrice24h": ("low_24h", unless_zero),
            "markPrice": ("mark_price", unless_zero),
            "indexPrice": ("index_price", unless_zero),
            "markPriceIv": ("mark_implied_volatility", number_unless_zero),
            "underlyingPrice": ("underlying_price", unless_zero),
            "openInterest": "open_interest",
            "turnover24h": "quote_volume_24h",
            "volume24h": "volume_24h",
            "totalVolume": "total_volume",
            "totalTurnover": "total_turnover",
            "delta": ("delta", number),
            "gamma": ("gamma", number),
            "vega": ("vega", number),
            "theta": ("theta", number),
            "predictedDeliveryPrice": ("predicted_delivery_price", unless_zero),
            "change24h": ("change_24h", number),
        }
    ),
    "spread": _fields(
        {
            "bidPrice": "bid_price",
            "bidSize": "bid_size",
            "askPrice": "ask_price",
            "askSize": "ask_size",
            "lastPrice": "last_price",
            "prevPrice24h": "open_24h",
            "highPrice24h": "high_24h",
            "lowPrice24h": "low_24h",
            "volume24h": "volume_24h",
        }
    ),
}
"""By market. On options zero prices, quoted sizes and volatilities mean none."""


@attrs.define(eq=False)
class TickerStream(StreamState):
    """One ticker topic: its merged state, None until a snapshot came."""

    values: list[Any] | None = None


def merge(
    stream: TickerStream,
    origin: Origin,
    market: str,
    is_snapshot: bool,
    data: Mapping[str, str],
    exchange_time: Micros,
    receive_time: Micros,
    sequence: int | None,
    note: Callable[[str], None],
) -> list[Event]:
    """The ticker after this message, and the prices and rates in it that changed; `note` gets each unknown field.

    A delta without a snapshot before it gives nothing. Raises `ValueError` for an unreadable field and leaves
    the state as it was then.
    """
    known = stream.values
    if known is None:
        if not is_snapshot:
            return []
        known = _NOTHING
    values = (_NOTHING if is_snapshot else known).copy()
    fields = FIELDS[market]
    for key, text in data.items():
        field = fields.get(key)
        if field is not None:
            position, read = field
            values[position] = (text or None) if read is None else read(text)
        elif key != "symbol":  # which the topic tells
            note(key)
    values[_ORIGIN], values[_TIME], values[_RECEIVE], values[_SEQUENCE] = origin, exchange_time, receive_time, sequence
    if market == "inverse":
        values[_UNIT] = QUOTE
        values[_QUOTE_VOLUME] = values[_VOLUME]
    else:
        values[_UNIT] = BASE
        values[_BASE_VOLUME] = values[_VOLUME]
    events: list[Event] = [Ticker(*values[:TICKER_SIZE])]
    if market == "option":
        events.append(_summary(values))
    _add_changed(events, known, values)
    stream.values = values
    return events


def _summary(values: list[Any]) -> OptionSummary:
    chosen: list[Any] = [None if at is None else values[at] for at in _SUMMARY]
    return OptionSummary(*chosen)


_NOTHING: list[Any] = [None] * len(_AT)


def _add_changed(events: list[Event], known: list[Any], values: list[Any]) -> None:
    head = values[_ORIGIN], values[_TIME], values[_RECEIVE], values[_SEQUENCE]
    price = values[_MARK]
    if price != known[_MARK] and price is not None:
        events.append(MarkPrice(*head, price))
    price = values[_INDEX]
    if price != known[_INDEX] and price is not None:
        events.append(IndexPrice(*head, price))
    price = values[_USD_INDEX]
    if price != known[_USD_INDEX] and price is not None:
        events.append(IndexPrice(*head, price, "USD"))
    rate = values[_RATE]
    if rate is not None and (
        rate != known[_RATE]
        or values[_FUNDING_TIME] != known[_FUNDING_TIME]
        or values[_HOURS] != known[_HOURS]
        or values[_CAP] != known[_CAP]
    ):
        events.append(
            FundingRate(
                *head, rate, values[_FUNDING_TIME], interval_hours=values[_HOURS], max_funding_rate=values[_CAP]
            )
        )
    interest = values[_INTEREST]
    if interest is not None and (interest != known[_INTEREST] or values[_SINGLE] != known[_SINGLE]):
        events.append(
            OpenInterest(
                *head,
                interest,
                values[_UNIT],
                base_open_interest=interest if values[_UNIT] is BASE else None,
                value=values[_INTEREST_VALUE],
                single_side=values[_SINGLE],
                single_side_value=values[_SINGLE_VALUE],
            )
        )
