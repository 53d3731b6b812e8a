"""The topics as Strimzi's objects: `python -m tests.k8s.topics` writes them anew after a change of kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml

from pipeline.avro.schemas import ORDER_COMMAND
from pipeline.config import Config, load
from pipeline.model.events import EVENTS
from pipeline.sink.topics import TopicPlan, command_topic, plan_topics

K8S = Path(__file__).parent.parent.parent / "k8s"
FILE = K8S / "components/strimzi/topics.yaml"
CONFIG = K8S / "overlays/market-data/config.yaml"
ORDERS = K8S / "overlays/orders/config.yaml"

_HEAD = "# Written by `python -m tests.k8s.topics` from the connector's own plan; a test holds both together.\n"


def manifest(plan: TopicPlan) -> dict[str, Any]:
    """The object of one topic; its name is the topic's as far as Kubernetes takes it."""
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": {
            "name": plan.name.replace("_", "-"),
            "namespace": "kafka",
            "labels": {
                "strimzi.io/cluster": "kafka",
                "app.kubernetes.io/name": plan.name,
                "app.kubernetes.io/component": "kafka-topic",
                "app.kubernetes.io/part-of": "exchange-pipeline",
            },
        },
        "spec": {
            "topicName": plan.name,
            "partitions": plan.partitions,
            "replicas": plan.replication_factor,
            "config": dict(plan.config),
        },
    }


def manifests() -> list[dict[str, Any]]:
    """All topics that the production overlays' configurations may write, and those that they read commands from."""
    plans = [*plan_topics(load(CONFIG).kafka, [event.KIND for event in EVENTS]), *commands(load(ORDERS))]
    return [manifest(plan) for plan in sorted(plans, key=lambda plan: plan.name)]


def commands(config: Config) -> Iterator[TopicPlan]:
    """The topic of each account that orders are taken for."""
    (plan,) = plan_topics(config.kafka, [ORDER_COMMAND])
    for venue, accounts in config.orders.accounts.items():
        for account, wanted in accounts.items():
            name = wanted.command_topic or command_topic(config.kafka, venue, account)
            yield attrs.evolve(plan, name=name, is_written=False)


if __name__ == "__main__":
    FILE.write_text(_HEAD + yaml.safe_dump_all(manifests(), sort_keys=False), "utf-8")
