"""Topics of each test's own on the shared services, and a certificate for simulated venues."""

from __future__ import annotations

import ssl
import uuid
from pathlib import Path

import pytest
import trustme

from tests.e2e.consumer import Topics
from tests.services import KafkaBroker, SchemaRegistry


@pytest.fixture
def topics(broker: KafkaBroker, registry: SchemaRegistry) -> Topics:
    """Topics that no other test has."""
    return Topics(broker, registry, f"e2e-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whom the connector is told to trust."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a simulated venue serves TLS with."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
