"""Carries faults out on a running venue."""

from __future__ import annotations

from math import inf

import attrs
import trio

from pipeline.sim.dialect import Dialect
from pipeline.sim.faults import CONNECTION_FAULTS, ORDER_FAULTS, Fault
from pipeline.sim.floor import Floor
from pipeline.sim.sent import topic_matches
from pipeline.sim.toggles import Toggles
from pipeline.sim.wire import BINARY, Connection, frame

NOTICE_S = 60.0
"""From the notice of a service upgrade to the close, unless the fault says otherwise."""
SLOW_ACK_S = 5.0
GARBAGE = b"\xff" * 16 + b"not a WebSocket frame"
"""Begins with reserved bits and a reserved opcode."""
TRUNCATED = b'{"topic":"orderbook.50.BTCUSDT","arg":{"channel":"books","instId":"BTC-USDT"},"data":[{"bids":[["65'


@attrs.define
class Sabotage:
    """One venue's parts that faults reach into."""

    floor: Floor
    dialect: Dialect
    toggles: Toggles
    connections: list[Connection]

    def apply(self, fault: Fault) -> int:
        """Do it; returns how many connections were hit, or 1 for what hits none.

        Raises `ValueError` for what this venue cannot have.
        """
        if fault.kind in CONNECTION_FAULTS:
            hit = [connection for connection in self.connections if self._meant(fault, connection)]
            for connection in hit:
                self._hit(fault, connection)
            return len(hit)
        if fault.kind in ORDER_FAULTS:
            return self._spoil(fault)
        self._arm(fault)
        return 1

    def _meant(self, fault: Fault, connection: Connection) -> bool:
        if fault.kind == "ends_soon" and connection.endpoint != self.dialect.order_endpoint:
            return False
        return (
            fault.connection in (None, connection.index)
            and fault.endpoint in (None, connection.endpoint)
            and (fault.topic is None or any(topic_matches(topic, fault.topic) for topic in connection.topics))
        )

    def _spoil(self, fault: Fault) -> int:
        """Of order entry; a release tells how many answers it sent."""
        match fault.kind:
            case "hold_acks":
                self.toggles.orders.holding = True
            case "release_acks":
                return self.toggles.orders.release()
            case _:
                self.toggles.orders.arm(fault)
        return 1

    def _hit(self, fault: Fault, connection: Connection) -> None:
        match fault.kind:
            case "drop":
                connection.drop()
            case "silence":
                connection.fall_silent()
            case "garbage":
                connection.raw(GARBAGE)
            case "oversize":
                connection.raw(frame(b'{"pad":"' + b"x" * max(0, fault.size - 10) + b'"}'))
            case "malformed_json":
                connection.send(TRUNCATED)
            case "binary":
                connection.raw(frame(b'{"topic":"binary","data":[]}', BINARY))
            case "fragmented":
                connection.fragment_next = True
            case "close":
                connection.close(fault.code, fault.reason)
            case "ends_soon":
                self.dialect.end_order_entry(connection)
                self._close_later(fault, connection)
            case "notice":
                if not self.dialect.give_notice(connection):
                    raise ValueError(f"kind: {self.dialect.name} announces nothing before it closes")
                self._close_later(fault, connection)

    def _close_later(self, fault: Fault, connection: Connection) -> None:
        seconds = NOTICE_S if fault.seconds is None else fault.seconds
        self.toggles.nursery.start_soon(_close_later, connection, seconds)

    def _arm(self, fault: Fault) -> None:
        topic = fault.topic or "*"
        match fault.kind:
            case "gap":
                self.floor.gaps[topic] = self.floor.gaps.get(topic, 0) + fault.count
            case "stall":
                until = inf if fault.seconds is None else trio.current_time() + fault.seconds
                self.floor.stalled[topic] = until
            case "refuse_topic":
                self.floor.refused.add(topic)
            case "refuse_login":
                self.toggles.refused_logins += fault.count
                self.toggles.login_error = fault.error
            case "slow_ack":
                self.toggles.ack_delay = SLOW_ACK_S if fault.seconds is None else fault.seconds
            case "http_refuse":
                self.toggles.refused_upgrades += fault.count
                self.toggles.upgrade_status = fault.status
            case "clear":
                self._clear()

    def _clear(self) -> None:
        """End every fault that lasts. Connections stay as they are."""
        self.floor.gaps.clear()
        self.floor.stalled.clear()
        self.floor.refused.clear()
        self.toggles.refused_logins = self.toggles.refused_upgrades = 0
        self.toggles.ack_delay = 0.0
        self.toggles.orders.clear()


async def _close_later(connection: Connection, seconds: float) -> None:
    await trio.sleep(seconds)
    connection.close(1001, "service upgrade")
