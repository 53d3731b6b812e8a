"""One ownership of an account's command topic, from its assignment until it is given up: the desk with its I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol

import attrs
import structlog
import trio

from pipeline.exchanges.trading import Answer, OrderFinder
from pipeline.feeds.chain import Publish
from pipeline.feeds.venue_rest import VenueRest, credentials
from pipeline.model.errors import BadMessage, Retryable, SessionError
from pipeline.model.header import Micros
from pipeline.model.order_stats import OrderStats
from pipeline.model.orders import MASS_CANCEL, OrderCommand, OrderResult
from pipeline.orders.commands import MalformedCommand, read_command
from pipeline.orders.consumer import STALL, Consumed, Holding, Mark
from pipeline.orders.desk import Desk
from pipeline.orders.ledger import Ledger, LedgerBroken
from pipeline.orders.letters import dead_letter
from pipeline.orders.planner import LATER, Plan
from pipeline.orders.prices import Prices
from pipeline.orders.sweeper import PULSE, Sweeper
from pipeline.orders.syncer import Syncer
from pipeline.orders.takeover import is_whole
from pipeline.orders.tickets import Line, Moment, Sending
from pipeline.orders.trade_link import TradeLink

log = structlog.get_logger(__name__)

LOOKS_AT_ONCE = 4
"""Unknown outcomes that are looked up side by side."""
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
    is_draining: bool = attrs.field(default=False, init=False)
    """Whether nothing more is to be sent."""
    _broken: LedgerBroken | None = attrs.field(default=None, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _looks: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(LOOKS_AT_ONCE), init=False)
    _finder: OrderFinder = attrs.field(init=False)

    _syncer: Syncer = attrs.field(init=False)
    sweeper: Sweeper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.link.listener = self
        self._syncer = Syncer(self.ledger)
        self.sweeper = Sweeper(
            work=self,
            desk=self.desk,
            link=self.link,
            rest=self.rest,
            kill_file=self.kill_file,
            clock=self.clock,
            stats=self.stats,
        )

    async def run(self, holdings: Sequence[Holding]) -> None:
        """Deal with the commands of these partitions."""
        desk, link = self.desk, self.link
        self._finder = desk.trading.finder(desk.account, link.id, desk.catalogue)
        try:
            with self.scope:
                async with trio.open_nursery() as self._nursery:
                    nursery = self._nursery
                    nursery.start_soon(self._syncer.run)
                    nursery.start_soon(self.results.run)
                    nursery.start_soon(self._keep_pulse)
                    await self.sweeper.look_after_kill_file()
                    await self._begin(holdings)
                    nursery.start_soon(self.link.run)
                    nursery.start_soon(self.prices.run)
                    nursery.start_soon(self._resolve)
                    nursery.start_soon(self.sweeper.keep_killed)
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
        self.is_draining = True
        self._wake.set()
        with trio.move_on_after(seconds):
            while self.desk.under_way:
                await self.heard()
            await self.results.delivered()
        self._commit()

    async def give_up(self) -> None:
        """The same at once, whatever is under way; returns when nothing more will be done."""
        self.is_draining = True
        with trio.move_on_after(DELIVER_WITHIN):
            await self.results.delivered()
        self._commit()
        self.scope.cancel()
        await self.ended.wait()

    async def switch(self, reason: str | None, *, is_killed: bool) -> None:
        """Use the kill switch; returns when that is on disk."""
        self.desk.switch(self.now(), reason, is_killed=is_killed)
        await self._persist()
        self.tell()
        for partition, offset, mark in self.desk.marks(self.now()):
            self.commits.settle(partition, offset, mark)

    # The way out.

    async def _work(self) -> None:
        desk = self.desk
        while True:
            self._wake = trio.Event()
            self._take_in()
            moment = self.now()
            plan = Plan()
            if not self.is_draining:
                desk.resume_in_turn(moment)
            if self.link.is_open and not self.is_draining:
                plan = desk.plan(self._price_of, moment)
                if plan.prices:
                    if plan.sendings:  # of commands before the one that needs prices: what is planned is planned once
                        await self._carry_out(plan)
                    await self._read_prices(plan)
                    continue
            until = min(desk.expire(moment), plan.again_at)
            self.commits.waiting(len(desk.queue))
            if plan.sendings or plan.sweep is not None or desk.blotter.must_sync:
                await self._carry_out(plan)
                continue
            self.tell()
            with trio.move_on_after(max(0.0, until - trio.current_time()) if until < inf else inf):
                await self._wake.wait()

    def _take_in(self) -> None:
        records, self._inbox = self._inbox, []
        for record in records:
            self.desk.take(record, _read(record), self.now())
        if records:
            self.seam("consumed")

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
        self.tell()
        if plan.sweep is not None:
            await self.sweeper.cancel_all(plan.sweep)

    async def _persist(self) -> None:
        """Have the desk's entries on disk before anything is done that they tell of; returns only then."""
        desk = self.desk
        must_sync = desk.blotter.take_must_sync()
        if not self._append():
            await trio.sleep_forever()  # it ends
        if must_sync:
            self.seam("intended")
            started = trio.current_time()
            await self._syncer.sync()
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
            if desk.is_late(sending, self.now()):
                self.tell()
                return
        if desk.is_late(sending, self.now()):
            self.tell()
            return
        self.check_pulse()
        if self.is_draining:
            return  # in the ledger its outcome is open: whoever comes next looks it up
        desk.sending(sending, link.name)
        try:
            await link.send(sending.request)
        except Retryable as error:
            # Part of it may be on the wire; the connection's end tells what is to be looked up.
            log.warning("request_not_sent_whole", connection=link.name, text=str(error))
        else:
            self.seam("sent")
            desk.sent(sending, self.now())

    # What the desk wants to have written and told.

    def tell(self) -> None:
        """Note what the desk has come to, then tell it; whoever waits for news is woken.

        After a stall it is only noted: another owner may have told something else. Whoever is the owner next with this
        ledger looks for it in Kafka, and tells it if nobody has.
        """
        if not self._append():
            return
        desk = self.desk
        for record, reason in desk.blotter.take_letters():
            self.publish(dead_letter(desk.venue, desk.account, record, reason, Micros(self.clock())))
        if self._has_stood_still:
            return
        results = desk.blotter.take_results()
        if any(line is not None for _, line in results):
            self.seam("noted")
        for result, line in results:
            self._publish(result, line)
        if results:
            self.seam("told")
        self._commit()
        self._hear()

    def _append(self) -> bool:
        """Whether the ledger has noted what the desk has come to. If not, nothing is told any more, and `run` ends.

        Does not raise: whoever calls may be the connection, which would only connect anew.
        """
        if self._broken is None:
            try:
                self.ledger.append(*self.desk.blotter.take_entries())
            except LedgerBroken as error:
                self._broken = error
                self._nursery.start_soon(fail, error)
        return self._broken is None

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
        if self._has_stood_still:
            return
        for partition, offset, mark in self.desk.committable(self.now()):
            self.commits.settle(partition, offset, mark)
        self._append()

    def _hear(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def heard(self) -> None:
        """Return when the desk has learnt something."""
        await self._news.wait()

    # What comes back.

    def answered(self, answer: Answer) -> None:
        """The venue has answered."""
        self.seam("answered")
        self.desk.answered(answer, self.now())
        self.tell()
        self._wake.set()

    def over(self, requests: list[str], reason: str) -> None:
        """The answers to these requests will not come."""
        self.desk.over(requests, reason, self.now())
        self.tell()
        self._wake.set()

    def link_changed(self) -> None:
        """The connection may have become able, or unable."""
        self._wake.set()

    # Taking over.

    async def _begin(self, holdings: Sequence[Holding]) -> None:
        results: Sequence[Mapping[str, Any]] = ()
        if (since := self._results_since(holdings)) is not None:
            log.info("results_read_back", account=self.link.id, since_ms=since)
            results = await trio.to_thread.run_sync(self.read_results, since)
        try:
            for order in await self.sweeper.open_orders(None, None):
                self.desk.open_orders.observed(order)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            log.warning("open_orders_unread", account=self.link.id, text=str(error))
        self.desk.begin(holdings, results, self.now())
        for partition, offset, mark in self.desk.marks(self.now()):
            self.commits.settle(partition, offset, mark)
        self.tell()

    def _results_since(self, holdings: Iterable[Holding]) -> int | None:
        """In milliseconds: no result that matters is older. None: none matters."""
        desk = self.desk
        times = [
            0 if holding.mark is None else holding.mark.since for holding in holdings if holding.start < holding.end
        ]
        if (oldest := desk.known.oldest_unsettled()) is not None:
            times.append(oldest)
        if not all(is_whole(desk.known, desk.topic, holding) for holding in holdings):
            # A copy of a command that our ledger does not know is too old to be sent by then.
            times.append(self.clock() - round(2e6 * desk.settings.max_age))
        return max(0, min(times) // 1000 - MARGIN_MS) if times else None

    # Unknown outcomes.

    async def _resolve(self) -> None:
        while True:
            news = self._news
            for line in self.desk.look_ups(self.now()):
                self._nursery.start_soon(self._look, line)
            with trio.move_on_after(max(0.0, self.desk.next_look() - trio.current_time())):
                await news.wait()

    async def _look(self, line: Line) -> None:
        async with self._looks:
            desk, asked = self.desk, self.now()
            try:
                if line.item is None:
                    family = line.ticket.instrument if line.ticket.action == MASS_CANCEL else None
                    orders = await self.sweeper.open_orders(
                        line.ticket.market, None if family else line.ticket.instrument
                    )
                    count = sum(
                        family is None or str(order.origin.instrument).startswith(f"{family}-") for order in orders
                    )
                    desk.found_open(line, count, asked, self.now())
                elif line.trade is None:
                    desk.found(line, None, asked, self.now())  # what the venue does not list, it cannot be asked about
                else:
                    keys = credentials(self.link.settings.accounts[desk.account])
                    order = await self.rest.walk(self._finder(line.trade), keys)
                    desk.found(line, order, asked, self.now())
            except (SessionError, BadMessage, trio.TooSlowError) as error:
                self.stats.look_up_failures += 1
                log.warning(
                    "order_not_looked_up", account=self.link.id, command=line.ticket.command_id, text=str(error)
                )
                desk.unfound(line, self.now())
        self.tell()

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
            self.check_pulse()
            self._pulse_at = trio.current_time()
            self.desk.open_orders.expire(self._pulse_at)
            await trio.sleep(PULSE)

    def check_pulse(self) -> None:
        """Raises `Stalled` if nothing may be sent before the topic was joined anew."""
        if self._has_stood_still:
            stood = trio.current_time() - self._pulse_at
            raise Stalled(f"the process stood still for {stood:.1f} s: its commands may be somebody else's by now")

    @property
    def _has_stood_still(self) -> bool:
        return trio.current_time() - self._pulse_at > STALL

    def start(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Do something beside everything else, for as long as this lasts."""
        self._nursery.start_soon(work, *arguments)

    def now(self) -> Moment:
        """The present time, by all clocks."""
        return Moment(Micros(self.clock()), trio.current_time(), self.rest.venue_time())


async def fail(problem: Exception) -> None:
    """For a nursery: end what runs in it, where raising would only end the caller."""
    raise problem


def _read(record: Consumed) -> OrderCommand | MalformedCommand:
    if record.fields is None:
        return MalformedCommand(record.problem, None)
    try:
        return read_command(record.fields)
    except MalformedCommand as error:
        return error
