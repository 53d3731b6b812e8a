"""The channels of an account: our names, the venue's topics, and what of them can be had for one market alone."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pipeline.exchanges.accounts import AccountSpec
from pipeline.exchanges.bybit.accounts import ACCOUNT
from pipeline.exchanges.bybit.suggestions import unknown
from pipeline.exchanges.venue import Subscription

_ALL = ("spot", "linear", "inverse", "option")
_DERIVATIVES = ("linear", "inverse", "option")
_PROTECTED = {"spot": "spot", "linear": "future", "inverse": "future", "option": "option"}
"""The venue's products of disconnection protection by market: all futures are one."""


@attrs.frozen
class AccountChannel:
    """One private channel."""

    topic: str
    """The venue's channel; its topic for all markets."""
    markets: tuple[str, ...] = ()
    """To which it can be narrowed; none: it is of the account as a whole."""
    catalogue: tuple[str, ...] = ()
    """Markets of the instruments in its events."""


_SPREADS = ("spread", "spot", "linear")
"""A spread and what its legs are."""

CHANNELS: Mapping[str, AccountChannel] = {
    "order": AccountChannel("order", _ALL, _ALL),
    "fill": AccountChannel("execution", _ALL, _ALL),
    "position": AccountChannel("position", _DERIVATIVES, _DERIVATIVES),
    "balance": AccountChannel("wallet"),
    "account_greeks": AccountChannel("greeks"),
    "fast_fill": AccountChannel("execution.fast", _ALL, _ALL),
    "spread_order": AccountChannel("spread.order", catalogue=_SPREADS),
    "spread_fill": AccountChannel("spread.execution", catalogue=_SPREADS),
    "strategy": AccountChannel("strategy"),
    # Subscribing arms it: without a living connection, the venue cancels the orders of that product.
    "dcp": AccountChannel("dcp", tuple(_PROTECTED)),
}
"""By our name."""

_WITHOUT_KIND = ("rfq.open.rfqs", "rfq.open.quotes", "rfq.open.trades")
"""Topics that are passed on as they are."""


def _names() -> dict[str, tuple[str, str | None]]:
    names: dict[str, tuple[str, str | None]] = {name: (name, None) for name in (*CHANNELS, *_WITHOUT_KIND)}
    for name, channel in CHANNELS.items():
        names.setdefault(channel.topic, (name, None))
        for market in channel.markets:
            names.setdefault(_topic(name, market), (name, market))
    return names


def _channel(name: str) -> AccountChannel:
    return CHANNELS.get(name) or AccountChannel(name)


def _topic(name: str, market: str | None) -> str:
    topic = _channel(name).topic
    if market is None:
        return topic
    return f"{topic}.{_PROTECTED[market] if name == 'dcp' else market}"


NAMES: Mapping[str, tuple[str, str | None]] = _names()
"""What may be asked for, as our channel and its market: our names, and the venue's topics."""


def problems(spec: AccountSpec) -> list[tuple[str, str]]:
    """What is wrong with a wanted channel, as (field, why)."""
    if spec.channel not in NAMES:
        return [("channel", unknown("channel", spec.channel, tuple(NAMES)))]
    found = []
    name, market = NAMES[spec.channel]
    markets = _channel(name).markets
    if market is not None and spec.market not in {None, market}:
        found.append(("market", f"contradicts {spec.channel}, which is of {market}"))
    elif spec.market is not None and not markets:
        found.append(("market", f"{spec.channel} is of the account as a whole, not of a market"))
    elif spec.market is not None and spec.market not in markets and market is None:
        found.append(("market", f"bybit has no {spec.channel} in {spec.market}, only in {', '.join(markets)}"))
    elif name == "dcp" and (market or spec.market) is None:
        why = "is missing: the venue cancels all orders of a market when its dcp connections are gone; it has "
        found.append(("market", why + ", ".join(markets)))
    if spec.params:
        found.append(("params", "bybit's private channels have none"))
    return found


def catalogue_markets(spec: AccountSpec) -> tuple[str, ...]:
    """Markets whose instruments are in the channel's events."""
    name, market = _resolve(spec)
    wanted = _channel(name).catalogue
    return (market,) if market in wanted else wanted


def subscription(spec: AccountSpec) -> Subscription:
    """The one topic of a channel."""
    name, market = _resolve(spec)
    channel = _topic(name, market) if name == "dcp" else _channel(name).topic
    return Subscription(_topic(name, market), name, channel, market or ACCOUNT, None, "private", needs_login=True)


def _resolve(spec: AccountSpec) -> tuple[str, str | None]:
    name, market = NAMES[spec.channel]
    return name, market or spec.market
