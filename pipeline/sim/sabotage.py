"""Carries faults out on a running venue."""

from __future__ import annotations

from math import inf

import attrs
import trio

from pipeline.sim.dialect import Dialect
from pipeline.sim.faults import CONNECTION_FAULTS, Fault
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
            hit = [connection for connection in self.connections if _meant(fault, connection)]
            for connection in hit:
                self._hit(fault, connection)
            return len(hit)
        self._arm(fault)
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
            case "notice":
                if not self.dialect.give_notice(connection):
                    raise ValueError(f"kind: {self.dialect.name} announces nothing before it closes")
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


def _meant(fault: Fault, connection: Connection) -> bool:
    return (
        fault.connection in (None, connection.index)
        and fault.endpoint in (None, connection.endpoint)
        and (fault.topic is None or any(topic_matches(topic, fault.topic) for topic in connection.topics))
    )


async def _close_later(connection: Connection, seconds: float) -> None:
    await trio.sleep(seconds)
    connection.close(1001, "service upgrade")
