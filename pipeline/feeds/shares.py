"""Who of several processes takes which subscription. Pure: names and weights in, shares out.

Every process works the split out by itself from the same configuration and the same listings, and nobody asks anybody.
So it has to be the same everywhere, and it should move little when the number of shares or the listings change: each
unit ranks the shares by a hash of its name (rendezvous hashing) and takes the first one that has room.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import count as numbers
from itertools import islice

import attrs

from pipeline.model.errors import ConfigError
from pipeline.model.rate import Rate

_LOADS = {"book": 6, "trade": 3, "bbo": 3, "ticker": 2}
_OTHER_LOAD = 1
_SCORES = struct.Struct(">8Q")


@attrs.frozen
class Share:
    """One of `count` parts of all subscriptions."""

    index: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there is only one."""
        return self.count == 1

    @property
    def suffix(self) -> str:
        """What tells it from the other shares, and from those of another number of shares: `-3-of-8`.

        Empty if there is only one.
        """
        return "" if self.is_whole else f"-{self.index}-of-{self.count}"


WHOLE = Share()


@attrs.frozen
class Ordinal:
    """The environment variable that says which instance this is: a number, or a name that ends in one.

    Such as a StatefulSet's pods have: `pipeline-3`.
    """

    env: str

    def resolve(self, environment: Mapping[str, str]) -> int:
        """The number. Raises `ConfigError`."""
        value = environment.get(self.env, "").strip()
        if not value:
            raise ConfigError([f"shard.index: environment variable {self.env} is not set"])
        digits = value.rpartition("-")[2]
        if not (digits.isascii() and digits.isdigit()):
            raise ConfigError(
                [f'shard.index: environment variable {self.env} is "{value}": neither a number nor a name ending in -N']
            )
        return int(digits)


@attrs.frozen
class ShardSettings:
    """Which of several instances with the same configuration this is; each takes its part of the subscriptions."""

    index: int | Ordinal = 0
    """From 0."""
    count: int = 1
    """How many instances there are."""


def load_of(channel: str) -> int:
    """What a subscription to a channel (our name of it) is expected to cost, relative to others."""
    return _LOADS.get(channel, _OTHER_LOAD)


def split(units: Mapping[str, int], count: int) -> dict[str, int]:
    """The share of each unit, given its weight: no share gets more than `capacity`, which leaves room for everyone."""
    if count == 1:
        return dict.fromkeys(units, 0)
    most = capacity(units, count)
    loads = [0] * count
    found: dict[str, int] = {}
    for name, weight in sorted(units.items(), key=lambda unit: (-unit[1], unit[0])):
        scores = _scores(name, count)
        share = max(range(count), key=scores.__getitem__)
        if loads[share] + weight > most:
            ranked = sorted(range(count), key=scores.__getitem__, reverse=True)
            share = next(other for other in ranked if loads[other] + weight <= most)
        loads[share] += weight
        found[name] = share
    return found


def capacity(units: Mapping[str, int], count: int) -> int:
    """What a share takes at most: the mean and a twentieth, and the heaviest unit."""
    return -(-sum(units.values()) * 21 // (20 * count)) + max(units.values(), default=0)


def owner(name: str, count: int) -> int:
    """The share of something that stands for itself, whatever else there is."""
    scores = _scores(name, count)
    return max(range(count), key=scores.__getitem__)


def part_of(rate: Rate, parts: int) -> Rate:
    """What each of `parts` processes may do so that all together keep to a rate."""
    count = max(1, rate.count // parts)
    return Rate(count, rate.seconds * count * parts / rate.count)


def _scores(name: str, count: int) -> list[int]:
    """One number per share, which does not depend on how many shares there are."""
    return list(islice(_stream(name.encode()), count))


def _stream(name: bytes) -> Iterator[int]:
    for block in numbers():
        yield from _SCORES.unpack(blake2b(name, salt=block.to_bytes(4, "big"), digest_size=64).digest())
