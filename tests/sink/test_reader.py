"""Where a partition ends, asked at a bad moment."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.sink import reader


@attrs.define
class Cluster:
    """Answers with errors first."""

    errors: list[int]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop(0)))
        return 3, 7


def bounds(cluster: Any) -> tuple[int, int]:
    return reader._bounds(cast("Consumer", cluster), TopicPartition("t", 0))


def test_a_leader_that_does_not_know_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PAUSE_S", 0)
    changing = [KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.OFFSET_NOT_AVAILABLE]
    assert bounds(Cluster(changing)) == (3, 7)


def test_a_refusal_is_not_asked_about_again() -> None:
    cluster = Cluster([KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(KafkaException):
        bounds(cluster)
    assert len(cluster.errors) == 1
