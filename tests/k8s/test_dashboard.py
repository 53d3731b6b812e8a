"""The dashboard asks for what the connector exports, and fits on a screen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.k8s.exported import SCRAPED, exported
from tests.k8s.manifests import K8S, Manifests, values
from tests.k8s.promql import uses

FILE = K8S / "components/dashboard/pipeline.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
COLUMNS = 24


def expressions() -> Iterator[str]:
    yield from values(PANELS, "expr")
    yield from values(DASHBOARD["annotations"], "expr")
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            assert query == variable["definition"]
            yield query.removeprefix("label_values(").rpartition(",")[0]


def test_panels_ask_for_what_is_exported() -> None:
    metrics = exported()
    found = list(expressions())
    assert len(found) > 40
    for expression in found:
        use = uses(expression)
        assert use.metrics, expression
        assert use.metrics <= set(metrics), expression
        assert use.labels <= SCRAPED.union(*(metrics[name] for name in use.metrics)), expression


def test_panels_ask_the_chosen_source_for_the_chosen_pods() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "namespace", "pod", "venue"}
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            for target in panel["targets"]:
                assert 'namespace=~"$namespace"' in target["expr"], panel["title"]


def test_panels_stand_beside_each_other() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart or above, (one, other)


def test_the_dashboard_is_delivered_with_the_alerts(rendered: Mapping[str, Manifests]) -> None:
    monitoring = rendered["operators/monitoring"]
    config_map = monitoring.one("ConfigMap", "pipeline-dashboard")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"]["pipeline.json"]) == DASHBOARD
    assert {each["metadata"]["namespace"] for each in monitoring.objects} == {"monitoring"}
    (rules,) = monitoring.of("PrometheusRule")
    assert rules["spec"] == yaml.safe_load((K8S / "components/alerts/rules.yaml").read_text("utf-8"))["spec"]
