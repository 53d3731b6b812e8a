"""A command's way from the topic to the venue and back, all of it but sockets and brokers."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from pipeline.exchanges.trading import Answer, ItemAnswer, ReportedLimit
from pipeline.model.errors import ConfigError, Refused
from pipeline.model.events import DeadLetter, Micros
from pipeline.model.orders import AMEND, CANCEL, CANCEL_ALL, KILL, MASS_CANCEL, RESUME
from pipeline.model.rate import Rate
from pipeline.orders import ledger as ledger_module
from pipeline.orders.consumer import STALL
from pipeline.orders.entry import OrderEntry
from pipeline.orders.identity import client_order_id
from pipeline.orders.settings import OrderSettings
from pipeline.orders.sweeper import PULSE
from tests.orders.samples import NOW, instrument, item, named
from tests.orders.world import TOPIC, World, open_order


async def test_an_order_is_acknowledged(autojump_clock: MockClock, world: World) -> None:
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


async def test_commands_wait_for_the_connection_and_keep_their_order(autojump_clock: MockClock, world: World) -> None:
    world.exchange.down = True
    world.order("c-1", client_order_id="a")
    world.give(world.command(named("a", price="65001.0"), action=AMEND, command_id="c-2"))
    world.give(world.command(named("a"), action=CANCEL, command_id="c-3"))
    async with world.running() as gateway:
        await trio.sleep(2)
        assert not world.results
        assert gateway.measured().waiting == 3
        world.exchange.down = False
        await world.settled_after("c-3")
    assert [world.finals(f"c-{n}")[0].state for n in (1, 2, 3)] == ["acknowledged"] * 3
    assert list(world.exchange.asked) == [("create", "a"), ("amend", "a"), ("cancel", "a")]


async def test_what_is_too_old_is_never_sent(autojump_clock: MockClock, world: World) -> None:
    world.exchange.down = True
    now = world.now()
    world.give(world.command(item(), command_id="c-1", not_after=now + 1_000_000))
    world.give(world.command(item(), command_id="c-2", not_after=now + 3_600_000_000))
    async with world.running():
        expired = await world.final("c-1")
        assert (expired.state, expired.rule) == ("expired", "expired")
        assert 1_000_000 < expired.receive_time - now < 1_100_000
        expired = await world.final("c-2")  # max_age counts, whatever the command allows
        assert 10_000_000 < expired.receive_time - now < 10_100_000
        world.exchange.down = False
        await world.settled()
    assert not world.exchange.asked


async def test_a_repeated_command_is_dropped(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="a")
    world.order("c-1", client_order_id="b")
    async with world.running() as gateway:
        await world.settled_after("c-1")
        world.order("c-1", client_order_id="c")
        await world.settled()
        assert gateway.stats.repeated == 2
    assert world.exchange.asked == {("create", "a"): 1}
    assert len(world.finals("c-1")) == 1


async def test_each_item_of_a_batch_has_its_own_end(autojump_clock: MockClock, world: World) -> None:
    world.exchange.answers = lambda name: (
        ItemAnswer(accepted=False, code="7", message="no", error_class="permanent") if name == "b" else None
    )
    items = [item(client_order_id=name) for name in "ab"]
    world.give(world.command(*items, item(size="0.0001"), item(instrument="XRPUSDT"), command_id="c-1"))
    async with world.running():
        await world.final("c-1", 4)
        await world.settled()
    ends = {
        result.item: (result.state, result.rejected_by, result.rule or result.code) for result in world.finals("c-1")
    }
    assert ends == {
        0: ("acknowledged", None, None),
        1: ("rejected", "venue", "7"),
        2: ("rejected", "guard", "lot_size"),
        3: ("rejected", "guard", "instrument"),
    }


async def test_an_order_without_a_name_gets_one(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1")
    async with world.running():
        final = await world.final("c-1")
        await world.settled()
    assert final.client_order_id == client_order_id("c-1", 0)
    assert world.exchange.asked == {("create", final.client_order_id): 1}


async def test_an_answer_that_leaves_it_open_is_looked_up(autojump_clock: MockClock, world: World) -> None:
    def timed_out(name: str) -> ItemAnswer:
        if name == "taken":
            world.exchange.orders[name] = open_order(name, "v-1")
        return ItemAnswer(accepted=None, code="10006", message="too many visits", error_class="rate_limited")

    world.exchange.answers = timed_out
    world.order("c-1", client_order_id="taken")
    world.order("c-2", client_order_id="lost")
    async with world.running():
        await world.settled_after("c-2")
    assert world.states("c-1")[-2:] == ["unknown", "acknowledged"]
    assert world.states("c-2")[-2:] == ["unknown", "rejected"]
    lost = world.finals("c-2")[0]
    assert (lost.rule, lost.code, lost.error_class) == ("not_arrived", "10006", "rate_limited")
    assert str(lost.message).endswith("; the venue had answered: too many visits")


async def test_an_unanswered_request_ends_the_connection(autojump_clock: MockClock, world: World) -> None:
    world.exchange.held = []
    world.order("c-1", client_order_id="a")
    async with world.running() as gateway:
        final = await world.final("c-1")
        await world.settled()
        assert gateway.stats.reconnects == {"DeadlineMissed": 1}
    assert (final.state, final.message) == ("acknowledged", "found at the venue: new")
    assert world.exchange.asked == {("create", "a"): 1}


async def test_the_venue_is_asked_again_until_it_tells(autojump_clock: MockClock, world: World) -> None:
    world.exchange.drop = "before_ack"
    world.order("c-1", client_order_id="a")
    async with world.running() as gateway:
        await world.until(lambda: "unknown" in world.states("c-1"))
        world.exchange.deaf = True
        await trio.sleep(60)
        assert not world.finals("c-1")
        stats = gateway.measured()
        assert stats.unknown == 1
        assert world.now() - stats.oldest_unknown >= 59_000_000
        assert stats.look_up_failures > 5
        world.exchange.deaf = False
        assert (await world.final("c-1")).state == "acknowledged"
        await world.settled()
        assert gateway.measured().oldest_unknown == 0


async def test_the_venues_rate_is_waited_for_within_bounds(autojump_clock: MockClock, world: World) -> None:
    world.trading.rate = Rate(2, 0.4)
    for n in range(4):
        world.order(f"c-{n}", client_order_id=f"o{n}")
    async with world.running():
        await world.settled_after("c-3")
        sent = [result.sent_time for n in range(4) for result in world.finals(f"c-{n}")]
        assert sent[2] - sent[1] >= 399_000  # type: ignore[operator]
    assert len(world.exchange.asked) == 4


async def test_what_would_wait_too_long_for_the_rate_is_refused(autojump_clock: MockClock, world: World) -> None:
    world.trading.rate = Rate(1, 2.0)
    world.order("c-1")
    world.order("c-2")
    async with world.running():
        refused = await world.final("c-2")
        await world.settled()
    assert (refused.rule, refused.error_class) == ("rate", "rate_limited")
    assert len(world.exchange.asked) == 1


async def test_the_venues_own_count_is_believed(autojump_clock: MockClock, world: World) -> None:
    world.exchange.limits = (ReportedLimit("create", 0, Micros(NOW + 60_000_000)),)
    world.order("c-1")
    async with world.running():
        await world.settled_after("c-1")
        world.order("c-2")
        assert (await world.final("c-2")).rule == "rate"
        await world.settled()


async def test_without_a_price_nothing_is_guessed(autojump_clock: MockClock, world: World) -> None:
    world.exchange.price = None
    world.order("c-1")
    async with world.running():
        assert (await world.final("c-1")).rule == "price_band"
        await world.settled()
    assert not world.exchange.asked


async def test_a_price_that_is_missing_holds_up_nothing_that_was_planned(
    autojump_clock: MockClock, world: World
) -> None:
    world.order("c-1")
    world.order("c-2", instrument="ETHUSDT")
    async with world.running():
        assert (await world.final("c-1")).state == "acknowledged"
        assert (await world.final("c-2")).state == "acknowledged"
        await world.settled()


async def test_a_command_for_somebody_else_is_refused(autojump_clock: MockClock, world: World) -> None:
    world.give(world.command(item(), command_id="c-1", account="other"))
    async with world.running():
        assert (await world.final("c-1")).rule == "account"
        await world.settled()


async def test_what_is_no_command_becomes_a_dead_letter(autojump_clock: MockClock, world: World) -> None:
    world.give(b"no Avro")
    world.give(world.command(command_id="c-2"))
    async with world.running():
        assert (await world.final(f"{TOPIC}/0/0")).rule == "schema"
        assert (await world.final("c-2")).rule == "schema"
        await world.settled()
    first, second = world.letters
    assert isinstance(first, DeadLetter)
    assert (first.payload, first.topic, first.stage) == (b"no Avro", TOPIC, "parse")
    assert isinstance(second, DeadLetter)
    assert "items" in second.reason


async def test_the_status_tells_why_commands_wait(autojump_clock: MockClock, world: World) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        world.members[0].owner.held_up("the registry does not answer")
        await world.until(lambda: gateway.stats.connection == "live")
        assert gateway.measured().held_up == "the registry does not answer"
        assert not gateway.stats.is_able
        nothing: Any = None
        entry = OrderEntry(
            settings=OrderSettings(), kafka=nothing, venues={}, intakes={}, around=nothing, route=nothing
        )
        entry.gateways["bybit", "main"] = gateway
        assert entry.not_ready() == ["orders of bybit.main: commands wait: the registry does not answer"]
        world.members[0].owner.held_up("")
        assert gateway.measured().is_able
        assert not entry.not_ready()


async def test_cancel_all_cancels_what_is_open_in_its_scope(autojump_clock: MockClock, world: World) -> None:
    for n in range(5):
        world.exchange.orders[f"o{n}"] = open_order(f"o{n}", f"v{n}")
    world.trading.most = 2
    world.give(world.command(action=CANCEL_ALL, command_id="c-1", market="linear", instrument="BTCUSDT"))
    world.give(world.command(action=CANCEL_ALL, command_id="c-2", market="linear", instrument="ETHUSDT"))
    async with world.running() as gateway:
        assert (await world.final("c-1")).message == "orders: 5"
        assert (await world.final("c-2")).message == "orders: 0"
        await world.settled()
        assert gateway.stats.swept == 5
    assert world.exchange.asked == {("cancel", f"o{n}"): 1 for n in range(5)}


@pytest.mark.parametrize("seam", ["consumed", "sent", "answered", "delivered"])
async def test_a_full_disk_ends_no_process(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch, seam: str
) -> None:
    def write(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with world.running() as gateway:
        await world.state(gateway, "owner")
        with monkeypatch.context() as patch:
            world.acts[seam] = lambda: patch.setattr(ledger_module, "_write", write)
            world.order("c-1", client_order_id="mine")
            await world.state(gateway, "retrying")
            assert gateway.stats.last_error.endswith("ledger/ledger: No space left on device")
            assert "bug" not in gateway.stats.reconnects
        await world.settled_after("c-1")
    assert world.exchange.asked == {("create", "mine"): 1}
    assert len(world.finals("c-1")) == 1


@pytest.mark.parametrize("scope", [{"market": "swap"}, {"market": "linear", "instrument": "BTCUSDTX"}])
async def test_a_scope_that_is_not_known_is_not_said_to_be_cancelled(
    autojump_clock: MockClock, world: World, scope: dict[str, str]
) -> None:
    world.exchange.orders["a"] = open_order("a", "v-a")
    world.give(world.command(action=CANCEL_ALL, command_id="c-1", **scope))
    async with world.running():
        final = await world.final("c-1")
        await world.settled()
    assert (final.state, final.rule, final.error_class) == ("rejected", "instrument", "permanent")
    assert not world.exchange.asked


async def test_a_clock_that_is_ahead_does_not_keep_a_command_young(autojump_clock: MockClock, world: World) -> None:
    late = world.now() + 60_000_000
    world.give(world.command(item(), command_id="c-1", issued_at=late, not_after=late))
    world.give(world.command(action=KILL, command_id="c-2", issued_at=late, not_after=late))
    async with world.running():
        final = await world.final("c-1")
        killed = await world.final("c-2")
    assert (final.state, final.rule) == ("rejected", "clock")
    assert "issued_at is 60 s ahead" in str(final.message)
    assert killed.state == "acknowledged"


async def test_cancel_all_tells_what_is_still_open(autojump_clock: MockClock, world: World) -> None:
    world.exchange.orders["a"] = open_order("a", "v-a")
    world.exchange.answers = lambda name: ItemAnswer(accepted=False, code="1", message="no", error_class="retryable")
    world.give(world.command(action=CANCEL_ALL, command_id="c-1"))
    async with world.running():
        final = await world.final("c-1")
        await world.settled()
    assert (final.state, final.rejected_by, final.message) == ("rejected", "venue", "1 of 1 orders are still open")


async def test_what_the_venue_has_not_is_refused(autojump_clock: MockClock, world: World) -> None:
    world.give(world.command(action=MASS_CANCEL, command_id="c-1", market="option", instrument="BTC-USD"))
    world.give(world.command(item(extras={"odd": "1"}), command_id="c-2"))
    async with world.running():
        assert (await world.final("c-1")).rule == "venue"
        assert (await world.final("c-2")).message == "extras: odd"
        await world.settled()


async def test_a_mass_cancel_goes_out(autojump_clock: MockClock, world: World) -> None:
    world.catalogue["linear", "BTC-1"] = instrument("BTC-1", underlying="BTC-USD")
    world.give(world.command(action=MASS_CANCEL, command_id="c-1", market="linear", instrument="BTC-USD"))
    world.give(world.command(action=MASS_CANCEL, command_id="c-2", market="linear", instrument="BTC-USDC"))
    async with world.running():
        assert (await world.final("c-1")).state == "acknowledged"
        refused = await world.final("c-2")
        assert (refused.rejected_by, refused.rule) == ("guard", "instrument")
        await world.settled()
    assert world.exchange.asked == {("mass_cancel", "BTC-USD"): 1}


async def test_what_a_mass_cancel_left_open_proves_nothing(autojump_clock: MockClock, world: World) -> None:
    world.catalogue["linear", "BTC-USD-1"] = instrument("BTC-USD-1", underlying="BTC-USD")
    order = open_order("mine", "v-1")
    order.origin = instrument("BTC-USD-1").origin
    world.exchange.orders["mine"] = order
    world.exchange.drop = "before_ack"
    world.give(world.command(action=MASS_CANCEL, command_id="c-1", market="linear", instrument="BTC-USD"))
    async with world.running():
        final = await world.final("c-1")
        await world.settled()
    assert (final.state, final.rule, final.error_class) == ("rejected", "unprovable", "retryable")


async def test_a_refused_order_takes_no_other_of_its_name_from_the_count(
    autojump_clock: MockClock, world: World
) -> None:
    world.exchange.held = []
    async with world.running() as gateway:
        world.order("c-1", client_order_id="a")
        await world.passed("sent")
        world.order("c-2", client_order_id="a", price="65000.55")
        assert (await world.final("c-2")).rule == "tick_size"
        assert gateway.open_orders.count == 1
        world.exchange.held.pop()()
        await world.settled_after("c-1")


async def test_an_amendment_of_what_nobody_shows_ends_as_such(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="a")
    async with world.running():
        await world.settled_after("c-1")
        world.exchange.drop = "before_ack"
        world.give(world.command(named("a", extras={"takeProfit": "70000"}), action=AMEND, command_id="c-2"))
        final = await world.final("c-2")
        await world.settled()
    assert (final.state, final.rejected_by, final.rule) == ("rejected", "connector", "unprovable")
    assert final.error_class == "retryable"
    assert world.exchange.asked["amend", "a"] == 1


async def test_the_kill_switch_refuses_and_cancels(autojump_clock: MockClock, world: World) -> None:
    world.exchange.orders["old"] = open_order("old", "v-old")
    world.give(world.command(action=KILL, command_id="c-1"))
    world.order("c-2")
    world.give(world.command(named("old", size="0.020"), action=AMEND, command_id="c-3"))
    async with world.running() as gateway:
        assert (await world.final("c-1")).state == "acknowledged"
        assert (await world.final("c-2")).rule == "kill_switch"
        assert (await world.final("c-3")).rule == "kill_switch"
        await world.closed("old")
        world.exchange.orders["late"] = open_order("late", "v-late")
        gateway.on_order(world.exchange.orders["late"])
        await world.closed("late")
        world.give(world.command(action=RESUME, command_id="c-4"))
        await world.final("c-4")
        world.order("c-5")
        assert (await world.final("c-5")).state == "acknowledged"
        await world.settled()


async def test_the_kill_switch_counts_for_what_is_read_in_the_same_moment(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running():
        world.order("c-0")
        await world.final("c-0")  # its price is fresh now: nothing else has to be waited for
        world.give(world.command(action=KILL, command_id="c-1"))
        world.order("c-2", client_order_id="killed")
        assert (await world.final("c-2")).rule == "kill_switch"
        await world.settled()
        world.give(world.command(action=RESUME, command_id="c-3"))
        world.order("c-4")
        assert (await world.final("c-4")).state == "acknowledged"
        await world.settled()
    assert ("create", "killed") not in world.exchange.asked


async def test_a_resume_takes_its_turn(autojump_clock: MockClock, world: World) -> None:
    world.give(world.command(action=KILL, command_id="c-1"))
    world.order("c-2")  # has to wait for a price
    world.give(world.command(action=RESUME, command_id="c-3"))
    world.order("c-4", client_order_id="after")
    async with world.running() as gateway:
        assert (await world.final("c-2")).rule == "kill_switch"
        assert (await world.final("c-3")).state == "acknowledged"
        await world.settled_after("c-4")
        assert not gateway.measured().is_killed
    assert world.exchange.asked == {("create", "after"): 1}


async def test_a_resume_needs_no_venue(autojump_clock: MockClock, world: World) -> None:
    world.exchange.barred = "the key is invalid"
    async with world.running() as gateway:
        await trio.sleep(2)
        assert gateway.stats.connection == "refused"
        for number, action in enumerate((KILL, RESUME)):
            world.give(world.command(action=action, command_id=f"c-{number}"))
        await world.settled_after("c-1")
        assert not gateway.measured().is_killed
    assert world.states("c-1") == ["acknowledged"]


@pytest.mark.parametrize("is_by_topic", [True, False])
async def test_a_resume_does_not_undo_a_kill_that_came_after_it(
    autojump_clock: MockClock, world: World, *, is_by_topic: bool
) -> None:
    world.exchange.down = True
    world.give(world.command(action=KILL, command_id="c-1"))
    world.order("c-2")
    world.give(world.command(action=RESUME, command_id="c-3"))
    async with world.running() as gateway:
        await world.final("c-1")
        if is_by_topic:
            world.give(world.command(action=KILL, command_id="c-4"))
        else:
            await gateway.switch("by hand", is_killed=True)
        assert (await world.final("c-3")).rule == "kill_switch"
        world.exchange.down = False
        assert (await world.final("c-2")).rule == "kill_switch"
        await world.settled()
        assert gateway.measured().is_killed


async def test_a_kill_is_on_disk_before_it_is_confirmed(autojump_clock: MockClock, world: World) -> None:
    world.give(world.command(action=KILL, command_id="c-1"))
    async with world.running():
        await world.settled_after("c-1")
    assert world.steps.index("synced") < world.steps.index("told")


async def test_an_old_kill_still_counts_and_an_old_resume_does_not(autojump_clock: MockClock, world: World) -> None:
    for n, action in enumerate((KILL, RESUME)):
        world.give(world.command(action=action, command_id=f"c-{n}", issued_at=1, not_after=2))
    async with world.running() as gateway:
        assert (await world.final("c-0")).state == "acknowledged"
        assert (await world.final("c-1")).state == "expired"
        assert gateway.measured().is_killed
        await world.settled()


async def test_the_kill_file_counts_while_it_is_there(autojump_clock: MockClock, world: World, tmp_path: Path) -> None:
    file = tmp_path / "stop"
    file.touch()
    world.kill_file = str(file)
    world.order("c-1")
    async with world.running():
        assert (await world.final("c-1")).rule == "kill_switch"
        file.unlink()
        await trio.sleep(2 * PULSE)
        world.order("c-2")
        assert (await world.final("c-2")).state == "acknowledged"
        await world.settled()


async def test_the_kill_switch_over_http_is_on_disk_before_it_is_confirmed(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        await gateway.switch("fat finger", is_killed=True)
        assert world.steps[-2:] == ["intended", "synced"]
        await world.until(lambda: (at := world.topic.committed) is not None and at[1] is not None and at[1].is_killed)
    with pytest.raises(Refused, match="does not own"):
        await gateway.switch(None, is_killed=False)


async def test_the_venue_is_kept_informed_that_we_live(autojump_clock: MockClock, world: World) -> None:
    world.settings = attrs.evolve(world.settings, cancel_on_disconnect=30.0)
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        await trio.sleep(35)
    assert world.exchange.armed == [30.0] * 4


async def test_no_more_orders_than_allowed_are_open(autojump_clock: MockClock, world: World) -> None:
    world.settings = attrs.evolve(world.settings, max_open_orders=3)
    world.exchange.orders["old"] = open_order("old", "v-old")
    world.give(world.command(*(item(client_order_id=name) for name in "abc"), command_id="c-1"))
    async with world.running():
        await world.final("c-1", 3)
        await world.settled()
    assert sorted(result.rule or result.state for result in world.finals("c-1")) == [
        "acknowledged", "acknowledged", "max_open_orders",
    ]  # fmt: skip


async def test_a_venue_that_wants_another_connection_gets_one(autojump_clock: MockClock, world: World) -> None:
    world.exchange.held = []
    world.order("c-1", client_order_id="a")
    async with world.running() as gateway:
        await world.until(lambda: "sent" in world.states("c-1"))
        world.lines[0].push(b'{"end": true}')
        world.order("c-2", client_order_id="b")
        await trio.sleep(0.1)
        assert len(world.lines) == 1  # the answer is still welcome
        answers, world.exchange.held = world.exchange.held, None
        answers[0]()
        await world.settled_after("c-2")
        assert gateway.stats.generation == 2
    assert [world.finals(name)[0].state for name in ("c-1", "c-2")] == ["acknowledged"] * 2


async def test_a_venue_that_wants_another_connection_and_never_answers_is_left(
    autojump_clock: MockClock, world: World
) -> None:
    world.settings = attrs.evolve(world.settings, answer_within=2.0)
    world.exchange.held = []
    world.order("c-1", client_order_id="a")
    async with world.running() as gateway:
        await world.until(lambda: "sent" in world.states("c-1"))
        assert gateway.stats.is_able
        world.lines[0].push(b'{"end": true}')
        world.order("c-2", client_order_id="b")
        await trio.sleep(1)
        assert not gateway.stats.is_able, "c-2 waits"
        assert gateway.stats.last_error == "the venue wants order entry elsewhere"
        world.exchange.held = None
        await world.settled_after("c-2")
        assert gateway.stats.is_able
        assert not gateway.stats.last_error
    assert world.states("c-1")[-2:] == ["unknown", "acknowledged"]
    assert world.finals("c-2")[0].state == "acknowledged"
    assert set(world.exchange.asked.values()) == {1}


async def test_a_connection_that_is_refused_for_good_is_told_and_keeps_nothing_hanging(
    autojump_clock: MockClock, world: World
) -> None:
    world.exchange.held = []
    world.order("c-1", client_order_id="a")
    async with world.running() as gateway:
        await world.until(lambda: "sent" in world.states("c-1"))
        world.exchange.barred, world.exchange.held = "the key is invalid", None
        world.lines[0].hang_up()
        world.order("c-2", client_order_id="b")
        assert (await world.final("c-1")).state == "acknowledged"  # REST tells
        late = await world.final("c-2")
        assert (late.state, late.rejected_by) == ("expired", "connector")
        assert str(late.message).endswith("the connection is refused: the key is invalid")
        assert (gateway.stats.connection, gateway.stats.is_able) == ("refused", False)
        await world.settled()
        world.exchange.barred = ""
        await trio.sleep(gateway.venue_settings.refresh_instruments)  # it is asked again
        world.order("c-3", client_order_id="c")
        assert (await world.final("c-3")).state == "acknowledged"
        await world.settled()
    assert world.exchange.asked == {("create", "a"): 1, ("create", "c"): 1}


async def test_who_stood_still_gives_the_topic_up(autojump_clock: MockClock, world: World) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        assert gateway._tenure is not None
        gateway._tenure._pulse_at -= STALL + 1
        await world.until_members(2)
        assert any(line.is_closed for line in world.lines)
        world.order("c-1")
        await world.settled_after("c-1")


@pytest.mark.parametrize("end", ["answered", "over"])
async def test_who_stood_still_tells_nothing_more(autojump_clock: MockClock, world: World, end: str) -> None:
    """Not of what came meanwhile either: another owner may have told what became of it."""
    world.exchange.held = []
    async with world.running() as gateway:
        world.order("c-1", client_order_id="mine")
        await world.passed("sent")
        await trio.testing.wait_all_tasks_blocked()
        old, told, committed = gateway._tenure, list(world.results), world.topic.committed
        assert old is not None
        autojump_clock.jump(STALL + 1)  # nobody else has had a turn yet to see how late it is
        if end == "answered":
            [request] = old.desk._in_flight._sent
            old.answered(Answer(request, (ItemAnswer(accepted=True, order_id="v-mine"),)))
        else:
            old.over(list(old.desk._in_flight._sent), "cut")
        await old.ended.wait()
        assert (world.results, world.topic.committed) == (told, committed)
        await world.settled_after("c-1")
    assert len(world.finals("c-1")) == 1
    assert world.exchange.asked["create", "mine"] == 1


async def test_only_one_process_works_with_a_ledger(autojump_clock: MockClock, world: World) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
        with pytest.raises(ConfigError, match="in use by another process"):
            await world.gateway().run()


async def test_stopping_waits_for_answers_and_sends_nothing_more(autojump_clock: MockClock, world: World) -> None:
    world.exchange.held = []
    world.order("c-1", client_order_id="a")
    async with trio.open_nursery() as nursery:
        gateway = world.gateway()
        nursery.start_soon(gateway.run)
        await world.until(lambda: "sent" in world.states("c-1"))
        gateway.stop()
        world.order("c-2", client_order_id="b")
        await trio.sleep(1)
        world.exchange.held[0]()
        await world.final("c-1")
    assert world.exchange.asked == {("create", "a"): 1}
    assert world.topic.committed is not None
    assert world.topic.committed[0] == 1
    assert not world.states("c-2")
