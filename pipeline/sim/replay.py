"""Recorded messages as a source: each line goes, unchanged and in file order, to those who subscribed to its topic."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import attrs
import msgspec
import trio

from pipeline.sim.dialect import Dialect
from pipeline.sim.floor import Floor
from pipeline.sim.settings import ReplaySettings

TURN = 64
"""Messages that a replay at full speed publishes before it looks whether the subscribers keep up."""


@attrs.frozen
class Recorded:
    """One data message of a recording."""

    topic: str
    """Without an endpoint: recordings do not tell it."""
    payload: bytes
    sent_ms: int | None
    starts: bool | None
    """Whether it starts its topic anew (snapshot), continues it (delta), or stands alone (None)."""


def read_recording(paths: tuple[str, ...], dialect: Dialect) -> list[Recorded]:
    """The data messages of the files, in order. Control messages and blank lines are left out.

    Raises `OSError` for an unreadable file, `ValueError` naming file and line for what is no JSON object.
    """
    return [each for path in paths for each in _read_file(path, dialect)]


def _read_file(path: str, dialect: Dialect) -> Iterator[Recorded]:
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if not line.strip() or line.strip() in (b"pong", b"ping"):
            continue
        try:
            message = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        topic = dialect.recorded_topic(message)
        if topic is not None:
            yield Recorded(topic, line.strip(), dialect.recorded_ms(message), dialect.is_snapshot(message))


@attrs.define(eq=False)
class Replay:
    """A `Source` over a recording. It waits for `settings.wait_for` subscriptions to recorded topics."""

    floor: Floor
    dialect: Dialect
    settings: ReplaySettings
    recording: list[Recorded]
    finished: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the last message was published (never, when looping)."""
    published: int = attrs.field(default=0, init=False)
    """Recorded messages gone by, with and without subscribers."""
    _names: set[str] = attrs.field(factory=set, init=False)
    _since_snapshot: dict[str, list[bytes]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._names = {each.topic for each in self.recording}

    def offers(self, topic: str) -> bool:
        """Recorded topics, and what the venue offers anyway (which stays silent)."""
        return topic.partition("/")[2] in self._names or self.dialect.stream(topic) is not None

    def opening(self, topic: str, *, alone: bool) -> list[bytes]:
        """For who comes late: the topic's last snapshot gone by and all that followed it."""
        return list(self._since_snapshot.get(topic.partition("/")[2], ()))

    def relisted(self) -> None:
        """Recordings stay what they are."""

    async def run(self) -> None:
        """Publish the recording; returns at its end, unless it loops."""
        while self._waiting():
            await self.floor.changed.park()
        while True:
            await self._once()
            if not self.settings.loop or not self.recording:
                break
        self.finished.set()

    def _waiting(self) -> bool:
        listening = sum(
            len(connections)
            for topic, connections in self.floor.subscribers.items()
            if topic.partition("/")[2] in self._names
        )
        return listening < self.settings.wait_for

    async def _once(self) -> None:
        began, first_ms = trio.current_time(), None
        flat_out = inf in (self.settings.speed, self.settings.rate)
        for number, recorded in enumerate(self.recording):
            if flat_out:
                if number % TURN == 0:
                    await self.floor.room()
            else:
                if first_ms is None:
                    first_ms = recorded.sent_ms
                await trio.sleep_until(began + self._offset(number, recorded.sent_ms, first_ms))
                await self.floor.room()
            self._publish(recorded)
        await trio.lowlevel.checkpoint()

    def _offset(self, number: int, sent_ms: int | None, first_ms: int | None) -> float:
        """Seconds after the start at which a message is due; one without a time goes with the one before it."""
        if self.settings.rate is not None:
            return number / self.settings.rate
        if sent_ms is None or first_ms is None:
            return 0.0
        return (sent_ms - first_ms) / 1000 / self.settings.speed

    def _publish(self, recorded: Recorded) -> None:
        self.published += 1
        if recorded.starts:
            self._since_snapshot[recorded.topic] = [recorded.payload]
        elif recorded.starts is False and recorded.topic in self._since_snapshot:
            self._since_snapshot[recorded.topic].append(recorded.payload)
        for topic in self.floor.endpoints_of(recorded.topic):
            self.floor.publish(topic, (recorded.payload,))
