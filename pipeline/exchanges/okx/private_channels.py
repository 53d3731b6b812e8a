"""The private channels: our names of them, what each can be narrowed by, and the topics that bring it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec

from pipeline.exchanges.accounts import AccountSpec
from pipeline.exchanges.okx.channels import offered, unknown
from pipeline.exchanges.okx.normalizer import ANY
from pipeline.exchanges.okx.streams import ACCOUNT
from pipeline.exchanges.venue import Subscription

_TRADED = ("spot", "margin", "swap", "futures", "option")
LISTED = _TRADED
"""Markets of which the instruments can be read; of event contracts they cannot."""
_ALGO = ("spot", "margin", "swap", "futures")
_LEGS = ("spot", "swap", "futures")
EXTRA = "updateInterval"
"""The one parameter that goes into `extraParams`: "0" for changes only."""


@attrs.frozen
class PrivateChannel:
    """One private channel of OKX."""

    name: str
    """The venue's own."""
    endpoint: str
    markets: tuple[str, ...] = ()
    """What `instType` may be, in our words; empty: the channel takes none."""
    has_any: bool = False
    """Whether one subscription can be about all markets."""
    params: tuple[str, ...] = ()
    """What else narrows it."""
    required: str = ""
    """The one of `params` without which there is no subscription."""
    about: tuple[str, ...] = ()
    """Markets of the instruments in its messages; empty where no instrument matters."""


_BY_INSTRUMENT = ("instFamily", "instId")
_CHANNELS = (
    PrivateChannel("orders", "private", (*_TRADED, "events"), True, _BY_INSTRUMENT, about=LISTED),
    PrivateChannel("fills", "private", params=("instId",), about=LISTED),
    PrivateChannel("positions", "private", (*_TRADED[1:], "events"), True, (*_BY_INSTRUMENT, EXTRA), about=LISTED),
    PrivateChannel("account", "private", params=("ccy", EXTRA)),
    PrivateChannel("balance_and_position", "private", about=LISTED),
    PrivateChannel("account-greeks", "private", params=("ccy",)),
    PrivateChannel("liquidation-warning", "private", _TRADED[1:], True, _BY_INSTRUMENT, about=LISTED),
    PrivateChannel("orders-algo", "business", _ALGO, params=_BY_INSTRUMENT, about=_ALGO),
    PrivateChannel("algo-advance", "business", _ALGO, params=("instId", "algoId"), about=_ALGO),
    PrivateChannel("deposit-info", "business", params=("ccy",)),
    PrivateChannel("withdrawal-info", "business", params=("ccy",)),
    PrivateChannel("sprd-orders", "business", params=("sprdId",)),
    PrivateChannel("sprd-trades", "business", params=("sprdId",), about=_LEGS),
    PrivateChannel("grid-orders-spot", "business", ("spot",), True, ("algoId",)),
    PrivateChannel("grid-orders-contract", "business", ("swap", "futures"), True, ("algoId",)),
    PrivateChannel("grid-positions", "business", params=("algoId",), required="algoId"),
    PrivateChannel("grid-sub-orders", "business", params=("algoId",), required="algoId"),
    PrivateChannel("algo-recurring-buy", "business", ("spot",), params=("algoId",)),
    PrivateChannel("copytrading-lead-notification", "business", ("swap",), params=("instId",)),
    PrivateChannel("rfqs", "business"),
    PrivateChannel("quotes", "business"),
    PrivateChannel("struc-block-trades", "business"),
)
BY_NAME = {channel.name: channel for channel in _CHANNELS}

OURS = {
    "order": "orders",
    "fill": "fills",
    "position": "positions",
    "balance": "account",
    "balance_and_position": "balance_and_position",
    "account_greeks": "account-greeks",
    "liquidation_warning": "liquidation-warning",
    "algo_order": "orders-algo",
    "algo_advance_order": "algo-advance",
    "deposit": "deposit-info",
    "withdrawal": "withdrawal-info",
    "spread_order": "sprd-orders",
    "spread_fill": "sprd-trades",
}
"""The venue's channel by our name; the others go by the venue's."""
_KINDS = {theirs: ours for ours, theirs in OURS.items()}
_ORDER = ("channel", "instType", "instFamily", "instId", "sprdId", "ccy", "algoId")
"""Of the members of an `arg`, as in `wire.Arg`."""


def problems(spec: AccountSpec) -> list[tuple[str, str]]:
    """What is wrong with a wanted channel, as (field, why)."""
    channel = _find(spec.channel)
    if channel is None:
        return [("channel", unknown("private channel", spec.channel, (*OURS, *BY_NAME)))]
    found = []
    if spec.market is not None and spec.market not in channel.markets:
        why = f"private channel {spec.channel} has no market {spec.market!r}; {offered(channel.markets)}"
        found.append(("market", why if channel.markets else f"private channel {spec.channel} is not divided by market"))
    for name, value in spec.params.items():
        if name not in channel.params:
            why = unknown("parameter", name, channel.params)
            found.append((f"params.{name}", why if channel.params else f"private channel {spec.channel} takes none"))
        elif not value:
            found.append((f"params.{name}", "is empty"))
    if channel.required and channel.required not in spec.params:
        found.append(("params", f"private channel {spec.channel} needs {channel.required}"))
    return found


def catalogue_markets(spec: AccountSpec) -> Sequence[str]:
    """Markets whose instruments must be known for the events of a faultless `spec`."""
    about = BY_NAME[OURS.get(spec.channel, spec.channel)].about
    return about if spec.market is None else tuple(market for market in about if market == spec.market)


def subscriptions(spec: AccountSpec) -> list[Subscription]:
    """The topics of a faultless `spec`: one, or one per market where OKX has none for all."""
    channel = BY_NAME[OURS.get(spec.channel, spec.channel)]
    if spec.market is not None:
        return [_subscription(channel, spec, spec.market, spec.market)]
    if channel.markets and not channel.has_any:
        return [_subscription(channel, spec, market, market) for market in channel.markets]
    return [_subscription(channel, spec, ACCOUNT, ANY if channel.markets else "")]


def _find(name: str) -> PrivateChannel | None:
    return BY_NAME.get(OURS.get(name, name))


def _subscription(channel: PrivateChannel, spec: AccountSpec, market: str, kind: str) -> Subscription:
    members = {"channel": channel.name, "instType": kind.upper(), **spec.params}
    arg = {name: members[name] for name in _ORDER if members.get(name)}
    if EXTRA in spec.params:
        arg["extraParams"] = msgspec.json.encode({EXTRA: spec.params[EXTRA]}).decode()
    return Subscription(
        msgspec.json.encode(arg).decode(),
        _KINDS.get(channel.name, channel.name),
        channel.name,
        market,
        None,
        channel.endpoint,
        needs_login=True,
    )
