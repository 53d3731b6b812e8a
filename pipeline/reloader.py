"""The configuration in force: read anew on demand or when its file has changed, and changed by request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline.config import Config, loads, read_text
from pipeline.config_checks import rules
from pipeline.config_reader import read
from pipeline.exchanges import VENUES
from pipeline.feeds.intake import tls_context
from pipeline.feeds.settings import VenueSettings
from pipeline.model.errors import ConfigError, Refused
from pipeline.observe.control import LOG_LEVEL, RELOAD, SUBSCRIPTIONS, Control
from pipeline.observe.families import Family, collected, counter, gauge
from pipeline.reload import Change, LevelRequest, compare, with_subscriptions
from pipeline.session.clock import Clock

log = structlog.get_logger(__name__)

SETTLING = 1.0
"""Seconds that a changed file has to stay as it is: not everybody replaces files in one step."""
LOOK_FOR_WISH = 10.0
"""Seconds between looks at whether the file is to be looked at again, while it is not."""
UNTIL = "the next restart, or until the configuration is read anew"

APPLIED, REFUSED, UNCHANGED = "applied", "refused", "unchanged"

Order = dict[str, Any]
"""A change as a supervisor hands it to its workers: `config`, `subscriptions` or `log_level`, and what it is."""


@attrs.frozen
class Source:
    """The file that the configuration was read from."""

    path: str
    text: str
    """What it held at the start."""


@attrs.frozen
class Refusal:
    """A configuration that was not taken."""

    time: int
    """Microseconds."""
    problems: tuple[str, ...]


@attrs.define(eq=False)
class Reloader:
    """Keeps the configuration in force, and has changes of it applied."""

    config: Config
    """In force."""
    apply: Callable[[Change], None]
    clock: Clock
    source: Source | None = None
    """None: nothing can be read anew."""
    pass_on: Callable[[Order], None] = lambda _: None
    """Is told of each change that was accepted."""
    parse: Callable[[str], Config] = loads
    """What a text says. Raises `ConfigError`."""
    is_led: bool = False
    """Whether somebody else decides, who also tells the log about it."""
    results: dict[str, int] = attrs.field(factory=lambda: {APPLIED: 0, REFUSED: 0, UNCHANGED: 0}, init=False)
    loaded: int = attrs.field(default=0, init=False)
    """When a configuration was last accepted, in microseconds."""
    refusal: Refusal | None = attrs.field(default=None, init=False)
    """Of the last reading, if it was refused."""
    needs_restart: tuple[str, ...] = attrs.field(default=(), init=False)
    """Keys of the file that differ from what is in force."""
    temporary: list[Order] = attrs.field(factory=list, init=False)
    """What was asked for beside the file, since it was read."""
    _last: str = attrs.field(default=UNCHANGED, init=False)
    """What became of the last reading."""
    _seen: str | tuple[str, ...] = attrs.field(default="", init=False)
    """What was last judged, as `_look` gave it."""

    def __attrs_post_init__(self) -> None:
        self.loaded = self.clock()
        if self.source is not None:
            self._seen = self.source.text

    async def watch(self) -> None:
        """Read the configuration anew whenever its file has changed, until cancelled."""
        while self.source is not None:
            every = self.config.reload.check
            await trio.sleep(every or LOOK_FOR_WISH)
            if not every:
                continue
            found = await self._look()
            while found != self._seen:
                await trio.sleep(min(SETTLING, every))
                again = await self._look()
                if again == found:
                    self._judge(found, "a change of the file")
                found = again

    async def reload(self, asked_by: str) -> dict[str, Any]:
        """Read the file and follow it, whether it has changed or not; returns what became of it.

        What was asked for beside the file ends with that. Raises `ConfigError` if the file is refused, whole, and
        `Refused` where there is no file to be read.
        """
        if self.source is None:
            raise Refused("the configuration is not this process's to read")
        self._judge(await self._look(), asked_by)
        if self.refusal is not None:
            raise ConfigError(list(self.refusal.problems))
        return {"result": self._last, "needs_restart": list(self.needs_restart)}

    async def obey_signal(self) -> None:
        """Read the file as SIGHUP wants it; the log tells what became of it."""
        try:
            await self.reload("SIGHUP")
        except ConfigError:
            pass  # `config_refused` is in the log
        except Refused as error:
            log.info("config_not_reloaded", text=str(error))

    def take(self, text: str, asked_by: str) -> None:
        """Follow the text of a configuration. Raises `ConfigError`: nothing has changed then."""
        change = compare(self.config, self.parse(text))
        check_authorities({name: change.config.venues[name] for name in change.added})
        self.refusal = None
        self.loaded = self.clock()
        self.temporary.clear()
        has_news = change.needs_restart != self.needs_restart
        self.needs_restart = change.needs_restart
        self._last = APPLIED if change.applied or has_news else UNCHANGED
        self.results[self._last] += 1
        if change.applied or has_news:
            self.pass_on({"config": text})
        event = "config_applied" if self._last == APPLIED else "config_unchanged"
        log.info(event, asked_by=asked_by, applied=list(change.applied))
        if has_news and change.needs_restart and not self.is_led:
            log.warning("config_needs_restart", keys=list(change.needs_restart))
        self._follow(change)

    def change_subscriptions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Add and remove subscriptions until the next reading. Raises `ConfigError`."""
        change = compare(self.config, with_subscriptions(self.config, body, VENUES))
        self._accept("subscriptions", body, change)
        answer = {"result": APPLIED if change.applied else UNCHANGED, "lives_until": UNTIL}
        if (count := self.config.shard.count) > 1:
            answer["note"] = (
                f"each of the {count} instances takes its part of what it knows of: ask all of them the same"
            )
        return answer

    def change_log_level(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write more or less until the next reading. Raises `ConfigError`."""
        level = read(dict(body), LevelRequest, rules(VENUES)).level
        wanted = attrs.evolve(self.config, log=attrs.evolve(self.config.log, level=level))
        change = compare(self.config, wanted)
        self._accept("log_level", body, change)
        return {"result": APPLIED if change.applied else UNCHANGED, "lives_until": UNTIL}

    def controls(self) -> dict[str, Control]:
        """The same over HTTP, and reading the file."""

        async def reload(body: Mapping[str, Any]) -> Mapping[str, Any]:
            return await self.reload(RELOAD)

        async def subscriptions(body: Mapping[str, Any]) -> Mapping[str, Any]:
            return self.change_subscriptions(body)

        async def log_level(body: Mapping[str, Any]) -> Mapping[str, Any]:
            return self.change_log_level(body)

        return {RELOAD: reload, SUBSCRIPTIONS: subscriptions, LOG_LEVEL: log_level}

    def obey(self, order: Order) -> None:
        """Follow what another `Reloader` has accepted and passed on. Raises `ConfigError`."""
        for what, value in order.items():
            match what:
                case "config":
                    self.take(value, "the supervisor")
                case "subscriptions":
                    self.change_subscriptions(value)
                case "log_level":
                    self.change_log_level(value)

    def status(self) -> dict[str, Any]:
        """What there is to know, ready for JSON; times are microseconds UTC."""
        return {
            "loaded": self.loaded,
            "reloads": dict(self.results),
            "refused": attrs.asdict(self.refusal) if self.refusal is not None else None,
            "needs_restart": list(self.needs_restart),
            "temporary": list(self.temporary),
        }

    async def _look(self) -> str | tuple[str, ...]:
        """The file's text; if it cannot be read, why."""
        assert self.source is not None
        path = Path(self.source.path)
        try:
            return await trio.to_thread.run_sync(read_text, path)
        except ConfigError as error:
            return tuple(error.problems)

    def _judge(self, found: str | tuple[str, ...], asked_by: str) -> None:
        self._seen = found
        if isinstance(found, tuple):
            self._refuse(list(found), asked_by)
            return
        try:
            self.take(found, asked_by)
        except ConfigError as error:
            self._refuse(error.problems, asked_by)

    def _refuse(self, problems: list[str], asked_by: str) -> None:
        self.results[REFUSED] += 1
        self._last = REFUSED
        self.refusal = Refusal(self.clock(), tuple(problems))
        log.error("config_refused", asked_by=asked_by, problems=problems)

    def _accept(self, what: str, body: Mapping[str, Any], change: Change) -> None:
        order = {what: dict(body)}
        (log.debug if self.is_led else log.info)("control_accepted", **order)
        self.temporary.append(order)
        self.pass_on(order)
        self._follow(change)

    def _follow(self, change: Change) -> None:
        self.config = change.config
        self.apply(change)


def check_authorities(venues: Mapping[str, VenueSettings]) -> None:
    """A venue that cannot even begin would end the whole service. Raises `ConfigError`."""
    problems = []
    for name, settings in venues.items():
        try:
            tls_context(settings)
        except OSError as error:  # also what is no certificate
            problems.append(f"venues.{name}.urls.ca_file: cannot be used: {error.strerror or error}")
    if problems:
        raise ConfigError(problems)


_METRICS: tuple[Family[Reloader], ...] = (
    counter("pipeline_config_reloads", "Times the configuration was read anew.", lambda r: r.results, by="result"),
    gauge(
        "pipeline_config_loaded_timestamp_seconds", "When a configuration was last accepted.", lambda r: r.loaded / 1e6
    ),
    gauge(
        "pipeline_config_needs_restart",
        "Keys of the configuration that wait for a restart.",
        lambda r: len(r.needs_restart),
    ),
    gauge("pipeline_config_refused", "1 if the last reading was refused.", lambda r: float(r.refusal is not None)),
)


class ReloadCollector(Collector):
    """Metrics of what became of changes of the configuration."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    def collect(self) -> Iterator[Metric]:
        return collected(_METRICS, (), [((), self._reloader)])
