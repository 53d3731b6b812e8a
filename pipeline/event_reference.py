"""The reference of the events, as Markdown, read from the schemas and from how their topics are planned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import ORDER_COMMAND, Schema, load_schema
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import TopicPlan, group_of, plan_topics, topic_name

_INTRODUCTION = """\
# Events

Every kind of event, its topic and its fields, and the [commands](#order_command) that the connector reads. Written by
`python -m pipeline reference events` from [schemas/](../../schemas/), which are the contract.

- **Names of topics** are those of `kafka.topic_template`'s default; partitions and retention hold for topics that the
  connector creates, see [`kafka.topics`](configuration.md#kafkatopicskind).
- **Identity**: two records of a kind that agree in these fields tell the same fact; the second one is a repetition.
- **Types** are Avro's. *decimal text* is an exact decimal number as text, as the venue wrote it; with
  `kafka.decimals: decimal` it is Avro `decimal(38,18)`. *time* is `timestamp-micros`: microseconds since 1970 UTC.
  `?` marks a field that may be null; null means that the venue did not say.
- **A record's value** is ten bytes that name its schema (Avro single-object encoding: `C3 01` and the CRC-64-AVRO
  fingerprint), or with a schema registry five (zero and the identifier), and then the fields in Avro's binary encoding.
- **A record's key** is text. Parts that an event does not have are left out: `okx` alone for a venue's announcement.
- **A record's timestamp** is `exchange_time` in milliseconds, or `receive_time` where there is none.
"""

_GROUPS = {
    "market": ("Market data", "venue.market.instrument"),
    "account": ("Accounts", "venue.account.instrument"),
    "order": ("Orders", "venue.account.instrument"),
    "control": ("Control", "venue.market.instrument"),
    "archive": ("Archive", "venue.market.instrument"),
}
_COMMON = "Fields of every event"
_DAY_MS = 86_400_000


def markdown(settings: KafkaSettings | None = None) -> str:
    """The whole reference."""
    settings = settings or KafkaSettings()
    schemas = Schemas.load(settings.decimals)
    plans = {plan.kind: plan for plan in plan_topics(settings, schemas.codecs)}
    common = _common(schemas)
    parts = [
        _INTRODUCTION,
        _contents(plans, topic_name(settings, ORDER_COMMAND)),
        f"## {_COMMON}\n\n{_table(common)}\n",
    ]
    for group, (title, key) in _GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [
            _kind(plan, schemas.schema(kind), common, key) for kind, plan in plans.items() if group_of(kind) == group
        ]
        if group == group_of(ORDER_COMMAND):
            parts.append(_command(settings))
    return "\n".join(parts)


def cleanup(plan: TopicPlan) -> Literal["compact", "delete"]:
    """What Kafka does with old records of a topic."""
    return "compact" if plan.config["cleanup.policy"] == "compact" else "delete"


def type_text(node: Any) -> str:
    """An Avro type on one line, as the reference writes it."""
    match node:
        case ["null", kind]:
            return f"{type_text(kind)}?"
        case {"logicalType": "decimal-text"}:
            return "decimal text"
        case {"logicalType": "decimal", "precision": precision, "scale": scale}:
            return f"decimal({precision},{scale})"
        case {"logicalType": "timestamp-micros"}:
            return "time"
        case {"type": "array", "items": items}:
            return f"array of {type_text(items)}"
        case {"type": "map", "values": values}:
            return f"map of {type_text(values)}"
        case {"type": "record", "name": name}:
            return str(name)
        case {"type": kind}:
            return type_text(kind)
    return str(node)


def records_in(node: Any) -> Iterator[Mapping[str, Any]]:
    """The record types that a type is made of, where they are defined."""
    match node:
        case [*kinds]:
            for kind in kinds:
                yield from records_in(kind)
        case {"type": "record"}:
            yield node
            for field in node["fields"]:
                yield from records_in(field["type"])
        case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
            yield from records_in(inner)


def _common(schemas: Schemas) -> list[dict[str, Any]]:
    """The fields that most kinds describe in the same words; where a kind has others, it says so itself."""
    counts: dict[str, int] = {}
    for codec in schemas.codecs.values():
        for field in codec.schema["fields"]:
            text = json.dumps(field)
            counts[text] = counts.get(text, 0) + 1
    return [json.loads(text) for text, count in counts.items() if count > len(schemas.codecs) // 2]


def _contents(plans: Mapping[str, TopicPlan], commands: str) -> str:
    named = {kind: plan.name for kind, plan in plans.items()}
    named[ORDER_COMMAND] = f"{commands}.VENUE.ACCOUNT"
    rows = [f"| [`{kind}`](#{kind}) | `{name}` |" for kind, name in sorted(named.items())]
    return "\n".join(["| event | topic |", "|---|---|", *rows, ""])


def _kind(plan: TopicPlan, schema: Schema, common: Sequence[Mapping[str, Any]], key: str) -> str:
    own = [field for field in schema["fields"] if field not in common]
    absent = [
        f"`{field['name']}`" for field in common if field["name"] not in {each["name"] for each in schema["fields"]}
    ]
    whole = f"And all [fields of every event](#{_COMMON.lower().replace(' ', '-')})"
    if absent:
        whole += f" but {', '.join(absent)}"
    facts = [f"Topic `{plan.name}`, {_kept(plan)}.", f"Key `{key}`.", *_facts(plan.kind, schema)]
    return _section(plan.kind, schema, facts, own, f"{whole}.")


def _command(settings: KafkaSettings) -> str:
    """What is read instead of published, so it has none of the fields of events."""
    (plan,) = plan_topics(settings, [ORDER_COMMAND])
    schema = load_schema(ORDER_COMMAND)
    facts = [
        f"Topic `{plan.name}.VENUE.ACCOUNT`, {_kept(plan)}; or the account's `command_topic`. The connector reads it.",
        "Key: any, for the topic has one partition.",
        *_facts(ORDER_COMMAND, schema),
        "Prices and sizes are always decimal text.",
    ]
    return _section(ORDER_COMMAND, schema, facts, schema["fields"])


def _kept(plan: TopicPlan) -> str:
    partitions = f"{plan.partitions} partition{'' if plan.partitions == 1 else 's'}"
    if cleanup(plan) == "delete":
        return f"{partitions}, kept for {int(plan.config['retention.ms']) / _DAY_MS:g} days"
    return f"{partitions}, compacted: the latest record of each key stays"


def _facts(kind: str, schema: Schema) -> list[str]:
    identity = ", ".join(f"`{name}`" for name in schema["identity"])
    file = f"schemas/{kind}.avsc"
    return [
        f"Identity: {identity}.",
        f"Schema `{schema['namespace']}.{schema['name']}`: [{file}](../../{file}).",
    ]


def _section(
    kind: str, schema: Schema, facts: Sequence[str], fields: Sequence[Mapping[str, Any]], rest: str | None = None
) -> str:
    lines = [f"### {kind}", str(schema["doc"]), "\n".join(f"- {fact}" for fact in facts), _table(fields)]
    if rest is not None:
        lines.append(rest)
    for record in records_in([field["type"] for field in fields]):
        lines += [f"{record['name']}: {record['doc']}", _table(record["fields"])]
    return "\n\n".join(lines) + "\n"


def _table(fields: Sequence[Mapping[str, Any]]) -> str:
    rows = [f"| `{field['name']}` | {type_text(field['type'])} | {_cell(field['doc'])} |" for field in fields]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
