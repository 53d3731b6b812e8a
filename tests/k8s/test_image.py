"""The image, built and run as Kubernetes would: nobody special, nothing writable but its volume, and a clean end."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.k8s.manifests import ROOT, Manifests, container, pod
from tests.services.containers import Podman
from tests.services.ports import reserve_port

pytestmark = pytest.mark.image

BASE = "docker.io/library/python:3.13-slim-trixie"
IMAGE = "localhost/exchange-pipeline:test"
REVISION = "0123abc"
LARGEST_GROWTH = 120 * 2**20
DEADLINE_S = 60
CONFIG = "/etc/pipeline/config.yaml"
WITHOUT_ITS_SECRET = """\
kafka:
  spool: {directory: /tmp/spool}
  properties: {sasl.password: {file: /run/secrets/pipeline/kafka/password}}
venues: {bybit: {channels: [{market: spot, channel: trade}]}}
"""

Start = Callable[..., str]


@pytest.fixture(scope="module")
def podman() -> Podman:
    podman = Podman.ready()
    podman.ensure_base(BASE)
    podman.build(ROOT, IMAGE, {"REVISION": REVISION})
    return podman


@pytest.fixture
def start(podman: Podman, rendered: dict[str, Manifests]) -> Iterator[Start]:
    """Starts a container with the manifests' own restrictions; all are gone when the test ends."""
    connector = rendered["overlays/market-data"].connector
    main, user = container(connector), pod(connector)["securityContext"]
    assert main["securityContext"]["readOnlyRootFilesystem"] is True
    restrictions = [
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        f"--memory={main['resources']['limits']['memory'].replace('Mi', 'm')}",
        f"--user={user['runAsUser']}:{user['runAsGroup']}",
        "--tmpfs=/tmp:size=16m",
        "--network=host",
    ]
    names: list[str] = []

    def run(*command: str, options: tuple[str, ...] = ()) -> str:
        name = f"pipeline-test-{uuid.uuid4().hex[:12]}"
        names.append(name)
        volume = f"--volume={name}:/var/lib/pipeline:U"
        podman("run", "--detach", "--name", name, *restrictions, volume, *options, IMAGE, *command)
        return name

    yield run
    for name in names:
        podman("rm", "--force", "--time=0", name)
        podman("volume", "rm", "--force", name)


def test_the_image_is_small_and_says_what_it_is(podman: Podman) -> None:
    (image,) = json.loads(podman("image", "inspect", IMAGE).stdout)
    (base,) = json.loads(podman("image", "inspect", BASE).stdout)
    assert image["Size"] - base["Size"] < LARGEST_GROWTH
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python", "-m", "pipeline"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.revision"] == REVISION
    assert not any("SECRET" in each or "://" in each for each in config["Env"])
    found = podman(
        "run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "ls -A /app; command -v gcc pip git || true"
    ).stdout
    assert set(found.split()) == {"LICENSE", "pipeline", "pyproject.toml", "requirements.lock", "schemas"}


def test_it_runs_with_nothing_and_drains_when_told_to_end(podman: Podman, start: Start, tmp_path: Path) -> None:
    venue, http = reserve_port(), reserve_port()
    start("simulate", "--venue", "bybit", "--port", str(venue))
    folder = write_config(tmp_path, venue, http)
    name = start("--config", CONFIG, options=(f"--volume={folder}:/etc/pipeline:ro",))
    url = f"http://127.0.0.1:{http}"
    for path in ("/startupz", "/readyz", "/healthz"):
        await_ok(podman, name, f"{url}{path}")
    await_metric(url, "pipeline_sink_acknowledged_total", 100)
    assert "\npipeline_ready 1.0\n" in get(f"{url}/metrics").text
    first = podman("exec", name, "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/status").stdout
    assert first.startswith(f"python -m pipeline --config {CONFIG} ")
    status = dict(line.split(":\t", 1) for line in first.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for path in ("/app/x", "/etc/pipeline/x", "/opt/venv/x"):
        assert podman("exec", name, "touch", path, check=False).returncode != 0
    podman("stop", "--time=50", name)
    (ended,) = json.loads(podman("container", "inspect", name).stdout)
    assert ended["State"]["ExitCode"] == 0
    lines = logs(podman, name)
    assert [line["event"] for line in lines][-1] == "service_stopped"
    (closed,) = (line for line in lines if line["event"] == "sink_closed")
    assert closed["published"] == closed["acknowledged"] > 100
    assert closed["announced_lost"] == closed["spooled"] == 0


def test_a_second_signal_ends_it_at_once(podman: Podman, start: Start, tmp_path: Path) -> None:
    venue, http = reserve_port(), reserve_port()
    start("simulate", "--venue", "bybit", "--port", str(venue))
    # No broker: there is something to drain for as long as it may.
    folder = write_config(tmp_path, venue, http, broker=f"127.0.0.1:{reserve_port()}")
    name = start("--config", CONFIG, options=(f"--volume={folder}:/etc/pipeline:ro",))
    await_ok(podman, name, f"http://127.0.0.1:{http}/readyz")
    await_metric(f"http://127.0.0.1:{http}", "pipeline_sink_published_total", 100)
    podman("kill", "--signal=TERM", name)
    await_event(podman, name, "intake_stopped")
    podman("kill", "--signal=TERM", name)
    assert podman("wait", name).stdout.strip() == "143"
    assert "exiting_at_once" in [line["event"] for line in logs(podman, name)]


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ("venues: {bybit: {chanels: []}}", 2, 'venues.bybit.chanels: unknown key; did you mean "channels"?'),
        (
            WITHOUT_ITS_SECRET,
            1,
            "/run/secrets/pipeline/kafka/password: No such file or directory",
        ),
    ],
    ids=["configuration", "secret"],
)
def test_what_cannot_start_says_why_in_its_last_line(
    podman: Podman, start: Start, tmp_path: Path, config: str, code: int, said: str
) -> None:
    (tmp_path / "config.yaml").write_text(config, "utf-8")
    readable(tmp_path)
    name = start("--config", CONFIG, options=(f"--volume={tmp_path}:/etc/pipeline:ro",))
    assert podman("wait", name).stdout.strip() == str(code)
    done = podman("logs", name)
    assert said in (done.stdout + done.stderr).splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def write_config(folder: Path, venue: int, http: int, broker: str | None = None) -> Path:
    """A configuration for the simulated venue; without a broker's address, with one in the process."""
    url = f"127.0.0.1:{venue}"
    kafka: dict[str, Any] = {"bootstrap_servers": [broker], "connect_within": 2}
    if broker is None:
        kafka = {"bootstrap_servers": [], "properties": {"test.mock.num.brokers": 1}}
    config = {
        "kafka": {
            **kafka,
            "create_topics": False,
            "verify_topics": False,
            "spool": {"directory": "/var/lib/pipeline/spool"},
        },
        "venues": {
            "bybit": {
                "urls": {"websocket": f"ws://{url}", "rest": f"http://{url}"},
                "channels": [{"market": "linear", "channel": ["trade", "book"], "instruments": ["*"]}],
            }
        },
        "log": {"format": "json"},
        "http": {"port": http},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    return readable(folder)


def readable(folder: Path) -> Path:
    """As a ConfigMap's files are: pytest's folders are their owner's alone."""
    for path in (folder, folder / "config.yaml"):
        path.chmod(0o755)
    return folder


def get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        return client.get(url)


def await_ok(podman: Podman, name: str, url: str) -> None:
    """Wait until a page answers with 200, or the container ends, or it takes too long."""
    deadline = time.monotonic() + DEADLINE_S
    answer: object = None
    while time.monotonic() < deadline:
        try:
            response = get(url)
            if response.is_success:
                return
            answer = response.text
        except httpx.TransportError as error:
            answer = error
        (state,) = json.loads(podman("container", "inspect", name).stdout)
        assert state["State"]["Running"], podman("logs", name).stderr
        time.sleep(0.1)
    raise AssertionError(f"{url}: {answer}")


def await_metric(url: str, name: str, least: float) -> None:
    """Wait until a metric without labels is so high."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        values = [float(line.split()[1]) for line in get(f"{url}/metrics").text.splitlines() if line.startswith(name)]
        if values and values[0] >= least:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} stays below {least}")


def await_event(podman: Podman, name: str, event: str) -> None:
    """Wait until a line of the log tells of it."""
    deadline = time.monotonic() + DEADLINE_S
    while event not in [line["event"] for line in logs(podman, name)]:
        assert time.monotonic() < deadline, f"no {event}"
        time.sleep(0.1)


def logs(podman: Podman, name: str) -> list[dict[str, Any]]:
    done = podman("logs", name)
    return [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
