"""Whatever a client sends as an order is answered: the simulated exchanges do not break on it."""

from __future__ import annotations

import json
from typing import Any

import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim import test_bybit_trade as bybit
from tests.sim import test_okx_trade as okx
from tests.sim.bybit_client import NOW_MS

TEXTS = (
    "", "0", "-1", "1e999", "9" * 40, "0." + "1" * 40, "999999999999.999999999999", "Buy", "buy", "Limit", "limit",
    "market", "Market", "BTCUSDT", "linear", "spot", "cross", "cash", "\u0663",
)  # fmt: skip
NAMES = (
    "category symbol side orderType qty price timeInForce orderLinkId orderId positionIdx marketUnit reduceOnly "
    "request instIdCode tdMode ordType sz px clOrdId ordId posSide tgtCcy tag newSz newPx reqId instType instFamily "
    "lockInterval"
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.sampled_from(TEXTS),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=4,
)
CHANGES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES.split(), ODD))
FRAME = st.fixed_dictionaries({}, optional=dict.fromkeys(("reqId", "id", "header", "args", "expTime"), ODD))


async def test_odd_orders_are_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with bybit.trading() as one, okx.trading() as other:
        number = 0

        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        @given(CHANGES, FRAME, st.sampled_from(["create", "amend", "cancel"]), st.booleans())
        def check(changes: dict[str, Any], frame: dict[str, Any], action: str, batch: bool) -> None:
            nonlocal number
            number += 1
            order = {"category": "linear", **bybit.FAR, "orderLinkId": "a", **changes}
            args = [{"category": "linear", "request": [order, order]} if batch else order]
            header = {"X-BAPI-TIMESTAMP": str(NOW_MS)}
            op = f"order.{action}{'-batch' if batch else ''}"
            request = {"reqId": f"r{number}", "header": header, "op": op, "args": args, **frame}
            one.venue.dialect.receive(one.venue.connections[0], json.dumps(request))
            op = {"create": "order", "amend": "amend-order", "cancel": "cancel-order"}[action]
            arg = other.arg({**okx.FAR, "clOrdId": "a", **changes})
            request = {"id": f"r{number}", "op": f"batch-{op}s" if batch else op, "args": [arg], **frame}
            other.venue.dialect.receive(other.venue.connections[0], json.dumps(request))
            mass = {"id": f"r{number}", "op": "mass-cancel", "args": [changes], **frame}
            other.venue.dialect.receive(other.venue.connections[0], json.dumps(mass))

        check()
        for _ in range(number):
            assert "retCode" in await one.client.hear()
        for _ in range(2 * number):
            assert "code" in await other.client.hear()
