"""`python -m pipeline schemas` as a deployment uses it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import load_schema
from pipeline.config import loads
from pipeline.model.errors import ConfigError
from pipeline.model.events import KINDS
from tests.services import SchemaRegistry

VENUES = "venues: {bybit: {channels: [{market: linear, channel: trade, instruments: [BTCUSDT]}]}}\n"


def config(folder: Path, url: str, more: str = "", name: str = "") -> str:
    path = folder / f"config{uuid.uuid4().hex[:6]}.yaml"
    path.write_text(
        f"kafka:\n  topic_template: '{name or uuid.uuid4().hex[:8]}.{{kind}}'\n"
        f"  schema_registry: {{url: '{url}'{more}}}\nlog: {{level: error}}\n{VENUES}"
    )
    return str(path)


def test_check_register_and_check_again(
    registry: SchemaRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, registry.url, ", register: false", name="deployed")
    assert cli.main(["schemas", "check", "--config", path]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"schema registry {registry.url}"
    assert out[1].startswith("failed  deployed.trade-value")
    assert out[1].endswith("new subject; kafka.schema_registry.register is off: `schemas register` registers it")
    assert out[-1] == f"0 of {len(KINDS)} subjects are as the service needs them"

    assert cli.main(["schemas", "register", "--config", path, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["subjects"]
    assert {row["state"] for row in rows} == {"registered now (new subject)"}
    ids = {row["event"]: row["schema_id"] for row in rows}
    assert set(ids) == set(KINDS)

    assert cli.main(["schemas", "check", "--config", path]) == 0
    out = capsys.readouterr().out.splitlines()
    assert f"registered, id {ids['trade']}" in out[1]
    assert out[-1] == "all is well"


def test_what_would_be_registered_is_no_failure(
    registry: SchemaRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, registry.url, ", compatibility: FULL", name="looked")
    assert cli.main(["schemas", "check", "--config", path]) == 0
    assert "new subject, to be FULL" in capsys.readouterr().out
    with registry.client() as client:
        assert not [subject for subject in client.get_subjects() if subject.startswith("looked")]


def test_an_incompatible_schema_fails_the_check_with_its_field(
    registry: SchemaRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config(tmp_path, registry.url, ", compatibility: BACKWARD", name="turned")
    assert cli.main(["schemas", "register", "--config", text]) == 0
    capsys.readouterr()
    number = Path(text).read_text().replace("kafka:\n", "kafka:\n  decimals: decimal\n")
    path = tmp_path / "decimal.yaml"
    path.write_text(number)
    assert cli.main(["schemas", "check", "--config", str(path)]) == 1
    out = capsys.readouterr().out
    assert "failed  turned.trade-value" in out
    assert "field price: string became decimal(38,18)" in out
    assert cli.main(["schemas", "register", "--config", str(path)]) == 1
    assert "subject turned.trade-value: the schema is incompatible under BACKWARD: " in capsys.readouterr().err


@pytest.mark.parametrize("decimals", ["text", "decimal"])
def test_show_prints_the_schema_as_it_is_sent(decimals: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schemas", "show", "book_update", "--decimals", decimals]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(Schemas.load(decimals)["book_update"].text)  # type: ignore[arg-type]
    assert cli.main(["schemas", "show", "order_command", "--decimals", decimals]) == 0
    assert json.loads(capsys.readouterr().out) == load_schema("order_command"), "commands have one form"
    assert cli.main(["schemas", "show", "trades"]) == 2
    assert "'trades'" in capsys.readouterr().err


def test_without_a_registry_or_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.yaml"
    path.write_text(VENUES)
    assert cli.main(["schemas", "check", "--config", str(path)]) == 2
    assert capsys.readouterr().err.startswith("kafka.schema_registry: is missing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.sink.registry._PAUSE_S", 0.01)
        assert cli.main(["schemas", "check", "--config", config(tmp_path, "http://127.0.0.1:1")]) == 1
    assert capsys.readouterr().err.startswith("schema registry http://127.0.0.1:1 cannot be reached: ")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("key_file: key.pem", "key_file: belongs to a certificate_file, and there is none"),
        ("ca_file: ca.pem", "ca_file: is for https, and url begins with http"),
        ("register: false, compatibility: FULL",
         "compatibility: is set where schemas are registered, and register is off"),
        ("subjects: topics", 'subjects: expected one of topic, record, topic_record, got "topics"'),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(more: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"kafka: {{schema_registry: {{url: 'http://localhost:1', {more}}}}}\n{VENUES}")
    assert caught.value.problems == [f"kafka.schema_registry.{problem}"]
