"""One browser for all tests of the page, and logs as the service writes them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from pipeline.observe.logs import configure
from pipeline.observe.settings import LogSettings
from tests.services.browser import Browser
from tests.services.ports import reserve_port


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A running Chromium that all tests share: use tabs of your own."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def logged() -> io.StringIO:
    """Where the log goes, as JSON lines, all levels."""
    stream = io.StringIO()
    configure(LogSettings(level="debug"), stream)
    return stream


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    return reserve_port()
