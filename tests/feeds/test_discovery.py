"""What an intake tells of the reading of its catalogue."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from pipeline.feeds.intake import Intake
from pipeline.model.errors import DeadlineMissed
from pipeline.model.stats import VenueStats
from tests.feeds.test_link import RestHost, World
from tests.feeds.test_shares import TRADES


class SlowHost(RestHost):
    """Answers after a while."""

    async def get_json_bytes(self, path: str) -> bytes:
        await trio.sleep(10)
        return await super().get_json_bytes(path)


async def test_markets_are_counted_as_they_are_read(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    intake = Intake("toy", world.venue, world.settings, world.around)
    host = SlowHost(["A", "B"])

    def counted() -> tuple[int, int]:
        stats: VenueStats = intake.refreshed_stats()
        return stats.markets_read, stats.markets

    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.follow, host, None)
        await trio.sleep(5)
        assert counted() == (0, 1)
        await trio.sleep(6)
        assert counted() == (1, 1)
        host.fail = DeadlineMissed("no answer")
        await trio.sleep(100)
        assert intake.stats.catalogue_failures
        assert counted() == (1, 1), "what was read once is known"
        nursery.cancel_scope.cancel()
