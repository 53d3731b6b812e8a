"""The whole connector in this process, watched at its sockets; and simulated venues for it to talk to."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from pipeline.app import Service
from pipeline.config import Config, loads
from pipeline.reloader import Source
from pipeline.session.limits import Limits
from pipeline.session.transport import Transport
from pipeline.session.websocket import connect
from pipeline.sim.venue import SimulatedVenue
from tests.e2e import wire
from tests.e2e.consumer import Topics
from tests.e2e.wire import BookName, Change, Print

POLL_S = 0.01
ENDPOINTS = ("spot", "linear", "inverse", "option", "public", "business", "private")
QUICK = {"first": "50ms", "max": "200ms"}
"""A back-off for tests."""


def configuration(
    topics: Topics, folder: Path, venues: Mapping[str, Mapping[str, Any]], **kafka: Any
) -> dict[str, Any]:
    """A configuration for the test's topics; `kafka` adds to its part."""
    return {
        "kafka": {
            "bootstrap_servers": [topics.broker.bootstrap],
            "schema_registry": {"url": topics.registry.url},
            "topic_template": f"{topics.prefix}.{{group}}.{{kind}}",
            "topic_defaults": {"partitions": 2},
            "spool": {"directory": str(folder / "spool")},
            **kafka,
        },
        "http": {"port": 0},
        "venues": venues,
    }


def urls(venue: SimulatedVenue, ca_file: Path | None = None) -> dict[str, Any]:
    """Where a simulated venue is."""
    found = {"websocket": venue.websocket_url, "rest": venue.rest_url}
    return found if ca_file is None else {**found, "ca_file": str(ca_file)}


def parsed(configuration: Mapping[str, Any]) -> Config:
    """Read as from a file: JSON is YAML."""
    return loads(json.dumps(configuration))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing announces; the caller bounds the time."""
    while not condition():  # noqa: ASYNC110 - the service is not built to be waited for
        await trio.sleep(POLL_S)


@attrs.define
class Heard:
    """What one connection's socket brought, in order."""

    url: str
    messages: list[bytes] = attrs.field(factory=list)
    data: list[bytes] = attrs.field(factory=list)
    """The messages without answers, pongs and what is no JSON."""
    nonsense: set[bytes] = attrs.field(factory=set)
    """Messages that look like data but are not."""
    id: str | None = None
    """What the venue calls the connection in its answers."""

    def take(self, messages: list[bytes]) -> None:
        """Note what came."""
        self.messages += messages
        self.data += (message for message in messages if message not in self.nonsense and wire.is_data(message))
        if self.id is None:
            for message in messages:
                if b'"conn_id"' in message or b'"connId"' in message:
                    fields = json.loads(message)
                    self.id = fields.get("conn_id", fields.get("connId"))


@attrs.define
class Witness:
    """Stands at the connector's sockets: from here on nothing may be lost."""

    heard: list[Heard] = attrs.field(factory=list)
    """One per connection, in the order of opening."""
    nonsense: set[bytes] = attrs.field(factory=set)

    async def open(
        self,
        nursery: trio.Nursery,
        url: str,
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        compression: bool = False,
    ) -> Transport:
        """As `pipeline.session.websocket.connect`, watched."""
        transport = await connect(nursery, url, limits=limits, tls=tls, compression=compression)
        heard = Heard(url, nonsense=self.nonsense)
        self.heard.append(heard)
        return _Watched(transport, heard)

    def data(self) -> list[bytes]:
        """All data messages, connection by connection."""
        return [message for heard in self.heard for message in heard.data]

    def trades(self) -> dict[str, list[Print]]:
        """What should be in the trade topic, by instrument."""
        return wire.trades(self.data())

    def books(self) -> dict[BookName, list[Change]]:
        """What should be in the book topic, by book: a new connection starts each book anew."""
        found: dict[BookName, list[Change]] = {}
        for heard in self.heard:
            for name, changes in wire.book_changes(heard.data).items():
                found.setdefault(name, []).extend(wire.unbroken(changes))
        return found


@attrs.define
class _Watched:
    transport: Transport
    heard: Heard

    async def receive(self) -> list[bytes]:
        messages = await self.transport.receive()
        self.heard.take(messages)
        return messages

    async def send(self, text: str) -> None:
        await self.transport.send(text)

    async def aclose(self) -> None:
        await self.transport.aclose()


@attrs.define
class Connector:
    """A running service."""

    service: Service
    witness: Witness
    stopped: trio.Event = attrs.field(factory=trio.Event)

    async def stop(self) -> None:
        """Stop the intake, drain, and return when all is over."""
        self.service.stop()
        await self.stopped.wait()

    async def live(self, *ids: str) -> None:
        """Wait until these connections are live."""
        await until(lambda: all(self.state(name) == "live" for name in ids))

    def connections(self) -> dict[str, Any]:
        """Statistics of all connections by id."""
        return {
            name: stats for intake in self.service.intakes.values() for name, stats in intake.stats.connections.items()
        }

    def state(self, name: str) -> str | None:
        """The state of one connection; None if there is none of that name."""
        stats = self.connections().get(name)
        return stats.state if stats is not None else None


@asynccontextmanager
async def running(configuration: Mapping[str, Any], source: Source | None = None) -> AsyncIterator[Connector]:
    """Run the connector for as long as the block lasts; leaving it stops and drains.

    `source` is what it reads its configuration from anew.
    """
    witness = Witness()
    service = Service(parsed(configuration), open_websocket=witness.open, source=source)
    connector = Connector(service, witness)

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await service.run(task_status=task_status)
        finally:
            connector.stopped.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield connector
        finally:
            service.stop()


class Journal(io.StringIO):
    """What a simulated venue wrote to each of its sockets, in order; give it to `open_venue`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, list[bytes]] = {}
        """Data messages by the connection's index."""

    def write(self, line: str) -> int:
        entry = json.loads(line)
        self.sent.setdefault(entry["connection"], []).append(entry["message"].encode())
        return len(line)


async def fall_quiet(venue: SimulatedVenue, journal: Journal, witness: Witness) -> None:
    """Stop the venue's data, and wait until the connector has heard all that was sent over the open connections."""
    venue.fault("stall", topic="*")
    before = -1
    while True:
        await trio.sleep(POLL_S)
        heard = {each.id: len(each.data) for each in witness.heard}
        behind = [c.id for c in venue.connections if heard.get(c.id, 0) < len(journal.sent.get(c.index, ()))]
        if not behind and venue.sent.total == before:
            return
        before = venue.sent.total


def check_sockets(venue: SimulatedVenue, journal: Journal, witness: Witness, *, cut: int = 0) -> None:
    """Every connection heard what the venue sent over it, in order; of `cut` ones the end may be missing."""
    by_id = {each.id: each.data for each in witness.heard}
    shortened = 0
    for index, sent in journal.sent.items():
        names = {venue.dialect.connection_id(index, endpoint) for endpoint in ENDPOINTS}
        (heard,) = (data for name, data in by_id.items() if name in names)
        assert heard == sent[: len(heard)], f"connection {index} heard something else than was sent"
        shortened += len(heard) < len(sent)
    assert shortened <= cut
