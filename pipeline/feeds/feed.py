"""One generation of a connection: the venue's session, the chain behind it and what it tells about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from math import inf

import attrs
import structlog

from pipeline.exchanges.venue import Outcome, Subscription, VenueSession
from pipeline.feeds.chain import BookKey, Chain, Publish
from pipeline.model.errors import BadMessage, DeadlineMissed, Refused
from pipeline.model.events import DeadLetter, FeedStatus, Micros, Origin
from pipeline.model.rate import Budget, Rate
from pipeline.model.stats import ConnectionStats

log = structlog.get_logger(__name__)

TICK = 0.25
"""Seconds between looks at silence, due snapshots and pending resynchronizations."""
_NO_RESYNC_BEFORE = 1.0
_MAX_RESYNC_PAUSE = 60.0
_MAX_NOTICE = 500
_COMPLAINTS = Rate(10, 60.0)
"""Log lines about unreadable messages; all of them are counted and published."""
_BUGS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What code that reads a message raises when it is wrong about it."""


@attrs.frozen
class FeedTimes:
    """Bounds of a feed, in seconds."""

    first_data: float = 30.0
    """From a granted book subscription to its first snapshot."""
    silent_reconnects: bool = True
    """Give the connection up when a stale subscription stays silent after it was subscribed anew."""


@attrs.define
class _Watch:
    """Silence and resynchronization of one granted subscription."""

    subscription: Subscription
    since: float
    """When it was granted, or last seen to have brought data."""
    messages: int = 0
    stale: bool = False
    resyncs: int = 0
    not_before: float = -inf


@attrs.define(eq=False)
class Feed:
    """A `Conversation` that turns one connection's messages into published events; never reused."""

    connection: str
    """Identifier and generation."""
    session: VenueSession
    chain: Chain
    publish: Publish
    clock: Callable[[], int]
    """Microseconds UTC."""
    stats: ConnectionStats
    times: FeedTimes
    log: Callable[[str, str], None]
    """Takes (event name, text) of what an operator should see."""
    flowing: bool = attrs.field(default=False, init=False)
    _watches: dict[str, _Watch] = attrs.field(factory=dict, init=False)
    _books: dict[BookKey, _Watch] = attrs.field(factory=dict, init=False)
    _changes: list[tuple[bool, tuple[Subscription, ...]]] = attrs.field(factory=list, init=False)
    _next_tick: float = attrs.field(default=inf, init=False)
    _origins: dict[str, Origin] = attrs.field(factory=dict, init=False)
    _complaints: Budget = attrs.field(factory=lambda: Budget(_COMPLAINTS), init=False)
    _events_before: int = attrs.field(default=0, init=False)
    _gaps_counted: int = attrs.field(default=0, init=False)
    _failures_counted: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._events_before = self.stats.events

    @property
    def ready(self) -> bool:
        """Whether every subscription is granted or refused."""
        return self.session.ready

    def start(self, now: float) -> None:
        """The connection is open."""
        self.session.start(now)
        self._next_tick = now + TICK
        self._status("connected", "connection", f"connected to {self.stats.url}")

    def receive(self, messages: list[bytes], now: float) -> None:
        """Publish what the messages say; one that cannot be read goes to the dead letters, whole."""
        receive_time = Micros(self.clock())
        stats, session, chain = self.stats, self.session, self.chain
        control = False
        for message in messages:
            stats.bytes += len(message)
            if not session.receive(message, now):
                control = True
                continue
            try:
                chain.message(message, receive_time)
                self.flowing = True
            except BadMessage as error:
                self._dead_letter(message, receive_time, str(error), now)
            except _BUGS as error:
                # Reconnecting would not help: the next message of this form would end the new connection too.
                if not self._complaints.wait(now):
                    log.exception("message_not_understood", connection=self.connection)
                self._dead_letter(message, receive_time, f"unexpected {type(error).__name__}: {error}", now)
        stats.messages += len(messages)
        stats.events = chain.events + self._events_before
        stats.last_receive = receive_time
        if control:
            self._settle(now)
        if chain.out_of_sync:
            self._resynchronize(now)

    def next_deadline(self) -> float:
        """When `on_deadline` has something to do."""
        return min(self._next_tick, self.session.next_deadline())

    def on_deadline(self, now: float) -> None:
        """Heartbeats and acknowledgements; and every `TICK` silence, resynchronizations and due snapshots."""
        self.session.on_deadline(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._apply_changes(now)
            self._look_for_silence(now)
            self._resynchronize(now)
            self.chain.due(Micros(self.clock()))
            self._count()
        self._settle(now)

    def data_to_send(self) -> list[str]:
        """The session's messages."""
        return self.session.data_to_send()

    def closed(self, now: float, reason: str) -> None:
        """Tell the consumers that the connection and so its streams ended here."""
        self._count()
        self._status("lost", "connection", reason)

    def change(self, added: Iterable[Subscription], removed: Iterable[Subscription]) -> None:
        """Subscribe and unsubscribe on the living connection, at the next tick."""
        self._changes.append((False, tuple(removed)))
        self._changes.append((True, tuple(added)))

    def _apply_changes(self, now: float) -> None:
        changes, self._changes = self._changes, []
        for wanted, subscriptions in changes:
            if subscriptions:
                (self.session.subscribe if wanted else self.session.unsubscribe)(subscriptions, now)

    def _settle(self, now: float) -> None:
        for outcome in self.session.outcomes():
            self._outcome(outcome, now)
            if outcome.status == "refused":
                self._refuse_if_nothing_is_left()
        for notice in self.session.notices():
            self.stats.notices += 1
            self.log("venue_notice", notice[:_MAX_NOTICE])

    def _outcome(self, outcome: Outcome, now: float) -> None:
        subscription = outcome.subscription
        topic = subscription.topic
        if outcome.status == "subscribed":
            watch = self._watches.get(topic)
            if watch is None:
                watch = self._watches[topic] = _Watch(subscription, now)
                self._status("subscribed", "channel", topic, subscription)
            watch.since = now
            if subscription.kind == "book":
                self._books[(subscription.channel, subscription.instrument)] = watch
        else:
            self._watches.pop(topic, None)
            self._books.pop((subscription.channel, subscription.instrument), None)
            if outcome.status == "refused":
                self.stats.refused[topic] = outcome.reason
                self.log("subscription_refused", f"{topic}: {outcome.reason}")
                self._status("refused", "channel", f"{topic}: {outcome.reason}", subscription)
            else:
                self._status("unsubscribed", "channel", outcome.reason or topic, subscription)
        self.stats.subscribed = len(self._watches)

    def _refuse_if_nothing_is_left(self) -> None:
        if self.stats.refused and not self._watches and self.session.ready and not self._changes:
            reasons = "; ".join(dict.fromkeys(self.stats.refused.values()))
            raise Refused(f"{self.stats.venue} refused all of {self.stats.id}: {reasons}")

    def _look_for_silence(self, now: float) -> None:
        for watch in self._watches.values():
            subscription = watch.subscription
            stream = self.chain.normalizer.streams.get(subscription.topic)
            messages = stream.messages if stream is not None else 0
            if messages != watch.messages:
                watch.messages, watch.since, watch.stale = messages, now, False
                continue
            bound = subscription.max_silence
            if not messages and subscription.kind == "book":
                bound = min(bound, self.times.first_data)
            if now - watch.since < bound:
                continue
            if watch.stale and self.times.silent_reconnects:
                raise DeadlineMissed(f"{subscription.topic}: silent for another {bound:g} s after a new subscription")
            watch.stale = True
            watch.since = now
            self.stats.stale += 1
            reason = f"{subscription.topic}: no data for {bound:g} s"
            self.log("subscription_stale", reason)
            self._status("stale", "channel", reason, subscription)
            self.session.resync(subscription, now)

    def _resynchronize(self, now: float) -> None:
        done = set()
        for key in self.chain.out_of_sync:
            tracker, watch = self.chain.trackers[key], self._books.get(key)
            if not tracker.wants_resync:
                done.add(key)
                if watch is not None and now - watch.not_before > _MAX_RESYNC_PAUSE:
                    watch.resyncs = 0
            elif watch is not None and now >= watch.not_before:
                watch.resyncs += 1
                watch.not_before = now + min(_NO_RESYNC_BEFORE * 2**watch.resyncs, _MAX_RESYNC_PAUSE)
                self.stats.resyncs += 1
                self.log("book_resync", f"{watch.subscription.topic}: subscribing anew")
                self.session.resync(watch.subscription, now)
        self.chain.out_of_sync -= done

    def _count(self) -> None:
        stats, chain = self.stats, self.chain
        stats.events = chain.events + self._events_before
        if chain.exchange_time:
            stats.exchange_lag = stats.last_receive - chain.exchange_time
        gaps = sum(tracker.gaps for _, tracker in chain.books())
        failures = sum(tracker.checksum_failures for _, tracker in chain.books())
        stats.gaps += gaps - self._gaps_counted
        stats.checksum_failures += failures - self._failures_counted
        self._gaps_counted, self._failures_counted = gaps, failures

    def _dead_letter(self, message: bytes, receive_time: Micros, reason: str, now: float) -> None:
        self.stats.dead_letters += 1
        if not self._complaints.wait(now):
            self._complaints.take(now)
            self.log("unreadable_message", f"{reason}: {message[:200]!r}")
        self.publish(
            DeadLetter(
                self._origin(None),
                None,
                receive_time,
                None,
                "parse",
                reason,
                message,
                len(message),
                hashlib.sha256(message).hexdigest(),
            )
        )

    def _status(self, status: str, scope: str, reason: str, subscription: Subscription | None = None) -> None:
        self.publish(
            FeedStatus(
                self._origin(subscription),
                None,
                Micros(self.clock()),
                None,
                status,
                scope if subscription is None or subscription.instrument is None else "instrument",
                reason,
                subscription.channel if subscription is not None else None,
            )
        )

    def _origin(self, subscription: Subscription | None) -> Origin:
        topic = subscription.topic if subscription is not None else ""
        origin = self._origins.get(topic)
        if origin is None:
            venue = self.stats.venue
            if subscription is None:
                origin = Origin(venue, self.stats.endpoint, None, None, None, self.connection)
            else:
                market, instrument = subscription.market, subscription.instrument
                known = self.chain.catalogue.get((market, instrument or ""))
                symbol = known.origin.symbol if known is not None else None
                origin = Origin(venue, market, instrument, symbol, None, self.connection)
            self._origins[topic] = origin
        return origin
