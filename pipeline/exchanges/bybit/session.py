"""One connection to a Bybit server: pings, subscriptions and the answers to them, in all of its dialects.

Bybit's servers answer differently. Spot and futures echo `req_id` but do not name topics, options name the topics
but echo nothing, and a pong is `op: ping` here and `op: pong` there. So each request carries an identifier, and
an answer is matched by it, by the topics it names, or else by order: one connection answers in order.
"""

from __future__ import annotations

import json
from math import inf
from typing import Any

import attrs
import msgspec

from pipeline.exchanges.accounts import Login
from pipeline.exchanges.bybit import wire
from pipeline.exchanges.bybit.errors import REPEATED_LOGIN, error_of, is_passing, login_error
from pipeline.exchanges.bybit.signing import signature
from pipeline.exchanges.ledger import SUBSCRIBE, UNSUBSCRIBE, Request
from pipeline.exchanges.session import SubscribingSession
from pipeline.model.errors import HeartbeatLost

LOGIN_AHEAD = 10_000
"""Milliseconds by which a login expires after it was signed: for a slow way there, and clocks that are not quite right.

The venue demands no upper bound, but whoever reads the signature could use it for so long.
"""


@attrs.define(eq=False)
class BybitSession(SubscribingSession):
    """A `VenueSession` for any endpoint: no socket, no clock, never reused.

    The venue drops connections without saying so. A connection on which neither data nor pong came during two
    pings and the time for a pong (50 s by default) is given up with `HeartbeatLost`. A single lost pong is no
    reason: data prove as well that the other side lives.
    """

    endpoint: str
    _heard: float = attrs.field(default=inf, init=False)
    _ping_at: float = attrs.field(default=inf, init=False)
    _pings: int = attrs.field(default=0, init=False)

    @property
    def silence_limit(self) -> float:
        """Seconds without any message after which the connection counts as lost."""
        return 2 * self.times.ping_every + self.times.pong_within

    def start(self, now: float) -> None:
        """The connection is open: queue the subscriptions and start to ping."""
        self._heard = now
        self._ping_at = now + self.times.ping_every
        SubscribingSession.start(self, now)

    def receive(self, message: bytes, now: float) -> bool:
        """Take one message; True if the normalizer shall have it, be it to say why it cannot be read.

        Raises `Retryable` or `Refused` when the server ends the conversation with an error code.
        """
        self._heard = now
        if message.startswith((b'{"topic":', b'{"id":')):
            return True
        try:
            plain = wire.decode_plain(message)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return True
        if not isinstance(plain, dict):
            self._notice(message)
            return False
        if "topic" in plain:
            return True
        if not self._answer(plain, now):
            self._notice(message)
        self._send_requests(now)
        return False

    def next_deadline(self) -> float:
        """When to call `on_deadline`; `inf` before the start."""
        if not self._started:
            return inf
        deadline = min(self._ping_at, self._heard + self.silence_limit, self._login_by)
        if self._awaits_login:  # what is wanted then waits for an answer, not for a time
            return deadline
        return min(deadline, self._ledger.next_deadline(max(self._now, self._heard)))

    def on_deadline(self, now: float) -> None:
        """Ping, and send what the request budget now allows.

        Raises `HeartbeatLost` on a silent connection and `DeadlineMissed` for a request or login without an answer.
        """
        if now >= self._heard + self.silence_limit:
            raise HeartbeatLost(
                f"bybit {self.endpoint}: neither data nor pong for {now - self._heard:g} s, {self._pings} pings sent"
            )
        self._check_login(now)
        self._ledger.on_deadline(now)
        if now >= self._ping_at:
            self._pings += 1
            self._outbox.append(_text({"req_id": f"ping-{self._pings}", "op": "ping"}))
            self._ping_at = now + self.times.ping_every
        self._send_requests(now)

    def _request(self, request: Request) -> str:
        return _text({"req_id": request.id, "op": request.op, "args": list(request.waiting)})

    def _login_request(self, login: Login, now: float) -> str:
        keys, expires = login.credentials, login.micros(now) // 1000 + LOGIN_AHEAD
        identifier = "reqId" if self.endpoint == "trade" else "req_id"
        proof = signature(keys.api_secret, f"GET/realtime{expires}")
        return _text({identifier: "login", "op": "auth", "args": [keys.api_key, expires, proof]})

    def _answer(self, plain: dict[str, Any], now: float) -> bool:
        """Whether the message was of a known form and the answer to something."""
        if plain.get("op") == "auth" or plain.get("type") == "AUTH_RESP":
            return self._login_answer(plain, now)
        if plain.get("type") == "COMMAND_RESP":
            return self._command_answer(plain, now)
        if wire.is_pong(plain):
            return True
        op, code = plain.get("op"), plain.get("retCode")
        if isinstance(op, str) and op in {SUBSCRIBE, UNSUBSCRIBE}:
            request = self._request_of(plain, op)
            return request is not None and self._settle(request, plain, now)
        if self._awaits_login and (plain.get("success") is False or (type(code) is int and code)):
            return self._login_answer(plain, now)  # nothing else has been asked yet
        if type(code) is int and code:
            raise error_of(code, f"{self.endpoint}: {plain.get('retMsg', '')}")
        if plain.get("success") is False:
            request = self._request_of(plain, None)
            return request is not None and self._settle(request, plain, now)
        return False

    def _login_answer(self, plain: dict[str, Any], now: float) -> bool:
        """The trade server answers with a code, the private one with a text."""
        code = plain.get("retCode")
        code = code if type(code) is int else None
        if plain.get("success") is True or code in {0, REPEATED_LOGIN}:
            self._login_granted(now)
            return self.login is not None
        if self.login is None and code is None:
            return False
        raise login_error(code, f"{self.endpoint}: {plain.get('retMsg') or plain.get('ret_msg') or 'no reason given'}")

    def _request_of(self, plain: dict[str, Any], op: str | None) -> Request | None:
        """The request an answer belongs to: by its identifier, or the oldest where the server echoed none."""
        identifier = plain.get("req_id")
        if identifier:
            return self._ledger.oldest_request(lambda request: request.id == identifier)
        if op is None:
            return None
        return self._ledger.oldest_request(lambda request: request.op == op)

    def _settle(self, request: Request, plain: dict[str, Any], now: float) -> bool:
        if plain.get("success") is True:
            return self._ledger.request_acknowledged(request.id)
        reason = str(plain.get("ret_msg") or "no reason given")
        if request.op == SUBSCRIBE and len(request.waiting) == 1 and "already subscribed" in reason.lower():
            return self._ledger.request_acknowledged(request.id)
        return self._ledger.request_failed(request.id, reason, passing=is_passing(reason), now=now)

    def _command_answer(self, plain: dict[str, Any], now: float) -> bool:
        """The answer of the option and spread servers: topics by name, neither the operation nor an identifier."""
        data = plain.get("data")
        data = data if isinstance(data, dict) else {}
        failed, granted = _topics(data.get("failTopics")), _topics(data.get("successTopics"))
        if not failed and not granted:
            request = self._ledger.oldest_request()
            return request is not None and self._settle(request, plain, now)
        known = True
        reason = str(plain.get("ret_msg") or "listed in failTopics")
        for topic in granted:
            known &= self._grant(topic)
        for topic in failed:
            known &= self._grant(topic) if "already subscribed" in reason else self._ledger.topic_failed(topic, reason)
        return known

    def _grant(self, topic: str) -> bool:
        request = self._ledger.oldest_request(lambda request: topic in request.waiting)
        return request is not None and self._ledger.acknowledged(request.op, topic)

    def _notice(self, message: bytes) -> None:
        self._note(f"bybit {self.endpoint}: {message[:300].decode('utf-8', 'replace')}")


def _topics(value: object) -> list[str]:
    return [topic for topic in value if isinstance(topic, str)] if isinstance(value, list) else []


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
