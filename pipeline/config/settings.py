"""The whole configuration; its parts are defined beside the code that they configure. Times are seconds."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pipeline.feeds.settings import VenueSettings
from pipeline.observe.settings import HttpSettings, LogSettings
from pipeline.sink.settings import KafkaSettings


@attrs.frozen
class Config:
    """One configuration file."""

    venues: Mapping[str, VenueSettings] = attrs.field(factory=dict)
    """By the venue's name."""
    kafka: KafkaSettings = attrs.field(factory=KafkaSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
    http: HttpSettings = attrs.field(factory=HttpSettings)
    shutdown_within: float = 30.0
    """From the signal to stop until the process ends, whatever is unfinished then."""
