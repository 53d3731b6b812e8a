"""Wire messages of one OKX connection to events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from pipeline.exchanges.okx import books, topics, wire
from pipeline.exchanges.okx.families import CANDLES, FAMILIES, PASSED_ON, decoder
from pipeline.exchanges.okx.streams import ACCOUNT, SPREAD, SYSTEM, Family, Listings, Stream
from pipeline.exchanges.venue import Catalogue, StreamState, Subscription
from pipeline.exchanges.vocabulary import Vocabulary
from pipeline.model.errors import BadMessage
from pipeline.model.events import BookUpdate, Event, Micros

PREFIX = b'{"arg":{'
"""How pushes begin. JSON promises no order of keys, so what begins otherwise is still looked at."""
_ARG_AT = 7
HEARTBEATS = (b"pong", b"ping")
ANY = "ANY"
"""`instType` of channels over all of them."""
MAX_ALIASES = 8192
"""Spellings of `arg` remembered per connection; more than a connection may carry topics."""

_ARG = frozenset(wire.Arg.__struct_fields__) | frozenset(wire.Arg.UNREAD)

_decode_envelope = msgspec.json.Decoder(wire.Envelope).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class OkxNormalizer:
    """Events of one connection. Sequence numbers are passed on, not judged."""

    streams: Mapping[str, StreamState]
    unknown_fields: Sequence[str]

    def __init__(
        self,
        connection: str,
        catalogue: Catalogue,
        resume: dict[str, int] | None = None,
        account: str | None = None,
    ) -> None:
        self._streams: dict[str, Stream] = {}
        self.streams = self._streams
        self._vocabulary = Vocabulary()
        self.unknown_fields = self._vocabulary.unknown
        self._families: dict[str, Family] = {}
        """By name, those that had unknown fields."""
        self._by_arg: dict[bytes, Stream] = {}
        self._listings = Listings(catalogue, connection)
        self._account_listings = Listings(catalogue, connection, account)
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
            stream.listings.refresh(listing, receive_time)
        try:
            events = stream.family.build(stream, push, now)
        except (ArithmeticError, ValueError) as error:
            raise BadMessage(f"{stream.topic}: {error}") from error
        stream.messages += 1
        stream.last_receive = receive_time
        # Books are told by their numbers; their levels would stay in memory.
        stream.latest = () if events and events[0].__class__ is BookUpdate else events
        origin = stream.listing.origin
        stream.origin = origin if origin.instrument is not None else None
        return events

    def seed(self, subscription: Subscription, body: bytes, receive_time: int) -> BookUpdate:
        """The snapshot in the answer to a `BookSeed`. Raises `BadMessage`, `Retryable` or `Refused`."""
        listing = self._listings.get(subscription.market, subscription.instrument, receive_time)
        return books.seeded(listing, subscription.channel, body, Micros(receive_time))

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
            members = _decode_object(envelope.arg)
            arg = topics.read_arg(members)
        except wire.UNREADABLE as error:
            raise BadMessage(f"unreadable message: {error}") from None
        topic = topics.topic_of(arg)
        stream = self._streams.get(topic)
        if stream is None:
            stream = self._open(topic, arg, "uid" in members, receive_time)
            self._streams[topic] = stream
        if stream.family.push is not None:
            for name in members.keys() - _ARG:
                self._vocabulary.note(stream.family.name, f"arg.{name}")
        # An arg with a brace inside is never found by this, and is decoded each time.
        if len(self._by_arg) < MAX_ALIASES:
            self._by_arg[bytes(envelope.arg)] = stream
        return stream

    def _open(self, topic: str, arg: wire.Arg, is_private: bool, receive_time: int) -> Stream:
        """A new stream; the `arg` of a private one has the user's number."""
        family, bar = _family_of(topic, arg.channel)
        family = self._families.get(family.name, family)
        if family.push is None:
            is_private = is_private or family.is_private
            name = arg.instId or arg.sprdId
        else:
            is_private = family.is_private
            name = getattr(arg, family.named_by) if family.named_by else ""
            if family.named_by and not name:
                raise BadMessage(f"{topic}: the arg names no {family.named_by}")
        if name:
            market = SPREAD if arg.sprdId else topics.market_of(arg.channel, name)
        elif arg.instType and arg.instType != ANY:
            market = arg.instType.lower()
        else:
            market = family.market or (ACCOUNT if is_private else SYSTEM)
        listings = self._account_listings if is_private else self._listings
        return Stream(
            topic,
            channel=arg.channel,
            family=family,
            listings=listings,
            listing=listings.get(market, name or None, receive_time),
            resume=self._resume,
            resume_key=f"{arg.channel}:{name}",
            is_private=is_private,
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
            family = stream.family
            if family.push is None:
                return family.decode(message)
            plain = wire.decode_plain(message)
            form, push = _read_loosely(family, family.push, plain)
        except wire.UNREADABLE as error:
            raise BadMessage(f"{stream.topic}: {error}") from None
        self._learn(family, form, plain)
        return push

    def _learn(self, family: Family, push: type[msgspec.Struct], plain: object) -> None:
        """Note the unknown fields of a message that could be read, so that they are no obstacle to the next."""
        is_new = self._vocabulary.learn(family.name, push, plain)
        if not is_new and push is family.push:
            return
        learned = attrs.evolve(family, push=push, decode=decoder(self._vocabulary.form(family.name, push)))
        self._families[family.name] = learned
        for stream in self._streams.values():
            if stream.family is family:
                stream.family = learned


def _read_loosely(family: Family, push: type[msgspec.Struct], plain: object) -> tuple[type[msgspec.Struct], Any]:
    """The type of the family's that a message fits, and the message as that. Raises one of `wire.UNREADABLE`."""
    try:
        return push, wire.leniently(plain, push)
    except msgspec.ValidationError:
        if family.loose is None:
            raise
    return family.loose, wire.leniently(plain, family.loose)


def _family_of(topic: str, channel: str) -> tuple[Family, str]:
    """How a channel is read, and the interval in its name. Raises `BadMessage`."""
    family = FAMILIES.get(channel) or PASSED_ON.get(channel)
    if family is not None:
        return family, ""
    for prefix, candles in CANDLES.items():
        bar = channel.removeprefix(prefix)
        if bar != channel and bar[:1].isdecimal():
            return candles, bar
    raise BadMessage(f'{topic}: unknown channel "{channel}"')
