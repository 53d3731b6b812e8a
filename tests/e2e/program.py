"""The connector as a process of its own: started from the command line, watched by its logs, ended by signals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "pipeline")
POLL_S = 0.05


@attrs.define
class Program:
    """A running service."""

    process: trio.Process
    http: str
    log: list[dict[str, Any]] = attrs.field(factory=list)
    """Its log so far."""
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    over: trio.Event = attrs.field(factory=trio.Event)
    """Set when the log has ended: so have all processes that could write to it."""

    async def logged(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait for a line of the log, or for the n-th of its kind."""
        while True:
            found = [line for line in self.log if line.get("event") == event]
            if len(found) >= times:
                return found[times - 1]
            await self.changed.park()

    async def get(self, path: str) -> httpx.Response:
        """Ask the service's own HTTP server."""
        async with httpx.AsyncClient(trust_env=False, base_url=self.http) as client:
            return await client.get(path)

    async def post(self, path: str, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        """Ask it to change something."""
        async with httpx.AsyncClient(trust_env=False, base_url=self.http) as client:
            return await client.post(path, json=body, headers=headers)

    async def ready(self) -> None:
        """Wait until it says so."""
        while (await self.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - it can only be asked
            await trio.sleep(POLL_S)

    async def listen(self) -> None:
        """Collect the log until it ends."""
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            self.log.extend(_parsed(line) for line in lines if line.strip())
            self.changed.unpark_all()
        self.over.set()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {"event": "unreadable", "text": line.decode(errors="replace")}
    assert isinstance(fields, dict)
    return fields


def write(configuration: Mapping[str, Any], folder: Path) -> Path:
    """A configuration file; JSON is YAML."""
    path = folder / "config.yaml"
    path.write_text(json.dumps({**configuration, "log": {"format": "json"}}), encoding="utf-8")
    return path


@asynccontextmanager
async def started(config: Path, http_port: int) -> AsyncIterator[Program]:
    """Run the service; it is terminated on leaving the block if it still runs."""
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, [*COMMAND, "--config", str(config)], cwd=ROOT, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        program = Program(await nursery.start(run), f"http://127.0.0.1:{http_port}")
        nursery.start_soon(program.listen)
        try:
            yield program
        finally:
            nursery.cancel_scope.cancel()


async def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the program to its end."""
    return await trio.run_process(
        [*COMMAND, *arguments], cwd=ROOT, check=False, capture_stdout=True, capture_stderr=True
    )
