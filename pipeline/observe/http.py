"""Metrics, probes and status over HTTP, on the same event loop as everything else."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework

from pipeline.model.errors import Refused
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
    settings: HttpSettings, pages: Pages, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; `task_status` is told the address. Raises `Refused` if it cannot be had."""
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 2.0
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, _app(pages), config, shutdown_trigger=trio.sleep_forever))
        task_status.started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def _listen(settings: HttpSettings) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise Refused(f"http: {settings.host} port {settings.port}: {error.strerror}") from None


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
