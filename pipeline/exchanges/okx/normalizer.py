"""Wire messages of one OKX connection to events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pipeline.exchanges.okx import books, instruments, prices, topics, trades, wire
from pipeline.exchanges.okx.streams import Family, Listings, Stream
from pipeline.exchanges.venue import Catalogue, StreamState
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Micros

PREFIX = b'{"arg":{'
"""How pushes begin. JSON promises no order of keys, so what begins otherwise is still looked at."""
_ARG_AT = 7
HEARTBEATS = (b"pong", b"ping")
MAX_ALIASES = 8192
"""Spellings of `arg` remembered per connection; more than a connection may carry topics."""

_decode_envelope = msgspec.json.Decoder(wire.Envelope).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def _family(
    push: type,
    build: Callable[[Stream, Any, Micros], list[Event]],
    *,
    by_instrument: bool = True,
    price_type: str = "trade",
) -> Family:
    return Family(push, msgspec.json.Decoder(push, strict=False).decode, build, by_instrument, price_type)


FAMILIES = {
    "trades": _family(wire.Trades, trades.trades),
    "trades-all": _family(wire.Trades, trades.trades),
    "option-trades": _family(wire.OptionTrades, trades.option_trades, by_instrument=False),
    "books": _family(wire.IncrementalBook, books.incremental_book),
    "books-l2-tbt": _family(wire.IncrementalBook, books.incremental_book),
    "books50-l2-tbt": _family(wire.IncrementalBook, books.incremental_book),
    "books-rpi": _family(wire.IncrementalBook, books.rpi_book),
    "books5": _family(wire.FullBook, books.full_book),
    "bbo-tbt": _family(wire.FullBook, books.best_quotes),
    "tickers": _family(wire.Tickers, prices.tickers),
    "mark-price": _family(wire.MarkPrices, prices.mark_prices),
    "index-tickers": _family(wire.IndexTickers, prices.index_tickers),
    "funding-rate": _family(wire.Fundings, prices.fundings),
    "open-interest": _family(wire.OpenInterests, prices.open_interests),
    "instruments": _family(wire.Instruments, instruments.instruments, by_instrument=False),
}
"""By channel."""
CANDLES = {
    "mark-price-candle": _family(wire.PriceCandles, prices.price_candles, price_type="mark"),
    "index-candle": _family(wire.PriceCandles, prices.price_candles, price_type="index"),
    "candle": _family(wire.TradeCandles, prices.trade_candles),
}
"""By prefix of the channel; the interval follows."""


class OkxNormalizer:
    """Events of one connection. Sequence numbers are passed on, not judged."""

    streams: Mapping[str, StreamState]

    def __init__(self, connection: str, catalogue: Catalogue, resume: dict[str, int] | None = None) -> None:
        self._streams: dict[str, Stream] = {}
        self.streams = self._streams
        self._by_arg: dict[bytes, Stream] = {}
        self._listings = Listings(catalogue, connection)
        self._resume = {} if resume is None else resume

    def normalize(self, message: bytes, receive_time: int) -> list[Event]:
        """The events of one message, in order; none for control messages. Raises only `BadMessage`."""
        stream = None
        if message.startswith(PREFIX):
            stream = self._by_arg.get(message[_ARG_AT : message.find(b"}", _ARG_AT) + 1])
        if stream is None:
            stream = self._find(message, receive_time)
            if stream is None:
                return []
        try:
            push = stream.family.decode(message)
        except wire.UNREADABLE:
            push = self._decode_again(stream, message)
            if push is None:
                return []
        now = Micros(receive_time)
        listing = stream.listing
        if receive_time >= listing.check_at:
            self._listings.refresh(listing, receive_time)
        try:
            events = stream.family.build(stream, push, now)
        except (ArithmeticError, ValueError) as error:
            raise BadMessage(f"{stream.topic}: {error}") from error
        stream.messages += 1
        stream.last_receive = receive_time
        stream.origin = stream.listing.origin if stream.family.by_instrument else None
        return events

    def _find(self, message: bytes, receive_time: int) -> Stream | None:
        """The stream by the decoded `arg`, None for a control message."""
        if message in HEARTBEATS:
            return None
        try:
            envelope = _decode_envelope(message)
            if envelope.event or envelope.op:
                return None
            if not envelope.arg:
                raise BadMessage("neither a push (arg) nor a control message (event, op)")
            arg = topics.read_arg(_decode_object(envelope.arg))
        except wire.UNREADABLE as error:
            raise BadMessage(f"unreadable message: {error}") from None
        topic = topics.topic_of(arg)
        stream = self._streams.get(topic)
        if stream is None:
            stream = self._open(topic, arg, receive_time)
            self._streams[topic] = stream
        # An arg with a brace inside is never found by this, and is decoded each time.
        if len(self._by_arg) < MAX_ALIASES:
            self._by_arg[bytes(envelope.arg)] = stream
        return stream

    def _open(self, topic: str, arg: wire.Arg, receive_time: int) -> Stream:
        family, bar = FAMILIES.get(arg.channel), ""
        if family is None:
            prefix = next((prefix for prefix in CANDLES if arg.channel.startswith(prefix)), "")
            bar = arg.channel.removeprefix(prefix)
            if not prefix or not bar[:1].isdecimal():
                raise BadMessage(f"{topic}: no event kind for channel {arg.channel!r}")
            family = CANDLES[prefix]
        if family.by_instrument:
            if not arg.instId:
                raise BadMessage(f"{topic}: the arg names no instId")
            market = topics.market_of(arg.channel, arg.instId)
            listing = self._listings.get(market, arg.instId, receive_time)
        else:
            listing = self._listings.get(arg.instType.lower() or "option", None, receive_time)
        return Stream(
            topic,
            channel=arg.channel,
            family=family,
            listings=self._listings,
            listing=listing,
            resume=self._resume,
            resume_key=f"{arg.channel}:{arg.instId}",
            price_type=family.price_type,
            interval=topics.interval_of(bar),
            venue_interval=bar,
        )

    def _decode_again(self, stream: Stream, message: bytes) -> Any:
        """Another spelling of a push, or None for a control message that begins like one. Raises `BadMessage`."""
        try:
            envelope = _decode_envelope(message)
            if envelope.event or envelope.op:
                return None
            return wire.decode_leniently(message, stream.family.push)
        except wire.UNREADABLE as error:
            raise BadMessage(f"{stream.topic}: {error}") from None
