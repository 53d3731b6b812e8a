"""Steps over REST: who is asked, and what becomes of answers that are errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from pipeline.exchanges import VENUES
from pipeline.exchanges.accounts import Accounts, Credentials, Post, Requests, Steps
from pipeline.exchanges.okx.signing import signature
from pipeline.feeds.venue_rest import GOOD_FOR, VenueRest
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.session.errors import RequestFailed, RequestRefused
from pipeline.session.rest import RestClient

KEYS = Credentials("key", "secret", "phrase")


@attrs.define
class Host:
    """Stands for a `RestClient`."""

    answers: list[bytes | Exception]
    asked: list[tuple[str, Mapping[str, str]]] = attrs.field(factory=list)

    async def get_json_bytes(self, path: str, *, sign: Callable[[], Mapping[str, str]] | None = None) -> bytes:
        self.asked.append((path, sign() if sign is not None else {}))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def post_json_bytes(self, path: str, body: bytes, *, sign: Callable[[], Mapping[str, str]]) -> bytes:
        return await self.get_json_bytes(f"POST {path} {body.decode()}", sign=sign)


def rest(public: Host, private: Host) -> VenueRest:
    accounts: Accounts | None = VENUES["okx"].accounts
    return VenueRest(cast(RestClient, public), cast(RestClient, private), accounts, lambda: 1_607_418_537_715_000)


def two() -> Steps[str]:
    """Asks twice."""
    first = yield "/a"
    second = yield "/b?c=1"
    return f"{first.decode()} {second.decode()}"


async def test_steps_are_walked_at_the_host_that_they_are_for() -> None:
    public, private = Host([b"1", b"2"]), Host([b"3", b"4"])
    venue = rest(public, private)
    assert await venue.walk(two()) == "1 2"
    assert await venue.walk(two(), KEYS) == "3 4"
    assert public.asked == [("/a", {}), ("/b?c=1", {})]
    assert [path for path, _ in private.asked] == ["/a", "/b?c=1"]
    assert {headers["OK-ACCESS-TIMESTAMP"] for _, headers in private.asked} == {"2020-12-08T09:08:57.715Z"}


def posting() -> Requests[str]:
    answer = yield Post("/c", b'{"d":1}')
    return answer.decode()


async def test_what_is_posted_goes_signed_to_the_private_host() -> None:
    public, private = Host([]), Host([b"5"])
    assert await rest(public, private).walk(posting(), KEYS) == "5"
    [(asked, headers)] = private.asked
    assert asked == 'POST /c {"d":1}'
    assert headers["OK-ACCESS-SIGN"] == signature(KEYS, '2020-12-08T09:08:57.715ZPOST/c{"d":1}')


async def test_nothing_is_posted_without_an_account() -> None:
    with pytest.raises(Refused, match="no account to sign it for"):
        await rest(Host([]), Host([])).walk(posting())


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b'{"code":"50102","msg":"Timestamp request expired","data":[]}', Retryable, "error 50102"),
        (b'{"code":"50113","msg":"Invalid Sign","data":[]}', Refused, "error 50113: Invalid Sign"),
        (b"<html>blocked</html>", Refused, "HTTP 401: <html>blocked"),
        (b"", Refused, "HTTP 401"),
        # No error answer says that all is well.
        (b'{"code":"0","msg":"","data":[{}]}', Refused, "HTTP 401"),
    ],
    ids=["clock", "key", "no json", "empty", "contradiction"],
)
async def test_the_body_of_an_error_answer_tells_more_than_its_status(
    body: bytes, kind: type[Exception], why: str
) -> None:
    accounts = VENUES["okx"].accounts
    assert accounts is not None
    venue = rest(Host([]), Host([RequestRefused("GET /api/v5/account/config", 401, body)]))
    with pytest.raises(kind, match=why) as raised:
        await venue.walk(accounts.verify(), KEYS)
    assert isinstance(raised.value, Retryable) == (kind is Retryable)


async def test_an_error_answer_does_not_lead_to_the_next_step() -> None:
    private = Host([RequestRefused("GET /a", 404, b"gone"), b"2"])
    with pytest.raises(RequestRefused, match="HTTP 404: gone"):
        await rest(Host([]), private).walk(two(), KEYS)
    assert [path for path, _ in private.asked] == ["/a"]


async def test_what_the_steps_cannot_read_is_a_bad_message() -> None:
    accounts = VENUES["okx"].accounts
    assert accounts is not None
    with pytest.raises(BadMessage):
        await rest(Host([]), Host([b"<html>"])).walk(accounts.verify(), KEYS)


async def test_the_clock_is_measured_by_the_answer(autojump_clock: MockClock) -> None:
    public, private = Host([]), Host([b'{"code":"0","data":[{"ts":"1607418600000"}]}'])
    venue = rest(public, private)
    await venue.measure_clock()
    assert venue.offset_us == 1_607_418_600_000_000 - 1_607_418_537_715_000
    assert venue.venue_time() == 1_607_418_600_000_000
    assert [path for path, _ in private.asked] == ["/api/v5/public/time"]
    login = venue.login(KEYS)
    assert abs(login.micros(trio.current_time()) - 1_607_418_600_000_000) < 10


async def test_a_good_measure_is_kept_for_a_while(autojump_clock: MockClock) -> None:
    times = [f'{{"code":"0","data":[{{"ts":"{1607418537715 + n}"}}]}}'.encode() for n in range(3)]
    venue = rest(Host([]), Host([times[0], times[1], times[2]]))
    await venue.measure_clock()
    await trio.sleep(GOOD_FOR / 2)
    await venue.measure_clock()
    assert venue.offset_us == 0
    venue.forget_clock()
    await venue.measure_clock()
    assert venue.offset_us == 1_000
    await trio.sleep(GOOD_FOR)
    await venue.measure_clock()
    assert venue.offset_us == 2_000


async def test_a_venue_that_does_not_tell_its_time_leaves_what_was_known(autojump_clock: MockClock) -> None:
    good, down = b'{"code":"0","data":[{"ts":"1607418600000"}]}', RequestFailed("GET time", "nobody answers")
    venue = rest(Host([]), Host([good, down, b"nonsense", good]))
    for _ in range(3):
        venue.forget_clock()
        await venue.measure_clock()
        assert venue.offset_us == 62_285_000
    assert venue.clock_failures == 2
