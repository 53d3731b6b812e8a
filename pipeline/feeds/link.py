"""One planned connection over its whole life: a new session and feed per connection made, one set of counters."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
import structlog
import trio

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.accounts import Credentials
from pipeline.exchanges.venue import Catalogue, Subscription, Venue
from pipeline.feeds.account_state import AccountState
from pipeline.feeds.chain import Chain, Publish, PublishAll
from pipeline.feeds.conflation import ConflationPolicy
from pipeline.feeds.errands import Errands
from pipeline.feeds.feed import Feed, FeedTimes
from pipeline.feeds.handover import BookKey
from pipeline.feeds.lag import Floor, LagMeter
from pipeline.feeds.plan import ConnectionPlan
from pipeline.feeds.relay import Leg, Relay
from pipeline.feeds.settings import BookSettings, VenueSettings
from pipeline.feeds.specs import BBO, BOOK, session_times
from pipeline.feeds.standing import BookStanding, book_standing
from pipeline.feeds.tap import Archive, Tap
from pipeline.feeds.venue_rest import VenueRest, verified_credentials
from pipeline.model.account import Order
from pipeline.model.errors import LoginFailed, Refused, Retryable
from pipeline.model.events import Event, FeedStatus, Micros, Origin
from pipeline.model.latency import Latency
from pipeline.model.stats import ConnectionStats
from pipeline.session.clock import Clock
from pipeline.session.connection import Alarm, run_connection
from pipeline.session.errors import ConnectionClosed
from pipeline.session.failures import settle
from pipeline.session.gate import Gate, GatedTransport
from pipeline.session.limiter import Limiter
from pipeline.session.limits import Limits
from pipeline.session.supervisor import RestartPolicy, supervise
from pipeline.session.transport import Transport

log = structlog.get_logger(__name__)


class OpenWebSocket(Protocol):
    """The seam through which sockets are opened; `session.websocket.connect` in earnest."""

    async def __call__(
        self,
        nursery: trio.Nursery,
        url: str,
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        compression: bool = False,
    ) -> Transport: ...


@attrs.frozen(kw_only=True)
class Surroundings:
    """What every connection of a process is given from outside."""

    publish: Publish
    clock: Clock
    random: Callable[[], float]
    open_websocket: OpenWebSocket
    gate: Gate | None = None
    """Who says when reading has to stop; None if it never has to."""
    state_directory: Path | None = None
    """Where what accounts have shown outlives the process; None: it does not."""
    safe_until: Callable[[], int] | None = None
    """Up to when all that was published survives a killed process, in microseconds; None: all does at once."""
    on_order: Callable[[Order], None] | None = None
    """Is told every order event of an account before it is published."""
    publish_all: PublishAll | None = None
    """`publish` for many."""


@attrs.define(eq=False)
class Link:
    """A connection of the plan: makes an attempt after the other, and follows changes of the plan."""

    plan: ConnectionPlan
    venue: Venue
    settings: VenueSettings
    catalogue: Catalogue
    connects: Limiter
    """Shared by all connections to the venue."""
    tls: ssl.SSLContext | None
    around: Surroundings
    rest: VenueRest | None = None
    """For logins, an account's state, and books that start from REST."""
    account: AccountState | None = None
    """Whose events come."""
    archive: Archive | None = None
    """Where what comes is kept as it came, if the plan says so."""
    arrivals: dict[str, Latency] = attrs.field(factory=dict)
    """Where the age of what comes is noted; of the whole venue."""
    stats: ConnectionStats = attrs.field(init=False)
    _resume: dict[str, int] = attrs.field(factory=dict, init=False)
    _books: dict[BookKey, BookSettings] = attrs.field(factory=dict, init=False)
    _relay: Relay | None = attrs.field(default=None, init=False)
    _alarms: dict[Feed, Alarm] = attrs.field(factory=dict, init=False)
    """Of the connections that are open now."""
    _floor: Floor = attrs.field(factory=Floor, init=False)
    """The smallest delay of messages of late, over all generations."""
    _login_failed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        plan = self.plan
        self.stats = ConnectionStats(plan.id, plan.venue, plan.group, plan.endpoint, plan.url, account=plan.login)
        if self.account is not None and self.rest is not None:
            reconcile = self.account.settings
            self.stats.reconciles, self.stats.reconcile_every = reconcile.enabled, reconcile.every
        self._follow(plan)

    async def run(self) -> None:
        """Keep the connection up until cancelled, or refused for good. Raises for a bug beyond the budget."""
        policy = restart_policy(self.settings, self.around.random)
        try:
            await supervise(self.plan.id, self._attempt, policy, observer=self)
        finally:
            if self.stats.state != "refused":
                self._enter("stopped")

    def retarget(self, plan: ConnectionPlan) -> None:
        """Follow a changed plan on the living connection: what stays is not touched."""
        before = {s.topic: s for s in self.plan.subscriptions}
        after = {s.topic: s for s in plan.subscriptions}
        books = self._all_book_options()
        self._follow(plan)
        added = [s for topic, s in after.items() if topic not in before]
        removed = [s for topic, s in before.items() if topic not in after]
        revised = [s for topic, s in after.items() if before.get(topic, s) != s]
        options = self._all_book_options()
        for subscription in removed:
            self.stats.refused.pop(subscription.topic, None)
        if not self._alarms or not (added or removed or revised or options != books):
            return
        log.info("plan_changed", connection=plan.id, added=len(added), removed=len(removed))
        for feed, alarm in self._alarms.items():
            feed.reconfigure_books(options)
            feed.revise(revised)
            if added or removed:
                if feed.tap is None:
                    feed.tap = self._tap(feed.connection, is_held=False, is_joined=True)
                    if feed.tap is not None and (policy := feed.chain.conflated) is not None:
                        feed.tap.conflated(policy)
                feed.change(added, removed)
                alarm.ring()

    def renew_books(self, wanted: Callable[[Subscription], bool], reason: str) -> tuple[int, int]:
        """Ask for new snapshots of the books that are meant.

        Returns how many are asked for, and how many have no snapshot that could be replaced: theirs is on its way.
        """
        meant = [s for s in self.plan.subscriptions if s.kind == BOOK and wanted(s)]
        feeds = [feed for feed in self._alarms if not feed.chain.is_held]
        renewed = sum(any(feed.renew((s.channel, s.instrument), reason) for feed in feeds) for s in meant)
        return renewed, len(meant) - renewed

    def book_standing(self) -> BookStanding:
        """How the books of the newest connection that brings any stand now."""
        standings = [book_standing(feed.chain.books()) for feed in self._alarms]
        return max(reversed(standings), key=lambda each: each.count, default=BookStanding())

    # supervisor.Observer

    def attempt(self, number: int) -> None:
        self._enter("connecting")

    def connected(self) -> None:
        self._enter("live")
        log.info(
            "connection_live",
            connection=self.plan.id,
            generation=self.stats.generation,
            subscribed=self.stats.subscribed,
            refused=len(self.stats.refused),
        )

    def lost(self, reason: str, error: Retryable) -> None:
        self._login_failed = isinstance(error, LoginFailed)
        cause = type(error).__name__
        self.stats.reconnects[cause] = self.stats.reconnects.get(cause, 0) + 1
        self._end("retrying", reason)

    def bug(self, error: Exception) -> None:
        self.stats.reconnects["bug"] = self.stats.reconnects.get("bug", 0) + 1
        self._end("retrying", f"{type(error).__name__}: {error}")

    def retry_in(self, seconds: float) -> None:
        pass

    def refused(self, reason: str) -> None:
        self._end("refused", reason)
        plan, stats = self.plan, self.stats
        # The connection's own last words, if there were any, are those of a loss: that nothing follows is more.
        origin = Origin(plan.venue, plan.endpoint, None, None, plan.account, f"{plan.id}#{stats.generation}")
        self.around.publish(FeedStatus(origin, None, Micros(stats.since), None, "refused", "connection", reason))

    def _attempt(self) -> Relay:
        self._relay = Relay(self.plan.id, self._run_leg, self.settings.timeouts.handover, self._taken_over)
        return self._relay

    async def _run_leg(self, leg: Leg, task_status: trio.TaskStatus[None]) -> None:
        """One connection, from waiting for its turn until it ends."""
        if self.around.gate is not None:
            await self.around.gate.wait_for_room()
        await self.connects.acquire()
        keys = await self._keys()
        errands = None if self.rest is None else Errands(self.rest, keys, self.around.random, self.stats)
        ready = trio.Event()
        leg.feed = feed = self._make_feed(leg, keys, errands, ready)
        limits, alarm = connection_limits(self.settings), Alarm()

        async def dial(nursery: trio.Nursery) -> Transport:
            around = self.around
            transport = await around.open_websocket(
                nursery, self.plan.url, limits=limits, tls=self.tls, compression=self.settings.compression
            )
            if leg.before is None:
                self._enter("subscribing")
            return transport if around.gate is None else GatedTransport(transport, around.gate)

        self._alarms[feed] = alarm
        try:
            async with trio.open_nursery() as nursery:
                if errands is not None:
                    nursery.start_soon(errands.run)
                if errands is not None and self.account is not None:
                    nursery.start_soon(self._keep_reconciled, leg, ready, self.account, errands)
                await run_connection(dial, feed, limits, alarm=alarm, task_status=task_status)
        except BaseExceptionGroup as group:
            end = self._meaning(settle(group))
        finally:
            del self._alarms[feed]
            if feed.tap is not None:
                feed.tap.ended()
        raise end

    async def _keys(self) -> Credentials | None:
        """What to log in with, if anything. Raises `Refused`."""
        rest, name = self.rest, self.plan.login
        if name is None or rest is None or rest.accounts is None:
            return None
        return await verified_credentials(
            rest, self.settings.accounts[name], self.plan.id, login_failed=self._login_failed
        )

    async def _keep_reconciled(self, leg: Leg, ready: trio.Event, account: AccountState, errands: Errands) -> None:
        """Complete the account's state whenever something may have been missed, and now and then."""
        await ready.wait()
        await leg.turn.wait()
        assert leg.feed is not None
        await account.keep_complete(
            leg.feed.connection,
            self._granted(),
            self._publish_of_account(),
            errands,
            self.stats,
            at_once=not leg.seamless,
        )

    def _publish_of_account(self) -> Publish:
        publish, on_order = self.around.publish, self.around.on_order
        if on_order is None:
            return publish

        def told(event: Event) -> bool:
            if isinstance(event, Order):
                on_order(event)
            return publish(event)

        return told

    def _granted(self) -> list[Subscription]:
        return [s for s in self.plan.subscriptions if s.topic not in self.stats.refused]

    def _make_feed(self, leg: Leg, keys: Credentials | None, errands: Errands | None, ready: trio.Event) -> Feed:
        stats, settings, venue, around, plan = self.stats, self.settings, self.venue, self.around, self.plan
        stats.generation += 1
        wanted = self._granted()
        if not wanted:
            reasons = "; ".join(dict.fromkeys(stats.refused.values()))
            raise Refused(f"{stats.venue} refused all of {plan.id}: {reasons}")
        name = f"{plan.id}#{stats.generation}"
        login = None if keys is None or self.rest is None else self.rest.login(keys)
        session = venue.session(plan.endpoint, wanted, session_times(venue.session_times, settings), login)
        # A replacement must not take things for published that its predecessor has only just received.
        resume = self._resume if leg.before is None else dict(self._resume)
        publish, publish_all = around.publish, around.publish_all
        if self.account is not None:
            publish, publish_all = self.account.publishing(self._publish_of_account(), stats), None
        options, account = self._book_options, plan.account
        chain = Chain(
            venue, plan.endpoint, name, self.catalogue, publish, options, resume, account, publish_all=publish_all
        )
        times = FeedTimes(settings.timeouts.first_data, settings.silent_reconnects)

        def news() -> None:
            if feed.ready:
                ready.set()
            if self._relay is not None:
                self._relay.wake()

        feed = Feed(
            name,
            session,
            chain,
            around.publish,
            around.clock,
            stats,
            times,
            self._log,
            news,
            errands,
            lambda key: self._books[key].seed_after if key in self._books else None,
            self._tap(name, is_held=leg.before is not None),
            LagMeter(settings.overload.lag, self._floor),
            self._conflation,
            lambda: around.gate is None or around.gate.has_room,
            self.arrivals,
        )
        self._note_clock()
        if leg.before is not None:
            feed.hold()
        return feed

    def _note_clock(self) -> None:
        """Where the venue has told its time, a connection that begins with a lag is not taken for an unhurried one."""
        offset = self.rest.fresh_offset_us if self.rest is not None else None
        if offset is not None:
            now = trio.current_time()
            self._floor.note(now - (self.around.clock() + offset) / 1e6, now)

    def _conflation(self) -> ConflationPolicy | None:
        wanted = (want.subscription for want in self.plan.wants if want.is_conflated)
        topics = frozenset((s.channel if s.kind in (BOOK, BBO) else None, s.instrument) for s in wanted)
        return ConflationPolicy(topics, round(self.settings.overload.interval * 1e6)) if topics else None

    def _tap(self, connection: str, *, is_held: bool, is_joined: bool = False) -> Tap | None:
        plan = self.plan
        if self.archive is None or not plan.is_archived:
            return None
        books = self._all_book_options()
        return self.archive.opened(connection, plan.endpoint, plan.account, books, is_held=is_held, is_joined=is_joined)

    def _meaning(self, end: BaseException) -> BaseException:
        if isinstance(end, ConnectionClosed) and (better := self.venue.close_error(end.code, end.reason)) is not None:
            return better
        return end

    def _taken_over(self, leg: Leg) -> None:
        assert leg.feed is not None
        self._resume = leg.feed.chain.resume

    def _book_options(self, key: BookKey) -> BookOptions:
        book = self._books.get(key, BookSettings(snapshot_interval=None))
        interval = book.snapshot_interval
        return BookOptions(
            book.derive_bbo,
            round(interval * 1e6) if interval is not None else None,
            book.top_levels,
            round(book.top_interval * 1e6),
        )

    def _all_book_options(self) -> dict[BookKey, BookOptions]:
        return {key: self._book_options(key) for key in self._books}

    def _follow(self, plan: ConnectionPlan) -> None:
        self.plan = plan
        self.stats.subscriptions = len(plan.wants)
        self._books.clear()
        self._books.update(
            ((want.subscription.channel, want.subscription.instrument), want.book)
            for want in plan.wants
            if want.subscription.kind == "book"
        )

    def _enter(self, state: str) -> None:
        self.stats.state = state
        self.stats.since = self.around.clock()

    def _end(self, state: str, reason: str) -> None:
        self.stats.last_error = reason
        self.stats.subscribed = 0
        self._enter(state)

    def _log(self, event: str, text: str) -> None:
        log.warning(event, connection=self.plan.id, text=text)


def restart_policy(settings: VenueSettings, random: Callable[[], float]) -> RestartPolicy:
    """When to try again, as configured."""
    reconnect = settings.reconnect
    return RestartPolicy(
        random=random,
        base_s=reconnect.first,
        factor=reconnect.factor,
        cap_s=reconnect.max,
        max_bugs=reconnect.max_bugs,
        bug_window_s=reconnect.bug_window,
    )


def connection_limits(settings: VenueSettings) -> Limits:
    """Bounds of a connection as configured."""
    timeouts = settings.timeouts
    return Limits(
        connect=timeouts.connect,
        handshake=timeouts.handshake,
        ready=timeouts.ready,
        send=timeouts.send,
        close=timeouts.close,
        max_message_bytes=settings.max_message_bytes,
        batch=settings.overload.messages_per_turn,
    )
