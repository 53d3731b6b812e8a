"""One OKX connection: login, heartbeats, subscriptions and what the venue announces."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import attrs
import msgspec

from pipeline.exchanges.accounts import Login
from pipeline.exchanges.ledger import UNSUBSCRIBE, Request
from pipeline.exchanges.okx.codes import HINTS, UPGRADE, WEBSOCKET, Remedy
from pipeline.exchanges.okx.signing import login_request
from pipeline.exchanges.okx.topics import echo_of, read_arg, topic_of
from pipeline.exchanges.okx.wire import UNREADABLE
from pipeline.exchanges.session import SubscribingSession
from pipeline.model.errors import HeartbeatLost, LoginFailed, Refused

PING, PONG = "ping", b"pong"
"""Plain text, not JSON."""
_PUSH = b'{"arg":{'
_AFTER_ARG = (b',"data":', b',"action":', b',"eventType":', b',"curPage":')
_ARG_AT = 7

MAX_CONNECTIONS, MANY_CONNECTIONS = 30, 25
"""Connections per channel and account: what OKX allows, and when it is time to say so."""

_NAMED = re.compile(r"channel:\s*([\w-]+)(?:,\s*inst(?:Id|Family|Type):\s*([\w-]+))?")
_NOTICE_CHARACTERS = 200


@attrs.define(eq=False)
class OkxSession(SubscribingSession):
    """One connection to /ws/v5/public, /ws/v5/business or /ws/v5/private."""

    _ping_at: float = attrs.field(default=inf, init=False)
    _pong_by: float = attrs.field(default=inf, init=False)
    _login_at: float = attrs.field(default=inf, init=False)
    """When to log in once more."""
    _sent_home: set[str] = attrs.field(factory=set, init=False)
    """Topics that were answered once with a call to log in first."""

    def start(self, now: float) -> None:
        """The connection is open: log in, if need be, and subscribe."""
        self._ping_at = now + self.times.ping_every
        SubscribingSession.start(self, now)

    def receive(self, message: bytes, now: float) -> bool:
        """Take one message; True for data, and for what cannot be read, which the normalizer reports.

        Raises `Refused` or `LoginFailed` when the venue refuses a login; odd content raises nothing.
        """
        self._now = now
        self._ping_at = now + self.times.ping_every
        self._pong_by = inf  # any frame answers a ping
        if message.startswith(_PUSH) and message.startswith(_AFTER_ARG, message.find(b"}", _ARG_AT) + 1):
            return True
        if message == PONG:
            return False
        try:
            fields = msgspec.json.decode(message)
        except UNREADABLE:
            return True
        if not isinstance(fields, dict):
            return self._note_unknown(message)
        if "event" not in fields:
            return ("arg" in fields and "data" in fields) or self._note_unknown(message)
        self._on_event(fields, message, now)
        self._send_requests(now)
        return False

    def next_deadline(self) -> float:
        """When to call `on_deadline`."""
        deadline = min(self._ping_at, self._pong_by, self._login_by, self._login_at)
        if self._awaits_login or self._ledger.settled:
            return deadline  # the budget may be free, but nothing goes out before the login
        return min(deadline, self._ledger.next_deadline(self._now))

    def on_deadline(self, now: float) -> None:
        """Ping, send what the budget now allows. Raises `HeartbeatLost` or `DeadlineMissed`."""
        self._now = now
        if now >= self._pong_by:
            raise HeartbeatLost(f"okx: no frame within {self.times.pong_within:g} s after a ping")
        self._check_login(now)
        self._ledger.on_deadline(now)
        if now >= self._login_at and self.login is not None:
            self._outbox.append(self._login_request(self.login, now))
        if now >= self._ping_at:
            self._outbox.append(PING)
            self._ping_at = inf  # the next frame sets it, or none comes and the connection ends
            self._pong_by = now + self.times.pong_within
        self._send_requests(now)

    def _request(self, request: Request) -> str:
        args = ",".join(request.waiting)
        return f'{{"id":"{request.id}","op":"{request.op}","args":[{args}]}}'

    def _login_request(self, login: Login, now: float) -> str:
        self._login_at = inf
        self._ledger.spend(now)
        return login_request(login, now)

    def _on_event(self, fields: dict[str, Any], message: bytes, now: float) -> None:
        match fields["event"]:
            case "subscribe" | "unsubscribe" as op:
                self._on_acknowledged(op, fields.get("arg"), message)
            case "error":
                self._on_error(fields, now)
            case "login" if str(fields.get("code", "0")) != "0":
                self._on_error(fields, now)
            case "login":
                self._login_at = inf
                self._login_granted(now)
            case "notice":
                self._note(f"okx notice {fields.get('code')}: {fields.get('msg')}")
                self.ends_soon = self.ends_soon or str(fields.get("code")) == UPGRADE
            case "channel-conn-count":
                self._on_connection_count(str(fields.get("channel")), str(fields.get("connCount")))
            case "channel-conn-count-error":
                self._on_connection_refused(str(fields.get("channel")), fields.get("connCount"))
            case _:
                self._note_unknown(message)

    def _on_acknowledged(self, op: str, arg: Any, message: bytes) -> None:
        try:
            topic = self._asked_for(op, topic_of(read_arg(arg)))
        except msgspec.ValidationError:
            self._note_unknown(message)
            return
        if self._ledger.acknowledged(op, topic):
            return
        if op == UNSUBSCRIBE and self._ledger.withdrawn(topic, "okx unsubscribed it by itself"):
            return
        if topic not in self._ledger.active:  # OKX answers a repeated subscription again
            self._note(f"okx acknowledged {op} of {topic}, which nobody waits for")

    def _asked_for(self, op: str, echo: str) -> str:
        """The topic that an acknowledgement is about: OKX leaves some members of the arg out of it."""

        def topics(request: Request) -> list[str]:
            return [topic for topic in request.waiting if request.op == op and echo_of(topic) == echo]

        if self._ledger.oldest_request(lambda request: request.op == op and echo in request.waiting) is not None:
            return echo
        request = self._ledger.oldest_request(lambda request: bool(topics(request)))
        if request is not None:
            return topics(request)[0]
        return next((topic for topic in self._ledger.active if echo_of(topic) == echo), echo)

    def _on_error(self, fields: dict[str, Any], now: float) -> None:
        code, text = str(fields.get("code")), str(fields.get("msg"))
        reason = f"okx error {code}: {text}"
        remedy = WEBSOCKET.get(code)
        if remedy is Remedy.CONFIGURE:
            raise Refused(reason)
        if remedy is Remedy.ASK:
            raise LoginFailed(reason)
        if self._awaits_login and not fields.get("id"):
            self._on_login_failed(reason, remedy, now)
            return
        request = self._failed_request(fields.get("id"), text)
        if request is None:
            self._note(reason)
            return
        passing = remedy is Remedy.WAIT or (remedy is Remedy.LOG_IN and self._may_ask_again(request))
        self._ledger.request_failed(request.id, reason + self._hint(remedy, request), passing=passing, now=now)

    def _on_login_failed(self, reason: str, remedy: Remedy | None, now: float) -> None:
        """Nothing is wrong with a key that OKX has no time for: log in again, after a pause as the ledger's."""
        if remedy is not Remedy.WAIT:
            raise LoginFailed(reason)
        self._note(reason)
        self._login_at = now + self.times.acknowledge_within
        self._login_by = self._login_at + self.times.acknowledge_within

    def _may_ask_again(self, request: Request) -> bool:
        """Whether a request that came before the login, for OKX, has a second chance."""
        if self.login is None or not self._sent_home.isdisjoint(request.waiting):
            return False
        self._sent_home.update(request.waiting)
        return True

    def _hint(self, remedy: Remedy | None, request: Request) -> str:
        if remedy is Remedy.LOG_IN and self.login is None:
            return "; it needs a login: give the entry an account"
        channel = next(iter(request.waiting.values())).channel
        return f"; {HINTS[channel]}" if remedy is Remedy.TIER and channel in HINTS else ""

    def _failed_request(self, request_id: Any, text: str) -> Request | None:
        """The request that an error is about: OKX names no topic, and older servers no id."""
        if request_id:
            wanted = str(request_id)
            return self._ledger.oldest_request(lambda request: request.id == wanted)
        named = _NAMED.search(text)
        if named is not None:
            names = [f'"{name}"' for name in named.groups() if name]

            def concerned(request: Request) -> bool:
                return any(all(name in topic for name in names) for topic in request.waiting)

            found = self._ledger.oldest_request(concerned)
            if found is not None:
                return found
        return self._ledger.oldest_request()

    def _on_connection_count(self, channel: str, count: str) -> None:
        if count.isdecimal() and len(count) < 9 and int(count) >= MANY_CONNECTIONS:
            self._note(f"okx: {count} of at most {MAX_CONNECTIONS} connections of this account carry channel {channel}")

    def _on_connection_refused(self, channel: str, count: Any) -> None:
        reason = f"okx allows no further connection with channel {channel} ({count} are open)"
        ended = [subscription.topic for subscription in self._ledger.active.values() if subscription.channel == channel]
        for topic in ended:
            self._ledger.withdrawn(topic, reason)
        if not ended:
            self._note(reason)

    def _note_unknown(self, message: bytes) -> bool:
        self._note(f"okx sent a message of no known form: {message[:_NOTICE_CHARACTERS].decode(errors='replace')}")
        return False
