"""A changed configuration beside the one in force: what can follow at once, what needs a restart. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from pipeline.config_checks import rules
from pipeline.config_reader import Check, read, suggestion
from pipeline.exchanges.venue import Subscription, Venue
from pipeline.feeds.settings import BookSettings, ChannelSettings, VenueSettings
from pipeline.feeds.specs import BOOK, CANDLE
from pipeline.model.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import Config

LIVE = frozenset({"venues", "log", "reload"})
"""Parts of a configuration that a running service follows, `venues` as far as `LIVE_OF_VENUE` says."""
LIVE_OF_VENUE = frozenset({"channels", "refresh_instruments", "publish_instruments", "max_topics_per_connection"})
"""What a running venue follows; a venue that is new follows all."""


@attrs.frozen
class Change:
    """The way from the configuration in force to another one."""

    config: Config
    """What is in force afterwards: the old one, with all of the new one that can be followed."""
    added: tuple[str, ...] = ()
    """Venues."""
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    log: bool = False
    """Whether the settings of the log are others."""
    needs_restart: tuple[str, ...] = ()
    """Keys of the new one that are not followed, as paths."""
    applied: tuple[str, ...] = ()
    """Keys that are followed and differ, as paths."""


def compare(old: Config, new: Config) -> Change:
    """What becomes of the configuration in force (`old`) when the file says `new`."""
    applied: list[str] = []
    waiting = [path for path in differences(old, new) if path.partition(".")[0] not in LIVE]
    venues: dict[str, VenueSettings] = {}
    changed: list[str] = []
    for name, wanted in new.venues.items():
        before = old.venues.get(name)
        if before is None:
            venues[name] = wanted
            continue
        venues[name], left = _followed(before, wanted)
        waiting += [f"venues.{name}.{path}" for path in left]
        paths = [f"venues.{name}.{path}" for path in differences(before, venues[name])]
        applied += paths
        if paths:
            changed.append(name)
    added = tuple(name for name in new.venues if name not in old.venues)
    gone = [name for name in old.venues if name not in new.venues]
    # Orders are taken until the restart, and their outcomes looked up over the venue's own connections.
    kept = [name for name in gone if old.orders.accounts.get(name)]
    venues |= {name: old.venues[name] for name in kept}
    waiting += [f"venues.{name}" for name in kept]
    removed = tuple(name for name in gone if name not in kept)
    applied += [f"venues.{name}" for name in (*added, *removed)]
    applied += [path for path in differences(old, new) if path.partition(".")[0] in LIVE - {"venues"}]
    config = attrs.evolve(old, venues=venues, log=new.log, reload=new.reload)
    is_log = old.log != new.log
    return Change(config, added, removed, tuple(changed), is_log, tuple(waiting), tuple(applied))


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Where two settings objects differ; lists and plain values are compared whole."""
    if old == new:
        return
    below = f"{path}." if path else ""
    if attrs.has(type(old)) and type(old) is type(new):
        for field in attrs.fields(type(old)):
            yield from differences(getattr(old, field.name), getattr(new, field.name), below + field.name)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            if key in old and key in new:
                yield from differences(old[key], new[key], below + str(key))
            else:
                yield below + str(key)
    else:
        yield path


def _followed(before: VenueSettings, wanted: VenueSettings) -> tuple[VenueSettings, list[str]]:
    """What of a running venue's new settings is in force at once, and the keys that are not."""
    waiting = [path for path in differences(before, wanted) if path.partition(".")[0] not in LIVE_OF_VENUE]
    channels = []
    for position, entry in enumerate(wanted.channels):
        if entry.account is None or entry.account in before.accounts:
            channels.append(entry)
        else:
            waiting.append(f"channels[{position}].account")
    followed = {name: getattr(wanted, name) for name in LIVE_OF_VENUE}
    return attrs.evolve(before, **{**followed, "channels": tuple(channels)}), waiting


@attrs.frozen
class SubscriptionRequest:
    """What is asked of `/control/subscriptions`."""

    venue: str
    add: tuple[ChannelSettings, ...] = ()
    """Entries of `channels`; for what is subscribed already, their options count from now on."""
    remove: tuple[ChannelSettings, ...] = ()
    """Entries of `channels`, of which instruments are taken as they are written there."""


@attrs.frozen
class LevelRequest:
    """What is asked of `/control/log-level`."""

    level: Literal["debug", "info", "warning", "error"]


@attrs.frozen
class SwitchRequest:
    """Whose kill switch is meant."""

    venue: str | None = None
    """None: of all venues."""
    account: str | None = None
    """None: of all accounts."""
    reason: str | None = None
    """Why, for people."""

    def accounts_of(self, config: Config) -> list[tuple[str, str]]:
        """Venue and account of those that are meant and take orders."""
        return [
            (venue, account)
            for venue, accounts in config.orders.accounts.items()
            for account in accounts
            if self.venue in (None, venue) and self.account in (None, account)
        ]


@attrs.frozen
class ResyncRequest:
    """What is asked of `/control/resync`."""

    venue: str
    instrument: str
    channel: str = BOOK
    """`book`, or the venue's own name of the channel, as events have it; `book` means all of them."""
    market: str | None = None
    """None: all markets that have an instrument of this name."""

    def means(self, subscription: Subscription) -> bool:
        """Whether this book is meant, given that it is one of the venue."""
        return (
            subscription.instrument == self.instrument
            and self.channel in (BOOK, subscription.channel)
            and self.market in (None, subscription.market)
        )


def with_subscriptions(config: Config, body: Mapping[str, Any], venues: Mapping[str, Venue]) -> Config:
    """The configuration with entries added to a venue's channels and removed from them.

    Raises `ConfigError` with one line per fault, as for a file.
    """
    parts = rules(venues)
    where = ("venues", str(body.get("venue")))
    checks: dict[type, Check] = {ChannelSettings: lambda entry, _: parts.checks[ChannelSettings](entry, where)}
    request = read(dict(body), SubscriptionRequest, attrs.evolve(parts, checks=checks))
    known_venue(config, request.venue)
    if not request.add and not request.remove:
        raise ConfigError(["add: nothing is to be added or removed"])
    settings = config.venues[request.venue]
    kept = _without(settings.channels, request.remove) if request.remove else settings.channels
    settings = attrs.evolve(settings, channels=(*request.add, *kept))
    problems = [
        f"{path.replace('channels[', 'add[')}: {why}"
        for path, why in parts.checks[VenueSettings](settings, ("venues", request.venue))
    ]
    if problems:
        raise ConfigError(problems)
    return attrs.evolve(config, venues={**config.venues, request.venue: settings})


def read_resync(config: Config, body: Mapping[str, Any], venues: Mapping[str, Venue]) -> ResyncRequest:
    """What a body asks for. Raises `ConfigError` with one line per fault."""
    request = read(dict(body), ResyncRequest, rules(venues))
    known_venue(config, request.venue)
    return request


def read_switch(config: Config, body: Mapping[str, Any]) -> SwitchRequest:
    """What a body asks for. Raises `ConfigError` with one line per fault."""
    request = read(dict(body), SwitchRequest, rules({}))
    if not request.accounts_of(config):
        names = [f"{venue}.{account}" for venue, accounts in config.orders.accounts.items() for account in accounts]
        raise ConfigError([f"account: no such account takes orders; there is {', '.join(names)}"])
    return request


def known_venue(config: Config, name: str) -> None:
    """Raises `ConfigError` for a venue that is not configured."""
    if name not in config.venues:
        raise ConfigError([f'venue: "{name}" is not configured; {suggestion(name, config.venues)}'])


def _without(
    channels: tuple[ChannelSettings, ...], removed: tuple[ChannelSettings, ...]
) -> tuple[ChannelSettings, ...]:
    entries = [each for entry in channels for each in _apart(entry)]
    problems = []
    for position, entry in enumerate(removed):
        for each in _apart(entry):
            for name in each.instruments:
                found = [other for other in entries if _what(other) == _what(each) and name in other.instruments]
                if not found:
                    what = " ".join(str(part) for part in _what(each) if part is not None)
                    problems.append(f"remove[{position}]: no entry of the channels has {name} in {what}")
                for other in found:
                    rest = tuple(instrument for instrument in other.instruments if instrument != name)
                    at = entries.index(other)
                    entries[at : at + 1] = [attrs.evolve(other, instruments=rest)] if rest else []
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return tuple(entries)


def _apart(entry: ChannelSettings) -> Iterator[ChannelSettings]:
    """The same as entries of one channel and one interval each."""
    for channel in dict.fromkeys(entry.channel):
        is_book, is_candle = channel == BOOK, channel == CANDLE
        for interval in dict.fromkeys(entry.interval) if is_candle else (None,):
            yield attrs.evolve(
                entry,
                channel=(channel,),
                depth=entry.depth if is_book else None,
                book=entry.book if is_book else BookSettings(),
                interval=() if interval is None else (interval,),
                price_type=entry.price_type if is_candle else "trade",
            )


def _what(entry: ChannelSettings) -> tuple[object, ...]:
    """What an entry of `_apart` asks for, its options apart."""
    interval = entry.interval[0] if entry.interval else None
    price_type = entry.price_type if entry.price_type != "trade" else None
    return entry.market, entry.channel[0], entry.depth, interval, price_type, entry.variant, entry.account
