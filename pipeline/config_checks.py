"""What makes a well-formed configuration wrong: ranges, contradictions, and what a venue does not offer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from string import Formatter
from urllib.parse import urlsplit

import attrs

from pipeline.avro.schemas import ORDER_COMMAND
from pipeline.config_reader import Bounds, Check, Rules, Where, suggestion
from pipeline.exchanges.accounts import WHOLE_ACCOUNT, Accounts, AccountSpec
from pipeline.exchanges.venue import Venue
from pipeline.feeds.settings import (
    AccountChannelSettings,
    AccountSettings,
    ArchiveSettings,
    BookSettings,
    ChannelSettings,
    HeartbeatSettings,
    ReconnectSettings,
    UrlSettings,
    VenueSettings,
)
from pipeline.feeds.shares import ShardSettings
from pipeline.feeds.specs import BOOK, CANDLE, STATES, account_specs, expand, session_times
from pipeline.model.events import KINDS
from pipeline.observe.settings import HttpSettings
from pipeline.orders.settings import AccountOrderSettings
from pipeline.sink.properties import REFUSED
from pipeline.sink.settings import WATERMARK, KafkaSettings, RegistrySettings, SpoolSettings

Problems = Iterator[tuple[str, str]]

MOCK_CLUSTER = "test.mock.num.brokers"
"""librdkafka's property that starts a cluster inside the process."""

PRICE_TYPES = ("trade", "mark", "index")

_POSITIVE = Bounds(0, above=True)
_AT_LEAST_ONE = Bounds(1)
# Further bounds are those of librdkafka's own properties.
_BOUNDS = {
    (KafkaSettings, "linger"): Bounds(0, 900),
    (KafkaSettings, "statistics_interval"): Bounds(0.001, 86_400),
    (KafkaSettings, "queue_messages"): Bounds(1, 2_147_483_647),
    (KafkaSettings, "queue_bytes"): Bounds(1024, 2_147_483_647 * 1024),
    (KafkaSettings, "max_record_bytes"): Bounds(1_000, 1_000_000_000),
    (HeartbeatSettings, "max_active_time"): Bounds(30, 600),
    (HttpSettings, "port"): Bounds(0, 65_535),
    (HttpSettings, "send_within"): Bounds(0.001, 86_400),  # the system counts it in milliseconds, in 32 bits
    (ReconnectSettings, "factor"): Bounds(1),
    (AccountOrderSettings, "rate_wait"): Bounds(0),
    (ShardSettings, "index"): Bounds(0),
    (ShardSettings, "count"): Bounds(1, 1_000),
}

_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_BROKER = re.compile(r"([A-Za-z_]+://)?(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:,/]+)(:([0-9]{1,5}))?", re.ASCII)


def rules(venues: Mapping[str, Venue]) -> Rules:
    """The rules of all parts of a configuration file, given the venues that exist."""
    checks: dict[type, Check] = {
        VenueSettings: lambda settings, where: _venue(settings, where, venues),
        ChannelSettings: lambda entry, where: _channel(entry, where, venues),
        AccountSettings: lambda account, where: _account(account, where, venues),
        AccountChannelSettings: lambda entry, where: _account_channel(entry, where, venues),
        ArchiveSettings: _archive,
        UrlSettings: _urls,
        ReconnectSettings: _reconnect,
        KafkaSettings: _kafka,
        RegistrySettings: _registry,
        SpoolSettings: _spool,
    }
    return Rules(bounds=_bounds, checks=checks, plain_numbers=frozenset({"factor"}))


def _bounds(cls: type, field: str) -> Bounds:
    by_type = _POSITIVE if "float" in str(getattr(attrs.fields(cls), field).type) else _AT_LEAST_ONE
    return _BOUNDS.get((cls, field), by_type)


def _venue(settings: VenueSettings, where: Where, venues: Mapping[str, Venue]) -> Problems:
    name = str(where[-1])
    venue = venues.get(name)
    if venue is None:
        yield "", f"unknown venue; {suggestion(name, venues)}"
        return
    if (environment := settings.environment) is not None:
        hosts = venue.environments.get(environment)
        if hosts is None:
            yield "environment", f'unknown environment "{environment}"; {suggestion(environment, venue.environments)}'
        elif settings.urls.websocket and settings.urls.rest and not hosts.rest_headers:
            # With headers, something of the environment would still be used.
            yield "environment", "contradicts urls, which replace both of its hosts; give one of them"
    if settings.heartbeat.max_active_time is not None and name != "bybit":
        yield "heartbeat.max_active_time", "only bybit has it"
    for position, entry in enumerate(settings.channels):
        if entry.account is not None and entry.account not in settings.accounts:
            known = suggestion(entry.account, settings.accounts) if settings.accounts else "no accounts are configured"
            yield f"channels[{position}].account", f'unknown account "{entry.account}"; {known}'
    if settings.archive is None:
        wanting = [f"channels[{position}]" for position, entry in enumerate(settings.channels) if entry.archive]
        wanting += [f"accounts.{name}" for name, account in settings.accounts.items() if account.archive]
        for place in wanting:
            yield f"{place}.archive", "is on, and the venue has no archive"
    for account in settings.accounts:
        if _ACCOUNT_NAME.fullmatch(account) is None:
            yield f"accounts.{account}", "a name is at most 64 ASCII letters, digits, underscores and hyphens"
    fields = {"acknowledge_within": "timeouts.acknowledge"}
    for field, why in venue.session_problems(session_times(venue.session_times, settings)):
        yield fields.get(field, f"heartbeat.{field}"), why


def _account(account: AccountSettings, where: Where, venues: Mapping[str, Venue]) -> Problems:
    venue = venues.get(str(where[1]))
    if venue is None:
        return
    if venue.accounts is None:
        yield "", f"only market data is taken from {venue.name}"
        return
    if venue.accounts.needs_passphrase and account.passphrase is None:
        yield "passphrase", f"is missing; {venue.name} gives one to every key"
    if not venue.accounts.needs_passphrase and account.passphrase is not None:
        yield "passphrase", f"{venue.name} has none"
    yield from _told_twice(account, venue.accounts)


def _told_twice(account: AccountSettings, side: Accounts) -> Problems:
    """Subscriptions of one channel that would bring the same events twice."""
    found: dict[str, dict[str, str]] = {}
    for spec in account_specs(account):
        if side.problems(spec):
            continue
        for subscription in side.subscriptions(spec):
            topics = found.setdefault(subscription.channel, {})
            before = topics.setdefault(subscription.market, subscription.topic)
            if before != subscription.topic and set(spec.params) <= {"updateInterval"}:
                yield "channels", f"{spec.channel} is asked for twice, with different params"
    for channel, topics in found.items():
        if WHOLE_ACCOUNT in topics and len(topics) > 1:
            parts = ", ".join(market for market in topics if market != WHOLE_ACCOUNT)
            yield "channels", f"{channel} is asked for as a whole and for {parts}: its events would come twice"


def _account_channel(entry: AccountChannelSettings, where: Where, venues: Mapping[str, Venue]) -> Problems:
    if not entry.channel:
        yield "channel", "names no channel"
    venue = venues.get(str(where[1]))
    if venue is None or venue.accounts is None:
        return
    for position, channel in enumerate(entry.channel):
        for field, why in venue.accounts.problems(AccountSpec(channel, entry.market, entry.params)):
            place = f"channel[{position}]" if field == "channel" and len(entry.channel) > 1 else field
            yield place, why


def _channel(entry: ChannelSettings, where: Where, venues: Mapping[str, Venue]) -> Problems:
    known: set[str] = set()
    for field, why in _contradictions(entry):
        known.add(field)
        yield field, why
    venue = venues.get(str(where[1]))
    if venue is None:
        return
    if entry.market not in venue.markets:
        yield "market", f'unknown market "{entry.market}"; {suggestion(entry.market, venue.markets)}'
    for position, channel in enumerate(entry.channel):
        if channel not in venue.channels:
            place = "channel" if len(entry.channel) == 1 else f"channel[{position}]"
            yield place, f'unknown channel "{channel}"; {suggestion(channel, venue.channels)}'
    for spec in expand(entry):
        if spec.market in venue.markets and spec.channel in venue.channels:
            yield from ((field, why) for field, why in venue.problems(spec) if field not in known)


def _contradictions(entry: ChannelSettings) -> Problems:
    if not entry.channel:
        yield "channel", "names no channel"
    if not entry.instruments:
        yield "instruments", "names no instrument"
    if BOOK not in entry.channel:
        if entry.depth is not None:
            yield "depth", 'only channel "book" has a depth'
        if entry.book != BookSettings():
            yield "book", 'only channel "book" has it'
    if CANDLE in entry.channel:
        if not entry.interval:
            yield "interval", 'channel "candle" needs at least one, such as 1m or 1h'
    else:
        if entry.interval:
            yield "interval", 'only channel "candle" has an interval'
        if entry.price_type != "trade":
            yield "price_type", 'only channel "candle" has a price type'
    if entry.price_type not in PRICE_TYPES:
        yield "price_type", f'unknown price type "{entry.price_type}"; {suggestion(entry.price_type, PRICE_TYPES)}'
    if entry.variant is not None and len(entry.channel) > 1:
        yield "variant", "belongs to one channel; give that channel an entry of its own"
    if entry.overload == "conflate":
        yield from _never_conflated(entry)


def _never_conflated(entry: ChannelSettings) -> Problems:
    for channel in entry.channel:
        if channel not in (BOOK, *STATES):
            yield "overload", f"{channel} is never conflated, only {', '.join(STATES)} and what is derived from a book"
    book = entry.book
    if BOOK in entry.channel and not book.derive_bbo and book.top_levels is None:
        yield "overload", "books are never conflated, and neither book.derive_bbo nor book.top_levels is on"


def _urls(urls: UrlSettings, _: Where) -> Problems:
    sockets, requests = ("ws", "wss"), ("http", "https")
    hosts = {"websocket": sockets, "rest": requests, "private_websocket": sockets, "private_rest": requests}
    for field, schemes in hosts.items():
        url = getattr(urls, field)
        if url is not None and (why := _url_problem(url, schemes)) is not None:
            yield field, why
    if urls.ca_file is not None and all(getattr(urls, field) is None for field in hosts):
        yield "ca_file", "is for the hosts named beside it, and there are none"


def _url_problem(url: str, schemes: Iterable[str]) -> str | None:
    expected = f"expected {' or '.join(f'{scheme}://host:port' for scheme in schemes)}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return expected
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password"
    if parts.scheme not in schemes or not parts.hostname or any(character.isspace() for character in url):
        return f'{expected}, not "{url}"'
    if parts.query or parts.fragment:
        return "must not have a query or fragment"
    return None


def _archive(settings: ArchiveSettings, _: Where) -> Problems:
    if not settings.topic and settings.files is None:
        yield "files", "is missing, and topic is off: there is nowhere to put anything"


def _reconnect(settings: ReconnectSettings, _: Where) -> Problems:
    if settings.max < settings.first:
        yield "max", f"must be at least first, which is {settings.first:g} s, not {settings.max:g} s"


def _kafka(settings: KafkaSettings, _: Where) -> Problems:
    if not settings.bootstrap_servers and MOCK_CLUSTER not in settings.properties:
        yield "bootstrap_servers", "names no broker"
    for position, server in enumerate(settings.bootstrap_servers):
        match = _BROKER.fullmatch(server)
        if match is None or not 0 < int(match[4] or 1) < 65_536:
            yield f"bootstrap_servers[{position}]", f'expected host:port, got "{server}"'
    yield from _topics(settings)
    for name in settings.properties:
        if name in REFUSED:
            yield f"properties.{name}", REFUSED[name]
    yield from _login(settings)
    if settings.is_exactly_once and MOCK_CLUSTER in settings.properties:
        yield "delivery", "exactly_once needs real brokers: a cluster inside the process has one client"
    if settings.shard is not None and not settings.is_exactly_once:
        yield "shard", "is for delivery: exactly_once"


def _login(settings: KafkaSettings) -> Problems:
    if settings.oauth_token is None:
        return
    protocol = str(settings.properties.get("security.protocol", "plaintext")).upper()
    if not protocol.startswith("SASL"):
        yield "oauth_token", f"is not used while properties.security.protocol is {protocol}; SASL_SSL uses it"
    for name in settings.properties:
        if name.startswith(("sasl.oauthbearer.", "sasl.mechanism", "sasl.username", "sasl.password")):
            yield f"properties.{name}", "contradicts oauth_token; give one of them"


def _topics(settings: KafkaSettings) -> Problems:
    for kind in settings.topics:
        if kind not in KINDS and kind not in (WATERMARK, ORDER_COMMAND):
            yield f"topics.{kind}", f"unknown event kind; {suggestion(kind, (*KINDS, ORDER_COMMAND))}"
    template = settings.topic_template
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        longest = template.format(group="control", kind=max(KINDS, key=len)) if fields <= {"group", "kind"} else None
    except (ValueError, LookupError):
        fields, longest = set(), None
    if longest is None or "kind" not in fields:
        yield "topic_template", f'expected a text with {{kind}}, and {{group}} if wanted, got "{template}"'
    elif _TOPIC.fullmatch(longest) is None:
        yield "topic_template", "topic names are at most 249 ASCII letters, digits, dots, underscores and hyphens"


def _registry(settings: RegistrySettings, _: Where) -> Problems:
    if (why := _url_problem(settings.url, ("http", "https"))) is not None:
        yield "url", why
    if (settings.username is None) != (settings.password is None):
        yield (
            ("password", "is missing beside username")
            if settings.password is None
            else (
                "username",
                "is missing beside password",
            )
        )
    if settings.bearer_token is not None and settings.password is not None:
        yield "bearer_token", "contradicts username and password; give one of them"
    for field in ("key_file", "key_password"):
        if getattr(settings, field) is not None and settings.certificate_file is None:
            yield field, "belongs to a certificate_file, and there is none"
    tls = [field for field in ("ca_file", "certificate_file") if getattr(settings, field) is not None]
    if tls and urlsplit(settings.url).scheme == "http":
        yield tls[0], "is for https, and url begins with http"
    if settings.compatibility is not None and not settings.register:
        yield "compatibility", "is set where schemas are registered, and register is off"


def _spool(settings: SpoolSettings, _: Where) -> Problems:
    if settings.segment_bytes > settings.max_bytes:
        yield "segment_bytes", f"must not be above max_bytes, which is {settings.max_bytes}"
    elif settings.when_full == "drop_oldest" and settings.segment_bytes * 4 > settings.max_bytes:
        # Whole segments are given up, and neither the one being written nor the one being read.
        yield "segment_bytes", f"must be at most a quarter of max_bytes for drop_oldest, so {settings.max_bytes // 4}"
