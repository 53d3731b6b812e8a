"""Whatever a client sends as an order is answered: the simulated exchanges do not break on it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import trio.testing

from tests.sim import test_bybit_trade as bybit
from tests.sim import test_okx_trade as okx
from tests.sim.bybit_client import NOW_MS

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1.5, "", "0", "-1", "1e999", "9" * 40, "0." + "1" * 40, "999999999999.999999999999",
    "Market", "market", "BTCUSDT", "spot", "cash", "\u0663", [], [[]], ["x"], {}, {"x": []},
)  # fmt: skip
BYBIT = (
    "category symbol side orderType qty price timeInForce orderLinkId orderId positionIdx marketUnit reduceOnly request"
)
OKX = "instIdCode tdMode side ordType sz px clOrdId ordId posSide tgtCcy tag reduceOnly newSz newPx reqId"
FRAME = "reqId id header args expTime"
MASS = "instType instFamily lockInterval"


def cases(names: str) -> list[tuple[str, Any]]:
    """One odd thing at a time: the first that is found ends an examination."""
    return list(itertools.product(names.split(), ODD))


@pytest.mark.parametrize("action", ["create", "amend", "cancel"])
async def test_odd_orders_are_answered_by_bybit(action: str, autojump_clock: trio.testing.MockClock) -> None:
    async with bybit.trading() as trader:
        (connection,) = trader.venue.connections
        asked = 0
        for many in (False, True):
            for name, odd in cases(f"{BYBIT} {FRAME}"):
                asked += 1
                row = {"category": "linear", **bybit.FAR, "orderLinkId": f"a{asked}"}
                row |= {name: odd} if name in BYBIT.split() else {}
                frame = {} if name in BYBIT.split() else {name: odd}
                arg = {"category": "linear", "request": [row]} | ({name: odd} if name == "request" else {})
                header = {"X-BAPI-TIMESTAMP": str(NOW_MS)}
                op = f"order.{action}{'-batch' if many else ''}"
                request = {"reqId": f"r{asked}", "header": header, "op": op, "args": [arg if many else row], **frame}
                trader.venue.dialect.receive(connection, json.dumps(request))
        for _ in range(asked):
            assert "retCode" in await trader.client.hear()


@pytest.mark.parametrize("action", ["order", "amend-order", "cancel-order", "mass-cancel"])
async def test_odd_orders_are_answered_by_okx(action: str, autojump_clock: trio.testing.MockClock) -> None:
    async with okx.trading() as trader:
        (connection,) = trader.venue.connections
        mass = action == "mass-cancel"
        asked = 0
        for many in (False,) if mass else (False, True):
            for name, odd in cases(f"{MASS if mass else OKX} {FRAME}"):
                asked += 1
                row = trader.arg({**okx.FAR, "clOrdId": f"a{asked}"})
                row = {"instType": "OPTION", "instFamily": "BTC-USD"} if mass else row
                whole = name in ("id", "header", "args", "expTime")
                row |= {} if whole else {name: odd}
                op = f"batch-{action}s" if many else action
                frame = {name: odd} if whole else {}
                request = {"id": f"r{asked}", "op": op, "args": [row, row] if many else [row], **frame}
                trader.venue.dialect.receive(connection, json.dumps(request))
        for _ in range(asked):
            assert "code" in await trader.client.hear()
