"""Faults of order entry: armed on demand, they spoil the next requests that they are about."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pipeline.sim.faults import Fault
from pipeline.sim.wire import Connection

REQUEST_FAULTS = ("drop_before_take", "drop_before_ack", "ambiguous_code", "rate_limited")
"""Hit whole requests."""
ITEM_FAULTS = ("refuse_order", "fill_before_ack", "fill_before_cancel")
"""Hit single orders, those in batches too."""


@attrs.define
class _Armed:
    fault: Fault
    left: int


@attrs.define(eq=False)
class TradeFaults:
    """Consulted by whoever answers orders."""

    acknowledge: Callable[[Connection, bytes], None]
    """Sends an answer, late if so ordered."""
    holding: bool = attrs.field(default=False, init=False)
    held: list[tuple[Connection, bytes]] = attrs.field(factory=list, init=False)
    """Answers that wait for their release."""
    _armed: list[_Armed] = attrs.field(factory=list, init=False)

    def arm(self, fault: Fault) -> None:
        """For the next `fault.count` requests or orders."""
        self._armed.append(_Armed(fault, fault.count))

    def of_request(self, action: str) -> Fault | None:
        """What spoils this request; uses it up."""
        return self._next(REQUEST_FAULTS, action)

    def of_item(self, action: str) -> Fault | None:
        """What spoils this order; uses it up."""
        return self._next(ITEM_FAULTS, action)

    def answer(self, connection: Connection, payload: bytes) -> None:
        """Send an answer, unless answers are held."""
        if self.holding:
            self.held.append((connection, payload))
        else:
            self.acknowledge(connection, payload)

    def release(self) -> int:
        """Send what was held, in order, and hold no more; how many answers that were."""
        held, self.held, self.holding = self.held, [], False
        for connection, payload in held:
            self.acknowledge(connection, payload)
        return len(held)

    def clear(self) -> None:
        """No more faults; what was held is sent."""
        self._armed.clear()
        self.release()

    def _next(self, kinds: tuple[str, ...], action: str) -> Fault | None:
        for armed in self._armed:
            fault = armed.fault
            if fault.kind in kinds and fault.is_about(action):
                armed.left -= 1
                if not armed.left:
                    self._armed.remove(armed)
                return fault
        return None
