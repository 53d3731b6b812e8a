"""The venues. One folder each; they never import each other."""

from collections.abc import Mapping

from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.okx import OkxVenue
from pipeline.exchanges.venue import Venue

VENUES: Mapping[str, Venue] = {venue.name: venue for venue in (Bybit(), OkxVenue())}
"""Every venue by its name in the configuration."""
