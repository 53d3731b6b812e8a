"""The settings as librdkafka properties; secrets are revealed here, at the last moment, and nowhere logged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from pipeline.model.errors import ConfigError
from pipeline.model.secret import Secret
from pipeline.sink.credentials import token_config
from pipeline.sink.settings import KafkaSettings

BATCH_HEADROOM = 10_000
"""Places in librdkafka's queue above the high-water mark, so that what comes from the spool is never refused there."""

BATCH_OVERHEAD_BYTES = 10_000
"""What a batch may be larger than its largest record: headers of the record and of the batch."""

IN_FLIGHT = 1
"""Requests on the way to one broker.

With more, a partition whose first batch is refused for a moment (its leader has just learnt of it) may take the second
one. A broker lets a producer's first records begin anywhere, so the first batch, sent again, passes for a repetition:
acknowledged, but in no log. That needs no new topic: a new partition, or one whose records have all expired, will do.
"""

_OURS = "is set by kafka.{}"
REFUSED = {
    "bootstrap.servers": _OURS.format("bootstrap_servers"),
    "metadata.broker.list": _OURS.format("bootstrap_servers"),
    "client.id": _OURS.format("client_id"),
    "linger.ms": _OURS.format("linger"),
    "queue.buffering.max.ms": _OURS.format("linger"),
    "compression.type": _OURS.format("compression"),
    "compression.codec": _OURS.format("compression"),
    "queue.buffering.max.messages": _OURS.format("queue_messages"),
    "queue.buffering.max.kbytes": _OURS.format("queue_bytes"),
    "message.max.bytes": _OURS.format("max_record_bytes"),
    "statistics.interval.ms": _OURS.format("statistics_interval"),
    "enable.idempotence": "is always true: without it a retry can repeat or reorder records",
    "acks": "is always all: with less a broker's failure loses acknowledged records",
    "request.required.acks": "is always all: with less a broker's failure loses acknowledged records",
    "message.timeout.ms": "is always 0: a timed-out record may be in the log or not, nobody can tell",
    "delivery.timeout.ms": "is always 0: a timed-out record may be in the log or not, nobody can tell",
    "retries": "is unlimited: records are kept until they are delivered",
    "message.send.max.retries": "is unlimited: records are kept until they are delivered",
    "partitioner": "is always murmur2_random, by the key: with another one records of a key may lose their order",
    "default.topic.config": "hides properties from these checks; give them here by their own names",
    "delivery.report.only.error": "is always false: every record is accounted for by its report",
    "transactional.id": _OURS.format("shard"),
    "isolation.level": "is chosen by whoever reads back: what was committed, where transactions are used",
}
"""Properties that are not the user's to set, and why."""

_SHARED = re.compile(r"(security|sasl|ssl|socket|broker|reconnect|enable\.(sasl|ssl)|oauthbearer|client|debug|log)\b")
"""Properties of the connection, which consumers and admin clients need too."""

Client = TypeVar("Client")

_UNKNOWN = re.compile(r'property[: ]+"([^"]+)"')


def connection_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of this cluster needs; raises `Refused` for a secret that is missing."""
    shared = {name: value for name, value in settings.properties.items() if _SHARED.match(name)}
    return {**_addresses(settings), "client.id": settings.client_id, **_revealed(shared), **token_config(settings)}


def producer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Everything about the producer except callbacks.

    Raises `ConfigError` for properties that are not the user's to set, `Refused` for a secret that is missing.
    """
    problems = [f"kafka.properties.{name}: {REFUSED[name]}" for name in settings.properties if name in REFUSED]
    if problems:
        raise ConfigError(problems)
    return {
        **_addresses(settings),
        "client.id": settings.client_id,
        "partitioner": "murmur2_random",
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        "max.in.flight.requests.per.connection": IN_FLIGHT,
        **_revealed(settings.properties),
        **token_config(settings),
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "linger.ms": settings.linger * 1000,
        "compression.type": settings.compression,
        "queue.buffering.max.messages": settings.queue_messages + BATCH_HEADROOM,
        "queue.buffering.max.kbytes": max(settings.queue_bytes, 2 * settings.max_record_bytes) // 1024 + 1,
        "message.max.bytes": settings.max_record_bytes + BATCH_OVERHEAD_BYTES,
        "statistics.interval.ms": round(settings.statistics_interval * 1000),
        **({"transactional.id": settings.shard_name} if settings.is_exactly_once else {}),
    }


def create_client(make: Callable[..., Client], config: dict[str, Any], settings: KafkaSettings) -> Client:
    """Create a librdkafka client that logs through `logging`; raises `ConfigError` naming what it does not accept."""
    try:
        return make(config, logger=_LOGGER)
    except KafkaException as error:
        text = _without_secrets(error.args[0].str(), settings)
        found = _UNKNOWN.search(text)
        raise ConfigError([f"kafka.properties.{found[1]}: {text}" if found else f"kafka: {text}"]) from None


def _addresses(settings: KafkaSettings) -> dict[str, Any]:
    # A mock cluster's clients find their in-process brokers by themselves.
    mock = {name: value for name, value in settings.properties.items() if name.startswith("test.mock.")}
    if settings.bootstrap_servers:
        return {"bootstrap.servers": ",".join(settings.bootstrap_servers)}
    if not mock:
        raise ConfigError(["kafka.bootstrap_servers: no address is given"])
    return {}


def _revealed(properties: Any) -> dict[str, Any]:
    return {
        name: value.reveal(f"kafka.properties.{name}") if isinstance(value, Secret) else value
        for name, value in properties.items()
    }


def _without_secrets(text: str, settings: KafkaSettings) -> str:
    for value in settings.properties.values():
        if isinstance(value, Secret):
            text = text.replace(value.reveal(), "***")
    return text


_LOGGER = logging.getLogger("pipeline.kafka")
