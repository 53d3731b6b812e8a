"""The services themselves, and the files they are made of."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import Schema
from jgo.maven import MavenContext

from tests.conftest import OwnBroker
from tests.services import KafkaBroker, SchemaRegistry, ServiceFailed, artifacts, process
from tests.services.artifacts import ProvisioningError, file_digest, provision
from tests.services.ports import reserve_port

DEADLINE_S = 120


def create_topic(broker: KafkaBroker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # must outlive its answer
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()


def produce(broker: KafkaBroker, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    producer.produce(topic, value)
    assert producer.flush(DEADLINE_S) == 0


def consume(broker: KafkaBroker, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": topic, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, DEADLINE_S)]
    finally:
        consumer.close()


def test_what_is_produced_is_consumed(broker: KafkaBroker, request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("services"), "`-m 'not services'` would run this"
    create_topic(broker, "services.roundtrip")
    produce(broker, "services.roundtrip", b"one")
    assert consume(broker, "services.roundtrip", 1) == [b"one"]


def test_topics_are_not_created_by_themselves(broker: KafkaBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    unknown = admin.list_topics("services.unknown", timeout=DEADLINE_S).topics["services.unknown"]
    assert unknown.error == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert not {"services.unknown", "readiness-probe"} & set(admin.list_topics(timeout=DEADLINE_S).topics)


def test_acknowledged_records_survive_sigkill_and_settings_are_taken(own_broker: OwnBroker) -> None:
    broker = own_broker({"message.max.bytes": "5000"})
    bootstrap = broker.bootstrap
    create_topic(broker, "survives")
    produce(broker, "survives", b"before")
    broker.kill()
    assert not broker.running
    broker.restart()
    assert broker.bootstrap == bootstrap
    produce(broker, "survives", b"after")
    assert consume(broker, "survives", 2) == [b"before", b"after"]

    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce("survives", bytes(6000), on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(DEADLINE_S) == 0
    (error,) = errors
    assert error is not None
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE

    broker.stop()
    assert not broker.running


def test_a_broker_that_cannot_start_shows_its_log(own_broker: OwnBroker) -> None:
    with pytest.raises(ServiceFailed, match=r"(?s)kafka ended while starting.*--- kafka\.log.*no\.such\.Authorizer"):
        own_broker({"authorizer.class.name": "no.such.Authorizer"})
    with pytest.raises(ServiceFailed, match=r"(?s)StorageTool.*format.*Invalid value one"):
        own_broker({"node.id": "one"})


def test_brokers_take_their_classes_from_the_archive(broker: KafkaBroker) -> None:
    """A JVM that cannot use it says nothing, and is slow, unless it is told to insist."""
    insisting = ("-XX:AOTMode=on", *broker._classes(), f"@{broker._java_arguments}")
    process.run_java(*insisting, "kafka.tools.StorageTool", "random-uuid")


def test_a_registered_schema_is_found_also_after_sigkill(own_registry: SchemaRegistry) -> None:
    schema = Schema('{"type": "record", "name": "Probe", "fields": [{"name": "at", "type": "long"}]}', "AVRO")
    with own_registry.client() as client:
        identifier = client.register_schema("probe-value", schema)
    own_registry.kill()
    own_registry.start()
    with own_registry.client() as client:
        assert client.lookup_schema("probe-value", schema).schema_id == identifier
        assert client.get_schema(identifier).schema_str == schema.schema_str


def test_the_registry_checks_no_compatibility_until_told(registry: SchemaRegistry) -> None:
    with registry.client() as client:
        assert client.get_config().compatibility_level == "NONE"


class Sleeper(process.Service):
    """A service that holds a lock while it lives, and needs no JVM."""

    program = """
import fcntl, time
held = open('held', 'wb')
fcntl.flock(held, fcntl.LOCK_EX)
print('up', flush=True)
time.sleep(600)
"""

    def _prepare(self) -> None:
        self._output.unlink(missing_ok=True)

    def _command(self) -> Sequence[str]:
        return ["/bin/sh", "-c", f'cd {self.folder} && exec {sys.executable} -c "{self.program}"']

    def _await_ready(self) -> None:
        for _ in self._attempts():
            if self._output.read_text():
                return


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_service_does_not_outlive_a_killed_test_run(tmp_path: Path) -> None:
    run = (
        "import os, pathlib, signal; from tests.test_services import Sleeper;"
        f"Sleeper('sleeper', pathlib.Path({str(tmp_path)!r})).start();"
        "print('started', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", run], check=False, stdout=subprocess.PIPE, timeout=DEADLINE_S)
    assert done.stdout == b"started\n"
    deadline = time.monotonic() + DEADLINE_S
    while is_locked(tmp_path / "held"):
        assert time.monotonic() < deadline, "the service lives on"
        time.sleep(0.01)


def test_a_service_is_killed_frozen_or_not_and_starts_again(tmp_path: Path) -> None:
    sleeper = Sleeper("sleeper", tmp_path)
    with sleeper:
        assert is_locked(tmp_path / "held")
        with pytest.raises(ServiceFailed, match="running already"):
            sleeper.start()
        sleeper.freeze()
        sleeper.kill()
        assert not is_locked(tmp_path / "held")
        with pytest.raises(ServiceFailed, match="not running"):
            _ = sleeper.pid
        sleeper.start()
        first = sleeper.pid
        sleeper.restart()
        assert sleeper.pid != first
    assert not sleeper.running


def test_a_service_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_WITHIN_S", 0.1)
    sleeper = Sleeper("sleeper", tmp_path)
    sleeper.start()
    sleeper.freeze()
    with pytest.raises(ServiceFailed, match=r"did not end within 0\.1 s of SIGTERM"):
        sleeper.stop()
    assert not is_locked(tmp_path / "held")


def test_reserved_ports_differ() -> None:
    ports = {reserve_port() for _ in range(50)}
    assert len(ports) == 50
    assert max(ports) < 32_768


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the central repository, with the cache beside it; every fetch is one file taken from there."""
    folder = tmp_path / "upstream"
    folder.mkdir()

    def fetch(path: str, scratch: Path) -> Path:
        (fetched := scratch / Path(path).name).write_bytes((folder / Path(path).name).read_bytes())
        with (folder / "fetches").open("a") as fetches:
            fetches.write(f"{path}\n")
        return fetched

    monkeypatch.setattr(artifacts, "fetch", fetch)
    monkeypatch.setenv("PIPELINE_TEST_CACHE", str(tmp_path / "cache"))
    return folder


def test_files_are_fetched_once_and_again_when_damaged(upstream: Path) -> None:
    (upstream / "a-1.jar").write_bytes(b"good")
    pins = {"g/a/1/a-1.jar": file_digest(upstream / "a-1.jar")}
    (jar,) = provision(pins)
    assert jar.read_bytes() == b"good"
    assert provision(pins) == [jar]
    assert (upstream / "fetches").read_text() == "g/a/1/a-1.jar\n"

    jar.write_bytes(b"goo")
    assert provision(pins) == [jar]
    assert jar.read_bytes() == b"good"
    assert (upstream / "fetches").read_text() == "g/a/1/a-1.jar\n" * 2


def test_a_file_that_is_not_the_pinned_one_is_refused_by_name(upstream: Path, tmp_path: Path) -> None:
    (upstream / "a-1.jar").write_bytes(b"forged")
    with pytest.raises(ProvisioningError, match=r"g/a/1/a-1\.jar: fetched a file with SHA-256 .* but 00 is pinned"):
        provision({"g/a/1/a-1.jar": "00"})
    assert (upstream / "fetches").read_text() == "g/a/1/a-1.jar\n"
    assert not list((tmp_path / "cache").rglob("*.jar"))


def test_another_run_that_fetches_is_waited_for(upstream: Path, tmp_path: Path) -> None:
    (upstream / "a-1.jar").write_bytes(b"good")
    (folder := tmp_path / "cache" / "g/a/1").mkdir(parents=True)
    provisioning = threading.Thread(target=provision, args=({"g/a/1/a-1.jar": file_digest(upstream / "a-1.jar")},))
    with (tmp_path / "cache" / "artifacts.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        provisioning.start()
        provisioning.join(0.2)
        assert provisioning.is_alive()
        (folder / "a-1.jar").write_bytes(b"good")
    provisioning.join(DEADLINE_S)
    assert not (upstream / "fetches").exists()


class Flaky:
    """An artifact whose first downloads break off, leaving a part behind."""

    def __init__(self, target: Path, failures: int) -> None:
        self.target = target
        self.failures = failures

    def resolve(self) -> Path:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with self.target.open("xb") as file:
            file.write(b"part")
            if self.failures:
                self.failures -= 1
                raise requests.ConnectionError("broke off")
            file.write(b", rest")
        return self.target


def test_a_download_that_breaks_off_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(tmp_path / "g/a/1/a-1.jar", failures=2)
    monkeypatch.setattr(artifacts, "_artifact", lambda *_: flaky)
    assert artifacts.fetch("g/a/1/a-1.jar", tmp_path).read_bytes() == b"part, rest"
    flaky.target.unlink()
    flaky.failures = 3
    with pytest.raises(ProvisioningError, match=r"a-1\.jar: cannot be fetched: broke off"):
        artifacts.fetch("g/a/1/a-1.jar", tmp_path)


def test_what_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unplugged:
        def resolve(self) -> Path:
            raise RuntimeError("not found")

    monkeypatch.setattr(artifacts, "_artifact", lambda *_: Unplugged())
    with pytest.raises(ProvisioningError, match=r"g/a/1/a-1\.jar: cannot be fetched: not found"):
        artifacts.fetch("g/a/1/a-1.jar", tmp_path)


@pytest.mark.parametrize(
    ("path", "coordinates"),
    [
        ("org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar", ("org.slf4j", "slf4j-api", "1.7.36", "", "jar")),
        ("a/b/c-d/1.0-x/c-d-1.0-x-all.tar.gz", ("a.b", "c-d", "1.0-x", "all", "tar.gz")),
    ],
    ids=["plain", "classified"],
)
def test_a_repository_path_names_an_artifact(path: str, coordinates: tuple[str, ...], tmp_path: Path) -> None:
    artifact = artifacts._artifact(MavenContext(repo_cache=tmp_path), path)
    assert (*artifact.key[:3], artifact.classifier, artifact.packaging) == coordinates
    assert artifact.component.path_prefix / artifact.filename == Path(path)


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIPELINE_TEST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert artifacts.cache_folder() == tmp_path / "exchange-pipeline" / "test-services"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert artifacts.cache_folder().is_relative_to(Path.home())
