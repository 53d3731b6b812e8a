"""Bybit's messages to events.

The first bytes of a message choose one typed decode. Messages that start otherwise (another key order, white
space), hold other types than documented or fields that are new take a slower way to the same events. Known topics
without a kind of event are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import attrs
import msgspec

from pipeline.exchanges.bybit import account_wire, fills, holdings, orders, risk, wire
from pipeline.exchanges.bybit.accounts import ACCOUNT, VENUE, AccountScope
from pipeline.exchanges.bybit.answers import read_answer
from pipeline.exchanges.bybit.candles import CandleStream, candles, open_candles
from pipeline.exchanges.bybit.quotes import BookStream, quotes
from pipeline.exchanges.bybit.tickers import FIELDS, TickerStream, merge, number
from pipeline.exchanges.bybit.topics import (
    BOOK_DEPTHS,
    FULL,
    MARKETS,
    PASSED_ON,
    RPI_DEPTH,
    family_of,
    instrument_of,
    raw_channel,
)
from pipeline.exchanges.venue import Catalogue, StreamState, Subscription
from pipeline.exchanges.vocabulary import Vocabulary, strict
from pipeline.model.account import AccountRaw
from pipeline.model.errors import BadMessage
from pipeline.model.events import (
    BASE,
    PRICE_SIZE,
    PRICE_SIZE_RPI,
    QUOTE,
    BookUpdate,
    Event,
    Micros,
    Origin,
    Raw,
    Trade,
)

_PREFIX = 22
"""Bytes that tell the topic families apart, behind `{"topic":"` as well as behind the `{"id":"` of options."""
_STARTS = ('{"topic":"', '{"id":"')
MAX_PREFIXES = 8192
"""Beginnings of messages remembered per connection; more than a connection may carry topics."""
_OF_ONE_INSTRUMENT = ("allLiquidation.", "priceLimit.")
_MARKETS = {"private": ACCOUNT, "status": "system"}
"""The market of what a stream brings without an instrument, where it is not the stream's name."""
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


@attrs.define(eq=False)
class BybitNormalizer:
    """The normalizer of one connection to one endpoint.

    Public messages belong to the endpoint's market, private ones name theirs.
    Every instrument has base sizes except on `inverse`, where a size is so many contracts of 1 USD (quote).
    Only the cross-venue symbol comes from the catalogue; it is looked up until it is known. Closed candles that
    the venue sends again are dropped, also after a reconnect (remembered in `resume`).
    """

    stream: str
    """The endpoint."""
    connection: str
    catalogue: Catalogue
    resume: dict[str, int] = attrs.field(factory=dict)
    account: str | None = None
    """Our name of the account whose private stream this is."""
    streams: Mapping[str, StreamState] = attrs.field(init=False)
    unknown_fields: Sequence[str] = attrs.field(init=False)
    _vocabulary: Vocabulary = attrs.field(factory=Vocabulary, init=False)
    _note: Callable[[str], None] = attrs.field(init=False)
    _streams: dict[str, StreamState] = attrs.field(factory=dict, init=False)
    _origins: dict[str | None, Origin] = attrs.field(factory=dict, init=False)
    _books: dict[str, BookStream] = attrs.field(factory=dict, init=False)
    _tickers: dict[str, TickerStream] = attrs.field(factory=dict, init=False)
    _candles: dict[str, CandleStream] = attrs.field(factory=dict, init=False)
    _families: Mapping[str, Family] = attrs.field(init=False)
    """As in `FAMILIES`, those with unknown fields replaced."""
    _readers: dict[bytes, Reader] = attrs.field(factory=dict, init=False)
    """By the first bytes of messages, as they came."""
    _size_unit: str = attrs.field(init=False)
    _market: str = attrs.field(init=False)
    _scope: AccountScope = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.streams = self._streams
        self.unknown_fields = self._vocabulary.unknown
        self._note = self._note_ticker_field
        self._families = FAMILIES.get(self.stream, {})
        self._size_unit = QUOTE if self.stream == "inverse" else BASE
        self._market = _MARKETS.get(self.stream, self.stream)
        self._scope = AccountScope(self.connection, self.catalogue, self.account)

    def normalize(self, message: bytes, receive_time: int) -> list[Event]:
        """The events of one message; raises `BadMessage` for what is neither data nor a known control message."""
        try:
            reader = self._readers.get(message[:_PREFIX])
            if reader is not None:
                decode, take = reader
                return take(self, decode(message), receive_time)
            name = family_of(wire.decode_envelope(message).topic)
            family = self._families.get(name)
            if family is not None:
                decoded = family.decode(message)
                self._remember(message[:_PREFIX], name, family)
                return family.take(self, decoded, receive_time)
        except _UNREADABLE:
            return self._normalize_loosely(message, receive_time)
        return self._normalize_loosely(message, receive_time)

    def _remember(self, prefix: bytes, name: str, family: Family) -> None:
        """The next message that begins like this one needs no look for its topic."""
        starts = tuple(f"{start}{name}.".encode()[:_PREFIX] for start in _STARTS)
        if prefix.startswith(starts) and self.stream in MARKETS and len(self._readers) < MAX_PREFIXES:
            self._readers[prefix] = family.decode, family.take

    def _normalize_loosely(self, message: bytes, receive_time: int) -> list[Event]:
        topic: object = None
        try:
            plain = wire.decode_plain(message)
            if not isinstance(plain, dict):
                raise ValueError("not a JSON object")
            topic = plain.get("topic")
            if topic is None and wire.is_control(plain):
                return []
            if not isinstance(topic, str):
                raise ValueError("neither data nor a known answer")
            name = family_of(topic)
            family = self._families.get(name)
            if family is not None:
                loose = family.loose or family
                events = loose.take(self, wire.loosely(plain, loose.shape), receive_time)
                self._learn(name, family, plain)
                return events
            if name not in PASSED_ON.get(self.stream, ()):
                raise ValueError(f'unknown topic "{topic}"')
            return [self._raw(topic, plain, message, receive_time)]
        except _UNREADABLE as error:
            raise BadMessage(f"{VENUE} {self.stream} {topic or 'message'}: {error}") from error

    def _learn(self, name: str, family: Family, plain: dict[str, Any]) -> None:
        """Note the unknown fields of a message that could be read, so that they are no obstacle to the next."""
        is_new = self._vocabulary.learn(name, family.shape, plain)
        if family.loose is not None and _has_other_than_text(plain["data"], self.stream):
            family, is_new = family.loose, True
        if is_new:
            decode = msgspec.json.Decoder(self._vocabulary.form(name, family.shape)).decode
            self._families = {**self._families, name: attrs.evolve(family, decode=decode)}
            self._readers.clear()

    def _note_ticker_field(self, name: str) -> None:
        self._vocabulary.note("tickers", f"data.{name}")

    def _take_trades(self, message: wire.TradeMessage, receive_time: Micros) -> list[Event]:
        unit = self._size_unit
        inverse = unit is QUOTE
        origin: Origin | None = None
        events: list[Event] = []
        for row in message.data:
            if origin is None or row.s != origin.instrument:
                origin = self._origins.get(row.s)
                if origin is None or origin.symbol is None:
                    origin = self._origin(row.s)
            side = row.S
            events.append(
                Trade(
                    origin,
                    row.T * 1000,
                    receive_time,
                    row.seq,
                    row.i,
                    row.p,
                    row.v,
                    unit,
                    None if inverse else row.v,
                    row.v if inverse else None,
                    "buy" if side == "Buy" else "sell" if side == "Sell" else side.lower(),
                    row.BT,
                    row.RPI,
                    None,
                    row.L or None,
                    number(row.iv) if row.iv else None,
                    number(row.mIv) if row.mIv else None,
                    row.mP or None,
                    row.iP or None,
                )
            )
        stream = self._streams.get(message.topic)
        if stream is None:
            # Options trade under their base coin's topic, each print naming its contract.
            instrument = instrument_of(message.topic, "publicTrade", 1)
            origin = None if self.stream == "option" else self._origin(instrument)
            stream = self._streams[message.topic] = StreamState(message.topic, origin)
        elif stream.origin is not None and stream.origin.symbol is None:
            stream.origin = self._origin(instrument_of(message.topic, "publicTrade", 1))
        stream.messages += 1
        stream.last_receive = receive_time
        return events

    def _take_book(self, message: wire.BookMessage | wire.RpiBookMessage, receive_time: Micros) -> list[Event]:
        stream = self._books.get(message.topic)
        if stream is None:
            stream = self._open_book(message.topic)
        origin = stream.origin
        if origin is None or origin.symbol is None:
            origin = stream.origin = self._origin(instrument_of(message.topic, "orderbook", 2))
        stream.messages += 1
        stream.last_receive = receive_time
        book = message.data
        update = book.u
        # A restart of the service is announced by u = 1, which overwrites the book whatever its type says. The full
        # book must then be read anew.
        is_snapshot = message.type == "snapshot" or (update == 1 and stream.depth is not None)
        time = (message.cts or message.ts) * 1000
        if stream.depth == 1:
            return quotes(stream, origin, is_snapshot, book, time, receive_time, self._size_unit)
        return [
            BookUpdate(
                origin,
                time,
                receive_time,
                update,
                stream.channel,
                is_snapshot,
                None if is_snapshot else update - 1,
                book.b,
                book.a,
                stream.layout,
                self._size_unit,
                stream.depth,
                book.seq,
                None,
                update == 1,
            )
        ]

    def _take_loose_ticker(self, message: wire.LooseTickerMessage, receive_time: Micros) -> list[Event]:
        message.data = _texts(message.data, self.stream)
        return self._take_ticker(message, receive_time)

    def _take_ticker(self, message: wire.TickerMessage | wire.LooseTickerMessage, receive_time: Micros) -> list[Event]:
        stream = self._tickers.get(message.topic)
        if stream is None:
            stream = TickerStream(message.topic, self._origin(instrument_of(message.topic, "tickers", 1)))
        origin = stream.origin
        if origin is None or origin.symbol is None:
            origin = stream.origin = self._origin(instrument_of(message.topic, "tickers", 1))
        events = merge(
            stream,
            origin,
            self.stream,
            message.type == "snapshot",
            message.data,
            message.ts * 1000,
            receive_time,
            message.cs,
            self._note,
        )
        if not stream.messages:
            self._streams[message.topic] = self._tickers[message.topic] = stream
        stream.messages += 1
        stream.last_receive = receive_time
        return events

    def _take_candles(self, message: wire.CandleMessage, receive_time: Micros) -> list[Event]:
        stream = self._candles.get(message.topic)
        if stream is None:
            stream = self._candles[message.topic] = open_candles(message.topic, f"{VENUE}.{self.stream}.")
            self._streams[message.topic] = stream
        origin = stream.origin
        if origin is None or origin.symbol is None:
            origin = stream.origin = self._origin(instrument_of(message.topic, "kline", 2))
        events = candles(stream, origin, message, self.resume, receive_time, self._size_unit)
        stream.messages += 1
        stream.last_receive = receive_time
        return events

    def seed(self, subscription: Subscription, body: bytes, receive_time: int) -> BookUpdate:
        """The snapshot of a full book.

        Raises `BadMessage` for a body of another form, and the venue's error answers by their code.
        """
        what = f"snapshot of {subscription.topic}"
        answer = read_answer(what, body)
        try:
            book = msgspec.convert(answer.result, wire.BookSnapshot)
            stream = self._books.get(subscription.topic) or self._open_book(subscription.topic)
        except _UNREADABLE as error:
            raise BadMessage(f"{VENUE} {what}: {error}") from error
        return BookUpdate(
            stream.origin or self._origin(subscription.instrument),
            (book.cts or book.ts) * 1000,
            Micros(receive_time),
            book.u,
            stream.channel,
            True,
            None,
            book.b,
            book.a,
            stream.layout,
            self._size_unit,
            stream.depth,
            book.seq,
        )

    def _open_book(self, topic: str) -> BookStream:
        instrument = instrument_of(topic, "orderbook", 2)
        channel = topic[: -len(instrument) - 1]
        level = channel.partition(".")[2]
        if level == "rpi":
            depth, layout = RPI_DEPTH, PRICE_SIZE_RPI
        elif level == FULL and level in BOOK_DEPTHS.get(self.stream, ()):
            depth, layout = None, PRICE_SIZE
        elif level.isascii() and level.isdecimal():
            depth, layout = int(level), PRICE_SIZE
        else:
            raise ValueError(f"{level!r} is no depth of an order book")
        stream = BookStream(topic, self._origin(instrument), channel=channel, depth=depth, layout=layout)
        self._streams[topic] = self._books[topic] = stream
        return stream

    def _take_risk(
        self, read: Callable[[Any, risk.OriginOf, Micros], list[Event]], message: Any, receive_time: Micros
    ) -> list[Event]:
        events = read(message, self._origin, receive_time)
        topic: str = message.topic
        named = topic.partition(".")[2] if topic.startswith(_OF_ONE_INSTRUMENT) else None
        self._count(topic, self._origin(named) if named else None, receive_time)
        return events

    def _take_account(
        self, read: Callable[[Any, AccountScope, Micros], list[Event]], message: Any, receive_time: Micros
    ) -> list[Event]:
        events = read(message, self._scope, receive_time)
        self._count(message.topic, None, receive_time)
        return events

    def _count(self, topic: str, origin: Origin | None, receive_time: int) -> None:
        stream = self._streams.get(topic)
        if stream is None:
            stream = self._streams[topic] = StreamState(topic)
        stream.origin = origin
        stream.messages += 1
        stream.last_receive = receive_time

    def _raw(self, topic: str, plain: dict[str, Any], message: bytes, receive_time: int) -> Event:
        sent = plain.get("ts") or plain.get("creationTime")
        time = Micros(sent * 1000) if type(sent) is int else None
        channel, instrument = raw_channel(topic)
        origin, received = self._origin(instrument), Micros(receive_time)
        payload, digest = message.decode(), sha256(message).hexdigest()
        self._count(topic, origin, receive_time)
        if self.stream == "private":
            return AccountRaw(origin, time, received, None, channel, False, payload, digest)
        return Raw(origin, time, received, None, channel, payload, digest)

    def _origin(self, instrument: str | None) -> Origin:
        """One origin per instrument; replaced once, when the catalogue has come to know the symbol."""
        known = self._origins.get(instrument)
        if known is not None and known.symbol is not None:
            return known
        entry = self.catalogue.get((self._market, instrument)) if instrument is not None else None
        symbol = entry.origin.symbol if entry is not None else None
        if known is None or symbol is not None:
            known = Origin(VENUE, self._market, instrument, symbol, self.account, self.connection)
            self._origins[instrument] = known
        return known


# Times are `Any` here, as they come as plain integers: saying that they are `Micros` would cost a call per message.
Take = Callable[[BybitNormalizer, Any, Any], list[Event]]
Reader = tuple[Callable[[bytes], Any], Take]


@attrs.frozen
class Family:
    """Topics with one form of message, and what becomes of it."""

    shape: type[msgspec.Struct]
    take: Take
    """Raises `ValueError` before it changed anything."""
    decode: Callable[[bytes], Any]
    """By the strict form of `shape`."""
    loose: Family | None = None
    """For messages of looser types than `shape` allows for."""


def _family(
    shape: type[msgspec.Struct],
    take: Take,
    loose: Family | None = None,
) -> Family:
    return Family(shape, take, msgspec.json.Decoder(strict(shape)).decode, loose)


def _risk(shape: type[msgspec.Struct], read: Callable[[Any, risk.OriginOf, Micros], list[Event]]) -> Family:
    def take(normalizer: BybitNormalizer, message: Any, receive_time: Micros) -> list[Event]:
        return normalizer._take_risk(read, message, receive_time)

    return _family(shape, take)


def _account(shape: type[msgspec.Struct], read: Callable[[Any, AccountScope, Micros], list[Event]]) -> Family:
    def take(normalizer: BybitNormalizer, message: Any, receive_time: Micros) -> list[Event]:
        return normalizer._take_account(read, message, receive_time)

    return _family(shape, take)


_COMMON: Mapping[str, Family] = {
    "orderbook": _family(wire.BookMessage, BybitNormalizer._take_book),
    "publicTrade": _family(wire.TradeMessage, BybitNormalizer._take_trades),
    "tickers": _family(
        wire.TickerMessage,
        BybitNormalizer._take_ticker,
        loose=_family(wire.LooseTickerMessage, BybitNormalizer._take_loose_ticker),
    ),
}
_SPOT: Mapping[str, Family] = {
    **_COMMON,
    "orderbook.rpi": _family(wire.RpiBookMessage, BybitNormalizer._take_book),
    "kline": _family(wire.CandleMessage, BybitNormalizer._take_candles),
    "priceLimit": _risk(risk.PriceLimitMessage, risk.price_limits),
}
_FUTURES: Mapping[str, Family] = {
    **_SPOT,
    "allLiquidation": _risk(risk.LiquidationMessage, risk.liquidations),
    "insurance": _risk(risk.InsuranceMessage, risk.insurance_funds),
    "adlAlert": _risk(risk.AdlMessage, risk.adl_alerts),
}
FAMILIES: Mapping[str, Mapping[str, Family]] = {
    "spot": _SPOT,
    "linear": _FUTURES,
    "inverse": _FUTURES,
    "option": _COMMON,
    "spread": _COMMON,
    "status": {"system.status": _risk(risk.StatusMessage, risk.system_statuses)},
    "private": {
        "order": _account(account_wire.OrderMessage, orders.orders),
        "spread.order": _account(account_wire.OrderMessage, orders.orders),
        "execution": _account(account_wire.FillMessage, fills.fills),
        "execution.fast": _account(account_wire.FillMessage, fills.fills),
        "spread.execution": _account(account_wire.FillMessage, fills.fills),
        "position": _account(account_wire.PositionMessage, holdings.positions),
        "wallet": _account(account_wire.WalletMessage, holdings.balances),
        "greeks": _account(account_wire.GreeksMessage, holdings.greeks),
    },
}
"""By stream. A further topic is one wire type, one function from it to events, and one line here."""


def _texts(data: Mapping[str, Any], market: str) -> dict[str, str]:
    """The fields as text, null as the venue's own "" for no value; of unknown fields the name alone."""
    texts: dict[str, str] = {}
    known = FIELDS[market]
    for key, value in data.items():
        if isinstance(value, str):
            texts[key] = value
        elif value is None or key not in known:
            texts[key] = ""
        else:
            raise ValueError(f"$.data.{key}: expected text, got {type(value).__name__}")
    return texts


def _has_other_than_text(data: Mapping[str, Any], market: str) -> bool:
    """Whether unknown fields of a ticker are no texts, as all known ones are."""
    return any(not isinstance(value, str) for key, value in data.items() if key not in FIELDS[market])
