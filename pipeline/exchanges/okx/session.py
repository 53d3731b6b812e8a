"""One OKX connection without login: heartbeats, subscriptions and what the venue announces."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import attrs
import msgspec

from pipeline.exchanges.ledger import UNSUBSCRIBE, Request
from pipeline.exchanges.okx.topics import read_arg, topic_of
from pipeline.exchanges.okx.wire import UNREADABLE
from pipeline.exchanges.session import SubscribingSession
from pipeline.model.errors import HeartbeatLost, Refused

PING, PONG = "ping", b"pong"
"""Plain text, not JSON."""
_PUSH = b'{"arg":{'
_AFTER_ARG = (b',"data":', b',"action":', b',"eventType":', b',"curPage":')
_ARG_AT = 7

# Key, passphrase or signature: asking again gives the same answer.
_REFUSED_LOGIN = frozenset({"60005", "60007", "60009", "60024", "60032"})
# Too many requests, internal errors of the venue: ask again later.
_PASSING = frozenset({"60014", "60023", "63999", "64007"})
_NAMED = re.compile(r"channel:\s*([\w-]+)(?:,\s*inst(?:Id|Family|Type):\s*([\w-]+))?")
_NOTICE_CHARACTERS = 200


@attrs.define(eq=False)
class OkxPublicSession(SubscribingSession):
    """One connection to /ws/v5/public or /ws/v5/business."""

    _ping_at: float = attrs.field(default=inf, init=False)
    _pong_by: float = attrs.field(default=inf, init=False)

    def start(self, now: float) -> None:
        """The connection is open: subscribe."""
        self._ping_at = now + self.times.ping_every
        SubscribingSession.start(self, now)

    def receive(self, message: bytes, now: float) -> bool:
        """Take one message; True for data, and for what cannot be read, which the normalizer reports.

        Raises `Refused` when the venue refuses a login; odd content raises nothing.
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
        deadline = min(self._ping_at, self._pong_by)
        return deadline if self._ledger.settled else min(deadline, self._ledger.next_deadline(self._now))

    def on_deadline(self, now: float) -> None:
        """Ping, send what the budget now allows. Raises `HeartbeatLost` or `DeadlineMissed`."""
        self._now = now
        if now >= self._pong_by:
            raise HeartbeatLost(f"okx: no frame within {self.times.pong_within:g} s after a ping")
        self._ledger.on_deadline(now)
        if now >= self._ping_at:
            self._outbox.append(PING)
            self._ping_at = inf  # the next frame sets it, or none comes and the connection ends
            self._pong_by = now + self.times.pong_within
        self._send_requests(now)

    def _request(self, request: Request) -> str:
        args = ",".join(request.waiting)
        return f'{{"id":"{request.id}","op":"{request.op}","args":[{args}]}}'

    def _on_event(self, fields: dict[str, Any], message: bytes, now: float) -> None:
        match fields["event"]:
            case "subscribe" | "unsubscribe" as op:
                self._on_acknowledged(op, fields.get("arg"), message)
            case "error":
                self._on_error(fields, now)
            case "login" if str(fields.get("code", "0")) != "0":
                self._on_error(fields, now)
            case "notice":
                self._note(f"okx notice {fields.get('code')}: {fields.get('msg')}")
            case "channel-conn-count-error":
                self._on_connection_count(str(fields.get("channel")), fields.get("connCount"))
            case "channel-conn-count" | "login":
                pass  # how many connections of this account carry the channel; a granted login
            case _:
                self._note_unknown(message)

    def _on_acknowledged(self, op: str, arg: Any, message: bytes) -> None:
        try:
            topic = topic_of(read_arg(arg))
        except msgspec.ValidationError:
            self._note_unknown(message)
            return
        if self._ledger.acknowledged(op, topic):
            return
        if op == UNSUBSCRIBE and self._ledger.withdrawn(topic, "okx unsubscribed it by itself"):
            return
        if topic not in self._ledger.active:  # OKX answers a repeated subscription again
            self._note(f"okx acknowledged {op} of {topic}, which nobody waits for")

    def _on_error(self, fields: dict[str, Any], now: float) -> None:
        code, text = str(fields.get("code")), str(fields.get("msg"))
        reason = f"okx error {code}: {text}"
        if code in _REFUSED_LOGIN:
            raise Refused(reason)
        request = self._failed_request(fields.get("id"), text)
        if request is None:
            self._note(reason)
        else:
            self._ledger.request_failed(request, reason, passing=code in _PASSING, now=now)

    def _failed_request(self, request_id: Any, text: str) -> str | None:
        """The id of the request that an error is about: OKX names no topic, and older servers no id."""
        if request_id:
            wanted = str(request_id)
            found = self._ledger.oldest_request(lambda request: request.id == wanted)
            return found.id if found is not None else None
        named = _NAMED.search(text)
        if named is not None:
            names = [f'"{name}"' for name in named.groups() if name]

            def concerned(request: Request) -> bool:
                return any(all(name in topic for name in names) for topic in request.waiting)

            found = self._ledger.oldest_request(concerned)
            if found is not None:
                return found.id
        found = self._ledger.oldest_request()
        return found.id if found is not None else None

    def _on_connection_count(self, channel: str, count: Any) -> None:
        reason = f"okx allows no further connection with channel {channel} ({count} are open)"
        ended = [subscription.topic for subscription in self._ledger.active.values() if subscription.channel == channel]
        for topic in ended:
            self._ledger.withdrawn(topic, reason)
        if not ended:
            self._note(reason)

    def _note_unknown(self, message: bytes) -> bool:
        self._note(f"okx sent a message of no known form: {message[:_NOTICE_CHARACTERS].decode(errors='replace')}")
        return False
