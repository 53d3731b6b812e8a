"""The connection for orders over its whole life: one attempt after the other, one request stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import structlog
import trio

from pipeline.exchanges.trading import Answer, TradeRequest
from pipeline.exchanges.venue import Venue
from pipeline.feeds.intake import tls_context
from pipeline.feeds.link import OpenWebSocket, connection_limits, restart_policy
from pipeline.feeds.plan import hosts
from pipeline.feeds.settings import VenueSettings
from pipeline.feeds.specs import session_times
from pipeline.feeds.venue_rest import VenueRest, verified_credentials
from pipeline.model.errors import ConnectionLost, LoginFailed, Retryable
from pipeline.model.order_stats import OrderStats
from pipeline.orders.conversation import TradeConversation
from pipeline.session.connection import Alarm, run_connection
from pipeline.session.limiter import Limiter
from pipeline.session.supervisor import supervise
from pipeline.session.transport import Transport

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who waits for answers."""

    def answered(self, answer: Answer) -> None:
        """The venue has answered."""

    def over(self, requests: list[str], reason: str) -> None:
        """The answers to these requests will not come."""

    def link_changed(self) -> None:
        """`is_open` may have changed."""


@attrs.define(eq=False, kw_only=True)
class TradeLink:
    """Keeps one connection up, and sends over it as soon as it is told to."""

    venue: Venue
    settings: VenueSettings
    account: str
    answer_within: float
    rest: VenueRest
    connects: Limiter
    """Shared with the venue's other connections."""
    open_websocket: OpenWebSocket
    random: Callable[[], float]
    stats: OrderStats
    listener: Listener = attrs.field(init=False)
    _attempt: _Attempt | None = attrs.field(default=None, init=False)
    _login_failed: bool = attrs.field(default=False, init=False)

    @property
    def name(self) -> str:
        """Of the present connection, with its generation."""
        return f"{self.id}#{self.stats.generation}"

    @property
    def id(self) -> str:
        """Of all its connections."""
        trading = self.venue.trading
        assert trading is not None
        return f"{self.venue.name}.{self.account}.{trading.endpoint}"

    @property
    def is_open(self) -> bool:
        """Whether a request could be sent now."""
        attempt = self._attempt
        return attempt is not None and attempt.conversation is not None and attempt.conversation.open

    async def run(self) -> None:
        """Keep the connection up until cancelled. What is refused is tried again when the catalogue is read again."""
        policy = restart_policy(self.settings, self.random)
        while True:
            await supervise(self.id, self._make_attempt, policy, observer=self)
            await trio.sleep(self.settings.refresh_instruments)

    async def send(self, request: TradeRequest) -> None:
        """Give a request to the socket. Raises `Retryable`; unless `is_open` was false, it may have been sent then."""
        attempt = self._attempt
        if attempt is None or attempt.conversation is None or attempt.transport is None:
            raise ConnectionLost(f"{self.id} is not open")
        texts = attempt.conversation.submit(request, trio.current_time())
        attempt.alarm.no_later_than(attempt.conversation.next_deadline())
        with trio.CancelScope(shield=True):  # half a message would cost the connection; the transport bounds it
            for text in texts:
                await attempt.transport.send(text)

    def _make_attempt(self) -> _Attempt:
        self._attempt = _Attempt(self)
        return self._attempt

    # supervisor.Observer

    def attempt(self, number: int) -> None:
        self.stats.connection = "connecting"

    def connected(self) -> None:
        self.stats.connection = "live"
        self.stats.last_error = ""
        log.info("orders_live", connection=self.name)
        self.listener.link_changed()

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

    def _conversation_changed(self) -> None:
        if self.stats.connection == "live" and not self.is_open:
            # It stays for the answers that are on their way; commands have to wait for the next one.
            self.stats.connection, self.stats.last_error = "retrying", "the venue wants order entry elsewhere"
        self.listener.link_changed()

    def _end(self, state: str, reason: str) -> None:
        self._attempt = None
        self.stats.connection, self.stats.last_error = state, reason
        self.listener.link_changed()


@attrs.define(eq=False)
class _Attempt:
    link: TradeLink
    conversation: TradeConversation | None = attrs.field(default=None, init=False)
    transport: Transport | None = attrs.field(default=None, init=False)
    alarm: Alarm = attrs.field(factory=Alarm, init=False)

    @property
    def flowing(self) -> bool:
        return self.conversation is not None and self.conversation.flowing

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        link = self.link
        await link.connects.acquire()
        trading, times = link.venue.trading, session_times(link.venue.session_times, link.settings)
        assert trading is not None
        keys = await verified_credentials(
            link.rest, link.settings.accounts[link.account], link.id, login_failed=link._login_failed
        )
        link.stats.generation += 1
        self.conversation = TradeConversation(
            trading.session(times, link.rest.login(keys)),
            link.answer_within,
            lambda answer, now: link.listener.answered(answer),
            link._conversation_changed,
            link.listener.over,
            lambda text: log.warning("venue_notice", connection=link.name, text=text),
        )
        limits = connection_limits(link.settings)
        url = hosts(link.venue, link.settings).private_websocket + link.venue.path(trading.endpoint, times)

        async def dial(nursery: trio.Nursery) -> Transport:
            self.transport = await link.open_websocket(nursery, url, limits=limits, tls=tls_context(link.settings))
            return self.transport

        await run_connection(dial, self.conversation, limits, alarm=self.alarm, task_status=task_status)
