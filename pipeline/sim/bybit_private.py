"""Bybit's private side on WebSocket: who may log in, which account topics there are, and what reaches them when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import msgspec

from pipeline.sim import bybit_rows as rows
from pipeline.sim.accounts import BalanceChanged, Change, Filled, OrderChanged, PositionChanged, SimulatedAccount
from pipeline.sim.bybit_signature import is_signed
from pipeline.sim.floor import Floor
from pipeline.sim.wire import Connection

_ALL = ("spot", "linear", "inverse", "option")
STREAMS: dict[str, tuple[str, ...]] = {
    "order": _ALL,
    "execution": _ALL,
    "execution.fast": _ALL,
    "position": _ALL[1:],
    "wallet": (),
    "greeks": (),
    "strategy": (),
    "spread.order": (),
    "spread.execution": (),
    "rfq.open.rfqs": (),
    "rfq.open.quotes": (),
    "rfq.open.trades": (),
    "dcp.future": (),
    "dcp.spot": (),
    "dcp.option": (),
}
"""The account streams with the categories that they can be had for one by one."""
WITHOUT_ID = ("execution.fast", "rfq.")
PERMISSIONS = {
    "order": "order",
    "execution": "execution",
    "position": "position",
    "wallet": "account",
    "greeks": "asset",
}
"""The permission that a stream takes, by the first part of its name; the others take none."""

_encode = msgspec.json.Encoder().encode


def stream_of(topic: str) -> tuple[str, str | None] | None:
    """A topic's stream and category: ("execution.fast", None), ("order", "linear"); None for an unknown topic."""
    if topic in STREAMS:
        return topic, None
    stream, _, category = topic.rpartition(".")
    return (stream, category) if category in STREAMS.get(stream, ()) else None


@attrs.define(eq=False)
class PrivateSide:
    """All accounts of a venue; listens to each from the beginning, with connections or without."""

    floor: Floor
    accounts: Sequence[SimulatedAccount]
    _messages: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        for account in self.accounts:
            account.listeners.append(self._publish)

    def account(self, key: str | None) -> SimulatedAccount | None:
        """The account that a key opens, or opened before it was revoked."""
        return next((each for each in self.accounts if each.settings.key == key), None)

    def login_problem(self, key: str, expires: int, signature: str) -> int:
        """Why a login is refused, as the code of the order-entry server; 0 for a good one."""
        account = self.account(key)
        if account is None or account.revoked == "revoked":
            return 10003
        if account.revoked:
            return 33004
        signed = is_signed(account.settings, f"GET/realtime{expires}", signature)
        return 0 if signed and expires > self.floor.clock.now_ms() else 10004

    def problems(self, connection: Connection, topics: list[str]) -> dict[str, str]:
        """Why a subscription is refused, by topic."""
        account = self.account(connection.account)
        if account is None:
            return {topic: f"error:topic:{topic} needs auth first" for topic in topics}
        found = {topic: why for topic in topics if (why := self._problem(connection, account, topic))}
        known = {topic: parts for topic in topics if (parts := stream_of(topic))}
        whole = {stream for stream, category in known.values() if category is None}
        for topic, (stream, category) in known.items():
            if category is not None and stream in whole:
                found.setdefault(topic, f"error:all-in-one and categorized topics together,topic:{topic}")
        return found

    def _problem(self, connection: Connection, account: SimulatedAccount, topic: str) -> str:
        allowed = account.settings.permissions
        needed = PERMISSIONS.get(topic.partition(".")[0])
        if stream_of(topic) is None or self.floor.refuses(self.key(account, topic)):
            return f"error:handler not found,topic:{topic}"
        if allowed is not None and needed is not None and needed not in allowed:
            return f"error:permission denied,topic:{topic}"
        if self.key(account, topic) in connection.topics:
            return f"error:already subscribed,topic:{topic}"
        return ""

    def key(self, account: SimulatedAccount, topic: str) -> str:
        """An account's topic on the floor: what happens to one account, no other hears."""
        return f"private:{account.name}/{topic}"

    def push(self, account: SimulatedAccount, body: dict[str, Any]) -> int:
        """Send what a test made up to the topic's subscribers. Raises `ValueError` naming the field."""
        topic = body.get("topic")
        if not isinstance(topic, str) or stream_of(topic) is None:
            raise ValueError(f"topic: {topic!r} is no private topic")
        if not isinstance(body.get("data"), list):
            raise ValueError(f"data: {body.get('data')!r} is not a list")
        key = self.key(account, topic)
        self.floor.publish(key, [_encode({**self._head(account, topic), **body})])
        return len(self.floor.subscribers.get(key, ()))

    def _publish(self, account: SimulatedAccount, changes: tuple[Change, ...]) -> None:
        moved = {(each.position.market, each.position.symbol) for each in changes if isinstance(each, PositionChanged)}
        balances = [change.balance for change in changes if isinstance(change, BalanceChanged)]
        for change in changes:
            match change:
                case OrderChanged(order=order):
                    self._send(account, "order", order.market, [rows.order(account, order)])
                    if order.market != "spot" and (order.market, order.symbol) not in moved:
                        # The venue repeats the position at every order, whether it moved or not.
                        position = account.position(order.market, order.symbol)
                        self._send(account, "position", order.market, [rows.position(account, position)])
                case Filled(fill=fill):
                    if fill.kind == "trade":
                        self._send(account, "execution.fast", fill.market, [rows.fast_execution(fill)])
                    self._send(account, "execution", fill.market, [rows.execution(fill)])
                case PositionChanged(position=position):
                    self._send(account, "position", position.market, [rows.position(account, position)])
        if balances:
            self._send(account, "wallet", None, [rows.wallet(account, balances)])
        for market, symbol in sorted(moved):
            if market == "option" and (listing := account.market.find(market, symbol)):
                self._send(account, "greeks", None, rows.greeks(account, listing.base))

    def _send(self, account: SimulatedAccount, stream: str, category: str | None, data: Iterable[Any]) -> None:
        for topic in (stream,) if category is None else (stream, f"{stream}.{category}"):
            key = self.key(account, topic)
            if key in self.floor.subscribers:
                self.floor.publish(key, [_encode({**self._head(account, topic), "data": list(data)})])

    def _head(self, account: SimulatedAccount, topic: str) -> dict[str, Any]:
        self._messages += 1
        head: dict[str, Any] = {"topic": topic, "creationTime": self.floor.clock.now_ms()}
        if not topic.startswith(WITHOUT_ID):
            head["id"] = f"{account.index}_{topic}_{self._messages}"
        return head
