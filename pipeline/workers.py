"""`workers: N`: a small process that starts the workers, starts dead ones again, and speaks for all of them.

It talks to no venue and not to Kafka, so that there is little that could end it. Should it be killed, the workers
notice and end in order.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from signal import SIGHUP, SIGKILL, SIGTERM, Signals
from typing import Any, Protocol

import attrs
import httpx
import structlog
import trio
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.config import Config
from pipeline.exchanges import VENUES
from pipeline.feeds.shares import Share
from pipeline.model.errors import ConfigError, PipelineError, Refused
from pipeline.observe.aggregate import LABEL, merge_metrics, merge_statuses
from pipeline.observe.control import RESYNC
from pipeline.observe.families import Family, collected, counter, gauge
from pipeline.observe.http import Pages, start_http
from pipeline.observe.logs import reconfigure
from pipeline.observe.loop import LoopWatch
from pipeline.observe.metrics import Numbers, ProcessCollector, render
from pipeline.observe.process import with_process
from pipeline.observe.settings import HttpSettings
from pipeline.observe.terminal import shared_stderr, show
from pipeline.reload import Change, read_resync
from pipeline.reloader import Order, ReloadCollector, Reloader, Source
from pipeline.session.clock import Clock, system_clock
from pipeline.session.failures import leaves
from pipeline.signals import has_terminal, obeyed_signals
from pipeline.worker import start_worker

log = structlog.get_logger(__name__)

OWN_LABEL = "supervisor"
"""What stands for a worker's number in this process's own metrics."""
_WRONG_CONFIGURATION = 2
_LOOK_S = 2.0
"""Between looks at each worker."""
_LOOK_SOON_S = 0.25
"""The same while it is not ready."""
_KILL_MARGIN_S = 2.0
"""Beyond `shutdown_within`, at which a worker ends by itself whatever is unfinished."""


class Child(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int: ...
    async def greet(self, orders: Sequence[Order]) -> str | None: ...
    async def tell(self, order: Order) -> None: ...
    async def wait(self) -> int: ...
    def send_signal(self, number: Signals) -> None: ...


Launch = Callable[[int], Awaitable[Child]]
"""Starts the worker of this number; raises `OSError`."""
Ask = Callable[[str, str], Awaitable[bytes]]
"""The body at an address and a path, whatever the HTTP status; raises `httpx.HTTPError`."""

Post = Callable[[str, str, Mapping[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]
"""The HTTP status and the answer to a body sent to an address and a path; raises `httpx.HTTPError` or `ValueError`."""


async def _nobody(address: str, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    raise httpx.ConnectError("nothing is passed on")


@attrs.frozen
class Patience:
    """How often a worker may die."""

    first_s: float = 0.5
    """Until it is started again; doubles with each death within the window."""
    longest_s: float = 30.0
    most: int = 5
    """Deaths of one worker within the window; with another one, everything ends."""
    window_s: float = 600.0


@attrs.frozen
class Answer:
    """What a worker said of itself when it was last asked."""

    not_ready: list[str]
    not_started: list[str]
    status: dict[str, Any]
    metrics: bytes


@attrs.define(eq=False)
class Worker:
    """One worker over all its processes."""

    number: int
    share: Share
    state: str = "starting"
    """starting, running, waiting (to be started again) or stopped."""
    since: int = 0
    """When the state was entered, in microseconds."""
    address: str = ""
    """Where it serves HTTP; empty until it has told."""
    restarts: int = 0
    last_end: str = ""
    """How its last process ended."""
    child: Child | None = None
    answer: Answer | None = None
    answered_at: float = 0.0
    """When, or since when no answer was due; seconds of the run's clock."""
    deaths: deque[float] = attrs.field(factory=deque)

    def not_ready(self, silence: float) -> list[str]:
        """Why it is not, with its name; silent for longer, it is taken for hung."""
        name, quiet = f"worker {self.number}", trio.current_time() - self.answered_at
        if self.state == "waiting":
            return [f"{name} ended with {self.last_end} and will be started again"]
        if self.child is not None and quiet > silence:
            return [f"{name} has not answered for {quiet:.0f} s"]
        if self.answer is None:
            return [f"{name} is starting"]
        return [f"{name}: {reason}" for reason in self.answer.not_ready]


@attrs.define(eq=False)
class Supervisor:
    """Keeps the workers of one instance alive until it is told to stop."""

    config: Config
    """What is in force."""
    launch: Launch
    ask: Ask
    clock: Clock = system_clock
    patience: Patience = attrs.field(factory=Patience)
    post: Post = _nobody
    source: Source | None = None
    """What the configuration is read from anew; None: it stays as it is."""
    reloader: Reloader = attrs.field(init=False)
    workers: list[Worker] = attrs.field(init=False)
    code: int | None = attrs.field(default=None, init=False)
    """The exit code that something has settled already."""
    address: str = attrs.field(default="", init=False)
    _started: int = attrs.field(default=0, init=False)
    _stopping: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stopped_by: Signals = attrs.field(default=SIGTERM, init=False)
    _interrupted: bool = attrs.field(default=False, init=False)
    _loop: LoopWatch = attrs.field(factory=LoopWatch, init=False)
    _orders: list[tuple[int, Order]] = attrs.field(factory=list, init=False)
    """What the workers have to follow, numbered: all that was accepted, but for what a reading has undone."""
    _issued: int = attrs.field(default=0, init=False)
    """The last number."""
    _new_orders: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _own_metrics: Callable[[], bytes] = attrs.field(init=False)
    _own_process: Callable[[], bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.workers = [Worker(number, self.config.share(number)) for number in range(self.config.workers)]
        self.reloader = Reloader(self.config, self._follow, self.clock, self.source, self._give_order)
        self._own_process = render([ProcessCollector(self._loop), Numbers(self._own_numbers)])
        self._own_metrics = render([WorkerCollector(self.workers, self._answers), ReloadCollector(self.reloader)])

    async def run(self) -> int:
        """Run until all workers have ended for good; returns the exit code. Raises `Refused` if HTTP is."""
        self._started = self.clock()
        async with trio.open_nursery() as whole:
            controls = {**self.reloader.controls(), RESYNC: self.renew_books}
            pages = Pages(self.metrics, self.status, self.not_ready, self.not_started, self._loop, controls=controls)
            self.address = await start_http(whole, self.config.http, pages)
            log.info("supervisor_started", version=__version__, workers=len(self.workers))
            whole.start_soon(self._kill_overdue)
            whole.start_soon(self.reloader.watch)
            async with trio.open_nursery() as nursery:
                for worker in self.workers:
                    nursery.start_soon(self._keep, worker)
            whole.cancel_scope.cancel()
        log.info("supervisor_stopped")
        return self.code or 0

    def stop(self, number: Signals = SIGTERM, *, reason: str = "") -> None:
        """Let all workers drain and end, and start none again. Without a reason, the signal is told as the cause."""
        if self._stopping.is_set():
            return
        log.info("stopping", **({"reason": reason} if reason else {"signal": number.name}))
        self._stopped_by = number
        self._stopping.set()
        self._pass_on(number)

    def interrupt(self, number: Signals) -> None:
        """Obey a signal: the first one stops in order, further ones end the workers at once."""
        if self._interrupted:
            log.warning("exiting_at_once", signal=number.name)
            self.code = 128 + number
            self._pass_on(number)
        self._interrupted = True
        self.stop(number)

    # What is shown.

    def not_ready(self) -> list[str]:
        """Why the workers are not all ready; empty if they are."""
        if self._stopping.is_set():
            return ["stopping"]
        return [reason for worker in self.workers for reason in worker.not_ready(self.config.worker_silence)]

    def not_started(self) -> list[str]:
        """What the first start of the workers waits for."""
        return [
            f"worker {worker.number}: {reason}"
            for worker in self.workers
            for reason in (["is starting"] if worker.answer is None else worker.answer.not_started)
        ]

    def status(self) -> dict[str, Any]:
        """All workers as if they were one process, and below `workers` each by itself; times are microseconds UTC."""
        answers = [worker.answer.status for worker in self.workers if worker.answer is not None]
        spool = self.config.kafka.spool
        return {
            "version": __version__,
            "config": self.reloader.status(),
            "started": self._started,
            "now": self.clock(),
            "ready": not self.not_ready(),
            "not_ready": self.not_ready(),
            **merge_statuses(answers),
            "opening": next((answer.get("opening", {}) for answer in answers if answer["sink"] is None), {}),
            "spool": {"max_bytes": spool.max_bytes * len(self.workers), "when_full": spool.when_full},
            "recent": [note for answer in answers for note in answer.get("recent", ())],
            "workers": [self._describe(worker) for worker in self.workers],
        }

    def full_status(self) -> dict[str, Any]:
        """The same with what this process itself knows."""
        return with_process(self.status(), self._loop)

    def metrics(self) -> bytes:
        """Everybody's metrics with the label of the worker."""
        answers = [(str(worker.number), worker.answer.metrics) for worker in self.workers if worker.answer is not None]
        return merge_metrics([(None, self._own_metrics()), *answers, (OWN_LABEL, self._own_process())])

    def _own_numbers(self) -> Iterator[tuple[str, str, str, float]]:
        # The workers tell the same of themselves, and one that is dead tells nothing.
        yield "pipeline_ready", "1 while the service is ready.", "gauge", float(not self.not_ready())

    def _describe(self, worker: Worker) -> dict[str, Any]:
        told = worker.answer.status if worker.answer is not None else {}
        return {
            "worker": worker.number,
            "share": attrs.asdict(worker.share),
            "state": worker.state,
            "since": worker.since,
            "pid": worker.child.pid if worker.child is not None else None,
            "address": worker.address,
            "restarts": worker.restarts,
            "last_end": worker.last_end,
            "answers": self._answers(worker),
            "not_ready": worker.not_ready(self.config.worker_silence),
            "opening": told.get("opening", {}) if told and told["sink"] is None else None,
        }

    def _answers(self, worker: Worker) -> bool:
        return worker.answer is not None and trio.current_time() - worker.answered_at <= self.config.worker_silence

    # What changes without a restart.

    def _follow(self, change: Change) -> None:
        self.config = change.config
        if change.log:
            reconfigure(self.config.log)

    def _give_order(self, order: Order) -> None:
        if "config" in order:
            self._orders = [(number, each) for number, each in self._orders if "config" in each]
        self._issued += 1
        self._orders.append((self._issued, order))
        self._new_orders.unpark_all()

    async def _give_orders(self, child: Child, told: int) -> None:
        """Tell one process what came after the order of this number."""
        while True:
            for number, order in self._orders:
                if number > told:
                    told = number
                    await child.tell(order)
                    break  # telling takes its time: what was to be told next may have been undone
            else:
                await self._new_orders.park()

    async def renew_books(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Force new snapshots of order books, whichever workers have them.

        Raises `ConfigError` if none has any of them, and `Refused` if one that did not answer might.
        """
        read_resync(self.config, body, VENUES)
        found: dict[str, Any] = {"resynced": 0, "under_way": 0}
        problems: list[str] = []
        silent: list[int] = []

        async def ask(worker: Worker) -> None:
            code, answer = 0, dict[str, Any]()
            with trio.move_on_after(self.config.worker_silence):
                try:
                    code, answer = await self.post(worker.address, RESYNC, body)
                except (httpx.HTTPError, ValueError) as error:
                    log.warning("worker_unanswering", worker=worker.number, reason=str(error))
            if code == 200:
                found["resynced"] += answer["resynced"]
                found["under_way"] += answer["under_way"]
            elif code == 400:
                problems.extend(answer["problems"])
            else:
                silent.append(worker.number)

        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(ask, worker)
        if found["resynced"] or found["under_way"]:
            return {**found, "unanswering": sorted(silent)} if silent else found
        if silent:
            raise Refused(f"worker {', '.join(map(str, sorted(silent)))} did not answer, and no other one has the book")
        raise ConfigError(list(dict.fromkeys(problems)))

    # Keeping them alive.

    async def _keep(self, worker: Worker) -> None:
        while not self._stopping.is_set():
            code = await self._run(worker)
            if self._stopping.is_set():
                if not self._is_clean(worker, code):
                    self.code = self.code or 1
                break
            if code == _WRONG_CONFIGURATION:
                effect = "all workers end; its own words on standard error say why"
                log.error("worker_cannot_run", worker=worker.number, ended=worker.last_end, effect=effect)
                self._give_up(code, worker)
                break
            delay = self._delay(worker)
            if delay is None:
                log.error(
                    "worker_keeps_dying", worker=worker.number, deaths=len(worker.deaths), ended=worker.last_end,
                    effect="all workers end",
                )  # fmt: skip
                self._give_up(1, worker)
                break
            log.error("worker_died", worker=worker.number, ended=worker.last_end, restart_in=delay)
            self._enter(worker, "waiting")
            with trio.move_on_after(delay) as pause:
                await self._stopping.wait()
            worker.restarts += pause.cancelled_caught
        self._enter(worker, "stopped")

    async def _run(self, worker: Worker) -> int:
        """One process, from its start to its end."""
        try:
            child = await self.launch(worker.number)
        except OSError as error:
            worker.last_end = f"no process: {error.strerror or error}"
            return 1
        worker.child, worker.address, worker.answer, worker.answered_at = child, "", None, trio.current_time()
        self._enter(worker, "starting")
        log.info("worker_started", worker=worker.number, pid=child.pid, share=worker.share.index, of=worker.share.count)
        if self._stopping.is_set():
            child.send_signal(self._stopped_by)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_after, worker, child)
                code = await child.wait()
                nursery.cancel_scope.cancel()
        except BaseException:
            await self._end(child)
            raise
        worker.child = worker.answer = None
        worker.last_end = _described(code)
        return code

    async def _end(self, child: Child) -> None:
        """Nobody stays behind when a bug ends this process."""
        child.send_signal(SIGTERM)
        with trio.move_on_after(self.config.shutdown_within, shield=True):
            await child.wait()
        child.send_signal(SIGKILL)

    async def _look_after(self, worker: Worker, child: Child) -> None:
        told = self._issued
        address = await child.greet([order for _, order in self._orders])
        if address is None:
            return
        worker.address = address
        self._enter(worker, "running")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_orders, child, told)
            if address:
                await self._keep_looking(worker, address)

    async def _keep_looking(self, worker: Worker, address: str) -> None:
        while True:
            reason = "silent"
            with trio.move_on_after(self.config.worker_silence):
                try:
                    worker.answer = await self._look(address)
                    worker.answered_at = trio.current_time()
                    reason = ""
                except (httpx.HTTPError, ValueError) as error:
                    reason = f"{error.__class__.__name__} {error}"
            if reason and not self._stopping.is_set():
                log.warning("worker_unanswering", worker=worker.number, reason=reason)
            is_ready = worker.answer is not None and not worker.answer.not_ready
            await trio.sleep(_LOOK_S if is_ready else _LOOK_SOON_S)

    async def _look(self, address: str) -> Answer:
        # All at once: a worker with too much to do needs seconds for each, and what it has to do should be seen then.
        found: dict[str, bytes] = {}
        failures: list[httpx.HTTPError] = []

        async def ask(path: str) -> None:
            try:
                found[path] = await self.ask(address, path)
            except httpx.HTTPError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for path in ("/readyz", "/startupz", "/status", "/metrics"):
                nursery.start_soon(ask, path)
        if failures:
            raise failures[0]
        ready, started, status = [json.loads(found[path]) for path in ("/readyz", "/startupz", "/status")]
        return Answer(ready.get("reasons", []), started.get("reasons", []), status, found["/metrics"])

    async def _kill_overdue(self) -> None:
        await self._stopping.wait()
        await trio.sleep(self.config.shutdown_within + _KILL_MARGIN_S)
        for worker in self.workers:
            if worker.child is not None:
                log.error("worker_overdue", worker=worker.number, pid=worker.child.pid)
        self._pass_on(SIGKILL)

    def _pass_on(self, number: Signals) -> None:
        for worker in self.workers:
            if worker.child is not None:
                worker.child.send_signal(number)

    def _give_up(self, code: int, worker: Worker) -> None:
        self.code = code
        self.stop(reason=f"worker {worker.number} ended with {worker.last_end}")

    def _delay(self, worker: Worker) -> float | None:
        """Seconds until the next start; None if there have been enough."""
        patience, now = self.patience, trio.current_time()
        worker.deaths.append(now)
        while worker.deaths[0] <= now - patience.window_s:
            worker.deaths.popleft()
        if len(worker.deaths) > patience.most:
            return None
        return float(min(patience.longest_s, patience.first_s * 2 ** (len(worker.deaths) - 1)))

    def _is_clean(self, worker: Worker, code: int) -> bool:
        """Whether a worker that had to stop did so; one that had not begun to listen has nothing to drain."""
        return code == 0 or (not worker.address and code in (-self._stopped_by, 128 + self._stopped_by))

    def _enter(self, worker: Worker, state: str) -> None:
        worker.state, worker.since = state, self.clock()


class WorkerCollector(Collector):
    """Metrics of the workers' lives."""

    def __init__(self, workers: list[Worker], answers: Callable[[Worker], bool]) -> None:
        self._workers = workers
        self._families: tuple[Family[Worker], ...] = (
            gauge("pipeline_worker_up", "1 while the worker answers.", lambda w: float(answers(w))),
            counter("pipeline_worker_restarts", "Deaths it was started again after.", lambda w: w.restarts),
        )

    def collect(self) -> Iterator[Metric]:
        return collected(self._families, (LABEL,), [((str(worker.number),), worker) for worker in self._workers])


async def run(config: Config, text: str, path: str, *, is_live: bool = False) -> int:
    """Run the instance's workers until SIGTERM or SIGINT; returns the exit code.

    `text` is what `config` was read from, at `path`. With `is_live`, standard output shows the status of them all.
    Raises `ConfigError`.
    """
    async with (
        httpx.AsyncClient(trust_env=False, timeout=None, limits=httpx.Limits()) as client,
        shared_stderr() if is_live else nullcontext() as stderr,
    ):
        supervisor = Supervisor(
            config,
            partial(start_worker, path, text, stderr=stderr),
            partial(_ask, client, config.http),
            post=partial(_post, client, config.http),
            source=Source(path, text),
        )
        code = 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey_signals, supervisor, nursery, has_terminal())
                if is_live:
                    nursery.start_soon(show, supervisor.full_status)
                code = await supervisor.run()
                nursery.cancel_scope.cancel()
        except* PipelineError as group:
            for error in leaves(group):
                log.error("service_failed", text=str(error))
    return code


async def _obey_signals(supervisor: Supervisor, nursery: trio.Nursery, had_terminal: bool) -> None:
    with trio.open_signal_receiver(*obeyed_signals()) as signals:
        async for number in signals:
            if number != SIGHUP:
                supervisor.interrupt(Signals(number))
            elif has_terminal() or not had_terminal:
                nursery.start_soon(supervisor.reloader.obey_signal)
            else:
                supervisor.interrupt(SIGTERM)  # to a worker, SIGHUP is no reason to end


async def _ask(client: httpx.AsyncClient, settings: HttpSettings, address: str, path: str) -> bytes:
    return (await client.get(address + path, headers=_authorization(settings))).content


async def _post(
    client: httpx.AsyncClient, settings: HttpSettings, address: str, path: str, body: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    answer = await client.post(address + path, json=body, headers=_authorization(settings))
    return answer.status_code, answer.json()


def _authorization(settings: HttpSettings) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.token.reveal()}"} if settings.token is not None else {}


def _described(code: int) -> str:
    return f"signal {Signals(-code).name}" if code < 0 else f"exit code {code}"
