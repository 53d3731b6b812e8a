"""Faults that wait for their occasion: a login, a subscription, an upgrade, an order."""

from __future__ import annotations

import attrs
import trio

from pipeline.sim.trade_faults import TradeFaults
from pipeline.sim.wire import Connection, Message


@attrs.define(eq=False)
class Toggles:
    """Armed by faults, consulted by the venue's dialect and the server."""

    nursery: trio.Nursery = attrs.field(init=False)
    """Runs what is late; set when the venue starts."""
    refused_logins: int = 0
    login_error: str = ""
    """The code of those refusals; "" for the usual one."""
    refused_upgrades: int = 0
    upgrade_status: int = 503
    ack_delay: float = 0.0
    """Seconds by which acknowledgements of logins, subscriptions and orders are late. Data does not wait for them."""
    orders: TradeFaults = attrs.field(init=False)
    """Of order entry."""

    def __attrs_post_init__(self) -> None:
        self.orders = TradeFaults(self.acknowledge)

    def refuses_login(self) -> bool:
        """Whether this login is refused; uses one refusal up."""
        self.refused_logins -= (refused := self.refused_logins > 0)
        return refused

    def refuses_upgrade(self) -> bool:
        """Whether this upgrade is refused; uses one refusal up."""
        self.refused_upgrades -= (refused := self.refused_upgrades > 0)
        return refused

    def acknowledge(self, connection: Connection, payload: bytes) -> None:
        """Send an acknowledgement, late if so ordered."""
        message = Message.text(payload)
        if self.ack_delay:
            self.nursery.start_soon(self._later, connection, message)
        else:
            connection.post(message)

    async def _later(self, connection: Connection, message: Message) -> None:
        await trio.sleep(self.ack_delay)
        connection.post(message)
