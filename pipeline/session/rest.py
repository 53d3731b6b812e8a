"""REST requests with bounds: how often, how long, how big, how many times."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import attrs
import httpx
import trio

from pipeline.session.errors import RequestFailed, RequestRefused, excerpt
from pipeline.session.failures import root
from pipeline.session.limiter import Limiter

_OK = range(200, 300)
_FORBIDDEN = 403
_JSON = {"Content-Type": "application/json"}
_PASSING = {408, 429, *range(500, 600)}  # request timeout, too many requests, trouble of the server


@attrs.frozen(kw_only=True)
class RestLimits:
    """Bounds of one `get_json_bytes`; times in seconds."""

    attempt: float = 15.0
    """One attempt from connect to the last byte of the body."""
    attempts: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    backoff_base: float = 0.5
    """Longest delay before the second attempt; doubles with each further one, with full jitter."""
    backoff_cap: float = 15.0
    max_body_bytes: int = 64 * 1024 * 1024
    hold_on_403: float | None = None
    """Where 403 means "too many requests from your address": hold all requests so long. None: 403 is final."""


class RestClient:
    """Reads JSON from one host, as an async context manager.

    All requests of one address should share `limiter`. The environment's proxy settings are not used, as the
    WebSockets do not use them either.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limiter: Limiter,
        random: Callable[[], float],
        limits: RestLimits | None = None,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._limiter = limiter
        self._random = random
        self._limits = limits or RestLimits()
        self._http = httpx.AsyncClient(
            headers=headers, verify=tls or ssl.create_default_context(), timeout=None, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._http.aclose()

    async def get_json_bytes(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        sign: Callable[[], Mapping[str, str]] | None = None,
    ) -> bytes:
        """The body of a successful answer to `GET path?params`, not decoded; `sign` gives headers for each attempt.

        Passing troubles (no connection, too slow, 408, 429, 5xx) are tried again `limits.attempts` times in all.
        Raises `RequestFailed` when that did not help, or at once for a 403 that holds the limiter
        and for a body that is too long; `RequestRefused` for every other status.
        """
        return await self._ask("GET", path, params, None, sign)

    async def post_json_bytes(self, path: str, body: bytes, *, sign: Callable[[], Mapping[str, str]]) -> bytes:
        """The same for `POST path`, with JSON: for what may be asked more than once, as passing troubles repeat it."""
        return await self._ask("POST", path, None, body, sign)

    async def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        sign: Callable[[], Mapping[str, str]] | None,
    ) -> bytes:
        failures = 0
        while True:
            await self._limiter.acquire()
            headers = {**(sign() if sign is not None else {}), **({} if body is None else _JSON)}
            request = self._http.build_request(
                method, self._base_url + path, params=params, headers=headers, content=body
            )
            try:
                return await self._send(request)
            except RequestFailed as failure:
                failures += 1
                passing = failure.status is None or failure.status in _PASSING
                if failures >= self._limits.attempts or not passing:
                    raise
            await trio.sleep(
                self._random() * min(self._limits.backoff_cap, self._limits.backoff_base * 2.0 ** (failures - 1))
            )

    async def _send(self, request: httpx.Request) -> bytes:
        what = f"{request.method} {request.url}"
        try:
            with trio.fail_after(self._limits.attempt):
                response = await self._http.send(request, stream=True)
                try:
                    body = await self._read(response, what)
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                        await response.aclose()
        except httpx.RequestError as error:
            raise RequestFailed(what, f"{type(error).__name__}: {root(error)}") from error
        except trio.TooSlowError as error:
            raise RequestFailed(what, f"no complete answer within {self._limits.attempt:g} s") from error
        self._judge(what, response.status_code, body)
        return body

    async def _read(self, response: httpx.Response, what: str) -> bytes:
        body = bytearray()
        # Cancelled from within, since leaving the loop would leave httpx's nested generators unfinished.
        with trio.CancelScope() as reading:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._limits.max_body_bytes:
                    reading.cancel()
        if reading.cancel_called:
            raise RequestFailed(what, f"a body of more than {self._limits.max_body_bytes} bytes", response.status_code)
        return bytes(body)

    def _judge(self, what: str, status: int, body: bytes) -> None:
        if status in _OK:
            return
        if status == _FORBIDDEN and self._limits.hold_on_403 is not None:
            self._limiter.hold(self._limits.hold_on_403)
            why = f"HTTP 403, all requests held for {self._limits.hold_on_403:g} s: {excerpt(body)}"
            raise RequestFailed(what, why, status, body)
        if status in _PASSING:
            raise RequestFailed(what, f"HTTP {status}: {excerpt(body)}".rstrip(": "), status, body)
        raise RequestRefused(what, status, body)
