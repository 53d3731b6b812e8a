"""What OKX offers where: its channels, the keys of their args, who may subscribe, and how topics are named."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from pipeline.sim.okx_candles import BARS_MS

PUBLIC, PRIVATE, BUSINESS = "public", "private", "business"
INTERVAL = "updateInterval"
"""Of `extraParams`: named in the topic, because it changes what is pushed, but not repeated in the pushes' arg."""

_CANDLES = {"candle": "trade", "mark-price-candle": "mark", "index-candle": "index", "sprd-candle": "spread"}
_INTERVALS = {"account": ("0",), "positions": ("0", "2000", "3000", "4000")}
"""Values of `updateInterval` that mean something; any other is the same as none."""
_TYPED = ("instType", "instFamily", "instId")


@attrs.frozen
class Offer:
    """One channel."""

    path: str
    keys: tuple[str, ...] = ("instId",)
    """The keys of an arg that tell one topic from another, in the order in which the topic names their values."""
    login: bool = False
    vip: bool = False
    """Only for accounts of the fee tier."""
    production_only: bool = False


def _offers() -> dict[str, Offer]:
    found = {
        name: Offer(PUBLIC)
        for name in (
            "books", "books5", "books-rpi", "bbo-tbt", "trades", "tickers", "mark-price", "index-tickers",
            "funding-rate", "open-interest", "price-limit", "call-auction-details",
        )
    }  # fmt: skip
    found |= {name: Offer(PUBLIC, login=True, vip=True) for name in ("books-l2-tbt", "books50-l2-tbt")}
    found |= {
        "opt-summary": Offer(PUBLIC, ("instFamily",)),
        "option-trades": Offer(PUBLIC, _TYPED),
        "estimated-price": Offer(PUBLIC, _TYPED),
        "adl-warning": Offer(PUBLIC, ("instType", "instFamily")),
        "status": Offer(PUBLIC, ()),
    }
    found |= {
        name: Offer(PUBLIC, ("instType",)) for name in ("instruments", "liquidation-orders", "event-contract-markets")
    }
    found |= {name: Offer(BUSINESS) for name in ("trades-all", "block-tickers", "public-block-trades")}
    found |= {
        "public-struc-block-trades": Offer(BUSINESS, ()),
        "economic-calendar": Offer(BUSINESS, (), login=True, vip=True, production_only=True),
    }
    found |= {
        f"sprd-{name}": Offer(BUSINESS, ("sprdId",))
        for name in ("bbo-tbt", "books5", "books-l2-tbt", "public-trades", "tickers")
    }
    found |= {
        "account": Offer(PRIVATE, ("ccy", INTERVAL), login=True),
        "positions": Offer(PRIVATE, (*_TYPED, INTERVAL), login=True),
        "balance_and_position": Offer(PRIVATE, (), login=True),
        "liquidation-warning": Offer(PRIVATE, _TYPED, login=True),
        "account-greeks": Offer(PRIVATE, ("ccy",), login=True),
        "orders": Offer(PRIVATE, _TYPED, login=True),
        "fills": Offer(PRIVATE, login=True, vip=True),
        "orders-algo": Offer(BUSINESS, _TYPED, login=True),
        "algo-advance": Offer(BUSINESS, ("instType", "instId", "algoId"), login=True),
        "sprd-orders": Offer(BUSINESS, ("sprdId",), login=True),
        "sprd-trades": Offer(BUSINESS, ("sprdId",), login=True),
    }
    found |= {name: Offer(BUSINESS, ("ccy",), login=True) for name in ("deposit-info", "withdrawal-info")}
    found |= {name: Offer(BUSINESS, (), login=True) for name in ("rfqs", "quotes", "struc-block-trades")}
    found |= {
        name: Offer(BUSINESS, ("instType", "instId", "algoId"), login=True)
        for name in ("grid-orders-spot", "grid-orders-contract", "algo-recurring-buy", "copytrading-lead-notification")
    }
    return found | {name: Offer(BUSINESS, ("algoId",), login=True) for name in ("grid-positions", "grid-sub-orders")}


OFFERS = _offers()
"""By channel, candles aside."""
ACCOUNT_CHANNELS = frozenset(name for name, offer in OFFERS.items() if offer.login) - {
    "books-l2-tbt",
    "books50-l2-tbt",
    "economic-calendar",
}
"""What is about one account."""
COUNTED = frozenset({"orders", "account", "positions", "balance_and_position", "liquidation-warning", "account-greeks"})
"""Private channels whose connections are counted per account."""
EXCLUSIVE = {
    "books-l2-tbt": ("books50-l2-tbt", "books"),
    "books50-l2-tbt": ("books-l2-tbt",),
    "books": ("books-l2-tbt",),
}
"""Which books of the same instrument a connection may not have beside each other."""


def offer_of(channel: str) -> Offer | None:
    """What is offered under this name."""
    if found := candle(channel):
        return Offer(BUSINESS, ("sprdId",) if found[0] == "spread" else ("instId",))
    return OFFERS.get(channel)


def candle(channel: str) -> tuple[str, str] | None:
    """The price type (trade, mark, index, spread) and bar of a candle channel's name."""
    prefix, separator, bar = channel.rpartition("candle")
    kind = _CANDLES.get(f"{prefix}{separator}")
    if kind is None or bar not in BARS_MS:
        return None
    only = {"1s": "trade", "1Yutc": "mark"}.get(bar, kind)
    return (kind, bar) if kind == only else None


def topic_name(arg: dict[str, Any]) -> str:
    """A subscription's name: "books:BTC-USDT-SWAP", "orders:SWAP::BTC-USDT-SWAP", "status"."""
    channel = str(arg.get("channel"))
    found = offer_of(channel)
    if found is None:
        return f"{channel}:{arg.get('instId') or arg.get('instFamily') or arg.get('instType') or ''}"
    values = [interval(arg) if key == INTERVAL else str(arg.get(key) or "") for key in found.keys]
    return ":".join((channel, *values)).rstrip(":")


def topic_arg(name: str) -> dict[str, str]:
    """The arg that a topic's pushes carry, from the topic's name; empty for an unknown channel."""
    channel, *values = name.split(":")
    found = offer_of(channel)
    if found is None or len(values) > len(found.keys):
        return {}
    named = zip(found.keys, values, strict=False)
    return {"channel": channel} | {key: value for key, value in named if value and key != INTERVAL}


def is_within(given: dict[str, Any], arg: dict[str, str]) -> bool:
    """Whether a topic's arg has all that `given` names of what tells topics apart."""
    found = offer_of(arg.get("channel", ""))
    keys = ("channel", *found.keys) if found is not None else ()
    return bool(keys) and all(arg.get(key) == given[key] for key in keys if key in given)


def topic_interval(name: str) -> str:
    """The `updateInterval` that a topic's name tells; "" for the usual one."""
    channel, *values = name.split(":")
    found = offer_of(channel)
    keys = found.keys if found is not None else ()
    return dict(zip(keys, values, strict=False)).get(INTERVAL, "")


def interval(arg: dict[str, Any]) -> str:
    """The `updateInterval` of an arg's `extraParams`, a JSON text inside the JSON; "" for the usual one."""
    try:
        extra = msgspec.json.decode(str(arg.get("extraParams", "{}")))
    except msgspec.DecodeError:
        return ""
    wanted = str(extra.get(INTERVAL, "")) if isinstance(extra, dict) else ""
    return wanted if wanted in _INTERVALS.get(str(arg.get("channel")), ()) else ""
