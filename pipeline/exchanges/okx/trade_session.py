"""One OKX connection for order entry: login and heartbeats as on any other, requests, and their answers."""

from __future__ import annotations

from typing import Any

import attrs

from pipeline.exchanges.accounts import Login
from pipeline.exchanges.okx.session import OkxSession
from pipeline.exchanges.okx.trade_answers import LOG_IN, Response, read_answer, read_response
from pipeline.exchanges.okx.trade_requests import frame
from pipeline.exchanges.trading import Answer, TradeRequest
from pipeline.exchanges.venue import EndpointLimits, SessionTimes
from pipeline.model.events import Micros


@attrs.define(eq=False)
class _Link(OkxSession):
    """A connection without subscriptions, which takes the answers to requests out of what it would not know."""

    _waiting: dict[str, TradeRequest] = attrs.field(factory=dict, init=False)
    _answers: list[Answer] = attrs.field(factory=list, init=False)

    def submit(self, request: TradeRequest) -> None:
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


class OkxTradeSession:
    """The `TradeSession` of one connection to /ws/v5/private."""

    def __init__(self, times: SessionTimes, limits: EndpointLimits, login: Login) -> None:
        self._link = _Link((), times, limits, login=login)

    @property
    def ready(self) -> bool:
        """Whether the login was granted and no end has been announced."""
        return self._link.ready and not self._link.ends_soon

    @property
    def ends_soon(self) -> bool:
        """Whether OKX will close it for an upgrade, or has forgotten the login."""
        return self._link.ends_soon

    def start(self, now: float) -> None:
        """The connection is open: log in."""
        self._link.start(now)

    def submit(self, request: TradeRequest, now: float) -> None:
        """Queue a request."""
        self._link.submit(request)

    def receive(self, message: bytes, now: float) -> list[Answer]:
        """Take one message. Raises `Refused` or `LoginFailed` when the login is refused."""
        return self._link.answers(message, now)

    def next_deadline(self) -> float:
        """When to call `on_deadline`."""
        return self._link.next_deadline()

    def on_deadline(self, now: float) -> None:
        """Ping. Raises `HeartbeatLost` or `DeadlineMissed`."""
        self._link.on_deadline(now)

    def data_to_send(self) -> list[str]:
        """Messages to send now, each handed out once."""
        return self._link.data_to_send()

    def notices(self) -> list[str]:
        """Announcements and messages of no known form, each once."""
        return self._link.notices()
