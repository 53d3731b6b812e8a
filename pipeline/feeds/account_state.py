"""One account of a venue: what it has shown, kept complete over reconnects, and kept in a file over restarts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import structlog
import trio

from pipeline.exchanges.accounts import Accounts
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.feeds.account_file import AccountFile
from pipeline.feeds.account_memory import AccountImage, AccountMemory
from pipeline.feeds.chain import Publish
from pipeline.feeds.errands import Errands
from pipeline.feeds.reconcile import Reconciler, Round
from pipeline.feeds.settings import ReconcileSettings
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.account import AccountEvent, AccountRaw
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Micros
from pipeline.model.stats import ConnectionStats

log = structlog.get_logger(__name__)

SAVE_EVERY = 1.0
"""Seconds from one writing of the file to the next, at least."""


@attrs.define(eq=False)
class AccountState:
    """Shared by the connections of one account."""

    name: str
    settings: ReconcileSettings
    accounts: Accounts
    catalogue: Catalogue
    rest: VenueRest
    file: AccountFile | None = None
    """Where the memory outlives the process; None: it does not."""
    safe_until: Callable[[], int] | None = None
    """Up to when all that was published survives a killed process, in microseconds; None: all does at once."""
    memory: AccountMemory = attrs.field(init=False)
    save_failures: int = attrs.field(default=0, init=False)
    """How often the file could not be written."""
    _changes: int = attrs.field(default=0, init=False)
    _saved: int = attrs.field(default=0, init=False)
    """Of the changes, those that are in the file."""
    _is_failing: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = AccountMemory(self.settings)

    async def recall(self) -> None:
        """Take up what an earlier process has left; what cannot be used is named in the log."""
        file = self.file
        if file is None:
            return
        try:
            image = await trio.to_thread.run_sync(file.read)
        except (OSError, BadMessage) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            effect = "what happened before is read as at a first start"
            tell = log.warning if file.directory.exists() else log.info  # at a first start there is none
            tell("account_file_unusable", file=str(file.path), text=reason, effect=effect)
        else:
            self.memory.recall(image)
            log.info("account_recalled", account=self.name, present=len(image.present), fills=len(image.fills.seen))

    async def keep_saved(self) -> None:
        """Write the file while there are changes, until cancelled."""
        while self.file is not None:
            await trio.sleep(SAVE_EVERY)
            if self._changes == self._saved:
                continue
            # A process that is killed loses what is on its way to Kafka: nobody was told that, so the file must not
            # say so. The other way round, what was told and is not in the file, costs a repetition.
            image, changes, now = self.memory.image(), self._changes, self.rest.clock()
            while self.safe_until is not None and self.safe_until() < now:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(SAVE_EVERY / 10)
            await self._save(self.file, image, changes)

    async def save(self) -> None:
        """Write the file if it is not up to date: when all that was published is safe, at the end."""
        if self.file is not None and self._changes > self._saved:
            await self._save(self.file, self.memory.image(), self._changes)

    async def _save(self, file: AccountFile, image: AccountImage, changes: int) -> None:
        try:
            await trio.to_thread.run_sync(file.write, image, Micros(self.rest.clock()))
        except (OSError, ValueError) as error:
            self.save_failures += 1
            if not self._is_failing:
                log.error("account_file_not_written", file=str(file.path), text=str(error))
            self._is_failing = True
        else:
            self._saved, self._is_failing = changes, False

    def publishing(self, publish: Publish, stats: ConnectionStats) -> Publish:
        """`publish` behind the account's memory: each fill once, and what a complete state does not name closed."""

        def admit(event: Event) -> bool:
            admitted = self.memory.admit(event)
            stats.repeated_fills = self.memory.repeated_fills
            taken = True
            for each in admitted:
                taken = publish(each) and taken
            if admitted:
                self._changes += 1
            return taken

        return admit

    async def keep_complete(
        self,
        connection: str,
        granted: Sequence[Subscription],
        publish: Publish,
        errands: Errands,
        stats: ConnectionStats,
        *,
        at_once: bool,
    ) -> None:
        """Read the account's state whenever it is time to, until cancelled; `at_once` if something may be missing."""
        settings = self.settings
        if not settings.enabled:
            return
        finished: list[Round] = []
        news = trio.lowlevel.ParkingLot()

        def over(found: Round) -> None:
            self._changes += 1  # it is known from when on to read fills
            finished.append(found)
            news.unpark_all()

        def stamped(event: Event) -> bool:
            self._changes += 1
            event.receive_time = Micros(self.rest.clock())
            if event.exchange_time is None and isinstance(event, AccountEvent) and not isinstance(event, AccountRaw):
                # Their schemas demand one, and the memory has judged the event by what it did not say.
                event.exchange_time = self.rest.venue_time()
            return publish(event)

        reconciler = Reconciler(
            connection=connection,
            reader=self.accounts.reader(self.name, connection, self.catalogue),
            memory=self.memory,
            subscriptions=granted,
            settings=settings,
            publish=stamped,
            clock=self.rest.venue_time,
            add=errands.add,
            over=over,
        )
        pause = 0.0 if at_once else settings.every
        while pause is not None:
            await trio.sleep(pause)
            errands.add(*reconciler.begin())
            while not finished:
                await news.park()
            stats.reconciliations += 1
            stats.reconciled = self.rest.clock()
            stats.unread = tuple(finished[-1].refused)
            log.info("account_read", connection=connection, **attrs.asdict(finished.pop()))
            pause = reconciler.pause
