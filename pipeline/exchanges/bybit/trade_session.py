"""One connection to /v5/trade: requests out, answers in, on top of the login and the pings of any other connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pipeline.exchanges.accounts import Login
from pipeline.exchanges.bybit import trade_answers
from pipeline.exchanges.bybit.session import BybitSession
from pipeline.exchanges.bybit.trade_requests import frame
from pipeline.exchanges.trade_session import LineSession
from pipeline.exchanges.trading import Answer, TradeRequest
from pipeline.exchanges.venue import EndpointLimits, SessionTimes
from pipeline.model.events import Micros
from pipeline.model.rate import Rate

ENDPOINT = "trade"
_NOTHING_TO_SUBSCRIBE = EndpointLimits(0, 0, 0, 0, Rate(1, 1.0), 0)


def trade_session(times: SessionTimes, login: Login) -> LineSession:
    """A `TradeSession` for one connection."""
    return LineSession(_TradeLine((), times, _NOTHING_TO_SUBSCRIBE, ENDPOINT, login=login, venue_time=login.micros))


@attrs.define(eq=False)
class _TradeLine(BybitSession):
    """Stamps requests with the venue's time and makes them good until their `not_after`, at most for 5 s."""

    venue_time: Callable[[float], Micros] = attrs.field(kw_only=True)
    _pending: dict[str, TradeRequest] = attrs.field(factory=dict, init=False)
    _answers: list[Answer] = attrs.field(factory=list, init=False)

    def submit(self, request: TradeRequest, now: float) -> None:
        self._outbox.append(frame(request, self.venue_time(now)))
        self._pending[request.id] = request

    def answers(self, message: bytes, now: float) -> list[Answer]:
        if self.receive(message, now):
            self._notice(message)
        answers, self._answers = self._answers, []
        return answers

    def _answer(self, plain: dict[str, Any], now: float) -> bool:
        code, identifier = trade_answers.code_of(plain), plain.get("reqId")
        if code == trade_answers.RESTARTING and not self._awaits_login:
            self.ends_soon = True
        request = self._pending.pop(identifier, None) if isinstance(identifier, str) else None
        if request is not None:
            self._take(request, plain, code, now)
            return True
        if self._awaits_login or plain.get("op") == "auth" or not code:
            return BybitSession._answer(self, plain, now)
        return False  # nobody knows whose it is, so it is no reason to give up the connection

    def _take(self, request: TradeRequest, plain: dict[str, Any], code: int | None, now: float) -> None:
        self._answers.append(trade_answers.read(request, plain))
        if code == trade_answers.LATE and self.venue_time(now) < request.not_after:
            # By our clock it is not even late now, so that is wrong: the login of another connection mends it.
            self.ends_soon = True
            self._note(f"bybit {self.endpoint}: a request in time was refused as late: the clocks differ")
