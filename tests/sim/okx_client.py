"""What the tests of the simulated OKX say to it, and how it is documented to answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.sim.http import Request
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.clients import Client, connect_in_memory

SLOW = MarketSettings(rate=0.001)
ACCOUNT = Account("a-key", "22582BD0CFF14C41EDBF1AB98506286D", "a-phrase")
SWAP = "BTC-USDT-SWAP"
SAMPLES = Path(__file__).parent.parent / "data" / "okx"


def documented(name: str, line: int = 0) -> Any:
    """One message of the venue's documentation."""
    return json.loads((SAMPLES / name).read_text(encoding="utf-8").splitlines()[line])


@asynccontextmanager
async def in_memory(endpoint: str, **options: Any) -> AsyncIterator[tuple[SimulatedVenue, Client]]:
    """A venue without a port, and a client on one of its paths."""
    async with (
        open_venue("okx", listen=False, **options) as venue,
        connect_in_memory(venue, f"/ws/v5/{endpoint}") as client,
    ):
        yield venue, client


def subscribe(channel: str, target: str | None = SWAP, op: str = "subscribe", **more: str) -> dict[str, Any]:
    """A request with one arg; its keys may be given, `id` belongs to the request."""
    key = "instType" if channel == "instruments" else "instId"
    named = {} if target is None else {key: target}
    request = {"id": more.pop("id")} if "id" in more else {}
    return {**request, "op": op, "args": [{"channel": channel, **named, **more}]}


def signature(secret: str, text: str) -> str:
    """As both login and REST are signed."""
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


def login(when: int, account: Account = ACCOUNT, **changes: str) -> dict[str, Any]:
    """A login at a time in seconds."""
    sign = signature(account.secret, f"{when}GET/users/self/verify")
    arg = {"apiKey": account.key, "passphrase": account.passphrase, "timestamp": str(when), "sign": sign}
    return {"op": "login", "args": [arg | changes]}


async def log_in(venue: SimulatedVenue, client: Client, account: Account = ACCOUNT) -> None:
    """Log in at the venue's time."""
    answer = await client.ask(login(venue.floor.clock.now_us() // 10**6, account))
    assert answer["event"] == "login", answer


def signed(
    venue: SimulatedVenue, target: str, account: Account = ACCOUNT, *, post: bytes | None = None
) -> Request:  # fmt: skip
    """A signed request by the venue's clock; a POST if it has a body."""
    now = datetime.fromtimestamp(venue.floor.clock.now_us() / 1e6, UTC)
    stamp = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"
    method, content = ("GET", b"") if post is None else ("POST", post)
    headers = {
        "ok-access-key": account.key,
        "ok-access-passphrase": account.passphrase,
        "ok-access-timestamp": stamp,
        "ok-access-sign": signature(account.secret, f"{stamp}{method}{target}{content.decode()}"),
    }
    return Request(method, target, headers, content)


def answered(venue: SimulatedVenue, request: Request) -> Any:
    """The JSON of the answer."""
    response = venue.dialect.rest(request)
    assert response is not None
    return json.loads(response.body)
