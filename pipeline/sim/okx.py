"""OKX v5 as a server: three paths, one acknowledgement per arg, text heartbeats, login, channels."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import attrs
import msgspec

from pipeline.model.rate import Budget, Rate
from pipeline.sim import okx_rest, okx_streams
from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.floor import Floor
from pipeline.sim.generator import Stream
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.okx_account_rest import AccountRest
from pipeline.sim.okx_channels import (
    ACCOUNT_CHANNELS,
    BUSINESS,
    COUNTED,
    EXCLUSIVE,
    PRIVATE,
    PUBLIC,
    is_within,
    offer_of,
    topic_arg,
    topic_name,
)
from pipeline.sim.okx_countdown import Countdown
from pipeline.sim.okx_private import AccountChannels, faults_of
from pipeline.sim.okx_public import PublicStreams
from pipeline.sim.okx_trade import MASS_CANCEL, OPS, TradeSide
from pipeline.sim.settings import Limits
from pipeline.sim.tally import Tally
from pipeline.sim.toggles import Toggles
from pipeline.sim.wire import Connection

LIMITS = Limits(
    connects=Rate(3, 1.0), idle=30.0, idle_tick=1.0, rest=Rate(20, 2.0), requests=Rate(480, 3600.0)
)  # fmt: skip
"""The venue's published limits; its REST limits differ per endpoint, the strictest common one stands for all."""

PATHS = {"/ws/v5/public": PUBLIC, "/ws/v5/private": PRIVATE, "/ws/v5/business": BUSINESS}

_encode = msgspec.json.Encoder().encode
_MOVED = (
    "This channel has been migrated to the '/business' URL. Please subscribe using the new URL. More details can refer "
    "to: https://www.okx.com/help-center/changes-to-v5-api-websocket-subscription-parameter-and-url"
)
_LOGIN_ERRORS = {
    "60005": "Invalid apiKey",
    "60006": "Timestamp request expired",
    "60007": "Invalid sign",
    "60014": "Requests too frequent",
    "60024": "Wrong passphrase",
    "60032": "API key doesn't exist",
    "63999": "Login failed due to internal error. Please try again later.",
}
_NOTICE = "The connection will soon be closed for a service upgrade. Please reconnect."


@attrs.define(eq=False)
class OkxDialect:
    """The protocol of `/ws/v5/public`, `/business` and `/private`, where orders are entered too."""

    floor: Floor
    toggles: Toggles
    accounts: tuple[SimulatedAccount, ...]
    limits: Limits
    name: str = "okx"
    order_endpoint: str = PRIVATE
    trade: TradeSide = attrs.field(init=False)
    _budgets: dict[int, Budget] = attrs.field(factory=dict, init=False)
    _public: PublicStreams = attrs.field(init=False)
    _private: AccountChannels = attrs.field(init=False)
    _account_rest: AccountRest = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        by_name = {each.name: each for each in self.accounts}
        self._private = AccountChannels(self.floor, by_name, self.limits.page_rows)
        self._public = PublicStreams(self.floor.market, {"status": [_past_maintenance(self.floor.clock.now_ms())]})
        self.trade = TradeSide(self.floor, self.toggles, self.limits, self._account)
        countdown = Countdown(self.toggles, self.trade.matching)
        self._account_rest = AccountRest(self.accounts, self.floor.clock, self.limits.login_age, countdown)

    @property
    def tally(self) -> Tally:
        """The orders that it was asked for."""
        return self.trade.tally

    def endpoint(self, path: str) -> str | None:
        """`/ws/v5/public` is "public"."""
        return PATHS.get(path)

    def idle(self, request: Request) -> float:
        """The same for every connection."""
        return self.limits.idle

    def connection_id(self, index: int, endpoint: str) -> str:
        """Eight hexadecimal digits."""
        return f"{0xA4D3AE55 + index:08x}"

    def receive(self, connection: Connection, text: str) -> None:
        """Answers one request."""
        if text == "ping":
            connection.send(b"pong")
            return
        try:
            request = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            request = None
        match request:
            case {"op": "subscribe" | "unsubscribe" | "login" as op, "args": args}:
                if not self._within_budget(connection):
                    self._error(connection, request, "60014", "Requests too frequent")
                elif not isinstance(args, list) or not args or not all(isinstance(arg, dict) for arg in args):
                    self._error(connection, request, "60013", "Invalid args")
                elif op == "login":
                    self._login(connection, request, args)
                else:
                    for arg in args:
                        self._order(connection, request, arg)
            case {"op": str(op)} if op in OPS or op == MASS_CANCEL:
                self.trade.receive(connection, request)
            case {"op": "subscribe" | "unsubscribe" | "login"}:
                self._error(connection, request, "60012", f"Invalid request: {text}")
            case {"op": op}:
                self._error(connection, request, "60019", f"Invalid op: {op}")
            case _:
                self._error(connection, {}, "60012", f"Invalid request: {text}")

    def _within_budget(self, connection: Connection) -> bool:
        if self.limits.requests is None:
            return True
        budget = self._budgets.setdefault(connection.index, Budget(self.limits.requests))
        now = self.floor.clock.now_us() / 1e6
        if budget.wait(now) > 0:
            return False
        budget.take(now)
        return True

    def _login(self, connection: Connection, request: dict[str, Any], args: list[dict[str, Any]]) -> None:
        if connection.account is not None or len(args) > 1:
            self._error(
                connection, request, "60031", "The WebSocket endpoint does not allow multiple or repeated logins"
            )
            return
        problem = self._login_problem(args[0])
        if problem is None and self.toggles.refuses_login():
            code = self.toggles.login_error or "60009"
            problem = (code, _LOGIN_ERRORS.get(code, "Login failed."))
        if problem is not None:
            self._error(connection, request, *problem)
            return
        connection.account = args[0]["apiKey"]
        answer = {"event": "login", "code": "0", "msg": "", "connId": connection.id}
        self.toggles.acknowledge(connection, _encode(answer))

    def _login_problem(self, arg: dict[str, Any]) -> tuple[str, str] | None:
        timestamp = str(arg.get("timestamp", ""))
        if not timestamp.isdecimal() or len(timestamp) > 15:
            return "60004", "Invalid timestamp"
        account = self._account(arg.get("apiKey"))
        if account is None:
            return "60032", "API key doesn't exist"
        if account.revoked:
            return "60005", "Invalid apiKey"
        settings = account.settings
        if abs(self.floor.clock.now_us() / 1e6 - int(timestamp)) > self.limits.login_age:
            return "60006", "Timestamp request expired"
        if arg.get("passphrase") != settings.passphrase:
            return "60024", "Wrong passphrase"
        if not hmac.compare_digest(_signature(settings.secret, timestamp).encode(), str(arg.get("sign")).encode()):
            return "60007", "Invalid sign"
        return None

    def _order(self, connection: Connection, request: dict[str, Any], arg: dict[str, Any]) -> None:
        """Subscribe to or unsubscribe from one arg."""
        channel = str(arg.get("channel", ""))
        topic = f"{connection.endpoint}/{topic_name(arg)}"
        if channel in ACCOUNT_CHANNELS:
            account = self._account(connection.account)
            topic = f"{topic}@{account.name if account else ''}"
        subscribe = request["op"] == "subscribe"
        problem = self._problem(connection, channel, arg, topic) if subscribe else None
        if problem is None and channel in ACCOUNT_CHANNELS and connection.account is None:
            problem = ("60011", "Please log in")
        if problem is not None:
            self._error(connection, request, *problem)
            return
        echo = {"id": request["id"]} if "id" in request else {}
        answer = {**echo, "event": request["op"], "arg": arg, "connId": connection.id}
        self.toggles.acknowledge(connection, _encode(answer))
        if not subscribe:
            self.floor.unsubscribe(connection, topic)
        elif topic not in connection.topics and (channel not in COUNTED or self._count(connection, channel)):
            self.floor.subscribe(connection, topic)

    def _count(self, connection: Connection, channel: str) -> bool:
        """Tell how many connections of the account have a private channel; False if this one is too many."""
        having = {
            each
            for topic, subscribers in self.floor.subscribers.items()
            if topic.partition("/")[2].partition(":")[0].partition("@")[0] == channel
            for each in subscribers
            if each.account == connection.account
        }
        count, most = len(having | {connection}), self.limits.channel_connections
        answer = {"event": "channel-conn-count", "channel": channel, "connCount": str(count)}
        if count > most:
            answer |= {"event": "channel-conn-count-error", "connCount": str(most)}
        self.toggles.acknowledge(connection, _encode({**answer, "connId": connection.id}))
        return count <= most

    def _problem(self, connection: Connection, channel: str, arg: dict[str, Any], topic: str) -> tuple[str, str] | None:
        """Why a subscription is refused: code and text."""
        offer, endpoint = offer_of(channel), connection.endpoint
        account = self._account(connection.account)
        if "uly" in arg:
            return "64000", "Subscription parameter uly is unavailable anymore, please replace uly with instFamily."
        if offer is not None and endpoint != BUSINESS and offer.path == BUSINESS:
            return "64001", _MOVED
        if offer is not None and endpoint == BUSINESS and offer.path != BUSINESS:
            return "64002", 'This channel is not supported by "/business" URL. Please use "/public" or "/private"'
        if account is None and (endpoint == PRIVATE or (offer is not None and offer.login)):
            return "60011", "Please log in"
        if offer is None or offer.path != endpoint:
            return "60018", _elsewhere(channel, arg)
        if account is not None and offer.vip and not account.settings.vip:
            return "64003", "Your trading fee tier doesn't meet the requirement to access this channel"
        if account is not None and offer.production_only and account.settings.demo:
            return "60018", _elsewhere(channel, arg)
        if channel in ACCOUNT_CHANNELS and (fault := faults_of(arg)):
            return fault
        return self._rival(connection, channel, arg) or self._absence(channel, arg, topic)

    def _rival(self, connection: Connection, channel: str, arg: dict[str, Any]) -> tuple[str, str] | None:
        """Books of the same instrument that exclude this one."""
        name = arg.get("instId")
        for other in EXCLUSIVE.get(channel, ()):
            if f"{connection.endpoint}/{other}:{name}" in connection.topics:
                less = channel if other == "books-l2-tbt" else other
                text = f"Subscribe to both {less} and books-l2-tbt for {name} is not allowed."
                return "64004", f"{text} Unsubscribe books-l2-tbt first."
        return None

    def _absence(self, channel: str, arg: dict[str, Any], topic: str) -> tuple[str, str] | None:
        """What the subscription names does not exist, or a fault has it so."""
        listed = channel not in ACCOUNT_CHANNELS or any(
            arg.get("instId", each.symbol) == each.symbol and arg.get("instFamily", each.index) == each.index
            for each in self.floor.market.listings.values()
        )
        return None if listed and self.floor.offers(topic) else ("60018", _elsewhere(channel, arg))

    def _account(self, key: object) -> SimulatedAccount | None:
        return next((each for each in self.accounts if each.settings.key == key), None)

    def _error(self, connection: Connection, request: dict[str, Any], code: str, text: str) -> None:
        echo = {"id": request["id"]} if "id" in request else {}
        answer = {**echo, "event": "error", "code": code, "msg": text, "connId": connection.id}
        self.toggles.acknowledge(connection, _encode(answer))

    def cut_idle(self, connection: Connection) -> None:
        """Close code 4004."""
        connection.close(4004, f"No data received in {self.limits.idle:g}s")

    def cut_revoked(self, connection: Connection) -> None:
        """With a code of its own."""
        connection.close(4007, "API key has been updated or deleted")

    def cut_slow(self, connection: Connection) -> None:
        """Close code 4005."""
        connection.close(4005, "The buffer is full, cannot write data")

    def give_notice(self, connection: Connection) -> bool:
        """The notice of a service upgrade."""
        connection.send(_encode({"event": "notice", "code": "64008", "msg": _NOTICE, "connId": connection.id}))
        return True

    def end_order_entry(self, connection: Connection) -> None:
        """The same notice as to every connection."""
        self.give_notice(connection)

    def stream(self, topic: str) -> Stream | None:
        """The channels; a topic key is "public/books:BTC-USDT-SWAP"."""
        endpoint, _, rest = topic.partition("/")
        name, _, account = rest.partition("@")
        arg = topic_arg(name)
        offer = offer_of(arg.get("channel", ""))
        if offer is None or offer.path != endpoint:
            return None
        if arg["channel"] in ACCOUNT_CHANNELS:
            return self._private.make(name, account)
        return self._public.make(arg)

    def push(self, body: dict[str, Any]) -> int:
        """Send `body`, a public push, to the subscriptions that have all that its `arg` names; returns how many.

        Raises `ValueError` for what is no push of a known channel.
        """
        arg, data = body.get("arg"), body.get("data")
        offer = offer_of(str(arg.get("channel"))) if isinstance(arg, dict) else None
        if not isinstance(arg, dict) or offer is None or str(arg["channel"]) in ACCOUNT_CHANNELS:
            raise ValueError(f"arg: {arg!r} names no public channel")
        if not isinstance(data, list):
            raise ValueError(f"data: {data!r} is not a list")
        payload = _encode(body)
        if topic_name(arg) in self._public.latest:
            self._public.latest[topic_name(arg)][:] = [payload]
        hit = 0
        for topic, subscribers in list(self.floor.subscribers.items()):
            if is_within(arg, topic_arg(topic.partition("/")[2])):
                hit += len(subscribers)
                self.floor.publish(topic, [payload])
        return hit

    def push_private(self, account: SimulatedAccount, body: dict[str, Any]) -> int:
        """As `push`, to an account's subscriptions; see `AccountChannels.push`."""
        return self._private.push(account, body)

    def recorded_topic(self, message: dict[str, Any]) -> str | None:
        """Pushes have an arg and data."""
        arg = message.get("arg")
        return topic_name(arg) if isinstance(arg, dict) and "data" in message else None

    def recorded_ms(self, message: dict[str, Any]) -> int | None:
        """The time of the first row; a candle's is that of its opening and says nothing about the push."""
        match message:
            case {"data": [{"ts": str(when)}, *_]} if when.isdecimal():
                return int(when)
        return None

    def is_snapshot(self, message: dict[str, Any]) -> bool | None:
        """By `action`, which only the incremental books have."""
        action = message.get("action")
        return None if action is None else action == "snapshot"

    def rest(self, request: Request) -> Response | None:
        """The public and market endpoints, and those of accounts."""
        return self._account_rest.answer(request) or okx_rest.answer(self.floor, request)

    def rest_bucket(self, request: Request) -> str:
        """Per endpoint, kind of instrument and user."""
        key = request.headers.get("ok-access-key", "")
        return f"{key}{request.path}?{request.query.get('instType', '')}"

    def rest_refusal(self) -> Response:
        """Code 50011."""
        return Response.json({"code": "50011", "msg": "Too Many Requests", "data": []}, 429)

    def relisted(self, listing: Listing, *, listed: bool) -> None:
        """An upsert on the instruments channel; what is listed on spot can be had on margin too."""
        row = okx_streams.instrument_row(listing, "live" if listed else "expired")
        for market in (listing.market, "MARGIN") if listing.market == "SPOT" else (listing.market,):
            arg = {"channel": "instruments", "instType": market}
            message = {"arg": arg, "data": [row | {"instType": market}]}
            self.floor.publish(f"{PUBLIC}/{topic_name(arg)}", [_encode(message)])


def _elsewhere(channel: str, arg: dict[str, Any]) -> str:
    name = arg.get("instId", arg.get("sprdId", arg.get("instType", "")))
    return (
        f"Wrong URL or channel:{channel}, instId:{name} doesn't exist. Please use the correct URL, channel and "
        "parameters referring to API document."
    )


def _past_maintenance(now_ms: int) -> bytes:
    """What the status channel told last before the simulation began."""
    row = {
        "begin": str(now_ms - 90_000_000),
        "end": str(now_ms - 86_400_000),
        "href": "",
        "preOpenBegin": "",
        "scheDesc": "",
        "serviceType": "0",
        "state": "completed",
        "system": "unified",
        "maintType": "1",
        "env": "1",
        "title": "Trading account WebSocket system upgrade",
        "ts": str(now_ms - 86_400_000),
    }
    return _encode({"arg": {"channel": "status"}, "data": [row]})


def _signature(secret: str, timestamp: str) -> str:
    text = f"{timestamp}GET/users/self/verify"
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
