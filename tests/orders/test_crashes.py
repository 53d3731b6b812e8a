"""A gateway dies at each step of a command's life: the venue sees it once at most, and it ends in one final result."""

from __future__ import annotations

import shutil

import pytest
import trio
from trio.testing import MockClock

from pipeline.exchanges.trading import ItemAnswer
from pipeline.model.orders import AMEND, CANCEL, CANCEL_ALL, KILL
from pipeline.orders.consumer import Mark
from tests.orders.samples import item, named
from tests.orders.world import TOPIC, World, open_order

SEAMS = ("consumed", "intended", "synced", "sent", "answered", "noted", "told", "delivered", "settled")


@pytest.mark.parametrize("seam", SEAMS)
async def test_a_create_survives_a_crash(autojump_clock: MockClock, world: World, seam: str) -> None:
    world.order("c-1", client_order_id="mine")
    await world.live_and_die(seam)
    async with world.running():
        await world.final("c-1")
        await world.settled()
    assert world.exchange.asked["create", "mine"] == (0 if seam in ("intended", "synced") else 1)
    [final] = world.finals("c-1")
    if seam in ("intended", "synced"):
        assert (final.state, final.rule, final.error_class) == ("rejected", "not_arrived", "retryable")
    else:
        assert (final.state, final.order_id) == ("acknowledged", "v-mine")


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("action", [AMEND, CANCEL])
async def test_a_change_survives_a_crash(autojump_clock: MockClock, world: World, seam: str, action: str) -> None:
    world.exchange.orders["mine"] = open_order("mine", "v-mine")
    item = named("mine", size="0.020") if action == AMEND else named("mine")
    world.give(world.command(item, command_id="c-1", action=action))
    await world.live_and_die(seam)
    async with world.running():
        await world.final("c-1")
        await world.settled()
    assert world.exchange.asked[action, "mine"] == (0 if seam in ("intended", "synced") else 1)
    [final] = world.finals("c-1")
    assert final.state == ("rejected" if seam in ("intended", "synced") else "acknowledged")


@pytest.mark.parametrize("seam", SEAMS)
async def test_a_cancel_all_survives_a_crash(autojump_clock: MockClock, world: World, seam: str) -> None:
    for name in ("a", "b"):
        world.exchange.orders[name] = open_order(name, f"v-{name}")
    world.give(world.command(command_id="c-1", action=CANCEL_ALL))
    await world.live_and_die(seam) if seam != "sent" else None
    async with world.running():
        await world.final("c-1")
        await world.settled()
    [final] = world.finals("c-1")
    # What is told first is that the command was accepted: nothing is cancelled by then.
    assert final.state == ("rejected" if seam in ("intended", "synced", "told") else "acknowledged")
    assert max(world.exchange.asked.values(), default=0) <= 1


@pytest.mark.parametrize("seam", ["consumed", "noted", "told", "delivered", "settled"])
@pytest.mark.parametrize("kind", ["refused", "stale", "malformed"])
async def test_what_is_not_sent_is_told_once(autojump_clock: MockClock, world: World, seam: str, kind: str) -> None:
    if kind == "malformed":
        world.give(b"no Avro")
    else:
        world.order("c-1", size="0.0001" if kind == "refused" else "0.010")
    if kind == "stale":
        world.give(world.command(named(), action=CANCEL, command_id="c-2", issued_at=1, not_after=2))
    name = {"malformed": f"{TOPIC}/0/0", "refused": "c-1", "stale": "c-2"}[kind]
    await world.live_and_die(seam)
    async with world.running():
        await world.final(name)
        await world.settled()
    [final] = world.finals(name)
    rule = {"malformed": "schema", "refused": "lot_size", "stale": "expired"}[kind]
    assert final.rule == rule


async def test_an_order_cut_off_before_its_answer_is_found(autojump_clock: MockClock, world: World) -> None:
    world.exchange.drop = "before_ack"
    world.order("c-1", client_order_id="mine")
    async with world.running():
        await world.settled_after("c-1")
    assert world.states("c-1") == ["accepted", "sent", "unknown", "acknowledged"]
    assert world.exchange.asked == {("create", "mine"): 1}


async def test_an_order_cut_off_on_its_way_has_not_arrived(autojump_clock: MockClock, world: World) -> None:
    world.exchange.drop = "before_take"
    world.order("c-1", client_order_id="mine")
    async with world.running():
        await world.settled_after("c-1")
    assert world.states("c-1") == ["accepted", "sent", "unknown", "rejected"]
    assert world.finals("c-1")[0].rule == "not_arrived"
    assert not world.exchange.asked
    # It is believed only when nothing can be under way any more.
    told = [result for result in world.results if result.command_id == "c-1"]
    assert told[-1].receive_time - told[-2].receive_time >= 5_000_000


async def test_the_topic_read_again_from_the_beginning_is_sent_no_second_time(
    autojump_clock: MockClock, world: World
) -> None:
    for name in ("a", "b", "c"):
        world.order(f"c-{name}", client_order_id=name)
    async with world.running():
        await world.settled_after("c-c")
    assert world.topic.committed is not None
    world.topic.committed = (0, world.topic.committed[1])
    async with world.running() as gateway:
        world.order("c-d", client_order_id="d")
        await world.settled_after("c-d")
        assert gateway.stats.replayed == 3
    world.topic.committed = None  # the group is gone
    async with world.running():
        await world.settled()
    assert world.exchange.asked == {("create", name): 1 for name in "abcd"}
    assert [result.command_id for result in world.results if result.is_final] == ["c-a", "c-b", "c-c", "c-d"]


async def test_another_disk_sends_nothing_that_may_have_been_sent(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="done")
    async with world.running():
        await world.settled_after("c-1")
    world.order("c-2", client_order_id="sent")
    await world.live_and_die("sent")
    world.order("c-3", client_order_id="never")
    async with world.running("other") as gateway:
        await world.final("c-3")
        await world.settled()
        world.order("c-4", client_order_id="new")
        await world.settled_after("c-4")
        assert gateway.stats.losses == 0
    assert world.exchange.asked == {("create", name): 1 for name in ("done", "sent", "new")}
    assert [world.finals(f"c-{n}")[0].state for n in (1, 2, 3, 4)] == [
        "acknowledged", "acknowledged", "rejected", "acknowledged",
    ]  # fmt: skip
    assert world.finals("c-3")[0].rule == "ownership"
    assert all(len(world.finals(f"c-{n}")) == 1 for n in (1, 2, 3, 4))


async def test_what_is_doubtful_stays_so_for_the_next_start_on_the_other_disk(
    autojump_clock: MockClock, world: World
) -> None:
    world.order("c-1", client_order_id="sent")
    await world.live_and_die("sent")
    world.order("c-2", client_order_id="never")
    await world.live_and_die("consumed", folder="other")
    async with world.running("other"):
        await world.final("c-2")
        await world.settled()
    assert world.exchange.asked == {("create", "sent"): 1}
    assert [world.finals(f"c-{n}")[0].state for n in (1, 2)] == ["acknowledged", "rejected"]


async def test_another_disk_without_a_commit_trusts_the_results(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="a")
    async with world.running():
        await world.settled_after("c-1")
    world.order("c-2", client_order_id="b")
    await world.live_and_die("sent")
    world.topic.committed = None
    async with world.running("other"):
        await world.final("c-2")
        await world.settled()
    assert world.exchange.asked == {("create", "a"): 1, ("create", "b"): 1}
    assert len(world.finals("c-1")) == len(world.finals("c-2")) == 1


async def test_the_first_owner_of_all_sends_what_was_waiting(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="a")
    async with world.running():
        await world.settled_after("c-1")
    assert world.finals("c-1")[0].state == "acknowledged"


async def test_the_kill_switch_outlives_disk_and_process(autojump_clock: MockClock, world: World) -> None:
    world.give(world.command(command_id="c-1", action=KILL))
    async with world.running():
        await world.settled_after("c-1")
    async with world.running():
        world.order("c-2")
        assert (await world.final("c-2")).rule == "kill_switch"
        await world.settled()
    async with world.running("other") as gateway:
        await world.state(gateway, "owner")
        world.order("c-3")
        assert (await world.final("c-3")).rule == "kill_switch"
        await world.settled()


async def test_an_older_copy_of_the_ledger_sends_nothing_that_was_told_of(
    autojump_clock: MockClock, world: World
) -> None:
    world.order("c-1", client_order_id="first")
    async with world.running():
        await world.settled_after("c-1")
    shutil.copytree(world.folder / "ledger", world.folder / "copy")
    world.order("c-2", client_order_id="second")
    await world.live_and_die("answered")
    assert world.states("c-2")
    async with world.running("copy"):
        await world.settled_after("c-2")
    assert world.exchange.asked == {("create", "first"): 1, ("create", "second"): 1}
    assert [final.state for final in world.finals("c-2")] == ["acknowledged"]


@pytest.mark.parametrize("folder", ["ledger", "other"])
@pytest.mark.parametrize("waits", [True, False])
async def test_a_second_copy_is_recognized_whoever_obeyed_the_first(
    autojump_clock: MockClock, world: World, folder: str, waits: bool
) -> None:
    copied = world.command(item(client_order_id="mine"), command_id="c-1")
    world.give(copied)
    async with world.running():
        await world.settled_after("c-1")
    if waits:
        world.give(copied)
    async with world.running(folder) as gateway:
        await world.state(gateway, "owner")
        world.give(copied)
        world.order("c-2", client_order_id="new")
        await world.settled_after("c-2")
        assert gateway.stats.repeated + gateway.stats.replayed == 1 + waits
    assert world.exchange.asked == {("create", "mine"): 1, ("create", "new"): 1}
    assert [len(world.finals(name)) for name in ("c-1", "c-2")] == [1, 1]


async def test_the_kill_switch_outlives_an_older_copy_of_the_ledger(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="first")
    async with world.running():
        await world.settled_after("c-1")
    shutil.copytree(world.folder / "ledger", world.folder / "copy")
    world.give(world.command(command_id="c-2", action=KILL))
    async with world.running():
        await world.settled_after("c-2")
    async with world.running("copy") as gateway:
        await world.state(gateway, "owner")
        world.order("c-3")
        assert (await world.final("c-3")).rule == "kill_switch"
        await world.settled()


@pytest.mark.parametrize("again", ["", "noted"])
async def test_offsets_set_by_hand_take_no_result_away(autojump_clock: MockClock, world: World, again: str) -> None:
    world.order("c-1", client_order_id="sent")
    await world.live_and_die("answered")
    world.topic.committed = (1, None)
    if again:
        await world.live_and_die(again)
    async with world.running():
        await world.final("c-1")
    assert world.exchange.asked == {("create", "sent"): 1}
    assert [final.state for final in world.finals("c-1")] == ["acknowledged"]


async def test_a_topic_that_ends_before_what_is_settled_is_refused(autojump_clock: MockClock, world: World) -> None:
    for n in range(3):
        world.order(f"c-{n}")
    async with world.running():
        await world.settled_after("c-2")
    del world.topic.values[1:]
    assert world.topic.committed is not None
    world.topic.committed = (1, world.topic.committed[1])
    before = dict(world.exchange.asked)
    async with world.running() as gateway:
        await world.state(gateway, "refused")
        assert "it is not the topic that it was" in gateway.stats.last_error
    assert world.exchange.asked == before


async def settle(world: World, count: int) -> None:
    """So many commands are given, obeyed and settled."""
    for n in range(count):
        world.order(f"c-{n}")
    async with world.running():
        await world.settled_after(f"c-{count - 1}")


def make_anew(world: World, identifier: str | None = "topic-2") -> None:
    """The topic is deleted and created again, so its group has committed nothing."""
    world.topic.id, world.topic.committed = identifier, None
    world.topic.values.clear()


async def test_a_topic_made_anew_is_refused_however_long_it_is(autojump_clock: MockClock, world: World) -> None:
    await settle(world, 3)
    make_anew(world)
    for n in range(5):
        world.order(f"d-{n}")
    before = dict(world.exchange.asked)
    async with world.running() as gateway:
        await world.state(gateway, "refused")
        told = gateway.stats.last_error
        assert "has the id topic-2" in told
        assert "orders.accounts.bybit.main.command_topic" in told
        assert str(world.folder / "ledger") in told
    assert world.exchange.asked == before
    assert world.topic.committed is None, "who comes next is told nothing by us"


async def test_without_its_ledger_a_topic_made_anew_is_looked_up(autojump_clock: MockClock, world: World) -> None:
    await settle(world, 3)
    make_anew(world)
    for n in range(2):
        world.order(f"d-{n}")
    before = dict(world.exchange.asked)
    async with world.running("other"):
        await world.settled_after("d-1")
        assert [world.finals(f"d-{n}")[0].rule for n in range(2)] == ["ownership", "ownership"]
        world.order("d-2", client_order_id="b")
        await world.settled_after("d-2")
    assert world.exchange.asked == {**before, ("create", "b"): 1}


async def test_a_cluster_that_tells_no_id_is_believed(autojump_clock: MockClock, world: World) -> None:
    await settle(world, 1)
    world.topic.id = None
    async with world.running():
        world.order("c-9")
        await world.settled_after("c-9")
    world.topic.id = "topic-1"
    async with world.running():
        world.order("c-10")
        assert (await world.final("c-10")).state == "acknowledged"


async def test_a_topic_that_nothing_was_read_from_may_be_another_one(autojump_clock: MockClock, world: World) -> None:
    async with world.running() as gateway:
        await world.state(gateway, "owner")
    for identifier in ("topic-2", "topic-3"):
        make_anew(world, identifier)
        async with world.running() as gateway:
            await world.state(gateway, "owner")
    world.order("c-1")
    async with world.running():
        await world.settled_after("c-1")
    make_anew(world, "topic-4")
    async with world.running() as gateway:
        await world.state(gateway, "refused")


async def test_a_topic_that_is_made_anew_meanwhile_is_noticed(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1")
    async with world.running() as gateway:
        await world.settled_after("c-1")
        world.topic.id = "topic-2"
        await world.state(gateway, "refused")
        assert "and had topic-1 when it became ours" in gateway.stats.last_error or "was read from" in (
            gateway.stats.last_error
        )
        before = dict(world.exchange.asked)
        world.order("c-2")
        await trio.sleep(60)
    assert world.exchange.asked == before


async def test_a_topic_that_goes_back_is_not_obeyed(autojump_clock: MockClock, world: World) -> None:
    for n in range(3):
        world.order(f"c-{n}")
    async with world.running() as gateway:
        await world.settled_after("c-2")
        member = world.members[-1]
        before = dict(world.exchange.asked)
        make_anew(world, None)
        world.order("d-1")
        member.at = 0
        world.topic.tell()
        await world.state(gateway, "refused")
    assert world.exchange.asked == before


async def test_a_rebalance_hands_over_without_a_repetition(autojump_clock: MockClock, world: World) -> None:
    world.exchange.held = []
    world.order("c-1", client_order_id="a")
    async with world.running():
        await world.until(lambda: "sent" in world.states("c-1"))
        await world.members[-1].owner.give_up()
        async with world.running("other"):
            await world.final("c-1")
            await world.settled()
    assert world.exchange.asked == {("create", "a"): 1}
    assert len(world.finals("c-1")) == 1


async def test_what_another_owner_has_settled_is_not_told_again(autojump_clock: MockClock, world: World) -> None:
    world.order("c-1", client_order_id="a")
    await world.live_and_die("sent")
    async with world.running("other"):
        await world.settled_after("c-1")
    told = len(world.results)
    del world.results[:]  # they have expired
    async with world.running():
        await trio.sleep(60)
        world.order("c-2")
        await world.settled_after("c-2")
    assert told
    assert not world.states("c-1")


async def test_a_replay_is_known_by_its_place_alone(autojump_clock: MockClock, world: World) -> None:
    world.remembered = 1
    for n in range(5):
        world.order(f"c-{n}", client_order_id=f"o{n}")
    async with world.running():
        await world.settled_after("c-4")
    del world.results[:]
    world.topic.committed = (0, world.topic.committed[1]) if world.topic.committed else None
    async with world.running() as gateway:
        await world.settled()
        await world.state(gateway, "owner")
        assert gateway.stats.replayed == 5
    assert world.exchange.asked == {("create", f"o{n}"): 1 for n in range(5)}
    assert not world.results


@pytest.mark.parametrize(("seam", "rule", "code"), [("answered", "not_arrived", None), ("noted", None, "7")])
async def test_an_answer_that_was_noted_is_what_is_told(
    autojump_clock: MockClock, world: World, seam: str, rule: str | None, code: str | None
) -> None:
    world.exchange.answers = lambda name: ItemAnswer(accepted=False, code="7", message="no", error_class="permanent")
    world.order("c-1", client_order_id="a")
    await world.live_and_die(seam)
    async with world.running():
        final = await world.final("c-1")
        await world.settled()
    assert (final.state, final.rule, final.code) == ("rejected", rule, code)


async def test_what_grew_old_while_the_disk_was_slow_is_not_sent(autojump_clock: MockClock, world: World) -> None:
    def wait() -> None:
        world.ahead += 60

    world.acts["synced"] = wait
    world.order("c-1")
    async with world.running():
        assert (await world.final("c-1")).state == "expired"
        await world.settled()
    assert not world.exchange.asked


async def test_who_has_to_give_up_sends_nothing_that_was_only_planned(autojump_clock: MockClock, world: World) -> None:
    async with trio.open_nursery() as nursery:
        world.acts["intended"] = lambda: nursery.start_soon(world.members[-1].owner.give_up)
        world.order("c-1", client_order_id="a")
        gateway = world.gateway()
        nursery.start_soon(gateway.run)
        await world.passed("synced")
        await trio.sleep(1)
        assert not world.exchange.asked
        assert gateway.stats.losses == 1
        gateway.stop()


def test_marks_tell_their_owner() -> None:
    assert Mark.read(Mark("a", 1, 2, is_killed=True).text()) == Mark("a", 1, 2, is_killed=True)  # type: ignore[arg-type]
