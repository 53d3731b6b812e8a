"""REST requests of a connection that its stream does not wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import structlog
import trio

from pipeline.exchanges.accounts import Credentials, Steps
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.model.stats import ConnectionStats

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between attempts; the pause doubles with every failure in a row."""


def _nothing(reason: str) -> None:
    pass


@attrs.frozen
class Errand:
    """Something to be read over REST, and what becomes of the answer."""

    what: str
    """For logs: "order snapshot", "fills since …"."""
    steps: Callable[[], Steps[Any]]
    """Made anew per attempt."""
    done: Callable[[Any], None]
    """Takes the result of the steps, without waiting."""
    refused: Callable[[str], None] = _nothing
    """Told why the venue will not answer, instead of `done`."""
    signed: bool = True


@attrs.define(eq=False)
class Errands:
    """The errands of one connection, run one after the other for as long as it lives.

    What fails goes to the end of the queue and is tried again for ever; what is refused is given up.
    """

    rest: VenueRest
    keys: Credentials | None
    """For signed requests."""
    random: Callable[[], float]
    stats: ConnectionStats
    _queue: deque[Errand] = attrs.field(factory=deque, init=False)
    _added: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def add(self, *errands: Errand) -> None:
        """Have these done, after what is queued."""
        self._queue.extend(errands)
        self._added.unpark_all()

    async def run(self) -> None:
        """Work until cancelled."""
        failures = 0
        while True:
            while not self._queue:
                await self._added.park()
            errand = self._queue.popleft()
            try:
                result = await self.rest.walk(errand.steps(), self.keys if errand.signed else None)
            except Refused as error:
                self._note("query_refused", errand, error)
                errand.refused(str(error))
            except (Retryable, BadMessage) as error:
                failures += 1
                self._note("query_failed", errand, error)
                self._queue.append(errand)
                await trio.sleep(self._pause(failures))
                if errand.signed:  # it may have failed for its time
                    self.rest.forget_clock()
                    await self.rest.measure_clock()
            else:
                failures = 0
                errand.done(result)

    def _pause(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + 0.5 * self.random())

    def _note(self, event: str, errand: Errand, error: Exception) -> None:
        self.stats.query_failures += 1
        log.error(event, connection=self.stats.id, query=errand.what, text=str(error))
