"""Bybit v5 as a server: paths, control messages in four dialects, topics."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any

import attrs
import msgspec

from pipeline.model.rate import Rate
from pipeline.sim import bybit_rest
from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.bybit_conditions import (
    POOLS,
    AdlTopic,
    FullBookTopic,
    InsuranceTopic,
    LimitTopic,
    LiquidationTopic,
    SilentTopic,
)
from pipeline.sim.bybit_dcp import DisconnectionProtection
from pipeline.sim.bybit_private import PrivateSide
from pipeline.sim.bybit_signed import SignedRest
from pipeline.sim.bybit_streams import INTERVALS_MS, BookTopic, KlineTopic, TickerTopic, TradeTopic
from pipeline.sim.bybit_trade import TradeSide
from pipeline.sim.floor import Floor
from pipeline.sim.generator import Stream
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine
from pipeline.sim.settings import Limits
from pipeline.sim.tally import Tally
from pipeline.sim.toggles import Toggles
from pipeline.sim.wire import Connection

LIMITS = Limits(connects=Rate(500, 300.0), idle=600.0, idle_tick=30.0, rest=Rate(600, 5.0))
"""The venue's published limits."""
ARGS_PER_SPOT_REQUEST = 10
ARGS_PER_OPTION_CONNECTION = 2000
ARGS_CHARACTERS = 21_000
"""Over all args of one connection."""

MARKETS = ("spot", "linear", "inverse", "option", "spread")
CONTRACTS = ("linear", "inverse")
ELSEWHERE = {"/v5/public/misc/status": "status", "/v5/public/rfq": "rfq", "/v5/public/fp": "fp"}
"""Public paths without a market, and what their endpoints are called here."""
ON_DEMAND = {
    "status": ("system.status",),
    "rfq": ("rfq.open.public.trades",),
    "fp": tuple(f"earn.{product}.offers" for product in ("dualassets", "smartleverage", "doublewin", "discountbuy")),
}
"""Topics of those endpoints; they bring what is pushed."""
PRIVATE = ("private", "trade")
LISTED_TOPICS = ("option", "spread")
"""Endpoints that acknowledge topic by topic."""
SHORTEST_IDLE_S, LONGEST_IDLE_S = 30, 600
"""What `max_active_time` may be."""
_ACTIVE_TIME = re.compile(r"([0-9]{1,6})([sm])")
_DEPTHS = {"option": (25, 100), "spread": (25,), **dict.fromkeys(("spot", "linear", "inverse"), (1, 50, 200, 1000))}
_FAMILIES = {"linear": ("USDT", "USDC"), "inverse": ("inverse",)}
"""Insurance pools of a market's endpoint."""
_WHEN = {"status": "ts", "rfq": "creationTime"}
"""What pushed messages of an endpoint call their time."""
LOGIN_TEXTS = {
    0: "OK",
    10001: "Params Error",
    10003: "API key is invalid.",
    10004: "Invalid sign",
    20001: "Repeat auth",
    33004: "Your api key has expired.",
}
"""Of the order-entry server; the private one has the same text for every fault."""

_encode = msgspec.json.Encoder().encode


@attrs.define(eq=False)
class BybitDialect:
    """Everything public, `/v5/private` and `/v5/trade`."""

    floor: Floor
    toggles: Toggles
    accounts: tuple[SimulatedAccount, ...]
    limits: Limits
    name: str = "bybit"
    order_endpoint: str = "trade"
    trade: TradeSide = attrs.field(init=False)
    _private: PrivateSide = attrs.field(init=False)
    _signed: SignedRest = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._private = PrivateSide(self.floor, self.accounts)
        self.trade = TradeSide(self.floor, self.toggles, self.limits, self._private.account)
        protection = DisconnectionProtection(self.floor, self.toggles, self.trade.matching, self.accounts)
        self._signed = SignedRest(self.floor, self.accounts, protection)

    @property
    def tally(self) -> Tally:
        """The orders that it was asked for."""
        return self.trade.tally

    def endpoint(self, path: str) -> str | None:
        """`/v5/public/linear` is "linear"."""
        head, _, tail = path.rpartition("/")
        if (head == "/v5/public" and tail in MARKETS) or (head == "/v5" and tail in PRIVATE):
            return tail
        return ELSEWHERE.get(path)

    def idle(self, request: Request) -> float:
        """`max_active_time` of the private paths ("45s", "2m"), within the documented bounds."""
        wanted = request.query.get("max_active_time")
        if wanted is None or self.endpoint(request.path) not in PRIVATE:
            return self.limits.idle
        match = _ACTIVE_TIME.fullmatch(wanted)
        seconds = int(match[1]) * (60 if match[2] == "m" else 1) if match else 0
        if not SHORTEST_IDLE_S <= seconds <= LONGEST_IDLE_S:
            raise ValueError(f"max_active_time: {wanted!r} is not within {SHORTEST_IDLE_S}s and {LONGEST_IDLE_S}s")
        return seconds

    def connection_id(self, index: int, endpoint: str) -> str:
        """A UUID, the same one for the same index."""
        return str(uuid.UUID(int=(0xB1B17 << 96) + index, version=4))

    def receive(self, connection: Connection, text: str) -> None:
        """Answers one request."""
        try:
            request = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            request = None
        match request:
            case {"op": "ping"}:
                self._pong(connection, request)
            case {"op": "auth", "args": [str(key), int(expires), str(signature)]}:
                self._login(connection, request, key, expires, signature)
            case {"op": "subscribe" | "unsubscribe", "args": [*topics]} if connection.endpoint != "trade":
                self._order(connection, request, [str(topic) for topic in topics])
            case {"op": str(op)} if connection.endpoint == "trade" and op != "auth":
                self.trade.receive(connection, request)
            case {"op": str(op)}:
                self._answer(connection, request, op, "Params Error" if op == "auth" else f"error:unknown op {op}")
            case _:
                self._answer(connection, {}, "", "error:invalid request")

    def _pong(self, connection: Connection, request: dict[str, Any]) -> None:
        now = str(self.floor.clock.now_ms())
        head: dict[str, Any] = {"success": True, "ret_msg": "pong", "conn_id": connection.id}
        echo = {"req_id": request["req_id"]} if "req_id" in request else {}
        match connection.endpoint:
            case "spot":
                answer = {**head, **echo, "op": "ping"}
            case "option" | "spread":
                answer = {"args": [now], "op": "pong"}
            case "private":
                answer = {**echo, "op": "pong", "args": [now], "conn_id": connection.id}
            case "trade":
                answer = {"retCode": 0, "retMsg": "OK", "op": "pong", "data": [now], "connId": connection.id}
            case _:
                answer = {**head, "req_id": "", **echo, "op": "ping"}
        connection.send(_encode(answer))

    def _login(self, connection: Connection, request: dict[str, Any], key: str, expires: int, signature: str) -> None:
        code = self._private.login_problem(key, expires, signature) if connection.endpoint in PRIVATE else 10001
        if connection.endpoint == "trade" and connection.account is not None:
            code = 20001
        elif not code and self.toggles.refuses_login():
            code = 10004
        elif not code and connection.endpoint == "trade" and not self.trade.admits(connection, key):
            code = 10003
        if not code:
            connection.account = key
        if connection.endpoint == "trade":
            echo = {"reqId": request["reqId"]} if "reqId" in request else {}
            answer = {**echo, "retCode": code, "retMsg": LOGIN_TEXTS[code], "op": "auth", "connId": connection.id}
            self.toggles.acknowledge(connection, _encode(answer))
        else:
            self._answer(connection, request, "auth", "Params Error" if code else "")

    def _order(self, connection: Connection, request: dict[str, Any], names: list[str]) -> None:
        """Subscribe or unsubscribe: the whole request, or on options topic by topic."""
        subscribe = request["op"] == "subscribe"
        problems = self._problems(connection, names) if subscribe else {}
        if connection.endpoint in LISTED_TOPICS:
            good = [name for name in names if name not in problems]
            data = {"failTopics": list(problems), "successTopics": good}
            head = {"success": not problems, "conn_id": connection.id}
            self.toggles.acknowledge(connection, _encode({**head, "data": data, "type": "COMMAND_RESP"}))
        else:
            good = [] if problems else names
            self._answer(connection, request, request["op"], next(iter(problems.values()), ""))
        act = self.floor.subscribe if subscribe else self.floor.unsubscribe
        for name in dict.fromkeys(good):
            act(connection, self._key(connection, name))

    def _key(self, connection: Connection, name: str) -> str:
        if account := self._private.account(connection.account):
            return self._private.key(account, name)
        return f"{connection.endpoint}/{name}"

    def _problems(self, connection: Connection, names: list[str]) -> dict[str, str]:
        """Why a subscription is refused, by topic."""
        if connection.endpoint == "private":
            return self._private.problems(connection, names)
        characters = sum(len(topic) - len(connection.endpoint) + 2 for topic in connection.topics)
        characters += sum(len(name) + 3 for name in names)
        if connection.endpoint == "spot" and len(names) > ARGS_PER_SPOT_REQUEST:
            return dict.fromkeys(names, f"args size >{ARGS_PER_SPOT_REQUEST}")
        if characters > ARGS_CHARACTERS:
            return dict.fromkeys(names, f"error:args length exceeds {ARGS_CHARACTERS}")
        if connection.endpoint == "option" and len(connection.topics) + len(names) > ARGS_PER_OPTION_CONNECTION:
            return dict.fromkeys(names, f"args size >{ARGS_PER_OPTION_CONNECTION}")
        return {name: why for name in names if (why := self._problem(connection, name))}

    def _problem(self, connection: Connection, name: str) -> str:
        topic = f"{connection.endpoint}/{name}"
        if topic in connection.topics:
            return f"error:already subscribed,topic:{name}"
        return "" if self.floor.offers(topic) else f"error:handler not found,topic:{name}"

    def _answer(self, connection: Connection, request: dict[str, Any], op: str, problem: str) -> None:
        """An acknowledgement or error in the dialect of spot, of linear and inverse, or of private connections."""
        endpoint = connection.endpoint
        text = problem or ("subscribe" if endpoint == "spot" and op in ("subscribe", "unsubscribe") else "")
        answer: dict[str, Any] = {"success": not problem, "ret_msg": text, "conn_id": connection.id}
        if "req_id" in request or endpoint not in ("spot", *PRIVATE):
            answer["req_id"] = request.get("req_id", "")
        self.toggles.acknowledge(connection, _encode({**answer, "op": op}))

    def cut_idle(self, connection: Connection) -> None:
        """The venue documents neither code nor reason."""
        connection.close(1000)

    def cut_revoked(self, connection: Connection) -> None:
        """The venue documents neither code nor reason."""
        connection.close(1000)

    def cut_slow(self, connection: Connection) -> None:
        """What the venue does is not documented: the socket is cut."""
        connection.drop()

    def give_notice(self, connection: Connection) -> bool:
        """Interruptions are not announced."""
        return False

    def end_order_entry(self, connection: Connection) -> None:
        """New requests are refused, which is how a client learns of it."""
        connection.takes_no_orders = True

    def stream(self, topic: str) -> Stream | None:
        """The public topics; a key is "linear/orderbook.50.BTCUSDT"."""
        market, _, name = topic.partition("/")
        kind, _, rest = name.partition(".")
        if name in ON_DEMAND.get(market, ()):
            return SilentTopic(name)
        if market not in MARKETS:
            return None
        if kind == "publicTrade" and market == "option":
            engines = self._engines(each for each in self.floor.market.of(market) if each.base == rest)
            return TradeTopic(name, engines) if engines else None
        if kind in ("insurance", "adlAlert"):
            return self._pools(market, name, rest)
        parameter, _, symbol = rest.partition(".") if kind in ("orderbook", "kline") else ("", "", rest)
        listing = self.floor.market.find(market, symbol)
        return None if listing is None else _of_instrument(name, kind, parameter, self.floor.market.engine(listing))

    def _pools(self, market: str, name: str, of: str) -> Stream | None:
        if of not in _FAMILIES.get(market, ()):
            return None
        family = [each for each in self.floor.market.of(market) if of in (each.settle, "inverse")]
        engines = self._engines(family[:POOLS])
        return InsuranceTopic(name, engines) if name.startswith("insurance") else AdlTopic(name, engines)

    def _engines(self, listings: Iterable[Listing]) -> list[Engine]:
        return [self.floor.market.engine(each) for each in listings]

    def recorded_topic(self, message: dict[str, Any]) -> str | None:
        """Data messages have a topic."""
        topic = message.get("topic")
        return topic if isinstance(topic, str) else None

    def recorded_ms(self, message: dict[str, Any]) -> int | None:
        """The time of sending."""
        when = message.get("ts", message.get("creationTime"))
        return when if isinstance(when, int) else None

    def is_snapshot(self, message: dict[str, Any]) -> bool | None:
        """By `type`; trades and candles are called snapshots but stand alone."""
        if not str(message.get("topic")).startswith(("orderbook.", "tickers.")):
            return None
        return message.get("type") == "snapshot"

    def rest(self, request: Request) -> Response | None:
        """The market endpoints, and an account's own."""
        return bybit_rest.answer(self.floor, request) or self._signed.answer(request)

    def rest_bucket(self, request: Request) -> str:
        """One for everything."""
        return ""

    def rest_refusal(self) -> Response:
        """403 until the client has been quiet for a while."""
        return Response.json({"retCode": 10006, "retMsg": "access too frequent"}, 403)

    def relisted(self, listing: Listing, *, listed: bool) -> None:
        """There is no instrument stream: clients must poll."""

    def push(self, body: dict[str, Any]) -> int:
        """`{"topic": …, "data": …}`; the time is added where the topic has one and `body` has not."""
        name = body.get("topic")
        if not isinstance(name, str):
            raise ValueError(f"topic: {name!r} is not a text")
        if "data" not in body:
            raise ValueError("data: missing")
        keys = [key for key in self.floor.endpoints_of(name) if not key.startswith("private:")]
        for key in keys:
            when = _WHEN.get(key.partition("/")[0], "")
            time = {when: self.floor.clock.now_ms()} if when else {}
            self.floor.publish(key, [_encode({**time, **body})])
        return sum(len(self.floor.subscribers.get(key, ())) for key in keys)

    def push_private(self, account: SimulatedAccount, body: dict[str, Any]) -> int:
        """`{"topic": …, "data": […]}`; the rest of the envelope is added where `body` has not got it."""
        return self._private.push(account, body)


def _of_instrument(name: str, kind: str, parameter: str, engine: Engine) -> Stream | None:
    """The topic of one instrument; None if its market has no such topic."""
    market, engines = engine.listing.market, [engine]
    has_contracts, is_plain = market in CONTRACTS, market in ("spot", *CONTRACTS)
    match kind:
        case "orderbook" if parameter == "rpi" and is_plain:
            return BookTopic(name, engines, 50, rpi=True)
        case "orderbook" if parameter == "full" and is_plain:
            return FullBookTopic(name, engines)
        case "orderbook" if parameter in map(str, _DEPTHS[market]):
            return BookTopic(name, engines, int(parameter))
        case "publicTrade":
            return TradeTopic(name, engines)
        case "tickers":
            return TickerTopic(name, engines)
        case "kline" if parameter in INTERVALS_MS and is_plain:
            return KlineTopic(name, engines, parameter)
        case "allLiquidation" if has_contracts:
            return LiquidationTopic(name, engines)
        case "priceLimit" if is_plain:
            return LimitTopic(name, engines)
    return None
