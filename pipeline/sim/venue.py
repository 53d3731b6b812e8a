"""A simulated exchange, put together: `open_venue` runs one, and what it yields can be watched and broken."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TextIO

import attrs
import trio

from pipeline.model.rate import Budget
from pipeline.sim import bybit, okx
from pipeline.sim.accounts import SimulatedAccount, digits, uuids
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.control import control
from pipeline.sim.dialect import Dialect
from pipeline.sim.faults import Fault
from pipeline.sim.floor import Floor, Market
from pipeline.sim.generator import Generator
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing, bybit_defaults, okx_defaults
from pipeline.sim.market import Engine
from pipeline.sim.replay import Replay, read_recording
from pipeline.sim.sabotage import Sabotage
from pipeline.sim.sent import SentRecord, topic_matches
from pipeline.sim.server import serve_stream
from pipeline.sim.settings import Account, Limits, MarketSettings, ReplaySettings
from pipeline.sim.tally import Tally
from pipeline.sim.toggles import Toggles
from pipeline.sim.wire import Connection, Message

VENUES = ("bybit", "okx")


@attrs.define(eq=False)
class SimulatedVenue:
    """A running simulated exchange. Methods are synchronous unless they wait for something."""

    name: str
    floor: Floor
    dialect: Dialect
    limits: Limits
    toggles: Toggles
    accounts: dict[str, SimulatedAccount]
    """By name."""
    tls: ssl.SSLContext | None
    replay: Replay | None
    """The recording being played, if that is the source."""
    host: str = "127.0.0.1"
    port: int = 0
    connections: list[Connection] = attrs.field(factory=list, init=False)
    """The open ones, oldest first."""
    opened: int = attrs.field(default=0, init=False)
    """Connections so far."""
    _connects: Budget = attrs.field(init=False)
    _rest: dict[str, Budget] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._connects = Budget(self.limits.connects)

    @property
    def websocket_url(self) -> str:
        """Base to which the venue's paths are appended."""
        return f"{'ws' if self.tls is None else 'wss'}://{self._authority}"

    @property
    def rest_url(self) -> str:
        """Base of the REST interface, and of `/sim/`."""
        return f"{'http' if self.tls is None else 'https'}://{self._authority}"

    @property
    def _authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def sent(self) -> SentRecord:
        """What was written to sockets."""
        return self.floor.sent

    @property
    def tally(self) -> Tally:
        """Which orders clients have asked for, and which were taken."""
        return self.dialect.tally

    def fault(self, kind: str, **fields: Any) -> int:
        """Break something now; see `Fault` for the fields. Returns how many connections were hit, or 1.

        Raises `ValueError` for an unknown kind or a fault that this venue cannot have.
        """
        return self.apply(Fault(kind, **fields))

    def apply(self, fault: Fault) -> int:
        """As `fault`, for a fault built elsewhere."""
        return Sabotage(self.floor, self.dialect, self.toggles, self.connections).apply(fault)

    def revoke(self, name: str, *, expired: bool = False, drop: bool = False) -> int:
        """Refuse an account's key from now on, as unknown or expired; returns how many connections that ended.

        They are closed as the venue does it, or with `drop` cut without a close frame. Raises `KeyError` for an
        unknown account.
        """
        account = self.accounts[name]
        account.revoked = "expired" if expired else "revoked"
        hit = [connection for connection in self.connections if connection.account == account.settings.key]
        for connection in hit:
            if drop:
                connection.drop()
            else:
                self.dialect.cut_revoked(connection)
        return len(hit)

    def list_instrument(self, listing: Listing) -> None:
        """List an instrument; it is in REST at once, and can be subscribed to."""
        self.floor.market.listings[listing.market, listing.symbol] = listing
        self._relisted(listing, listed=True)

    def delist(self, market: str, symbol: str) -> None:
        """Take an instrument off: topics about it bring nothing more. Raises `KeyError` if it is not listed."""
        self._relisted(self.floor.market.listings.pop((market, symbol)), listed=False)

    def _relisted(self, listing: Listing, *, listed: bool) -> None:
        self.floor.source.relisted()
        self.dialect.relisted(listing, listed=listed)
        self.floor.touch()

    def engine(self, market: str, symbol: str) -> Engine:
        """The market behind an instrument: its true book and last trades. Raises `KeyError` if it is not listed."""
        return self.floor.market.engine(self.floor.market.listings[market, symbol])

    def subscriptions(self, pattern: str = "*") -> int:
        """How many subscriptions to the topics that `pattern` means exist now, over all connections."""
        return sum(
            len(connections) for topic, connections in self.floor.subscribers.items() if topic_matches(topic, pattern)
        )

    async def wait_subscribed(self, pattern: str = "*", count: int = 1) -> None:
        """Wait until `count` such subscriptions exist."""
        while self.subscriptions(pattern) < count:
            await self.floor.changed.park()

    async def wait_sent(self, count: int, pattern: str = "*") -> None:
        """Wait until that many messages of such topics were written to sockets, counted from the beginning."""
        while self.sent.count(pattern) < count:
            await self.floor.changed.park()

    async def wait_asked(self, count: int) -> None:
        """Wait until so many orders were asked for, amended or cancelled by clients, counted from the beginning."""
        while self.tally.received.total() < count:
            await self.tally.changed.park()

    async def wait_written(self) -> None:
        """Wait until the sockets have taken all that is queued, so that `sent` holds it."""
        while any(connection.is_behind for connection in self.connections):
            await self.floor.changed.park()

    async def wait_connections(self, count: int) -> None:
        """Wait until exactly so many connections are open."""
        while len(self.connections) != count:
            await self.floor.changed.park()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one client on any stream, e.g. one end of a pair in memory, until it ends."""
        handover = await serve_stream(stream, self.tls, self._answer, self._welcome)
        if handover is None:
            return
        index, self.opened = self.opened, self.opened + 1
        endpoint = str(self.dialect.endpoint(handover.request.path))
        connection = Connection(
            index=index,
            endpoint=endpoint,
            path=handover.request.target,
            id=self.dialect.connection_id(index, endpoint),
            stream=handover.stream,
            websocket=handover.websocket,
            idle=self.dialect.idle(handover.request),
            outbox_bytes=self.limits.outbox_bytes,
            frames_per_send=self.limits.frames_per_send or (64 if self.tls is None else 1),
            request_bytes=self.limits.request_bytes,
            on_sent=self._sent,
            on_overflow=self.dialect.cut_slow,
        )
        self.connections.append(connection)
        self.floor.touch()
        try:
            await connection.run(lambda text: self.dialect.receive(connection, text))
        finally:
            self.connections.remove(connection)
            self.floor.leave(connection)

    async def watch_idleness(self) -> None:
        """Close connections that were idle for too long, for ever."""
        while True:
            await trio.sleep(self.limits.idle_tick)
            for connection in list(self.connections):
                idle = trio.current_time() - connection.last_activity
                if idle >= connection.idle and not connection.silent:
                    self.dialect.cut_idle(connection)

    def _sent(self, connection: Connection, message: Message) -> None:
        self.sent.add(connection, message)
        self.floor.changed.unpark_all()

    def _welcome(self, request: Request) -> Response | None:
        if self.dialect.endpoint(request.path) is None:
            return Response.json({"error": f"no WebSocket at {request.path}"}, 404)
        try:
            self.dialect.idle(request)
        except ValueError as error:
            return Response.json({"error": str(error)}, 400)
        if self.toggles.refuses_upgrade():
            return Response.json({"error": "refused on demand"}, self.toggles.upgrade_status)
        if self._connects.wait(trio.current_time()) > 0:
            return Response.json({"error": "too many connections"}, self.limits.refused_status)
        self._connects.take(trio.current_time())
        return None

    def _answer(self, request: Request) -> Response:
        if request.path.startswith("/sim/"):
            return control(self, request)
        budget = self._rest.setdefault(self.dialect.rest_bucket(request), Budget(self.limits.rest))
        if budget.wait(trio.current_time()) > 0:
            return self.dialect.rest_refusal()
        budget.take(trio.current_time())
        return self.dialect.rest(request) or Response.json({"error": f"nothing at {request.path}"}, 404)


def default_limits(name: str) -> Limits:
    """The limits that the venue publishes."""
    return bybit.LIMITS if name == "bybit" else okx.LIMITS


def _open_accounts(venue: str, accounts: Iterable[Account], floor: Floor) -> dict[str, SimulatedAccount]:
    opened: dict[str, SimulatedAccount] = {}
    identify = uuids if venue == "bybit" else digits
    for index, settings in enumerate(accounts):
        account = SimulatedAccount(settings, index, floor.market, floor.clock, identify)
        if account.name in opened or any(each.settings.key == settings.key for each in opened.values()):
            raise ValueError(f"account {account.name}: two accounts have its name or its key")
        opened[account.name] = account
    return opened


@asynccontextmanager
async def open_venue(
    name: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    market: MarketSettings | None = None,
    replay: ReplaySettings | None = None,
    limits: Limits | None = None,
    accounts: Iterable[Account] = (),
    keep: bool = True,
    journal: TextIO | None = None,
    start_us: int | None = None,
    listen: bool = True,
) -> AsyncIterator[SimulatedVenue]:
    """Run a simulated exchange for as long as the block lasts; leaving it cuts every connection.

    `start_us` is the venue's wall-clock time at the start, by default the real one. With `listen=False` there is no
    port, and clients come through `SimulatedVenue.serve`. Raises `OSError` if the port cannot be had or a recording
    cannot be read, `ValueError` for an unknown venue, two accounts of one name or key, or a faulty recording.
    """
    if name not in VENUES:
        raise ValueError(f'unknown venue "{name}"; known are {", ".join(VENUES)}')
    market = market or MarketSettings()
    limits = limits or default_limits(name)
    listings = market.instruments
    if listings is None:
        listings = bybit_defaults() if name == "bybit" else okx_defaults()
    clock = SimulatedClock() if start_us is None else SimulatedClock(start_us)
    floor = Floor(
        clock, Market(market, {(each.market, each.symbol): each for each in listings}), SentRecord(keep, journal)
    )
    toggles = Toggles()
    opened = _open_accounts(name, accounts, floor)
    make = bybit.BybitDialect if name == "bybit" else okx.OkxDialect
    dialect: Dialect = make(floor, toggles, tuple(opened.values()), limits)
    player = None
    if replay is not None:
        player = Replay(floor, dialect, replay, read_recording(replay.files, dialect))
    floor.source = player or Generator(floor, dialect.stream)
    venue = SimulatedVenue(name, floor, dialect, limits, toggles, opened, tls, player, host, port)
    listeners = await trio.open_tcp_listeners(port, host=host) if listen else []
    async with trio.open_nursery() as nursery:
        toggles.nursery = nursery
        if listeners:
            venue.port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, venue.serve, listeners)
        nursery.start_soon(floor.source.run)
        nursery.start_soon(venue.watch_idleness)
        try:
            yield venue
        finally:
            nursery.cancel_scope.cancel()
