"""A real Kafka broker and a real schema registry for tests: provisioned, started, killed, restarted."""

from __future__ import annotations

from tests.services.broker import KafkaBroker
from tests.services.cluster import KafkaCluster
from tests.services.process import ServiceFailed
from tests.services.registry import SchemaRegistry
from tests.services.secured import SecuredBroker

__all__ = ["KafkaBroker", "KafkaCluster", "SchemaRegistry", "SecuredBroker", "ServiceFailed"]
