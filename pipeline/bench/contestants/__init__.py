"""Who takes part. `python -m pipeline.bench.contestants NAME JSON` runs one: see `measure.Task`."""

from __future__ import annotations

from importlib.util import find_spec

import attrs


@attrs.frozen
class Contestant:
    """One way to get a stream into Kafka."""

    name: str
    module: str
    title: str
    needs: tuple[str, ...] = ()
    """Packages that only the benchmark depends on."""
    venues: tuple[str, ...] = ("bybit", "okx")
    needs_tls: bool = False

    @property
    def missing(self) -> list[str]:
        """What is not installed."""
        return [package for package in self.needs if find_spec(package) is None]


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("ours", "ours", "this service"),
        Contestant("stock", "ours", "the same on stock trio-websocket"),
        Contestant(
            "cryptofeed",
            "peer",
            "cryptofeed, Kafka backend",
            ("cryptofeed", "aiokafka", "uvloop"),
            venues=("bybit",),
            needs_tls=True,
        ),
        Contestant("floor", "floor", "floor: picows, raw messages", ("picows", "uvloop")),
    )
}
