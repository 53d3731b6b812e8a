"""Errands beside a stream: done in turn, tried again, given up, and signed by a clock that was looked at anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.exchanges import VENUES
from pipeline.exchanges.accounts import Credentials, Steps
from pipeline.feeds.errands import LONGEST_PAUSE, Errand, Errands
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.errors import BadMessage
from pipeline.model.stats import ConnectionStats
from pipeline.session.errors import RequestFailed, RequestRefused
from pipeline.session.rest import RestClient

TIME = b'{"code":"0","data":[{"ts":"1607418537715"}]}'


@attrs.define
class Host:
    """Stands for a `RestClient`: answers by path, a list of answers being used up."""

    answers: dict[str, list[bytes | Exception]]
    asked: list[str] = attrs.field(factory=list)

    async def get_json_bytes(self, path: str, *, sign: Callable[[], Mapping[str, str]] | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(path)
        if path.endswith("/time"):
            return TIME
        answers = self.answers[path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    def __init__(self, **answers: list[bytes | Exception]) -> None:
        self.host = Host({f"/{name}": found for name, found in answers.items()})
        client = cast(RestClient, self.host)
        self.rest = VenueRest(client, client, VENUES["okx"].accounts, lambda: 1_607_418_537_715_000)
        self.stats = ConnectionStats("okx.main.private.0", "okx", "main", "private", "ws://okx")
        self.errands = Errands(self.rest, Credentials("key", "secret"), lambda: 1.0, self.stats)
        self.done: list[str] = []

    def errand(self, name: str, *, signed: bool = True) -> Errand:
        def steps() -> Steps[str]:
            body = yield f"/{name}"
            if body == b"odd":
                raise BadMessage("odd")
            return f"{name}={body.decode()}"

        return Errand(name, steps, self.done.append, lambda why: self.done.append(f"{name}: {why}"), signed)


async def test_errands_are_done_in_turn_and_may_bring_others(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(a=[b"1"], b=[b"2"], c=[b"3"])
    first = bench.errand("a")
    bench.errands.add(attrs.evolve(first, done=lambda found: bench.errands.add(bench.errand("c"))), bench.errand("b"))
    nursery.start_soon(bench.errands.run)
    await wait_all_tasks_blocked()
    assert bench.done == ["b=2", "c=3"]
    bench.errands.add(bench.errand("a"))
    await wait_all_tasks_blocked()
    assert bench.done[-1] == "a=1"
    assert bench.stats.query_failures == 0


async def test_what_fails_is_tried_again_and_holds_up_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(a=[RequestFailed("GET a", "nobody answers"), b"odd", b"1"], b=[b"2"])
    bench.errands.add(bench.errand("a"), bench.errand("b"))
    nursery.start_soon(bench.errands.run)
    await trio.sleep(1.5)
    assert bench.done == ["b=2"]
    await trio.sleep(LONGEST_PAUSE)
    assert bench.done == ["b=2", "a=1"]
    assert bench.stats.query_failures == 2
    # A signature may have been refused for its time.
    assert bench.host.asked.count("/api/v5/public/time") == 2


async def test_what_is_refused_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(a=[RequestRefused("GET a", 403, b"no")], b=[b"2"])
    bench.errands.add(bench.errand("a"), bench.errand("b", signed=False))
    nursery.start_soon(bench.errands.run)
    await trio.sleep(LONGEST_PAUSE)
    assert bench.done == ["a: GET a: HTTP 403: no", "b=2"]
    assert bench.host.asked == ["/a", "/b"]
    assert bench.stats.query_failures == 1
