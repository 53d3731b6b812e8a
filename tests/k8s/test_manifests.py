"""What no validator knows: rules over the rendered objects, and agreement with the program they run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from pipeline.config import Config, loads
from pipeline.exchanges import VENUES
from pipeline.feeds.settings import VenueSettings
from pipeline.model.secret import Secret
from tests.k8s.manifests import (
    IN_PLACE,
    K8S,
    KUSTOMIZATIONS,
    OVERLAYS,
    PRODUCTION,
    ROOT,
    Manifests,
    Object,
    container,
    in_bytes,
    pod,
    pod_labels,
    selects,
    values,
)
from tests.services import tools

Rendered = Mapping[str, Manifests]

HOUSE = "exchange-pipeline"
GRACE_MARGIN_S = 10
MEMORY_AT_REST = 150 * 2**20
BUILT_IN = {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"}
RECOMMENDED = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "part-of", "version")}
IDENTITY = {"app.kubernetes.io/name", "app.kubernetes.io/instance"}

overlays = pytest.mark.parametrize("overlay", OVERLAYS)
production = pytest.mark.parametrize("overlay", PRODUCTION)


def test_objects_fit_the_schemas_of_kubernetes(rendered: Rendered, tmp_path: Path) -> None:
    files = []
    for name, manifests in rendered.items():
        files.append(tmp_path / f"{name.replace('/', '-')}.yaml")
        files[-1].write_text(manifests.text, "utf-8")
    said = tools.validate_manifests(files)
    expected = sum(each["apiVersion"] in BUILT_IN for manifests in rendered.values() for each in manifests.objects)
    assert said.count(" passed for resource ") == expected


@pytest.mark.parametrize(
    "fault", ["  replicas: two", "  replicaz: 2", "  podManagementPolicy: 3"], ids=["type", "field", "value"]
)
def test_a_fault_against_the_schemas_is_noticed(rendered: Rendered, tmp_path: Path, fault: str) -> None:
    file = tmp_path / "broken.yaml"
    text = yaml.safe_dump(rendered["overlays/demo"].connector)
    file.write_text(text.replace("  replicas: 1", fault), "utf-8")
    with pytest.raises(tools.ToolFailed):
        tools.validate_manifests([file])


def test_none_is_left_out_here() -> None:
    there = {str(file.parent.relative_to(K8S)) for file in K8S.glob("o*/*/kustomization.yaml")}
    assert there == set(KUSTOMIZATIONS)


@overlays
def test_an_overlay_needs_nothing_but_kubernetes(rendered: Rendered, overlay: str) -> None:
    assert {each["apiVersion"] for each in rendered[overlay].objects} <= BUILT_IN


def test_what_needs_an_operator_is_a_component() -> None:
    for file in (*K8S.glob("base/*.yaml"), *K8S.glob("overlays/*/*.yaml")):
        for document in yaml.safe_load_all(file.read_text("utf-8")):
            api = document.get("apiVersion", "v1") if isinstance(document, dict) else "v1"
            assert api in BUILT_IN or api.startswith("kustomize.config.k8s.io/"), file


# Shape of the workload


@overlays
def test_one_set_owns_the_shards_and_nothing_scales_it_behind_the_configuration(
    rendered: Rendered, overlay: str
) -> None:
    manifests = rendered[overlay]
    running = [each for each in manifests.workloads if container(each).get("args", [""])[0] == "--config"]
    assert running == [manifests.connector]
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & {each["kind"] for each in manifests.objects}
    spec = manifests.connector["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert spec["minReadySeconds"] > 0
    assert spec["revisionHistoryLimit"] > 0
    services = {each["metadata"]["name"]: each for each in manifests.of("Service")}
    service = services[spec["serviceName"]]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


@overlays
def test_every_shard_knows_which_it_is(rendered: Rendered, overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connector, config = rendered[overlay].connector, loads(rendered[overlay].config)
    assert config.shard.count == connector["spec"]["replicas"]
    environment = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container(connector)["env"]}
    assert environment["SHARD_INDEX"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert environment["POD_NAME"] == "metadata.name"
    indices = []
    for ordinal in range(config.shard.count):
        monkeypatch.setenv("SHARD_INDEX", str(ordinal))
        indices.append(config.share().index)
    assert indices == [ordinal * config.workers for ordinal in range(config.shard.count)]


@overlays
def test_shards_are_spread_and_evicted_one_at_a_time(rendered: Rendered, overlay: str) -> None:
    spread = pod(rendered[overlay].connector)["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for each in spread:
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        assert each["matchLabelKeys"] == ["controller-revision-hash"]
    (budget,) = rendered[overlay].of("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in budget["spec"]
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@overlays
def test_what_is_spooled_outlives_the_pods_and_fits_its_volume(rendered: Rendered, overlay: str) -> None:
    connector, config = rendered[overlay].connector, loads(rendered[overlay].config)
    assert set(connector["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    claims = {each["metadata"]["name"]: each["spec"] for each in connector["spec"]["volumeClaimTemplates"]}
    mounts = {each["mountPath"]: each["name"] for each in container(connector)["volumeMounts"]}
    (name,) = (
        mounts[path]
        for path in mounts
        if mounts[path] in claims and config.kafka.spool.directory.startswith(f"{path}/")
    )
    assert in_bytes(claims[name]["resources"]["requests"]["storage"]) >= 1.5 * config.kafka.spool.max_bytes


@overlays
def test_labels_of_volume_claims_never_change(rendered: Rendered, overlay: str) -> None:
    """They cannot: an update of the set would be refused."""
    for workload in rendered[overlay].of("StatefulSet"):
        for claim in workload["spec"]["volumeClaimTemplates"]:
            assert "app.kubernetes.io/version" not in claim["metadata"].get("labels", {})


# Life and death


@overlays
def test_probes_are_three_and_on_the_port_that_is_served(rendered: Rendered, overlay: str) -> None:
    main, config = container(rendered[overlay].connector), loads(rendered[overlay].config)
    probes = {name: main[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/startupz", "readiness": "/readyz", "liveness": "/healthz"}
    served = (ROOT / "pipeline/observe/http.py").read_text("utf-8")
    assert all(f'"{path}"' in served for path in paths.values())
    (port,) = main["ports"]
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {port["name"]}
    assert port["containerPort"] == config.http.port
    assert config.http.host == "0.0.0.0", "the kubelet does not come over loopback"
    start = probes["startup"]
    assert start["periodSeconds"] * start["failureThreshold"] > config.kafka.connect_within + 60
    live = probes["liveness"]
    assert live["periodSeconds"] * live["failureThreshold"] > config.http.loop_late, "a hiccup is no death"


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_ports_that_are_named_exist(rendered: Rendered, name: str) -> None:
    manifests = rendered[name]
    for workload in manifests.workloads:
        names = {port["name"] for port in container(workload)["ports"]}
        assert all(len(port) <= 15 for port in names)
        asked = [probe["port"] for kind in ("httpGet", "tcpSocket") for probe in values(container(workload), kind)]
        assert set(asked) <= names
    for selector, ports in port_references(manifests):
        chosen = [each for each in manifests.workloads if selects(selector, pod_labels(each))]
        assert chosen, selector
        for workload in chosen:
            assert set(ports) <= {port["name"] for port in container(workload)["ports"]}


def port_references(manifests: Manifests) -> Iterator[tuple[Object, list[str]]]:
    """Selectors of pods with the names of ports that they must have."""
    for service in manifests.of("Service"):
        yield {"matchLabels": service["spec"]["selector"]}, [port["targetPort"] for port in service["spec"]["ports"]]
    for monitor in manifests.of("PodMonitor"):
        yield monitor["spec"]["selector"], [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]]
    for policy in manifests.of("NetworkPolicy"):
        ports = [port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule.get("ports", ())]
        yield policy["spec"]["podSelector"], [port for port in ports if isinstance(port, str)]


@overlays
def test_there_is_time_to_drain(rendered: Rendered, overlay: str) -> None:
    connector, config = rendered[overlay].connector, loads(rendered[overlay].config)
    assert pod(connector)["terminationGracePeriodSeconds"] >= config.shutdown_within + GRACE_MARGIN_S
    assert config.shutdown_within > config.kafka.drain_within
    assert not list(values(pod(connector), "preStop"))
    assert "command" not in container(connector), "the image's own program is the first process"


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_last_words_are_kept(rendered: Rendered, name: str) -> None:
    for workload in rendered[name].workloads:
        assert container(workload)["terminationMessagePolicy"] == "FallbackToLogsOnError"


# Security


@overlays
def test_the_namespace_enforces_the_restricted_level(rendered: Rendered, overlay: str) -> None:
    (namespace,) = rendered[overlay].of("Namespace")
    for mode in ("enforce", "warn", "audit"):
        assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
    name = namespace["metadata"]["name"]
    assert name not in {"default", "kube-system"}
    others = [each for each in rendered[overlay].objects if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {name}


@overlays
def test_pods_keep_to_the_restricted_level(rendered: Rendered, overlay: str) -> None:
    for workload in rendered[overlay].workloads:
        whole, main = pod(workload), container(workload)
        context = whole["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["runAsGroup"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert main["securityContext"]["allowPrivilegeEscalation"] is False
        assert main["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(whole)
        assert not list(values(whole, "hostPath"))
        assert whole["enableServiceLinks"] is False
        assert whole["automountServiceAccountToken"] is False
        assert whole["nodeSelector"] == {"kubernetes.io/os": "linux"}
        if main["image"].rpartition("/")[2].startswith(HOUSE):
            assert context["runAsUser"] >= 10_000
            assert context["runAsGroup"] >= 10_000
            assert main["securityContext"]["readOnlyRootFilesystem"] is True
    (account,) = rendered[overlay].of("ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod(rendered[overlay].connector)["serviceAccountName"] == account["metadata"]["name"]
    assert not {"Role", "ClusterRole", "RoleBinding"} & {each["kind"] for each in rendered[overlay].objects}


@overlays
def test_scratch_is_small_and_in_memory(rendered: Rendered, overlay: str) -> None:
    connector = rendered[overlay].connector
    (scratch,) = (volume["emptyDir"] for volume in pod(connector)["volumes"] if "emptyDir" in volume)
    assert scratch["medium"] == "Memory"
    assert in_bytes(scratch["sizeLimit"]) <= 32 * 2**20
    assert pod(connector)["dnsConfig"]["options"] == [{"name": "ndots", "value": "2"}]


@overlays
def test_mounts_have_volumes_and_volumes_are_mounted(rendered: Rendered, overlay: str) -> None:
    for workload in rendered[overlay].workloads:
        given = [volume["name"] for volume in pod(workload).get("volumes", ())]
        given += [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
        mounts = container(workload).get("volumeMounts", [])
        assert sorted(given) == sorted(mount["name"] for mount in mounts)
        assert not any("subPath" in mount for mount in mounts), "such a file does not follow a rotation"


@overlays
def test_secrets_are_files_that_follow_a_rotation(rendered: Rendered, overlay: str) -> None:
    connector = rendered[overlay].connector
    assert not list(values(connector, "secretKeyRef"))
    assert not list(values(connector, "secretRef"))
    (volume,) = (each for each in pod(connector)["volumes"] if "projected" in each)
    assert volume["projected"]["defaultMode"] == 0o440
    assert pod(connector)["securityContext"]["fsGroup"] == pod(connector)["securityContext"]["runAsGroup"]
    for source in volume["projected"]["sources"]:
        assert source["secret"]["optional"] is True, "the program tells which file is missing"
    assert set(secret_files(loads(rendered[overlay].config))) <= set(projected_files(connector))


def projected_files(connector: Object) -> Iterator[str]:
    """Paths of the files that the pods find secrets in."""
    mounts = {each["name"]: each["mountPath"] for each in container(connector)["volumeMounts"]}
    for volume in pod(connector)["volumes"]:
        for source in volume.get("projected", {}).get("sources", ()):
            for item in source["secret"]["items"]:
                yield f"{mounts[volume['name']]}/{item['path']}"


def secret_files(config: Config) -> Iterator[str]:
    """Paths of the files that the configuration names."""
    kafka = config.kafka.properties
    secrets = [value for value in kafka.values() if isinstance(value, Secret)]
    for venue in config.venues.values():
        for account in venue.accounts.values():
            secrets += [account.api_key, account.api_secret, *([account.passphrase] if account.passphrase else [])]
    if config.http.token is not None:
        secrets.append(config.http.token)
    for secret in secrets:
        assert secret.file is not None, "what is in the environment does not follow a rotation"
        yield secret.file
    if (authority := kafka.get("ssl.ca.location")) is not None:
        yield str(authority)


@production
def test_production_logs_in_to_kafka_over_tls(rendered: Rendered, overlay: str) -> None:
    properties = loads(rendered[overlay].config).kafka.properties
    assert properties["security.protocol"] == "SASL_SSL"
    assert "ssl.ca.location" in properties


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_no_secret_is_in_the_sources(rendered: Rendered, name: str) -> None:
    assert not rendered[name].of("Secret")


@overlays
def test_each_secret_of_an_account_can_be_given_by_an_external_store(rendered: Rendered, overlay: str) -> None:
    operated = rendered.get(overlay.replace("overlays", "operators"))
    if operated is None:
        assert overlay == "overlays/demo"
        assert not list(secret_files(loads(rendered[overlay].config)))
        return
    offered = {
        (each["spec"]["target"]["name"], data["secretKey"])
        for each in operated.of("ExternalSecret")
        for data in each["spec"]["data"]
    }
    wanted = {
        (source["secret"]["name"], item["key"])
        for volume in pod(operated.connector)["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        for item in source["secret"]["items"]
    }
    assert offered == wanted
    namespaces = {each["metadata"]["namespace"] for each in operated.of("ExternalSecret")}
    assert namespaces == {operated.connector["metadata"]["namespace"]}


# Network


def ports_to(policy: Object, peer: str) -> set[tuple[str, int]]:
    """Protocols and ports to the peers whose description holds a text."""
    return {
        (port["protocol"], port["port"])
        for rule in policy["spec"]["egress"]
        if peer in json.dumps(rule["to"])
        for port in rule["ports"]
    }


def own_policy(manifests: Manifests) -> Object:
    return manifests.one("NetworkPolicy", "pipeline")


@overlays
def test_nothing_comes_in_but_monitoring(rendered: Rendered, overlay: str) -> None:
    policy = own_policy(rendered[overlay])["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [port["port"] for port in rule["ports"]] == ["http"]


@overlays
def test_every_way_out_names_peer_and_port(rendered: Rendered, overlay: str) -> None:
    policy = own_policy(rendered[overlay])
    for rule in policy["spec"]["egress"]:
        assert rule["to"]
        assert rule["ports"]
    assert ports_to(policy, "kube-dns") == {("UDP", 53), ("TCP", 53)}


@overlays
def test_kafka_and_its_registry_can_be_reached_where_the_configuration_says(rendered: Rendered, overlay: str) -> None:
    policy, config = own_policy(rendered[overlay]), loads(rendered[overlay].config)
    brokers = {("TCP", int(address.rpartition(":")[2])) for address in config.kafka.bootstrap_servers}
    assert ports_to(policy, '"app.kubernetes.io/name": "kafka"') == brokers
    assert config.kafka.schema_registry is not None
    registry = urlsplit(config.kafka.schema_registry.url)
    assert ports_to(policy, "schema-registry") == {("TCP", registry.port)}


@production
def test_the_exchanges_can_be_reached_and_no_private_address(rendered: Rendered, overlay: str) -> None:
    policy = own_policy(rendered[overlay])
    blocks = list(values(policy["spec"]["egress"], "ipBlock"))
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "::/0"}
    excepted = {cidr for block in blocks for cidr in block["except"]}
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"} <= excepted
    assert ports_to(policy, "0.0.0.0/0") == {("TCP", port) for port in venue_ports()}


def venue_ports() -> set[int]:
    """Ports of all exchanges in all their environments."""
    urls = {
        url
        for venue in VENUES.values()
        for hosts in venue.environments.values()
        for url in (hosts.websocket, hosts.rest, hosts.private_websocket, hosts.private_rest)
        if url
    }
    return {urlsplit(url).port or 443 for url in urls}


def test_the_demo_reaches_its_own_exchanges_and_no_other(rendered: Rendered) -> None:
    demo = rendered["overlays/demo"]
    assert not list(values(own_policy(demo), "ipBlock"))
    services = {each["metadata"]["name"]: each["spec"] for each in demo.of("Service")}
    wanted = [url for venue in loads(demo.config).venues.values() for url in addresses(venue)]
    kafka = loads(demo.config).kafka
    assert kafka.schema_registry is not None
    wanted += [kafka.schema_registry.url, *(f"kafka://{address}" for address in kafka.bootstrap_servers)]
    for url in map(urlsplit, wanted):
        assert url.hostname is not None
        ports = services[url.hostname]["ports"]
        assert url.port in {port["port"] for port in ports}
    assert ports_to(own_policy(demo), "simulated-venue") == {("TCP", 9101)}
    (broker,) = (each for each in demo.of("StatefulSet") if each["metadata"]["name"].startswith("kafka"))
    environment = {each["name"]: each["value"] for each in container(broker)["env"]}
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{kafka.bootstrap_servers[0]}"


def addresses(venue: VenueSettings) -> list[str]:
    return [url for url in (venue.urls.websocket, venue.urls.rest) if url is not None]


# Configuration


@overlays
def test_the_program_takes_the_configuration(rendered: Rendered, overlay: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(rendered[overlay].config, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "check", "--config", str(file), "--json"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "SHARD_INDEX": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)["venues"]) == {"bybit", "okx"}


@overlays
def test_a_changed_configuration_is_a_rollout(rendered: Rendered, overlay: str) -> None:
    manifests = rendered[overlay]
    assert manifests.config_map["immutable"] is True
    name = manifests.config_map["metadata"]["name"]
    assert re.search(r"-[a-z0-9]{10}$", name)
    (volume,) = (each for each in pod(manifests.connector)["volumes"] if each["name"] == "config")
    assert volume["configMap"]["name"] == name
    (path,) = (m["mountPath"] for m in container(manifests.connector)["volumeMounts"] if m["name"] == volume["name"])
    assert container(manifests.connector)["args"] == ["--config", f"{path}/config.yaml"]


def test_a_configuration_that_is_changed_in_place_keeps_its_name(rendered: Rendered) -> None:
    rolling, in_place = rendered["overlays/market-data"], rendered[IN_PLACE]
    assert "immutable" not in in_place.config_map
    assert loads(in_place.config).reload.check > 0, "nobody sends these pods a signal"
    name = in_place.config_map["metadata"]["name"]
    assert name == "pipeline-config-market-data"
    # Nothing else differs, so that one can become the other.
    text = json.dumps(in_place.objects).replace(f'"{name}"', f'"{rolling.config_map["metadata"]["name"]}"')
    same = json.loads(text)
    next(each for each in same if each["kind"] == "ConfigMap")["immutable"] = True
    assert same == list(rolling.objects)


def test_the_base_has_a_configuration_that_the_program_takes() -> None:
    assert loads((K8S / "base/config.yaml").read_text("utf-8")).venues


# Resources and images


@overlays
def test_memory_is_bounded_above_what_the_program_may_hold(rendered: Rendered, overlay: str) -> None:
    connector, config = rendered[overlay].connector, loads(rendered[overlay].config)
    resources = container(connector)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    (scratch,) = (volume["emptyDir"] for volume in pod(connector)["volumes"] if "emptyDir" in volume)
    held = config.kafka.queue_bytes + config.kafka.spool.max_memory_bytes + in_bytes(scratch["sizeLimit"])
    assert in_bytes(resources["limits"]["memory"]) >= config.workers * (MEMORY_AT_REST + held)


@overlays
def test_pods_ask_for_what_they_need_and_are_not_throttled(rendered: Rendered, overlay: str) -> None:
    for workload in rendered[overlay].workloads:
        requests, limits = (container(workload)["resources"][which] for which in ("requests", "limits"))
        assert {"cpu", "memory", "ephemeral-storage"} <= set(requests)
        assert "cpu" not in limits
        assert all(in_bytes(requests[name]) <= in_bytes(limits[name]) for name in limits)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_no_image_can_change_under_a_name(rendered: Rendered, name: str) -> None:
    for workload in rendered[name].workloads:
        image, policy = container(workload)["image"], container(workload)["imagePullPolicy"]
        assert policy == "IfNotPresent"
        assert re.search(r"@sha256:[0-9a-f]{64}$|:[0-9]+\.[0-9]+\.[0-9]+$", image), image


@production
def test_production_names_the_image_by_digest(rendered: Rendered, overlay: str) -> None:
    assert "@sha256:" in container(rendered[overlay].connector)["image"]


# Labels


@overlays
def test_objects_carry_the_recommended_labels(rendered: Rendered, overlay: str) -> None:
    version = project_version()
    for each in rendered[overlay].objects:
        labels = each["metadata"]["labels"]
        assert set(labels) >= RECOMMENDED, each["metadata"]["name"]
        assert labels["app.kubernetes.io/version"] == version
        assert labels["app.kubernetes.io/part-of"] == HOUSE


def project_version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def test_installations_are_told_apart(rendered: Rendered) -> None:
    instances = [rendered[each].connector["metadata"]["labels"]["app.kubernetes.io/instance"] for each in OVERLAYS]
    assert len(set(instances)) == len(OVERLAYS)


@overlays
def test_selectors_take_their_own_pods_and_no_others(rendered: Rendered, overlay: str) -> None:
    everywhere = [(name, each) for name in OVERLAYS for each in rendered[name].workloads]
    for owner, selector in selectors(rendered[overlay]):
        assert set(selector.get("matchLabels", {})) <= IDENTITY, "what may change must not select"
        chosen = [(name, each["metadata"]["name"]) for name, each in everywhere if selects(selector, pod_labels(each))]
        if owner.startswith("surroundings"):
            assert len(chosen) == 4
            assert not any(name.startswith("pipeline") for _, name in chosen)
        else:
            assert chosen == [(overlay, owner)]


def selectors(manifests: Manifests) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every selector of pods of this installation, with the name of the object whose pods it means."""
    for each in manifests.objects:
        name = each["metadata"]["name"]
        if each["kind"] == "Service":
            yield name, {"matchLabels": each["spec"]["selector"]}
        elif each["kind"] == "NetworkPolicy":
            yield name, each["spec"]["podSelector"]
        elif each["kind"] in {"StatefulSet", "Deployment", "PodDisruptionBudget"}:
            yield name, each["spec"]["selector"]
        for constraint in values(each, "topologySpreadConstraints"):
            yield from ((name, term["labelSelector"]) for term in constraint)


@pytest.mark.parametrize("name", PRODUCTION)
def test_the_monitor_stands_beside_its_pods_and_takes_them_alone(rendered: Rendered, name: str) -> None:
    operated = rendered[name.replace("overlays", "operators")]
    (monitor,) = operated.of("PodMonitor")
    connector = operated.connector
    assert monitor["metadata"]["namespace"] == connector["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"] == connector["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"


# What the operators' definitions know of the fields that are used here: a misspelt one would be dropped without a word.
MONITOR_FIELDS = {"jobLabel", "selector", "podMetricsEndpoints"}
ENDPOINT_FIELDS = {"port", "path", "interval", "scrapeTimeout"}
SECRET_FIELDS = {"refreshInterval", "secretStoreRef", "target", "data"}
RULE_FIELDS = {"alert", "expr", "for", "labels", "annotations"}


def test_fields_of_custom_objects_are_known(rendered: Rendered) -> None:
    for manifests in rendered.values():
        for monitor in manifests.of("PodMonitor"):
            assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
            assert set(monitor["spec"]) == MONITOR_FIELDS
            assert all(set(endpoint) == ENDPOINT_FIELDS for endpoint in monitor["spec"]["podMetricsEndpoints"])
        for secret in manifests.of("ExternalSecret"):
            assert secret["apiVersion"] == "external-secrets.io/v1"
            assert set(secret["spec"]) == SECRET_FIELDS
            assert set(secret["spec"]["secretStoreRef"]) == {"kind", "name"}
            assert secret["spec"]["target"] == {"name": secret["metadata"]["name"]}
            for data in secret["spec"]["data"]:
                assert set(data) == {"secretKey", "remoteRef"}
                assert set(data["remoteRef"]) == {"key", "property"}
        for rules in manifests.of("PrometheusRule"):
            assert rules["apiVersion"] == "monitoring.coreos.com/v1"
            assert set(rules["spec"]) == {"groups"}
            for group in rules["spec"]["groups"]:
                assert set(group) == {"name", "rules"}
                assert all(set(rule) <= RULE_FIELDS for rule in group["rules"])
