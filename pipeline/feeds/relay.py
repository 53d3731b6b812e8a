"""Make before break: when the end of a connection is announced, its replacement is opened beside it and takes over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from pipeline.feeds.feed import Feed
from pipeline.session.failures import describe

log = structlog.get_logger(__name__)

SETTLING = 1.0
"""Seconds a replacement runs before it takes over: what the old connection had under way arrives meanwhile."""
RETRY = 5.0
"""Seconds until another replacement is tried when one has failed."""
MAX_HELD = 200_000
"""Events kept back by a replacement; with more of them it takes over at once."""


@attrs.define(eq=False)
class Leg:
    """One connection of a relay."""

    before: Leg | None
    """Whom it is to replace."""
    feed: Feed | None = attrs.field(default=None, init=False)
    """None until it is about to connect."""
    turn: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when its events are what is published."""
    seamless: bool = attrs.field(default=False, init=False)
    """Whether it took over from a connection that was still alive, so that nothing can be missing."""
    end: Exception | None = attrs.field(default=None, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def connected(self) -> bool:
        """Whether its socket has been open."""
        return self.feed is not None and self.feed.connected


RunLeg = Callable[[Leg, trio.TaskStatus[None]], Awaitable[None]]
"""Runs one connection until it ends, which it does with an exception; sets the leg's feed before it connects."""


@attrs.define(eq=False)
class Relay:
    """Connections that follow each other without a gap; a `supervisor.Child` that ends when one has no successor."""

    name: str
    run_leg: RunLeg
    handover: float
    """Seconds that a ready replacement waits for the old connection to reach the point where it began."""
    taken_over: Callable[[Leg], None]
    """Told of a replacement in its new place."""
    legs: list[Leg] = attrs.field(factory=list, init=False)
    """The connections at this moment: the current one, and its replacement if there is one."""
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _retry_at: float = attrs.field(default=float("-inf"), init=False)

    @property
    def flowing(self) -> bool:
        """Whether real data has come over any of the connections."""
        return any(leg.feed is not None and leg.feed.flowing for leg in self.legs)

    def wake(self) -> None:
        """Something has changed: a notice, a replacement that is ready, an end."""
        self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until a connection ends that nobody replaces; raises why."""
        async with trio.open_nursery() as nursery:
            self._start(nursery, None, task_status)
            while True:
                await self._news.wait()
                self._news = trio.Event()
                self._look(nursery)

    def _start(self, nursery: trio.Nursery, before: Leg | None, task_status: trio.TaskStatus[None]) -> None:
        leg = Leg(before)
        if before is None:
            leg.turn.set()
        self.legs.append(leg)
        nursery.start_soon(self._run, leg, task_status)

    async def _run(self, leg: Leg, task_status: trio.TaskStatus[None]) -> None:
        with leg.scope:
            try:
                await self.run_leg(leg, task_status)
            except Exception as error:  # noqa: BLE001 - raised again, or logged, by `_look`
                leg.end = error
        self.wake()

    def _look(self, nursery: trio.Nursery) -> None:
        current, *others = self.legs
        successor = others[0] if others else None
        now = trio.current_time()
        if successor is not None and successor.end is not None:
            log.warning("replacement_failed", connection=self.name, text=describe(successor.end))
            self.legs.remove(successor)
            self._retry_at, successor = now + RETRY, None
        if current.end is not None:
            if successor is None or not successor.connected:
                raise current.end
            self._hand_over(current, successor, now)
        elif successor is not None:
            if self._is_ripe(current, successor, now):
                self._hand_over(current, successor, now)
        elif current.feed is not None and current.feed.ends_soon and now >= self._retry_at:
            log.info("replacement_opened", connection=self.name)
            self._start(nursery, current, trio.TASK_STATUS_IGNORED)

    def _is_ripe(self, current: Leg, successor: Leg, now: float) -> bool:
        new, old = successor.feed, current.feed
        if new is None or old is None or not new.connected:
            return False
        if new.chain.held > MAX_HELD:
            return True
        waited = now - new.ready_since
        return waited >= SETTLING and (new.can_follow(old) or waited >= self.handover)

    def _hand_over(self, current: Leg, successor: Leg, now: float) -> None:
        assert current.feed is not None and successor.feed is not None
        successor.seamless = current.end is None and successor.feed.can_follow(current.feed)
        successor.feed.take_over(current.feed, now, seamless=successor.seamless)
        successor.before = None
        successor.turn.set()
        self.legs.remove(current)
        current.scope.cancel()
        log.info("replacement_took_over", connection=self.name, seamless=successor.seamless)
        self.taken_over(successor)
