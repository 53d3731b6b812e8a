"""Topics: one per kind of event, named by the template, created or verified before the first record."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Literal

import attrs
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import LatestSpec, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from pipeline.avro.schemas import ORDER_COMMAND
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import BATCH_OVERHEAD_BYTES, connection_config, create_client
from pipeline.sink.refusals import LastError
from pipeline.sink.settings import WATERMARK, KafkaSettings, TopicSettings

_ACCOUNT = frozenset({"order", "fill", "position", "balance", "account_greeks", "account_raw"})
_ORDER = frozenset({ORDER_COMMAND, "order_result"})
_CONTROL = frozenset({"feed_status", "dead_letter", WATERMARK})
_ARCHIVE = frozenset({"wire_message"})
_LATEST = frozenset({"instrument", WATERMARK})
"""Kinds of which the latest record per key is what counts."""
_SINGLE = _LATEST | {ORDER_COMMAND}
"""Kinds with one partition, unless more are asked for."""

_DAY_S = 86_400.0

_COMPACTED = {"cleanup.policy": "compact", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"}
_DEFAULTS = {
    "market": TopicSettings(partitions=6, retention=3 * _DAY_S),
    "account": TopicSettings(partitions=3, retention=30 * _DAY_S),
    "order": TopicSettings(partitions=3, retention=30 * _DAY_S),
    "control": TopicSettings(partitions=1, retention=14 * _DAY_S),
    "archive": TopicSettings(partitions=3, retention=7 * _DAY_S),
}

_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)

_TIMEOUT_S = 15.0
_PAUSE_S = 0.1


def group_of(kind: str) -> str:
    """The first part of a kind's topic: market, account, order, control or archive."""
    for group, kinds in (
        ("account", _ACCOUNT),
        ("order", _ORDER),
        ("control", _CONTROL),
        ("archive", _ARCHIVE),
    ):
        if kind in kinds:
            return group
    return "market"


def topic_name(settings: KafkaSettings, kind: str) -> str:
    """The topic of a kind of event."""
    return settings.topic_template.format(group=group_of(kind), kind=kind)


def command_topic(settings: KafkaSettings, venue: str, account: str) -> str:
    """Where the commands of an account are read, unless its settings name another topic."""
    return f"{topic_name(settings, ORDER_COMMAND)}.{venue}.{account}"


@attrs.frozen
class TopicPlan:
    """How a topic should be."""

    kind: str
    name: str
    partitions: int
    replication_factor: int | None
    """None: the broker's default."""
    config: Mapping[str, str]
    partitions_matter: bool
    """Whether another number is worth a warning: the user asked for this one, or an order depends on it."""
    is_written: bool = True
    """Whether we publish there; otherwise we only read."""


@attrs.frozen
class TopicReport:
    """What was found or done about one topic."""

    topic: str
    outcome: Literal["created", "present", "missing"]
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def plan_topics(settings: KafkaSettings, kinds: Iterable[str]) -> list[TopicPlan]:
    """The topics of these kinds: what the user says about the kind, about all, our defaults, in this order.

    Only what is said about commands themselves gives their topics more partitions than one: what an account is to do is
    done in the order in which it was said.
    """
    return [_plan(settings, kind) for kind in kinds]


def _plan(settings: KafkaSettings, kind: str) -> TopicPlan:
    ours, all_, own = _DEFAULTS[group_of(kind)], settings.topic_defaults, settings.topics.get(kind, TopicSettings())
    compacted = kind in _LATEST
    retention = own.retention or all_.retention or ours.retention or _DAY_S
    config = {
        "compression.type": "producer",
        "max.message.bytes": str(settings.max_record_bytes + BATCH_OVERHEAD_BYTES),
        **(_COMPACTED if compacted else {"cleanup.policy": "delete", "retention.ms": f"{retention * 1000:.0f}"}),
        **all_.config,
        **own.config,
    }
    is_ordered = kind == ORDER_COMMAND
    chosen = own.partitions or (None if is_ordered else all_.partitions)
    return TopicPlan(
        kind=kind,
        name=topic_name(settings, kind),
        partitions=chosen or (1 if kind in _SINGLE else ours.partitions or 1),
        replication_factor=own.replication_factor or all_.replication_factor,
        config=config,
        partitions_matter=chosen is not None or is_ordered,
    )


def prepare_topics(settings: KafkaSettings, kinds: Iterable[str]) -> list[TopicReport]:
    """Create what is missing (if configured) and verify what is there; blocks, for at most a minute.

    What is wrong is in the reports. Raises `SinkFailed` if the cluster cannot be asked.
    """
    return _prepare(settings, plan_topics(settings, kinds))


def prepare_command_topic(settings: KafkaSettings, name: str) -> list[TopicReport]:
    """The same for a topic that commands are read from."""
    plan = attrs.evolve(_plan(settings, ORDER_COMMAND), name=name, is_written=False)
    return _prepare(settings, [plan])


def _prepare(settings: KafkaSettings, plans: list[TopicPlan]) -> list[TopicReport]:
    trouble = LastError()
    admin = create_client(AdminClient, connection_config(settings) | {"error_cb": trouble}, settings)
    try:
        partitions = _partitions(admin)
        missing = [plan for plan in plans if plan.name not in partitions]
        reports = _create(admin, missing) if settings.create_topics else [_absent(plan) for plan in missing]
        settled = {report.topic for report in reports}
        known = [plan for plan in plans if plan.name not in settled]
        if any(plan.name not in partitions for plan in known):  # somebody else has just created them
            partitions = _await_topics(admin, {plan.name for plan in known})
        _await_leaders(admin, {plan.name for plan in plans} - {r.topic for r in reports if r.outcome == "missing"})
        return reports + _verify(admin, known, partitions, settings)
    except KafkaException as error:
        raise SinkFailed(
            f"cannot ask {_where(settings)} about topics: {trouble.told(settings, admin, error)}"
        ) from None


def _partitions(admin: AdminClient) -> dict[str, int]:
    topics = admin.list_topics(timeout=_TIMEOUT_S).topics
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.partitions}


def _await_leaders(admin: AdminClient, names: Collection[str]) -> None:
    """Return when every partition can be written, or after `_TIMEOUT_S`: a cluster in trouble is no reason not to run.

    A broker that has just learnt of a partition refuses its first batch and may take the second. What a producer sends
    first may begin anywhere, so the first batch, sent again, passes for a repetition: acknowledged, but in no log.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        known = {name: count for name, count in _partitions(admin).items() if name in names}
        # Unlike metadata, offsets are answered by what also takes the writes.
        partitions = [TopicPartition(name, number) for name, count in known.items() for number in range(count)]
        asked: dict[TopicPartition, OffsetSpec] = dict.fromkeys(partitions, LatestSpec())  # type: ignore[no-untyped-call]
        answers = admin.list_offsets(asked, request_timeout=_TIMEOUT_S).values() if asked else ()
        if len(known) == len(names) and all(answer.exception(_TIMEOUT_S) is None for answer in answers):
            return
        time.sleep(_PAUSE_S)


def _await_topics(admin: AdminClient, names: set[str]) -> dict[str, int]:
    """The controller knows a new topic a moment before every broker does."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not names <= (partitions := _partitions(admin)).keys():
        if time.monotonic() > deadline:
            raise SinkFailed(f"topics exist and do not show up: {', '.join(sorted(names - partitions.keys()))}")
        time.sleep(_PAUSE_S)
    return partitions


def _where(settings: KafkaSettings) -> str:
    return "Kafka at " + (", ".join(settings.bootstrap_servers) or "the mock cluster")


def _absent(plan: TopicPlan) -> TopicReport:
    return TopicReport(plan.name, "missing", errors=("does not exist, and create_topics is off; or we may not see it",))


def _create(admin: AdminClient, plans: list[TopicPlan]) -> list[TopicReport]:
    if not plans:
        return []
    wanted = [
        NewTopic(plan.name, plan.partitions, plan.replication_factor or -1, config=dict(plan.config)) for plan in plans
    ]
    futures: dict[str, Future[None]] = admin.create_topics(wanted, request_timeout=_TIMEOUT_S)
    reports = (_created(plan, futures[plan.name]) for plan in plans)
    return [report for report in reports if report is not None]


def _created(plan: TopicPlan, future: Future[None]) -> TopicReport | None:
    """None if the topic is there already: another instance was quicker, or the cluster slow to tell."""
    try:
        future.result(_TIMEOUT_S)
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return None
        text = f"cannot be created: {reason.str()}"
        if reason.code() in _NOT_ALLOWED:
            seen_by = "Write" if plan.is_written else "Read"
            text += f"; grant us Create on the cluster or the topic, or {seen_by} if it exists already"
        return TopicReport(plan.name, "missing", errors=(text,))
    return TopicReport(plan.name, "created")


def _verify(
    admin: AdminClient, plans: list[TopicPlan], partitions: Mapping[str, int], settings: KafkaSettings
) -> list[TopicReport]:
    if not plans:
        return []
    futures = admin.describe_configs(
        [ConfigResource(ConfigResource.Type.TOPIC, plan.name) for plan in plans], request_timeout=_TIMEOUT_S
    )
    configs = {resource.name: future for resource, future in futures.items()}
    rights: Mapping[str, Future[Any]] = admin.describe_topics(
        TopicCollection([plan.name for plan in plans]),
        include_authorized_operations=True,
        request_timeout=_TIMEOUT_S,
    )
    return [
        _verified(plan, partitions[plan.name], configs[plan.name], _may_write(rights[plan.name]), settings)
        for plan in plans
    ]


def _may_write(described: Future[Any]) -> bool:
    """Whether the broker would let us; asked at start, because a refused record looks like passing trouble."""
    try:
        rights = described.result(_TIMEOUT_S).authorized_operations
    except KafkaException as error:
        return error.args[0].code() not in _NOT_ALLOWED
    return not rights or AclOperation.WRITE in rights  # none at all: the broker does not tell


def _verified(
    plan: TopicPlan, partitions: int, described: Future[Any], may_write: bool, settings: KafkaSettings
) -> TopicReport:
    warnings, errors = [], []
    if plan.is_written and not may_write:
        errors.append("we may not write it: grant us Write on the topic")
    if plan.partitions_matter and partitions != plan.partitions:
        warnings.append(f"has {partitions} partitions, {plan.partitions} are configured")
    try:
        entries: Mapping[str, ConfigEntry] = described.result(_TIMEOUT_S)
    except KafkaException as error:
        warnings.append(f"its configuration cannot be read: {error.args[0].str()}")
        return TopicReport(plan.name, "present", tuple(warnings), tuple(errors))
    found = {name: str(entry.value) for name, entry in entries.items()}
    needed = settings.max_record_bytes + BATCH_OVERHEAD_BYTES
    limit = int(found.get("max.message.bytes", needed))
    if limit < needed:
        errors.append(f"max.message.bytes is {limit}, below the {needed} that kafka.max_record_bytes makes necessary")
    policy, wanted = found.get("cleanup.policy", ""), plan.config["cleanup.policy"]
    if "compact" in policy and "compact" not in wanted:
        errors.append(f"cleanup.policy is {policy}: compaction would delete all but the latest record of a key")
    elif policy != wanted:
        warnings.append(f"cleanup.policy is {policy}, {wanted} is configured")
    return TopicReport(plan.name, "present", tuple(warnings), tuple(errors))
