"""What every test may ask for: the real services, and one Hypothesis profile."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import hypothesis
import pytest
import structlog

from pipeline.observe.recent import RECENT
from tests.schedule import FileByFile
from tests.services import KafkaBroker, KafkaCluster, SchemaRegistry, SecuredBroker

_SERVICES = frozenset({"broker", "own_broker", "secured_broker", "cluster", "registry", "own_registry", "browser"})

# Time limits per example measure the machine, not the code. Hypothesis' own "ci" profile knows that, and draws no seed.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
if hypothesis.settings.get_current_profile_name() == "default":
    hypothesis.settings.load_profile("local")


class OwnBroker(Protocol):
    """Starts a broker for one test, which may kill it; it is gone when the test ends."""

    def __call__(self, config: Mapping[str, str] | None = None) -> KafkaBroker: ...


def pytest_configure() -> None:
    """Undoes what a run in the background, or under `nohup`, hands down to all that it starts: ignored signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what uses a service, directly or through other fixtures, so that the mark is never forgotten."""
    waiting = set()
    for item in items:
        if _SERVICES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.services)
            waiting.add(item.path)
    if hasattr(config, "workerinput"):
        # Files that mostly wait go first: the quick ones then keep every processor busy to the end.
        items.sort(key=lambda item: item.path not in waiting)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileByFile:
    """How tests run side by side."""
    return FileByFile(config, log)


@pytest.fixture(autouse=True)
def undisturbed_logs() -> Iterator[None]:
    """What a test does to the logs of the process is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    RECENT.clear()
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    RECENT.clear()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """The broker that all tests share: use topics and groups of your own, and do not stop it."""
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="module")
def secured_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """The broker with TLS, logins and rights that a module's tests share: use users and topics of your own."""
    with SecuredBroker(tmp_path_factory.mktemp("secured-kafka")) as broker:
        yield broker


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers that a module's tests share; one may kill them, and starts them again.

    They keep a third of a processor busy with each other, so they do not outlive the module.
    """
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistry]:
    """The schema registry that all tests share: use subjects of your own, and do not stop it."""
    with SchemaRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """Brokers that a test has for itself."""
    with ExitStack() as stack:

        def start(config: Mapping[str, str] | None = None) -> KafkaBroker:
            return stack.enter_context(KafkaBroker(tmp_path_factory.mktemp("own-kafka"), config))

        yield start


@pytest.fixture
def own_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistry]:
    """A registry that a test has for itself, and may kill."""
    with SchemaRegistry(tmp_path_factory.mktemp("own-registry")) as registry:
        yield registry
