"""Rate limits that connections share: who comes first goes first."""

from __future__ import annotations

import math

import trio

from pipeline.model.rate import Budget, Rate


class Limiter:
    """Lets tasks of one Trio run through at no more than the given rates, all of them at once.

    First come, first served: a request for many is not overtaken by requests for few.
    """

    def __init__(self, *rates: Rate) -> None:
        self._budgets = [Budget(rate) for rate in rates]
        self._turn = trio.StrictFIFOLock()
        self._held_until = -math.inf
        self.waiting = 0
        """Tasks inside `acquire` right now."""
        self.waited_s = 0.0
        """Seconds that tasks have spent in `acquire`, in total."""

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long: the venue told us to stay away. Never shortens an earlier hold."""
        self._held_until = max(self._held_until, trio.current_time() + seconds)

    async def acquire(self, count: int = 1) -> None:
        """Wait for leave to do `count` things at once. Cancelled, it has used up nothing.

        `ValueError` if a rate never allows so many at once.
        """
        arrived = trio.current_time()
        self.waiting += 1
        try:
            async with self._turn:
                await self._until_free(count)
                now = trio.current_time()
                for budget in self._budgets:
                    budget.take(now, count)
        finally:
            self.waiting -= 1
            self.waited_s += trio.current_time() - arrived

    async def _until_free(self, count: int) -> None:
        while True:
            free_at = self._free_at(count)
            if free_at <= trio.current_time():
                return
            await trio.sleep_until(free_at)  # meanwhile a hold may come, hence the loop

    def _free_at(self, count: int) -> float:
        return max(self._held_until, *(budget.free_at(count) for budget in self._budgets), -math.inf)
