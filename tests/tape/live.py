"""A venue's intake without Kafka: what it would have sent there, in order, and an archive of what it was made from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import attrs
import trio

from pipeline.avro.codec import Schemas
from pipeline.avro.encoder import Encoder
from pipeline.exchanges import VENUES
from pipeline.feeds.intake import Intake
from pipeline.feeds.link import Surroundings
from pipeline.feeds.settings import VenueSettings
from pipeline.model.account import SnapshotEnd
from pipeline.model.events import Event, WireMessage
from pipeline.session.clock import system_clock
from pipeline.session.websocket import connect
from pipeline.tape.archive import open_archives
from pipeline.tape.entries import Entry
from pipeline.tape.player import Player
from pipeline.tape.reading import find_files, merged


class Sent(NamedTuple):
    """One record, as it would be in Kafka."""

    kind: str
    key: bytes
    value: bytes


@attrs.define(eq=False)
class Records:
    """A sink: encodes and keeps."""

    sent: list[Sent] = attrs.field(factory=list)
    wire: list[Sent] = attrs.field(factory=list)
    """What went to the archive's topic."""
    schemas: Schemas = attrs.field(factory=Schemas.load)
    entries: list[Entry] = attrs.field(factory=list)
    """The same as entries."""
    _encoders: dict[type[Event], Encoder] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._encoders = {codec.event_class: codec.encoder() for codec in self.schemas.codecs.values()}

    def publish(self, event: Event) -> bool:
        """As the sink does, without refusals."""
        assert not isinstance(event, SnapshotEnd)
        record = Sent(event.KIND, event.origin.key, self._encoders[type(event)](event))
        if isinstance(event, WireMessage):
            self.wire.append(record)
            assert event.sequence is not None
            self.entries.append(
                Entry(event.entry, event.receive_time, event.sequence, event.origin.connection, event.payload)
            )
        else:
            self.sent.append(record)
        return True

    def kinds(self) -> dict[str, int]:
        """How many records of each kind."""
        found: dict[str, int] = {}
        for record in self.sent:
            found[record.kind] = found.get(record.kind, 0) + 1
        return found


@asynccontextmanager
async def running(name: str, settings: VenueSettings) -> AsyncIterator[tuple[Intake, Records]]:
    """Run a venue as the service does, with its archive; leaving cancels it from outside."""
    records = Records()
    around = Surroundings(publish=records.publish, clock=system_clock, random=lambda: 0.5, open_websocket=connect)
    started = trio.Event()
    intake = Intake(name, VENUES[name], settings, around)

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            async with open_archives({name: settings}, records.publish, system_clock, "test") as archives:
                intake.archive = archives.get(name)
                started.set()
                await intake.run()

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(run, scope)
        await started.wait()
        yield intake, records
        scope.cancel()


def replayed(*files: Path) -> tuple[list[Sent], list[str]]:
    """What archive files give, and what is wrong with them."""
    problems: list[str] = []
    records, players = Records(), dict[tuple[str, int], Player]()
    for run, _, entry in merged(find_files([str(file) for file in files], problems.append), problems.append):
        if run not in players:
            players[run] = Player(VENUES[run[0]], records.publish, problems.append)
        players[run].take(entry)
    return records.sent, problems


def replayed_entries(name: str, entries: list[Entry]) -> tuple[list[Sent], list[str]]:
    """The same for entries of one run, e.g. out of Kafka."""
    problems: list[str] = []
    records = Records()
    player = Player(VENUES[name], records.publish, problems.append)
    for entry in entries:
        player.take(entry)
    return records.sent, problems
