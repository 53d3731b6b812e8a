"""A real Chromium for tests, without a window, driven over its own debugging protocol: nothing else is needed."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.services.artifacts import ProvisioningError, only_one_run
from tests.services.process import Service

PACKAGES = ("chromium", "fonts-dejavu-core")
"""Debian's; without any font a page is blank."""
INSTALL_WITHIN_S = 600

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-port=0",
)  # fmt: skip
_MAX_MESSAGE = 64 * 1024**2
_WITHIN_S = 20.0
_POLL_S = 0.02


def chromium() -> str:
    """The browser's program, installed first where that is possible. Raises `ProvisioningError` naming the packages."""
    with only_one_run("apt"):
        if (found := _found()) is not None:
            return found
        apt = shutil.which("apt-get")
        if apt is None or os.geteuid() != 0:
            raise ProvisioningError(f"no Chromium: install it (Debian, Ubuntu: the packages {' '.join(PACKAGES)})")
        _run(apt, "update", "-qq")
        _run(apt, "install", "-y", "-qq", "--no-install-recommends", *PACKAGES)
        if (found := _found()) is None:
            raise ProvisioningError(f"{' '.join(PACKAGES)} were installed, and there is still no Chromium")
        return found


def _found() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


def _run(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, env=environment, check=False
    )
    if done.returncode:
        raise ProvisioningError(
            f"{' '.join(command)} failed; install {' '.join(PACKAGES)} by hand\n{done.stderr[-2000:]}"
        )


class Browser(Service):
    """One Chromium for many tabs, with a profile of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__("chromium", folder)
        self._address = ""

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """A new tab; closed at the end."""
        made = msgspec.json.decode(await trio.to_thread.run_sync(self._new_tab))
        place = urlsplit(made["webSocketDebuggerUrl"])
        # The stream is ours to close: when the browser closes first, trio-websocket leaves it open.
        async with (
            await trio.open_tcp_stream(str(place.hostname), place.port or 80) as stream,
            trio.open_nursery() as nursery,
        ):
            socket = await wrap_client_stream(nursery, stream, place.netloc, place.path, max_message_size=_MAX_MESSAGE)
            tab = Tab(socket)
            nursery.start_soon(tab.listen)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.command(f"{domain}.enable")
            yield tab
            await tab.command("Page.close")
            nursery.cancel_scope.cancel()

    def _new_tab(self) -> bytes:
        request = urllib.request.Request(f"{self._address}/json/new?about:blank", method="PUT")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_WITHIN_S) as answer:
            body: bytes = answer.read()
            return body

    @property
    def _port_file(self) -> Path:
        return self.folder / "profile" / "DevToolsActivePort"

    def _prepare(self) -> None:
        self._port_file.unlink(missing_ok=True)

    def _command(self) -> Sequence[str]:
        return [chromium(), *_OPTIONS, f"--user-data-dir={self.folder / 'profile'}", "about:blank"]

    def _await_ready(self) -> None:
        for _ in self._attempts():
            lines = self._port_file.read_text().splitlines() if self._port_file.exists() else []
            if len(lines) > 1:  # the port, and the path of the browser's own socket
                self._address = f"http://127.0.0.1:{lines[0]}"
                return


class PageFailed(AssertionError):
    """A script on the page raised, or what was waited for did not come."""


@attrs.define(eq=False)
class Tab:
    """One page: what it shows, asks for and complains about."""

    socket: WebSocketConnection
    requests: list[str] = attrs.field(factory=list, init=False)
    """Addresses of all requests."""
    complaints: list[str] = attrs.field(factory=list, init=False)
    """What went to the console as a warning or an error, and uncaught exceptions."""
    _answers: dict[int, Any] = attrs.field(factory=dict, init=False)
    _waiting: dict[int, trio.Event] = attrs.field(factory=dict, init=False)
    _loads: int = attrs.field(default=0, init=False)

    async def open(self, address: str) -> None:
        """Go to a page and wait until it is loaded. Raises `PageFailed`."""
        before = self._loads
        failure = (await self.command("Page.navigate", url=address)).get("errorText")
        if failure:
            raise PageFailed(f"{address}: {failure}")
        with trio.fail_after(_WITHIN_S):
            while self._loads == before:  # noqa: ASYNC110 - comes with the answers, in their order
                await trio.sleep(_POLL_S)

    async def read(self, script: str) -> Any:
        """The value of an expression on the page. Raises `PageFailed` with what the page raised."""
        answer = await self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageFailed(f"{script}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    async def text(self, selector: str) -> str:
        """What the first such element shows; raises `PageFailed` if there is none."""
        return str(await self.read(f"document.querySelector({msgspec.json.encode(selector).decode()}).innerText"))

    async def until(self, condition: str, within: float = _WITHIN_S) -> None:
        """Wait until an expression is true on the page. Raises `PageFailed` with what the page shows instead."""
        with trio.move_on_after(within):
            while not await self.read(condition):  # noqa: ASYNC110 - the page has no way to tell
                await trio.sleep(_POLL_S)
            return
        raise PageFailed(f"not within {within:g} s: {condition}\n{await self.read('document.body.innerText')}")

    async def look(self, *, width: int = 1280, height: int = 900, scheme: str = "light", scripts: bool = True) -> None:
        """Choose the screen, the user's colour scheme, and whether scripts run."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.command("Emulation.setEmulatedMedia", features=features)
        await self.command("Emulation.setScriptExecutionDisabled", value=not scripts)

    async def screenshot(self) -> bytes:
        """What is on the screen, as PNG."""
        return base64.b64decode((await self.command("Page.captureScreenshot", format="png"))["data"])

    async def command(self, method: str, **parameters: Any) -> Any:
        """Send one command of the protocol and wait for its result. Raises `PageFailed` for an error."""
        number = len(self._answers) + len(self._waiting) + 1
        arrived = self._waiting[number] = trio.Event()
        text = msgspec.json.encode({"id": number, "method": method, "params": parameters}).decode()
        with trio.fail_after(_WITHIN_S):
            await self.socket.send_message(text)
            await arrived.wait()
        answer = self._answers[number]
        if "error" in answer:
            raise PageFailed(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def listen(self) -> None:
        """Take what the browser says until it is cancelled or the tab is closed."""
        while True:
            try:
                message = msgspec.json.decode(await self.socket.get_message())
            except ConnectionClosed:
                return
            if "id" in message:
                self._answers[message["id"]] = message
                self._waiting.pop(message["id"]).set()
            else:
                self._take(message["method"], message["params"])

    def _take(self, event: str, told: Any) -> None:
        if event == "Page.loadEventFired":
            self._loads += 1
        elif event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.complaints.append(f"{told['entry']['text']} ({told['entry'].get('url')})")
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error", "assert"):
            self.complaints.append(str([argument.get("value") for argument in told["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
