"""What is a state of a market: tickers, mark and index prices, funding, open interest, candles."""

from __future__ import annotations

from pipeline.exchanges.okx.streams import Stream
from pipeline.exchanges.okx.topics import micros
from pipeline.exchanges.okx.wire import (
    Fundings,
    IndexTickers,
    MarkPrices,
    OpenInterests,
    PriceCandles,
    Tickers,
    TradeCandles,
)
from pipeline.model.decimals import DecimalText
from pipeline.model.events import (
    BASE,
    Candle,
    Event,
    FundingRate,
    IndexPrice,
    MarkPrice,
    Micros,
    OpenInterest,
    Ticker,
)

HOUR_MS = 3_600_000
NO_VOLUME = "0"
"""`lastSz` of an instrument that has not traded yet."""


def tickers(stream: Stream, push: Tickers, receive_time: Micros) -> list[Event]:
    """Tickers; OKX always sends the whole state."""
    events: list[Event] = []
    for row in push.data:
        listing = stream.of(row.instType, receive_time)
        in_coin = listing.size_unit == BASE
        volume, in_currency = row.vol24h or None, row.volCcy24h or None
        bid, ask = row.bidPx or None, row.askPx or None
        events.append(
            Ticker(
                listing.origin,
                row.ts * 1000,
                receive_time,
                None,
                listing.size_unit,
                row.last or None,
                (row.lastSz or None) if row.lastSz != NO_VOLUME else None,
                bid,
                (row.bidSz or None) if bid is not None else None,
                ask,
                (row.askSz or None) if ask is not None else None,
                row.open24h or None,
                row.high24h or None,
                row.low24h or None,
                None,
                None,
                volume,
                volume if in_coin else in_currency,
                in_currency if in_coin else None,
                row.sodUtc0 or None,
                row.sodUtc8 or None,
            )
        )
    return events


def mark_prices(stream: Stream, push: MarkPrices, receive_time: Micros) -> list[Event]:
    """Mark prices."""
    return [
        MarkPrice(
            stream.of(row.instType, receive_time).origin,
            row.ts * 1000,
            receive_time,
            None,
            row.markPx,
        )
        for row in push.data
    ]


def index_tickers(stream: Stream, push: IndexTickers, receive_time: Micros) -> list[Event]:
    """Index prices; the instrument is the index."""
    return [
        IndexPrice(
            stream.listing.origin,
            row.ts * 1000,
            receive_time,
            None,
            row.idxPx,
            None,
            _text(row.open24h),
            _text(row.high24h),
            _text(row.low24h),
            _text(row.sodUtc0),
            _text(row.sodUtc8),
        )
        for row in push.data
    ]


def fundings(stream: Stream, push: Fundings, receive_time: Micros) -> list[Event]:
    """Funding rates of swaps and of futures that exchange funding."""
    events: list[Event] = []
    for row in push.data:
        at, after = row.fundingTime, row.nextFundingTime
        interval = after - at if at is not None and after is not None else 0
        events.append(
            FundingRate(
                stream.of(row.instType, receive_time).origin,
                row.ts * 1000,
                receive_time,
                None,
                DecimalText(row.fundingRate),
                at * 1000 if at is not None else None,
                after * 1000 if after is not None else None,
                interval // HOUR_MS if interval > 0 and interval % HOUR_MS == 0 else None,
                _text(row.minFundingRate),
                _text(row.maxFundingRate),
                _text(row.settFundingRate),
                row.settState or None,
                _text(row.premium),
                _text(row.interestRate),
                _text(row.impactValue),
                row.formulaType or None,
                row.method or None,
            )
        )
    return events


def open_interests(stream: Stream, push: OpenInterests, receive_time: Micros) -> list[Event]:
    """Open interest in contracts, in coin and in US dollars."""
    events: list[Event] = []
    for row in push.data:
        listing = stream.of(row.instType, receive_time)
        events.append(
            OpenInterest(
                listing.origin,
                row.ts * 1000,
                receive_time,
                None,
                DecimalText(row.oi),
                listing.size_unit,
                _text(row.oiCcy),
                None,
                _text(row.oiUsd),
            )
        )
    return events


def trade_candles(stream: Stream, push: TradeCandles, receive_time: Micros) -> list[Event]:
    """Candles of trades; rows of 2022 had neither the quote volume nor `confirm`."""
    listing = stream.listing
    in_coin = listing.size_unit == BASE
    events: list[Event] = []
    for row in push.data:
        volume, in_currency = _text(row[5]), _text(row[6])
        quote_volume = _text(row[7]) if len(row) > 7 else in_currency if in_coin else None
        events.append(
            Candle(
                listing.origin,
                None,
                receive_time,
                None,
                stream.price_type,
                stream.interval,
                stream.venue_interval,
                micros(row[0]),
                None,
                DecimalText(row[1]),
                DecimalText(row[2]),
                DecimalText(row[3]),
                DecimalText(row[4]),
                _CONFIRMED.get(row[8]) if len(row) > 8 else None,
                volume,
                listing.size_unit,
                volume if in_coin else in_currency,
                quote_volume,
            )
        )
    return events


def price_candles(stream: Stream, push: PriceCandles, receive_time: Micros) -> list[Event]:
    """Candles of mark or index prices: without volumes."""
    listing = stream.listing
    return [
        Candle(
            listing.origin,
            None,
            receive_time,
            None,
            stream.price_type,
            stream.interval,
            stream.venue_interval,
            micros(row[0]),
            None,
            DecimalText(row[1]),
            DecimalText(row[2]),
            DecimalText(row[3]),
            DecimalText(row[4]),
            _CONFIRMED.get(row[5]),
        )
        for row in push.data
    ]


def spread_candles(stream: Stream, push: TradeCandles, receive_time: Micros) -> list[Event]:
    """Candles of a spread: one volume, in the currency that the spread is counted in."""
    listing = stream.listing
    in_coin = listing.size_unit == BASE
    events: list[Event] = []
    for row in push.data:
        volume = _text(row[5])
        events.append(
            Candle(
                listing.origin,
                None,
                receive_time,
                None,
                stream.price_type,
                stream.interval,
                stream.venue_interval,
                micros(row[0]),
                None,
                DecimalText(row[1]),
                DecimalText(row[2]),
                DecimalText(row[3]),
                DecimalText(row[4]),
                _CONFIRMED.get(row[6]),
                volume,
                listing.size_unit,
                volume if in_coin else None,
                None if in_coin else volume,
            )
        )
    return events


_CONFIRMED = {"0": False, "1": True}


def _text(value: str) -> DecimalText | None:
    return DecimalText(value) if value else None
