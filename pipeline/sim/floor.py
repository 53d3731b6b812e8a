"""The trading floor of a simulated exchange: who listens to what, and what reaches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import attrs
import trio

from pipeline.sim.clock import SimulatedClock
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine
from pipeline.sim.sent import SentRecord, topic_matches
from pipeline.sim.settings import MarketSettings
from pipeline.sim.wire import Connection, Message


class Source(Protocol):
    """Where data comes from: the generated market, or a recording."""

    def offers(self, topic: str) -> bool:
        """Whether a topic with this key exists."""

    def opening(self, topic: str, *, alone: bool) -> list[bytes]:
        """What a new subscriber gets first; `alone` if nobody else listens."""

    def relisted(self) -> None:
        """The floor's listings have changed."""

    async def run(self) -> None:
        """Publish on the floor until cancelled, or until a recording ends."""


@attrs.define(eq=False)
class Market:
    """The listed instruments and their engines, which are made when first needed."""

    settings: MarketSettings
    listings: dict[tuple[str, str], Listing]
    _engines: dict[tuple[str, str], Engine] = attrs.field(factory=dict, init=False)

    def find(self, market: str, symbol: str) -> Listing | None:
        """A listed instrument."""
        return self.listings.get((market, symbol))

    def of(self, market: str) -> list[Listing]:
        """All listed instruments of a market, in the order of listing."""
        return [listing for listing in self.listings.values() if listing.market == market]

    def engine(self, listing: Listing) -> Engine:
        """The engine behind an instrument."""
        key = (listing.market, listing.symbol)
        if key not in self._engines:
            self._engines[key] = Engine(listing, self.settings.seed, self.settings.levels)
        return self._engines[key]

    def followed(self) -> list[Engine]:
        """Engines that someone follows without listening to their topics."""
        return [engine for engine in self._engines.values() if engine.followers]

    def top(self, listing: Listing) -> dict[str, str]:
        """Best bid and ask of an instrument whose engine is in use; nothing for the others."""
        engine = self._engines.get((listing.market, listing.symbol))
        if engine is None:
            return {}
        return {"bid": engine.price(engine.bids.best), "ask": engine.price(engine.asks.best)}


@attrs.define(eq=False)
class Floor:
    """Subscriptions, and the way of each message to its subscribers; faults of topics sit on that way."""

    clock: SimulatedClock
    market: Market
    sent: SentRecord
    source: Source = attrs.field(init=False)
    subscribers: dict[str, list[Connection]] = attrs.field(factory=dict, init=False)
    """By topic key; a topic without subscribers is absent."""
    stalled: dict[str, float] = attrs.field(factory=dict, init=False)
    """Topic patterns that bring nothing until a time of Trio's clock."""
    gaps: dict[str, int] = attrs.field(factory=dict, init=False)
    """Topic patterns and how many of their next messages are lost."""
    refused: set[str] = attrs.field(factory=set, init=False)
    """Topic patterns that cannot be subscribed to."""
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Unparked whenever a subscription comes or goes, a message was written, or a connection opens or ends."""
    version: int = attrs.field(default=0, init=False)
    """Rises with every subscription that comes or goes, and with every listing."""
    on_leave: list[Callable[[Connection, tuple[str, ...]], None]] = attrs.field(factory=list, init=False)
    """Told of each connection that has ended, with the topics that it had."""
    _names: dict[str, list[str]] = attrs.field(factory=dict, init=False)
    _names_version: int = attrs.field(default=-1, init=False)

    def offers(self, topic: str) -> bool:
        """Whether the topic can be subscribed to now."""
        return not self.refuses(topic) and self.source.offers(topic)

    def refuses(self, topic: str) -> bool:
        """Whether a fault keeps the topic from being subscribed to."""
        return any(topic_matches(topic, pattern) for pattern in self.refused)

    def subscribe(self, connection: Connection, topic: str) -> None:
        """Add a subscription and queue what it gets first. Once per connection and topic."""
        alone = topic not in self.subscribers
        opening = self.source.opening(topic, alone=alone)
        self.subscribers.setdefault(topic, []).append(connection)
        connection.topics[topic] = None
        if not self._stalled(topic):
            for payload in opening:
                connection.post(Message.text(payload, topic))
        self.touch()

    def unsubscribe(self, connection: Connection, topic: str) -> None:
        """Remove a subscription; one that does not exist is ignored."""
        if topic in connection.topics:
            del connection.topics[topic]
            self.subscribers[topic].remove(connection)
            if not self.subscribers[topic]:
                del self.subscribers[topic]
            self.touch()

    def leave(self, connection: Connection) -> None:
        """Remove all subscriptions of an ended connection."""
        had = tuple(connection.topics)
        for topic in had:
            self.unsubscribe(connection, topic)
        for tell in self.on_leave:
            tell(connection, had)
        self.touch()

    def publish(self, topic: str, payloads: Iterable[bytes]) -> None:
        """Send data messages to the topic's subscribers, unless a fault holds them up."""
        subscribers = self.subscribers.get(topic)
        if not subscribers:
            return
        for payload in payloads:
            if (self.gaps or self.stalled) and (self._stalled(topic) or self._lost(topic)):
                continue
            message = Message.text(payload, topic)
            for connection in tuple(subscribers):
                connection.post(message)

    def endpoints_of(self, name: str) -> list[str]:
        """Keys of the subscribed topics with this name, on whichever endpoints."""
        if self._names_version != self.version:
            self._names_version = self.version
            self._names = {}
            for topic in self.subscribers:
                self._names.setdefault(topic.partition("/")[2], []).append(topic)
        return self._names.get(name, [])

    async def room(self) -> None:
        """Wait for the slowest subscriber: a sender at full speed calls it between messages."""
        await trio.lowlevel.checkpoint()
        for connection in {each for subscribers in self.subscribers.values() for each in subscribers}:
            await connection.room()

    def touch(self) -> None:
        """Subscriptions or listings have changed."""
        self.version += 1
        self.changed.unpark_all()

    def _stalled(self, topic: str) -> bool:
        now = trio.current_time()
        return any(until > now and topic_matches(topic, pattern) for pattern, until in self.stalled.items())

    def _lost(self, topic: str) -> bool:
        for pattern, left in self.gaps.items():
            if topic_matches(topic, pattern):
                if left > 1:
                    self.gaps[pattern] = left - 1
                else:
                    del self.gaps[pattern]
                return True
        return False
