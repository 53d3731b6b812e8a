"""Our WebSocket client under the Autobahn test suite: `make autobahn`, apart from the other tests.

The suite's fuzzing server plays hundreds of cases, sound and hostile, to a client that echoes all messages, and judges
its behaviour. It runs on Python 2.7 only; `--suite` is the folder that it was installed to.

One thing the client here does in the place of the service: text that is not UTF-8 closes the connection. The transport
hands it over, as the service's JSON decoder judges it, and makes a dead letter of it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import trio
import trio_websocket

from pipeline.model.errors import SessionError
from pipeline.session.limits import Limits
from pipeline.session.websocket import WebSocketTransport, connect

_AGENT = "pipeline"
_INVALID_PAYLOAD = 1007
_CASE_TIMEOUT_S = 600
_START_TIMEOUT_S = 60
# Cases of speed, and those that echo a thousand messages of more than 8 KiB: they take an hour, most of it spent on
# masking and fragments in Python, and differ from the smaller ones in nothing but size.
_LEFT_OUT = ["9.*", *(f"{group}.*.{size}" for group in (12, 13) for size in (7, 8, 9, 10, *range(12, 19)))]
# What the suite says of a case: it was done right, done in another permissible way, or is for people to look at.
_PASSED = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
_GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits",
    "10": "autofragmentation",
    "12": "compression, lengths",
    "13": "compression, parameters",
}
_RUN_SUITE = "from autobahntestsuite.wstest import run; run()"
_LIMITS = Limits(max_message_bytes=64 * 1024 * 1024, send=60)


@attrs.define
class _Verdict:
    case: str
    behavior: str
    behavior_close: str
    close_code: int | None

    @property
    def passed(self) -> bool:
        return self.behavior in _PASSED and self.behavior_close in _PASSED


class _Echo:
    """Sends back every message of one connection as what it came: text or binary."""

    def __init__(self, transport: WebSocketTransport) -> None:
        self._transport = transport
        self._library = transport._library
        self._get_message, self._library.get_message = self._library.get_message, self._note_kind  # type: ignore[method-assign]
        self._binary = False

    async def _note_kind(self) -> str | bytes:
        message = await self._get_message()
        self._binary = isinstance(message, bytes)
        return message

    async def run(self) -> None:
        while True:
            *texts, last = await self._transport.receive()
            binary, self._binary = self._binary, False
            for text in texts:
                await self._library.send_message(text.decode())
            await self._library.send_message(last if binary else last.decode())


def run_suite(python2: str, suite: Path, cases: list[str]) -> list[_Verdict]:
    """The suite's verdicts on all `cases`, which may hold patterns such as `7.*`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        specification, reports = Path(folder, "specification.json"), Path(folder, "reports")
        left_out = [] if cases else _LEFT_OUT
        specification.write_text(
            json.dumps({"url": url, "outdir": str(reports), "cases": cases or ["*"], "exclude-cases": left_out})
        )
        arguments = ["-m", "fuzzingserver", "-s", str(specification), "-u", "0"]
        environment = {**os.environ, "PYTHONPATH": str(suite.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
        server = [python2, "-W", "ignore", "-c", _RUN_SUITE, *arguments]
        trio.run(
            partial(_play, url, partial(trio.run_process, server, env=environment, cwd=folder, capture_stdout=True))
        )
        index = json.loads((reports / "index.json").read_text())
    return [
        _Verdict(case, verdict["behavior"], verdict["behaviorClose"], verdict["remoteCloseCode"])
        for case, verdict in sorted(index[_AGENT].items(), key=lambda item: [int(part) for part in item[0].split(".")])
    ]


async def _play(url: str, serve: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        count = int(await _ask_for_count(url))
        for number in range(count):
            sys.stderr.write(f"\r{number + 1}/{count}")
            await _run_case(f"{url}/runCase?case={number + 1}&agent={_AGENT}")
        sys.stderr.write("\n")
        await _run_case(f"{url}/updateReports?agent={_AGENT}")
        nursery.cancel_scope.cancel()


async def _ask_for_count(url: str) -> bytes:
    with trio.fail_after(_START_TIMEOUT_S):
        while True:
            try:
                async with trio.open_nursery() as wire:
                    transport = await connect(wire, f"{url}/getCaseCount", limits=_LIMITS)
                    try:
                        return (await transport.receive())[0]
                    finally:
                        await transport.aclose()
            except* SessionError:
                await trio.sleep(0.2)  # it is starting


async def _run_case(url: str) -> None:
    with trio.fail_after(_CASE_TIMEOUT_S):
        async with trio.open_nursery() as wire:
            transport = await connect(wire, url, limits=_LIMITS, compression=True)
            try:
                await _Echo(transport).run()
            except UnicodeDecodeError:
                transport._close_code = _INVALID_PAYLOAD
            except (SessionError, trio_websocket.ConnectionClosed):
                pass  # the case is over; what we made of it is the suite's to judge
            finally:
                await transport.aclose()


def summary(verdicts: list[_Verdict]) -> str:
    """A table of verdicts per group of cases, in Markdown."""
    behaviors = sorted({verdict.behavior for verdict in verdicts})
    lines = [f"| cases | | {' | '.join(behaviors)} |", f"|---|---|{'---:|' * len(behaviors)}"]
    for group, title in _GROUPS.items():
        counts = Counter(verdict.behavior for verdict in verdicts if verdict.case.split(".")[0] == group)
        if counts:
            lines.append(f"| {group} | {title} | {' | '.join(str(counts[behavior]) for behavior in behaviors)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the Autobahn test suite's cases for clients.")
    parser.add_argument("--suite", type=Path, required=True, help="folder that the suite was installed to")
    parser.add_argument("--python2", default="python2.7", help="interpreter that runs the suite")
    parser.add_argument("cases", nargs="*", help="e.g. '7.*'; else all but those of speed and size")
    options = parser.parse_args()
    verdicts = run_suite(options.python2, options.suite, options.cases)
    sys.stdout.write(summary(verdicts) + "\n")
    for verdict in verdicts:
        if verdict.behavior != "OK" or verdict.behavior_close not in ("OK", "INFORMATIONAL"):
            sys.stdout.write(
                f"{verdict.case}: {verdict.behavior}, close: {verdict.behavior_close} {verdict.close_code}\n"
            )
    return 0 if verdicts and all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
