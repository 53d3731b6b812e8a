"""The topics as Strimzi's objects: `python -m tests.k8s.topics` writes them anew after a change of kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.config import load
from pipeline.model.events import EVENTS
from pipeline.sink.topics import TopicPlan, plan_topics

K8S = Path(__file__).parent.parent.parent / "k8s"
FILE = K8S / "components/strimzi/topics.yaml"
CONFIG = K8S / "overlays/market-data/config.yaml"

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
    """All topics that the production overlay's configuration may write."""
    kinds = [event.KIND for event in EVENTS]
    return [manifest(plan) for plan in sorted(plan_topics(load(CONFIG).kafka, kinds), key=lambda plan: plan.name)]


if __name__ == "__main__":
    FILE.write_text(_HEAD + yaml.safe_dump_all(manifests(), sort_keys=False), "utf-8")
