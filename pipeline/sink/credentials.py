"""Passwords and tokens that change while we run: read again, and handed to librdkafka."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import structlog
import trio

from pipeline.model.errors import Refused
from pipeline.model.secret import Secret
from pipeline.sink.settings import KafkaSettings

log = structlog.get_logger()

_TOKEN_LIFE_S = 300.0
"""How long librdkafka may use a token before it asks again (at four fifths of it), whatever the token says."""

_USERNAME, _PASSWORD = "sasl.username", "sasl.password"


def token_config(settings: KafkaSettings) -> dict[str, Any]:
    """Properties of librdkafka for logging in with `oauth_token`; raises `Refused` if there is no usable token."""
    secret = settings.oauth_token
    if secret is None:
        return {}
    read_token(secret)  # librdkafka would wait ten seconds for it, and not say why

    def token(_: str) -> tuple[str, float]:
        return read_token(secret)

    return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": token}


def read_token(secret: Secret, now: Callable[[], float] = time.time) -> tuple[str, float]:
    """A bearer token and until when it may be used, in seconds since 1970.

    Raises `Refused` if it cannot be read or has expired. A token that does not tell its end is taken for valid.
    """
    token = secret.reveal("kafka.oauth_token")
    limit, end = now() + _TOKEN_LIFE_S, _expiry(token)
    if end is not None and end <= now():
        raise Refused(f"kafka.oauth_token: the token in {secret.file or secret.env} has expired")
    return token, limit if end is None else min(limit, end)


def _expiry(token: str) -> float | None:
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None


async def keep_fresh(settings: KafkaSettings, hand_over: Callable[[str, str], None]) -> None:
    """Call `hand_over` with user name and password whenever the secrets they are read from have changed.

    Looks every `secrets_refresh` seconds. Returns at once if neither is a secret.
    """
    sources = [settings.properties.get(name) for name in (_USERNAME, _PASSWORD)]
    if None in sources or not any(isinstance(source, Secret) for source in sources):
        return
    known = _read(sources)
    while True:
        await trio.sleep(settings.secrets_refresh)
        found = _read(sources)
        if found is not None and found != known:
            known = found
            hand_over(*found)
            log.info("kafka_credentials_changed", effect="used from the next connection on")


def _read(sources: list[Any]) -> tuple[str, str] | None:
    """None while a secret cannot be read: files are replaced under us."""
    try:
        user, password = (source.reveal() if isinstance(source, Secret) else str(source) for source in sources)
    except Refused as error:
        log.warning("kafka_credentials_unreadable", reason=str(error), effect="the last ones are used")
        return None
    return user, password
