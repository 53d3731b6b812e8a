"""Three Apache Kafka brokers in one cluster, on loopback: every topic on all of them, written by at least two."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from tests.services.broker import KafkaBroker
from tests.services.process import POLL_S, ServiceFailed

_NODES = 3
_HEAP_MB = 160
_SETTLED_WITHIN_S = 60.0

_CONFIG = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # What a test waits for: the loss of a controller, of a broker, of a replica.
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "200",
    "replica.lag.time.max.ms": "3000",
    "replica.fetch.wait.max.ms": "100",
    "leader.imbalance.check.interval.seconds": "2",
}


class Node(KafkaBroker):
    """One broker of a cluster; it is ready when the others know it, so the first two must start at once."""

    def __init__(self, folder: Path, node: int, config: Mapping[str, str]) -> None:
        super().__init__(folder, {**_CONFIG, **config}, node=node, heap_mb=_HEAP_MB)

    def _await_ready(self) -> None:
        admin = _admin(self.bootstrap)
        for _ in self._attempts():
            try:
                if self.node in admin.list_topics(timeout=1.0).brokers:
                    return
            except KafkaException:
                continue


class KafkaCluster:
    """Three brokers; `bootstrap` names all of them. As a context manager it is started on entry, killed on exit."""

    def __init__(self, folder: Path, config: Mapping[str, str] | None = None) -> None:
        self.nodes = {number: Node(folder / f"node-{number}", number, config or {}) for number in range(1, _NODES + 1)}
        voters = {number: node.controller for number, node in self.nodes.items()}
        for node in self.nodes.values():
            node.voters = voters

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers."""
        return ",".join(node.bootstrap for node in self.nodes.values())

    def start(self) -> None:
        """Start whoever does not run, all at once; raises `ServiceFailed`."""
        absent = [node for node in self.nodes.values() if not node.running]
        with ThreadPoolExecutor(_NODES) as pool:
            list(pool.map(lambda node: node.start(), absent))

    def kill(self) -> None:
        """SIGKILL to all."""
        for node in self.nodes.values():
            node.kill()

    def create_topic(self, topic: str, partitions: int) -> None:
        """A topic on all brokers, ready to be written."""
        admin = _admin(self.bootstrap)
        admin.create_topics([NewTopic(topic, partitions, _NODES)])[topic].result()
        self.await_in_sync(topic)

    def leader(self, topic: str, partition: int = 0) -> Node:
        """The broker that leads a partition; waits for one."""
        found = self._await(
            lambda metadata: (
                topic in metadata.topics and metadata.topics[topic].partitions[partition].leader in self.nodes
            ),
            f"{topic}[{partition}] has no leader",
        )
        return self.nodes[found.topics[topic].partitions[partition].leader]

    def await_in_sync(self, topic: str) -> None:
        """Return when every partition of the topic has all its replicas."""
        self._await(
            lambda metadata: (
                topic in metadata.topics
                and bool(metadata.topics[topic].partitions)
                and all(len(p.isrs) == _NODES for p in metadata.topics[topic].partitions.values())
            ),
            f"{topic} is not in sync",
        )

    def _await(self, is_so: Callable[[ClusterMetadata], bool], failing: str) -> ClusterMetadata:
        admin, deadline = _admin(self.bootstrap), time.monotonic() + _SETTLED_WITHIN_S
        while time.monotonic() < deadline:
            try:
                metadata = admin.list_topics(timeout=2.0)
            except KafkaException:
                continue
            if is_so(metadata):
                return metadata
            time.sleep(POLL_S)
        raise ServiceFailed(f"{failing} after {_SETTLED_WITHIN_S:g} s")


def _admin(bootstrap: str) -> AdminClient:
    # Refused connections are expected here.
    return AdminClient({"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 100, "log_level": 2})
