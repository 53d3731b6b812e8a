"""Who takes part. `python -m pipeline.bench.contestants JSON` runs one: see `measure.Task`."""

from __future__ import annotations

from importlib.util import find_spec

import attrs


@attrs.frozen
class Contestant:
    """One way to get a stream into Kafka, or a part of that way."""

    name: str
    module: str
    title: str
    needs: tuple[str, ...] = ()
    """Packages that only the benchmark depends on."""
    venues: tuple[str, ...] = ("bybit", "okx")
    needs_tls: bool = False
    is_ours: bool = False
    """Whether it normalizes and encodes with our code, so that the form of decimals makes a difference."""
    tells_latency: bool = False
    is_whole: bool = True
    """False for parts of the way: they are run to explain the others."""

    @property
    def missing(self) -> list[str]:
        """What is not installed."""
        return [package for package in self.needs if find_spec(package) is None]


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("ours", "ours", "this service", is_ours=True, tells_latency=True),
        Contestant("stock", "ours", "the same on stock trio-websocket", is_ours=True),
        Contestant("picows", "picows_reader", "the same on picows and uvloop", ("picows", "uvloop"), is_ours=True),
        Contestant(
            "cryptofeed",
            "peer",
            "cryptofeed, Kafka backend",
            ("cryptofeed", "aiokafka", "uvloop"),
            venues=("bybit",),
            needs_tls=True,
        ),
        Contestant("floor", "floor", "floor: picows, raw messages", ("picows", "uvloop"), tells_latency=True),
        Contestant("split", "split", "our reader alone, no Kafka", tells_latency=True, is_whole=False),
        Contestant("stages", "stages", "our stages, no socket", is_ours=True, is_whole=False),
    )
}
WHOLE = tuple(each.name for each in CONTESTANTS.values() if each.is_whole)
