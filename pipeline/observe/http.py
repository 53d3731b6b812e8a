"""Metrics, probes and the status page over HTTP, on the same event loop as everything else."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from string import Template
from typing import Any

import attrs
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework

from pipeline.model.errors import Refused
from pipeline.observe.access import CHALLENGE, Access
from pipeline.observe.control import PREFIX, Controls, ask
from pipeline.observe.live import Live
from pipeline.observe.loop import LoopWatch
from pipeline.observe.markup import element, joined
from pipeline.observe.metrics import CONTENT_TYPE
from pipeline.observe.page import SECTION_IDS
from pipeline.observe.process import with_process
from pipeline.observe.settings import HttpSettings

log = structlog.get_logger(__name__)

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_PATHS = ("/", "/status", "/events", "/metrics", "/healthz", "/readyz", "/startupz")
_STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@attrs.frozen
class Pages:
    """What the server answers with; each is read anew per request."""

    metrics: Callable[[], bytes]
    status: Callable[[], dict[str, Any]]
    not_ready: Callable[[], list[str]]
    """Why the service is not ready; empty if it is."""
    not_started: Callable[[], list[str]] = list
    """What the first start waits for; not asked again once it was empty."""
    controls: Controls = attrs.field(factory=dict, kw_only=True)
    """What can be asked for beside these pages."""
    loop: LoopWatch = attrs.field(factory=LoopWatch)
    """Runs for as long as the pages are served."""


async def start_http(nursery: trio.Nursery, settings: HttpSettings, pages: Pages) -> str:
    """Serve as a task of the nursery, unless HTTP is off; returns the address, empty if there is none.

    Raises `Refused` as `serve_http` does.
    """
    if not settings.enabled:
        return ""
    address: str = await nursery.start(serve_http, settings, pages)
    log.info("http_listening", address=address)
    return address


async def serve_http(
    settings: HttpSettings, pages: Pages, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; `task_status` is told the address.

    Raises `Refused` if the address cannot be had or the token cannot be read.
    """
    site = _Site(settings, pages, Access.configured(settings))
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
        nursery.start_soon(pages.loop.run)
        nursery.start_soon(site.live.run)
        await nursery.start(partial(serve, site.app(), config, shutdown_trigger=trio.sleep_forever))
        task_status.started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def _listen(settings: HttpSettings) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family)
    except OSError as error:
        raise Refused(f"http: {settings.host} port {settings.port}: {error.strerror}") from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Hypercorn cannot be cancelled while it sends: who neither reads nor answers is cut by the system, or a single
        # one could keep the process from ending. Connections have this from their listener.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(settings.send_within * 1e3)))
    return listener


@attrs.frozen
class _Answer:
    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = attrs.Factory(dict)
    """Beside those that every answer has."""

    @classmethod
    def json(cls, status: int, value: Any, **headers: str) -> _Answer:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, _JSON, json.dumps(value).encode(), named)


@attrs.define(eq=False)
class _Site:
    settings: HttpSettings
    pages: Pages
    access: Access
    live: Live = attrs.field(init=False)
    _document: Template = attrs.field(init=False)
    _static: dict[str, tuple[str, bytes, str]] = attrs.field(init=False)
    """By path: kind, content, tag."""
    _has_started: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.live = Live(self.status, self.settings.listeners)
        folder = files("pipeline.observe") / "static"
        self._document = Template((folder / "page.html").read_text("utf-8"))
        self._static = {}
        for name, kind in _STATIC.items():
            content = (folder / name).read_bytes()
            self._static[f"/{name}"] = (kind, content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')

    def app(self) -> ASGIFramework:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await _lifespan(receive, send)
            elif scope["type"] == "http":
                await self._request(scope, receive, send)

        return app

    def status(self) -> dict[str, Any]:
        return with_process(self.pages.status(), self.pages.loop)

    async def _request(self, scope: Any, receive: Any, send: Any) -> None:
        method, path, headers = scope["method"], scope["path"], dict(scope["headers"])
        try:
            answer = self._refusal(method, path, headers)
            if answer is None and path == "/events" and method == "GET":
                await self._events(receive, send)
                return
            if answer is None and path.startswith(PREFIX):
                answer = await self._control(method, path, headers, receive)
            answer = answer or self._answer(path, headers)
        except Exception:
            # Hypercorn would only say that something went wrong, and not to whom.
            log.exception("request_failed", path=path)
            answer = _Answer.json(500, {"error": "this is a bug; the log has more"})
        await send(_start(answer.status, answer.kind, {**answer.headers, "content-length": str(len(answer.body))}))
        await send({"type": "http.response.body", "body": answer.body})

    def _refusal(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> _Answer | None:
        try:
            allowed = self.access.allows(path, headers.get(b"authorization", b""))
        except Refused as error:
            log.error("http_token_unreadable", text=str(error))
            return _Answer.json(503, {"error": "the token of this service cannot be read"})
        if not allowed:
            return _Answer.json(401, {"error": "a token is needed"}, www_authenticate=CHALLENGE)
        if path.startswith(PREFIX):
            return None
        if path not in _PATHS and path not in self._static:
            return _Answer.json(404, {"error": "unknown path", "paths": _PATHS})
        if method not in ("GET", "HEAD"):
            return _Answer.json(405, {"error": "only GET and HEAD"}, allow="GET, HEAD")
        if path == "/events" and method == "GET" and self.live.is_full:
            return _Answer.json(503, {"error": "too many watch already"}, retry_after="10")
        return None

    async def _control(self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Any) -> _Answer:
        has_token = self.access.token is not None
        found = await ask(self.pages.controls, method, path, headers, receive, has_token=has_token)
        return _Answer(found.status, _JSON, json.dumps(found.value).encode(), found.headers)

    def _answer(self, path: str, headers: Mapping[bytes, bytes]) -> _Answer:
        if path == "/healthz":
            late = self.pages.loop.late_s
            is_live = late <= self.settings.loop_late
            return _Answer.json(200 if is_live else 503, {"ok": is_live, "loop_late_s": round(late, 3)})
        if path == "/readyz":
            return _probe(self.pages.not_ready())
        if path == "/startupz":
            reasons = [] if self._has_started else self.pages.not_started()
            self._has_started = not reasons
            return _probe(reasons)
        if path == "/metrics":
            return _Answer(200, CONTENT_TYPE, self.pages.metrics())
        if path == "/status":
            return _Answer(200, _JSON, json.dumps(self.status(), indent=1).encode())
        if path == "/events":
            return _Answer(200, "text/event-stream", b"")
        if path == "/":
            return _Answer(200, _HTML, self._first_view())
        kind, content, tag = self._static[path]
        cached = {"etag": tag, "cache-control": "no-cache"}
        if headers.get(b"if-none-match") == tag.encode():
            return _Answer(304, kind, b"", cached)
        return _Answer(200, kind, content, cached)

    def _first_view(self) -> bytes:
        view = self.live.look()
        sections = joined(*(element("section", view.sections[name], id=name) for name in SECTION_IDS))
        return self._document.substitute(title=joined(view.title), sections=sections).encode()

    async def _events(self, receive: Any, send: Any) -> None:
        async def body(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async with trio.open_nursery() as nursery:
            await send(_start(200, "text/event-stream", {}))
            nursery.start_soon(self.live.follow, body)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()


def _probe(reasons: list[str]) -> _Answer:
    return _Answer.json(503 if reasons else 200, {"ok": not reasons, "reasons": reasons})


def _start(status: int, kind: str, headers: Mapping[str, str]) -> dict[str, Any]:
    every = {"content-type": kind, "cache-control": "no-store", **_HEADERS, **headers}
    if status == 304:
        del every["content-type"]
        every.pop("content-length", None)
    found = [(name.encode("ascii"), text.encode("latin-1")) for name, text in every.items()]
    return {"type": "http.response.start", "status": status, "headers": found}


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
