"""The REST client against a scripted HTTP server on loopback."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trustme

from pipeline.model.errors import Retryable
from pipeline.model.rate import Rate
from pipeline.session.errors import RequestFailed, RequestRefused
from pipeline.session.limiter import Limiter
from pipeline.session.rest import RestClient, RestLimits

HANG_UP, SILENCE = b"", b"silence"


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(head).encode() + body


OK = answer("200 OK", b'{"retCode":0}')


@attrs.define
class Server:
    """Answers each request with the next of `answers`."""

    answers: list[bytes]
    port: int = 0
    requests: list[str] = attrs.field(factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                request = b""
                while b"\r\n\r\n" not in request or (request.startswith(b"POST") and not request.endswith(b"}")):
                    request += await stream.receive_some()
                self.requests.append(request.decode())
                reply = self.answers.pop(0)
                if reply == SILENCE:
                    await stream.receive_some()
                await stream.send_all(reply)


@asynccontextmanager
async def serving(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(list(answers))
    sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server.port = sockets[0].socket.getsockname()[1]
    listeners = [trio.SSLListener(it, tls, https_compatible=True) for it in sockets] if tls else sockets
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(trio.serve_listeners, server.serve, [listener])
            yield server
            nursery.cancel_scope.cancel()


def client(server: Server, limits: RestLimits | None = None, limiter: Limiter | None = None) -> RestClient:
    return RestClient(
        f"http://127.0.0.1:{server.port}/",
        limiter=limiter or Limiter(),
        random=lambda: 0.0,
        limits=limits or RestLimits(attempt=5, attempts=3),
        headers={"Referer": "pipeline"},
    )


async def test_the_body_of_a_good_answer_as_it_came() -> None:
    async with serving(OK) as server, client(server) as rest:
        body = await rest.get_json_bytes(
            "/v5/market/time", {"category": "linear", "cursor": "a=b&c"}, sign=lambda: {"X-Key": "1"}
        )
    assert body == b'{"retCode":0}'
    assert server.requests[0].startswith("GET /v5/market/time?category=linear&cursor=a%3Db%26c HTTP/1.1\r\n")
    assert "x-key: 1" in server.requests[0].lower()
    assert "referer: pipeline" in server.requests[0].lower()


async def test_a_body_is_posted_as_json_and_signed_anew_for_each_attempt() -> None:
    signatures = iter(["1", "2"])
    async with serving(answer("503 Busy"), OK) as server, client(server) as rest:
        body = await rest.post_json_bytes("/v5/x", b'{"a": 1}', sign=lambda: {"X-Key": next(signatures)})
    assert body == b'{"retCode":0}'
    for request, key in zip(server.requests, "12", strict=True):
        assert request.startswith("POST /v5/x HTTP/1.1\r\n")
        assert request.endswith('\r\n\r\n{"a": 1}')
        assert f"x-key: {key}\r\n" in request.lower()
        assert "content-type: application/json\r\n" in request.lower()


@pytest.mark.parametrize(
    "passing", [answer("429 Slow down"), answer("503 Busy"), answer("408 Late"), HANG_UP, b"garbage\r\n\r\n"]
)
async def test_passing_troubles_are_tried_again(passing: bytes) -> None:
    async with serving(passing, passing, OK) as server, client(server) as rest:
        assert await rest.get_json_bytes("/x") == b'{"retCode":0}'
    assert len(server.requests) == 3


async def test_tries_are_bounded_and_the_last_trouble_is_told() -> None:
    async with serving(*[answer("503 Busy", b"try\nlater")] * 3) as server, client(server) as rest:
        with pytest.raises(
            RequestFailed, match=f"GET http://127.0.0.1:{server.port}/x.a=1: HTTP 503: try later"
        ) as failed:
            await rest.get_json_bytes("/x", {"a": "1"})
    assert (failed.value.status, failed.value.body) == (503, b"try\nlater")
    assert len(server.requests) == 3


async def test_a_silent_server_is_given_up() -> None:
    async with serving(SILENCE) as server, client(server, RestLimits(attempt=0.1, attempts=1)) as rest:
        with pytest.raises(RequestFailed, match=r"no complete answer within 0\.1 s"):
            await rest.get_json_bytes("/x")


async def test_no_one_listens() -> None:
    async with serving() as server:
        pass
    async with client(server) as rest:
        with pytest.raises(Retryable, match=f"127.0.0.1:{server.port}/x: ConnectError"):
            await rest.get_json_bytes("/x")


@pytest.mark.parametrize("status", ["400 Bad", "401 Who", "403 Never", "404 Where", "302 Elsewhere"])
async def test_lasting_errors_are_refusals(status: str) -> None:
    async with serving(answer(status, b"because")) as server, client(server) as rest:
        with pytest.raises(RequestRefused, match=f"HTTP {status[:3]}: because") as refused:
            await rest.get_json_bytes("/x")
    assert (refused.value.status, refused.value.body) == (int(status[:3]), b"because")


async def test_a_403_that_means_too_often_holds_everyone() -> None:
    limiter, limits = Limiter(), RestLimits(hold_on_403=600)
    async with (
        serving(answer("403 Forbidden", b"access too frequent"), OK) as server,
        client(server, limits, limiter) as rest,
    ):
        with pytest.raises(RequestFailed, match="HTTP 403, all requests held for 600 s: access too frequent") as failed:
            await rest.get_json_bytes("/x")
        assert failed.value.status == 403
        with trio.move_on_after(0.1) as scope:
            await rest.get_json_bytes("/y")
        assert scope.cancelled_caught
    assert len(server.requests) == 1


async def test_every_try_asks_the_limiter() -> None:
    limiter = Limiter(Rate(1, 0.2))
    async with serving(answer("503 Busy"), OK) as server, client(server, limiter=limiter) as rest:
        begin = trio.current_time()
        await rest.get_json_bytes("/x")
        assert trio.current_time() - begin >= 0.2


async def test_a_body_that_is_too_long_is_not_read_to_its_end_even_if_packed_small() -> None:
    packed = answer("200 OK", gzip.compress(bytes(10_000_000)), "Content-Encoding: gzip")
    async with serving(packed) as server, client(server, RestLimits(max_body_bytes=1000)) as rest:
        with pytest.raises(RequestFailed, match="a body of more than 1000 bytes"):
            await rest.get_json_bytes("/x")
    assert len(server.requests) == 1


async def test_certificates_are_checked_against_the_given_context() -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    async with serving(OK, OK, tls=server_tls) as server:
        url = f"https://localhost:{server.port}"
        async with RestClient(url, limiter=Limiter(), random=lambda: 0.0, tls=client_tls) as rest:
            assert await rest.get_json_bytes("/x") == b'{"retCode":0}'
        limits = RestLimits(attempts=1)
        async with RestClient(url, limiter=Limiter(), random=lambda: 0.0, limits=limits) as rest:
            with pytest.raises(RequestFailed, match="certificate verify failed"):
                await rest.get_json_bytes("/x")
