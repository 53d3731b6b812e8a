"""The installation that takes orders: its ledger outlives it, its keys are its own, and it can be stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import pytest

from pipeline.config import Config, loads
from pipeline.model.errors import ConfigError
from pipeline.orders.settings import AccountOrderSettings
from tests.k8s.manifests import PRODUCTION, ROOT, Manifests, container, pod, values

Rendered = Mapping[str, Manifests]

ORDERS = "overlays/orders"
OTHERS = [name for name in PRODUCTION if name != ORDERS]


@pytest.fixture(scope="module")
def config(rendered: Rendered) -> Config:
    return loads(rendered[ORDERS].config)


def test_orders_are_taken_there_and_nowhere_else(rendered: Rendered, config: Config) -> None:
    assert [(venue, len(accounts)) for venue, accounts in config.orders.accounts.items()] == [("bybit", 1), ("okx", 1)]
    for name in OTHERS:
        assert not loads(rendered[name].config).orders.accounts, name


def test_no_other_installation_reads_the_account(rendered: Rendered, config: Config) -> None:
    """Its orders and fills would be published twice."""
    taken = {(venue, account) for venue, accounts in config.orders.accounts.items() for account in accounts}
    for name in OTHERS:
        venues = loads(rendered[name].config).venues
        assert taken.isdisjoint((venue, account) for venue in venues for account in venues[venue].accounts), name


def test_nobody_trades_for_having_applied_what_is_delivered(config: Config) -> None:
    assert {name: venue.environment for name, venue in config.venues.items()} == {"bybit": "testnet", "okx": "demo"}


def test_the_ledger_is_on_the_volume_that_stays_and_apart_from_the_spool(rendered: Rendered, config: Config) -> None:
    connector = rendered[ORDERS].connector
    claims = {claim["metadata"]["name"] for claim in connector["spec"]["volumeClaimTemplates"]}
    for claim in connector["spec"]["volumeClaimTemplates"]:
        assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"], "nobody else has the ledger, on no node"
    (mount,) = (each["mountPath"] for each in container(connector)["volumeMounts"] if each["name"] in claims)
    ledger, spool = PurePosixPath(config.orders.directory), PurePosixPath(config.kafka.spool.directory)
    assert ledger.is_relative_to(mount)
    assert ledger != PurePosixPath(mount), "the root of a volume may hold what is not ours"
    assert not ledger.is_relative_to(spool)
    assert not spool.is_relative_to(ledger)


def test_a_second_replica_does_not_start(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARD_INDEX", "1")
    with pytest.raises(ConfigError, match=r"not below shard\.count"):
        config.share()


def test_the_only_replica_can_be_evicted(rendered: Rendered) -> None:
    """A budget that kept one available would hold up the draining of its node for ever."""
    assert rendered[ORDERS].connector["spec"]["replicas"] == 1
    (budget,) = rendered[ORDERS].of("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_rollout_ends_before_the_exchange_cancels_everything(config: Config) -> None:
    given = {name: wanted.cancel_on_disconnect for name, wanted in each_account(config)}
    assert given["bybit"] is None, "it needs Bybit's consent: without, an alert would follow"
    assert given["okx"] is not None
    assert given["okx"] >= config.shutdown_within + 30


def each_account(config: Config) -> Iterator[tuple[str, AccountOrderSettings]]:
    """Venues and what is configured for their accounts."""
    for venue, accounts in config.orders.accounts.items():
        for wanted in accounts.values():
            yield venue, wanted


def test_protection_that_waits_for_bybit_is_taken_as_it_stands_there(rendered: Rendered) -> None:
    text = rendered[ORDERS].config.replace("# cancel_on_disconnect: 60s", "cancel_on_disconnect: 60s")
    with pytest.raises(ConfigError, match="needs the private channel dcp of market linear"):
        loads(text)
    channels = "channels: [order, fill, position, balance"
    assert loads(text.replace(channels, f"{channels}, {{channel: dcp, market: linear}}")).orders.accounts


def test_the_kill_file_is_a_config_map_that_is_made_by_hand(rendered: Rendered, config: Config) -> None:
    connector = rendered[ORDERS].connector
    assert config.orders.kill_file is not None
    file = PurePosixPath(config.orders.kill_file)
    (mount,) = (each for each in container(connector)["volumeMounts"] if each["mountPath"] == str(file.parent))
    (volume,) = (each for each in pod(connector)["volumes"] if each["name"] == mount["name"])
    name = volume["configMap"]["name"]
    assert volume["configMap"] == {"name": name, "optional": True}, "without it the pod starts, with it all is off"
    # What `kubectl apply` knows it could take back.
    assert name not in {each["metadata"]["name"] for each in rendered[ORDERS].objects}
    namespace = connector["metadata"]["namespace"]
    commands = re.findall(r"kubectl -n (\S+) create configmap (\S+) --from-literal=(\w+)=", operations())
    assert commands == [(namespace, name, file.name)]
    assert f"kubectl -n {namespace} delete configmap {name}" in operations()


def operations() -> str:
    return (ROOT / "docs/operations.md").read_text("utf-8")


def test_the_kill_switch_has_a_password_and_monitoring_needs_none(rendered: Rendered, config: Config) -> None:
    assert config.http.token is not None, "without one nothing can be switched over HTTP"
    (monitor,) = rendered["operators/orders"].of("PodMonitor")
    shows_one = any("authorization" in each for each in monitor["spec"]["podMetricsEndpoints"])
    assert config.http.protect_metrics is shows_one


def test_keys_that_trade_are_mounted_nowhere_else(rendered: Rendered) -> None:
    mine = secrets(rendered[ORDERS])
    assert mine >= {"pipeline-bybit-trade", "pipeline-okx-trade"}
    for name in OTHERS:
        assert mine & secrets(rendered[name]) == {"pipeline-kafka"}
        namespaces = {rendered[each].connector["metadata"]["namespace"] for each in (ORDERS, name)}
        assert len(namespaces) == 2, "each has a Secret of that name, and a password of its own"


def secrets(manifests: Manifests) -> set[str]:
    """Names of the Secrets that its pods see."""
    return {each["name"] for each in values(pod(manifests.connector), "secret")}


def test_secrets_that_are_needed_are_made_by_hand_too(rendered: Rendered) -> None:
    namespace = rendered[ORDERS].connector["metadata"]["namespace"]
    made = set(re.findall(rf"kubectl -n (?:NS|{namespace}) create secret generic (\S+)", operations()))
    assert secrets(rendered[ORDERS]) <= made
