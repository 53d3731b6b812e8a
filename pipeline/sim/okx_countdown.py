"""OKX's cancel-all-after: all orders are cancelled unless the client puts the moment off again and again."""

from __future__ import annotations

from math import inf

import attrs
import trio

from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.matching import Matching
from pipeline.sim.toggles import Toggles

SHORTEST_S, LONGEST_S = 10, 120
"""What a countdown may be."""
CANCEL_SOURCE = "20"


@attrs.define(eq=False)
class Countdown:
    """Of all accounts."""

    toggles: Toggles
    matching: Matching
    _ends: dict[str, float] = attrs.field(factory=dict, init=False)
    """By account, on Trio's clock; `inf` while it is off."""

    def set(self, account: SimulatedAccount, seconds: int) -> None:
        """Cancel everything so long from now; 0: not at all."""
        end = trio.current_time() + seconds if seconds else inf
        self._ends[account.name] = end
        if seconds:
            self.toggles.nursery.start_soon(self._cancel_at, account, end)

    async def _cancel_at(self, account: SimulatedAccount, end: float) -> None:
        await trio.sleep_until(end)
        if self._ends[account.name] == end:
            self._ends[account.name] = inf
            self.matching.cancel_all(account, lambda _order: True, CANCEL_SOURCE)
