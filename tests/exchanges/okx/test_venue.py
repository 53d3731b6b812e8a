from __future__ import annotations

import pytest

from tests.exchanges.okx.samples import VENUE


def test_environments() -> None:
    assert {name: (hosts.websocket, hosts.rest) for name, hosts in VENUE.environments.items()} == {
        "production": ("wss://ws.okx.com:8443", "https://openapi.okx.com"),
        "demo": ("wss://wspap.okx.com:8443", "https://openapi.okx.com"),
        "eea": ("wss://wseea.okx.com:8443", "https://eea.okx.com"),
        "eea-demo": ("wss://wseeapap.okx.com:8443", "https://eea.okx.com"),
        "us": ("wss://wsus.okx.com:8443", "https://us.okx.com"),
        "us-demo": ("wss://wsuspap.okx.com:8443", "https://us.okx.com"),
    }
    assert next(iter(VENUE.environments)) == "production"


def test_demo_trading_needs_a_header_over_rest() -> None:
    headers = {name: dict(hosts.rest_headers) for name, hosts in VENUE.environments.items()}
    assert headers == {name: {"x-simulated-trading": "1"} if "demo" in name else {} for name in headers}


@pytest.mark.parametrize("endpoint", VENUE.streams)
def test_paths_and_limits(endpoint: str) -> None:
    assert VENUE.path(endpoint, VENUE.session_times) == f"/ws/v5/{endpoint}"
    limits = VENUE.limits(endpoint)
    assert limits.bytes_per_request < 64 * 1024
    assert limits.books_per_connection < 30
    assert limits.requests.count <= 480
    assert limits.requests.seconds == 3600.0


def test_rates_keep_within_what_the_venue_allows() -> None:
    assert VENUE.connects.count / VENUE.connects.seconds <= 3.0
    assert VENUE.rest_requests.count / VENUE.rest_requests.seconds <= 5.0
    assert VENUE.session_problems(VENUE.session_times) == []
