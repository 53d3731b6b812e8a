"""Whether an account takes new orders: by its commands, by hand, and by the kill file. Pure."""

from __future__ import annotations

from collections import deque

import attrs

from pipeline.model.orders import RESUME
from pipeline.orders.blotter import Blotter
from pipeline.orders.ledger_entries import KillSwitch, LedgerState
from pipeline.orders.tickets import Moment, Ticket


@attrs.define(eq=False)
class Switch:
    """One account's. A kill counts as soon as it is read, a resume when its turn in the queue has come."""

    known: LedgerState
    blotter: Blotter
    queue: deque[Ticket]
    """Commands whose turn has not come."""
    kill_file: bool = False
    """Whether the file is there that switches orders off."""

    @property
    def is_killed(self) -> bool:
        """Whether new orders are refused and open ones cancelled."""
        return self._is_switched_off or self.kill_file

    @property
    def _is_switched_off(self) -> bool:
        """As of the newest entry, be it in the ledger or not yet: what was read behind it must find it so."""
        newest = (each.is_on for each in reversed(self.blotter.entries) if isinstance(each, KillSwitch))
        return next(newest, self.known.is_killed)

    def kill(self, reason: str | None, moment: Moment) -> None:
        """Refuse new orders from now on."""
        for ticket in [each for each in self.queue if each.action == RESUME]:
            # It stands before this, and would come after it. Noted first: a crash must not bring it back.
            self.queue.remove(ticket)
            why = "new orders were switched off again before its turn came"
            self.blotter.refuse(ticket.lines[0], "connector", "kill_switch", why, "retryable", moment)
        if not self._is_switched_off:
            self._note(reason, moment, is_on=True)

    def inherit(self, moment: Moment) -> None:
        """An earlier owner of the topic was switched off, and so are we."""
        if not self._is_switched_off:
            self._note("switched off by an earlier owner of the topic", moment, is_on=True)

    def resume(self, reason: str | None, moment: Moment) -> None:
        """Take new orders again, at once."""
        if self._is_switched_off:
            self._note(reason, moment, is_on=False)

    def resume_in_turn(self, moment: Moment) -> None:
        """The same if that is the next command; whatever else waits needs the venue, this does not."""
        while self.queue and self.queue[0].action == RESUME:
            ticket = self.queue.popleft()
            if ticket.is_late(moment):
                self.blotter.expire_waiting(ticket, moment)
                continue
            self._note(ticket.reason, moment, is_on=False)
            still = "; the kill file is still there" if self.kill_file else ""
            message = f"new orders are taken again{still}"
            self.blotter.finish(ticket.lines[0], "acknowledged", moment, message=message)

    def _note(self, reason: str | None, moment: Moment, *, is_on: bool) -> None:
        self.blotter.note(KillSwitch(is_on, moment.wall, reason), must_sync=True)
