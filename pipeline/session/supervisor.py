"""Keeping a connection alive: start again what may be started again, stop what was refused, let bugs out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from pipeline.model.errors import Refused, Retryable
from pipeline.session.failures import describe, settle

_log = logging.getLogger(__name__)


class Child(Protocol):
    """One attempt, used once."""

    @property
    def flowing(self) -> bool:
        """Whether real data came, so that the next attempt need not back off; also asked after `run` has ended."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until the end; `started()` when the connection is ready. Returns only if it is not to be restarted."""


class Observer(Protocol):
    """Is told how the supervised connection fares; must neither block nor raise."""

    def attempt(self, number: int) -> None:
        """An attempt begins: the n-th since data last flowed, from 1."""

    def connected(self) -> None:
        """The connection is ready."""

    def lost(self, reason: str, error: Retryable) -> None:
        """The connection ended, or the attempt failed."""

    def bug(self, error: Exception) -> None:
        """The connection ended by an error in this program; told instead of `lost`."""

    def retry_in(self, seconds: float) -> None:
        """The next attempt begins in so many seconds."""

    def refused(self, reason: str) -> None:
        """There will be no further attempt."""


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """When to try again: exponential back-off with full jitter, for ever; and how many bugs to live with."""

    random: Callable[[], float]
    """Uniform in [0, 1), e.g. `random.Random(seed).random`."""
    base_s: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """Longest delay before the second attempt; grows with each failure."""
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1))
    """By how much."""
    cap_s: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Longest delay of all."""
    max_bugs: int = 5
    """So many unexpected errors within `bug_window_s` are logged and survived; the next one is raised."""
    bug_window_s: float = 3600.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        try:
            longest = self.base_s * self.factor ** (failures - 1)
        except OverflowError:  # after days of failures
            longest = self.cap_s
        return self.random() * min(self.cap_s, longest)


async def supervise(
    name: str,
    make_child: Callable[[], Child],
    policy: RestartPolicy,
    *,
    observer: Observer,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> Refused | None:
    """Run children one after the other, until one is refused or returns.

    `Retryable` means another attempt after `policy.delay`, which starts anew only if data had flowed: a venue that
    lets us connect and then drops us is no healthier than one that does not. `Refused` is returned, so that a
    refused connection leaves its siblings alone. Any other exception is a bug: logged and retried, but raised when
    there are more than `policy.max_bugs` of them. `task_status` is told when the first child is ready, or when the
    end comes before that.
    """
    started = _Once(task_status)
    bugs: deque[float] = deque()
    failures = 0
    while True:
        observer.attempt(failures + 1)
        flowing, end = await _run_once(make_child, _Both(started, observer))
        failures = 1 if flowing else failures + 1
        reason = "" if end is None else describe(end)
        if end is None or isinstance(end, Refused):
            if end is not None:
                _log.error("%s: refused: %s", name, reason)
                observer.refused(reason)
            started.started()
            return end
        delay = policy.delay(failures)
        if isinstance(end, Retryable):
            observer.lost(reason, end)
            _log.warning("%s: %s; attempt %d in %.1f s", name, reason, failures + 1, delay)
        else:
            observer.bug(end)
            _log.error("%s: unexpected error; attempt %d in %.1f s", name, failures + 1, delay, exc_info=end)
            if _over_budget(bugs, policy):
                raise end
        observer.retry_in(delay)
        await trio.sleep(delay)


async def _run_once(make_child: Callable[[], Child], status: trio.TaskStatus[None]) -> tuple[bool, Exception | None]:
    """Whether data flowed, and how it ended; raises cancellation and what must end the process."""
    child: Child | None = None
    end: BaseException | None = None
    try:
        child = make_child()
        await child.run(task_status=status)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - classified by the caller; bugs have a budget
        end = settle(error)
    if isinstance(end, BaseExceptionGroup):
        end = _without_bugs_if_cancelled(end)
    if end is not None and not isinstance(end, Exception):
        raise end
    return child is not None and child.flowing, end


def _without_bugs_if_cancelled(end: BaseExceptionGroup[BaseException]) -> BaseExceptionGroup[BaseException]:
    """A bug at the moment of cancellation is logged: raised, it would bypass the budget and end the process."""
    cancelled, rest = end.split(trio.Cancelled)
    if cancelled is None or (rest is not None and not isinstance(rest, ExceptionGroup)):
        return end
    if rest is not None:
        _log.error("unexpected error while being cancelled", exc_info=rest)
    return cancelled


def _over_budget(bugs: deque[float], policy: RestartPolicy) -> bool:
    now = trio.current_time()
    bugs.append(now)
    while bugs[0] <= now - policy.bug_window_s:
        bugs.popleft()
    return len(bugs) > policy.max_bugs


class _Once(trio.TaskStatus[None]):
    """Passes on the first `started` only: Trio takes a second one for an error."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status: trio.TaskStatus[None] | None = task_status

    def started(self, value: None = None) -> None:
        task_status, self._task_status = self._task_status, None
        if task_status is not None:
            task_status.started()


class _Both(trio.TaskStatus[None]):
    def __init__(self, first: _Once, observer: Observer) -> None:
        self._first = first
        self._observer = observer

    def started(self, value: None = None) -> None:
        self._observer.connected()
        self._first.started()
