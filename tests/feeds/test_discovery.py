"""What an intake tells of the reading of its catalogue."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from pipeline.feeds.intake import Intake
from pipeline.feeds.settings import ReconnectSettings
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


@attrs.define
class CountingHost(RestHost):
    """Notes when it is asked."""

    asked: list[float] = attrs.field(factory=list)

    async def get_json_bytes(self, path: str) -> bytes:
        self.asked.append(trio.current_time())
        return await super().get_json_bytes(path)


@pytest.mark.parametrize(
    ("reconnect", "expected"),
    [
        (ReconnectSettings(first=1.0, factor=3.0, max=20.0), [0, 1, 4, 13, 33, 53]),
        (ReconnectSettings(first=5.0, factor=1.0, max=20.0), [0, 5, 10, 15, 20, 25]),
    ],
    ids=["growing", "constant"],
)
async def test_a_catalogue_is_asked_for_again_at_the_pace_that_is_configured(
    autojump_clock: MockClock, reconnect: ReconnectSettings, expected: list[float]
) -> None:
    world = World(attrs.evolve(TRADES, reconnect=reconnect))
    intake, host = Intake("toy", world.venue, world.settings, world.around), CountingHost(["A"])
    host.fail = DeadlineMissed("no answer")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.follow, host, None)
        await trio.sleep(expected[-1] + 0.5)
        assert host.asked == expected
        nursery.cancel_scope.cancel()


async def test_old_failures_do_not_slow_down_a_new_market(autojump_clock: MockClock) -> None:
    settings = attrs.evolve(TRADES, refresh_instruments=10.0, reconnect=ReconnectSettings(first=1.0, max=9.0))
    world = World(settings)
    intake, host = Intake("toy", world.venue, world.settings, world.around), CountingHost(["A"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.follow, host, None)
        await trio.sleep(5)
        host.fail = DeadlineMissed("no answer")
        await trio.sleep(100)
        assert intake.stats.catalogue_failures == 10
        host.fail = None
        await trio.sleep(10)
        host.fail = DeadlineMissed("no answer")
        host.asked.clear()
        elsewhere = attrs.evolve(settings.channels[0], market="linear")
        intake.retarget(attrs.evolve(settings, channels=(*settings.channels, elsewhere)))
        began = trio.current_time()
        await trio.sleep(3.5)
        assert [at - began for at in host.asked] == [0, 1, 3]
        nursery.cancel_scope.cancel()
