"""Metrics, probes and status over HTTP, on the same event loop as everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework

from pipeline.observe.metrics import CONTENT_TYPE
from pipeline.observe.settings import HttpSettings

_JSON = "application/json"


@attrs.frozen
class Pages:
    """What the server answers with; each is read anew per request."""

    metrics: Callable[[], bytes]
    status: Callable[[], dict[str, Any]]
    not_ready: Callable[[], list[str]]
    """Why the service is not ready; empty if it is."""


async def serve_http(
    settings: HttpSettings, pages: Pages, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; `task_status` is told the addresses. Raises `OSError` if the port is taken."""
    config = Config()
    config.bind = [f"{settings.host}:{settings.port}"]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 2.0
    await serve(_app(pages), config, shutdown_trigger=trio.sleep_forever, task_status=task_status)


def _app(pages: Pages) -> ASGIFramework:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            status, kind, body = _answer(pages, scope["method"], scope["path"])
            headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return app


def _answer(pages: Pages, method: str, path: str) -> tuple[int, str, bytes]:
    if method not in ("GET", "HEAD"):
        return 405, _JSON, b'{"error":"only GET"}'
    if path == "/metrics":
        return 200, CONTENT_TYPE, pages.metrics()
    if path == "/status":
        return 200, _JSON, json.dumps(pages.status(), indent=1).encode()
    if path in ("/healthz", "/startupz"):
        return 200, _JSON, b'{"ok":true}'
    if path == "/readyz":
        reasons = pages.not_ready()
        body = json.dumps({"ok": not reasons, "reasons": reasons}).encode()
        return (503 if reasons else 200), _JSON, body
    return (
        404,
        _JSON,
        json.dumps({"error": "unknown path", "paths": ["/metrics", "/status", "/healthz", "/readyz"]}).encode(),
    )


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
