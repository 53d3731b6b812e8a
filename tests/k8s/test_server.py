"""The manifests as a real API server takes them: defaults, validation, admission, changes of what is there already."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import EVERY_OVERLAY, IN_PLACE, K8S, Manifests, Object
from tests.services import tools
from tests.services.control_plane import ControlPlane, version

pytestmark = pytest.mark.kube

Rendered = Mapping[str, Manifests]

overlays = pytest.mark.parametrize("overlay", EVERY_OVERLAY)
STRICT = ("--server-side", "--validate=strict", "--field-manager=test")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("kubernetes")) as plane:
        yield plane


def apply(plane: ControlPlane, folder: Path, *objects: Object) -> dict[str, str]:
    """Apply objects; what has become of each, by kind and name."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects), "utf-8")
    lines = plane.kubectl("apply", *STRICT, "-f", str(file)).splitlines()
    return dict(line.rsplit(" ", 1) for line in lines)


def found(plane: ControlPlane, namespace: str, kind: str, name: str) -> Any:
    return json.loads(plane.kubectl("-n", namespace, "get", kind, name, "-o", "json"))


def namespace_of(manifests: Manifests) -> str:
    name = manifests.connector["metadata"]["namespace"]
    assert isinstance(name, str)
    return name


def test_the_schemas_are_of_the_server_s_version(plane: ControlPlane) -> None:
    told = json.loads(plane.kubectl("version", "-o", "json"))["serverVersion"]
    assert told["gitVersion"] == f"v{version()}"
    assert f"{told['major']}.{told['minor']}" == tools.KUBERNETES


@overlays
def test_the_server_takes_every_object_and_changes_none(plane: ControlPlane, overlay: str) -> None:
    plane.kubectl("apply", *STRICT, "-k", str(K8S / overlay))
    # Exit code 0: applied again, nothing would differ.
    plane.kubectl("diff", "--server-side", "--field-manager=test", "-k", str(K8S / overlay))


@overlays
def test_pods_are_admitted_at_the_namespace_s_level(
    plane: ControlPlane, rendered: Rendered, overlay: str, tmp_path: Path
) -> None:
    """Of a set that breaks the level the server says nothing: its pods would be missing."""
    plane.kubectl("apply", *STRICT, "-k", str(K8S / overlay))
    for workload in rendered[overlay].workloads:
        told = plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(written(tmp_path, workload)))
        assert told.endswith("created (server dry run)\n")


def test_a_careless_pod_is_refused(plane: ControlPlane, rendered: Rendered, tmp_path: Path) -> None:
    plane.kubectl("apply", *STRICT, "-k", str(K8S / "overlays/demo"))
    file = written(tmp_path, rendered["overlays/demo"].connector)
    safe, careless = (f"allowPrivilegeEscalation: {value}" for value in ("false", "true"))
    file.write_text(file.read_text("utf-8").replace(safe, careless), "utf-8")
    with pytest.raises(tools.ToolFailed, match='violates PodSecurity "restricted:latest"'):
        plane.kubectl("create", "--dry-run=server", "-f", str(file))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("  podManagementPolicy:", "  podManagementPolice:", "podManagementPolice"),
        ("  maxSkew: 1", "  maxSkew: 0", "maxSkew"),
        ("pipeline-demo", "Pipeline_Demo", "RFC 1123"),
    ],
    ids=["field", "value", "name"],
)
def test_a_fault_is_refused(
    plane: ControlPlane, rendered: Rendered, right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    plane.kubectl("apply", *STRICT, "-k", str(K8S / "overlays/demo"))
    text = yaml.safe_dump(rendered["overlays/demo"].connector)
    assert right in text
    with pytest.raises(tools.ToolFailed, match=said):
        apply(plane, tmp_path, yaml.safe_load(text.replace(right, wrong)))


def written(folder: Path, workload: Object) -> Path:
    """A pod as the workload's controller would make it."""
    template = workload["spec"]["template"]
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}} for name in claims]
    labels = {**template["metadata"]["labels"], "apps.kubernetes.io/pod-index": "0"}
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "try", "namespace": workload["metadata"]["namespace"], "labels": labels},
        "spec": {**template["spec"], "volumes": [*template["spec"].get("volumes", ()), *volumes]},
    }
    file = folder / "pod.yaml"
    file.write_text(yaml.safe_dump(made), "utf-8")
    return file


@overlays
def test_a_release_follows_the_one_before(
    plane: ControlPlane, rendered: Rendered, overlay: str, tmp_path: Path
) -> None:
    """Selectors and volume claims of a set cannot change: one label too many in them, and no upgrade would be taken."""
    plane.kubectl("apply", *STRICT, "-k", str(K8S / overlay))
    text = yaml.safe_dump_all(rendered[overlay].objects)
    release = "app.kubernetes.io/version: 0.1.0"
    assert release in text
    apply(plane, tmp_path, *yaml.safe_load_all(text.replace(release, "app.kubernetes.io/version: 99.0.0")))


def test_a_changed_configuration_is_a_rollout_or_takes_effect_in_place(
    plane: ControlPlane, rendered: Rendered, tmp_path: Path
) -> None:
    for overlay, is_rollout in (("overlays/market-data", True), (IN_PLACE, False)):
        manifests = rendered[overlay]
        namespace, name = namespace_of(manifests), manifests.connector["metadata"]["name"]
        plane.kubectl("apply", *STRICT, "-k", str(K8S / overlay))
        before = found(plane, namespace, "statefulset", name)["metadata"]["generation"]
        mine = tmp_path / overlay
        mine.mkdir(parents=True)
        changed = manifests.config.replace("SOLUSDT", "XRPUSDT")
        assert changed != manifests.config
        (mine / "config.yaml").write_text(changed, "utf-8")
        (mine / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "resources": [os.path.relpath(K8S / overlay, mine)],
                    "configMapGenerator": [{"name": "pipeline-config", "behavior": "merge", "files": ["config.yaml"]}],
                }
            ),
            "utf-8",
        )
        (told,) = (
            name
            for name in apply(plane, tmp_path, *yaml.safe_load_all(tools.kustomize(mine)))
            if name.startswith("configmap/")
        )
        assert found(plane, namespace, "configmap", told.partition("/")[2])["data"]["config.yaml"] == changed
        after = found(plane, namespace, "statefulset", name)["metadata"]["generation"]
        assert (after > before) is is_rollout
