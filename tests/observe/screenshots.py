"""Makes docs/images/: the status page of a real service on simulated exchanges, in a real browser.

`python -m tests.observe.screenshots` writes the images anew.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from pipeline.app import Service
from pipeline.demo import demo_config
from pipeline.feeds.settings import UrlSettings
from pipeline.observe.logs import configure
from pipeline.observe.settings import LogSettings
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.services.browser import Browser, Tab

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SETTLED_S = 12.0
"""Until rates and percentiles are those of steady work."""


async def main(folder: Path) -> None:
    """A healthy service on a wide bright screen; a venue that is gone on a phone at night."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    market = MarketSettings(rate=20)
    async with AsyncExitStack() as stack:
        browser = Browser(folder / "browser")
        await trio.to_thread.run_sync(browser.start)
        stack.callback(browser.kill)
        bybit = await stack.enter_async_context(open_venue("bybit", market=market, keep=False))
        okx = await stack.enter_async_context(open_venue("okx", market=market, keep=False))
        here, there = (UrlSettings(venue.websocket_url, venue.rest_url) for venue in (bybit, okx))
        service = Service(demo_config(here, there, str(folder / "spool")))
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(service.run)
        tab = await stack.enter_async_context(browser.tab())
        await tab.look(width=1440, height=1000)
        await tab.open(service.address)
        await tab.until("document.querySelector('h1').innerText.startsWith('All')")
        await trio.sleep(SETTLED_S)
        await save(tab, "status-page.png")
        bybit.fault("http_refuse", count=1_000_000)
        bybit.fault("drop")
        await tab.look(width=390, height=844, scheme="dark")
        await tab.until("document.querySelectorAll('#verdict li').length > 0")
        await trio.sleep(2.0)
        await save(tab, "status-page-phone.png")
        service.stop()


async def save(tab: Tab, name: str) -> None:
    """Write what is on the screen."""
    await trio.Path(IMAGES / name).write_bytes(await tab.screenshot())
    print(IMAGES / name)


if __name__ == "__main__":
    configure(LogSettings(level="warning"))
    with tempfile.TemporaryDirectory(prefix="screenshots-") as made:
        trio.run(main, Path(made))
    sys.exit(0)
