"""What a connection needs from its WebSocket, and the seam through which it gets one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import trio


class Transport(Protocol):
    """An open message stream. One task receives; any number may send."""

    async def receive(self) -> list[bytes]:
        """One or more whole messages in wire order; always a checkpoint. Raises `SessionError` at the end."""

    async def send(self, text: str) -> None:
        """Send one text message; raises `Retryable`."""

    async def aclose(self) -> None:
        """Say good-bye and free the socket, in bounded time, also when cancelled; raises nothing but `Cancelled`."""


Dial: TypeAlias = Callable[[trio.Nursery], Awaitable[Transport]]
"""Opens a transport whose background tasks live in the given nursery until its `aclose`. Raises `SessionError`."""
