"""The raw archive while the service runs: a recorder per venue that has one, and what it keeps entries in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from pipeline.feeds.chain import Publish
from pipeline.feeds.settings import ArchiveSettings, VenueSettings
from pipeline.model.events import Micros
from pipeline.tape.files import FileKeeper
from pipeline.tape.recorder import Recorder
from pipeline.tape.topic import TopicKeeper

SEGMENT_S = 3600.0
"""How often a topic repeats what is needed to begin reading there, where no files say it."""


@asynccontextmanager
async def open_archives(
    venues: Mapping[str, VenueSettings], publish: Publish, clock: Callable[[], int], version: str
) -> AsyncIterator[Mapping[str, Recorder]]:
    """The archives of those venues that have one; leaving writes what is left.

    `version` is the program's, for people who wonder about an old archive.
    """
    run = Micros(clock())
    async with trio.open_nursery() as nursery:
        recorders = {
            name: _open(nursery, Recorder(name, version, run, clock), settings.archive, publish)
            for name, settings in venues.items()
            if settings.archive is not None
        }
        try:
            yield recorders
        finally:
            nursery.cancel_scope.cancel()


def _open(nursery: trio.Nursery, recorder: Recorder, settings: ArchiveSettings, publish: Publish) -> Recorder:
    venue = recorder.venue
    if settings.topic:
        recorder.keepers.append(TopicKeeper(venue, recorder.run, publish))
    if settings.files is not None:
        files = FileKeeper(settings.files, venue, recorder.stats, publish, recorder.clock)
        files.begin = lambda incomplete: recorder.begin(files if incomplete else None)
        recorder.keepers.append(files)
        nursery.start_soon(files.run, name=f"archive {venue}")
    else:
        nursery.start_soon(_keep_segmenting, recorder)
    recorder.begin()
    return recorder


async def _keep_segmenting(recorder: Recorder) -> None:
    while True:
        await trio.sleep(SEGMENT_S)
        recorder.begin()
