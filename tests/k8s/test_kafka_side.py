"""Kafka's side as code: the connector's own topics, and rights to write them, to read commands, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from pipeline.avro.schemas import ORDER_COMMAND
from pipeline.config import Config, loads
from pipeline.model.events import EVENTS
from pipeline.model.orders import OrderResult
from pipeline.sink.settings import WATERMARK
from pipeline.sink.topics import group_of, topic_name
from tests.k8s import topics
from tests.k8s.manifests import PRODUCTION, Manifests, Object

Rendered = Mapping[str, Manifests]

# What Strimzi's definitions know of the fields that are used here; misspelt ones would be dropped without a word.
TOPIC_FIELDS = {"topicName", "partitions", "replicas", "config"}
OPERATIONS = {"Read", "Write", "Describe", "DescribeConfigs", "IdempotentWrite"}


def test_topics_are_those_of_the_program() -> None:
    written = list(yaml.safe_load_all(topics.FILE.read_text("utf-8")))
    assert written == topics.manifests(), "run `python -m tests.k8s.topics`"


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_every_topic_that_an_installation_writes_is_there(rendered: Rendered, overlay: str) -> None:
    settings = loads(rendered[overlay].config).kafka
    declared = {each["spec"]["topicName"]: each["spec"] for each in rendered["operators/kafka"].of("KafkaTopic")}
    commands = {plan.name for plan in topics.commands(loads(rendered["overlays/orders"].config))}
    assert set(declared) == {topic_name(settings, event.KIND) for event in EVENTS} | commands
    for spec in declared.values():
        assert set(spec) == TOPIC_FIELDS
        assert spec["replicas"] == settings.topic_defaults.replication_factor == 3
        assert spec["config"]["min.insync.replicas"] == "2"
        assert spec["config"]["compression.type"] == "producer"


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_each_installation_has_a_user_with_the_rights_that_it_needs(rendered: Rendered, overlay: str) -> None:
    config = loads(rendered[overlay].config)
    settings = config.kafka
    user = rendered["operators/kafka"].one("KafkaUser", str(settings.properties["sasl.username"]))
    assert user["spec"]["authentication"] == {"type": str(settings.properties["sasl.mechanism"]).lower()}
    granted = rights(user)
    for event in EVENTS:
        name = topic_name(settings, event.KIND)
        expected = {"Write", "Describe", "DescribeConfigs"} if event.KIND in config.written_kinds else set()
        if event is OrderResult and expected:
            expected.add("Read")  # what was told already is not told twice
        assert allowed(granted, "topic", name) == expected, name
    assert allowed(granted, "topic", "other.topic") == set()
    watermark = f"{group_of(WATERMARK)}.{WATERMARK}"
    assert allowed(granted, "topic", watermark) >= {"Read", "Write", "Describe"}
    commands = {plan.name for plan in topics.commands(config)}
    groups = [f"{config.orders.group}.{name}" for name in accounts(config)]
    assert len(groups) == len(commands)
    for name in commands:
        assert allowed(granted, "topic", name) == {"Read", "Describe", "DescribeConfigs"}, "whoever writes it trades"
    readable = {name for _, name, _, operations in granted if "Read" in operations} - {watermark}
    results, group = topic_name(settings, OrderResult.KIND), f"{config.orders.group}."
    assert readable == ({f"{topic_name(settings, ORDER_COMMAND)}.", results, group} if commands else set())
    for name in groups:
        assert allowed(granted, "group", name) == {"Read"}
    assert allowed(granted, "group", "another") == set()
    assert settings.client_id == user["metadata"]["name"], "of which transactional ids are made"
    assert allowed(granted, "transactionalId", f"{settings.client_id}-0-of-2") == {"Write", "Describe"}
    assert allowed(granted, "transactionalId", "somebody") == set()
    assert allowed(granted, "cluster", "") == {"IdempotentWrite"}


def accounts(config: Config) -> list[str]:
    """Those that orders are taken for, as `venue.account`."""
    return [f"{venue}.{account}" for venue, found in config.orders.accounts.items() for account in found]


def rights(user: Object) -> list[tuple[str, str, bool, set[str]]]:
    """Kind of resource, name, whether that is a prefix, and operations."""
    found = []
    for rule in user["spec"]["authorization"]["acls"]:
        assert set(rule) == {"resource", "operations"}
        assert set(rule["resource"]) <= {"type", "name", "patternType"}
        assert set(rule["operations"]) <= OPERATIONS
        resource = rule["resource"]
        prefix = resource.get("patternType", "literal") == "prefix"
        found.append((resource["type"], resource.get("name", ""), prefix, set(rule["operations"])))
    return found


def allowed(granted: list[tuple[str, str, bool, set[str]]], kind: str, name: str) -> set[str]:
    """Operations on a resource."""
    return {
        operation
        for each, granted_name, prefix, operations in granted
        if each == kind and (name.startswith(granted_name) if prefix else name == granted_name)
        for operation in operations
    }
