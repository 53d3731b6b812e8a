"""What is wrong with the configuration of order entry, held against the venues and accounts that it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from pipeline.config_reader import suggestion
from pipeline.exchanges.accounts import WHOLE_ACCOUNT
from pipeline.exchanges.trading import Trading
from pipeline.exchanges.venue import Subscription, Venue
from pipeline.feeds.settings import AccountSettings, VenueSettings
from pipeline.feeds.specs import account_specs
from pipeline.model.account import Order
from pipeline.model.events import KINDS
from pipeline.model.orders import CANCEL
from pipeline.orders.settings import AccountOrderSettings, OrderSettings
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import command_topic, topic_name

Problems = Iterator[tuple[str, str]]

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


def problems(
    orders: OrderSettings,
    settings: Mapping[str, VenueSettings],
    kafka: KafkaSettings,
    shares: int,
    venues: Mapping[str, Venue],
) -> Problems:
    """What speaks against it, as (path below `orders`, why).

    `settings` is the file's `venues`; `shares` is into how many parts the subscriptions are split.
    """
    if not orders.accounts:
        return
    if shares > 1:
        yield "", "runs in an instance of its own: workers and shard.count must be 1"
    for name, accounts in orders.accounts.items():
        below = f"accounts.{name}"
        venue = venues.get(name)
        if name not in settings:
            yield below, f'"{name}" is not under venues, where its accounts belong; {_there(name, settings)}'
        elif venue is None:
            continue  # told of the venue itself
        elif venue.trading is None:
            yield below, f"there is no order entry with {name}"
        else:
            environment = settings[name].environment or next(iter(venue.environments))
            if environment not in venue.trading.environments:
                yield below, f'no order entry in environment "{environment}"; {_offered(venue.trading)}'
            for account, wanted in accounts.items():
                where = f"{below}.{account}"
                known = settings[name].accounts
                if account not in known:
                    yield where, f'"{account}" is not under venues.{name}.accounts; {_there(account, known)}'
                for field, why in _account(wanted, known.get(account), venue, venue.trading):
                    yield f"{where}.{field}".removesuffix("."), why
    yield from _topics(orders, kafka)


def _there(name: str, known: Mapping[str, object]) -> str:
    return suggestion(name, known) if known else "nothing is"


def _offered(trading: Trading) -> str:
    return f"there is in {', '.join(trading.environments)}"


def _account(wanted: AccountOrderSettings, account: AccountSettings | None, venue: Venue, trading: Trading) -> Problems:
    if not wanted.instruments:
        yield "instruments", "allows nothing; name markets and what may be ordered there"
    for market, patterns in wanted.instruments.items():
        if market not in venue.markets:
            yield f"instruments.{market}", f'unknown market "{market}"; {suggestion(market, venue.markets)}'
        elif not patterns:
            yield f"instruments.{market}", "names no instrument"
    if Decimal(wanted.max_order_value) <= 0:
        yield "max_order_value", f"must be above 0, not {wanted.max_order_value}"
    if not 0 < Decimal(wanted.price_band) < 1:
        yield "price_band", f"must be above 0 and below 1, not {wanted.price_band}: it is a fraction of the mark price"
    if account is not None:
        yield from _channels(wanted, account, venue, trading)


def _channels(wanted: AccountOrderSettings, account: AccountSettings, venue: Venue, trading: Trading) -> Problems:
    """Private channels that order entry cannot do without."""
    subscriptions = _subscriptions(account, venue)
    covered = {each.market for each in subscriptions if each.kind == Order.KIND}
    traded = [market for market in venue.markets if trading.batch(CANCEL, market)]
    missing = [] if WHOLE_ACCOUNT in covered else [market for market in traded if market not in covered]
    if missing:
        why = f"the account has no order channel for {', '.join(missing)}"
        yield "", f"{why}: kill and cancel_all, which are for the whole account, would leave orders there"
    if wanted.cancel_on_disconnect is not None:
        topics = [each.topic for each in subscriptions]
        for why in trading.arm_problems(wanted.cancel_on_disconnect, topics, list(wanted.instruments)):
            yield "cancel_on_disconnect", why


def _subscriptions(account: AccountSettings, venue: Venue) -> list[Subscription]:
    side = venue.accounts
    if side is None:
        return []
    specs = [spec for spec in account_specs(account) if not side.problems(spec)]
    return [subscription for spec in specs for subscription in side.subscriptions(spec)]


def _topics(orders: OrderSettings, kafka: KafkaSettings) -> Problems:
    taken = {topic_name(kafka, kind): "where the connector publishes" for kind in KINDS}
    for venue, accounts in orders.accounts.items():
        for account, wanted in accounts.items():
            where = f"accounts.{venue}.{account}.command_topic"
            topic = wanted.command_topic or command_topic(kafka, venue, account)
            if _TOPIC.fullmatch(topic) is None:
                yield where, f'"{topic}": topic names are at most 249 ASCII letters, digits, dots, underscores, hyphens'
            if topic in taken:
                yield where, f'"{topic}" is {taken[topic]}'
            taken[topic] = f"the command topic of {venue}.{account}"
