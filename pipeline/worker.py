"""One of several workers: what its process and the supervisor's say to each other.

On the worker's standard input comes one line with the text of the configuration and the changes that were made to it,
so that all workers have the same one whenever they start; then a line for each further change. Its end says that the
supervisor is gone. On its standard output the worker says where it serves HTTP.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import Signals
from subprocess import PIPE
from typing import Any, BinaryIO

import attrs
import structlog
import trio

from pipeline.config import loads
from pipeline.model.errors import ConfigError
from pipeline.observe.logs import configure
from pipeline.reloader import Order, check_authorities

log = structlog.get_logger(__name__)

OPTION = "--worker"
"""Of the command line, for the supervisor alone; followed by the worker's number."""


def run_worker(path: str, number: int, stdin: BinaryIO) -> int:
    """Run a worker in this process; returns its exit code.

    `path` is where the supervisor read the configuration. Raises `ConfigError`.
    """
    line = bytearray()
    while not line.endswith(b"\n") and (part := os.read(stdin.fileno(), 1)):
        line += part  # one by one: what follows is not ours to read
    if not line.endswith(b"\n"):
        return 1  # the supervisor ended while it started us
    try:
        greeting = json.loads(line)
        config = loads(greeting["config"])
        check_authorities(config.venues)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None
    configure(config.log)
    structlog.contextvars.bind_contextvars(worker=number)
    from pipeline import app

    seat = app.Seat(number, announce, listen, greeting["orders"])
    return trio.run(app.run, attrs.evolve(config, http=attrs.evolve(config.http, host="127.0.0.1", port=0)), seat)


def announce(address: str) -> None:
    """Tell the supervisor where HTTP is served; whatever is printed later is not for it."""
    os.write(1, json.dumps({"address": address}).encode() + b"\n")
    os.dup2(2, 1)


async def listen(obey: Callable[[Order], None]) -> None:
    """Pass on what the supervisor tells; returns when that has ended, however that was."""
    rest = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for part in stream:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                obey(json.loads(line))


@attrs.frozen(eq=False)
class WorkerProcess:
    """A worker as its supervisor sees it."""

    process: trio.Process
    config: str

    @property
    def pid(self) -> int:
        """Of the operating system."""
        return self.process.pid

    async def greet(self, orders: Sequence[Order]) -> str | None:
        """Give it the configuration and the changes of it that were made.

        Returns where it serves HTTP, empty if it does not, None if it ends without having told.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        said = b""
        try:
            await self.process.stdin.send_all(json.dumps({"config": self.config, "orders": orders}).encode() + b"\n")
            async for part in self.process.stdout:
                said += part
                if said.endswith(b"\n"):
                    found: dict[str, Any] = json.loads(said)
                    return str(found["address"])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # `wait` tells how it ended
        return None

    async def tell(self, order: Order) -> None:
        """Have it follow a change of the configuration, after it was greeted; if it has ended, `wait` tells how."""
        assert self.process.stdin is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def wait(self) -> int:
        """Its exit code, or the number of the signal that ended it, negative."""
        code = await self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                await stream.aclose()
        return code

    def send_signal(self, number: Signals) -> None:
        """Signal it, if it has not ended."""
        self.process.send_signal(number)


async def start_worker(path: str, config: str, number: int, *, stderr: int | None = None) -> WorkerProcess:
    """Start a worker's process; `config` is the text of the file at `path`. Raises `OSError`.

    `stderr` is a file for its standard error instead of ours.
    """
    # In a group of its own: what a terminal sends to all of ours, the supervisor passes on once.
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipeline", "--config", path, OPTION, str(number)],
        stdin=PIPE, stdout=PIPE, stderr=stderr, process_group=0,
    )  # fmt: skip
    return WorkerProcess(process, config)
