"""The raw archive while the service runs: a recorder per venue that has one, and what it keeps entries in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

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

    They work until then, also when the body is cancelled: what a venue says as it stops is archived too.
    `version` is the program's, for people who wonder about an old archive.
    """
    run = Micros(clock())
    recorders: dict[str, Recorder] = {}
    work: list[trio.CancelScope] = []
    async with trio.open_nursery() as nursery:
        for name, settings in venues.items():
            if settings.archive is not None:
                recorder = recorders[name] = Recorder(name, version, run, clock)
                work.append(trio.CancelScope(shield=True))
                nursery.start_soon(_run, _open(recorder, settings.archive, publish), work[-1], name=f"archive {name}")
        try:
            yield recorders
        finally:
            for scope in work:
                scope.cancel()


def _open(recorder: Recorder, settings: ArchiveSettings, publish: Publish) -> Callable[[], Awaitable[None]]:
    """Begin the first segment; returns what has to run from then on."""
    venue = recorder.venue
    if settings.topic:
        recorder.keepers.append(TopicKeeper(venue, recorder.run, publish))
    if settings.files is not None:
        files = FileKeeper(settings.files, venue, recorder.stats, publish, recorder.clock)
        files.begin = lambda incomplete: recorder.begin(files if incomplete else None)
        recorder.keepers.append(files)
    recorder.begin()
    return partial(_keep_segmenting, recorder) if settings.files is None else files.run


async def _run(work: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    with scope:
        await work()


async def _keep_segmenting(recorder: Recorder) -> None:
    while True:
        await trio.sleep(SEGMENT_S)
        recorder.begin()
