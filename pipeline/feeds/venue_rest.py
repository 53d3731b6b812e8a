"""A venue's REST hosts: public and signed requests, and the venue's clock as far as it was measured."""

from __future__ import annotations

from contextlib import suppress
from math import inf

import attrs
import structlog
import trio

from pipeline.exchanges.accounts import Accounts, Credentials, Login, Post, Requests, Steps, T
from pipeline.feeds.settings import AccountSettings
from pipeline.model.errors import BadMessage, Refused, Retryable, SessionError
from pipeline.model.events import Micros
from pipeline.session.clock import Clock
from pipeline.session.errors import RequestRefused
from pipeline.session.rest import RestClient

log = structlog.get_logger(__name__)

GOOD_FOR = 60.0
"""Seconds for which a measured clock offset is not measured again."""


def credentials(settings: AccountSettings) -> Credentials:
    """An account's keys, read anew at each use. Raises `Refused` naming what is missing."""
    passphrase = settings.passphrase.reveal("passphrase") if settings.passphrase is not None else ""
    return Credentials(settings.api_key.reveal("api_key"), settings.api_secret.reveal("api_secret"), passphrase)


@attrs.define(eq=False)
class VenueRest:
    """Requests to one venue, signed ones included; a `Listing`."""

    public: RestClient
    private: RestClient
    """The same as `public` where the venue has one host for both."""
    accounts: Accounts | None
    clock: Clock
    offset_us: int = attrs.field(default=0, init=False)
    """The venue's clock minus ours, in microseconds; 0 while it was never measured."""
    clock_failures: int = attrs.field(default=0, init=False)
    """How often the venue could not be asked for its time."""
    _measured_at: float = attrs.field(default=-inf, init=False)

    async def get_json_bytes(self, path: str) -> bytes:
        """The body of an unsigned GET. Raises `SessionError`."""
        return await self.public.get_json_bytes(path)

    async def measure_clock(self) -> None:
        """Ask the venue for its time, unless that was done a moment ago. What was known stays if it does not tell."""
        started = trio.current_time()
        if self.accounts is None or started - self._measured_at < GOOD_FOR:
            return
        try:
            theirs = self.accounts.read_time(await self.private.get_json_bytes(self.accounts.time_path))
        except (SessionError, BadMessage) as error:
            self.clock_failures += 1
            log.warning("clock_not_measured", text=str(error), offset_ms=self.offset_us / 1000)
            return
        # Late by the answer's way back, and never ahead: venues take what is seconds old, but not what is to come. Of
        # the way there nothing is known, for the request may have waited for the rate, or been repeated.
        self.offset_us = theirs - self.clock()
        self._measured_at = trio.current_time()

    @property
    def fresh_offset_us(self) -> int | None:
        """The offset, if it was measured a moment ago: either clock may have been set since."""
        return self.offset_us if trio.current_time() - self._measured_at < GOOD_FOR else None

    def forget_clock(self) -> None:
        """Have it measured again: a login that may have failed for its time."""
        self._measured_at = -inf

    def login(self, keys: Credentials) -> Login:
        """A login by the venue's clock."""
        return Login(keys, (self.clock() + self.offset_us) / 1e6 - trio.current_time())

    async def walk(self, steps: Steps[T] | Requests[T], keys: Credentials | None = None) -> T:
        """Make the requests of some steps, signed if there are keys.

        Raises what the steps raise, `SessionError` of the requests, and `Refused` for keys that cannot sign.
        """
        try:
            request: str | Post = next(steps)
            while True:
                request = steps.send(await self._ask(steps, request, keys))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    def venue_time(self) -> Micros:
        """The venue's time by our clock."""
        return Micros(self.clock() + self.offset_us)

    async def _ask(self, steps: Steps[T] | Requests[T], request: str | Post, keys: Credentials | None) -> bytes:
        try:
            return await (self._post(request, keys) if isinstance(request, Post) else self._get(request, keys))
        except RequestRefused as error:
            # What the venue says tells more than the HTTP status: a clock that is off can be mended, a bad key cannot.
            with suppress(BadMessage, StopIteration):
                steps.send(error.body)
            raise

    async def _post(self, request: Post, keys: Credentials | None) -> bytes:
        side = self.accounts
        if keys is None or side is None:
            raise Refused(f"POST {request.path}: there is no account to sign it for")
        return await self.private.post_json_bytes(
            request.path,
            request.body,
            sign=lambda: side.sign(keys, request.path, self.venue_time(), request.body),
        )

    async def _get(self, path: str, keys: Credentials | None) -> bytes:
        side = self.accounts
        if keys is None or side is None:
            return await self.public.get_json_bytes(path)
        # Signed per attempt: a signature ages while an attempt waits.
        return await self.private.get_json_bytes(path, sign=lambda: side.sign(keys, path, self.venue_time()))


async def verified_credentials(
    rest: VenueRest, settings: AccountSettings, connection: str, *, login_failed: bool
) -> Credentials:
    """What to log in with; after a failed login the venue is asked what is wrong with it. Raises `Refused`."""
    keys = credentials(settings)
    if login_failed:
        rest.forget_clock()
    await rest.measure_clock()
    if login_failed and rest.accounts is not None:
        try:
            await rest.walk(rest.accounts.verify(), keys)
        except (Retryable, BadMessage) as error:
            log.warning("key_not_verified", connection=connection, text=str(error))
    return keys
