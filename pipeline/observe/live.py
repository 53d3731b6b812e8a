"""The status page while somebody watches it: looked at every second, sent to each watcher as far as it changed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from pipeline.observe.page import StatusPage, View
from pipeline.observe.problems import Status

log = structlog.get_logger(__name__)

WATCHED_S = 1.0
UNWATCHED_S = 5.0
"""Rates and beginnings need looks also while nobody watches."""
RETRY_MS = 1_000
"""After so long a browser that lost us tries again."""


@attrs.define(eq=False)
class Live:
    """Keeps one page and whoever watches it."""

    read: Callable[[], Status]
    max_listeners: int
    listeners: int = attrs.field(default=0, init=False)
    _page: StatusPage = attrs.field(factory=StatusPage, init=False)
    _view: View | None = attrs.field(default=None, init=False)
    _renewed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _watched: trio.Event = attrs.field(factory=trio.Event, init=False)

    def look(self) -> View:
        """The page of this moment."""
        self._view = self._page.view(self.read())
        return self._view

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                if self.listeners:
                    self.look()
                else:
                    self._page.note(self.read())  # to write the page takes several times longer
                    self._view = None
            except Exception:
                # A page that cannot be shown must not end what it is about.
                log.exception("status_page_failed")
            renewed, self._renewed = self._renewed, trio.Event()
            renewed.set()
            await self._pause()

    @property
    def is_full(self) -> bool:
        """Whether nobody more may watch."""
        return self.listeners >= self.max_listeners

    async def follow(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send server-sent events until cancelled.

        One that takes them slowly gets fewer of them, each with all that changed: nothing is kept for it.
        """
        self.listeners += 1
        self._watched.set()
        sent: dict[str, str] = {}
        try:
            await send(f"retry: {RETRY_MS}\n\n".encode())
            while True:
                renewed, view = self._renewed, self._view
                if view is not None:
                    changed = {name: html for name, html in view.sections.items() if sent.get(name) != html}
                    sent |= changed
                    text = json.dumps({"title": view.title, "sections": changed})
                    await send(f"data: {text}\n\n".encode())
                await renewed.wait()
        finally:
            self.listeners -= 1

    async def _pause(self) -> None:
        if self.listeners:
            await trio.sleep(WATCHED_S)
            return
        self._watched = trio.Event()
        with trio.move_on_after(UNWATCHED_S):
            await self._watched.wait()
