"""The committed references are what the program would write now, and what they say is so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from pipeline import asyncapi, cli, config_reference, event_reference, metric_reference
from pipeline.avro.schemas import ORDER_COMMAND, load_schema
from pipeline.config_reader import Bounds, Rules, parse_yaml, read
from pipeline.config_reference import Section, sections
from pipeline.model.events import KINDS
from pipeline.sink.settings import KafkaSettings, RegistrySettings, TopicSettings
from pipeline.sink.topics import topic_name

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
LENIENT = Rules(bounds=lambda cls, field: Bounds(), checks={}, plain_numbers=frozenset({"factor"}))
SECTIONS = list(sections())

configuration = cache(config_reference.markdown)
events = cache(event_reference.markdown)


@pytest.mark.parametrize(
    ("subject", "file"),
    [("config", "configuration.md"), ("events", "events.md"), ("metrics", "metrics.md"), ("asyncapi", "asyncapi.yaml")],
)
def test_a_committed_reference_is_current(subject: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reference", subject]) == 0
    assert capsys.readouterr().out == (REFERENCE / file).read_text("utf-8"), (
        f"python -m pipeline reference {subject} > docs/reference/{file}"
    )


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.path)
def test_every_key_has_a_meaning(section: Section) -> None:
    silent = [key.name for key in section.keys if not key.meaning]
    assert not silent, f"write a docstring under the attribute in {section.described.__module__}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.path)
def test_defaults_are_written_as_the_file_takes_them(section: Section) -> None:
    required = {key.name: key for key in section.keys if key.default == "required"}
    text = "".join(
        f"{key.name}: {key.default.strip('`')}\n"
        for key in section.keys
        if key.name not in required and key.default != "as below"
    )
    given: dict[str, Any] = parse_yaml(text) or {}
    samples: dict[str, Any] = {"secret": {"env": "X"}, "decimal number": "1", "mapping of lists of texts": {"x": "x"}}
    for key in required.values():
        given[key.name] = samples.get(key.type, "x")
    made = read(given, section.described, LENIENT)
    for field in attrs.fields(section.described):
        if field.name not in required:
            default: Any = field.default
            wanted = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
            assert getattr(made, field.name) == wanted, field.name


@pytest.mark.parametrize(
    "row",
    [
        "| `port` | whole number, 0 to 65535 | `9464` | 0 picks a free port, printed at start. |",
        "| `linger` | duration, 0s to 15m | `20ms` |",
        "| `max_bytes` | size | `10GiB` |",
        "| `max_record_bytes` | size, 1kB to 1GB | `1MB` |",
        "| `api_key` | secret | required |",
        "| `factor` | number, at least 1 | `2` |",
        "| `when_full` | `refuse_new`, `drop_oldest`, `stop_reading` | `refuse_new` |",
        "| `index` | whole number, at least 0 or `{env: NAME}` | `0` |",
        "| `topics` | [mapping](#kafkatopicskind) | `{}` | By event kind. |",
        "| `snapshot_interval` | duration | `1m` |",
        "## `venues.VENUE.accounts.ACCOUNT.channels[]`",
        "| `accounts` | [mapping](#ordersaccountsvenueaccount) | `{}` |",
        "## `orders.accounts.VENUE.ACCOUNT`",
        "| `instruments` | mapping of lists of texts | required |",
        '| `price_band` | decimal number | `"0.05"` |',
        "| `option_summary` |  |  |  | ✓ |  |",
    ],
)
def test_rows_of_the_configuration(row: str) -> None:
    assert row in configuration()


def test_python_words_do_not_reach_the_reader() -> None:
    prose = re.sub(r"`[^`]*`", "", configuration())
    assert not re.search(r"\b(None|True|False)\b", prose)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_event_is_described(kind: str) -> None:
    text = events()
    common = text.partition("## Fields of every event")[2].partition("\n## ")[0]
    own = text.partition(f"\n### {kind}\n")[2].partition("\n### ")[0]
    schema = load_schema(kind)
    for field in fields_below(schema):
        row = f"| `{field['name']}` | {event_reference.type_text(field['type'])} | {field['doc']} |"
        assert row in own or row in common
    assert f"Topic `{topic_name(KafkaSettings(), kind)}`" in own
    assert f"Identity: {', '.join(f'`{name}`' for name in schema['identity'])}." in own
    assert ("compacted" in own) == (kind == "instrument")


def fields_below(schema: Any) -> Iterator[dict[str, Any]]:
    for record in event_reference.records_in(schema):
        yield from record["fields"]


@pytest.mark.parametrize(
    ("avro", "text"),
    [
        (["null", {"type": "string", "logicalType": "decimal-text"}], "decimal text?"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}, "decimal(38,18)"),
        ({"type": "map", "values": {"type": "long", "logicalType": "timestamp-micros"}}, "map of time"),
        ({"type": "array", "items": "Level"}, "array of Level"),
    ],
)
def test_types_in_words(avro: object, text: str) -> None:
    assert event_reference.type_text(avro) == text


def test_every_metric_has_a_row_with_a_meaning_of_its_own() -> None:
    rows = [line.split(" | ") for line in metric_reference.markdown().splitlines() if line.startswith("| `")]
    names = [row[0].strip("| `") for row in rows]
    assert len(names) == len(set(names)) > 100
    of_the_service = {"pipeline_messages_total", "pipeline_sink_lost_total", "pipeline_ready", "pipeline_worker_up"}
    assert of_the_service | {"pipeline_journal_waiting", "pipeline_order_unknown"} <= set(names)
    labels = {row[0].strip("| `"): row[2] for row in rows}
    assert labels["pipeline_exchange_to_receive_seconds"] == "`venue`, `kind`"
    meanings = [row[3] for row in rows]
    assert len(meanings) == len(set(meanings))


def test_the_asyncapi_document_is_whole() -> None:
    document = yaml.load(asyncapi.text(), yaml.CSafeLoader)
    assert document == asyncapi.document()
    kinds = {*KINDS, ORDER_COMMAND}
    assert set(document["channels"]) == set(document["components"]["messages"]) == kinds
    operations = {each["channel"]["$ref"]: each["action"] for each in document["operations"].values()}
    assert operations == {f"#/channels/{kind}": "receive" if kind == ORDER_COMMAND else "send" for kind in kinds}
    for reference in references(document):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    for kind, message in document["components"]["messages"].items():
        assert message["payload"]["schema"] == load_schema(kind)
        assert message["x-identity"] == load_schema(kind)["identity"]


def test_commands_are_read_from_a_topic_per_account() -> None:
    settings = KafkaSettings(topic_template="x.{kind}", schema_registry=RegistrySettings("http://localhost:8081"))
    document = asyncapi.document(settings)
    channel = document["channels"][ORDER_COMMAND]
    assert channel["address"] == "x.order_command.{venue}.{account}"
    assert set(channel["parameters"]) == {"venue", "account"}
    assert (channel["bindings"]["kafka"]["partitions"], "topic" in channel["bindings"]["kafka"]) == (1, False)
    bindings = {
        kind: document["components"]["messages"][kind]["bindings"]["kafka"] for kind in ("order_result", "fill")
    }
    assert bindings["order_result"]["key"] == bindings["fill"]["key"]
    assert "schemaIdPayloadEncoding" in bindings["order_result"]


def test_every_field_of_a_command_is_described() -> None:
    own = events().partition(f"\n### {ORDER_COMMAND}\n")[2].partition("\n## ")[0]
    for field in fields_below(load_schema(ORDER_COMMAND)):
        assert f"| `{field['name']}` | {event_reference.type_text(field['type'])} | {field['doc']} |" in own
    assert "Topic `order.order_command.VENUE.ACCOUNT`, 1 partition, kept for 30 days" in own
    assert "fields of every event" not in own


def references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for value in node.values():
                yield from references(value)


def test_the_asyncapi_document_follows_a_configuration() -> None:
    settings = KafkaSettings(
        bootstrap_servers=("SASL_SSL://one:9093", "two:9092"),
        topic_template="x.{kind}",
        topic_defaults=TopicSettings(replication_factor=3),
        topics={"trade": TopicSettings(partitions=24, retention=3600.0)},
        decimals="decimal",
        schema_registry=RegistrySettings("http://localhost:8081"),
    )
    document = asyncapi.document(settings)
    assert list(document["servers"].values()) == [
        {"host": "one:9093", "protocol": "kafka-secure"},
        {"host": "two:9092", "protocol": "kafka"},
    ]
    trade = document["channels"]["trade"]
    assert trade["address"] == "x.trade"
    kafka = trade["bindings"]["kafka"]
    assert (kafka["partitions"], kafka["replicas"]) == (24, 3)
    assert kafka["topicConfiguration"]["retention.ms"] == 3_600_000
    assert document["channels"]["instrument"]["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"] == [
        "compact"
    ]
    message = document["components"]["messages"]["trade"]
    assert message["bindings"]["kafka"]["schemaIdPayloadEncoding"] == "confluent"
    assert "decimal-text" not in str(message["payload"])


def test_reference_with_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "kafka: {topic_template: 'mine.{kind}'}\nvenues: {okx: {channels: [{market: swap, channel: trade}]}}\n"
    )
    assert cli.main(["reference", "events", "--config", str(path)]) == 0
    assert "Topic `mine.trade`" in capsys.readouterr().out


def test_a_new_key_is_described_by_itself() -> None:
    (section, below) = sections(Example)
    assert section.text == "Settings.\n\n`null` is `null`."
    assert [(key.name, key.type, key.default, key.meaning) for key in section.keys] == [
        ("wait", "duration", "`1m`", "Seconds; `null`: never."),
        ("below", "list", "`[]`", "Parts."),
    ]
    assert (below.path, below.keys[0].type, below.keys[0].default) == ("below[]", "list of texts or size", "`null`")


@attrs.frozen
class Part:
    """Parts."""

    max_bytes: tuple[str, ...] | int | None = None


@attrs.frozen
class Example:
    """Settings.

    None is None.
    """

    wait: float | None = 60.0
    """Seconds; None: never."""
    below: tuple[Part, ...] = ()

    def unrelated(self) -> Callable[[], None]:
        """No key."""
        raise NotImplementedError
