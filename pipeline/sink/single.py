"""One record into Kafka, waited for: what people write by hand."""

from __future__ import annotations

import attrs
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import create_client, producer_config
from pipeline.sink.refusals import LastError
from pipeline.sink.settings import KafkaSettings


def write_record(settings: KafkaSettings, topic: str, key: bytes, value: bytes, time_ms: int, within: float) -> bool:
    """Whether Kafka has confirmed the record within so many seconds; without that it may be there or not. Blocks.

    Raises `SinkFailed` when the topic does not exist, or Kafka cannot be asked or does not take it; `ConfigError` and
    `Refused` for settings that no producer can be made of.
    """
    trouble = LastError()
    plain = attrs.evolve(settings, delivery="at_least_once", linger=0.0, statistics_interval=0.0)
    producer = create_client(Producer, producer_config(plain) | {"error_cb": trouble}, settings)
    reports: list[KafkaError | None] = []

    def reported(error: KafkaError | None, message: Message) -> None:
        reports.append(error)

    try:
        if settings.verify_topics and topic not in producer.list_topics(timeout=within).topics:
            raise SinkFailed(f"no such topic: {topic}")
        producer.produce(topic, value, key, -1, reported, None, time_ms)
    except KafkaException as failure:
        raise SinkFailed(f"no answer from Kafka: {trouble.told(settings, producer, failure)}") from None
    producer.flush(within)
    if not reports:  # what has not left yet shall not leave later
        producer.purge(in_queue=True, in_flight=True)
        producer.flush(0)
        return False
    if reports[0] is not None:
        raise SinkFailed(f"topic {topic} does not take the record: {reports[0].str()}")
    return True
