from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.errors import ConfigError
from pipeline.model.events import Micros, Origin
from pipeline.model.orders import OrderResult
from pipeline.orders import ledger as ledger_module
from pipeline.orders.ledger import Ledger, LedgerBroken, LedgerFull, Recovery, open_ledger
from pipeline.orders.ledger_entries import (
    Done,
    Entry,
    Intent,
    KillSwitch,
    KnownItem,
    LedgerState,
    Outcome,
    Place,
    Published,
    Remembered,
    TopicId,
)
from tests.orders.samples import NOW, item

TOPIC = "order.order_command.bybit.main"
HEAD_BYTES = 36


def intent(command_id: str = "c-1", number: int = 0, offset: int = 5, time: int = NOW) -> Intent:
    wanted = item(client_order_id=f"{command_id}-{number}", extras={"a": "ü"})
    return Intent(command_id, number, TOPIC, 0, offset, "create", Micros(time), wanted=wanted)


def result(command_id: str = "c-1", number: int = 0, offset: int = 5) -> OrderResult:
    return OrderResult(
        origin=Origin("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", "main", "bybit.main.trade#1"),
        exchange_time=Micros(NOW + 2),
        receive_time=Micros(NOW + 1),
        sequence=None,
        command_id=command_id,
        item=number,
        action="create",
        state="rejected",
        is_final=True,
        rejected_by="venue",
        code="110007",
        message="ab not enough",
        error_class="permanent",
        topic=TOPIC,
        offset=offset,
    )


def outcome(command_id: str = "c-1", number: int = 0, offset: int = 5) -> Outcome:
    return Outcome.of(result(command_id, number, offset))


def settled(command_id: str, offset: int) -> list[Entry]:
    return [
        intent(command_id, offset=offset),
        outcome(command_id, offset=offset),
        Published(command_id, 0),
        Done(TOPIC, 0, offset + 1),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders" / "bybit.main"


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    made = open_ledger(folder, 100)
    yield made
    made.close()


def again(ledger: Ledger, remembered: int = 100) -> Ledger:
    """As another process finds it."""
    ledger.close()
    return open_ledger(ledger.path.parent, remembered)


def test_a_new_ledger_has_an_identifier_that_stays(ledger: Ledger) -> None:
    assert ledger.recovery == Recovery(is_new=True, entries=0, cut_bytes=0)
    assert ledger.state.is_empty
    identifier = ledger.state.identifier
    assert len(identifier) == 32
    found = again(ledger)
    assert (found.state.identifier, found.recovery.is_new) == (identifier, False)
    found.close()


def test_another_ledger_is_another_one(ledger: Ledger, tmp_path: Path) -> None:
    other = open_ledger(tmp_path / "other", 100)
    assert other.state.identifier != ledger.state.identifier
    other.close()


def test_what_was_appended_is_found_again(ledger: Ledger) -> None:
    entries: list[Entry] = [
        *settled("c-0", 4),
        intent(),
        outcome(),
        intent("c-2", 1, 6),
        KillSwitch(is_on=True, time=NOW, reason="hot"),
    ]
    ledger.append(*entries)
    found = again(ledger)
    assert attrs.evolve(found.recovery, entries=0) == Recovery(is_new=False, entries=0, cut_bytes=0)
    assert found.recovery.entries == len(entries)
    assert found.state == ledger.state
    assert found.state.item("c-1", 0) == KnownItem(intent(), outcome())
    assert found.state.item("c-2", 1) == KnownItem(intent("c-2", 1, 6))
    assert found.state.is_killed
    found.close()


def test_a_result_is_published_again_as_it_was(ledger: Ledger) -> None:
    ledger.append(outcome())
    found = again(ledger)
    kept = found.state.item("c-1", 0)
    assert kept is not None
    assert kept.outcome is not None
    made = kept.outcome.result("bybit", "main")
    assert made.origin.key == result().origin.key
    assert attrs.asdict(made.origin) == attrs.asdict(result().origin)
    fields = [name for name in result().__struct_fields__ if name != "origin"]
    assert [getattr(made, name) for name in fields] == [getattr(result(), name) for name in fields]
    found.close()


class TestState:
    @pytest.fixture
    def state(self) -> LedgerState:
        return LedgerState("x", 2)

    def apply(self, state: LedgerState, *entries: Entry) -> LedgerState:
        for entry in entries:
            state.apply(entry)
        return state

    def test_an_item_is_unsettled_until_kafka_has_its_result(self, state: LedgerState) -> None:
        for entry in (intent(), outcome()):
            self.apply(state, entry)
            assert [key[:2] for key in state.unsettled()] == [("c-1", 0)]
        self.apply(state, Published("c-1", 0))
        assert list(state.unsettled()) == []
        assert state.item("c-1", 0) is not None, "until the whole command is done"

    def test_replays_are_told_by_their_place(self, state: LedgerState) -> None:
        self.apply(state, Done(TOPIC, 0, 7))
        assert state.is_done(Place(TOPIC, 0, 6))
        assert not state.is_done(Place(TOPIC, 0, 7))
        assert not state.is_done(Place(TOPIC, 1, 0))
        assert not state.is_done(Place("other", 0, 0))

    def test_repeated_ids_are_known_by_the_first_place(self, state: LedgerState) -> None:
        self.apply(state, intent("c-1", offset=5))
        assert state.place("c-1") == (TOPIC, 0, 5)
        self.apply(state, outcome("c-1", offset=5), Published("c-1", 0), Done(TOPIC, 0, 6))
        assert state.place("c-1") == (TOPIC, 0, 5)
        assert state.item("c-1", 0) is None
        assert state.place("c-2") is None

    def test_only_so_many_are_remembered(self, state: LedgerState) -> None:
        for number in range(3):
            self.apply(state, *settled(f"c-{number}", number))
        assert [state.place(f"c-{number}") is None for number in range(3)] == [True, False, False]

    def test_unsettled_ones_are_never_forgotten(self, state: LedgerState) -> None:
        many = [intent(f"c-{number}", offset=number) for number in range(5)]
        self.apply(state, *many, Done(TOPIC, 0, 100))
        assert [key[0] for key in state.unsettled()] == [f"c-{number}" for number in range(5)]
        assert all(state.place(f"c-{number}") for number in range(5))

    def test_what_is_settled_late_is_remembered_as_well(self, state: LedgerState) -> None:
        self.apply(state, intent(), Done(TOPIC, 0, 100), outcome(), Published("c-1", 0))
        assert state.commands == {}
        assert state.place("c-1") == (TOPIC, 0, 5)

    def test_since_when_results_can_be(self, state: LedgerState) -> None:
        assert state.oldest_unsettled() is None
        self.apply(state, intent("c-2", time=NOW + 9), intent("c-3", time=NOW + 5), outcome("c-4"))
        assert state.oldest_unsettled() == NOW + 1, "the outcome of what was never sent"
        self.apply(state, Published("c-4", 0))
        assert state.oldest_unsettled() == NOW + 5

    def test_the_kill_switch_is_as_it_was_turned_last(self, state: LedgerState) -> None:
        assert not state.is_killed
        assert self.apply(state, KillSwitch(is_on=True, time=NOW)).is_killed
        assert not self.apply(state, KillSwitch(is_on=False, time=NOW)).is_killed

    def test_a_result_of_nothing_known_is_no_matter(self, state: LedgerState) -> None:
        assert self.apply(state, Published("c-9", 0)) == LedgerState("x", 2)


offsets = st.integers(0, 8)
ids = st.sampled_from([f"c-{offset}" for offset in range(6)])
numbers = st.integers(0, 2)


def at_its_offset(entry: Intent | Outcome) -> Entry:
    return msgspec.structs.replace(entry, offset=int(entry.command_id[2:]))


entries_of_any_kind: st.SearchStrategy[Entry] = st.one_of(
    st.builds(intent, ids, numbers).map(at_its_offset),
    st.builds(outcome, ids, numbers).map(at_its_offset),
    st.builds(Published, ids, numbers),
    st.builds(Done, st.just(TOPIC), st.integers(0, 1), offsets),
    st.builds(Remembered, ids, st.just(TOPIC), st.integers(0, 1), offsets),
    st.builds(KillSwitch, is_on=st.booleans(), time=st.just(NOW)),
    st.builds(TopicId, st.just(TOPIC), st.sampled_from("ab")),
)
histories = st.lists(st.lists(entries_of_any_kind, min_size=1, max_size=4), max_size=8)


def state_of(entries: list[Entry], identifier: str, remembered: int = 3) -> LedgerState:
    state = LedgerState(identifier, remembered)
    for entry in entries:
        state.apply(entry)
    return state


def entries_of(state: LedgerState) -> list[Entry]:
    entries = list(state.freeze())
    state.thaw()
    return entries


@settings(max_examples=60)
@given(histories, st.sets(st.integers(0, 7)), st.data())
def test_a_prefix_of_the_file_is_a_prefix_of_history(
    batches: list[list[Entry]], synced: set[int], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        ledger = open_ledger(Path(name), 3)
        ends = [ledger.size_bytes]
        for position, batch in enumerate(batches):
            for entry in batch:
                ledger.append(entry)
                ends.append(ledger.size_bytes)
            if position in synced:
                ledger.sync()
        ledger.close()
        cut = data.draw(st.integers(HEAD_BYTES, ends[-1]))
        os.truncate(ledger.path, cut)
        left = len(ledger.path.read_bytes().rstrip(b"\0"))  # zeros are room
        os.truncate(ledger.path, cut + data.draw(st.sampled_from([0, 1, 100, 5000])))
        found = open_ledger(Path(name), 3)
        kept = sum(end <= cut for end in ends) - 1
        history = [entry for batch in batches for entry in batch]
        assert found.state == state_of(history[:kept], ledger.state.identifier)
        assert (found.recovery.entries, found.recovery.cut_bytes) == (kept, max(0, left - ends[kept]))
        found.append(KillSwitch(is_on=True, time=NOW))  # what comes next stands behind what was kept
        found.close()
        last = open_ledger(Path(name), 3)
        assert last.state == found.state
        last.close()


@settings(max_examples=60)
@given(histories)
def test_compaction_changes_nothing(batches: list[list[Entry]]) -> None:
    with TemporaryDirectory() as name:
        ledger = open_ledger(Path(name), 3)
        for batch in batches:
            ledger.append(*batch)
        before = entries_of(ledger.state)
        ledger.compact()
        ledger.append(intent("late"))
        found = again(ledger, 3)
        assert found.state == ledger.state
        assert found.recovery.entries == len(before) + 1
        assert entries_of(state_of(before, ledger.state.identifier)) == before, "the order of forgetting too"
        found.close()


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


class TestDamage:
    def fill(self, ledger: Ledger, *, sync: bool) -> list[int]:
        """Where entries begin; all but the last are on disk if so asked."""
        starts = []
        for number in range(4):
            if number == 3 and sync:
                ledger.sync()
            starts.append(ledger.size_bytes)
            ledger.append(intent(f"c-{number}", offset=number))
        ledger.close()
        return starts

    def test_of_what_was_on_disk_is_told_with_its_place(self, ledger: Ledger, folder: Path) -> None:
        starts = self.fill(ledger, sync=True)
        overwrite(ledger.path, starts[1] + 40, b"?")
        with pytest.raises(ConfigError) as caught:
            open_ledger(folder, 100)
        assert f"{ledger.path}: damaged at byte {starts[1]}: what was sent cannot be told" in str(caught.value)
        with pytest.raises(ConfigError):
            open_ledger(folder, 100)  # and nothing was mended behind our back

    def test_of_what_was_never_synced_is_a_torn_end(self, ledger: Ledger, folder: Path) -> None:
        starts = self.fill(ledger, sync=False)
        size = ledger.path.stat().st_size
        overwrite(ledger.path, starts[1] + 40, b"?")
        found = open_ledger(folder, 100)
        assert list(found.state.commands) == ["c-0"]
        assert found.recovery.cut_bytes == size - starts[1]
        assert ledger.path.stat().st_size == starts[1]
        found.close()

    def test_of_the_end_that_was_not_synced_yet(self, ledger: Ledger, folder: Path) -> None:
        starts = self.fill(ledger, sync=True)
        overwrite(ledger.path, starts[3] + 40, b"?")
        found = open_ledger(folder, 100)
        assert list(found.state.commands) == ["c-0", "c-1", "c-2"]
        found.close()

    def test_zeros_at_the_end_are_room(self, ledger: Ledger, folder: Path) -> None:
        self.fill(ledger, sync=True)
        size = ledger.path.stat().st_size
        os.truncate(ledger.path, size + 4096)
        found = open_ledger(folder, 100)
        assert (len(found.state.commands), found.recovery.cut_bytes) == (4, 0)
        found.close()

    def test_of_the_head(self, ledger: Ledger, folder: Path) -> None:
        ledger.close()
        overwrite(ledger.path, 10, b"?")
        with pytest.raises(ConfigError, match="damaged at byte 0: no ledger begins like that"):
            open_ledger(folder, 100)

    def test_of_a_file_without_one(self, ledger: Ledger, folder: Path) -> None:
        ledger.close()
        os.truncate(ledger.path, HEAD_BYTES - 1)
        with pytest.raises(ConfigError, match="damaged at byte 0"):
            open_ledger(folder, 100)

    def test_of_what_a_compaction_wrote(self, ledger: Ledger, folder: Path) -> None:
        ledger.append(intent(), intent("c-2"))
        ledger.compact()
        ledger.close()
        os.truncate(ledger.path, ledger.path.stat().st_size - 1)
        with pytest.raises(ConfigError, match="damaged at byte"):
            open_ledger(folder, 100)

    def test_after_a_recovery_what_was_found_counts_as_on_disk(self, ledger: Ledger, folder: Path) -> None:
        starts = self.fill(ledger, sync=False)
        found = open_ledger(folder, 100)
        found.append(intent("c-9"))
        found.close()
        overwrite(ledger.path, starts[3] + 40, b"?")
        with pytest.raises(ConfigError, match=f"damaged at byte {starts[3]}"):
            open_ledger(folder, 100)

    def test_entries_of_a_later_version_are_no_damage(self, ledger: Ledger, folder: Path) -> None:
        class Later(msgspec.Struct, array_like=True, tag="later"):
            command_id: str

        at = ledger.size_bytes
        ledger.close()
        with ledger.path.open("ab") as file:
            file.write(ledger_module._frame(Later("c"), 0))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"the entry at byte {at} is none of this version's"):
            open_ledger(folder, 100)


def kept(ledger: Ledger) -> list[str]:
    """The commands that another process finds."""
    found = again(ledger)
    found.close()
    return list(found.state.commands)


class TestRoom:
    def test_entries_are_written_over_zeros(self, ledger: Ledger) -> None:
        ledger.append(intent())
        ledger.make_room()
        size, end = ledger.size_bytes, ledger.path.stat().st_size
        assert end == size + ledger_module.ROOM_BYTES
        ledger.append(intent("c-2"), Published("c-2", 0))
        ledger.sync()
        assert ledger.path.stat().st_size == end, "a sync has nothing to tell but the entries"
        assert ledger.is_synced
        found = again(ledger)
        assert found.recovery == Recovery(is_new=False, entries=3, cut_bytes=0)
        assert found.state == ledger.state
        assert found.path.stat().st_size == found.size_bytes == ledger.size_bytes, "room is made anew"
        found.append(intent("c-3"))
        assert kept(found) == ["c-1", "c-2", "c-3"]

    def test_is_given_back_where_it_is_short(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = os.pwrite
        written: list[int] = []

        def write(descriptor: int, data: bytes, at: int) -> int:
            if written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(at)
            return whole(descriptor, data, at)

        ledger.append(intent())
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", write)
            ledger.make_room()
        assert written
        assert ledger.path.stat().st_size == ledger.size_bytes
        ledger.append(intent("c-2"))
        assert kept(ledger) == ["c-1", "c-2"]

    def test_is_wanted_when_half_is_used(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_module, "ROOM_BYTES", 4096)
        monkeypatch.setattr(ledger_module, "_ROOM_SLICE", bytes(1024))
        assert ledger.wants_room
        ledger.make_room()
        start, number = ledger.size_bytes, 0
        while not ledger.wants_room:
            ledger.append(intent(f"c-{number}", offset=number))
            number += 1
        assert 2048 < ledger.size_bytes - start < 2500
        ledger.make_room()
        assert not ledger.wants_room
        assert ledger.path.stat().st_size == start + 2 * 4096

    def test_can_be_used_up(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_module, "ROOM_BYTES", 500)
        monkeypatch.setattr(ledger_module, "_ROOM_SLICE", bytes(500))
        ledger.make_room()
        for number in range(20):
            ledger.append(intent(f"c-{number}", offset=number))
        assert ledger.path.stat().st_size == ledger.size_bytes
        ledger.make_room()
        assert ledger.path.stat().st_size == ledger.size_bytes + 500
        assert len(kept(ledger)) == 20

    def test_is_of_the_new_file_after_a_compaction(self, ledger: Ledger) -> None:
        ledger.make_room()
        ledger.append(intent())
        ledger.compact()
        assert ledger.wants_room
        ledger.make_room()
        ledger.append(intent("c-2"))
        assert kept(ledger) == ["c-1", "c-2"]

    def test_need_not_be_there(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(descriptor: int, data: bytes, at: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", fail)
        ledger.make_room()
        ledger.append(intent())
        ledger.sync()
        assert kept(ledger) == ["c-1"]

    def test_of_a_failing_disk_is_not_trusted(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        ledger.append(intent())  # the disk may have failed at this one
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(LedgerBroken, match="Input/output error"):
                ledger.make_room()
        with pytest.raises(LedgerBroken):
            ledger.sync()
        assert not ledger.wants_room

    def test_what_does_not_fit_is_taken_back_with_it(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger.make_room()
        size, whole = ledger.size_bytes, os.write

        def write(descriptor: int, data: bytes) -> int:
            if len(data) < 200:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return whole(descriptor, data[:50])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(LedgerBroken, match="Input/output error"):
                ledger.append(intent("c-2"), intent("c-3"))
        assert ledger.path.stat().st_size == size
        ledger.append(intent("c-4"))
        assert kept(ledger) == ["c-4"]

    @pytest.mark.parametrize("sync", [True, False])
    def test_hides_no_damage(self, ledger: Ledger, folder: Path, *, sync: bool) -> None:
        ledger.make_room()
        starts = []
        for number in range(4):
            if number == 3 and sync:
                ledger.sync()
            starts.append(ledger.size_bytes)
            ledger.append(intent(f"c-{number}", offset=number))
        end = ledger.size_bytes
        ledger.close()
        overwrite(ledger.path, starts[1], bytes(starts[2] - starts[1]))  # as if it had never left the cache
        if sync:
            with pytest.raises(ConfigError, match=f"damaged at byte {starts[1]}"):
                open_ledger(folder, 100)
        else:
            found = open_ledger(folder, 100)
            assert list(found.state.commands) == ["c-0"]
            assert found.recovery.cut_bytes == end - starts[1]
            found.append(intent("c-9"))
            assert kept(found) == ["c-0", "c-9"], "what was cut off is gone for good"

    def test_is_not_written_over_an_entry(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = os.pwrite

        def write(descriptor: int, data: bytes, at: int) -> int:
            assert ledger._guard.locked(), "or the event loop might append there"
            return whole(descriptor, data, at)

        monkeypatch.setattr(os, "pwrite", write)
        ledger.make_room()
        assert not ledger.wants_room


def test_one_process_at_a_time(ledger: Ledger, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_ledger(folder, 100)
    assert caught.value.problems == [f"orders.directory: {folder} is in use by another process"]


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"orders\.directory: .*file/x cannot be used: Not a directory"):
        open_ledger(tmp_path / "file" / "x", 100)


def test_a_disk_that_is_full_may_have_room_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, identifier: str, body: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "_create", fail)
        with pytest.raises(LedgerFull, match="No space left"):
            open_ledger(tmp_path / "x", 100)
    open_ledger(tmp_path / "x", 100).close()


def test_what_does_not_fit_is_taken_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.append(intent())
    size = ledger.size_bytes
    whole = os.write

    def write(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(descriptor, data[: len(data) - 50])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(LedgerFull, match="No space left"):
            ledger.append(intent("c-2"), intent("c-3"))
    assert ledger.path.stat().st_size == ledger.size_bytes == size
    assert list(ledger.state.commands) == ["c-1"]
    ledger.append(intent("c-4"))
    found = again(ledger)
    assert list(found.state.commands) == ["c-1", "c-4"]
    found.close()


def test_nothing_is_trusted_after_a_failed_sync(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ledger.append(intent())
    assert not ledger.is_synced
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(LedgerBroken, match="Input/output error"):
            ledger.sync()
    with pytest.raises(LedgerBroken):
        ledger.append(intent("c-2"))
    with pytest.raises(LedgerBroken):
        ledger.sync()


def test_a_sync_covers_what_was_there_when_it_began(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.fdatasync

    def sync(descriptor: int) -> None:
        whole(descriptor)
        ledger.append(intent("c-2"))

    ledger.append(intent())
    monkeypatch.setattr(os, "fdatasync", sync)
    ledger.sync()
    assert not ledger.is_synced
    monkeypatch.setattr(os, "fdatasync", whole)
    ledger.sync()
    assert ledger.is_synced


def test_the_event_loop_does_not_wait_for_the_disk_of_a_compaction(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append(intent())
    whole = os.fdatasync

    def sync(descriptor: int) -> None:
        whole(descriptor)
        assert ledger._syncing.locked(), "what the old file alone had on disk would be lost with it"
        assert not ledger._guard.locked()
        ledger.append(intent("c-2"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", sync)
        ledger.compact()
    assert not ledger.is_synced
    ledger.sync()
    assert ledger.is_synced
    found = again(ledger)
    assert list(found.state.commands) == ["c-1", "c-2"]
    found.close()


def test_a_new_file_whose_name_may_not_be_on_disk_is_not_trusted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ledger.append(intent())
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "sync_folder", fail)
        with pytest.raises(LedgerBroken, match="Input/output error"):
            ledger.compact()
    with pytest.raises(LedgerBroken):
        ledger.append(intent("c-2"))
    found = again(ledger)
    assert list(found.state.commands) == ["c-1"]
    found.close()


def test_a_frozen_state_goes_on_beside_what_is_written() -> None:
    commands = [Remembered(f"c-{number}", "topic", 0, number) for number in range(5)]
    state, whole = state_of(commands[:3], "a"), state_of(commands, "a")  # type: ignore[arg-type]
    frozen = state.freeze()
    for entry in commands[3:]:
        state.apply(entry)
    assert state.place("c-4") == Place("topic", 0, 4)
    assert state.place("c-0") == Place("topic", 0, 0), "nothing is forgotten meanwhile"
    assert list(frozen) == commands[:3]
    state.thaw()
    assert state == whole
    assert state.place("c-0") is None


def test_a_file_that_has_grown_is_written_anew(folder: Path) -> None:
    ledger = open_ledger(folder, 2, compact_bytes=10_000)
    for number in range(100):
        ledger.append(*settled(f"c-{number}", number))
        if ledger.wants_compaction:
            ledger.compact()
            assert ledger.is_synced
            assert not ledger.wants_compaction
    assert ledger.size_bytes < 12_000
    found = again(ledger, 2)
    assert found.state == ledger.state
    found.close()


def test_what_is_appended_during_a_compaction_is_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.append(intent(), KillSwitch(is_on=True, time=NOW))
    create = ledger_module._create
    started, appended = threading.Event(), threading.Event()

    def slowly(path: Path, identifier: str, body: bytes) -> int:
        started.set()
        assert appended.wait(120)
        return create(path, identifier, body)

    monkeypatch.setattr(ledger_module, "_create", slowly)
    thread = threading.Thread(target=ledger.compact)
    thread.start()
    assert started.wait(120)
    ledger.append(outcome(), intent("c-2"))
    appended.set()
    thread.join(120)
    found = again(ledger)
    assert found.state == ledger.state
    assert found.state.item("c-2", 0) is not None
    found.close()


def test_a_compaction_that_fails_changes_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, identifier: str, body: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ledger.append(intent())
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "_create", fail)
        with pytest.raises(OSError, match="No space left"):
            ledger.compact()
    ledger.append(intent("c-2"))
    found = again(ledger)
    assert list(found.state.commands) == ["c-1", "c-2"]
    found.close()


def test_after_closing_nothing_is_written(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(LedgerBroken, match="is closed"):
        ledger.append(intent())
    ledger.close()
