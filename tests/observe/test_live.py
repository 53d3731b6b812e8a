"""Looking at the status: often while somebody watches, now and then while nobody does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from pipeline.observe.live import Live
from pipeline.observe.page import StatusPage, View
from tests.observe.statuses import healthy


class Looks:
    """Counts how often it was looked at."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self) -> dict[str, Any]:
        self.times.append(trio.current_time())
        return healthy(now=1 + round(trio.current_time() * 1e6))


async def test_looks_are_rare_until_somebody_watches(autojump_clock: trio.testing.MockClock) -> None:
    looks = Looks()
    live = Live(looks, max_listeners=2)
    received: list[bytes] = []

    async def send(data: bytes) -> None:
        received.append(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.run)
        await trio.sleep(12)
        assert looks.times == [0, 5, 10]
        with trio.move_on_after(3.5):
            await live.follow(send)
        assert looks.times[3:] == [12, 13, 14, 15], "at once, and then every second"
        assert len(received) == 5
        assert received[0].startswith(b"retry: ")
        assert live.listeners == 0
        await trio.sleep(20)
        assert len(looks.times) <= 12
        nursery.cancel_scope.cancel()


async def test_the_page_is_only_written_for_somebody(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    view = StatusPage.view

    def counted(page: StatusPage, status: dict[str, Any]) -> View:
        written.append(trio.current_time())
        return view(page, status)

    monkeypatch.setattr(StatusPage, "view", counted)
    live = Live(Looks(), max_listeners=2)
    received: list[bytes] = []

    async def send(data: bytes) -> None:
        received.append(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.run)
        await trio.sleep(20)
        assert written == []
        for _ in range(2):
            with trio.move_on_after(0.5):
                await live.follow(send)
            await trio.sleep(12)
        nursery.cancel_scope.cancel()
    assert written == [20, 32.5]
    assert [data.partition(b":")[0] for data in received] == [b"retry", b"data"] * 2, "none is told what is old"


async def test_a_slow_watcher_misses_looks_and_keeps_nobody_waiting(autojump_clock: trio.testing.MockClock) -> None:
    live = Live(Looks(), max_listeners=2)
    quick: list[bytes] = []
    slow: list[bytes] = []

    async def send_quickly(data: bytes) -> None:
        quick.append(data)

    async def send_slowly(data: bytes) -> None:
        slow.append(data)
        await trio.sleep(4.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.run)
        nursery.start_soon(live.follow, send_quickly)
        nursery.start_soon(live.follow, send_slowly)
        await trio.sleep(20.5)
        assert live.is_full
        assert len(quick) >= 20
        assert len(slow) == 5
        nursery.cancel_scope.cancel()


async def test_a_page_that_fails_is_logged_and_tried_again(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = 0

    def read() -> dict[str, Any]:
        nonlocal tries
        tries += 1
        return {} if tries == 1 else healthy()

    live = Live(read, max_listeners=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.run)
        await trio.sleep(6)
        assert tries == 2
        nursery.cancel_scope.cancel()
    assert "status_page_failed" in capsys.readouterr().out
