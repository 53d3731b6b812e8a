"""The rights of the user that takes orders, held against a broker that asks for them: enough, and not to trade."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.config import Config, loads
from pipeline.model.orders import OrderResult
from pipeline.model.secret import Secret
from pipeline.orders.results import ResultWriter, read_results
from pipeline.sink.properties import connection_config
from pipeline.sink.routes import compile_routes
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import prepare_command_topic, prepare_topics
from tests.k8s import topics
from tests.k8s.manifests import Manifests
from tests.k8s.test_kafka_side import accounts, rights
from tests.orders.test_results import result, write
from tests.services import SecuredBroker

HANG_GUARD = 120.0
USER = "pipeline-orders"

_KINDS = {"topic": "TOPIC", "group": "GROUP", "cluster": "BROKER", "transactionalId": "TRANSACTIONAL_ID"}
_OPERATIONS = {
    "Read": "READ",
    "Write": "WRITE",
    "Describe": "DESCRIBE",
    "DescribeConfigs": "DESCRIBE_CONFIGS",
    "IdempotentWrite": "IDEMPOTENT_WRITE",
}


@pytest.fixture
def config(rendered: dict[str, Manifests]) -> Config:
    return loads(rendered["overlays/orders"].config)


@pytest.fixture
def settings(
    secured_broker: SecuredBroker, rendered: dict[str, Manifests], config: Config, tmp_path: Path
) -> KafkaSettings:
    """How the user of the overlay gets into the broker, where its topics are and its rights hold."""
    admin = AdminClient({"bootstrap.servers": secured_broker.bootstrap})
    declared = [each["spec"] for each in rendered["operators/kafka"].of("KafkaTopic")]
    wanted = [
        NewTopic(each["topicName"], 1, 1, config={**each["config"], "min.insync.replicas": "1"}) for each in declared
    ]
    for future in admin.create_topics(wanted).values():
        assert future.exception(HANG_GUARD) is None
    user = rendered["operators/kafka"].one("KafkaUser", USER)
    # All as prefixes: that a name is to be taken literally is held elsewhere.
    granted = [
        (_OPERATIONS[operation], _KINDS[kind], name or "kafka-cluster")
        for kind, name, _, operations in rights(user)
        for operation in operations
    ]
    secured_broker.allow(USER, *granted)
    secured_broker.set_password(USER, "secret")
    (tmp_path / "password").write_text("secret")
    properties = {
        **config.kafka.properties,
        "ssl.ca.location": str(secured_broker.certificates.authority),
        "sasl.password": Secret(file=str(tmp_path / "password")),
    }
    return attrs.evolve(
        config.kafka,
        bootstrap_servers=(secured_broker.sasl,),
        schema_registry=None,
        create_topics=False,
        properties=properties,
    )


async def test_they_are_enough_for_order_entry_and_not_for_giving_orders(
    settings: KafkaSettings, config: Config, secured_broker: SecuredBroker
) -> None:
    every = [plan.name for plan in topics.commands(config)]
    reports = [
        *prepare_topics(settings, config.written_kinds),
        *(report for topic in every for report in prepare_command_topic(settings, topic)),
    ]
    assert [(each.topic, each.outcome, each.errors) for each in reports if each.errors] == []

    commands = every[0]
    assert told(Producer({"bootstrap.servers": secured_broker.bootstrap}), commands) is None
    consumer = Consumer(
        {
            **connection_config(settings),
            "group.id": f"{config.orders.group}.{accounts(config)[0]}",
            "group.instance.id": "ledger",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([commands])
    message = consumer.poll(HANG_GUARD)
    assert message is not None
    assert message.error() is None
    assert consumer.commit(message=message, asynchronous=False)
    (left,) = consumer.committed([TopicPartition(commands, 0)], timeout=HANG_GUARD)
    assert left.offset == 1
    consumer.close()

    route = (await compile_routes(settings))[OrderResult]
    with trio.fail_after(HANG_GUARD):
        assert await write(ResultWriter(settings, route), result(1)) == ["c-1"]
    assert [fields["command_id"] for fields in read_results(settings, route.topic, 0, lambda _: True)] == ["c-1"]

    refusal = told(Producer(connection_config(settings)), commands)
    assert refusal is not None
    assert refusal.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def told(producer: Producer, topic: str) -> KafkaError | None:
    """What Kafka says to one record."""
    answers: list[KafkaError | None] = []
    producer.produce(topic, b"a command", on_delivery=lambda error, _: answers.append(error))
    assert producer.flush(HANG_GUARD) == 0
    (answer,) = answers
    return answer
