from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from pipeline.session.promptly import acquire_promptly, send_promptly


def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), trio.SocketStream(
        trio.socket.from_stdlib_socket(theirs)
    )


async def test_what_a_socket_takes_leaves_before_anybody_else_has_a_turn() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        with trio.testing.assert_no_checkpoints():
            for number in range(3):
                await send_promptly(ours, b"%d" % number)
        assert await theirs.receive_some() == b"012"


async def test_what_it_does_not_take_is_waited_for() -> None:
    ours, theirs = pair()
    data = bytes(range(256)) * 8192
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send_promptly, ours, memoryview(data))
        await trio.testing.wait_all_tasks_blocked()
        found = b""
        while len(found) < len(data):
            found += await theirs.receive_some()
        assert found == data


async def test_a_socket_that_is_closed_says_so() -> None:
    ours, theirs = pair()
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await send_promptly(ours, b"x")
    await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await send_promptly(ours, b"x")


async def test_other_streams_send_as_they_do() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await send_promptly(ours, b"x")
    assert await theirs.receive_some() == b"x"


async def test_a_lock_is_held_at_once_or_in_turn() -> None:
    lock, order = trio.StrictFIFOLock(), []

    async def take(name: str) -> None:
        await acquire_promptly(lock)
        order.append(name)
        lock.release()

    with trio.testing.assert_no_checkpoints():
        await acquire_promptly(lock)
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(take, name)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
        lock.release()
    assert order == ["a", "b"]
    assert not lock.locked()
