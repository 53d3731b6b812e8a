"""Bybit's disconnection protection: orders are cancelled when all connections that asked for it were gone too long."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.floor import Floor
from pipeline.sim.matching import Matching
from pipeline.sim.toggles import Toggles
from pipeline.sim.wire import Connection

PRODUCTS = {
    "SPOT": ("dcp.spot", ("spot",)),
    "DERIVATIVES": ("dcp.future", ("linear", "inverse")),
    "OPTIONS": ("dcp.option", ("option",)),
}
"""Each with the topic that arms it and the markets whose orders it cancels."""
WINDOW_S = 10
SHORTEST_S, LONGEST_S = 3, 300
"""What a window may be."""
REASON = "CancelByDCP"


@attrs.define(eq=False)
class DisconnectionProtection:
    """Of all accounts; told by the floor of each connection that ends."""

    floor: Floor
    toggles: Toggles
    matching: Matching
    accounts: Sequence[SimulatedAccount]
    _windows: dict[tuple[str, str], int] = attrs.field(factory=dict, init=False)
    """Seconds, by account and product."""
    _gone_at: dict[str, float] = attrs.field(factory=dict, init=False)
    """When a connection of a topic was lost last, by topic key."""

    def __attrs_post_init__(self) -> None:
        self.floor.on_leave.append(self._left)

    def window(self, account: SimulatedAccount, product: str) -> int:
        """Seconds without a connection before the orders are cancelled."""
        return self._windows.get((account.name, product), WINDOW_S)

    def set_window(self, account: SimulatedAccount, product: str, seconds: int) -> None:
        """For disconnections from now on."""
        self._windows[account.name, product] = seconds

    def _left(self, connection: Connection, topics: tuple[str, ...]) -> None:
        account = next((each for each in self.accounts if each.settings.key == connection.account), None)
        if account is None:
            return
        for product, (topic, _) in PRODUCTS.items():
            key = f"private:{account.name}/{topic}"
            if key in topics:
                self._gone_at[key] = trio.current_time()
                self.toggles.nursery.start_soon(self._count_down, account, product, key)

    async def _count_down(self, account: SimulatedAccount, product: str, key: str) -> None:
        gone_at = self._gone_at[key]
        await trio.sleep(self.window(account, product))
        # Whoever is still there, or came back in between, has a countdown of its own when it leaves.
        if key not in self.floor.subscribers and self._gone_at[key] == gone_at:
            markets = PRODUCTS[product][1]
            self.matching.cancel_all(account, lambda order: order.market in markets, REASON)
