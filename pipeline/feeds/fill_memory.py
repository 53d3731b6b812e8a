"""Which fills of an account were published, so that each is once, and from when on they have to be read. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pipeline.feeds.settings import ReconcileSettings
from pipeline.model.account import Fill
from pipeline.model.events import Event, Micros

FillKey = tuple[str, str | None, str, str | None, bool]


def fill_key(fill: Fill) -> FillKey:
    """`Fill.IDENTITY` within one account."""
    return fill.origin.market, fill.origin.instrument, fill.fill_id, fill.order_id, fill.is_fast


@attrs.frozen
class FillImage:
    """What a `FillMemory` knows at one moment."""

    read_at: dict[str, int]
    forgotten: dict[str, int]
    seen: list[tuple[FillKey, Micros | None]]
    """Oldest first."""

    def newest(self, most: int) -> FillImage:
        """The same with no more identities than this; what is left out is forgotten."""
        forgotten = dict(self.forgotten)
        for (market, *_), time in self.seen[:-most]:
            _forget(forgotten, market, time)
        return FillImage(self.read_at, forgotten, self.seen[-most:])


@attrs.define(eq=False)
class FillMemory:
    """The last fills of one account, in the order of publishing."""

    settings: ReconcileSettings
    _seen: dict[FillKey, Micros | None] = attrs.field(factory=dict, init=False)
    _forgotten: dict[str, int] = attrs.field(factory=dict, init=False)
    """By market, the latest time of a fill whose identity is kept no longer."""
    _read_at: dict[str, int] = attrs.field(factory=dict, init=False)
    """By topic, when the last complete reading began."""
    _read_here: set[str] = attrs.field(factory=set, init=False)
    """Topics that this process has read."""

    def is_new(self, fill: Fill) -> bool:
        """Whether it was not published before; from now on it was."""
        key = fill_key(fill)
        if key in self._seen:
            return False
        self._add(key, fill.exchange_time)
        return True

    def since(self, topic: str, now: Micros) -> Micros:
        """The venue time from which fills have to be read.

        It is counted from the last reading and not from the last fill seen: a fill that comes at once over a new
        connection is later than all that was missed, and what happened just before a reading may not have been in it.
        """
        read_at = self._read_at.get(topic)
        if read_at is None:
            return Micros(now - round(self.settings.lookback * 1e6))
        return Micros(read_at - round(self.settings.overlap * 1e6))

    def was_read(self, topic: str) -> bool:
        """Whether a reading has been completed since the start of the process."""
        return topic in self._read_here

    def read(self, topic: str, fills: Iterable[Event], started: Micros) -> list[Event]:
        """Those of a complete reading that were not published before; `started` is the venue time of its begin."""
        self._read_at[topic] = max(started, self._read_at.get(topic, started))
        self._read_here.add(topic)
        return [fill for fill in fills if isinstance(fill, Fill) and not self._is_past(fill) and self.is_new(fill)]

    def image(self) -> FillImage:
        """All of it as it is now."""
        return FillImage(dict(self._read_at), dict(self._forgotten), list(self._seen.items()))

    def recall(self, image: FillImage) -> None:
        """Know what an earlier process knew, before anything else."""
        self._read_at.update(image.read_at)
        self._forgotten.update(image.forgotten)
        for key, time in image.seen:
            self._add(key, time)

    def _add(self, key: FillKey, time: Micros | None) -> None:
        self._seen[key] = time
        if len(self._seen) > self.settings.remembered_fills:
            oldest = next(iter(self._seen))
            _forget(self._forgotten, oldest[0], self._seen.pop(oldest))

    def _is_past(self, fill: Fill) -> bool:
        """Whether it is older than what is forgotten, and so was published or belongs to a time before ours."""
        return fill.exchange_time is not None and fill.exchange_time < self._forgotten.get(fill.origin.market, 0)


def _forget(forgotten: dict[str, int], market: str, time: int | None) -> None:
    if time is not None and time > forgotten.get(market, 0):
        forgotten[market] = time
