"""The HTTP server over a real socket."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from pipeline.model.errors import Refused
from pipeline.model.secret import Secret
from pipeline.observe.http import Pages, serve_http
from pipeline.observe.loop import LoopWatch
from pipeline.observe.page import SECTION_IDS
from pipeline.observe.settings import HttpSettings
from tests.observe.statuses import connection, healthy, sink, status, venue
from tests.observe.watcher import watching

DEADLINE_S = 60
OPEN = ("/healthz", "/readyz", "/startupz")
GUARDED = ("/", "/status", "/events", "/page.css", "/page.js", "/icon.svg", "/nothing")


@attrs.define
class Source:
    """What the pages are made of, to be changed under way."""

    status: Callable[[], dict[str, Any]] = healthy
    not_ready: list[str] = attrs.field(factory=list)
    not_started: list[str] = attrs.field(factory=list)

    def pages(self) -> Pages:
        def status() -> dict[str, Any]:
            return self.status()

        return Pages(lambda: b"# metrics\n", status, lambda: self.not_ready, lambda: self.not_started)


@asynccontextmanager
async def client(source: Source | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            pages = (source or Source()).pages()
            address = await nursery.start(serve_http, HttpSettings(port=0, **settings), pages)
            async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
                yield http
            nursery.cancel_scope.cancel()


async def test_the_pages() -> None:
    async with client() as http:
        assert (await http.get("/metrics")).text == "# metrics\n"
        assert (await http.get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
        told = (await http.get("/status")).json()
        assert told["venues"].keys() == {"bybit", "okx"}
        assert {"process", "recent"} <= told.keys()
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "<h1" in page.text
        assert "All 3 connections are live; Kafka is up; nothing waiting" in page.text


async def test_the_process_tells_of_itself() -> None:
    def bare() -> dict[str, Any]:
        found = healthy()
        del found["process"]
        return found

    async with client(Source(bare)) as http:
        process = (await http.get("/status")).json()["process"]
        assert process["resident_bytes"] > 10_000_000
        assert 0 <= process["loop_late_s"] < DEADLINE_S


async def test_readiness_tells_why_not() -> None:
    source = Source()
    async with client(source) as http:
        assert (await http.get("/readyz")).json() == {"ok": True, "reasons": []}
        source.not_ready = ["okx is refused: bad key"]
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ok": False, "reasons": ["okx is refused: bad key"]}
        assert (await http.get("/healthz")).status_code == 200, "what is not ready is not dead"


async def test_the_start_is_over_for_ever() -> None:
    source = Source(not_started=["Kafka has not been reached yet"])
    async with client(source) as http:
        answer = await http.get("/startupz")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["Kafka has not been reached yet"])
        source.not_started = []
        assert (await http.get("/startupz")).status_code == 200
        source.not_started = ["okx has not been asked"]
        assert (await http.get("/startupz")).status_code == 200


async def test_a_loop_that_hardly_turns_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    async with client() as http:
        assert (await http.get("/healthz")).json()["ok"] is True
        monkeypatch.setattr(LoopWatch, "late_s", 5.5)
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"ok": False, "loop_late_s": 5.5})


async def test_the_loop_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    watch = LoopWatch(tick_s=0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(5.2)
        assert watch.late_s == pytest.approx(0)
        autojump_clock.jump(2.0)  # the loop was busy for two seconds
        assert watch.late_s == pytest.approx(1.7), "before the task has run again"
        await trio.sleep(0.1)
        assert watch.late_s == pytest.approx(1.7)
        await trio.sleep(0.5)
        assert watch.late_s == pytest.approx(0)
        nursery.cancel_scope.cancel()


async def test_what_there_is_not() -> None:
    async with client() as http:
        assert (await http.get("/nothing")).status_code == 404
        assert "/metrics" in (await http.get("/nothing")).json()["paths"]
        answer = await http.post("/status")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/metrics", "/", "/page.js", "/healthz", "/nothing"])
async def test_head_is_get_without_a_body(path: str) -> None:
    async with client() as http:
        head, get = await http.head(path), await http.get(path)
        assert head.content == b""
        assert head.status_code == get.status_code
        assert head.headers["content-type"] == get.headers["content-type"]
        assert int(get.headers["content-length"]) == len(get.content)
        if path not in ("/", "/healthz"):  # they tell the time
            assert head.headers["content-length"] == get.headers["content-length"]


async def test_head_of_events_ends() -> None:
    async with client() as http:
        answer = await http.head("/events")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")


async def test_nothing_is_kept_and_nothing_foreign_runs() -> None:
    async with client() as http:
        for path in ("/", "/status", "/metrics", "/readyz", "/nothing", "/page.css"):
            headers = (await http.get(path)).headers
            assert headers["cache-control"] == ("no-cache" if path == "/page.css" else "no-store")
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert "server" not in headers
        page = (await http.get("/")).text
        assert page.count("<script") == page.count('<script src="page.js"') == 1
        assert "<style" not in page
        assert " style=" not in page
        assert "://" not in page


async def test_what_does_not_change_is_not_sent_again() -> None:
    async with client() as http:
        first = await http.get("/page.css")
        again = await http.get("/page.css", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await http.get("/page.css", headers={"if-none-match": '"other"'})).status_code == 200


async def test_a_taken_port_is_an_error() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        with pytest.raises(Refused, match=f"127.0.0.1 port {port}: Address already in use"):
            await serve_http(HttpSettings(port=port), Source().pages())


async def test_a_bug_in_a_page_is_told_to_the_log_not_to_the_caller(logged: io.StringIO) -> None:
    def broken() -> dict[str, Any]:
        raise LookupError("inner workings")

    async with client(Source(broken)) as http:
        answer = await http.get("/status")
        assert answer.status_code == 500
        assert "inner workings" not in answer.text
        assert (await http.get("/healthz")).status_code == 200
    [line] = [json.loads(line) for line in logged.getvalue().splitlines() if "request_failed" in line]
    assert line["path"] == "/status"
    assert "inner workings" in line["exception"]


# Who may see what.


async def test_a_token_guards_all_but_the_probes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("letmein-ü\n")
    async with client(token=Secret(file=str(file))) as http:
        for path in OPEN:
            assert (await http.get(path)).status_code == 200
        for path in (*GUARDED, "/metrics"):
            answer = await http.get(path)
            assert answer.status_code == 401
            assert "Basic" in answer.headers["www-authenticate"]
            assert "Bearer" in answer.headers["www-authenticate"]
        right = {"authorization": "Bearer letmein-ü".encode()}
        assert (await http.get("/metrics", headers=right)).status_code == 200  # type: ignore[arg-type]
        assert (await http.get("/", auth=("anyone", "letmein-ü"))).status_code == 200
        for wrong in ("Bearer letmein", "Bearer", "Basic bGV0", "Basic %%", "letmein-", "Bearer letmein-u", ""):
            assert (await http.get("/status", headers={"authorization": wrong})).status_code == 401
        file.write_text("rotated")
        assert (await http.get("/status", headers={"authorization": "Bearer rotated"})).status_code == 200
        file.unlink()
        assert (await http.get("/status", headers={"authorization": "Bearer rotated"})).status_code == 503
        assert (await http.get("/readyz")).status_code == 200


async def test_metrics_may_be_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_TOKEN", "letmein")
    async with client(token=Secret(env="HTTP_TOKEN"), protect_metrics=False) as http:
        assert (await http.get("/metrics")).status_code == 200
        assert (await http.get("/status")).status_code == 401


async def test_without_its_token_the_server_does_not_start() -> None:
    with pytest.raises(Refused, match=r"^http\.token: environment variable NO_SUCH_TOKEN is not set"):
        await serve_http(HttpSettings(port=0, token=Secret(env="NO_SUCH_TOKEN")), Source().pages())


# Those who watch.


async def let_in(address: str) -> None:
    """Wait until there is room for one more watcher."""
    while True:
        async with watching(address) as watcher:
            if watcher.status == 200:
                return
        await trio.sleep(0.02)


async def test_watchers_get_all_and_then_what_changed() -> None:
    source = Source()
    async with client(source) as http, watching(str(http.base_url)) as watcher:
        assert watcher.headers[b"content-type"] == b"text/event-stream"
        first = await watcher.event()
        assert tuple(first["sections"]) == SECTION_IDS
        assert first["title"].endswith("All 3 connections are live; Kafka is up; nothing waiting")
        lost = connection("okx.swap.book.0", state="retrying", last_error="no pong")
        source.status = lambda: status(venue("okx", lost), sink=sink(broker_up=False))
        changed: dict[str, str] = {}
        while "Kafka is down" not in changed.get("verdict", ""):
            changed = (await watcher.event())["sections"]
        assert "no pong" in changed["connections"]
        assert "process" not in changed


async def test_watchers_are_bounded_and_leave_room_when_they_go() -> None:
    async with client(listeners=1) as http:
        address = str(http.base_url)
        async with watching(address) as first, watching(address) as second:
            await first.event()
            assert (second.status, second.headers[b"retry-after"]) == (503, b"10")
        await let_in(address)


async def test_who_does_not_read_is_cut_off() -> None:
    huge = connection("okx.swap.book.0", last_error="x" * 20_000_000)  # beyond all buffers on the way
    source = Source(lambda: status(venue("okx", huge), sink=sink()))
    async with client(source, listeners=1, send_within=0.3) as http:
        address = str(http.base_url)
        async with watching(address) as sleeper:
            await sleeper.begun()
            source.status = healthy
            async with watching(address) as second:
                assert second.status == 503
            await let_in(address)


@pytest.mark.parametrize("path", ["/events", "/status"])
async def test_who_does_not_read_does_not_keep_the_service_from_ending(path: str) -> None:
    huge = connection("okx.swap.book.0", last_error="x" * 20_000_000)
    source = Source(lambda: status(venue("okx", huge), sink=sink()))
    async with client(source, send_within=0.3) as http:
        sleeper = await trio.open_tcp_stream(http.base_url.host, http.base_url.port or 80)
        await sleeper.send_all(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert await sleeper.receive_some(12) == b"HTTP/1.1 200"
    await sleeper.aclose()
