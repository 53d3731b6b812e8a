"""One OKX connection for order entry: login and heartbeats as on any other, requests, and their answers."""

from __future__ import annotations

from typing import Any

import attrs

from pipeline.exchanges.accounts import Login
from pipeline.exchanges.okx.session import OkxSession
from pipeline.exchanges.okx.trade_answers import LOG_IN, Response, read_answer, read_response
from pipeline.exchanges.okx.trade_requests import frame
from pipeline.exchanges.trade_session import LineSession
from pipeline.exchanges.trading import Answer, TradeRequest
from pipeline.exchanges.venue import EndpointLimits, SessionTimes
from pipeline.model.events import Micros


def trade_session(times: SessionTimes, limits: EndpointLimits, login: Login) -> LineSession:
    """A `TradeSession` for one connection to /ws/v5/private."""
    return LineSession(_TradeLine((), times, limits, login=login))


@attrs.define(eq=False)
class _TradeLine(OkxSession):
    """A connection without subscriptions, which takes the answers to requests out of what it would not know."""

    _waiting: dict[str, TradeRequest] = attrs.field(factory=dict, init=False)
    _answers: list[Answer] = attrs.field(factory=list, init=False)

    def submit(self, request: TradeRequest, now: float) -> None:
        self._outbox.append(frame(request))
        self._waiting[request.id] = request

    def answers(self, message: bytes, now: float) -> list[Answer]:
        if self.receive(message, now):
            OkxSession._note_unknown(self, message)
        found, self._answers = self._answers, []
        return found

    def _note_unknown(self, message: bytes) -> bool:
        response = read_response(message)
        if response is None or response.id not in self._waiting:
            return OkxSession._note_unknown(self, message)
        self._answered(response)
        return False

    def _on_error(self, fields: dict[str, Any], now: float) -> None:
        if (name := str(fields.get("id", ""))) in self._waiting:
            self._answered(Response(name, code=str(fields.get("code") or ""), msg=str(fields.get("msg") or "")))
        else:
            OkxSession._on_error(self, fields, now)

    def _answered(self, response: Response) -> None:
        request = self._waiting.pop(response.id)
        epoch = Micros(0) if self.login is None else self.login.micros(self._now)
        self._answers.append(read_answer(request, response, epoch))
        self.ends_soon = self.ends_soon or response.code == LOG_IN
