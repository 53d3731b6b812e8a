"""The generated market as a source: steps the engines that someone listens to or follows, and lets topics speak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

import attrs
import trio

from pipeline.sim.floor import Floor
from pipeline.sim.market import Engine

PASSING_S = 0.25
"""How often topics may notice that time has passed: repeated books, closing candles."""
MAX_LAG_S = 0.25
"""Steps that are late by more than this are left out: a busy machine slows the market down instead of flooding it."""


class Stream(Protocol):
    """One topic: its messages, made from the engines it watches. State is shared by all subscribers."""

    engines: Sequence[Engine]

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """What a new subscriber gets at once; `alone` if nobody has listened so far: look at the engines anew."""

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """One of the engines has made a step."""

    def passing(self, now_ms: int) -> list[bytes]:
        """Time has passed, with or without steps."""


MakeStream = Callable[[str], Stream | None]
"""The venue's factory: a topic key to its stream, None for a topic that does not exist."""


@attrs.define(eq=False)
class Generator:
    """A `Source` whose rate is that of the market settings."""

    floor: Floor
    make: MakeStream
    _streams: dict[str, Stream] = attrs.field(factory=dict, init=False)
    _index: dict[Engine, list[tuple[str, Stream]]] = attrs.field(factory=dict, init=False)
    _index_version: int = attrs.field(default=-1, init=False)

    def offers(self, topic: str) -> bool:
        """Whether the venue lists what the topic names."""
        return self.make(topic) is not None

    def opening(self, topic: str, *, alone: bool) -> list[bytes]:
        """The first messages of a topic that `offers` has approved."""
        if topic not in self._streams:
            stream = self.make(topic)
            if stream is None:
                return []
            self._streams[topic] = stream
        return self._streams[topic].opening(self.floor.clock.now_ms(), alone=alone)

    def relisted(self) -> None:
        """Topics over several instruments see the new ones; those of a delisted instrument end."""
        for topic, stream in list(self._streams.items()):
            fresh = self.make(topic)
            if fresh is None:
                del self._streams[topic]
            else:
                stream.engines = fresh.engines

    async def run(self) -> None:
        """Step and publish for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_time)
            nursery.start_soon(self._flat_out if self.floor.market.settings.rate == inf else self._paced)

    async def _paced(self) -> None:
        """Each engine `rate` times a second, evenly spread over the second."""
        rate = self.floor.market.settings.rate
        turn, last, cursor = 0.0, trio.current_time(), 0
        while True:
            engines = self._wanted()
            if not engines:
                await self.floor.changed.park()
                last = trio.current_time()
                continue
            await trio.sleep(max(0.001, 1 / (rate * len(engines))))
            now = trio.current_time()
            turn += min(now - last, MAX_LAG_S + 1 / rate) * rate * len(engines)
            last = now
            while turn >= 1:
                turn -= 1
                cursor += 1
                self.step(engines[cursor % len(engines)])

    async def _flat_out(self) -> None:
        while True:
            engines = self._wanted()
            if not engines:
                await self.floor.changed.park()
            for engine in engines:
                self.step(engine)
                await self.floor.room()

    async def _pass_time(self) -> None:
        while True:
            await trio.sleep(PASSING_S)
            now_ms = self.floor.clock.now_ms()
            for topic in list(self.floor.subscribers):
                if stream := self._streams.get(topic):
                    self.floor.publish(topic, stream.passing(now_ms))

    def step(self, engine: Engine) -> None:
        """One step of one engine, and what its topics say about it."""
        engine.step()
        now_ms = self.floor.clock.now_ms()
        for topic, stream in self._topics_of(engine):
            self.floor.publish(topic, stream.update(engine, now_ms))

    def _topics_of(self, engine: Engine) -> list[tuple[str, Stream]]:
        return self._by_engine().get(engine, [])

    def _wanted(self) -> list[Engine]:
        return list(self._by_engine())

    def _by_engine(self) -> dict[Engine, list[tuple[str, Stream]]]:
        """The topics of each engine that is subscribed to or followed, found anew when any of that has changed."""
        if self._index_version != self.floor.version:
            self._index_version = self.floor.version
            self._index = {engine: [] for engine in self.floor.market.followed()}
            for topic in self.floor.subscribers:
                if stream := self._streams.get(topic):
                    for engine in stream.engines:
                        self._index.setdefault(engine, []).append((topic, stream))
        return self._index
