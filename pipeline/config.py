"""The configuration file: what can be in it, and reading it with every fault reported at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from pipeline import config_orders
from pipeline.config_checks import rules
from pipeline.config_reader import Bounds, Check, Rules, Where, parse_yaml, read
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Venue
from pipeline.feeds.settings import VenueSettings
from pipeline.feeds.shares import Ordinal, ShardSettings, Share
from pipeline.model.errors import ConfigError
from pipeline.model.events import KINDS, Instrument
from pipeline.observe.settings import HttpSettings, LogSettings
from pipeline.orders.settings import OrderSettings
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import group_of

MAX_WORKERS = 64


@attrs.frozen
class ReloadSettings:
    """Following changes of this file without a restart; SIGHUP has it read anew in any case."""

    check: float = 10.0
    """Seconds between looks at whether the file has changed; 0: never."""


@attrs.frozen
class Config:
    """One configuration file; its parts are defined beside the code that they configure."""

    venues: Mapping[str, VenueSettings] = attrs.field(factory=dict)
    """By the venue's name."""
    kafka: KafkaSettings = attrs.field(factory=KafkaSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
    orders: OrderSettings = attrs.field(factory=OrderSettings)
    http: HttpSettings = attrs.field(factory=HttpSettings)
    shutdown_within: float = 30.0
    """Seconds from the signal to stop until the process ends, whatever is unfinished then."""
    workers: int = 1
    """Processes, each with its share of the subscriptions; with more than one, another process watches over them."""
    worker_silence: float = 10.0
    """Seconds without an answer after which a worker is taken for hung: the service is not ready then."""
    shard: ShardSettings = attrs.field(factory=ShardSettings)
    reload: ReloadSettings = attrs.field(factory=ReloadSettings)

    @property
    def shares(self) -> int:
        """Into how many parts the subscriptions are split, over all instances."""
        return self.shard.count * self.workers

    @property
    def written_kinds(self) -> frozenset[str]:
        """The kinds of events that this configuration can publish, whatever the venues send.

        Rights and topics are needed for these only.
        """
        venues = self.venues.values()
        idle = {
            "market": not any(venue.channels for venue in venues),
            "account": not any(account.channels for venue in venues for account in venue.accounts.values()),
            "order": not any(self.orders.accounts.values()),
            "archive": not any(venue.archive is not None and venue.archive.topic for venue in venues),
        }
        kinds = {kind for kind in KINDS if not idle.get(group_of(kind), False)}
        # The catalogue is published for accounts too: their sizes are in contracts.
        if any(venue.publish_instruments for venue in venues):
            kinds.add(Instrument.KIND)
        return frozenset(kinds)

    def share(self, worker: int = 0) -> Share:
        """What one of this instance's workers takes. Raises `ConfigError` where the environment does not tell."""
        index = self.shard.index
        if isinstance(index, Ordinal):
            name, index = index.env, index.resolve(os.environ)
            if index >= self.shard.count:
                where = f"shard.index: environment variable {name} says {index}"
                raise ConfigError([f"{where}, which is not below shard.count, which is {self.shard.count}"])
        return Share(index * self.workers + worker, self.shares)

    def for_share(self, share: Share) -> Config:
        """With a spool, an archive and names in Kafka that no other share has."""
        if share.is_whole:
            return self
        kafka = self.kafka
        return attrs.evolve(
            self,
            kafka=attrs.evolve(
                kafka,
                client_id=kafka.client_id + share.suffix,
                shard=kafka.shard_name + share.suffix if kafka.is_exactly_once else None,
                spool=attrs.evolve(kafka.spool, directory=own_folder(kafka.spool.directory, share)),
            ),
            venues={name: _with_own_archive(venue, share) for name, venue in self.venues.items()},
        )


def load(path: str | Path, venues: Mapping[str, Venue] = VENUES) -> Config:
    """Read a configuration file.

    Raises `ConfigError` with every problem of the file, one line each: `path: what`.
    """
    return loads(read_text(path), venues)


def read_text(path: str | Path) -> str:
    """What a configuration file holds. Raises `ConfigError`."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"byte {error.start}: not UTF-8"]) from None


def loads(text: str, venues: Mapping[str, Venue] = VENUES) -> Config:
    """The same from YAML text."""
    parts = rules(venues)

    def bounds(cls: type, field: str) -> Bounds:
        return Bounds(0) if cls is ReloadSettings else parts.bounds(cls, field)

    return read(parse_yaml(text), Config, Rules(bounds, {**parts.checks, Config: _checks(venues)}, parts.plain_numbers))


def own_folder(directory: str, share: Share) -> str:
    """Where a share keeps what it does not share: `share-3-of-8` in the directory, or all of it."""
    return directory if share.is_whole else str(Path(directory) / f"share{share.suffix}")


def _with_own_archive(venue: VenueSettings, share: Share) -> VenueSettings:
    if venue.archive is None or venue.archive.files is None:
        return venue
    # Each tidies up after itself, and would take the others' files for its own.
    files = attrs.evolve(venue.archive.files, directory=own_folder(venue.archive.files.directory, share))
    return attrs.evolve(venue, archive=attrs.evolve(venue.archive, files=files))


def _checks(venues: Mapping[str, Venue]) -> Check:
    def checks(config: Config, where: Where) -> Iterator[tuple[str, str]]:
        yield from _whole(config, where)
        for below, why in config_orders.problems(config.orders, config.venues, config.kafka, config.shares, venues):
            yield f"orders.{below}".removesuffix("."), why

    return checks


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
    if config.workers > MAX_WORKERS:
        yield "workers", f"must be between 1 and {MAX_WORKERS}, not {config.workers}"
    index, count = config.shard.index, config.shard.count
    if isinstance(index, int) and index >= count:
        yield "shard.index", f"must be below count, which is {count}, not {index}"
