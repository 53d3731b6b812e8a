"""One planned connection over its whole life: a new session and feed per attempt, one set of counters."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

import attrs
import structlog
import trio

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.venue import Catalogue, Venue
from pipeline.feeds.chain import BookKey, Chain, Publish
from pipeline.feeds.feed import Feed, FeedTimes
from pipeline.feeds.plan import ConnectionPlan
from pipeline.feeds.settings import BookSettings, VenueSettings
from pipeline.feeds.specs import session_times
from pipeline.model.errors import Refused, Retryable
from pipeline.model.stats import ConnectionStats
from pipeline.session.clock import Clock
from pipeline.session.connection import Alarm, Connection
from pipeline.session.limiter import Limiter
from pipeline.session.limits import Limits
from pipeline.session.supervisor import RestartPolicy, supervise
from pipeline.session.transport import Transport

log = structlog.get_logger(__name__)


class OpenWebSocket(Protocol):
    """The seam through which sockets are opened; `session.websocket.connect` in earnest."""

    async def __call__(
        self, nursery: trio.Nursery, url: str, *, limits: Limits, tls: ssl.SSLContext | None = None
    ) -> Transport: ...


@attrs.frozen(kw_only=True)
class Surroundings:
    """What every connection of a process is given from outside."""

    publish: Publish
    clock: Clock
    random: Callable[[], float]
    open_websocket: OpenWebSocket


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
    stats: ConnectionStats = attrs.field(init=False)
    _resume: dict[str, int] = attrs.field(factory=dict, init=False)
    _books: dict[BookKey, BookSettings] = attrs.field(factory=dict, init=False)
    _feed: Feed | None = attrs.field(default=None, init=False)
    _alarm: Alarm = attrs.field(factory=Alarm, init=False)

    def __attrs_post_init__(self) -> None:
        plan = self.plan
        self.stats = ConnectionStats(plan.id, plan.venue, plan.group, plan.endpoint, plan.url)
        self._follow(plan)

    async def run(self) -> None:
        """Keep the connection up until cancelled, or refused for good. Raises for a bug beyond the budget."""
        reconnect = self.settings.reconnect
        policy = RestartPolicy(
            random=self.around.random,
            base_s=reconnect.first,
            cap_s=reconnect.max,
            max_bugs=reconnect.max_bugs,
            bug_window_s=reconnect.bug_window,
        )
        try:
            await supervise(self.plan.id, self._attempt, policy, observer=self)
        finally:
            self._feed = None
            if self.stats.state != "refused":
                self._enter("stopped")

    def retarget(self, plan: ConnectionPlan) -> None:
        """Follow a changed plan on the living connection: what stays is not touched."""
        before = {s.topic: s for s in self.plan.subscriptions}
        after = {s.topic: s for s in plan.subscriptions}
        self._follow(plan)
        added = [s for topic, s in after.items() if topic not in before]
        removed = [s for topic, s in before.items() if topic not in after]
        for subscription in removed:
            self.stats.refused.pop(subscription.topic, None)
        if self._feed is not None and (added or removed):
            log.info("plan_changed", connection=plan.id, added=len(added), removed=len(removed))
            self._feed.change(added, removed)
            self._alarm.ring()

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

    def _attempt(self) -> _Attempt:
        stats, settings, venue, around = self.stats, self.settings, self.venue, self.around
        stats.generation += 1
        wanted = [s for s in self.plan.subscriptions if s.topic not in stats.refused]
        if not wanted:
            reasons = "; ".join(dict.fromkeys(stats.refused.values()))
            raise Refused(f"{stats.venue} refused all of {self.plan.id}: {reasons}")
        name = f"{self.plan.id}#{stats.generation}"
        session = venue.session(self.plan.endpoint, wanted, session_times(venue.session_times, settings))
        chain = Chain(venue, self.plan.endpoint, name, self.catalogue, around.publish, self._book_options, self._resume)
        times = FeedTimes(settings.timeouts.first_data, settings.silent_reconnects)
        self._feed = Feed(name, session, chain, around.publish, around.clock, stats, times, self._log)
        self._alarm = Alarm()
        limits = connection_limits(settings)

        async def dial(nursery: trio.Nursery) -> Transport:
            transport = await around.open_websocket(nursery, self.plan.url, limits=limits, tls=self.tls)
            self._enter("subscribing")
            return transport

        return _Attempt(Connection(dial, self._feed, limits, self._alarm), self.connects)

    def _book_options(self, key: BookKey) -> BookOptions:
        book = self._books.get(key, BookSettings(snapshot_interval=None))
        interval = book.snapshot_interval
        return BookOptions(
            book.derive_bbo,
            round(interval * 1e6) if interval is not None else None,
            book.top_levels,
            round(book.top_interval * 1e6),
        )

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


@attrs.define(eq=False)
class _Attempt:
    """One generation that first waits for its turn to connect."""

    connection: Connection
    connects: Limiter

    @property
    def flowing(self) -> bool:
        return self.connection.flowing

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.connects.acquire()
        await self.connection.run(task_status=task_status)


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
    )
