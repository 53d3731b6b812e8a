"""OKX's private channels: snapshots in pages, pushes of what an account's actions changed, and what is sent on demand.

A topic key names the account at its end: "private/orders:SWAP@main".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from pipeline.sim.accounts import (
    BalanceChanged,
    Change,
    Fill,
    Filled,
    OrderChanged,
    Position,
    PositionChanged,
    SimulatedAccount,
)
from pipeline.sim.floor import Floor
from pipeline.sim.generator import Stream
from pipeline.sim.market import Engine
from pipeline.sim.okx_account_rows import (
    account_row,
    balance_and_position_row,
    greeks_rows,
    held,
    position_row,
    uid,
)
from pipeline.sim.okx_channels import ACCOUNT_CHANNELS, is_within, offer_of, topic_arg, topic_interval
from pipeline.sim.okx_order_rows import amended_row, fill_row, order_row

REGULAR_MS = 5000
"""How often snapshots come again, unless the subscription says otherwise."""
KINDS = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION", "EVENTS", "ANY")
_CAUSES = {"filled": "filled", "funding": "funding_fee", "deposited": "transferred"}
"""What balance_and_position calls what happened; the rest moves no money."""

_encode = msgspec.json.Encoder().encode


@attrs.define(eq=False)
class SnapshotStream:
    """A topic of one account: a snapshot for each new subscriber, and again at an interval where there is one."""

    pages: Callable[[int], list[bytes]]
    """The snapshot at a time in milliseconds."""
    interval_ms: int | None = None
    engines: Sequence[Engine] = ()
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The snapshot."""
        if alone:
            self._last_ms = now_ms
        return self.pages(now_ms)

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """Nothing: what the market does shows in the next snapshot."""
        return []

    def passing(self, now_ms: int) -> list[bytes]:
        """The regular snapshot."""
        if self.interval_ms is None or now_ms - self._last_ms < self.interval_ms:
            return []
        self._last_ms = now_ms
        return self.pages(now_ms)


@attrs.define(eq=False)
class AccountChannels:
    """The private channels of all accounts; it listens to them."""

    floor: Floor
    accounts: Mapping[str, SimulatedAccount]
    """By name."""
    page_rows: int
    _latest: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    """Topic key to its last push of something that happened."""

    def __attrs_post_init__(self) -> None:
        for account in self.accounts.values():
            account.listeners.append(self.changed)

    def make(self, name: str, account_name: str) -> Stream | None:
        """The stream of a topic's name for an account; None if there is no such account."""
        account = self.accounts.get(account_name)
        if account is None:
            return None
        arg, wanted = topic_arg(name), topic_interval(name)
        regular = None if wanted == "0" else int(wanted or REGULAR_MS)
        match arg["channel"]:
            case "account":
                return SnapshotStream(lambda now_ms: self._account_pages(account, arg, now_ms), regular)
            case "positions":
                return SnapshotStream(lambda now_ms: self._position_pages(account, arg, now_ms), regular)
            case "account-greeks":
                return SnapshotStream(lambda now_ms: self._greeks(account, arg, now_ms), REGULAR_MS)
            case "balance_and_position":
                return SnapshotStream(lambda now_ms: self._state(account, arg, now_ms))
        return SnapshotStream(lambda now_ms: [])

    def changed(self, account: SimulatedAccount, changes: tuple[Change, ...]) -> None:
        """Tell the subscribers what an action changed."""
        now_ms = self.floor.clock.now_ms()
        for topic, arg in self._topics(account):
            for body in _events(account, arg, changes, now_ms):
                self._send(account, topic, arg, body)

    def push(self, account: SimulatedAccount, body: dict[str, Any]) -> int:
        """Send `body` to the account's subscriptions that have all that its `arg` names; returns how many.

        Each gets its own arg. With `"repeat": true` instead of data, each gets its last event again, updated at
        another time. Raises `ValueError` for what is no push of an account's channel.
        """
        given, data, repeat = body.get("arg"), body.get("data"), body.get("repeat", False)
        if not isinstance(given, dict) or str(given.get("channel")) not in ACCOUNT_CHANNELS:
            raise ValueError(f"arg: {given!r} names no private channel")
        if repeat is not True and not isinstance(data, list):
            raise ValueError(f"data: {data!r} is not a list")
        hit = 0
        for topic, arg in self._topics(account):
            if is_within(given, arg):
                sent = self._repeated(topic) if repeat is True else body
                if sent is not None:
                    hit += len(self.floor.subscribers[topic])
                    self._send(account, topic, arg, sent)
        return hit

    def _repeated(self, topic: str) -> dict[str, Any] | None:
        latest = self._latest.get(topic)
        if latest is None:
            return None
        later = {"uTime": str(self.floor.clock.now_ms() + 1)}
        return latest | {"data": [row | later if isinstance(row, dict) else row for row in latest["data"]]}

    def _send(self, account: SimulatedAccount, topic: str, arg: dict[str, str], body: dict[str, Any]) -> None:
        self._latest[topic] = body
        self.floor.publish(topic, [_encode({**body, "arg": _own(arg, account)})])

    def _topics(self, account: SimulatedAccount) -> Iterator[tuple[str, dict[str, str]]]:
        """The account's subscribed topics with their args."""
        for topic in tuple(self.floor.subscribers):
            name, _, whose = topic.partition("/")[2].rpartition("@")
            if whose == account.name:
                yield topic, topic_arg(name)

    def _account_pages(self, account: SimulatedAccount, arg: dict[str, str], now_ms: int) -> list[bytes]:
        found = [each for each in held(account) if arg.get("ccy", each.coin) == each.coin]
        rows = [[account_row(account, page, now_ms)] for page in self._pages(found)]
        return _snapshot(account, arg, rows)

    def _position_pages(self, account: SimulatedAccount, arg: dict[str, str], now_ms: int) -> list[bytes]:
        found = [each for each in account.positions.values() if each.size and _wanted(account, arg, each)]
        rows = [[position_row(account, each, now_ms) for each in page] for page in self._pages(found)]
        return _snapshot(account, arg, rows)

    def _state(self, account: SimulatedAccount, arg: dict[str, str], now_ms: int) -> list[bytes]:
        positions = [each for each in account.positions.values() if each.size]
        row = balance_and_position_row(account, "snapshot", held(account), positions, (), now_ms)
        return [_encode({"arg": _own(arg, account), "data": [row]})]

    def _greeks(self, account: SimulatedAccount, arg: dict[str, str], now_ms: int) -> list[bytes]:
        coins = [each.coin for each in held(account) if arg.get("ccy", each.coin) == each.coin]
        return [_encode({"arg": _own(arg, account), "data": greeks_rows(account, coins, now_ms)})]

    def _pages(self, items: list[Any]) -> list[list[Any]]:
        return [items[start : start + self.page_rows] for start in range(0, len(items), self.page_rows)]


def faults_of(arg: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the keys of a private subscription: code and text."""
    offer = offer_of(str(arg.get("channel")))
    keys = offer.keys if offer is not None else ()
    if arg.get("channel") in ("grid-positions", "grid-sub-orders") and not arg.get("algoId"):
        return "60027", "Parameter algoId can not be empty."
    if "instType" in keys:
        if not arg.get("instType"):
            return "60027", "Parameter instType can not be empty."
        if arg["instType"] not in KINDS:
            return "60033", "Parameter instType error."
    return None


def _own(arg: dict[str, str], account: SimulatedAccount) -> dict[str, str]:
    return {**arg, "uid": uid(account)}


def _snapshot(account: SimulatedAccount, arg: dict[str, str], pages: list[list[dict[str, Any]]]) -> list[bytes]:
    """Numbered pages; nothing at all is one empty page."""
    pages = pages or [[]]
    return [
        _encode(
            {
                "arg": _own(arg, account),
                "eventType": "snapshot",
                "curPage": number,
                "lastPage": number == len(pages),
                "data": data,
            }
        )
        for number, data in enumerate(pages, 1)
    ]


def _events(
    account: SimulatedAccount, arg: dict[str, str], changes: tuple[Change, ...], now_ms: int
) -> list[dict[str, Any]]:
    """What a topic says about the changes of one action: messages without their arg."""
    match arg["channel"]:
        case "orders":
            return [
                {"data": [_order(account, change)]}
                for change in changes
                if isinstance(change, OrderChanged) and _wanted(account, arg, change.order)
            ]
        case "fills":
            return [{"data": [fill_row(fill)]} for fill in _trades(changes) if _wanted(account, arg, fill)]
        case "positions":
            moved = [each for each in _positions(changes) if _wanted(account, arg, each)]
            rows = [position_row(account, each, now_ms) for each in moved]
            return [{"eventType": "event_update", "data": rows}] if rows else []
        case "account":
            balances = [
                change.balance
                for change in changes
                if isinstance(change, BalanceChanged) and arg.get("ccy", change.balance.coin) == change.balance.coin
            ]
            row = account_row(account, balances, now_ms)
            return [{"eventType": "event_update", "data": [row]}] if balances else []
        case "balance_and_position":
            return _balance_and_position(account, changes, now_ms)
    return []


def _order(account: SimulatedAccount, change: OrderChanged) -> dict[str, Any]:
    row = order_row(account, change.order, change.fill)
    return amended_row(row) if change.cause == "amended" else row


def _balance_and_position(account: SimulatedAccount, changes: tuple[Change, ...], now_ms: int) -> list[dict[str, Any]]:
    balances = [each for each in changes if isinstance(each, BalanceChanged) and each.cause in _CAUSES]
    positions = list(_positions(changes))
    causes = [each.cause for each in changes if isinstance(each, BalanceChanged | PositionChanged)]
    if not balances and not positions:
        return []
    row = balance_and_position_row(
        account, _CAUSES[causes[0]], (each.balance for each in balances), positions, _trades(changes), now_ms
    )
    return [{"data": [row]}]


def _positions(changes: Iterable[Change]) -> Iterator[Position]:
    return (change.position for change in changes if isinstance(change, PositionChanged))


def _trades(changes: Iterable[Change]) -> Iterator[Fill]:
    return (change.fill for change in changes if isinstance(change, Filled) and change.fill.kind == "trade")


def _wanted(account: SimulatedAccount, arg: dict[str, str], item: Any) -> bool:
    """Whether a subscription's filters let an order, fill or position through."""
    kind, family = arg.get("instType", "ANY"), arg.get("instFamily")
    if kind not in ("ANY", item.market) or arg.get("instId", item.symbol) != item.symbol:
        return False
    if family is None:
        return True
    listing = account.market.find(item.market, item.symbol)
    return listing is not None and item.market != "SPOT" and listing.index == family
