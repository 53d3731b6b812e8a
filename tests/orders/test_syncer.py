"""With a real thread, so without virtual time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio
import trio.testing

from pipeline.orders.ledger import Ledger, LedgerBroken, open_ledger
from pipeline.orders.syncer import Syncer
from tests.orders.test_ledger import intent


@attrs.define
class Disk:
    """Stands in for a ledger: its disk works when it may."""

    wants_room: bool = False
    is_broken: bool = False
    syncs: int = 0
    rooms: int = 0
    may_sync: threading.Event = attrs.field(factory=threading.Event)
    begun: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))

    def sync(self) -> None:
        self.begun.release()
        assert self.may_sync.wait(120)
        if self.is_broken:
            raise LedgerBroken("no disk")
        self.syncs += 1

    def make_room(self) -> None:
        self.rooms += 1
        self.wants_room = False
        if self.is_broken:
            raise LedgerBroken("no disk")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def syncer(disk: Disk) -> Syncer:
    return Syncer(cast("Ledger", disk))


async def began(disk: Disk) -> None:
    assert await trio.to_thread.run_sync(disk.begun.acquire, True, 120)


async def test_a_ledger_is_on_disk_and_has_room(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, 100)
    syncer = Syncer(ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(syncer.run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            ledger.append(intent(f"c-{number}", offset=number))
            assert not ledger.is_synced
            await syncer.sync()
            assert ledger.is_synced
            assert not ledger.wants_room
        nursery.cancel_scope.cancel()
    ledger.close()


async def test_one_sync_is_for_all_who_have_come_meanwhile(syncer: Syncer, disk: Disk) -> None:
    async with trio.open_nursery() as whole:
        whole.start_soon(syncer.run)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(syncer.sync)
            await began(disk)
            for _ in range(3):  # what they have appended may have missed the one that has begun
                waiting.start_soon(syncer.sync)
            await trio.testing.wait_all_tasks_blocked()
            disk.may_sync.set()
        assert disk.syncs == 2
        whole.cancel_scope.cancel()


async def test_who_waits_is_not_cancelled(syncer: Syncer, disk: Disk) -> None:
    """Or the ledger would be closed under the thread, and nobody know what is on disk."""
    returned = False

    async def wait() -> None:
        nonlocal returned
        await syncer.sync()
        returned = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(syncer.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await began(disk)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not returned
        disk.may_sync.set()
    assert (returned, disk.syncs) == (True, 1)


async def test_without_the_thread_it_takes_longer(syncer: Syncer, disk: Disk) -> None:
    disk.may_sync.set()
    await syncer.sync()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(syncer.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await syncer.sync()
    assert disk.syncs == 2


async def test_a_failure_is_told_to_all_who_wait(syncer: Syncer, disk: Disk) -> None:
    disk.is_broken = disk.wants_room = True
    disk.may_sync.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(syncer.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(LedgerBroken, match="no disk"):
                await syncer.sync()
        nursery.cancel_scope.cancel()
    assert disk.rooms == 1


async def test_room_is_made_when_nobody_waits_for_the_disk(syncer: Syncer, disk: Disk) -> None:
    disk.may_sync.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(syncer.run)
        await trio.testing.wait_all_tasks_blocked()
        await syncer.sync()
        assert disk.rooms == 0
        disk.wants_room = True
        await syncer.sync()
        nursery.cancel_scope.cancel()
    assert disk.rooms == 1
