"""A world for gateways, under Trio's virtual time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from pipeline.orders.syncer import Syncer
from tests.orders.world import World

T = TypeVar("T")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """For tests that have an `autojump_clock`; threads are done without: time would run away while one works."""

    async def at_once(call: Callable[..., T], *arguments: object, **options: object) -> T:
        with trio.CancelScope(shield=True):  # a thread cannot be cancelled
            for _ in range(3):  # others get on meanwhile
                await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setenv("key", "k")
    monkeypatch.setenv("secret", "s")
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    monkeypatch.setattr(Syncer, "run", _no_thread)
    return World(tmp_path)


async def _no_thread(_: Syncer) -> None:
    await trio.sleep_forever()
