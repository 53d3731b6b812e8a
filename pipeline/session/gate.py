"""Reading only while there is room for what is read."""

from __future__ import annotations

from typing import Protocol

import attrs

from pipeline.session.transport import Transport


class Gate(Protocol):
    """Whoever takes what is read, and may have no room for it."""

    @property
    def has_room(self) -> bool:
        """Whether reading may go on."""

    async def wait_for_room(self) -> None:
        """Return when reading may go on."""


@attrs.frozen
class GatedTransport:
    """A transport that is not read while the gate is closed.

    The peer then finds its buffers full, and one side or the other gives the connection up: reading stops for longer
    than heartbeats allow only if connections are to be lost rather than records.
    """

    transport: Transport
    gate: Gate

    async def receive(self) -> list[bytes]:
        """As the transport's, once there is room."""
        if not self.gate.has_room:
            await self.gate.wait_for_room()
        return await self.transport.receive()

    async def send(self, text: str) -> None:
        """The transport's."""
        await self.transport.send(text)

    async def aclose(self) -> None:
        """The transport's."""
        await self.transport.aclose()
