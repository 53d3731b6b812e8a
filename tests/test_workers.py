"""The supervisor of workers, in virtual time: processes are made up here, and real in `tests/e2e/test_workers.py`."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from typing import Any

import attrs
import httpx
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from pipeline.config import Config, loads
from pipeline.model.errors import ConfigError, Refused
from pipeline.observe.settings import HttpSettings
from pipeline.workers import Supervisor


@attrs.define(eq=False)
class MadeUp:
    """A worker's process."""

    number: int
    pid: int
    begun: float
    drains_for: float = 1.0
    """Seconds from the signal to its end."""
    listens_after: float = 1.0
    not_ready: list[str] = attrs.field(factory=list)
    hangs: bool = False
    answers_after: float = 0.0
    signals: list[Signals] = attrs.field(factory=list)
    orders: list[dict[str, Any]] = attrs.field(factory=list)
    code: int | None = None
    _over: trio.Event = attrs.field(factory=trio.Event)
    _end_at: trio.CancelScope | None = None

    def end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            self._over.set()

    async def greet(self, orders: Sequence[dict[str, Any]]) -> str | None:
        self.orders.extend(orders)
        await trio.sleep(self.listens_after)
        return f"http://{self.pid}"

    async def tell(self, order: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.orders.append(order)

    async def wait(self) -> int:
        while self.code is None:
            with trio.CancelScope() as self._end_at:
                if self.signals:
                    self._end_at.deadline = trio.current_time() + self.drains_for
                await self._over.wait()
            if self.signals and not self._over.is_set():
                self.end(0)
        return self.code

    def send_signal(self, number: Signals) -> None:
        if number == SIGKILL:
            self.end(-SIGKILL)
        elif self.signals:
            self.end(128 + number)
        elif self._end_at is not None:
            self._end_at.deadline = trio.current_time() + self.drains_for
        self.signals.append(number)


@attrs.define(eq=False)
class World:
    """Starts made-up processes and asks them."""

    prepare: Callable[[MadeUp], None] = lambda _: None
    children: list[MadeUp] = attrs.field(factory=list)
    refuses: int = 0
    """How many starts fail from now on."""
    starts_for: float = 0.0

    async def launch(self, number: int) -> MadeUp:
        await trio.sleep(self.starts_for)
        if self.refuses:
            self.refuses -= 1
            raise OSError(11, "Resource temporarily unavailable")
        child = MadeUp(number, 100 + len(self.children), trio.current_time())
        self.prepare(child)
        self.children.append(child)
        return child

    async def ask(self, address: str, path: str) -> bytes:
        child = self.children[int(address.removeprefix("http://")) - 100]
        await trio.lowlevel.checkpoint()
        if child.hangs:
            await trio.sleep_forever()
        await trio.sleep(child.answers_after)
        if child.code is not None:
            raise httpx.ConnectError("refused")
        if path == "/metrics":
            return b"# TYPE pipeline_x gauge\npipeline_x 1.0\n"
        if path == "/status":
            return json.dumps({"venues": {}, "sink": {"published": 5}}).encode()
        return json.dumps({"ok": not child.not_ready, "reasons": child.not_ready}).encode()

    def of(self, number: int) -> list[MadeUp]:
        return [child for child in self.children if child.number == number]


CONFIG = Config(workers=3, http=HttpSettings(enabled=False), shutdown_within=30.0, worker_silence=10.0)


@attrs.define(eq=False)
class Run:
    world: World
    supervisor: Supervisor
    code: int | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    ended_at: float = inf

    async def end(self) -> int:
        with trio.fail_after(1_000):
            await self.ended.wait()
        assert self.code is not None
        return self.code


@asynccontextmanager
async def running(world: World, config: Config = CONFIG) -> AsyncIterator[Run]:
    run = Run(world, Supervisor(config, world.launch, world.ask))

    async def keep() -> None:
        run.code = await run.supervisor.run()
        run.ended_at = trio.current_time()
        run.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        yield run
        nursery.cancel_scope.cancel()


async def test_all_are_started_and_speak_with_one_voice(autojump_clock: MockClock) -> None:
    async with running(World()) as run:
        await trio.sleep(0.5)
        assert run.supervisor.not_ready() == [f"worker {number} is starting" for number in range(3)]
        assert run.supervisor.not_started() == [f"worker {number}: is starting" for number in range(3)]
        await trio.sleep(1)
        assert run.supervisor.not_ready() == run.supervisor.not_started() == []
        run.world.of(1)[0].not_ready = ["okx is starting", "toy.0 is retrying"]
        await trio.sleep(2)
        assert run.supervisor.not_ready() == ["worker 1: okx is starting", "worker 1: toy.0 is retrying"]
        status = run.supervisor.status()
        assert status["sink"] == {"published": 15}
        assert status["spool"]["max_bytes"] == 3 * CONFIG.kafka.spool.max_bytes
        assert not status["ready"]
        assert [(each["pid"], each["share"], each["state"]) for each in status["workers"]] == [
            (run.world.of(number)[0].pid, {"index": number, "count": 3}, "running") for number in range(3)
        ]
        lines = run.supervisor.metrics().decode().splitlines()
        assert [line for line in lines if line.startswith("pipeline_x")] == [
            f'pipeline_x{{worker="{number}"}} 1.0' for number in range(3)
        ]
        assert 'pipeline_worker_up{worker="2"} 1.0' in lines
        assert 'pipeline_ready{worker="supervisor"} 0.0' in lines
        assert any(line.startswith('process_cpu_seconds_total{worker="supervisor"}') for line in lines)


async def test_a_dead_worker_is_started_again_ever_later_and_the_others_live_on(autojump_clock: MockClock) -> None:
    async with running(World()) as run:
        await trio.sleep(5)
        for _ in range(5):
            run.world.of(1)[-1].end(-SIGKILL)
            ended, known = trio.current_time(), len(run.world.of(1))
            await trio.sleep(0.1)
            assert run.supervisor.not_ready() == ["worker 1 ended with signal SIGKILL and will be started again"]
            assert 'pipeline_worker_up{worker="1"} 0.0' in run.supervisor.metrics().decode()
            assert run.supervisor.status()["workers"][1]["pid"] is None
            await trio.sleep(10)
            assert run.world.of(1)[-1].begun - ended == pytest.approx(0.5 * 2 ** (known - 1))
            assert run.supervisor.not_ready() == []
        assert 'pipeline_worker_restarts_total{worker="1"} 5.0' in run.supervisor.metrics().decode()
        assert len(run.world.of(0)) == len(run.world.of(2)) == 1
        assert run.world.of(0)[0].signals == []
        await trio.sleep(600)  # that is forgotten by now
        run.world.of(1)[-1].end(1)
        await trio.sleep(1)
        assert len(run.world.of(1)) == 7


async def test_a_worker_that_keeps_dying_ends_everything(autojump_clock: MockClock) -> None:
    def prepare(child: MadeUp) -> None:
        if child.number == 2:
            child.listens_after = inf
            child.end(1)

    async with running(World(prepare)) as run:
        assert await run.end() == 1
        assert len(run.world.of(2)) == 6
        assert run.world.of(0)[0].signals == [SIGTERM]
        assert run.ended_at == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 1)


async def test_processes_that_cannot_be_started_count_as_deaths(autojump_clock: MockClock) -> None:
    async with running(World(refuses=3)) as run:
        await trio.sleep(0.1)
        assert "worker 0 ended with no process: Resource temporarily unavailable" in run.supervisor.not_ready()[0]
        await trio.sleep(5)
        assert run.supervisor.not_ready() == []
        run.world.refuses = 100
        run.world.of(0)[0].end(0)
        assert await run.end() == 1


async def test_a_wrong_configuration_ends_everything_at_once(autojump_clock: MockClock) -> None:
    def prepare(child: MadeUp) -> None:
        if child.number == 0:
            child.end(2)

    with capture_logs() as lines:
        async with running(World(prepare)) as run:
            assert await run.end() == 2
            assert run.ended_at == 1.0  # what the others take to drain
            assert [len(run.world.of(number)) for number in range(3)] == [1, 1, 1]
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["worker"], line["ended"]) == ("worker_cannot_run", 0, "exit code 2")
    [line] = [line for line in lines if line["event"] == "stopping"]
    assert line["reason"] == "worker 0 ended with exit code 2"
    assert "signal" not in line


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP])
async def test_a_signal_is_passed_on_and_all_drain(autojump_clock: MockClock, number: Signals) -> None:
    async with running(World()) as run:
        await trio.sleep(5)
        run.supervisor.interrupt(number)
        assert run.supervisor.not_ready() == ["stopping"]
        assert await run.end() == 0
        assert [child.signals for child in run.world.children] == [[number]] * 3
        assert run.ended_at == 6.0


async def test_a_worker_that_does_not_drain_well_is_told_by_the_exit_code(autojump_clock: MockClock) -> None:
    async with running(World()) as run:
        await trio.sleep(5)
        run.supervisor.interrupt(SIGTERM)
        run.world.of(1)[0].end(1)
        assert await run.end() == 1
        assert len(run.world.children) == 3


async def test_a_worker_that_stays_is_killed(autojump_clock: MockClock) -> None:
    def prepare(child: MadeUp) -> None:
        child.drains_for = inf if child.number == 1 else 1.0

    async with running(World(prepare)) as run:
        await trio.sleep(5)
        run.supervisor.interrupt(SIGTERM)
        assert await run.end() == 1
        assert run.ended_at == 5 + 30 + 2
        assert run.world.of(1)[0].signals == [SIGTERM, SIGKILL]
        assert run.world.of(0)[0].signals == [SIGTERM]


async def test_a_second_signal_ends_the_workers_at_once(autojump_clock: MockClock) -> None:
    def prepare(child: MadeUp) -> None:
        child.drains_for = 20.0

    async with running(World(prepare)) as run:
        await trio.sleep(5)
        run.supervisor.interrupt(SIGTERM)
        await trio.sleep(1)
        run.supervisor.interrupt(SIGINT)
        assert await run.end() == 128 + SIGINT
        assert run.ended_at == 6.0
        assert [child.signals for child in run.world.children] == [[SIGTERM, SIGINT]] * 3


async def test_a_stop_while_a_worker_waits_for_its_restart(autojump_clock: MockClock) -> None:
    async with running(World()) as run:
        await trio.sleep(5)
        run.world.of(0)[0].end(1)
        await trio.sleep(0.1)
        run.supervisor.interrupt(SIGTERM)
        assert await run.end() == 0
        assert len(run.world.children) == 3
        assert run.supervisor.workers[0].restarts == 0


async def test_workers_that_are_just_being_started_are_stopped_too(autojump_clock: MockClock) -> None:
    """Their interpreters do not know of any signal yet, and die of it."""
    world = World(lambda child: setattr(child, "listens_after", inf))
    async with running(world) as run:
        await trio.testing.wait_all_tasks_blocked()
        run.supervisor.interrupt(SIGTERM)
        world.of(0)[0].end(-SIGTERM)
        assert await run.end() == 0
    late = World()
    async with running(late) as run:
        run.supervisor.interrupt(SIGTERM)
        assert await run.end() == 0
        assert late.children == []
    slow = World(starts_for=5.0)
    async with running(slow) as run:
        await trio.sleep(1)
        run.supervisor.interrupt(SIGHUP)
        assert await run.end() == 0
        assert [child.signals for child in slow.children] == [[SIGHUP]] * 3


async def test_a_hung_worker_is_not_ready_until_it_answers(autojump_clock: MockClock) -> None:
    async with running(World()) as run:
        await trio.sleep(5)
        hung = run.world.of(2)[0]
        hung.hangs = True
        await trio.sleep(7)
        assert run.supervisor.not_ready() == []
        await trio.sleep(6)
        [reason] = run.supervisor.not_ready()
        assert reason.startswith("worker 2 has not answered for 1")
        assert 'pipeline_worker_up{worker="2"} 0.0' in run.supervisor.metrics().decode()
        hung.hangs = False
        await trio.sleep(15)
        assert run.supervisor.not_ready() == []
        assert len(run.world.children) == 3


async def test_a_worker_with_too_much_to_do_is_not_taken_for_hung(autojump_clock: MockClock) -> None:
    async with running(World(lambda child: setattr(child, "answers_after", 4.0))) as run:
        await trio.sleep(60)
        for _ in range(20):
            await trio.sleep(1)
            assert run.supervisor.not_ready() == []
        assert 'pipeline_worker_up{worker="2"} 1.0' in run.supervisor.metrics().decode()


async def test_a_worker_that_never_speaks_is_not_ready(autojump_clock: MockClock) -> None:
    async with running(World(lambda child: setattr(child, "listens_after", inf))) as run:
        await trio.sleep(12)
        assert run.supervisor.not_ready() == [f"worker {number} has not answered for 12 s" for number in range(3)]


async def test_a_bug_leaves_no_process_behind(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    world = World()
    supervisor = Supervisor(CONFIG, world.launch, world.ask)
    monkeypatch.setattr(Supervisor, "_delay", broken)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.sleep(5)
            world.of(0)[0].end(1)
    assert [world.of(number)[0].code for number in range(3)] == [1, 0, 0]
    assert trio.current_time() == 6.0


async def test_nothing_is_started_where_http_cannot_be_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        world = World()
        http = HttpSettings(port=taken.getsockname()[1])
        supervisor = Supervisor(attrs.evolve(CONFIG, http=http), world.launch, world.ask)
        with pytest.RaisesGroup(Refused, flatten_subgroups=True):
            await supervisor.run()
    assert world.children == []


WATCHED = '{"venues": {"bybit": {"channels": [{"market": "linear", "channel": "trade"}]}}, "workers": 3%s}'


async def test_what_is_accepted_is_told_to_all_and_to_those_that_are_started_later(autojump_clock: MockClock) -> None:
    world = World()
    async with running(world, attrs.evolve(loads(WATCHED % ""), http=HttpSettings(enabled=False))) as run:
        await trio.sleep(5)
        reloader = run.supervisor.reloader
        louder = {"log_level": {"level": "debug"}}
        reloader.change_log_level({"level": "debug"})
        await trio.sleep(1)
        assert [child.orders for child in world.children] == [[louder]] * 3
        quiet = {"config": WATCHED % ', "log": {"level": "error"}'}
        reloader.take(quiet["config"], "a test")
        ticker = {"venue": "bybit", "add": [{"market": "spot", "channel": "ticker"}]}
        reloader.change_subscriptions(ticker)
        await trio.sleep(1)
        assert [child.orders for child in world.children] == [[louder, quiet, {"subscriptions": ticker}]] * 3
        assert run.supervisor.config.log.level == "error"
        world.of(1)[0].end(1)
        await trio.sleep(5)
        assert world.of(1)[1].orders == [quiet, {"subscriptions": ticker}], "what a reading has undone is not told"
        world.of(1)[0].orders.clear()
        reloader.take(WATCHED % "", "a test")
        await trio.sleep(1)
        assert len(world.of(1)[1].orders) == 3
        assert world.of(1)[0].orders == []


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        pytest.param([(200, 1), (400, 0), (200, 1)], {"resynced": 2, "under_way": 0}, id="some have it"),
        pytest.param([(200, 1), (400, 0), (0, 0)], {"resynced": 1, "under_way": 0, "unanswering": [2]}, id="one hangs"),
        pytest.param([(400, 0)] * 3, "instrument: no such book", id="none has it"),
        pytest.param([(400, 0), (503, 0), (0, 0)], "worker 1, 2 did not answer", id="one that is silent may have it"),
    ],
)
async def test_the_answers_of_all_workers_to_a_resync_are_one(
    autojump_clock: MockClock, answers: list[tuple[int, int]], outcome: Any
) -> None:
    async def post(address: str, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        code, count = answers[int(address.removeprefix("http://")) - 100]
        if not code:
            await trio.sleep_forever()
        return code, {"resynced": count, "under_way": 0} if code == 200 else {"problems": ["instrument: no such book"]}

    world, config = World(), attrs.evolve(loads(WATCHED % ""), http=HttpSettings(enabled=False))
    async with running(world, config) as run:
        run.supervisor.post = post
        await trio.sleep(5)
        by_number = {child.number: child.pid - 100 for child in world.children}
        answers[:] = [answers[number] for number in sorted(by_number, key=by_number.__getitem__)]
        asked = run.supervisor.renew_books({"venue": "bybit", "instrument": "BTCUSDT"})
        if isinstance(outcome, dict):
            assert await asked == outcome
        else:
            with pytest.raises((ConfigError, Refused), match=outcome):
                await asked
