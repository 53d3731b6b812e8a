"""A command's way from the topic to the venue and back, all of it but sockets and brokers."""

from __future__ import annotations

from tests.orders.world import World


async def test_an_order_is_acknowledged(world: World) -> None:
    world.order("c-1", client_order_id="mine")
    async with world.running():
        final = await world.final("c-1")
        await world.settled()
    assert world.states("c-1") == ["accepted", "sent", "acknowledged"]
    assert (final.client_order_id, final.order_id) == ("mine", "v-mine")
    assert world.exchange.asked == {("create", "mine"): 1}
    assert final.consumed_time is not None
    assert final.sent_time is not None
    assert final.answered_time is not None
