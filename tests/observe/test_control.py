"""Who may change what over HTTP, and how requests are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pipeline.model.errors import ConfigError, Refused
from pipeline.model.secret import Secret
from pipeline.observe.control import LOG_LEVEL, MAX_BODY_BYTES, RELOAD, RESYNC, SUBSCRIPTIONS, Controls
from pipeline.observe.http import Pages, serve_http
from pipeline.observe.settings import HttpSettings
from tests.observe.statuses import healthy

DEADLINE_S = 60
BEARER = {"authorization": "Bearer open sesame"}


@pytest.fixture
def token(tmp_path: Path) -> Secret:
    (tmp_path / "token").write_text("open sesame")
    return Secret(file=str(tmp_path / "token"))


class Service:
    """What is controlled."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def take(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(dict(body))
        return {"result": "applied"}

    async def refuse(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ConfigError(["add[0].channel: unknown", "venue: is missing"])

    async def decline(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        raise Refused("not here")

    def controls(self) -> Controls:
        return {RELOAD: self.take, SUBSCRIPTIONS: self.refuse, RESYNC: self.decline}


@asynccontextmanager
async def client(service: Service, token: Secret | None) -> AsyncIterator[httpx.AsyncClient]:
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            pages = Pages(lambda: b"", healthy, list, controls=service.controls())
            address = await nursery.start(serve_http, HttpSettings(port=0, token=token), pages)
            async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
                yield http
            nursery.cancel_scope.cancel()


async def test_nothing_is_changed_without_a_configured_token() -> None:
    service = Service()
    async with client(service, None) as http:
        for path in (RELOAD, SUBSCRIPTIONS, LOG_LEVEL, RESYNC, "/control/else"):
            answer = await http.post(path, json={})
            assert answer.status_code == 403
            assert "http.token" in answer.json()["error"]
    assert service.asked == []


async def test_nothing_is_changed_by_who_does_not_show_the_token(token: Secret) -> None:
    service = Service()
    async with client(service, token) as http:
        for headers in ({}, {"authorization": "Bearer open"}):
            answer = await http.post(RELOAD, json={}, headers=headers)
            assert answer.status_code == 401
            assert "www-authenticate" in answer.headers
        assert service.asked == []
        answer = await http.post(RELOAD, json={"a": [1]}, headers=BEARER)
        assert (answer.status_code, answer.json()) == (200, {"result": "applied"})
        assert (await http.post(RELOAD, json={}, auth=("anybody", "open sesame"))).status_code == 200
    assert service.asked == [{"a": [1]}, {}]


async def test_what_is_wrong_with_a_request_is_named(token: Secret) -> None:
    service = Service()
    kind = {**BEARER, "content-type": "application/json; charset=utf-8"}
    async with client(service, token) as http:
        answer = await http.post(SUBSCRIPTIONS, json={}, headers=BEARER)
        assert answer.status_code == 400
        assert answer.json() == {
            "error": "add[0].channel: unknown",
            "problems": ["add[0].channel: unknown", "venue: is missing"],
        }
        answer = await http.post(RESYNC, json={}, headers=BEARER)
        assert (answer.status_code, answer.json()) == (409, {"error": "not here"})
        answer = await http.post(LOG_LEVEL, json={}, headers=BEARER)
        assert (answer.status_code, answer.json()["paths"]) == (404, sorted([RELOAD, SUBSCRIPTIONS, RESYNC]))
        for content in (b"{", b"\xff", b"[]", b"[" * 100_000):
            assert (await http.post(RELOAD, content=content, headers=kind)).status_code == 400
        assert (await http.post(RELOAD, content=b"{}" + b" " * MAX_BODY_BYTES, headers=kind)).status_code == 413
        answer = await http.get(RELOAD, headers=BEARER)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert service.asked == []
        assert (await http.post(RELOAD, headers=kind)).status_code == 200, "an empty body asks for nothing special"


async def test_a_form_of_another_site_is_refused_though_the_browser_knows_the_password(token: Secret) -> None:
    service = Service()
    async with client(service, token) as http:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = await http.post(RELOAD, content=b"{}", headers={**BEARER, "content-type": kind})
            assert answer.status_code == 415
    assert service.asked == []
