"""Telling a topic from another one of the same name, by the real broker."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future
from typing import Any

import attrs
import pytest
from confluent_kafka import KafkaError, KafkaException, Uuid
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.sink.errors import SinkFailed
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topic_ids import TopicIds
from tests.services import KafkaBroker

HANG_GUARD = 120.0
_numbers = itertools.count(1)


@attrs.define
class ToyDescription:
    topic_id: Uuid


def asked(answer: Uuid | KafkaError, **settings: Any) -> str | None:
    """What is told by a cluster that answers like this."""

    class ToyAdmin:
        def __init__(self, config: dict[str, Any], **options: Any) -> None: ...

        def poll(self, timeout: float) -> None: ...

        def describe_topics(self, names: Any, **options: Any) -> dict[str, Future[ToyDescription]]:
            future: Future[ToyDescription] = Future()
            if isinstance(answer, KafkaError):
                future.set_exception(KafkaException(answer))
            else:
                future.set_result(ToyDescription(answer))
            return {"commands": future}

    known: Any = ToyAdmin
    return TopicIds(KafkaSettings(bootstrap_servers=("unused:1",), **settings), known).ask("commands")


def create(admin: AdminClient, name: str) -> None:
    """Create a topic whose deletion may not have come everywhere yet."""
    deadline = time.monotonic() + HANG_GUARD
    while True:
        try:
            admin.create_topics([NewTopic(name, 1, 1)])[name].result(HANG_GUARD)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
        else:
            return


def told(ids: TopicIds, name: str, *, but: str | None = None) -> str:
    """The id, as soon as the broker knows of it; another one than `but`."""
    deadline = time.monotonic() + HANG_GUARD
    while time.monotonic() < deadline:
        try:
            found = ids.ask(name)
        except SinkFailed:
            continue  # the controller knows a moment before the broker does
        assert found is not None
        if found != but:
            return found
    pytest.fail(f"{name} is not told of")


def test_a_topic_made_anew_has_another_id(broker: KafkaBroker) -> None:
    name = f"commands-{next(_numbers)}-{time.time_ns()}"
    admin, ids = AdminClient({"bootstrap.servers": broker.bootstrap}), TopicIds(KafkaSettings((broker.bootstrap,)))
    with pytest.raises(SinkFailed, match=f"topic {name} cannot be described"):
        ids.ask(name)
    create(admin, name)
    first = told(ids, name)
    assert ids.ask(name) == first
    admin.delete_topics([name])[name].result(HANG_GUARD)
    create(admin, name)
    assert told(ids, name, but=first) != first


def test_who_does_not_tell_is_not_in_the_way() -> None:
    assert asked(Uuid(5, 7)) == str(Uuid(5, 7))
    assert asked(Uuid(0, 0)) is None
    assert asked(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)) is None
    assert asked(Uuid(5, 7), verify_topics=False) is None


def test_a_cluster_that_does_not_answer_is_asked_again_later() -> None:
    with pytest.raises(SinkFailed, match="topic commands cannot be described"):
        asked(KafkaError(KafkaError._TIMED_OUT))
