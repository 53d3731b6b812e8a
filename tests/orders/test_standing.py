"""What is told of an account when its commands go to somebody else, or nobody knows to whom."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.orders.world import World


async def test_who_has_lost_the_topic_is_no_owner_and_says_why(autojump_clock: MockClock, world: World) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        await world.until(lambda: gateway.stats.connection == "live")
        gateway.lost("the group has not been heard of for 10 s")
        with trio.fail_after(60):
            await world.state(gateway, "joining")
        stats = gateway.measured()
        assert (stats.connection, stats.last_error) == ("waiting", "the group has not been heard of for 10 s")
        assert (stats.losses, stats.is_able) == (1, False)


async def test_who_has_given_the_topic_up_is_no_owner(autojump_clock: MockClock, world: World) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        await gateway.give_up()
        with trio.fail_after(60):
            await world.state(gateway, "joining")
        assert (gateway.stats.connection, gateway.stats.losses) == ("waiting", 1)
