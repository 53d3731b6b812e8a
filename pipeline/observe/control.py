"""What can be asked of the running service over HTTP beside looking at it: POST, JSON, and only with a token."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from pipeline.model.errors import ConfigError, Refused

RELOAD, SUBSCRIPTIONS, LOG_LEVEL, RESYNC = (
    "/control/reload", "/control/subscriptions", "/control/log-level", "/control/resync",
)  # fmt: skip
KILL, RESUME = "/control/kill", "/control/resume"
PREFIX = "/control/"
MAX_BODY_BYTES = 1024**2

Control = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Does what the body asks for and tells what became of it.

Raises `ConfigError`, whose problems name fields of the body, and `Refused` for what cannot be done here.
"""
Controls = Mapping[str, Control]
"""By path."""
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
"""ASGI's."""


@attrs.frozen
class Answer:
    """An HTTP status, the value of its body, and further headers."""

    status: int
    value: Mapping[str, Any]
    headers: Mapping[str, str] = attrs.Factory(dict)


async def ask(
    controls: Controls, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive, *, has_token: bool
) -> Answer:
    """Have one request carried out. Who may ask at all is decided before."""
    if not has_token:
        return Answer(403, {"error": "nothing can be changed over HTTP unless http.token is configured"})
    control = controls.get(path)
    if control is None:
        return Answer(404, {"error": "unknown path", "paths": sorted(controls)})
    if method != "POST":
        return Answer(405, {"error": "only POST"}, {"allow": "POST"})
    # A page of another site can have a browser send forms with the password that it has remembered, but no JSON.
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        return Answer(415, {"error": "expected content-type: application/json"})
    raw = await _body(receive)
    if raw is None:
        return Answer(413, {"error": f"more than {MAX_BODY_BYTES} bytes"})
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return Answer(400, {"error": "the body is not JSON"})
    if not isinstance(body, dict):
        return Answer(400, {"error": "expected a JSON object"})
    try:
        return Answer(200, await control(body))
    except ConfigError as error:
        return Answer(400, {"error": error.problems[0], "problems": error.problems})
    except Refused as error:
        return Answer(409, {"error": str(error)})


async def _body(receive: Receive) -> bytes | None:
    """The whole of it; None if it is too long."""
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return body
