"""One venue: its catalogue, the plan that follows from it, and the connections of the plan."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import Protocol

import attrs
import structlog
import trio

from pipeline.exchanges.venue import Catalogue, Subscription, Venue
from pipeline.feeds.account_file import AccountFile
from pipeline.feeds.account_state import AccountState
from pipeline.feeds.catalogue import InstrumentBook, read_market
from pipeline.feeds.link import Link, Surroundings, restart_policy
from pipeline.feeds.plan import (
    ConnectionPlan,
    Key,
    VenuePlan,
    catalogue_markets,
    hosts,
    make_plan,
    own_accounts,
    publishes_instruments,
)
from pipeline.feeds.settings import VenueSettings
from pipeline.feeds.shares import WHOLE, Share, part_of
from pipeline.feeds.tap import Archive
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.errors import BadMessage, Refused, SessionError
from pipeline.model.events import Instrument
from pipeline.model.stats import VenueStats
from pipeline.session.clock import Clock
from pipeline.session.limiter import Limiter
from pipeline.session.rest import RestClient, RestLimits

log = structlog.get_logger(__name__)

FORBIDDEN_PAUSE = 600.0
"""Seconds without REST requests after an HTTP 403: Bybit's ban for too many requests lasts ten minutes."""
HELD_REFRESHES = 2.5
"""How long a topic that another share has to take over is kept, in intervals of the catalogue's refresh: the other one
learns of it at its own next reading, or should that fail at the one after, and until then it would be nobody's."""


def tls_context(settings: VenueSettings) -> ssl.SSLContext | None:
    """Trust in the configured authorities only; None for the system's."""
    ca_file = settings.urls.ca_file
    return ssl.create_default_context(cafile=ca_file) if ca_file is not None else None


@asynccontextmanager
async def open_rest(
    venue: Venue, settings: VenueSettings, random: Callable[[], float], clock: Clock, limiter: Limiter | None = None
) -> AsyncIterator[VenueRest]:
    """The venue's REST hosts within the venue's rate."""
    base, limiter = hosts(venue, settings), limiter or Limiter(venue.rest_requests)
    async with AsyncExitStack() as stack:
        clients = {
            url: await stack.enter_async_context(
                RestClient(
                    url,
                    limiter=limiter,
                    random=random,
                    limits=RestLimits(attempt=settings.timeouts.rest, hold_on_403=FORBIDDEN_PAUSE),
                    tls=tls_context(settings),
                    headers=base.rest_headers,
                )
            )
            for url in dict.fromkeys((base.rest, base.private_rest))
        }
        yield VenueRest(clients[base.rest], clients[base.private_rest], venue.accounts, clock)


async def read_catalogue(venue: Venue, settings: VenueSettings, rest: Listing, clock: Clock) -> InstrumentBook:
    """All instruments that the settings' patterns need, read once. Raises `SessionError` or `BadMessage`."""
    book = InstrumentBook()
    for market in catalogue_markets(venue, settings):
        book.replace(market, await read_market(venue, market, rest.get_json_bytes, clock), clock())
    return book


class Listing(Protocol):
    """Where the catalogue is read; a `VenueRest` in earnest."""

    async def get_json_bytes(self, path: str) -> bytes:
        """The body of a GET; raises `SessionError`."""


@attrs.define(eq=False)
class Intake:
    """Runs one venue; a refused venue stops alone, and asks again at the pace of the catalogue's refresh."""

    name: str
    venue: Venue
    settings: VenueSettings
    around: Surroundings
    archive: Archive | None = None
    """Where what comes is kept as it came."""
    share: Share = WHOLE
    siblings: int = 1
    """Processes on this machine, this one included, that keep to the venue's rates together."""
    stats: VenueStats = attrs.field(init=False)
    listed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the catalogue has been read for the first time."""
    _instruments: InstrumentBook = attrs.field(factory=InstrumentBook, init=False)
    _links: dict[str, Link] = attrs.field(factory=dict, init=False)
    _scopes: dict[str, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _plan: tuple[ConnectionPlan, ...] = attrs.field(default=(), init=False)
    _rest: VenueRest | None = attrs.field(default=None, init=False)
    _accounts: dict[str, AccountState] = attrs.field(factory=dict, init=False)
    _connects: Limiter = attrs.field(init=False)
    _requests: Limiter = attrs.field(init=False)
    _markets: set[str] = attrs.field(factory=set, init=False)
    """Whose catalogue has been read."""
    _failures: int = attrs.field(default=0, init=False)
    """Readings of the catalogue that failed in a row."""
    _back_off: float = attrs.field(default=0.0, init=False)
    """Seconds to wait after the last of them."""
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when there are settings that the plan does not follow yet."""
    _leaving: dict[Key, float] = attrs.field(factory=dict, init=False)
    """Until when topics are kept that belong to another share by now."""

    def __attrs_post_init__(self) -> None:
        self.stats = VenueStats(self.name)
        self._connects = Limiter(part_of(self.venue.connects, self.siblings))
        self._requests = Limiter(part_of(self.venue.rest_requests, self.siblings))

    def refreshed_stats(self) -> VenueStats:
        """The counters, with what is only looked up when somebody asks."""
        self.stats.connect_waiting = self._connects.waiting
        self.stats.connect_waited = self._connects.waited_s
        self.stats.rest_waited = self._requests.waited_s
        self.stats.markets = len(catalogue_markets(self.venue, self.settings))
        self.stats.markets_read = self.stats.markets - len(self._missing_markets())
        self.stats.state_failures = sum(account.save_failures for account in self._accounts.values())
        if self._rest is not None:
            self.stats.clock_offset = self._rest.offset_us
            self.stats.clock_failures = self._rest.clock_failures
        return self.stats

    async def run(self) -> None:
        """Run until cancelled. Raises only for bugs."""
        around = self.around
        async with open_rest(self.venue, self.settings, around.random, around.clock, self._requests) as rest:
            self._rest = rest
            side, accounts, entries = self.venue.accounts, self.settings.accounts, self._instruments.entries
            if side is not None:
                self._accounts = {
                    name: AccountState(
                        name, accounts[name].reconcile, side, entries, rest, self._account_file(name), around.safe_until
                    )
                    for name in own_accounts(self.name, self.settings, self.share)
                }
            async with trio.open_nursery() as nursery:
                for account in self._accounts.values():
                    await account.recall()
                    nursery.start_soon(account.keep_saved)
                await self.follow(rest, tls_context(self.settings))

    async def save_accounts(self) -> None:
        """Note what the accounts have shown, after the end of `run` and when all that was published is safe."""
        for account in self._accounts.values():
            await account.save()

    async def follow(self, listing: Listing, tls: ssl.SSLContext | None) -> None:
        """Keep connections as the settings and the listing want them, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                changed, self._changed = self._changed, trio.Event()
                # What has changed must not wait for the catalogue of a market that is new.
                if await self._refresh(listing) or (changed.is_set() and self.stats.catalogue_reads):
                    self._apply(nursery, tls)
                with trio.move_on_after(self._pause()) as pause:
                    await self._changed.wait()
                    while not self._missing_markets():
                        self._changed = trio.Event()
                        self._apply(nursery, tls)
                        pause.deadline = min(pause.deadline, trio.current_time() + self._pause())
                        await self._changed.wait()

    def retarget(self, settings: VenueSettings) -> None:
        """Follow other settings, soon and on the living connections: what they have in common is not touched.

        `channels`, `refresh_instruments`, `publish_instruments` and `max_topics_per_connection` may differ.
        """
        self.settings = settings
        self._changed.set()

    def renew_books(self, wanted: Callable[[Subscription], bool], reason: str) -> tuple[int, int]:
        """Ask for new snapshots of order books, as `Link.renew_books`."""
        found = [link.renew_books(wanted, reason) for link in self._links.values()]
        return sum(renewed for renewed, _ in found), sum(waiting for _, waiting in found)

    @property
    def catalogue(self) -> Catalogue:
        """The instruments known so far; it follows the venue."""
        return self._instruments.entries

    @property
    def rest(self) -> VenueRest | None:
        """The venue's REST hosts; None before `run`."""
        return self._rest

    @property
    def connects(self) -> Limiter:
        """Whose turn it is to connect to the venue."""
        return self._connects

    @property
    def links(self) -> Mapping[str, Link]:
        """The connections by identifier."""
        return self._links

    def _account_file(self, account: str) -> AccountFile | None:
        directory = self.around.state_directory
        return AccountFile(directory, self.name, account) if directory is not None else None

    async def _refresh(self, listing: Listing) -> bool:
        """Read the catalogue; True if a plan can be made."""
        stats = self.stats
        try:
            for market in catalogue_markets(self.venue, self.settings):
                found = await read_market(self.venue, market, listing.get_json_bytes, self.around.clock)
                self._markets.add(market)
                # At once: what the next market's trouble held back would never be published.
                self._announce(market, self._instruments.replace(market, found, self.around.clock()))
        except (SessionError, BadMessage) as error:
            stats.catalogue_failures += 1
            self._failures += 1
            self._back_off = restart_policy(self.settings, self.around.random).delay(self._failures)
            stats.last_error = str(error)
            if not stats.catalogue_reads:
                stats.state = "refused" if isinstance(error, Refused) else "starting"
            log.error("catalogue_unreadable", venue=self.name, text=str(error), retry_in=self._pause())
            return False
        stats.catalogue_reads += 1
        self.listed.set()
        self._failures = 0
        stats.instruments = len(self._instruments.entries)
        return True

    def _announce(self, market: str, changed: list[Instrument]) -> None:
        if self.archive is not None:
            self.archive.known(market, changed)
        if self.settings.publish_instruments and publishes_instruments(self.name, market, self.share):
            if self.archive is not None:
                self.archive.listed(changed)
            for instrument in changed:
                self.around.publish(instrument)

    def _missing_markets(self) -> set[str]:
        return set(catalogue_markets(self.venue, self.settings)) - self._markets

    def _pause(self) -> float:
        """Seconds to the next reading: soon while there is nothing to run with, unless the venue refused."""
        refresh = self.settings.refresh_instruments
        if not self._missing_markets() or self.stats.state == "refused":
            return refresh
        return min(refresh, self._back_off)

    def _apply(self, nursery: trio.Nursery, tls: ssl.SSLContext | None) -> None:
        plan = self._make_plan()
        self._note_unmatched(plan)
        self.stats.state = "running"
        self._plan = plan.connections
        wanted = {connection.id: connection for connection in plan.connections}
        for name in [name for name in self._links if name not in wanted]:
            self._scopes.pop(name).cancel()
            del self._links[name], self.stats.connections[name]
        for name, connection in wanted.items():
            link = self._links.get(name)
            if link is not None:
                link.retarget(connection)
            if link is None or (link.stats.state == "refused" and self._has_news(link)):
                link = Link(
                    connection,
                    self.venue,
                    self.settings,
                    self._instruments.entries,
                    self._connects,
                    tls,
                    self.around,
                    self._rest,
                    self._accounts.get(connection.account or ""),
                    self.archive,
                    self.stats.arrivals,
                )
                self._links[name] = link
                self.stats.connections[name] = link.stats
                scope = self._scopes[name] = trio.CancelScope()
                nursery.start_soon(self._run_link, link, scope, name=name)

    def _make_plan(self) -> VenuePlan:
        """Topics that listings have moved to another share stay for a while: better twice than not at all."""
        now, pause = trio.current_time(), self.settings.refresh_instruments
        present = (want.key for connection in self._plan for want in connection.wants)
        keep = {key for key in present if self._leaving.get(key, inf) > now}
        entries = self._instruments.entries
        plan = make_plan(self.name, self.venue, self.settings, entries, self._plan, share=self.share, keep=keep)
        moving = plan.leaving - self._leaving.keys()
        if moving:
            log.info("topics_move_to_other_shares", venue=self.name, count=len(moving))
        self._leaving = {key: self._leaving.get(key, now + HELD_REFRESHES * pause) for key in plan.leaving}
        return plan

    async def _run_link(self, link: Link, scope: trio.CancelScope) -> None:
        with scope:
            await link.run()

    def _has_news(self, link: Link) -> bool:
        return any(s.topic not in link.stats.refused for s in link.plan.subscriptions)

    def _note_unmatched(self, plan: VenuePlan) -> None:
        if plan.unmatched != self.stats.unmatched:
            self.stats.unmatched = plan.unmatched
            if plan.unmatched:
                log.warning("nothing_matches", venue=self.name, patterns=list(plan.unmatched))
