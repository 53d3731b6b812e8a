"""Spools of shares that no longer exist, because the number of workers or instances changed: delivered and put away."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import structlog
import trio

from pipeline.feeds.shares import Share
from pipeline.model.errors import PipelineError
from pipeline.session.failures import leaves
from pipeline.sink.opening import open_sink
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.sink import Sink

log = structlog.get_logger(__name__)

_SHARE = re.compile(r"share(-[0-9]+-of-([0-9]+))", re.ASCII)
_AGAIN_S = 30.0
_DRAIN_WITHIN_S = 1.0
"""When everything ends: what is left stays where it is for the next start."""

OpenSink = Callable[[KafkaSettings], AbstractAsyncContextManager[Sink]]


@attrs.frozen
class Leftover:
    """The spool of a share that nobody has any more."""

    folder: Path
    suffix: str
    """Of the share's names in Kafka; empty for what had no shares."""

    @property
    def holds_anything(self) -> bool:
        """Whether there are records in it, or the mark of an unclean end that has to be announced. Blocks."""
        return (self.folder / "unclean").exists() or any(path.stat().st_size for path in self.folder.glob("*.spool"))


def find_leftovers(directory: Path, share: Share) -> list[Leftover]:
    """Spools below the configured directory that belong to another split than this share's. Blocks.

    Those of the same split are other workers' or instances', running or not. Raises `OSError`.
    """
    found = []
    for folder in sorted(directory.iterdir()) if directory.is_dir() else ():
        match = _SHARE.fullmatch(folder.name)
        if match is not None and int(match[2]) != share.count and folder.is_dir():
            found.append(Leftover(folder, match[1]))
    plain = Leftover(directory, "")
    if not share.is_whole and plain.holds_anything:
        found.append(plain)
    return found


async def deliver_leftovers(kafka: KafkaSettings, share: Share, open_sink: OpenSink = open_sink) -> None:
    """Deliver what other splits have left, beside all else; returns when nothing is left, or raises only for bugs.

    `kafka` is as configured for all shares. One that cannot be opened, because its process has not ended yet, is
    tried again. Cancelled, it leaves the rest for the next start.
    """
    directory = Path(kafka.spool.directory)
    while found := await trio.to_thread.run_sync(find_leftovers, directory, share):
        done = [await _deliver(leftover, kafka, open_sink) for leftover in found]
        if not all(done):
            await trio.sleep(_AGAIN_S)


async def _deliver(leftover: Leftover, kafka: KafkaSettings, open_sink: OpenSink) -> bool:
    """Whether it is gone."""
    folder = leftover.folder
    if await trio.to_thread.run_sync(lambda: leftover.holds_anything):
        # As the one that wrote it: with transactions, Kafka knows by these names how far it was.
        settings = attrs.evolve(
            kafka,
            client_id=kafka.client_id + leftover.suffix,
            shard=kafka.shard_name + leftover.suffix if kafka.is_exactly_once else None,
            spool=attrs.evolve(kafka.spool, directory=str(folder)),
            drain_within=_DRAIN_WITHIN_S,
        )
        log.info("spool_adopted", folder=str(folder), effect="its records come beside newer ones of the same keys")
        reason = ""
        try:
            async with open_sink(settings) as sink:
                await sink.delivered()
        except* PipelineError as group:
            reason = "; ".join(map(str, leaves(group)))
        if reason:
            log.warning("spool_not_adopted", folder=str(folder), reason=reason)
            return False
    return not leftover.suffix or await trio.to_thread.run_sync(_remove, folder)


def _remove(folder: Path) -> bool:
    """Delete an empty spool; False if a process works in it after all."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(folder)
    log.info("spool_removed", folder=str(folder))
    return True
