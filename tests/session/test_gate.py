"""A closed gate stops the reading of a connection, and nothing else of it."""

from __future__ import annotations

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.session.gate import GatedTransport


@attrs.define
class Wire:
    reads: int = 0
    sent: list[str] = attrs.field(factory=list)
    closed: bool = False

    async def receive(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        return [b"message"]

    async def send(self, text: str) -> None:
        self.sent.append(text)

    async def aclose(self) -> None:
        self.closed = True


@attrs.define
class Gate:
    opened: trio.Event = attrs.field(factory=trio.Event)

    @property
    def has_room(self) -> bool:
        return self.opened.is_set()

    async def wait_for_room(self) -> None:
        await self.opened.wait()


async def test_nothing_is_read_while_there_is_no_room(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    wire, gate = Wire(), Gate()
    transport = GatedTransport(wire, gate)
    found: list[list[bytes]] = []

    async def read() -> None:
        found.append(await transport.receive())

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert wire.reads == 0
    await transport.send("ping")
    assert wire.sent == ["ping"]
    gate.opened.set()
    await wait_all_tasks_blocked()
    assert found == [[b"message"]]
    assert await transport.receive() == [b"message"]
    gate.opened = trio.Event()
    await transport.aclose()
    assert wire.closed
