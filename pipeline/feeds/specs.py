"""Entries of `channels` with their lists expanded, and a venue's times with the configured overrides."""

from __future__ import annotations

import attrs

from pipeline.exchanges.accounts import AccountSpec
from pipeline.exchanges.venue import ChannelSpec, SessionTimes
from pipeline.feeds.settings import AccountSettings, ChannelSettings, VenueSettings

BBO, BOOK, CANDLE, TICKER = "bbo", "book", "candle", "ticker"
STATES = (TICKER, BBO)
"""Channels of which only the latest state counts."""


def expand(entry: ChannelSettings) -> list[ChannelSpec]:
    """One spec per channel and interval; what concerns only books or only candles is kept from the others."""
    return [
        ChannelSpec(
            market=entry.market,
            channel=channel,
            instruments=entry.instruments,
            depth=entry.depth if channel == BOOK else None,
            interval=interval,
            price_type=entry.price_type if channel == CANDLE else "trade",
            max_silence=entry.max_silence,
            variant=entry.variant,
            with_login=entry.account is not None,
        )
        for channel in dict.fromkeys(entry.channel)
        for interval in (dict.fromkeys(entry.interval or (None,)) if channel == CANDLE else (None,))
    ]


def channel_specs(settings: VenueSettings) -> list[tuple[ChannelSpec, ChannelSettings]]:
    """Every wanted channel of a venue, beside the entry it comes from, in the order of the configuration."""
    return [(spec, entry) for entry in settings.channels for spec in expand(entry)]


def account_specs(settings: AccountSettings) -> list[AccountSpec]:
    """Every wanted channel of an account, in the order of the configuration."""
    return [
        AccountSpec(channel, entry.market, entry.params) for entry in settings.channels for channel in entry.channel
    ]


def session_times(defaults: SessionTimes, settings: VenueSettings) -> SessionTimes:
    """The venue's own times with the configured ones in their place."""
    heartbeat = settings.heartbeat
    return attrs.evolve(
        defaults,
        ping_every=defaults.ping_every if heartbeat.ping_every is None else heartbeat.ping_every,
        pong_within=defaults.pong_within if heartbeat.pong_within is None else heartbeat.pong_within,
        acknowledge_within=settings.timeouts.acknowledge,
        max_active_time=heartbeat.max_active_time,
    )
