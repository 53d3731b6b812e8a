"""The HTTP server over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from pipeline.model.errors import Refused
from pipeline.observe.http import Pages, serve_http
from pipeline.observe.settings import HttpSettings

REASONS: list[str] = []
PAGES = Pages(lambda: b"# metrics\n", lambda: {"venues": {"toy": {}}}, lambda: REASONS)


@asynccontextmanager
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_http, HttpSettings(port=0), PAGES)
        async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
            yield http
        nursery.cancel_scope.cancel()


async def test_the_pages() -> None:
    async with client() as http:
        assert (await http.get("/metrics")).text == "# metrics\n"
        assert (await http.get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await http.get("/status")).json()["venues"] == {"toy": {}}
        assert (await http.get("/healthz")).status_code == 200


async def test_readiness_tells_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with client() as http:
        assert (await http.get("/readyz")).json() == {"ok": True, "reasons": []}
        monkeypatch.setattr(f"{__name__}.REASONS", ["okx is refused: bad key"])
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ok": False, "reasons": ["okx is refused: bad key"]}


async def test_what_there_is_not() -> None:
    async with client() as http:
        assert (await http.get("/nothing")).status_code == 404
        assert "/metrics" in (await http.get("/nothing")).json()["paths"]
        assert (await http.post("/status")).status_code == 405


async def test_a_taken_port_is_an_error() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        with pytest.raises(Refused, match=f"127.0.0.1 port {port}: Address already in use"):
            await serve_http(HttpSettings(port=port), PAGES)
