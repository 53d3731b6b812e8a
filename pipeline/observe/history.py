"""What counters did lately: rates and rises, from one look at them to the next. Pure; times are given."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any

import attrs


@attrs.define(eq=False)
class Samples:
    """Counters at some moments of the last seconds."""

    keep_s: float
    """How far back."""
    apart_s: float = 0.0
    """Samples closer together than this replace each other."""
    _taken: deque[tuple[int, Mapping[Any, float]]] = attrs.field(factory=deque, init=False)

    def note(self, now: int, counters: Mapping[Any, float]) -> None:
        """Take the counters of this moment, in microseconds. A clock that was set back begins anew."""
        taken = self._taken
        if taken and now <= taken[-1][0]:
            taken.clear()
        if len(taken) > 1 and now - taken[-2][0] < self.apart_s * 1e6:
            taken.pop()
        taken.append((now, counters))
        while len(taken) > 2 and now - taken[1][0] >= self.keep_s * 1e6:
            taken.popleft()

    @property
    def span_s(self) -> float:
        """Seconds from the oldest sample to the newest."""
        return (self._taken[-1][0] - self._taken[0][0]) / 1e6 if self._taken else 0.0

    def increase(self, key: Hashable) -> float | None:
        """By how much a counter rose over the samples; None if that cannot be told, as after a restart."""
        found = self._risen(key)
        return None if found is None else found[0]

    def per_second(self, key: Hashable) -> float | None:
        """The same per second."""
        found = self._risen(key)
        return None if found is None else found[0] / found[1]

    def _risen(self, key: Hashable) -> tuple[float, float] | None:
        """The rise, and the seconds that it took: since the oldest sample that has this counter, and not above."""
        if not self._taken or (after := self._taken[-1][1].get(key)) is None:
            return None
        now = self._taken[-1][0]
        for moment, counters in list(self._taken)[:-1]:
            if (before := counters.get(key)) is not None and before <= after:
                return after - before, (now - moment) / 1e6
        return None


@attrs.define
class Rise:
    """A counter that rose, and has not rested for long since."""

    since: int
    """When it was first seen to rise, in microseconds."""
    last: int
    """When last."""
    count: float
    """By how much since then."""


@attrs.define(eq=False)
class Rises:
    """Which counters rose within the last minutes."""

    rest_s: float
    """After so many seconds without a rise it is over."""
    _before: Mapping[Any, float] = attrs.field(factory=dict, init=False)
    _found: dict[Hashable, Rise] = attrs.field(factory=dict, init=False)

    def note(self, now: int, counters: Mapping[Any, float]) -> None:
        """Compare with the last time. What was not there then is taken to begin at what it is now."""
        for key, value in counters.items():
            rise = value - self._before.get(key, value)
            if rise <= 0:
                continue
            if (found := self._found.get(key)) is None:
                self._found[key] = Rise(now, now, rise)
            else:
                found.last, found.count = now, found.count + rise
        self._before = counters
        for key in [key for key, each in self._found.items() if not 0 <= now - each.last < self.rest_s * 1e6]:
            del self._found[key]

    def of(self, key: Hashable) -> Rise | None:
        """The rise that is not over, if there is one."""
        return self._found.get(key)


@attrs.define(eq=False)
class Onsets:
    """Since when something holds that tells no time itself."""

    _since: dict[Any, int] = attrs.field(factory=dict, init=False)

    def note(self, now: int, holding: Mapping[Any, int | None]) -> dict[Any, int]:
        """When each of these began: as first told (a time, or None for now) for as long as it is named every time."""
        self._since = {key: self._since.get(key, now if told is None else told) for key, told in holding.items()}
        return self._since
