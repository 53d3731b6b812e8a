"""What the tests of the simulated Bybit say to its private side, and how it is documented to answer."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.sim.http import Request, Response
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.clients import Client, connect_in_memory

SLOW = MarketSettings(rate=0.001)
NOW_MS = 1_800_000_000_000
ACCOUNT = Account("a-key", "TESTSECRET", name="main")
OTHER = Account("b-key", "OTHERSECRET", name="other")
SAMPLES = Path(__file__).parent.parent / "data" / "bybit"


def documented(name: str, line: int = 0) -> Any:
    """One message of the venue's documentation, or a REST answer."""
    text = (SAMPLES / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else json.loads(text.splitlines()[line])


def signature(secret: str, text: str) -> str:
    """As both login and REST are signed."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def auth(account: Account, expires: int, **more: Any) -> dict[str, Any]:
    """A login request."""
    return {"op": "auth", "args": [account.key, expires, signature(account.secret, f"GET/realtime{expires}")], **more}


async def log_in(venue: SimulatedVenue, client: Client, account: Account = ACCOUNT) -> None:
    """Log in by the venue's clock."""
    answer = await client.ask(auth(account, venue.floor.clock.now_ms() + 10_000))
    assert answer["success"] is True


@asynccontextmanager
async def private(
    *topics: str, account: Account = ACCOUNT, **options: Any
) -> AsyncIterator[tuple[SimulatedVenue, Client]]:
    """A venue without a port with two accounts, and a client that has logged in and subscribed."""
    given: dict[str, Any] = {"market": SLOW, "accounts": [ACCOUNT, OTHER], "start_us": NOW_MS * 1000} | options
    async with open_venue("bybit", listen=False, **given) as venue, connect_in_memory(venue, "/v5/private") as client:
        await log_in(venue, client, account)
        if topics:
            assert (await client.ask({"op": "subscribe", "args": list(topics)}))["success"] is True
        yield venue, client


def signed(
    venue: SimulatedVenue, target: str, account: Account = ACCOUNT, *, shift_ms: int = 0, **headers: str
) -> Request:
    """A signed GET, `shift_ms` off the venue's clock; headers may be overridden."""
    stamp = str(venue.floor.clock.now_ms() + shift_ms)
    window = headers.get("x-bapi-recv-window", "5000")
    sign = signature(account.secret, f"{stamp}{account.key}{window}{target.partition('?')[2]}")
    mine = {"x-bapi-api-key": account.key, "x-bapi-timestamp": stamp, "x-bapi-recv-window": window, "x-bapi-sign": sign}
    return Request("GET", target, mine | headers)


def ask(venue: SimulatedVenue, target: str, account: Account = ACCOUNT, *, shift_ms: int = 0, **headers: str) -> Any:
    """The body of the answer to a signed GET."""
    return body(venue.dialect.rest(signed(venue, target, account, shift_ms=shift_ms, **headers)))


def get(venue: SimulatedVenue, target: str, account: Account = ACCOUNT) -> Any:
    """The result of a good signed GET."""
    answer = ask(venue, target, account)
    assert (answer["retCode"], answer["retMsg"]) == (0, "OK"), answer
    return answer["result"]


def body(response: Response | None) -> Any:
    """The JSON of a response of status 200."""
    assert response is not None
    assert response.status == 200
    return json.loads(response.body)
