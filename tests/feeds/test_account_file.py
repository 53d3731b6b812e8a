from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import msgspec
import pytest
import trio
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test
from msgspec.structs import replace
from structlog.testing import capture_logs
from trio.testing import MockClock

from pipeline.exchanges.accounts import Accounts
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.account_events import FINAL
from pipeline.feeds.account_file import MOST_FILLS, AccountFile, decode, encode
from pipeline.feeds.account_memory import KEPT_ENDS, AccountImage, AccountMemory, Scope, Shown
from pipeline.feeds.account_state import SAVE_EVERY, AccountState
from pipeline.feeds.errands import Errand, Errands
from pipeline.feeds.fill_memory import FillImage, FillKey, fill_key
from pipeline.feeds.settings import ReconcileSettings
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.account import AccountGreeks, AccountRaw, Balance, Fill, Order
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Micros
from pipeline.model.stats import ConnectionStats
from tests.feeds.account_model import (
    FILLS,
    ORDERS,
    SETTINGS,
    Consumer,
    ModelExchange,
    ModelReader,
    balance,
    fill,
    micros,
    order,
    origin,
    position,
)
from tests.feeds.test_reconcile import CutStreams, walk

NO_FILLS = FillImage({}, {}, [])


@pytest.fixture
def file(tmp_path: Path) -> AccountFile:
    return AccountFile(tmp_path / "spool" / "accounts", "toy", "main")


def everything() -> AccountImage:
    memory = AccountMemory(SETTINGS)
    rich = replace(
        order("1", "partially_filled", 5, 2),
        fees={"USDT": DecimalText("0.10")},
        extras={"a": "ö"},
        implied_volatility=0.25,
        is_post_only=False,
        trigger_time=micros(3),
    )
    greeks = AccountGreeks(origin(None), micros(1), micros(1), 7, "greeks", False, "BTC", delta=-1.5)
    for event in (rich, position(-3, 4, sequence=9, position_id="p"), balance("5.00", 2), greeks, order("2", "filled")):
        memory.admit(event)
    for number in range(3):
        memory.admit(fill(f"{number}", second=number))
    memory.fills("execution", [fill("4", second=4, market="spot")], micros(8))
    return memory.image()


def without_connection(image: AccountImage) -> AccountImage:
    def bare(shown: Shown) -> Shown:
        event = shown.event
        head = {name: getattr(event.origin, name) for name in ("venue", "market", "instrument", "symbol", "account")}
        return attrs.evolve(shown, event=replace(event, origin=cast(Any, head), receive_time=Micros(0)))

    return attrs.evolve(image, present=[*map(bare, image.present)], ended=[*map(bare, image.ended)])


# The file


def test_what_is_read_is_what_was_written(file: AccountFile) -> None:
    image = everything()
    file.write(image, micros(9))
    found = file.read()
    assert without_connection(found) == without_connection(image)
    assert [each.event.origin.key for each in found.present[:2]] == [b"toy.main.X", b"toy.main.X"]
    assert [len(each) for each in (found.present, found.ended, found.fills.seen)] == [4, 1, 4]
    assert found.fills.read_at == {"execution": micros(8)}


def test_amounts_are_text_in_the_file_and_connections_are_not_in_it() -> None:
    text = encode(everything(), "toy", "main", micros(9))
    assert b'"total":"5.00"' in text
    assert b'"fees":{"USDT":"0.10"}' in text
    assert b"a#1" not in text
    assert msgspec.json.decode(text)["written"] == micros(9)


def test_types_are_not_worked_out_anew_for_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    image = everything()
    encode(image, "toy", "main", micros(9))
    monkeypatch.delattr(msgspec.structs, "fields")  # takes a millisecond, in a thread that the event loop waits for
    assert encode(image, "toy", "main", micros(9))


def test_threads_that_read_work_out_no_types(file: AccountFile) -> None:
    """Two that did so at once ended the process. A process of its own, as here others have worked them out already."""
    file.write(everything(), micros(9))
    program = """
import sys
from pathlib import Path
from pipeline.feeds import account_file

for kind in (account_file._About, account_file._Content, account_file._Entry, *account_file._KINDS.values()):
    kind.__annotations__ = dict.fromkeys(kind.__annotations__, "NotKnown")
assert account_file.AccountFile(Path(sys.argv[1]), "toy", "main").read().present
"""
    subprocess.run([sys.executable, "-c", program, str(file.directory)], check=True)


def test_nobody_else_may_read_it(file: AccountFile) -> None:
    before = os.umask(0)
    try:
        file.path.parent.parent.mkdir()
        file.write(everything(), micros(9))
        file.write(everything(), micros(10))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.directory.stat().st_mode) == 0o700
    assert [path.name for path in file.directory.iterdir()] == ["toy.main.json"]


def test_a_torn_write_leaves_the_former_file(file: AccountFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(everything(), micros(9))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write(AccountImage([], [], NO_FILLS), micros(10))
    monkeypatch.undo()
    assert len(file.read().present) == 4
    file.write(AccountImage([], [], NO_FILLS), micros(11))
    assert file.read().present == []


def test_an_account_may_have_any_name(tmp_path: Path) -> None:
    file = AccountFile(tmp_path, "toy", "../a b/ö")
    file.write(everything(), micros(9))
    assert file.path.parent == tmp_path
    assert len(file.read().present) == 4


TEXT = encode(everything(), "toy", "main", micros(9))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "damaged"),
        (TEXT[:-1], "damaged"),
        (TEXT.replace(b'"version":1', b'"version":2'), "version 2, not 1"),
        (TEXT.replace(b'"account":"main","written"', b'"account":"other","written"'), "other of toy, not main of toy"),
        (TEXT.replace(b'"venue":"toy","account":"main","w', b'"venue":"x","account":"main","w'), "main of x"),
        (TEXT.replace(b'"kind":"order"', b'"kind":"trade"'), "no state is a trade"),
        (TEXT.replace(b'"order_id":"1"', b'"order_id":1'), "Expected `str`"),
        (TEXT.replace(b'"order_id":"1",', b""), "order_id"),
        (TEXT.replace(b'"origin":{"venue":"toy",', b'"origin":{'), "venue"),
        (TEXT.replace(b'"seen"', b'"x"').replace(b'"fills":', b'"f":'), "fills"),
        (b"\xff" + TEXT, "damaged"),
        (TEXT.replace(b'"event":{"origin":{', b'"event":{"origin":5,"x":{'), "damaged"),
    ],
)  # fmt: skip
def test_what_is_not_a_file_of_ours_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        decode(text, "toy", "main")


def test_identities_of_fills_are_bounded(file: AccountFile) -> None:
    seen: list[tuple[FillKey, Micros | None]] = [
        (fill_key(fill(str(number))), micros(number)) for number in range(MOST_FILLS + 5)
    ]
    file.write(AccountImage([], [], FillImage({}, {"linear": 7, "spot": 8}, seen)), micros(9))
    found = file.read().fills
    assert found.seen == seen[5:]
    assert found.forgotten == {"linear": micros(4), "spot": 8}


# What the next process makes of it


def next_process(memory: AccountMemory, settings: ReconcileSettings = SETTINGS) -> AccountMemory:
    again = AccountMemory(settings)
    again.recall(decode(encode(memory.image(), "toy", "main", micros(9)), "toy", "main"))
    return again


def test_the_next_process_knows_what_has_ended() -> None:
    before = AccountMemory(SETTINGS)
    for number in range(KEPT_ENDS + 1):
        before.admit(order(f"ended-{number}", "filled", 5))
    triggered = order("algo", "triggered", 5)
    before.admit(triggered)
    before.answered(triggered, [], 10**9, micros(6), "a#1")
    after = next_process(before)
    late = [order(name, second=4) for name in ("ended-0", "ended-2", f"ended-{KEPT_ENDS}", "algo")]
    assert [each.order_id for each in late if after.admit(each)] == ["ended-0"], "the oldest ends are forgotten"


def test_fills_forgotten_are_not_published_again() -> None:
    before = AccountMemory(SETTINGS)
    for number in range(1, 5):
        before.admit(fill(str(number), second=number))
    after = next_process(before, ReconcileSettings(remembered_fills=2))
    assert after.fills("execution", [fill(str(number), second=number) for number in (1, 3, 4)], micros(9)) == []
    late = fill("2b", second=2)
    assert after.fills("execution", [late], micros(9)) == [late], "it may not have been published"


def test_a_position_that_was_told_after_the_last_writing_is_flat() -> None:
    """A killed process has told more than it could note."""
    before = AccountMemory(SETTINGS)
    before.fills("execution", [], micros(1))
    for event in (position(0, 3, instrument="X"), position(0, 3, instrument="Y"), position(1, 3, instrument="Z")):
        before.admit(event)
    after = next_process(before)
    fills: list[Event] = [fill("1", second=4, instrument="X"), fill("2", second=3, instrument="Y")]
    after.fills("execution", [*fills, fill("3", second=4, instrument="Z")], micros(5))
    held = [position(1, 3, instrument="Z")]
    assert after.complete(Scope("position", None), "position", held, after.mark(), micros(6), "a#2") == (held, [])
    assert [each.origin.instrument for each in after.flats(micros(7), "a#2")] == ["X"]
    assert after.flats(micros(7), "a#2") == []


class Restarts(CutStreams):
    """Processes that end in order: nothing is lost, repeated or told in another order."""

    @rule()
    def restart(self) -> None:
        self.cut()
        self.memory = next_process(self.memory)


class RestartsWithPositions(Restarts):
    streams_positions = True


class Witness(Consumer):
    """Knows that records can be repeated after a process was killed."""

    def publish(self, event: Event) -> bool:
        if isinstance(event, Fill):
            self.fills = [each for each in self.fills if each.fill_id != event.fill_id]
        elif isinstance(event, Order) and event.status not in FINAL:
            self.orders.pop(event.order_id, None)
        self._times.clear()
        return super().publish(event)


class Kills(CutStreams):
    """Processes that are killed: their file is older than what they have published."""

    def __init__(self) -> None:
        super().__init__()
        self.consumer: Consumer = Witness()
        self.saved = AccountMemory(SETTINGS).image()
        self.unnoted: set[str] = set()

    @rule()
    def save(self) -> None:
        self.saved = self.memory.image()

    @rule()
    def kill(self) -> None:
        self.cut()
        told = {*self.consumer.orders, *self.consumer.balances}
        self.memory = AccountMemory(SETTINGS)
        self.memory.recall(decode(encode(self.saved, "toy", "main", micros(9)), "toy", "main"))
        noted = [shown.event for shown in (*self.saved.present, *self.saved.ended)]
        orders = {each.order_id for each in noted if isinstance(each, Order)}
        self.unnoted |= told - orders - {str(each.currency) for each in noted if isinstance(each, Balance)}

    def fills_of_the_stream_are_in_order(self) -> None:
        """Not where they are repeated."""

    def compare(self) -> None:
        # What was first told after the last writing and has ended before the next process asked is known to nobody.
        for each in self.exchange.now.orders:
            if each.status in FINAL and each.order_id in self.unnoted:
                self.consumer.orders.pop(each.order_id, None)
        for cash in self.exchange.now.balances:
            if cash.total == "0" and cash.currency in self.unnoted:
                self.consumer.balances.pop(str(cash.currency), None)
        super().compare()


class KillsWithPositions(Kills):
    streams_positions = True


@pytest.mark.parametrize("machine", [Restarts, RestartsWithPositions, Kills, KillsWithPositions])
def test_what_processes_publish_folds_to_what_is_true(machine: type[CutStreams]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=60))


# Writing it while events come


@attrs.frozen
class Watched(AccountFile):
    """Tells when something was tried to write."""

    tried: trio.MemorySendChannel[None]

    def write(self, image: AccountImage, now: Micros) -> None:
        try:
            super().write(image, now)
        finally:
            trio.from_thread.run_sync(self.tried.send_nowait, None)


class Desk:
    """An account's state without its venue."""

    def __init__(self, file: AccountFile, safe_until: Callable[[], int] | None = None) -> None:
        send, self.tried = trio.open_memory_channel[None](1)
        self.file = Watched(file.directory, file.venue, file.account, send)
        self.published: list[Event] = []
        self.models = ModelReader(ModelExchange(), "a#1", lambda: 0)
        rest = VenueRest(cast(Any, None), cast(Any, None), None, self.clock)
        rest.offset_us = 5_000_000
        self.stats = ConnectionStats("toy.main.0", "toy", "private", "private", "ws://toy")
        self.state = AccountState("main", SETTINGS, cast(Accounts, self), {}, rest, self.file, safe_until)
        self.tell = self.state.publishing(self.publish, self.stats)

    def reader(self, *about: object) -> ModelReader:
        return self.models

    async def keep_complete(self) -> None:
        subscriptions: Sequence[Subscription] = (FILLS, ORDERS) if self.state.accounts is cast(Any, self) else (ORDERS,)
        await self.state.keep_complete(
            "a#1", subscriptions, self.publish, cast(Errands, AtOnce()), self.stats, at_once=True
        )

    def clock(self) -> int:
        return round((1_000 + trio.current_time()) * 1e6)

    def publish(self, event: Event) -> bool:
        self.published.append(event)
        return True

    def written(self) -> list[str]:
        events = [each.event for each in self.file.read().present]
        return [each.order_id for each in events if isinstance(each, Order)]


async def test_what_was_told_is_in_the_file_within_a_second(
    file: AccountFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    desk = Desk(file)
    nursery.start_soon(desk.state.keep_saved)
    times = []
    for number in range(3):
        desk.tell(order(str(number)))
        desk.tell(order(f"{number}b"))
        await desk.tried.receive()
        times.append(trio.current_time())
    assert times == [SAVE_EVERY * number for number in (1, 2, 3)]
    assert desk.written() == ["0", "0b", "1", "1b", "2", "2b"]
    desk.tell(fill("1"))
    await desk.tried.receive()
    desk.tell(fill("1"))
    await trio.sleep(10 * SAVE_EVERY)
    with pytest.raises(trio.WouldBlock):
        desk.tried.receive_nowait()


async def test_what_is_on_its_way_to_kafka_is_not_in_the_file(
    file: AccountFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    safe = [0]
    desk = Desk(file, lambda: safe[0])
    nursery.start_soon(desk.state.keep_saved)
    desk.tell(order("1"))
    await trio.sleep(1.5)
    desk.tell(order("2"))
    await trio.sleep(10)
    assert not desk.file.path.exists()
    safe[0] = 1_001_000_000
    await desk.tried.receive()
    assert desk.written() == ["1"]
    await trio.sleep(10)
    assert desk.written() == ["1"]
    safe[0] = desk.clock() + 10**9
    await desk.tried.receive()
    assert desk.written() == ["1", "2"]


async def test_the_last_word_is_written_at_the_end(file: AccountFile) -> None:
    desk = Desk(file)
    await desk.state.save()
    assert not desk.file.path.exists()
    desk.tell(order("1"))
    await desk.state.save()
    assert desk.written() == ["1"]
    again = Desk(file)
    await again.state.recall()
    again.tell(fill("1"))
    await again.state.save()
    assert desk.written() == ["1"]


async def test_a_folder_that_cannot_be_written_is_told_once_and_counted(
    file: AccountFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    file.directory.parent.mkdir()
    file.directory.write_text("in the way")
    desk = Desk(file)
    with capture_logs() as logs:
        nursery.start_soon(desk.state.keep_saved)
        desk.tell(order("1"))
        for _ in range(3):
            await desk.tried.receive()
        file.directory.unlink()
        await desk.tried.receive()
    assert desk.state.save_failures == 3
    assert [(each["event"], each["log_level"]) for each in logs] == [("account_file_not_written", "error")]
    assert str(desk.file.path) in logs[0]["file"]
    assert desk.written() == ["1"]


async def test_a_file_that_cannot_be_used_is_named(file: AccountFile) -> None:
    desk = Desk(file)
    with capture_logs() as logs:
        await desk.state.recall()
        file.directory.mkdir(parents=True)
        await desk.state.recall()
        file.path.write_bytes(TEXT[:100])
        await desk.state.recall()
    assert [each["log_level"] for each in logs] == ["info", "warning", "warning"], "there is none at a first start"
    assert {each["file"] for each in logs} == {str(file.path)}
    assert "No such file" in logs[1]["text"]
    assert "damaged" in logs[2]["text"]
    assert desk.state.memory.image() == AccountImage([], [], NO_FILLS)


# What was read without a time


class Side:
    """Reads one state, without asking."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)

    def reader(self, *about: object) -> Side:
        return self

    def snapshot(self, subscription: object) -> Callable[[], Any]:
        def steps() -> Any:
            yield "path"
            return self.events

        return steps

    def fills(self, *about: object) -> None:
        return None


class AtOnce:
    """Errands that are done as soon as they are there."""

    def add(self, *errands: Errand) -> None:
        for errand in errands:
            walk(errand)


async def test_what_is_read_without_a_time_has_the_venues_present_one(
    file: AccountFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    events = [
        replace(event, exchange_time=None)
        for event in (
            order("1", read=True),
            position(1, read=True),
            balance("1", read=True),
            AccountGreeks(origin(None), None, micros(1), None, "greeks", True, "BTC"),
            AccountRaw(origin(), None, micros(1), None, "grid", True, "{}", ""),
        )
    ]
    desk = Desk(file)
    desk.state.accounts = cast(Accounts, Side(*events))
    nursery.start_soon(desk.keep_complete)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()  # the clock would not wait for the file
    now, found = desk.clock(), list(desk.published)
    with trio.CancelScope(shield=True):
        await desk.state.save()
    assert [each.exchange_time for each in found] == [now + 5_000_000] * 4 + [None]
    assert {each.receive_time for each in found} == {now}
    assert [each.time for each in desk.file.read().present] == [None] * 4, "what the venue said"
    desk.tell(order("1", "filled", 5, 1))
    assert desk.published[-1].exchange_time == micros(5), "older than the answer, but the answer did not tell"


async def test_a_round_that_found_nothing_is_noted(
    file: AccountFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    desk = Desk(file)
    desk.state.accounts = cast(Accounts, desk)
    nursery.start_soon(desk.keep_complete)
    await trio.testing.wait_all_tasks_blocked()
    await desk.state.save()
    assert desk.published == []
    assert desk.file.read().fills.read_at == {FILLS.topic: 1_005_000_000}
