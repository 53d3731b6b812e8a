"""What a signal means to a process that has, or had, a terminal."""

from __future__ import annotations

import os
import signal

import pytest
import trio
import trio.testing

from pipeline import app
from pipeline.config import loads
from pipeline.reloader import Source

TEXT = "venues: {bybit: {channels: [{market: linear, channel: trade}]}}"


@pytest.mark.parametrize(
    ("had_terminal", "has_terminal", "ends"),
    [
        pytest.param(False, False, False, id="a service"),
        pytest.param(True, True, False, id="started from a terminal"),
        pytest.param(True, False, True, id="whose terminal is gone"),
    ],
)
async def test_sighup_ends_who_has_lost_a_terminal_and_has_others_read_their_configuration(
    had_terminal: bool, has_terminal: bool, ends: bool, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(app, "has_terminal", lambda: has_terminal)
    service = app.Service(loads(TEXT), source=Source("/nowhere/config.yaml", TEXT))
    nursery.start_soon(app.obey_signals, service, had_terminal)
    await trio.testing.wait_all_tasks_blocked()
    os.kill(os.getpid(), signal.SIGHUP)
    with trio.fail_after(20):
        while not service.stopping and service.reloader.refusal is None:  # noqa: ASYNC110 - nothing announces either
            await trio.sleep(0.01)
    assert service.stopping is ends
    assert (service.reloader.refusal is None) is ends
