from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline import __version__, cli
from pipeline.model.errors import ConfigError, Refused

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data" / "tape"
PIPELINE = [sys.executable, "-m", "pipeline"]
# With it, Python would not buffer standard output, and a missing flush would not be noticed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
NORMALIZE = ["normalize", "--venue", "bybit", "--stream", "linear"]

BAD = """
kafka: {linger: fast, properties: {sasl.password: hunter2}}
venues: {bybit: {chanels: [], channels: [{market: linear, channel: book, depth: 7}]}}
"""
BAD_LINES = [
    'kafka.linger: expected a number of seconds (or 500ms, 15s, 5m, 2h, 7d), got "fast"',
    "kafka.properties.sasl.password: expected {env: NAME} or {file: PATH}: secrets are not written into this file",
    'venues.bybit.chanels: unknown key; did you mean "channels"?',
    "venues.bybit.channels[0].depth: bybit has no 7 levels in linear; it has 50, 200, 1000, rpi, full",
]


def pipeline(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PIPELINE, *arguments], cwd=ROOT, input=stdin, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("command", [(), ("check",), ("tail",)], ids=["service", "check", "tail"])
def test_a_faulty_configuration_is_reported_the_same_way_everywhere(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    assert cli.main([*command, "--config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"{path}: {line}" for line in BAD_LINES]


def test_a_faulty_configuration_as_a_process(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    done = pipeline("check", "--config", str(path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [f"{path}: {line}" for line in BAD_LINES]


def test_an_environment_that_does_not_tell_the_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sharded.yaml"
    path.write_text(
        "{shard: {index: {env: POD_NAME}, count: 2}, venues: {bybit: {channels: [{market: spot, channel: trade}]}}}"
    )
    monkeypatch.setenv("POD_NAME", "pipeline-2")
    monkeypatch.setattr("pipeline.observe.logs.configure", lambda _: None)
    assert cli.main(["--config", str(path)]) == 2
    why = "environment variable POD_NAME says 2, which is not below shard.count, which is 2"
    assert capsys.readouterr().err == f"{path}: shard.index: {why}\n"


def test_several_workers_have_a_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import workers

    seen: list[Any] = []

    async def run(config: Any, text: str, path: str, *, is_live: bool) -> int:
        seen.extend((config.workers, text, path, is_live))
        return 5

    text = "{workers: 3, venues: {bybit: {channels: [{market: spot, channel: trade}]}}}"
    path = tmp_path / "workers.yaml"
    path.write_text(text)
    monkeypatch.setattr(workers, "run", run)
    monkeypatch.setattr("pipeline.observe.logs.configure", lambda _: None)
    assert cli.main(["--config", str(path)]) == 5
    assert cli.main(["--config", str(path), "--live"]) == 5
    assert seen == [3, text, str(path), False, 3, text, str(path), True]


@pytest.mark.parametrize("workers", [1, 2])
def test_authorities_that_cannot_be_read_are_a_line(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "private.yaml"
    path.write_text(
        f"{{workers: {workers}, venues: {{bybit: {{urls: {{rest: 'https://gateway', ca_file: '{tmp_path}/none.pem'}}, "
        "channels: [{market: spot, channel: trade}]}}}"
    )
    monkeypatch.setattr("pipeline.observe.logs.configure", lambda _: None)
    assert cli.main(["--config", str(path)]) == 2
    why = "venues.bybit.urls.ca_file: cannot be used: No such file or directory"
    assert capsys.readouterr().err == f"{path}: {why}\n"
    greeting = json.dumps({"config": path.read_text()}).encode() + b"\n"
    done = pipeline("--config", str(path), "--worker", "0", stdin=greeting)
    assert (done.returncode, done.stderr.decode()) == (2, f"{path}: {why}\n")


def test_a_worker_whose_supervisor_is_gone_does_not_start() -> None:
    done = pipeline("--config", "config.example.yaml", "--worker", "0")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_a_worker_names_the_file_that_its_supervisor_read(tmp_path: Path) -> None:
    done = pipeline("--config", "x.yaml", "--worker", "0", stdin=json.dumps({"config": "workers: 0"}).encode() + b"\n")
    assert done.returncode == 2
    assert done.stderr.startswith(b"x.yaml: workers: must be at least 1, not 0\n")


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", "/nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "/nowhere.yaml: cannot be read: No such file or directory\n"


def test_check_of_the_example() -> None:
    done = pipeline("check", "--config", "config.example.yaml", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(json.loads(done.stdout)["venues"]) == {"bybit", "okx"}


def test_normalize_as_a_process() -> None:
    done = pipeline(*NORMALIZE, stdin=(DATA / "bybit.linear.trades.jsonl").read_bytes() + b"\nbroken\n")
    assert done.returncode == 1
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["trade", "trade"]
    assert done.stderr.startswith(b"<stdin>:3: ")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_bytes((DATA / "bybit.linear.trades.jsonl").read_bytes() * 5_000)
    with subprocess.Popen(
        [*PIPELINE, *NORMALIZE, str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"event":"trade"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_an_interrupt_is_quiet() -> None:
    with subprocess.Popen(
        [*PIPELINE, *NORMALIZE],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        # What runs in the background of a script inherits that interrupts are ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write((DATA / "bybit.linear.trades.jsonl").read_bytes())
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"{")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""


def test_an_unknown_stream_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["normalize", "--venue", "okx", "--stream", "pubic"]) == 2
    assert capsys.readouterr().err == '--stream: okx has no stream "pubic"; did you mean "public"?\n'


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["chek"], 'unknown command "chek"; did you mean "check"?\n', id="a slip"),
        pytest.param(["xyz"], f'unknown command "xyz"; known: {", ".join(cli.COMMANDS)}\n', id="no such thing"),
        pytest.param([], "--config", id="nothing"),
        pytest.param(["--confg", "x"], "--config", id="a misspelt option"),
        pytest.param(["check"], "--config", id="check without configuration"),
        pytest.param(["normalize", "--stream", "linear"], "--venue", id="normalize without venue"),
        pytest.param(["normalize", "--venue", "kraken", "--stream", "x"], "'bybit', 'okx'", id="an unknown venue"),
        pytest.param(
            ["normalize", "--venue", "okx", "--stream", "public", "--receive-time", "x"], "microseconds", id="t"
        ),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"exchange-pipeline {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in out
        assert command.summary in out


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.cli import main; main(['--help']); "
        "heavy = {'trio', 'attrs', 'msgspec', 'structlog', 'confluent_kafka', 'yaml'} & sys.modules.keys(); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: ")


def _raising(error: BaseException) -> Callable[[argparse.ArgumentParser], cli.Run]:
    def run(_: argparse.Namespace) -> int:
        raise error

    return lambda _: run


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        pytest.param(Refused("bad key"), 1, "bad key\n", id="refused"),
        pytest.param(ConfigError(["a: b", "c: d"]), 2, "a: b\nc: d\n", id="configuration"),
        pytest.param(ExceptionGroup("", [ConfigError(["a: b", "c: d"])]), 2, "a: b\nc: d\n", id="in a nursery"),
        pytest.param(ExceptionGroup("", [Refused("x"), Refused("y")]), 1, "x\ny\n", id="two"),
        pytest.param(KeyboardInterrupt(), 130, "", id="interrupt"),
        pytest.param(
            BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()])]),
            130,
            "",
            id="interrupt in nurseries",
        ),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "check", cli.Command("", _raising(error)))
    assert cli.main(["check"]) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("error", [RuntimeError("bug"), ExceptionGroup("", [Refused("x"), ValueError("bug")])], ids=str)
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "check", cli.Command("", _raising(error)))
    with pytest.raises(type(error)) as caught:
        cli.main(["check"])
    assert caught.value is error


def test_the_service_gets_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import app

    seen: list[Any] = []

    async def run(config: Any, seat: Any, source: Any, *, is_live: bool) -> int:
        seen.append(config)
        assert seat == app.Seat()
        assert source.path == str(ROOT / "config.example.yaml")
        return 5 if is_live else 1

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr("pipeline.observe.logs.configure", seen.append)
    assert cli.main(["--config", str(ROOT / "config.example.yaml")]) == 1
    assert seen == [seen[1].log, seen[1]]
    assert cli.main(["--config", str(ROOT / "config.example.yaml"), "--live"]) == 5
