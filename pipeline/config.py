"""The configuration file: what can be in it, and reading it with every fault reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from pipeline.config_checks import rules
from pipeline.config_reader import Where, parse_yaml, read
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Venue
from pipeline.feeds.settings import VenueSettings
from pipeline.model.errors import ConfigError
from pipeline.observe.settings import HttpSettings, LogSettings
from pipeline.sink.settings import KafkaSettings


@attrs.frozen
class Config:
    """One configuration file; its parts are defined beside the code that they configure."""

    venues: Mapping[str, VenueSettings] = attrs.field(factory=dict)
    """By the venue's name."""
    kafka: KafkaSettings = attrs.field(factory=KafkaSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
    http: HttpSettings = attrs.field(factory=HttpSettings)
    shutdown_within: float = 30.0
    """Seconds from the signal to stop until the process ends, whatever is unfinished then."""


def load(path: str | Path, venues: Mapping[str, Venue] = VENUES) -> Config:
    """Read a configuration file.

    Raises `ConfigError` with every problem of the file, one line each: `path: what`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"byte {error.start}: not UTF-8"]) from None
    return loads(text, venues)


def loads(text: str, venues: Mapping[str, Venue] = VENUES) -> Config:
    """The same from YAML text."""
    parts = rules(venues)
    return read(parse_yaml(text), Config, attrs.evolve(parts, checks={**parts.checks, Config: _whole}))


def _whole(config: Config, _: Where) -> Iterator[tuple[str, str]]:
    if not any(
        settings.channels or any(account.channels for account in settings.accounts.values())
        for settings in config.venues.values()
    ):
        yield "venues", "no channel of any venue is configured"
    if config.kafka.drain_within >= config.shutdown_within:
        yield (
            "kafka.drain_within",
            f"{config.kafka.drain_within:g} s do not fit into shutdown_within, which is {config.shutdown_within:g} s",
        )
