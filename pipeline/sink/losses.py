"""What the sink could not keep, until it is announced as gaps. Pure."""

from __future__ import annotations

import attrs

from pipeline.model.events import FeedStatus, Micros, Origin


@attrs.define
class _Loss:
    origin: Origin
    count: int
    first: Micros
    last: Micros


@attrs.define
class Losses:
    """Refused records by kind and instrument: how many, and between which times of receipt."""

    _open: dict[tuple[str, bytes], _Loss] = attrs.field(factory=dict, init=False)

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, kind: str, origin: Origin, receive_time: Micros) -> None:
        """Count one record."""
        loss = self._open.get((kind, origin.key))
        if loss is None:
            self._open[kind, origin.key] = _Loss(origin, 1, receive_time, receive_time)
        else:
            loss.count += 1
            loss.first = min(loss.first, receive_time)
            loss.last = max(loss.last, receive_time)

    def announcements(self, now: Micros, reason: str) -> list[FeedStatus]:
        """One gap per kind and instrument since the last time."""
        found = [
            FeedStatus(
                loss.origin,
                None,
                now,
                None,
                status="gap",
                scope="connection" if loss.origin.instrument is None else "instrument",
                reason=f"{loss.count} {kind} records lost: {reason}",
                from_time=loss.first,
                to_time=loss.last,
                count=loss.count,
            )
            for (kind, _), loss in self._open.items()
        ]
        self._open.clear()
        return found
