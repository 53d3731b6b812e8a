"""The status page in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from pipeline.observe.http import Pages, serve_http
from pipeline.observe.settings import HttpSettings
from tests.observe.statuses import START, connection, healthy, sink, status, venue
from tests.observe.test_page import full
from tests.services.artifacts import ProvisioningError
from tests.services.browser import Browser, Tab, chromium

DEADLINE_S = 60
PHONE = {"width": 360, "height": 740}
HEADLINE = "document.querySelector('h1').innerText"

# Every element that shows text of its own, with its colour and the ground it is on, as WCAG measures them.
CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
  };
  const shown = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return shown.map((element) => {
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return {ratio, text: `${element.tagName}.${element.className}: ${element.innerText.slice(0, 40)}`};
  });
})()
"""


@attrs.define
class Source:
    """What the page is about, to be changed under way."""

    status: Callable[[], dict[str, Any]] = healthy


@asynccontextmanager
async def page(browser: Browser, source: Source, **look: Any) -> AsyncIterator[tuple[Tab, str]]:
    """A tab on the page, and its address."""

    def told() -> dict[str, Any]:
        return source.status()

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            pages = Pages(lambda: b"", told, list)
            address = await nursery.start(serve_http, HttpSettings(port=0), pages)
            async with browser.tab() as tab:
                await tab.look(**look)
                await tab.open(address)
                yield tab, address
            nursery.cancel_scope.cancel()


def check_quiet(tab: Tab, address: str) -> None:
    """Nothing was asked of anybody else, and the browser complained of nothing."""
    assert {urlsplit(request).netloc for request in tab.requests} == {urlsplit(address).netloc}
    assert tab.complaints == []


def test_without_a_browser_its_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ProvisioningError, match="the packages chromium fonts-dejavu-core"):
        chromium()


async def test_the_verdict_follows_the_service(browser: Browser) -> None:
    source = Source()
    async with page(browser, source) as (tab, address):
        assert await tab.text("h1") == "All 3 connections are live; Kafka is up; nothing waiting"
        assert (await tab.read("document.title")).startswith("✓")

        lost = connection("okx.swap.book.0", state="retrying", last_error="no pong for 10 s")
        source.status = lambda: status(venue("okx", lost), sink=sink())
        await tab.until(f"{HEADLINE} == 'okx.swap.book.0 is down'")
        assert "no pong for 10 s" in await tab.text("#verdict li")
        assert "retrying" in await tab.text("#connections tbody tr")
        assert (await tab.read("document.title")).startswith("●")

        source.status = lambda: status(venue("okx", lost), sink=sink(broker_up=False, spooled=500))
        await tab.until(f"{HEADLINE} == 'Kafka is down; 1 more problem'")
        assert "down" in await tab.text("#kafka dd")

        source.status = healthy
        await tab.until(f"{HEADLINE} == 'All 3 connections are live; Kafka is up; nothing waiting'")
        assert await tab.read("document.querySelectorAll('#verdict li').length") == 0
        check_quiet(tab, address)


async def test_an_update_leaves_alone_what_stays(browser: Browser) -> None:
    source = Source(full)
    async with page(browser, source) as (tab, _):
        await tab.read("document.querySelector('details').open = true")
        await tab.read("document.querySelector('#verdict a').focus()")
        await tab.read("window.row = document.querySelector('#connections tbody tr'); null")
        source.status = lambda: full(START + 4_000_000, messages=4_000)
        await tab.until("document.querySelector('#kafka').innerText.includes('20,000')")
        assert await tab.read("document.querySelector('details').open")
        assert await tab.read("document.activeElement === document.querySelector('#verdict a')")
        assert await tab.read("window.row === document.querySelector('#connections tbody tr')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_colours_can_be_read_by_day_and_by_night(browser: Browser, scheme: str) -> None:
    async with page(browser, Source(full), scheme=scheme) as (tab, address):
        ground = await tab.read("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(18, 22, 27)") is (scheme == "dark")
        found = await tab.read(CONTRASTS)
        assert len(found) > 100
        assert [each for each in found if each["ratio"] < 4.5] == []
        check_quiet(tab, address)


@pytest.mark.parametrize("make", [full, healthy], ids=["trouble", "peace"])
async def test_it_fits_on_a_phone(browser: Browser, make: Callable[[], dict[str, Any]]) -> None:
    async with page(browser, Source(make), **PHONE, scheme="dark") as (tab, address):
        assert await tab.read("document.documentElement.scrollWidth <= window.innerWidth")
        assert await tab.read("document.querySelector('h1').getBoundingClientRect().bottom < window.innerHeight / 2")
        cell = "document.querySelector('#connections tbody td')"
        assert await tab.read(f"getComputedStyle({cell}, '::before').content") == '"State: "'
        check_quiet(tab, address)


async def test_the_first_view_needs_no_script(browser: Browser) -> None:
    async with page(browser, Source(full), scripts=False) as (tab, address):
        shown = await tab.text("main")  # read by the debugger, not by the page
        assert "Nothing is read from the venues" in shown
        assert "HeartbeatLost 2" in shown
        assert not any(request.endswith(("/events", "/page.js")) for request in tab.requests)
        assert {urlsplit(request).netloc for request in tab.requests} == {urlsplit(address).netloc}


async def test_a_page_that_has_lost_the_service_says_so_until_it_is_back(browser: Browser) -> None:
    pages = Pages(lambda: b"", healthy, list)
    banner = "document.querySelector('#connection')"
    with trio.fail_after(DEADLINE_S):
        async with browser.tab() as tab:
            await tab.look()
            async with trio.open_nursery() as nursery:
                address = await nursery.start(serve_http, HttpSettings(port=0), pages)
                await tab.open(address)
                assert await tab.read(f"{banner}.hidden")
                nursery.cancel_scope.cancel()
            await tab.until(f"{banner}.innerText.startsWith('Not connected: what you see is from')")
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_http, HttpSettings(port=urlsplit(address).port or 0), pages)
                await tab.until(f"{banner}.hidden")
                nursery.cancel_scope.cancel()


async def test_hostile_texts_do_nothing(browser: Browser) -> None:
    evil = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"
    lost = connection("okx.swap.book.0", state="retrying", last_error=evil)
    source = Source(lambda: status(venue("okx", lost), sink=sink()))
    async with page(browser, source) as (tab, address):
        assert evil in await tab.text("#verdict li .detail")
        source.status = lambda: status(venue("okx", lost), sink=sink(broker_up=False))
        await tab.until(f"{HEADLINE}.startsWith('Kafka is down')")
        assert evil in await tab.text("#connections")
        assert await tab.read("window.hit") is None
        check_quiet(tab, address)
