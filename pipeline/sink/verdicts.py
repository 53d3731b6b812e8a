"""What each of Kafka's errors asks for: one table for records, transactions and the producer itself. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from confluent_kafka import KafkaError


class Verdict(Enum):
    """What helps."""

    RETRY = "send it again, for as long as it takes"
    PATIENCE = "send it again for a while; what is refused still then becomes a dead letter"
    ISOLATE = "one record is at fault: find it, and make it a dead letter"
    RECREATE = "take everything back and go on with a new producer"
    STOP = "nothing helps but a person"


class Ruling(NamedTuple):
    """What to do about an error, and what a person could do about it."""

    verdict: Verdict
    remedy: str = ""


_GRANT = "grant the user {}"
_SHARD = "another instance with the same kafka.shard has taken over; give each instance a shard of its own"

_TABLE: dict[int, Ruling] = {
    # Passing states of a cluster.
    KafkaError.NOT_ENOUGH_REPLICAS: Ruling(Verdict.RETRY),
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Ruling(Verdict.RETRY),
    KafkaError.NOT_LEADER_FOR_PARTITION: Ruling(Verdict.RETRY),
    KafkaError.LEADER_NOT_AVAILABLE: Ruling(Verdict.RETRY),
    KafkaError.KAFKA_STORAGE_ERROR: Ruling(Verdict.RETRY),
    KafkaError.REQUEST_TIMED_OUT: Ruling(Verdict.RETRY),
    KafkaError.NETWORK_EXCEPTION: Ruling(Verdict.RETRY),
    KafkaError.THROTTLING_QUOTA_EXCEEDED: Ruling(Verdict.RETRY),
    KafkaError._MSG_TIMED_OUT: Ruling(Verdict.RETRY),
    KafkaError._TIMED_OUT: Ruling(Verdict.RETRY),
    KafkaError._TRANSPORT: Ruling(Verdict.RETRY),
    KafkaError._PURGE_QUEUE: Ruling(Verdict.RETRY),
    KafkaError._PURGE_INFLIGHT: Ruling(Verdict.RETRY),
    KafkaError.CONCURRENT_TRANSACTIONS: Ruling(Verdict.RETRY),
    KafkaError.COORDINATOR_NOT_AVAILABLE: Ruling(Verdict.RETRY),
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS: Ruling(Verdict.RETRY),
    KafkaError.NOT_COORDINATOR: Ruling(Verdict.RETRY),
    KafkaError.TRANSACTION_ABORTABLE: Ruling(Verdict.RETRY),
    # A certificate or a password may be on its way; at start they are refusals, see `Outlet.connect`.
    KafkaError._AUTHENTICATION: Ruling(Verdict.RETRY, "check sasl.* in kafka.properties"),
    KafkaError._SSL: Ruling(Verdict.RETRY, "check ssl.* in kafka.properties"),
    KafkaError.SASL_AUTHENTICATION_FAILED: Ruling(Verdict.RETRY, "check sasl.* in kafka.properties"),
    # One topic's trouble.
    KafkaError.UNKNOWN_TOPIC_OR_PART: Ruling(Verdict.PATIENCE, "create the topic"),
    KafkaError._UNKNOWN_TOPIC: Ruling(Verdict.PATIENCE, "create the topic"),
    KafkaError._UNKNOWN_PARTITION: Ruling(Verdict.PATIENCE, "create the topic"),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Ruling(Verdict.PATIENCE, _GRANT.format("Write on the topic")),
    KafkaError.POLICY_VIOLATION: Ruling(Verdict.PATIENCE, "see the broker's policy for the topic"),
    KafkaError.TOPIC_EXCEPTION: Ruling(Verdict.PATIENCE, "check kafka.topic_template"),
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: Ruling(Verdict.PATIENCE, "raise the topic's message format"),
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: Ruling(Verdict.PATIENCE, "change kafka.compression"),
    KafkaError.INVALID_REQUIRED_ACKS: Ruling(Verdict.PATIENCE, "check the topic's min.insync.replicas"),
    # One record's fault, for which the broker refuses the whole batch that it is in.
    KafkaError.MSG_SIZE_TOO_LARGE: Ruling(Verdict.ISOLATE),
    KafkaError.RECORD_LIST_TOO_LARGE: Ruling(Verdict.ISOLATE),
    KafkaError.INVALID_RECORD: Ruling(Verdict.ISOLATE),
    KafkaError.INVALID_MSG: Ruling(Verdict.ISOLATE),
    KafkaError.INVALID_MSG_SIZE: Ruling(Verdict.ISOLATE),
    KafkaError.INVALID_TIMESTAMP: Ruling(Verdict.ISOLATE),
    # The broker and this producer disagree about what was sent.
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER: Ruling(Verdict.RECREATE),
    KafkaError.UNKNOWN_PRODUCER_ID: Ruling(Verdict.RECREATE),
    KafkaError.INVALID_PRODUCER_ID_MAPPING: Ruling(Verdict.RECREATE),
    KafkaError.INVALID_PRODUCER_EPOCH: Ruling(Verdict.RECREATE),
    KafkaError.DUPLICATE_SEQUENCE_NUMBER: Ruling(Verdict.RECREATE),
    KafkaError.INVALID_TXN_STATE: Ruling(Verdict.RECREATE),
    KafkaError._GAPLESS_GUARANTEE: Ruling(Verdict.RECREATE),
    KafkaError._INCONSISTENT: Ruling(Verdict.RECREATE),
    KafkaError._STATE: Ruling(Verdict.RECREATE),
    KafkaError._FATAL: Ruling(Verdict.RECREATE),
    # Somebody else's decision.
    KafkaError._FENCED: Ruling(Verdict.STOP, _SHARD),
    KafkaError.PRODUCER_FENCED: Ruling(Verdict.STOP, _SHARD),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Ruling(
        Verdict.STOP, _GRANT.format("Write on the topics, or IdempotentWrite on the cluster")
    ),
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Ruling(
        Verdict.STOP, _GRANT.format("Write and Describe on the transactional id, which is kafka.shard")
    ),
    KafkaError.INVALID_TRANSACTION_TIMEOUT: Ruling(
        Verdict.STOP,
        "lower transaction.timeout.ms in kafka.properties, or raise the broker's transaction.max.timeout.ms",
    ),
    KafkaError.UNSUPPORTED_VERSION: Ruling(Verdict.STOP, "idempotence needs Kafka 0.11 or newer"),
    KafkaError._UNSUPPORTED_FEATURE: Ruling(Verdict.STOP, "idempotence and transactions need Kafka 0.11 or newer"),
    KafkaError.SECURITY_DISABLED: Ruling(Verdict.STOP, "check security.protocol in kafka.properties"),
    KafkaError.UNSUPPORTED_SASL_MECHANISM: Ruling(Verdict.STOP, "check sasl.mechanism in kafka.properties"),
}

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED})


def ruling_on(code: int, *, fatal: bool = False) -> Ruling:
    """What an error asks for. A fatal one leaves a producer that takes nothing any more.

    An unknown one that is not fatal gets patience: it may pass, and must not hold everything back for ever.
    """
    ruling = _TABLE.get(code)
    if fatal:
        return ruling if ruling is not None and ruling.verdict is Verdict.STOP else Ruling(Verdict.RECREATE)
    return ruling or Ruling(Verdict.PATIENCE)


def known_codes() -> frozenset[int]:
    """Every code with a row of its own."""
    return frozenset(_TABLE)
