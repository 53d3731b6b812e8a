"""The thread that waits for the ledger's disk, for as long as an ownership lasts.

Orders wait for it one by one, so the way there and back counts: a thread that does nothing else is woken by a queue,
and reports by one callback.
"""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue

import attrs
import trio

from pipeline.orders.ledger import Ledger, LedgerBroken


@attrs.define(eq=False)
class _Wait:
    """Somebody whose entries have to be on disk."""

    over: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


@attrs.define(eq=False)
class Syncer:
    """Syncs one ledger, while `run` is running."""

    ledger: Ledger
    _waits: SimpleQueue[_Wait | None] = attrs.field(factory=SimpleQueue, init=False)
    """None: end."""
    _runs: bool = attrs.field(default=False, init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)

    async def run(self) -> None:
        """Serve until cancelled; who waits then is still served."""
        self._token = trio.lowlevel.current_trio_token()
        self._runs = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_cancelled)
            with trio.CancelScope(shield=True):  # who has come to wait would not hear of it
                await trio.to_thread.run_sync(self._serve, limiter=trio.CapacityLimiter(1))

    async def sync(self) -> None:
        """Return when all that was appended before is on disk. Not to be cancelled. Raises `LedgerBroken`."""
        if not self._runs:
            await trio.to_thread.run_sync(self.ledger.sync)
            return
        wait = _Wait()
        self._waits.put(wait)
        with trio.CancelScope(shield=True):
            await wait.over.wait()
        if wait.error is not None:
            raise wait.error

    async def _until_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._runs = False
            self._waits.put(None)  # the thread itself cannot be cancelled

    # In the thread.

    def _serve(self) -> None:
        while True:
            if self.ledger.wants_room:
                with suppress(LedgerBroken):  # told to whoever waits next
                    self.ledger.make_room()
            found = self._next()
            if waits := [wait for wait in found if wait is not None]:
                self._token.run_sync_soon(_end, waits, self._failure())
            if None in found:
                return

    def _failure(self) -> Exception | None:
        try:
            self.ledger.sync()
        except Exception as failure:  # noqa: BLE001 - raised by whoever waits
            return failure
        return None

    def _next(self) -> list[_Wait | None]:
        """All who wait, as soon as there is somebody: one sync is for all of them."""
        found = [self._waits.get()]
        try:
            while True:
                found.append(self._waits.get_nowait())
        except Empty:
            return found


def _end(waits: list[_Wait], error: Exception | None) -> None:
    for wait in waits:
        wait.error = error
        wait.over.set()
