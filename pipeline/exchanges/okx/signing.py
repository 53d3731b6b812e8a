"""Proofs of who we are: of a login over WebSocket, and of each request over REST."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from pipeline.exchanges.accounts import Credentials, Login
from pipeline.model.errors import Refused
from pipeline.model.events import Micros

_LOGIN = "GET/users/self/verify"


def login_request(login: Login, now: float) -> str:
    """The message that logs in at `now`; its timestamp is good for 30 s."""
    keys = login.credentials
    seconds = str(login.micros(now) // 1_000_000)
    arg = {
        "apiKey": keys.api_key,
        "passphrase": keys.passphrase,
        "timestamp": seconds,
        "sign": signature(keys, seconds + _LOGIN),
    }
    return msgspec.json.encode({"op": "login", "args": [arg]}).decode()


def signed_headers(keys: Credentials, path: str, time: Micros, body: bytes | None = None) -> Mapping[str, str]:
    """The headers of a signed GET of `path` with its query, or of a POST with a body; good for 30 s from `time`.

    Raises `Refused` for keys that no header can carry.
    """
    for field in ("api_key", "passphrase"):
        text = getattr(keys, field)
        if not (text.isascii() and text.isprintable()):
            raise Refused(f"okx: {field} is no plain ASCII text")
    stamp = timestamp(time)
    return {
        "OK-ACCESS-KEY": keys.api_key,
        "OK-ACCESS-SIGN": signature(keys, f"{stamp}GET{path}" if body is None else f"{stamp}POST{path}{body.decode()}"),
        "OK-ACCESS-TIMESTAMP": stamp,
        "OK-ACCESS-PASSPHRASE": keys.passphrase,
    }


def signature(keys: Credentials, text: str) -> str:
    """HMAC-SHA256 in Base64."""
    digest = hmac.new(keys.api_secret.encode(), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def timestamp(time: Micros) -> str:
    """ISO 8601 in UTC with milliseconds: "2020-12-08T09:08:57.715Z"."""
    seconds, micros = divmod(time, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros // 1000:03d}Z"
