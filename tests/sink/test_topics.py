from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import attrs
import pytest
import trio
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from pipeline.avro.schemas import ORDER_COMMAND
from pipeline.model.errors import Refused
from pipeline.model.events import KINDS
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.settings import KafkaSettings, TopicSettings
from pipeline.sink.topics import (
    TopicReport,
    command_topic,
    group_of,
    plan_topics,
    prepare_command_topic,
    prepare_topics,
    topic_name,
)
from tests.services import KafkaBroker

NEEDED = 1_010_000


def test_names_follow_the_template() -> None:
    settings = KafkaSettings()
    assert topic_name(settings, "book_update") == "market.book_update"
    assert topic_name(settings, "instrument") == "market.instrument"
    assert topic_name(settings, "dead_letter") == "control.dead_letter"
    assert (group_of("fill"), group_of("order_command")) == ("account", "order")
    assert topic_name(KafkaSettings(topic_template="crypto-{kind}"), "trade") == "crypto-trade"


def test_a_plan_prefers_the_kind_then_the_defaults_of_all_then_ours() -> None:
    settings = KafkaSettings(
        topic_defaults=TopicSettings(retention=3_600, config={"segment.ms": "1", "min.insync.replicas": "2"}),
        topics={"trade": TopicSettings(partitions=12, replication_factor=3, config={"segment.ms": "2"})},
    )
    plans = {plan.kind: plan for plan in plan_topics(settings, KINDS)}
    trade = plans["trade"]
    assert (trade.partitions, trade.replication_factor, trade.partitions_matter) == (12, 3, True)
    assert trade.config == {
        "compression.type": "producer",
        "max.message.bytes": str(NEEDED),
        "cleanup.policy": "delete",
        "retention.ms": "3600000",
        "segment.ms": "2",
        "min.insync.replicas": "2",
    }
    assert plans["instrument"].config["cleanup.policy"] == "compact"
    assert "retention.ms" not in plans["instrument"].config
    defaults = {plan.kind: plan for plan in plan_topics(KafkaSettings(), KINDS)}
    assert defaults["dead_letter"].config["retention.ms"] == str(14 * 86_400_000)


@pytest.mark.parametrize(
    ("settings", "partitions"),
    [
        (KafkaSettings(), 1),
        (KafkaSettings(topic_defaults=TopicSettings(partitions=12)), 1),
        (KafkaSettings(topics={ORDER_COMMAND: TopicSettings(partitions=2)}), 2),
    ],
)
def test_commands_have_one_partition_unless_more_are_asked_for(settings: KafkaSettings, partitions: int) -> None:
    [plan] = plan_topics(settings, [ORDER_COMMAND])
    assert (plan.partitions, plan.partitions_matter) == (partitions, True)


def test_a_command_topic_is_made_as_it_is_planned(settings: KafkaSettings) -> None:
    many = attrs.evolve(settings, topic_defaults=TopicSettings(partitions=2))
    name = command_topic(settings, "okx", "desk")
    assert [report.outcome for report in prepare_command_topic(many, name)] == ["created"]
    assert prepare_command_topic(many, name) == [TopicReport(name, "present")]
    wanted = attrs.evolve(settings, topics={ORDER_COMMAND: TopicSettings(partitions=3)})
    [report] = prepare_command_topic(wanted, name)
    assert report.warnings == ("has 1 partitions, 3 are configured",)


def test_missing_topics_are_created_and_then_found_as_planned(settings: KafkaSettings) -> None:
    created = prepare_topics(settings, KINDS)
    assert {report.outcome for report in created} == {"created"}
    assert {report.topic for report in created} == {topic_name(settings, kind) for kind in KINDS}
    found = prepare_topics(settings, KINDS)
    assert found == [TopicReport(topic_name(settings, kind), "present") for kind in KINDS]


def test_what_differs_is_told(broker: KafkaBroker, settings: KafkaSettings) -> None:
    settings = attrs.evolve(settings, topics={"trade": TopicSettings(partitions=3)})
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    trade, ticker, instrument = (topic_name(settings, kind) for kind in ("trade", "ticker", "instrument"))
    wrong = [
        NewTopic(trade, 2, config={"max.message.bytes": "1000"}),
        NewTopic(ticker, 1, config={"cleanup.policy": "compact", "max.message.bytes": str(NEEDED)}),
        NewTopic(instrument, 1, config={"max.message.bytes": str(NEEDED)}),
    ]
    for future in admin.create_topics(wrong).values():
        future.result()
    reports = {report.topic: report for report in prepare_topics(settings, ["trade", "ticker", "instrument"])}
    assert reports[trade].warnings == ("has 2 partitions, 3 are configured",)
    assert reports[trade].errors == (
        f"max.message.bytes is 1000, below the {NEEDED} that kafka.max_record_bytes makes necessary",
    )
    assert reports[ticker].errors == (
        "cleanup.policy is compact: compaction would delete all but the latest record of a key",
    )
    assert reports[instrument].warnings == ("cleanup.policy is delete, compact is configured",)


def test_new_topics_are_ready_when_their_partitions_answer(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that is not led yet can lose the first batch; metadata shows it before it is."""
    ask, asked = AdminClient.list_offsets, []

    def not_at_once(admin: AdminClient, partitions: dict[TopicPartition, OffsetSpec], **options: Any) -> Any:
        asked.append(set(partitions))
        answers = ask(admin, partitions, **options)
        if len(asked) < 3:
            refused: Future[None] = Future()
            refused.set_exception(KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)))
            answers[next(iter(partitions))] = refused
        return answers

    monkeypatch.setattr(AdminClient, "list_offsets", not_at_once)
    created = prepare_topics(attrs.evolve(settings, topic_defaults=TopicSettings(partitions=2)), ["trade", "ticker"])
    assert [report.outcome for report in created] == ["created", "created"]
    names = {topic_name(settings, kind) for kind in ("trade", "ticker")}
    assert asked[-1] == {TopicPartition(name, number) for name in names for number in range(2)}
    assert len(asked) >= 3


async def test_a_missing_topic_that_may_not_be_created_ends_the_start(settings: KafkaSettings) -> None:
    with pytest.raises(SinkFailed, match=r"topic t\w+\.market\.trade: does not exist, and create_topics is off"):
        async with open_sink(attrs.evolve(settings, create_topics=False)):
            pytest.fail("it must not open")


def test_a_topic_that_cannot_be_created_says_why(settings: KafkaSettings) -> None:
    settings = attrs.evolve(settings, topic_defaults=TopicSettings(replication_factor=3))
    (report,) = prepare_topics(settings, ["trade"])
    assert report.outcome == "missing"
    assert "replication factor" in report.errors[0]


async def test_being_refused_at_start_is_told(settings: KafkaSettings) -> None:
    wrong = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "hush",
    }
    with trio.fail_after(60), pytest.raises(Refused, match=r"^Kafka at 127\.0\.0\.1:\d+ refused us: .*SASL"):
        async with open_sink(attrs.evolve(settings, properties=wrong)):
            pytest.fail("it must not open")
