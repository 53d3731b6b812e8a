"""One generation of a connection: the venue's session, the chain behind it and what it tells about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf

import attrs
import structlog

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.accounts import Steps
from pipeline.exchanges.venue import BookSeed, Outcome, Subscription, VenueSession
from pipeline.feeds.chain import UNREADABLE, Chain, Publish
from pipeline.feeds.conflation import ConflationPolicy
from pipeline.feeds.errands import Errand, Errands
from pipeline.feeds.handover import BookKey
from pipeline.feeds.lag import LagMeter
from pipeline.feeds.tap import Tap
from pipeline.model.errors import BadMessage, DeadlineMissed, Refused
from pipeline.model.events import (
    Bbo,
    BookUpdate,
    Event,
    FeedStatus,
    IndexPrice,
    MarkPrice,
    Micros,
    OpenInterest,
    Origin,
    Ticker,
    Trade,
)
from pipeline.model.latency import EXCHANGE_BOUNDS_S, Latency
from pipeline.model.rate import Budget, Rate
from pipeline.model.stats import ConnectionStats

log = structlog.get_logger(__name__)

TICK = 0.25
"""Seconds between looks at silence, lag, due snapshots and pending resynchronizations."""
SEED_AGAIN = 1.0
"""Seconds between readings of a book's snapshot."""
_NO_RESYNC_BEFORE = 1.0
_MAX_RESYNC_PAUSE = 60.0
_MAX_NOTICE = 500
MAX_UNKNOWN_FIELDS = 100
"""Names kept per connection over all its generations: each is a label of a metric."""
_PROMPT: frozenset[type[Event]] = frozenset({Trade, BookUpdate, Bbo, Ticker, MarkPrice, IndexPrice, OpenInterest})
"""Kinds that venues send as soon as they happen, so that their age tells of a lag."""
_SAMPLED = 7
"""How old what comes is, is noted once in eight turns: to note it takes 0.4 µs."""
_COMPLAINTS = Rate(10, 60.0)
"""Log lines about unreadable messages; all of them are counted and published."""


@attrs.frozen
class FeedTimes:
    """Bounds of a feed, in seconds."""

    first_data: float = 30.0
    """From a granted book subscription to its first snapshot."""
    silent_reconnects: bool = True
    """Give the connection up when a stale subscription stays silent after it was subscribed anew."""
    overlap: float = 60.0
    """After taking over from another connection: how long what comes is compared with what that one published."""


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
    seed: BookSeed | None = None
    seed_at: float = inf
    """When to read the book's snapshot over REST unless it has come."""


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
    news: Callable[[], None] = attrs.field(default=lambda: None)
    """Called when the feed became ready, when its end was announced, and at every tick from then on."""
    errands: Errands | None = None
    """For what has to be asked over REST."""
    seed_after: Callable[[BookKey], float | None] = attrs.field(default=lambda key: None)
    """Seconds to wait for a book's snapshot from the stream before it is read over REST; None: for ever."""
    tap: Tap | None = None
    """Where all that goes into the chain is archived."""
    meter: LagMeter = attrs.field(factory=LagMeter)
    """Told about each tick."""
    conflation: Callable[[], ConflationPolicy | None] = attrs.field(default=lambda: None)
    """What is conflated while this connection lags; None: nothing."""
    is_read: Callable[[], bool] = attrs.field(default=lambda: True)
    """Whether what comes is read at present; if not, the lag is ours, and nothing is learned about it."""
    arrivals: dict[str, Latency] = attrs.field(factory=dict)
    """Where the age of what comes is noted, by kind of event; of the whole venue."""
    flowing: bool = attrs.field(default=False, init=False)
    _watches: dict[str, _Watch] = attrs.field(factory=dict, init=False)
    _books: dict[BookKey, _Watch] = attrs.field(factory=dict, init=False)
    _changes: list[tuple[bool, tuple[Subscription, ...]]] = attrs.field(factory=list, init=False)
    _next_tick: float = attrs.field(default=inf, init=False)
    _turns: int = attrs.field(default=0, init=False)
    """Those that brought something prompt."""
    _origins: dict[str, Origin] = attrs.field(factory=dict, init=False)
    _complaints: Budget = attrs.field(factory=lambda: Budget(_COMPLAINTS), init=False)
    _events_counted: int = attrs.field(default=0, init=False)
    _requests_counted: int = attrs.field(default=0, init=False)
    _unknown_counted: int = attrs.field(default=0, init=False)
    _gaps_counted: int = attrs.field(default=0, init=False)
    _failures_counted: int = attrs.field(default=0, init=False)
    _ready_since: float = attrs.field(default=inf, init=False)
    _ending: bool = attrs.field(default=False, init=False)
    _retired: bool = attrs.field(default=False, init=False)
    _forget_at: float = attrs.field(default=inf, init=False)
    _least_delay: float = attrs.field(default=inf, init=False)
    """The smallest since the last tick, as `LagMeter.tick` takes it."""
    _lagging_since: Micros = attrs.field(default=Micros(0), init=False)
    _replaced_before: int = attrs.field(default=0, init=False)
    """States that were replaced before this lag."""

    @property
    def ready(self) -> bool:
        """Whether every subscription is granted or refused."""
        return self.session.ready

    @property
    def connected(self) -> bool:
        """Whether the connection has been open."""
        return self._next_tick < inf

    @property
    def ready_since(self) -> float:
        """When every request had been answered for the first time; `inf` before."""
        return self._ready_since

    @property
    def ends_soon(self) -> bool:
        """Whether the venue has announced the end of this connection."""
        return self._ending

    def start(self, now: float) -> None:
        """The connection is open."""
        self.session.start(now)
        self._next_tick = now + TICK
        self._status("connected", "connection", f"connected to {self.stats.url}")

    def receive(self, messages: list[bytes], now: float) -> None:
        """Publish what the messages say; one that cannot be read goes to the dead letters, whole."""
        receive_time = Micros(self.clock())
        if self._retired:
            self._set_aside(messages, receive_time)
            return
        stats, session, chain, tap = self.stats, self.session, self.chain, self.tap
        chain.latest = None
        receive = session.receive
        data: list[bytes] = []
        looked_at = 0
        try:
            for message in messages:
                is_data = receive(message, now)
                if is_data:
                    data.append(message)
                if tap is not None:
                    tap.message(message, receive_time, is_data=is_data)
                    looked_at += 1
        finally:
            if tap is not None and looked_at < len(messages):  # the venue's answer has ended the conversation
                self._set_aside(messages[looked_at:], receive_time)
            unread = chain.take(data, receive_time)  # what came before such an answer is published all the same
            for message, error in unread:
                self._complain(message, error, now)
            if len(unread) < len(data):
                self.flowing = True
        stats.messages += len(messages)
        stats.bytes += sum(map(len, messages))
        stats.events += chain.events - self._events_counted
        self._events_counted = chain.events
        stats.last_receive = receive_time
        if (latest := chain.latest) is not None and latest.__class__ in _PROMPT and latest.exchange_time is not None:
            # By the monotonic clock: a wall clock that is set would look like a lag.
            delay = now - latest.exchange_time / 1e6
            if delay < self._least_delay:
                self._least_delay = delay
            self._turns += 1
            if not self._turns & _SAMPLED:
                self._note_age(latest.KIND, receive_time - latest.exchange_time)
        if len(data) < len(messages):
            self._settle(now)
        if chain.out_of_sync:
            self._resynchronize(now)

    def next_deadline(self) -> float:
        """When `on_deadline` has something to do."""
        return min(self._next_tick, self.session.next_deadline())

    def on_deadline(self, now: float) -> None:
        """Heartbeats and acknowledgements; and every `TICK` silence, lag, resynchronizations and due snapshots."""
        if self._retired:
            return
        self.session.on_deadline(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._apply_changes(now)
            self._look_for_silence(now)
            self._look_for_seeds(now)
            self._resynchronize(now)
            self._look_at_lag(now)
            self._publish_due()
            self._count()
            if now >= self._forget_at:
                self._forget_at = inf
                if self.tap is not None:
                    self.tap.forgotten()
                self.chain.forget()
            if self._ending:
                self.news()
        self._settle(now)

    def data_to_send(self) -> list[str]:
        """The session's messages."""
        return self.session.data_to_send()

    def closed(self, now: float, reason: str) -> None:
        """Tell the consumers that the connection and so its streams ended here."""
        if not self._retired:
            self._stop_lagging(f"the connection ended {self.meter.lag:.1f} s behind")
            self._retired = True
            self._count()
            self._status("lost", "connection", reason)

    def hold(self) -> None:
        """Be the replacement of a connection that still runs: publish nothing until `take_over`."""
        self.chain.hold()

    def can_follow(self, before: Feed) -> bool:
        """Whether nothing would be missing if this feed took over now."""
        return self.ready and before.chain.is_ahead_of(self.chain)

    def take_over(self, before: Feed, now: float, *, seamless: bool) -> None:
        """Go on where `before` stops, which publishes nothing from here on."""
        before._stop_lagging(f"{self.connection} goes on")
        if seamless:
            before._count()
            before._status("replaced", "connection", f"{self.connection} goes on without a gap")
        else:
            before.closed(now, f"{self.connection} goes on, but may have begun too late")
        before._retired = True
        self._gaps_counted, self._failures_counted = before._gaps_counted, before._failures_counted
        if self.tap is not None:
            self.tap.taken_over(before.connection, seamless=seamless)
        self.chain.take_over(before.chain, seamless=seamless)
        self.flowing = self.flowing or before.flowing
        self._forget_at = now + self.times.overlap
        self.stats.handovers += seamless

    def change(self, added: Iterable[Subscription], removed: Iterable[Subscription]) -> None:
        """Subscribe and unsubscribe on the living connection, at the next tick."""
        self._changes.append((False, tuple(removed)))
        self._changes.append((True, tuple(added)))

    def revise(self, changed: Iterable[Subscription]) -> None:
        """Judge the silence of granted subscriptions by what is configured now."""
        for subscription in changed:
            if (watch := self._watches.get(subscription.topic)) is not None:
                watch.subscription = subscription

    def reconfigure_books(self, options: Mapping[BookKey, BookOptions]) -> None:
        """What is made of books has changed; a book that lacks levels for it is subscribed anew."""
        now = Micros(self.clock())
        if self.tap is not None:
            self.tap.books(options, now)
        self.chain.reconfigure(now)

    def renew(self, key: BookKey, reason: str) -> bool:
        """Announce a gap in a book and, at the next tick, subscribe it anew; False if it is not complete as it is."""
        tracker = self.chain.trackers.get(key)
        if tracker is None or not tracker.valid or key not in self._books:
            return False
        now = Micros(self.clock())
        if self.tap is not None:
            self.tap.invalidated(key, now, reason)
        self.chain.invalidate(key, now, reason)
        return True

    def _apply_changes(self, now: float) -> None:
        changes, self._changes = self._changes, []
        for wanted, subscriptions in changes:
            if subscriptions:
                (self.session.subscribe if wanted else self.session.unsubscribe)(subscriptions, now)

    def _set_aside(self, messages: list[bytes], receive_time: Micros) -> None:
        if self.tap is not None:
            for message in messages:
                self.tap.message(message, receive_time, is_data=False)

    def _settle(self, now: float) -> None:
        for outcome in self.session.outcomes():
            self._outcome(outcome, now)
            if outcome.status == "refused":
                self._refuse_if_nothing_is_left()
        for notice in self.session.notices():
            self.stats.notices += 1
            self.log("venue_notice", notice[:_MAX_NOTICE])
        if self._ready_since == inf and self.session.ready:
            self._ready_since = now
            self.news()
        if self.session.ends_soon and not self._ending:
            self._ending = True
            if self.tap is not None:
                self.tap.recorded()
            self.chain.record()
            self.news()

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
                self._await_seed(watch, now)
        else:
            self._watches.pop(topic, None)
            if subscription.kind == "book":
                self._drop_book((subscription.channel, subscription.instrument))
            if outcome.status == "refused":
                self.stats.refused[topic] = outcome.reason
                self.log("subscription_refused", f"{topic}: {outcome.reason}")
                self._status("refused", "channel", f"{topic}: {outcome.reason}", subscription)
            else:
                self._status("unsubscribed", "channel", outcome.reason or topic, subscription)
        self.stats.subscribed = len(self._watches)

    def _drop_book(self, key: BookKey) -> None:
        self._books.pop(key, None)
        if self.chain.awaits(key) or key in self.chain.trackers:
            self._count()
            if self.tap is not None:
                self.tap.dropped(key)
            if (tracker := self.chain.drop(key)) is not None:
                self._gaps_counted -= tracker.gaps
                self._failures_counted -= tracker.checksum_failures

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

    def _await_seed(self, watch: _Watch, now: float) -> None:
        key = (watch.subscription.channel, watch.subscription.instrument)
        seed = self.chain.venue.book_seed(watch.subscription)
        if seed is None or self.errands is None:
            return
        after = 0.0 if seed.is_required else self.seed_after(key)
        if after is not None:
            watch.seed, watch.seed_at = seed, now + after
            if self.tap is not None:
                self.tap.awaited(key)
            self.chain.await_seed(key)

    def _look_for_seeds(self, now: float) -> None:
        for key, watch in self._books.items():
            if now >= watch.seed_at:
                watch.seed_at = inf
                if self.chain.awaits(key):
                    self._ask_for_seed(watch)

    def _ask_for_seed(self, watch: _Watch) -> None:
        seed, errands, subscription = watch.seed, self.errands, watch.subscription
        assert seed is not None and errands is not None

        def steps() -> Steps[tuple[BookUpdate, bytes]]:
            body = yield seed.path
            return self.chain.normalizer.seed(subscription, body, self.clock()), body

        def plant(answer: tuple[BookUpdate, bytes]) -> None:
            snapshot, body = answer
            if self._retired:
                return
            self.stats.seeds += 1
            if self.tap is not None:
                self.tap.seeded(subscription, body, snapshot.receive_time)
            try:
                planted = self.chain.seed(snapshot)
            except UNREADABLE as error:
                self.log("unreadable_snapshot", f"{subscription.topic}: {error}")
                return
            if not planted:
                # The answer was older than the stream: REST has caches of its own.
                watch.seed_at = self._next_tick + SEED_AGAIN

        errands.add(Errand(f"snapshot of {subscription.topic}", steps, plant, signed=False))

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
        stats.events += chain.events - self._events_counted
        self._events_counted = chain.events
        unknown = chain.normalizer.unknown_fields
        for field in unknown[self._unknown_counted :]:
            if field not in stats.unknown_fields and len(stats.unknown_fields) < MAX_UNKNOWN_FIELDS:
                stats.unknown_fields[field] = None
                self.log("unknown_field", field)
        self._unknown_counted = len(unknown)
        stats.requests += self.session.requests - self._requests_counted
        self._requests_counted = self.session.requests
        gaps = sum(tracker.gaps for _, tracker in chain.books())
        failures = sum(tracker.checksum_failures for _, tracker in chain.books())
        stats.gaps += gaps - self._gaps_counted
        stats.checksum_failures += failures - self._failures_counted
        self._gaps_counted, self._failures_counted = gaps, failures

    def _note_age(self, kind: str, age: Micros) -> None:
        found = self.arrivals.get(kind)
        if found is None:
            found = self.arrivals[kind] = Latency(EXCHANGE_BOUNDS_S)
        found.observe(age / 1e6)

    def _look_at_lag(self, now: float) -> None:
        least, self._least_delay = self._least_delay, inf
        if self.chain.is_held or not self.is_read():
            return
        stats, meter = self.stats, self.meter
        if least < inf:
            stats.exchange_lag = round((least - now) * 1e6) + self.clock()
        has_changed = meter.tick(least if least < inf else None, now)
        stats.lag = round(meter.lag * 1e6)
        if has_changed and meter.is_lagging:
            self._fall_behind()
        elif has_changed:
            self._end_lag(f"{meter.lag:.1f} s behind the venue")
        if meter.is_lagging and stats.state == "live":
            stats.state, stats.since = "lagging", self.clock()

    def _fall_behind(self) -> None:
        meter, policy = self.meter, self.conflation()
        self.stats.lags += 1
        self._lagging_since = Micros(self.clock())
        what = "all is published, late" if policy is None else f"states of {len(policy.topics)} topics are conflated"
        reason = f"{meter.lag:.1f} s behind the venue, more than {meter.bound:g} s; {what}"
        self.log("connection_lagging", reason)
        self._status("lagging", "connection", reason, from_time=self._lagging_since)
        if policy is not None:
            if self.tap is not None:
                self.tap.conflated(policy)
            self._replaced_before = sum(self.stats.conflated.values())
            self.chain.conflate(policy, self.stats.conflated)

    def _stop_lagging(self, reason: str) -> None:
        """Nothing more comes over this connection: the states that wait are the last."""
        if self.meter.is_lagging:
            self.meter.is_lagging = False
            self._end_lag(reason)
        self.stats.lag = 0

    def _end_lag(self, reason: str) -> None:
        count = 0
        if self.chain.conflated is not None:
            if self.tap is not None:
                self.tap.conflated(None)
            self.chain.conflate_no_more()
            count = sum(self.stats.conflated.values()) - self._replaced_before
        self.log("connection_caught_up", f"{reason}; {count} states were replaced")
        since = self._lagging_since
        self._status("caught_up", "connection", reason, from_time=since, to_time=Micros(self.clock()), count=count)
        if self.stats.state == "lagging":
            self.stats.state, self.stats.since = "live", self.clock()

    def _complain(self, message: bytes, error: Exception, now: float) -> None:
        self.stats.dead_letters += 1
        if not self._complaints.wait(now):
            self._complaints.take(now)
            if not isinstance(error, BadMessage):
                log.error("message_not_understood", connection=self.connection, exc_info=error)
            self.log("unreadable_message", f"{str(error) or repr(error)}: {message[:200]!r}")

    def _publish_due(self) -> None:
        now = Micros(self.clock())
        if self.chain.due(now) and self.tap is not None:
            self.tap.due(now)

    def _status(
        self,
        status: str,
        scope: str,
        reason: str,
        subscription: Subscription | None = None,
        *,
        from_time: Micros | None = None,
        to_time: Micros | None = None,
        count: int | None = None,
    ) -> None:
        event = FeedStatus(
            self._origin(subscription),
            None,
            Micros(self.clock()),
            None,
            status,
            scope if subscription is None or subscription.instrument is None else "instrument",
            reason,
            subscription.channel if subscription is not None else None,
            from_time=from_time,
            to_time=to_time,
            count=count,
        )
        if self.tap is not None:
            self.tap.published(event)
        self.publish(event)

    def _origin(self, subscription: Subscription | None) -> Origin:
        topic = subscription.topic if subscription is not None else ""
        origin = self._origins.get(topic)
        if origin is None:
            venue = self.stats.venue
            if subscription is None:
                origin = Origin(venue, self.stats.endpoint, None, None, self.chain.account, self.connection)
            else:
                market, instrument = subscription.market, subscription.instrument
                known = self.chain.catalogue.get((market, instrument or ""))
                symbol = known.origin.symbol if known is not None else None
                account = self.chain.account if subscription.needs_login else None
                origin = Origin(venue, market, instrument, symbol, account, self.connection)
            self._origins[topic] = origin
        return origin
