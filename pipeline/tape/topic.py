"""The archive in Kafka: entries as `wire_message` events, published like all others."""

from __future__ import annotations

import attrs

from pipeline.feeds.chain import Publish
from pipeline.model.events import Micros, Origin, WireMessage
from pipeline.tape.entries import Entry


@attrs.define(eq=False)
class TopicKeeper:
    """A `recorder.Keeper` that publishes."""

    venue: str
    run: Micros
    publish: Publish
    _origins: dict[str, Origin] = attrs.field(factory=dict, init=False)

    def take(self, entry: Entry, endpoint: str, account: str | None) -> None:
        """Publish it: larger ones than Kafka may have end as dead letters."""
        origin = self._origins.get(entry.connection)
        if origin is None:
            origin = Origin(self.venue, endpoint, None, None, account, entry.connection)
            # One partition per venue: what happens on one connection can concern another.
            origin.key = self.venue.encode()
            self._origins[entry.connection] = origin
        received = Micros(entry.receive_time)
        self.publish(WireMessage(origin, None, received, entry.sequence, self.run, entry.kind, entry.payload))
