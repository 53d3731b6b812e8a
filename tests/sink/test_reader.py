"""Where a partition ends, asked at a bad moment; and schemas that a registry has not."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.sink import reader
from pipeline.sink.errors import SinkFailed
from pipeline.sink.reader import MAX_REFUSED, REFUSED_FOR, Decoder
from pipeline.sink.settings import KafkaSettings, RegistrySettings


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


@attrs.define
class Registry:
    """Has no schema, or does not answer."""

    monkeypatch: pytest.MonkeyPatch
    asked: list[int] = attrs.field(factory=list)
    is_away: bool = False
    now: float = 0.0
    decoder: Decoder = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.monkeypatch.setattr(reader, "fetch_schema", self.fetch)
        settings = KafkaSettings(schema_registry=RegistrySettings("http://registry"))
        self.decoder = Decoder(settings, clock=lambda: self.now)

    def fetch(self, settings: RegistrySettings, name: int) -> str:
        self.asked.append(name)
        if self.is_away:
            raise SinkFailed("nobody answers")
        if name == 9:
            return '{"type": "nonsense"}'
        raise ValueError(f"the registry has no schema {name}")

    def refused(self, name: int) -> str:
        with pytest.raises((ValueError, SinkFailed)) as caught:
            self.decoder.decode(b"\x00" + name.to_bytes(4, "big") + b"fields")
        return str(caught.value)


def test_what_the_registry_has_not_is_not_asked_for_with_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(monkeypatch)
    for name, why in ((7, "the registry has no schema 7"), (9, "no Avro schema")):
        assert why in registry.refused(name)
        assert why in registry.refused(name)
    assert registry.asked == [7, 9]
    registry.now = REFUSED_FOR
    registry.refused(7)
    assert registry.asked == [7, 9, 7], "it may be registered by now"


def test_only_so_many_refusals_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(monkeypatch)
    for name in range(10, 12 + MAX_REFUSED):
        registry.refused(name)
    assert len(registry.decoder._refused) <= MAX_REFUSED + 1
    registry.refused(10)
    assert registry.asked[-1] == 10


def test_silence_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(monkeypatch, is_away=True)
    assert registry.refused(7) == registry.refused(7) == "nobody answers"
    assert registry.asked == [7, 7]
