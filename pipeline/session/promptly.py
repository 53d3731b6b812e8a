"""Sending without a turn for other tasks in between: what is ready to leave should not wait for what they do.

Trio has a checkpoint in each of these, which is a fair rule where a task might go on for ever. Whoever sends many
messages one after the other has to pass one now and then.
"""

from __future__ import annotations

import os
from contextlib import suppress

import trio


async def acquire_promptly(lock: trio.StrictFIFOLock) -> None:
    """As `lock.acquire`, but without a checkpoint if it is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


async def send_promptly(stream: trio.abc.Stream, data: bytes | bytearray | memoryview) -> None:
    """As `stream.send_all`, but without a checkpoint if it is a socket that takes everything at once."""
    left = memoryview(data)
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):  # full, or broken: `send_all` waits, or says what is the matter
            left = left[os.write(stream.socket.fileno(), left) :]
    if left:
        await stream.send_all(left)
