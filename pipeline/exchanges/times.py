"""The clock of the wire: both venues count milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from pipeline.model.events import Micros

    class Millis(int):
        """Milliseconds since 1970-01-01 UTC; a thousand times as many are `Micros`."""

        @overload
        def __mul__(self, factor: Literal[1000], /) -> Micros: ...
        @overload
        def __mul__(self, factor: int, /) -> int: ...
        def __mul__(self, factor: int, /) -> int:
            return int(self) * factor
else:  # so that the product needs no call that says what it is, several times per message
    Millis = int
