"""One account of a venue while the process runs: what it has shown, and keeping that complete over reconnects."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import structlog
import trio

from pipeline.exchanges.accounts import Accounts
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.feeds.account_memory import AccountMemory
from pipeline.feeds.chain import Publish
from pipeline.feeds.errands import Errands
from pipeline.feeds.reconcile import Reconciler, Round
from pipeline.feeds.settings import ReconcileSettings
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.events import Event, Micros
from pipeline.model.stats import ConnectionStats

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class AccountState:
    """Shared by the connections of one account."""

    name: str
    settings: ReconcileSettings
    accounts: Accounts
    catalogue: Catalogue
    rest: VenueRest
    memory: AccountMemory = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = AccountMemory(self.settings)

    def publishing(self, publish: Publish, stats: ConnectionStats) -> Publish:
        """`publish` behind the account's memory: each fill once, and what a complete state does not name closed."""

        def admit(event: Event) -> bool:
            admitted = self.memory.admit(event)
            stats.repeated_fills = self.memory.repeated_fills
            taken = True
            for each in admitted:
                taken = publish(each) and taken
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
            finished.append(found)
            news.unpark_all()

        def stamped(event: Event) -> bool:
            event.receive_time = Micros(self.rest.clock())
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
