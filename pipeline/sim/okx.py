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
from pipeline.sim.floor import Floor
from pipeline.sim.generator import Stream
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine
from pipeline.sim.okx_streams import (
    BARS_MS,
    BookChannel,
    CandleChannel,
    Channel,
    StateChannel,
    TopChannel,
    TradeChannel,
)
from pipeline.sim.settings import Account, Limits
from pipeline.sim.toggles import Toggles
from pipeline.sim.wire import Connection

LIMITS = Limits(
    connects=Rate(3, 1.0), idle=30.0, idle_tick=1.0, rest=Rate(20, 2.0), requests=Rate(480, 3600.0)
)  # fmt: skip
"""The venue's published limits; its REST limits differ per endpoint, the strictest common one stands for all."""

PATHS = {"/ws/v5/public": "public", "/ws/v5/private": "private", "/ws/v5/business": "business"}
CANDLES = {"candle": "trade", "mark-price-candle": "mark", "index-candle": "index"}
PUBLIC = frozenset(
    {"books", "books5", "bbo-tbt", "trades", "tickers", "mark-price", "index-tickers", "funding-rate"}
    | {"open-interest", "instruments"}
)
LOGIN_BOOKS = frozenset({"books-l2-tbt", "books50-l2-tbt"})
COUNTED = frozenset({"orders", "account", "positions", "balance_and_position", "liquidation-warning", "account-greeks"})
"""Private channels whose subscriptions are counted per account."""
PRIVATE = COUNTED | {"fills"}

_encode = msgspec.json.Encoder().encode
_ELSEWHERE = (
    "Wrong URL or channel:{}, instId:{} doesn't exist. Please use the correct URL, channel and parameters "
    "referring to API document."
)
_MOVED = (
    "This channel has been migrated to the '/business' URL. Please subscribe using the new URL. More details can refer "
    "to: https://www.okx.com/help-center/changes-to-v5-api-websocket-subscription-parameter-and-url"
)
_NOTICE = "The connection will soon be closed for a service upgrade. Please reconnect."


def candle(channel: str) -> tuple[str, str] | None:
    """The price type and bar of a candle channel's name."""
    prefix, separator, bar = channel.rpartition("candle")
    kind = CANDLES.get(f"{prefix}{separator}")
    known = kind is not None and bar in BARS_MS and (bar != "1s" or kind == "trade")
    return (kind, bar) if kind is not None and known else None


def topic_name(arg: dict[str, Any]) -> str:
    """A subscription's name: "books:BTC-USDT-SWAP", "instruments:SPOT"."""
    target = arg.get("instId") or arg.get("instFamily") or arg.get("instType") or ""
    return f"{arg.get('channel')}:{target}"


@attrs.define(eq=False)
class OkxDialect:
    """The protocol of `/ws/v5/public` and `/business`; of `/private` login, acknowledgements and heartbeat."""

    floor: Floor
    toggles: Toggles
    accounts: tuple[Account, ...]
    limits: Limits
    name: str = "okx"
    _budgets: dict[int, Budget] = attrs.field(factory=dict, init=False)

    def endpoint(self, path: str) -> str | None:
        """`/ws/v5/public` is "public"."""
        return PATHS.get(path)

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
            problem = ("60009", "Login failed.")
        if problem is not None:
            self._error(connection, request, *problem)
            return
        connection.account = args[0]["apiKey"]
        answer = {"event": "login", "code": "0", "msg": "", "connId": connection.id}
        self.toggles.acknowledge(connection, _encode(answer))

    def _login_problem(self, arg: dict[str, Any]) -> tuple[str, str] | None:
        timestamp = str(arg.get("timestamp", ""))
        if not timestamp.isdecimal():
            return "60004", "Invalid timestamp"
        account = next((each for each in self.accounts if each.key == arg.get("apiKey")), None)
        if account is None:
            return "60032", "API key doesn't exist"
        if abs(self.floor.clock.now_us() / 1e6 - int(timestamp)) > self.limits.login_age:
            return "60006", "Timestamp request expired"
        if arg.get("passphrase") != account.passphrase:
            return "60024", "Wrong passphrase"
        if not hmac.compare_digest(_signature(account.secret, timestamp).encode(), str(arg.get("sign")).encode()):
            return "60007", "Invalid sign"
        return None

    def _order(self, connection: Connection, request: dict[str, Any], arg: dict[str, Any]) -> None:
        """Subscribe to or unsubscribe from one arg."""
        topic = f"{connection.endpoint}/{topic_name(arg)}"
        subscribe = request["op"] == "subscribe"
        if subscribe and (problem := self._problem(connection, arg, topic)):
            self._error(connection, request, *problem)
            return
        echo = {"id": request["id"]} if "id" in request else {}
        answer = {**echo, "event": request["op"], "arg": arg, "connId": connection.id}
        self.toggles.acknowledge(connection, _encode(answer))
        if connection.endpoint == "private":
            if subscribe and str(arg.get("channel")) in COUNTED:
                count = {"event": "channel-conn-count", "channel": arg["channel"], "connCount": "1"}
                self.toggles.acknowledge(connection, _encode({**count, "connId": connection.id}))
        elif not subscribe:
            self.floor.unsubscribe(connection, topic)
        elif topic not in connection.topics:
            self.floor.subscribe(connection, topic)

    def _problem(self, connection: Connection, arg: dict[str, Any], topic: str) -> tuple[str, str] | None:
        """Why a subscription is refused: code and text."""
        channel = str(arg.get("channel", ""))
        if "uly" in arg:
            return "64000", "Subscription parameter uly is unavailable anymore. Please replace uly with instFamily."
        if connection.endpoint == "private":
            if connection.account is None:
                return "60011", "Please log in"
            return None if channel in PRIVATE else ("60018", _ELSEWHERE.format(channel, arg.get("instId", "")))
        if channel in LOGIN_BOOKS and connection.endpoint == "public":
            return ("60011", "Please log in") if connection.account is None else (
                "64003", "Your trading fee tier doesn't meet the requirement to access this channel"
            )  # fmt: skip
        business = channel == "trades-all" or candle(channel) is not None
        if business and connection.endpoint == "public":
            return "64001", _MOVED
        if channel in PUBLIC and connection.endpoint == "business":
            return "64002", 'This channel is not supported by "/business" URL. Please use "/public" or "/private"'
        if not self.floor.offers(topic):
            return "60018", _ELSEWHERE.format(channel, arg.get("instId", arg.get("instType", "")))
        return None

    def _error(self, connection: Connection, request: dict[str, Any], code: str, text: str) -> None:
        echo = {"id": request["id"]} if "id" in request else {}
        answer = {**echo, "event": "error", "code": code, "msg": text, "connId": connection.id}
        self.toggles.acknowledge(connection, _encode(answer))

    def cut_idle(self, connection: Connection) -> None:
        """Close code 4004."""
        connection.close(4004, f"No data received in {self.limits.idle:g}s")

    def cut_slow(self, connection: Connection) -> None:
        """Close code 4005."""
        connection.close(4005, "The buffer is full, cannot write data")

    def give_notice(self, connection: Connection) -> bool:
        """The notice of a service upgrade."""
        connection.send(_encode({"event": "notice", "code": "64008", "msg": _NOTICE, "connId": connection.id}))
        return True

    def stream(self, topic: str) -> Stream | None:
        """The channels; a topic key is "public/books:BTC-USDT-SWAP"."""
        endpoint, _, name = topic.partition("/")
        channel, _, target = name.partition(":")
        if channel == "instruments":
            known = endpoint == "public" and target in okx_rest.MARKETS
            return Channel({"channel": channel, "instType": target}, []) if known else None
        arg = {"channel": channel, "instId": target}
        bar = candle(channel)
        on_index = channel == "index-tickers" or (bar is not None and bar[0] == "index")
        engine = self._engine(target, index=on_index)
        if engine is None:
            return None
        if endpoint == "business":
            if channel == "trades-all":
                return TradeChannel(arg, [engine], single=True)
            return CandleChannel(arg, [engine], bar=bar[1], kind=bar[0]) if bar else None
        return _public_channel(channel, arg, engine) if endpoint == "public" else None

    def _engine(self, target: str, *, index: bool) -> Engine | None:
        """The engine of an instrument, or of the first instrument on an index."""
        for listing in self.floor.market.listings.values():
            if (listing.index == target and listing.option is None) if index else listing.symbol == target:
                return self.floor.market.engine(listing)
        return None

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
        """The public and market endpoints."""
        return okx_rest.answer(self.floor, request)

    def rest_bucket(self, request: Request) -> str:
        """Per endpoint and kind of instrument."""
        return f"{request.path}?{request.query.get('instType', '')}"

    def rest_refusal(self) -> Response:
        """Code 50011."""
        return Response.json({"code": "50011", "msg": "Too Many Requests", "data": []}, 429)

    def relisted(self, listing: Listing, *, listed: bool) -> None:
        """An upsert on the instruments channel."""
        topic = f"public/instruments:{listing.market}"
        row = okx_streams.instrument_row(listing, "live" if listed else "expired")
        arg = {"channel": "instruments", "instType": listing.market}
        self.floor.publish(topic, [_encode({"arg": arg, "data": [row]})])


def _public_channel(channel: str, arg: dict[str, str], engine: Engine) -> Stream | None:
    derivative, engines = engine.listing.market != "SPOT", [engine]
    match channel:
        case "books":
            return BookChannel(arg, engines)
        case "books5" | "bbo-tbt":
            return TopChannel(arg, engines, depth=5 if channel == "books5" else 1)
        case "trades":
            return TradeChannel(arg, engines)
        case "tickers":
            return StateChannel(arg, engines, okx_streams.ticker)
        case "mark-price":
            return StateChannel(arg, engines, okx_streams.mark_price, quiet_ms=okx_streams.MARK_QUIET_MS)
        case "index-tickers":
            return StateChannel(arg, engines, okx_streams.index_ticker, quiet_ms=okx_streams.QUIET_MS)
        case "open-interest" if derivative:
            return StateChannel(arg, engines, okx_streams.open_interest)
        case "funding-rate" if engine.listing.perpetual:
            return StateChannel(arg, engines, okx_streams.funding_rate)
    return None


def _signature(secret: str, timestamp: str) -> str:
    text = f"{timestamp}GET/users/self/verify"
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
