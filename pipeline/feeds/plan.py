"""Which topic goes over which connection. Pure: catalogue and settings in, a plan out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

from pipeline.exchanges.venue import Catalogue, ChannelSpec, EndpointLimits, Hosts, Subscription, Venue
from pipeline.feeds.settings import AccountSettings, BookSettings, ChannelSettings, VenueSettings
from pipeline.feeds.shares import WHOLE, Share, load_of, owner, split
from pipeline.feeds.specs import BOOK, STATES, account_specs, channel_specs, session_times
from pipeline.model.events import Instrument

Matches = Callable[[str, str], bool]
"""Whether an instrument (first) is meant by a configured name or pattern (second)."""

Key = tuple[str | None, str, str]
"""What tells a topic from all others of its venue: login, endpoint, topic."""


@attrs.frozen
class Want:
    """One topic that the configuration asks for, and the group of connections it belongs to."""

    subscription: Subscription
    group: str
    book: BookSettings
    login: str | None = None
    """The account that the connection has to log in with."""
    account: str | None = None
    """The account that the events are about."""
    is_archived: bool = False
    """Whether what comes is to be kept as it came, which holds for all of its connection."""
    is_conflated: bool | None = None
    """Whether only its latest states are published while its connection lags; None: its entry is not about states."""

    @property
    def key(self) -> Key:
        """A topic is one only within its endpoint and login: Bybit's spot and linear share names."""
        return self.login, self.subscription.endpoint, self.subscription.topic


@attrs.frozen
class ConnectionPlan:
    """One connection and what it carries."""

    id: str
    """`venue.group.number`; `venue.group.share-number` where there are several shares, so unique over all of them."""
    venue: str
    group: str
    endpoint: str
    url: str
    wants: tuple[Want, ...]
    login: str | None = None
    """The account that logs in, None for none."""
    account: str | None = None
    """The account that the events are about; None for market data."""

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """In the order in which they are asked for."""
        return tuple(want.subscription for want in self.wants)

    @property
    def is_archived(self) -> bool:
        """Whether anything on it is wanted in the archive."""
        return any(want.is_archived for want in self.wants)


@attrs.frozen
class VenuePlan:
    """All connections to one venue."""

    connections: tuple[ConnectionPlan, ...]
    unmatched: tuple[str, ...]
    """Configured instruments or patterns that match nothing tradable, as `market channel pattern`."""
    leaving: frozenset[Key] = frozenset()
    """What is in the plan only because it was to be kept: by now it belongs to another share."""

    @property
    def load(self) -> int:
        """What it is expected to cost, relative to other plans."""
        return sum(load_of(want.subscription.kind) for connection in self.connections for want in connection.wants)


def hosts(venue: Venue, settings: VenueSettings) -> Hosts:
    """The environment's hosts with the configured overrides; the first environment is the default."""
    name = settings.environment or next(iter(venue.environments))
    base = venue.environments[name]
    urls = settings.urls
    websocket, rest = urls.websocket or base.websocket, urls.rest or base.rest
    return attrs.evolve(
        base,
        websocket=websocket.rstrip("/"),
        rest=rest.rstrip("/"),
        private_websocket=(urls.private_websocket or urls.websocket or base.private_websocket or websocket).rstrip("/"),
        private_rest=(urls.private_rest or urls.rest or base.private_rest or rest).rstrip("/"),
    )


def catalogue_markets(venue: Venue, settings: VenueSettings) -> list[str]:
    """Markets whose instruments must be known, each once."""
    markets: dict[str, None] = {}
    for spec, _ in channel_specs(settings):
        markets.update(dict.fromkeys(venue.catalogue_markets(spec)))
    if (side := venue.accounts) is not None:
        for account in settings.accounts.values():
            for wanted in account_specs(account):
                markets.update(dict.fromkeys(side.catalogue_markets(wanted)))
    return list(markets)


def make_plan(
    name: str,
    venue: Venue,
    settings: VenueSettings,
    catalogue: Catalogue,
    before: Sequence[ConnectionPlan] = (),
    matches: Matches = fnmatchcase,
    share: Share = WHOLE,
    keep: Collection[Key] = (),
) -> VenuePlan:
    """The plan of one share for the present catalogue.

    What is subscribed already stays on its connection; new topics fill free places before they open new
    connections; a connection that has lost all its topics is dropped. A topic wanted twice is subscribed once.
    Topics in `keep` stay in the plan for as long as anybody wants them, whoever's they are.
    """
    wants, unmatched = _wants(venue, settings, catalogue, matches)
    places = _places(name, settings, wants, share.count)
    wanted = {want.key: want for want in wants if places[want.key] == share.index or want.key in keep}
    leaving = frozenset(key for key in wanted if places[key] != share.index)
    prefix = "" if share.is_whole else f"{share.index}-"
    drafts: dict[tuple[str, str], list[_Draft]] = {}
    for plan in before:
        draft = _Draft(plan.id, plan.group, plan.endpoint, plan.login, plan.account)
        for want in plan.wants:
            stays = wanted.get(want.key)
            if stays is not None and stays.group == plan.group:
                draft.add(wanted.pop(want.key))
        drafts.setdefault((plan.group, plan.endpoint), []).append(draft)
    for want in wanted.values():
        own = drafts.setdefault((want.group, want.subscription.endpoint), [])
        limits = venue.limits(want.subscription.endpoint)
        for draft in own:
            if draft.has_room(want, limits, settings.max_topics_per_connection):
                break
        else:
            found = _free_id(f"{name}.{want.group}.{prefix}", own)
            draft = _Draft(found, want.group, want.subscription.endpoint, want.login, want.account)
            own.append(draft)
        draft.add(want)
    base, times = hosts(venue, settings), session_times(venue.session_times, settings)

    def url(draft: _Draft) -> str:
        host = base.websocket if draft.account is None else base.private_websocket
        return host + venue.path(draft.endpoint, times)

    connections = tuple(
        ConnectionPlan(d.id, name, d.group, d.endpoint, url(d), tuple(d.wants), d.login, d.account)
        for own in drafts.values()
        for d in own
        if d.wants
    )
    return VenuePlan(connections, tuple(unmatched), leaving)


def own_accounts(name: str, settings: VenueSettings, share: Share) -> list[str]:
    """The accounts whose events are the share's business: that follows from the configuration alone."""
    return [account for account, place in _account_places(name, settings, share.count).items() if place == share.index]


def publishes_instruments(name: str, market: str, share: Share) -> bool:
    """Whether a market's catalogue is the share's to publish. Every share reads it."""
    return owner(f"{name}/{market}", share.count) == share.index


def _places(name: str, settings: VenueSettings, wants: Iterable[Want], count: int) -> dict[Key, int]:
    accounts = _account_places(name, settings, count)
    keys = {"\0".join((name, *(part or "" for part in want.key))): want for want in wants if want.account is None}
    public = split({unit: load_of(want.subscription.kind) for unit, want in keys.items()}, count)
    places = {want.key: public[unit] for unit, want in keys.items()}
    return places | {want.key: accounts[want.account] for want in wants if want.account is not None}


def _account_places(name: str, settings: VenueSettings, count: int) -> dict[str, int]:
    units = {f"{name}/{account}": account for account in settings.accounts}
    return {units[unit]: place for unit, place in split(dict.fromkeys(units, 1), count).items()}


@attrs.define
class _Draft:
    """A connection being filled, with running totals so that planning stays linear."""

    id: str
    group: str
    endpoint: str
    login: str | None
    account: str | None
    wants: list[Want] = attrs.field(factory=list)
    topic_bytes: int = 0
    books: int = 0

    def has_room(self, want: Want, limits: EndpointLimits, max_topics: int | None) -> bool:
        topics = min(limits.topics_per_connection, max_topics or limits.topics_per_connection)
        return (
            len(self.wants) < topics
            and self.topic_bytes + _wire_bytes(want) <= limits.topic_bytes_per_connection
            and (want.subscription.kind != "book" or self.books < limits.books_per_connection)
            and not self._has_rival(want.subscription.rivals)
        )

    def _has_rival(self, rivals: frozenset[str]) -> bool:
        return bool(rivals) and any(want.subscription.topic in rivals for want in self.wants)

    def add(self, want: Want) -> None:
        self.wants.append(want)
        self.topic_bytes += _wire_bytes(want)
        self.books += want.subscription.kind == "book"


def _wire_bytes(want: Want) -> int:
    return len(want.subscription.topic.encode()) + 3


def _free_id(prefix: str, drafts: list[_Draft]) -> str:
    used = {draft.id for draft in drafts}
    return next(f"{prefix}{n}" for n in range(len(drafts) + 1) if f"{prefix}{n}" not in used)


def _wants(
    venue: Venue, settings: VenueSettings, catalogue: Catalogue, matches: Matches
) -> tuple[list[Want], list[str]]:
    wants: dict[Key, Want] = {}
    unmatched: list[str] = []
    has_archive = settings.archive is not None
    for spec, channel in channel_specs(settings):
        instruments, missing = _matching(spec, venue.catalogue_markets(spec), catalogue, matches)
        unmatched.extend(f"{spec.market} {spec.channel} {pattern}" for pattern in missing)
        for subscription in venue.subscriptions(spec, instruments):
            is_archived = has_archive and channel.archive is not False
            want = Want(
                subscription,
                _group(subscription, channel),
                channel.book,
                channel.account,
                is_archived=is_archived,
                is_conflated=channel.overload == "conflate" if spec.channel in (BOOK, *STATES) else None,
            )
            first = wants.setdefault(want.key, want)
            if is_archived and not first.is_archived:
                first = wants[want.key] = attrs.evolve(first, is_archived=True)
            if first.is_conflated is None and want.is_conflated is not None:
                wants[want.key] = attrs.evolve(first, is_conflated=want.is_conflated)
    for account, its in settings.accounts.items():
        for subscription in _private(venue, its):
            group, is_archived = f"{account}.{subscription.endpoint}", has_archive and its.archive
            want = Want(subscription, group, BookSettings(), account, account, is_archived)
            wants.setdefault(want.key, want)
    return list(wants.values()), unmatched


def _private(venue: Venue, settings: AccountSettings) -> list[Subscription]:
    side = venue.accounts
    return [] if side is None else [found for spec in account_specs(settings) for found in side.subscriptions(spec)]


def _matching(
    spec: ChannelSpec, markets: Iterable[str], catalogue: Catalogue, matches: Matches
) -> tuple[list[Instrument], list[str]]:
    markets = set(markets)
    if not markets:
        return [], []
    tradable = sorted(
        (i for (market, _), i in catalogue.items() if market in markets and i.is_tradable),
        key=lambda i: str(i.origin.instrument),
    )
    chosen: dict[str, Instrument] = {}
    missing: list[str] = []
    for pattern in spec.instruments:
        found = [i for i in tradable if matches(str(i.origin.instrument), pattern)]
        if not found:
            missing.append(pattern)
        chosen.update((str(i.origin.instrument), i) for i in found)
    return list(chosen.values()), missing


def _group(subscription: Subscription, channel: ChannelSettings) -> str:
    if channel.account is not None:
        return f"{channel.account}.{subscription.market}.{subscription.kind}"
    if channel.connections != "own":
        return f"{channel.connections}.{subscription.endpoint}"
    return f"{subscription.market}.{subscription.kind}"
