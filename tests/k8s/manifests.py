"""Rendered manifests, and how to find one's way in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from tests.services import tools

ROOT = Path(__file__).parent.parent.parent
K8S = ROOT / "k8s"

OVERLAYS = ("overlays/market-data", "overlays/accounts", "overlays/orders", "overlays/demo")
PRODUCTION = ("overlays/market-data", "overlays/accounts", "overlays/orders")
IN_PLACE = "overlays/market-data-in-place"
"""`overlays/market-data` with its configuration under a name that stays."""
OPERATORS = (
    "operators/market-data",
    "operators/accounts",
    "operators/orders",
    "operators/kafka",
    "operators/monitoring",
)
EVERY_OVERLAY = (*OVERLAYS, IN_PLACE)
KUSTOMIZATIONS = (*EVERY_OVERLAY, *OPERATORS)

Object = dict[str, Any]

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@attrs.frozen
class Manifests:
    """What one kustomization amounts to."""

    text: str
    objects: tuple[Object, ...]

    def of(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The object of a kind whose name begins so."""
        (found,) = (each for each in self.of(kind) if each["metadata"]["name"].startswith(name))
        return found

    @property
    def connector(self) -> Object:
        """The set of shards."""
        return self.one("StatefulSet", "pipeline")

    @property
    def workloads(self) -> list[Object]:
        """Everything with a pod template."""
        return [each for each in self.objects if "template" in each.get("spec", {}) and "selector" in each["spec"]]

    @property
    def config_map(self) -> Object:
        """The connector's configuration."""
        return self.one("ConfigMap", "pipeline-config")

    @property
    def config(self) -> str:
        """The configuration file in it."""
        text = self.config_map["data"]["config.yaml"]
        assert isinstance(text, str)
        return text


def render(name: str) -> Manifests:
    """Build `k8s/<name>`."""
    text = tools.kustomize(K8S / name)
    return Manifests(text, tuple(yaml.safe_load_all(text)))


def pod(workload: Object) -> Object:
    """The pods' specification."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Object) -> Object:
    """The one container."""
    (only,) = pod(workload)["containers"]
    assert isinstance(only, dict)
    return only


def pod_labels(workload: Object) -> Mapping[str, str]:
    """The pods' labels."""
    labels: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In", "the only operator that is used here"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def in_bytes(quantity: str) -> int:
    """A quantity such as 512Mi."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def values(node: Any, key: str) -> Iterator[Any]:
    """Every value under a key, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from values(item, key)
