"""One ownership of an account's command topic, from its assignment until it is given up: the desk with its I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol

import attrs
import structlog
import trio

from pipeline.exchanges.trading import Answer, OrderFinder
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.chain import Publish
from pipeline.feeds.specs import account_specs
from pipeline.feeds.venue_rest import VenueRest, credentials
from pipeline.model.account import Order
from pipeline.model.errors import BadMessage, Retryable, SessionError
from pipeline.model.header import Micros
from pipeline.model.order_stats import OrderStats
from pipeline.model.orders import MASS_CANCEL, OrderResult
from pipeline.orders.commands import MalformedCommand, read_command
from pipeline.orders.consumer import STALL, Consumed, Holding, Mark
from pipeline.orders.desk import LATER, Desk, Plan, Sending, Sweep
from pipeline.orders.ledger import Ledger
from pipeline.orders.letters import dead_letter
from pipeline.orders.open_orders import OPEN
from pipeline.orders.prices import Prices
from pipeline.orders.tickets import Line, Moment, Ticket
from pipeline.orders.trade_link import TradeLink

log = structlog.get_logger(__name__)

PULSE = 0.5
"""Seconds between two looks at whether the process has stood still, and at the kill file."""
SWEEP_AGAIN = 2.0
"""Seconds until open orders are looked for again while the kill switch is on."""
READ_WITHIN = 5.0
"""Seconds that a cancel_all waits for the open orders; meanwhile nothing behind it is sent."""
LOOKS_AT_ONCE = 4
"""Unknown outcomes that are looked up side by side."""
STILL_OPEN_LOOKS = 4
"""How often it is asked which orders are open after a sweep: venues list an order for a moment after its end."""
DELIVER_WITHIN = 5.0
"""Seconds for what is on its way to Kafka when the topic is given up."""
ARM_AGAIN = 5.0
"""Seconds until the venue is asked once more to look after us."""
MARGIN_MS = 600_000
"""Results are looked for from so long before the first that matters: clocks of different owners may differ."""


class Stalled(Retryable):
    """The process has stood still for so long that the topic may have another owner."""


class Results(Protocol):
    """Where results go; a `ResultWriter` in earnest."""

    failures: int

    @property
    def outstanding(self) -> int: ...
    def publish(self, result: OrderResult, delivered: Callable[[], None] | None = None) -> None: ...
    async def run(self) -> None: ...
    async def delivered(self) -> None: ...
    def close(self) -> None: ...


class Commits(Protocol):
    """Who commits; a `CommandConsumer` in earnest."""

    def settle(self, partition: int, offset: int, mark: Mark) -> None: ...
    def waiting(self, count: int) -> None: ...


@attrs.define(eq=False, kw_only=True)
class Tenure:
    """Runs until cancelled through `scope`. Raises `Retryable` or `SinkFailed` for what a new ownership may mend."""

    desk: Desk
    ledger: Ledger
    link: TradeLink
    prices: Prices
    rest: VenueRest
    results: Results
    commits: Commits
    read_results: Callable[[int], Sequence[Mapping[str, Any]]]
    """All results of this command topic since a record time in milliseconds; blocks."""
    decode: Callable[[bytes], Mapping[str, Any]]
    """A record's fields; raises `ValueError` or `SinkFailed`."""
    publish: Publish
    """For dead letters."""
    kill_file: Path | None
    markets: Sequence[str]
    """That orders go to."""
    clock: Callable[[], int]
    seam: Callable[[str], None]
    """Told what was just done; for tests, which crash here."""
    stats: OrderStats
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _inbox: list[Consumed] = attrs.field(factory=list, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Something has changed for `_work`."""
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The desk has learnt something."""
    _pulse_at: float = attrs.field(factory=trio.current_time, init=False)
    _draining: bool = attrs.field(default=False, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _looks: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(LOOKS_AT_ONCE), init=False)
    _finder: OrderFinder = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.link.listener = self

    async def run(self, holdings: Sequence[Holding]) -> None:
        """Deal with the commands of these partitions."""
        desk, link = self.desk, self.link
        self._finder = desk.trading.finder(desk.account, link.id, desk.catalogue)
        try:
            with self.scope:
                async with trio.open_nursery() as self._nursery:
                    nursery = self._nursery
                    nursery.start_soon(self.results.run)
                    nursery.start_soon(self._keep_pulse)
                    await self._look_after_kill_file()
                    await self._begin(holdings)
                    nursery.start_soon(self.link.run)
                    nursery.start_soon(self.prices.run)
                    nursery.start_soon(self._resolve)
                    nursery.start_soon(self._keep_killed)
                    nursery.start_soon(self._arm)
                    await self._work()
        finally:
            self.results.close()
            self.ended.set()

    def take(self, records: Sequence[Consumed]) -> None:
        """Records of the topic, in the order of their partitions."""
        self._inbox.extend(records)
        self._wake.set()

    async def drain(self, seconds: float) -> None:
        """Send nothing more, and wait for what is under way, at most so long."""
        self._draining = True
        self._wake.set()
        with trio.move_on_after(seconds):
            while self.desk.under_way:
                await self._heard()
            await self.results.delivered()
        self._commit()

    async def give_up(self) -> None:
        """The same at once, whatever is under way; returns when nothing more will be done."""
        self._draining = True
        with trio.move_on_after(DELIVER_WITHIN):
            await self.results.delivered()
        self._commit()
        self.scope.cancel()
        await self.ended.wait()

    async def switch(self, reason: str | None, *, is_killed: bool) -> None:
        """Use the kill switch; returns when that is on disk."""
        self.desk.switch(self._now(), reason, is_killed=is_killed)
        await self._persist()
        self._tell()
        for partition, offset, mark in self.desk.marks(self._now()):
            self.commits.settle(partition, offset, mark)

    # The way out.

    async def _work(self) -> None:
        desk = self.desk
        while True:
            self._wake = trio.Event()
            self._take_in()
            moment = self._now()
            plan = Plan()
            if self.link.is_open and not self._draining:
                plan = desk.plan(self._price_of, moment)
                if plan.prices:
                    await self._read_prices(plan)
                    continue
            until = min(desk.expire(moment), plan.again_at)
            self.commits.waiting(len(desk.queue))
            if plan.sendings or plan.sweep is not None:
                await self._carry_out(plan)
                continue
            self._tell()
            with trio.move_on_after(max(0.0, until - trio.current_time()) if until < inf else inf):
                await self._wake.wait()

    def _take_in(self) -> None:
        records, self._inbox = self._inbox, []
        for record in records:
            self.desk.take(record, self._read(record), self._now())
        if records:
            self.seam("consumed")

    def _read(self, record: Consumed) -> Any:
        try:
            return read_command(self.decode(record.value))
        except MalformedCommand as error:
            return error
        except ValueError as error:
            return MalformedCommand(str(error), None)

    async def _read_prices(self, plan: Plan) -> None:
        async with trio.open_nursery() as nursery:
            for instrument in plan.prices:
                nursery.start_soon(self.prices.refresh, instrument)

    def _price_of(self, instrument: Any) -> Any:
        return self.prices.want(instrument, trio.current_time())

    async def _carry_out(self, plan: Plan) -> None:
        await self._persist()
        for sending in plan.sendings:
            await self._send(sending)
        self._tell()
        if plan.sweep is not None:
            await self._cancel_all(plan.sweep)

    async def _persist(self) -> None:
        """Have the desk's entries on disk before anything is done that they tell of."""
        desk = self.desk
        must_sync, desk.must_sync = desk.must_sync, False
        self._append()
        if must_sync:
            self.seam("intended")
            started = trio.current_time()
            await trio.to_thread.run_sync(self.ledger.sync)
            self.stats.sync.observe(trio.current_time() - started)
            self.seam("synced")

    async def _send(self, sending: Sending) -> None:
        desk, link = self.desk, self.link
        while not link.is_open:  # it was a moment ago; nobody will have sent it unless we do
            changed = self._wake = trio.Event()
            if link.is_open:
                break
            left = (sending.request.not_after - self.clock()) / 1e6
            with trio.move_on_after(max(0.0, left) + LATER):
                await changed.wait()
            if desk.is_late(sending, self._now()):
                self._tell()
                return
        if desk.is_late(sending, self._now()):
            self._tell()
            return
        self._check_pulse()
        if self._draining:
            return  # in the ledger its outcome is open: whoever comes next looks it up
        desk.sending(sending, link.name)
        try:
            await link.send(sending.request)
        except Retryable as error:
            # Part of it may be on the wire; the connection's end tells what is to be looked up.
            log.warning("request_not_sent_whole", connection=link.name, text=str(error))
        else:
            self.seam("sent")
            desk.sent(sending, self._now())

    # What the desk wants to have written and told.

    def _tell(self) -> None:
        """Note what the desk has come to, then tell it; whoever waits for news is woken."""
        self._append()
        desk = self.desk
        results, desk.results = desk.results, []
        if any(line is not None for _, line in results):
            self.seam("noted")
        for result, line in results:
            self._publish(result, line)
        letters, desk.letters = desk.letters, []
        for record, reason in letters:
            self.publish(dead_letter(desk.venue, desk.account, record, reason, Micros(self.clock())))
        if results:
            self.seam("told")
        self._commit()
        self._hear()

    def _append(self) -> None:
        entries, self.desk.entries = self.desk.entries, []
        for entry in entries:
            self.ledger.append(entry)

    def _publish(self, result: OrderResult, line: Line | None) -> None:
        def delivered() -> None:
            self.seam("delivered")
            assert line is not None
            self.desk.delivered(line)
            self._append()
            self.seam("settled")
            self._commit()
            self._hear()

        self.results.publish(result, None if line is None else delivered)

    def _commit(self) -> None:
        for partition, offset, mark in self.desk.committable(self._now()):
            self.commits.settle(partition, offset, mark)
        self._append()

    def _hear(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _heard(self) -> None:
        await self._news.wait()

    # What comes back.

    def answered(self, answer: Answer) -> None:
        """The venue has answered."""
        self.seam("answered")
        self.desk.answered(answer, self._now())
        self._tell()
        self._wake.set()

    def over(self, requests: list[str], reason: str) -> None:
        """The answers to these requests will not come."""
        self.desk.over(requests, reason, self._now())
        self._tell()
        self._wake.set()

    def link_changed(self) -> None:
        """The connection may have become able, or unable."""
        self._wake.set()

    # Taking over.

    async def _begin(self, holdings: Sequence[Holding]) -> None:
        results: Sequence[Mapping[str, Any]] = ()
        if any(holding.start < holding.end for holding in holdings) or self.desk.known.oldest_unsettled() is not None:
            since = self._results_since(holdings)
            log.info("results_read_back", account=self.link.id, since_ms=since)
            results = await trio.to_thread.run_sync(self.read_results, since)
        try:
            for order in await self._open_orders(None, None):
                self.desk.open_orders.observed(order)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            log.warning("open_orders_unread", account=self.link.id, text=str(error))
        self.desk.begin(holdings, results, self._now())
        self._begun = True
        for partition, offset, mark in self.desk.marks(self._now()):
            self.commits.settle(partition, offset, mark)
        self._tell()

    def _results_since(self, holdings: Iterable[Holding]) -> int:
        """In milliseconds: before then no result can be of a command that is not settled."""
        times = [
            0 if holding.mark is None else holding.mark.since for holding in holdings if holding.start < holding.end
        ]
        if (oldest := self.desk.known.oldest_unsettled()) is not None:
            times.append(oldest)
        return max(0, min(times, default=0) // 1000 - MARGIN_MS)

    async def _open_orders(self, market: str | None, instrument: str | None) -> list[Order]:
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

    # Unknown outcomes.

    async def _resolve(self) -> None:
        while True:
            news = self._news
            for line in self.desk.look_ups(self._now()):
                self._nursery.start_soon(self._look, line)
            with trio.move_on_after(max(0.0, self.desk.next_look() - trio.current_time())):
                await news.wait()

    async def _look(self, line: Line) -> None:
        async with self._looks:
            desk, asked = self.desk, self._now()
            try:
                if line.item is None:
                    family = line.ticket.instrument if line.ticket.action == MASS_CANCEL else None
                    orders = await self._open_orders(line.ticket.market, None if family else line.ticket.instrument)
                    count = sum(family is None or str(order.origin.instrument).startswith(family) for order in orders)
                    desk.found_open(line, count, asked, self._now())
                elif line.trade is None:
                    desk.found(line, None, asked, self._now())  # what the venue does not list, it cannot be asked about
                else:
                    keys = credentials(self.link.settings.accounts[desk.account])
                    order = await self.rest.walk(self._finder(line.trade), keys)
                    desk.found(line, order, asked, self._now())
            except (SessionError, BadMessage, trio.TooSlowError) as error:
                self.stats.look_up_failures += 1
                log.warning(
                    "order_not_looked_up", account=self.link.id, command=line.ticket.command_id, text=str(error)
                )
                desk.unfound(line, self._now())
        self._tell()

    # Sweeps.

    async def _cancel_all(self, ticket: Ticket) -> None:
        try:
            orders = await self._open_orders(ticket.market, ticket.instrument)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            why = str(error) or f"not within {READ_WITHIN:g} s"
            self.desk.unswept(ticket, f"the open orders cannot be read: {why}", self._now())
            self._tell()
        else:
            self._nursery.start_soon(self._sweep_for, ticket, orders)

    async def _sweep_for(self, ticket: Ticket, orders: list[Order]) -> None:
        assert ticket.deadline is not None
        await self._sweep(Sweep(ticket, orders), ticket.deadline)
        meant = {order.order_id for order in orders}
        still: set[str] = meant
        for look in range(STILL_OPEN_LOOKS if meant else 0):
            try:
                still = meant & {order.order_id for order in await self._open_orders(ticket.market, ticket.instrument)}
            except (SessionError, BadMessage, trio.TooSlowError):
                self.desk.doubt_sweep(ticket, self._now())
                self._tell()
                return
            if not still:
                break
            await trio.sleep(0.25 * 2**look)
        self.desk.swept(ticket, len(meant), len(still), self._now())
        self._tell()

    async def _sweep(self, sweep: Sweep, not_after: Micros) -> None:
        """Send what cancels these orders, as fast as the venue's rate allows, and wait for the answers."""
        desk, link = self.desk, self.link
        for part in desk.sweep_parts(sweep, not_after):
            await self._until_free(part)
            if not link.is_open or self.clock() > not_after or self._draining:
                break  # what is open then is looked at afterwards
            desk.budgets.take(part.costs, trio.current_time())
            self._check_pulse()
            desk.sweeping(sweep, part)
            try:
                await link.send(part.request)
            except Retryable as error:
                log.warning("request_not_sent_whole", connection=link.name, text=str(error))
        sweep.is_sent = True
        while not sweep.is_over:
            await self._heard()
        self.stats.swept += sweep.accepted

    async def _until_free(self, part: Sending) -> None:
        free = self.desk.budgets.free_at(part.costs)
        while free > trio.current_time():
            await trio.sleep_until(free)
            free = self.desk.budgets.free_at(part.costs)  # meanwhile the venue may have asked for more patience

    async def _keep_killed(self) -> None:
        """While the kill switch is on, cancel what is open."""
        while True:
            await self._look_after_kill_file()
            found = 0
            if self.desk.is_killed and self.link.is_open and not self._draining:
                found = await self._sweep_all()
            busy = found or self.desk.under_way or self.desk.open_orders.count
            with trio.move_on_after(SWEEP_AGAIN if self.desk.is_killed and busy else PULSE):
                was_killed = self.desk.is_killed
                while self.desk.is_killed == was_killed:
                    await self._heard()

    async def _look_after_kill_file(self) -> None:
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
        if there != self.desk.kill_file:
            log.warning("kill_file", file=str(self.kill_file), there=there, account=self.link.id)
            self.desk.kill_file = there

    async def _sweep_all(self) -> int:
        try:
            orders = await self._open_orders(None, None)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            log.error("open_orders_unread", account=self.link.id, text=str(error))
            return 1
        if orders:
            log.warning("kill_switch_cancels", account=self.link.id, orders=len(orders))
            # It has no deadline of its own; the venue wants one.
            await self._sweep(Sweep(None, orders), Micros(self.clock() + 60_000_000))
        return len(orders)

    # Staying alive.

    async def _arm(self) -> None:
        """Have the venue cancel everything should we be gone."""
        desk, seconds = self.desk, self.desk.settings.cancel_on_disconnect
        if seconds is None:
            return
        while True:
            pause = desk.trading.arm_every(seconds)
            try:
                keys = credentials(self.link.settings.accounts[desk.account])
                await self.rest.walk(desk.trading.arm(seconds, self.markets), keys)
            except (SessionError, BadMessage) as error:
                self.stats.arm_failures += 1
                log.error("cancel_on_disconnect_not_armed", account=self.link.id, text=str(error))
                pause = min(pause, ARM_AGAIN)
            await trio.sleep(pause)

    async def _keep_pulse(self) -> None:
        while True:
            self._check_pulse()
            self._pulse_at = trio.current_time()
            self.desk.open_orders.expire(self._pulse_at)
            await trio.sleep(PULSE)

    def _check_pulse(self) -> None:
        stood = trio.current_time() - self._pulse_at
        if stood > STALL:
            raise Stalled(f"the process stood still for {stood:.1f} s: its commands may be somebody else's by now")

    def _now(self) -> Moment:
        return Moment(Micros(self.clock()), trio.current_time(), self.rest.venue_time())
