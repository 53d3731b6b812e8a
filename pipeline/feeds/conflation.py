"""While a connection lags: of what only the latest state counts, the latest state alone. Pure.

What it does follows from the events and from the calls of `due`, so that a replay of an archive does the same.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pipeline.model.events import Bbo, BookTop, Event, FeedStatus, Micros, Ticker

Topic = tuple[str | None, str | None]
"""(the venue's channel of the events, None for tickers, which do not name it; instrument)."""

STATES: frozenset[type[Event]] = frozenset({Ticker, Bbo, BookTop})
"""Kinds of which each event replaces those before it."""


@attrs.frozen
class ConflationPolicy:
    """What may be replaced by what came after it."""

    topics: frozenset[Topic]
    interval: int
    """Microseconds in which one state of each instrument and kind is published.

    Intervals begin at whole multiples since 1970: a replay finds them wherever it begins.
    """


@attrs.define(eq=False)
class Conflation:
    """Stands before `onward` while a connection lags."""

    policy: ConflationPolicy
    onward: Callable[[Event], bool]
    replaced: dict[str, int] = attrs.field(factory=dict)
    """Where states that were never published because a later one came are counted, by kind."""
    _waiting: dict[tuple[str, Topic], Event] = attrs.field(factory=dict, init=False)
    _window: int = attrs.field(default=0, init=False)
    """Number of the interval in which the states that wait have come."""

    def publish(self, event: Event) -> bool:
        """Pass an event on, or keep it until its time has come; False if it could not be encoded."""
        if event.__class__ not in STATES:
            if event.__class__ is FeedStatus and event.origin.instrument is not None:
                # A state from before a gap would otherwise look like one from after it.
                self._release(event.origin.instrument)
            return self.onward(event)
        topic: Topic = (getattr(event, "channel", None), event.origin.instrument)
        if topic not in self.policy.topics:
            return self.onward(event)
        self.due(event.receive_time)
        self._window = event.receive_time // self.policy.interval
        key = (event.KIND, topic)
        if key in self._waiting:
            self.replaced[event.KIND] = self.replaced.get(event.KIND, 0) + 1
        self._waiting[key] = event
        return True

    def due(self, now: Micros) -> bool:
        """Publish the states that wait if their time has come; False if there were none."""
        if not self._waiting or now // self.policy.interval == self._window:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Publish all states that wait."""
        waiting, self._waiting = self._waiting, {}
        for event in waiting.values():
            self.onward(event)

    def _release(self, instrument: str) -> None:
        for key in [key for key in self._waiting if key[1][1] == instrument]:
            self.onward(self._waiting.pop(key))
