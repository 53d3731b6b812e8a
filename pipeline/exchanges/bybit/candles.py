"""Candles: forming ones as they come, closed ones once."""

from __future__ import annotations

import attrs

from pipeline.exchanges.bybit import wire
from pipeline.exchanges.bybit.topics import INTERVALS, instrument_of
from pipeline.exchanges.venue import StreamState
from pipeline.model.events import QUOTE, Candle, Event, Micros, Origin


@attrs.define(eq=False)
class CandleStream(StreamState):
    """One candle topic."""

    interval: str = ""
    venue_interval: str = ""
    resume_key: str = ""


def open_candles(topic: str, resume_prefix: str) -> CandleStream:
    """The state of a topic that is new; raises `ValueError` if it is none of candles."""
    instrument_of(topic, "kline", 2)
    venue_interval = topic.split(".", 2)[1]
    interval = INTERVALS.get(venue_interval, venue_interval)
    return CandleStream(topic, interval=interval, venue_interval=venue_interval, resume_key=f"{resume_prefix}{topic}")


def candles(
    stream: CandleStream,
    origin: Origin,
    message: wire.CandleMessage,
    resume: dict[str, int],
    receive_time: Micros,
    size_unit: str,
) -> list[Event]:
    """The candles of a message, without closed ones that the venue sends again (`resume` knows the last)."""
    inverse = size_unit is QUOTE
    last_closed = known = resume.get(stream.resume_key, -1)
    events: list[Event] = []
    for row in message.data:
        if row.confirm:
            if row.start <= last_closed:
                continue
            last_closed = row.start
        events.append(
            Candle(
                origin,
                row.timestamp * 1000,
                receive_time,
                None,
                "trade",
                stream.interval,
                stream.venue_interval,
                row.start * 1000,
                row.end * 1000,
                row.open,
                row.high,
                row.low,
                row.close,
                row.confirm,
                row.volume,
                size_unit,
                row.turnover if inverse else row.volume,
                row.volume if inverse else row.turnover,
            )
        )
    if last_closed != known:
        resume[stream.resume_key] = last_closed
    return events
