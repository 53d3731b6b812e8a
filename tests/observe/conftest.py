"""One browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A running Chromium that all tests share: use tabs of your own."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
