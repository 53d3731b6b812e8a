"""Cancelling what is open: for cancel_all, and for as long as the kill switch is on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import attrs
import structlog
import trio

from pipeline.exchanges.venue import Subscription
from pipeline.feeds.specs import account_specs
from pipeline.feeds.venue_rest import VenueRest, credentials
from pipeline.model.account import Order
from pipeline.model.errors import BadMessage, Retryable, SessionError
from pipeline.model.header import Micros
from pipeline.model.order_stats import OrderStats
from pipeline.orders.desk import Desk
from pipeline.orders.open_orders import OPEN
from pipeline.orders.sweeps import Sweep
from pipeline.orders.tickets import Moment, Sending, Ticket
from pipeline.orders.trade_link import TradeLink

log = structlog.get_logger(__name__)

PULSE = 0.5
"""Seconds between two looks at the kill file."""
SWEEP_AGAIN = 2.0
"""Seconds until open orders are looked for again while the kill switch is on."""
READ_WITHIN = 5.0
"""Seconds that a cancel_all waits for the open orders; meanwhile nothing behind it is sent."""
STILL_OPEN_LOOKS = 4
"""How often it is asked which orders are open after a sweep: venues list an order for a moment after its end."""


class Work(Protocol):
    """The tenure that sweeps are part of."""

    @property
    def is_draining(self) -> bool:
        """Whether nothing more is to be sent."""

    def tell(self) -> None:
        """Note what the desk has come to, and tell it."""

    def check_pulse(self) -> None:
        """Raises `Retryable` if the topic may have another owner."""

    def now(self) -> Moment:
        """The present time."""

    def start(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Do something beside everything else."""

    async def heard(self) -> None:
        """Return when the desk has learnt something."""


@attrs.define(eq=False, kw_only=True)
class Sweeper:
    """Finds open orders and cancels them."""

    work: Work
    desk: Desk
    link: TradeLink
    rest: VenueRest
    kill_file: Path | None
    clock: Callable[[], int]
    stats: OrderStats

    async def open_orders(self, market: str | None, instrument: str | None) -> list[Order]:
        """Raises `SessionError`, `BadMessage`, or `trio.TooSlowError` after `READ_WITHIN` seconds."""
        side, desk = self.link.venue.accounts, self.desk
        assert side is not None
        reader = side.reader(desk.account, self.link.id, desk.catalogue)
        keys = credentials(self.link.settings.accounts[desk.account])
        found: dict[str, Order] = {}
        with trio.fail_after(READ_WITHIN):
            for subscription in self._order_subscriptions():
                steps = reader.snapshot(subscription)
                for event in [] if steps is None else await self.rest.walk(steps(), keys):
                    if isinstance(event, Order) and event.status in OPEN:
                        found[event.order_id] = event
        return [
            order
            for order in found.values()
            if market in (None, order.origin.market) and instrument in (None, order.origin.instrument)
        ]

    def _order_subscriptions(self) -> list[Subscription]:
        side = self.link.venue.accounts
        assert side is not None
        specs = account_specs(self.link.settings.accounts[self.desk.account])
        return [each for spec in specs for each in side.subscriptions(spec) if each.kind == Order.KIND]

    async def cancel_all(self, ticket: Ticket) -> None:
        try:
            orders = await self.open_orders(ticket.market, ticket.instrument)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            why = str(error) or f"not within {READ_WITHIN:g} s"
            self.desk.unswept(ticket, f"the open orders cannot be read: {why}", self.work.now())
            self.work.tell()
        else:
            self.work.start(self._sweep_for, ticket, orders)

    async def _sweep_for(self, ticket: Ticket, orders: list[Order]) -> None:
        assert ticket.deadline is not None
        await self._sweep(Sweep(ticket, orders), ticket.deadline)
        meant = {order.order_id for order in orders}
        still: set[str] = meant
        for look in range(STILL_OPEN_LOOKS if meant else 0):
            try:
                still = meant & {order.order_id for order in await self.open_orders(ticket.market, ticket.instrument)}
            except (SessionError, BadMessage, trio.TooSlowError):
                self.desk.doubt_sweep(ticket, self.work.now())
                self.work.tell()
                return
            if not still:
                break
            await trio.sleep(0.25 * 2**look)
        self.desk.swept(ticket, len(meant), len(still), self.work.now())
        self.work.tell()

    async def _sweep(self, sweep: Sweep, not_after: Micros) -> None:
        """Send what cancels these orders, as fast as the venue's rate allows, and wait for the answers."""
        desk, link = self.desk, self.link
        for part in desk.sweep_parts(sweep, not_after):
            await self._until_free(part)
            if not link.is_open or self.clock() > not_after or self.work.is_draining:
                break  # what is open then is looked at afterwards
            desk.budgets.take(part.costs, trio.current_time())
            self.work.check_pulse()
            desk.sweeping(sweep, part)
            try:
                await link.send(part.request)
            except Retryable as error:
                log.warning("request_not_sent_whole", connection=link.name, text=str(error))
        sweep.is_sent = True
        while not sweep.is_over:
            await self.work.heard()
        self.stats.swept += sweep.accepted

    async def _until_free(self, part: Sending) -> None:
        free = self.desk.budgets.free_at(part.costs)
        while free > trio.current_time():
            await trio.sleep_until(free)
            free = self.desk.budgets.free_at(part.costs)  # meanwhile the venue may have asked for more patience

    async def keep_killed(self) -> None:
        """While the kill switch is on, cancel what is open."""
        while True:
            await self.look_after_kill_file()
            found = 0
            if self.desk.is_killed and self.link.is_open and not self.work.is_draining:
                found = await self._sweep_all()
            busy = found or self.desk.under_way or self.desk.open_orders.count
            with trio.move_on_after(SWEEP_AGAIN if self.desk.is_killed and busy else PULSE):
                was_killed = self.desk.is_killed
                while self.desk.is_killed == was_killed:
                    await self.work.heard()

    async def look_after_kill_file(self) -> None:
        if self.kill_file is None:
            return
        try:
            await trio.to_thread.run_sync(self.kill_file.stat)
            there = True
        except FileNotFoundError:
            there = False
        except OSError as error:
            there = True  # who cannot look had better not trade
            log.error("kill_file_unreadable", file=str(self.kill_file), text=str(error))
        if there != self.desk.kill_switch.kill_file:
            log.warning("kill_file", file=str(self.kill_file), there=there, account=self.link.id)
            self.desk.kill_switch.kill_file = there

    async def _sweep_all(self) -> int:
        try:
            orders = await self.open_orders(None, None)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            log.error("open_orders_unread", account=self.link.id, text=str(error))
            return 1
        if orders:
            log.warning("kill_switch_cancels", account=self.link.id, orders=len(orders))
            # It has no deadline of its own; the venue wants one.
            await self._sweep(Sweep(None, orders), Micros(self.clock() + 60_000_000))
        return len(orders)
