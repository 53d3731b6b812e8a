"""`python -m pipeline order`: give one order command by hand and watch what becomes of it.

The command is a record like any other: what is refused here would be refused by the service too, and what the service
refuses is told as its result. Nothing here talks to the venue but for what a person is shown before real money moves.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from math import inf
from random import random
from typing import TextIO
from uuid import uuid4

import attrs
import trio

from pipeline.avro.decoder import record_to_json
from pipeline.config import Config
from pipeline.config_reader import suggestion
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Venue
from pipeline.feeds.catalogue import read_market
from pipeline.feeds.intake import open_rest
from pipeline.feeds.plan import hosts
from pipeline.feeds.settings import VenueSettings
from pipeline.model.errors import BadMessage, ConfigError, SessionError
from pipeline.model.events import Instrument
from pipeline.model.header import Micros
from pipeline.model.orders import ACTIONS, AMEND, CANCEL, CANCEL_ALL, CREATE, MASS_CANCEL, OrderCommand, OrderItem
from pipeline.order_watch import Watch, line
from pipeline.orders.commands import MalformedCommand, encode_command, read_command
from pipeline.orders.guards import quote_value
from pipeline.orders.identity import identified
from pipeline.orders.settings import AccountOrderSettings
from pipeline.session.clock import Clock, system_clock
from pipeline.sink.reader import Received, open_reader
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.single import write_record
from pipeline.sink.topics import command_topic

ACKNOWLEDGED, REJECTED, UNKNOWN, INTERRUPTED = 0, 1, 3, 130
"""Exit codes."""

WATCHED = ("order_result", "order", "fill")
VALID_FOR = 10.0
"""Seconds."""
TIMEOUT = 30.0
"""Seconds."""
ASK_WITHIN = 10.0
"""Seconds for what the venue is asked before a person is."""
_PRACTICE = frozenset({"demo", "testnet"})
_SUMMARIES = {
    "create": "a new order",
    "amend": "another price or size of an open order",
    "cancel": "cancel one order",
    "cancel-all": "cancel all open orders, of one market or instrument if that is said",
    "mass-cancel": "the venue's own cancellation of a whole family (OKX options)",
    "kill": "refuse new orders from now on and cancel the open ones",
    "resume": "take new orders again",
}


@attrs.frozen
class Target:
    """The account that a command is for."""

    venue: str
    account: str
    settings: AccountOrderSettings
    venue_settings: VenueSettings

    @property
    def name(self) -> str:
        """As `--account` names it."""
        return f"{self.venue}.{self.account}"

    @property
    def environment(self) -> str:
        """Of the venue."""
        return self.venue_settings.environment or next(iter(VENUES[self.venue].environments))

    @property
    def place(self) -> str:
        """Where the orders go."""
        base = hosts(VENUES[self.venue], self.venue_settings)
        return f"{self.venue} at {base.private_websocket or base.websocket}"

    @property
    def is_production(self) -> bool:
        """Whether real money moves, as far as the environment's name tells: in doubt it does."""
        return _PRACTICE.isdisjoint(self.environment.split("-"))


def add_arguments(parser: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """The actions with their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in _SUMMARIES.items():
        action = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        add_config(action)
        _add_common(action)
        if name in ("create", "amend", "cancel"):
            _add_order(action, name)
        elif name in ("cancel-all", "mass-cancel"):
            action.add_argument("--market", help="only this market")
            action.add_argument("--instrument", help="only this instrument; of mass-cancel the family")


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--account", required=True, metavar="VENUE.NAME", help="as under orders.accounts")
    add("--reason", help="why, for people: kept in logs and results")
    add("--command-id", metavar="ID", help="by default a new one; the same one again is never obeyed twice")
    add("--valid-for", type=float, default=VALID_FOR, metavar="S", help="never send it later (default: %(default)g)")
    add(
        "--timeout", type=float, default=TIMEOUT, metavar="S", help="wait so long for the result (default: %(default)g)"
    )
    add("--follow", action="store_true", help="go on until the orders are closed")
    add("--json", action="store_true", help="print JSON lines")
    add("--yes", action="store_true", help="do not ask, whatever the environment")
    add("--dry-run", action="store_true", help="print the command as JSON, and send nothing")


def _add_order(parser: argparse.ArgumentParser, action: str) -> None:
    add = parser.add_argument
    add("--market", required=True, help="spot, linear, swap, …")
    add("--instrument", required=True, help="the venue's symbol")
    add("--client-order-id", metavar="ID", help="by default derived from the command" if action == CREATE else None)
    add("--extra", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the venue; may be repeated")
    if action != CREATE:
        add("--order-id", metavar="ID", help="the venue's")
    if action != CANCEL:
        add("--price", help="of a limit order" if action == CREATE else "the new one")
        add(
            "--size",
            required=action == CREATE,
            help=None if action == CREATE else "the new one, what is filled included",
        )
        add("--trigger-price", metavar="PRICE")
    if action == CREATE:
        add("--side", required=True, choices=("buy", "sell"))
        add("--type", choices=("limit", "market"), default="limit", help="(default: %(default)s)")
        add("--time-in-force", choices=("gtc", "ioc", "fok"))
        add("--size-unit", choices=("base", "quote", "contract"), help="by default the instrument's own")
        add("--post-only", action="store_true", help="be refused instead of taking")
        add("--reduce-only", action="store_true", help="never open or enlarge a position")
        add("--position-side", choices=("long", "short"), help="in hedge mode")
        add("--margin-mode", choices=("cash", "cross", "isolated", "spot_isolated"), help="OKX")


def run(
    arguments: argparse.Namespace,
    config: Config,
    *,
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
    clock: Clock = system_clock,
) -> int:
    """Give the command and follow it; returns the exit code.

    Raises `ConfigError` for what is no command or must not be given like this, `SinkFailed` or `Refused` for what
    keeps it from Kafka.
    """
    target = find_target(config, arguments.account)
    command = make_command(arguments, target, clock())
    if arguments.dry_run:
        stdout.write(json.dumps(attrs.asdict(command), indent=2) + "\n")
        return ACKNOWLEDGED
    if target.is_production and not arguments.yes:
        if not stdin.isatty():
            raise ConfigError([f"{target.place} is production and there is no terminal to ask at: say --yes"])
        if not _is_confirmed(command, target, stdin, stderr):
            stderr.write("nothing was sent\n")
            return REJECTED
        command = make_command(arguments, target, clock())  # its time runs from the answer
    watch = Watch(command)
    told = partial(_tell, stdout, as_json=arguments.json)
    return trio.run(partial(_give, command, target, config.kafka, watch, told, arguments, stderr))


def find_target(config: Config, name: str) -> Target:
    """The account of this name that takes orders. Raises `ConfigError`."""
    accounts = {f"{venue}.{each}": (venue, each) for venue, of in config.orders.accounts.items() for each in of}
    if name not in accounts:
        known = suggestion(name, accounts) if accounts else "none has any under orders.accounts"
        raise ConfigError([f'--account: no order entry for "{name}"; {known}'])
    venue, account = accounts[name]
    return Target(venue, account, config.orders.accounts[venue][account], config.venues[venue])


def make_command(arguments: argparse.Namespace, target: Target, now: int) -> OrderCommand:
    """What the arguments ask for, with a command id and client order ids. Raises `ConfigError`."""
    action = arguments.action.replace("-", "_")
    assert action in ACTIONS
    if not 0 < arguments.valid_for < inf:
        raise ConfigError(["--valid-for: must be above 0"])
    of_scope = action in (CANCEL_ALL, MASS_CANCEL)
    command = OrderCommand(
        command_id=arguments.command_id or uuid4().hex,
        venue=target.venue,
        account=target.account,
        action=action,
        issued_at=Micros(now),
        not_after=Micros(now + round(arguments.valid_for * 1e6)),
        items=(_item(arguments),) if action in (CREATE, AMEND, CANCEL) else (),
        market=arguments.market if of_scope else None,
        instrument=arguments.instrument if of_scope else None,
        reason=arguments.reason,
    )
    arguments.command_id = command.command_id
    try:
        return identified(read_command(attrs.asdict(command)))
    except MalformedCommand as error:
        raise ConfigError([str(error).removeprefix("items[0].")]) from None


def _item(arguments: argparse.Namespace) -> OrderItem:
    names = attrs.fields_dict(OrderItem)
    given = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    if arguments.action == CREATE:
        given |= {
            "order_type": arguments.type,
            "is_post_only": arguments.post_only,
            "is_reduce_only": arguments.reduce_only,
        }
    return OrderItem(**given, extras=dict(_extra(text) for text in arguments.extra))


def _extra(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError([f'--extra: "{text}" is not NAME=VALUE'])
    return name, value


# Asking a person.


def _is_confirmed(command: OrderCommand, target: Target, stdin: TextIO, stderr: TextIO) -> bool:
    stderr.writelines(f"{text}\n" for text in trio.run(in_words, command, target))
    word = command.items[0].instrument if command.items else target.name
    stderr.write(f'Type "{word}" to send it: ')
    stderr.flush()
    return stdin.readline().strip() == word


async def in_words(command: OrderCommand, target: Target) -> list[str]:
    """The command for a person to read, with what the venue tells about it. Raises `ConfigError` for no instrument."""
    lines = [f"{target.place}, account {target.account}: PRODUCTION"]
    if not command.items:
        scope = " ".join(filter(None, (command.market, command.instrument))) or "the whole account"
        return [*lines, f"  {command.action.replace('_', ' ')}: {scope}"]
    (item,) = command.items
    what = f"{item.market} {item.instrument}"
    meant = item.client_order_id or item.order_id
    size = " ".join(filter(None, (item.size, item.size_unit)))
    if command.action == CREATE:
        at = f"at {item.price}" if item.price is not None else "AT ANY PRICE (market order)"
        flags = [each for each in ("is_post_only", "is_reduce_only") if getattr(item, each)]
        names = ("time_in_force", "trigger_price", "position_side", "margin_mode")
        more = [f"{name} {value}" for name in names if (value := getattr(item, name)) is not None]
        lines.append(f"  {item.side} {size} {what} {at}{''.join(f', {each}' for each in (*flags, *more))}")
    else:
        changes = [f"{name} {value}" for name in ("price", "size", "trigger_price") if (value := getattr(item, name))]
        lines.append(f"  {command.action} order {meant} of {what}{': ' if changes else ''}{', '.join(changes)}")
    lines.extend(f"  {name}={value}" for name, value in item.extras.items())
    if item.size is not None:
        lines.append(f"  {await _value(item, target)}")
    return lines


async def _value(item: OrderItem, target: Target) -> str:
    venue = VENUES[target.venue]
    try:
        with trio.fail_after(ASK_WITHIN):
            async with open_rest(venue, target.venue_settings, random, system_clock) as rest:
                listed = await read_market(venue, item.market, rest.get_json_bytes, system_clock)
                instrument = _listed(listed, item, venue)
                price, what = item.price, "limit price"
                if price is None and venue.trading is not None:
                    price, what = await rest.walk(venue.trading.reference_price(instrument)), "present price"
    except (SessionError, BadMessage, trio.TooSlowError) as error:
        return f"value: not known, the venue did not tell ({str(error) or 'no answer in time'})"
    if price is None:
        return "value: not known, the venue tells no price now"
    assert item.size is not None
    value = quote_value(Decimal(item.size), item.size_unit or instrument.size_unit, Decimal(price), instrument)
    if value is None:
        return "value: not known, the venue tells no contract value"
    return f"value: {value:f} {instrument.quote or ''} at the {what} of {price}".replace("  ", " ")


def _listed(listed: list[Instrument], item: OrderItem, venue: Venue) -> Instrument:
    known = {str(each.origin.instrument): each for each in listed}
    if item.instrument not in known:
        text = f'{venue.name} {item.market} has no "{item.instrument}"; {suggestion(item.instrument, known)}'
        raise ConfigError([f"--instrument: {text}"])
    return known[item.instrument]


# Giving and following.


async def _give(
    command: OrderCommand,
    target: Target,
    settings: KafkaSettings,
    watch: Watch,
    told: Callable[[Received], None],
    arguments: argparse.Namespace,
    stderr: TextIO,
) -> int:
    topic = target.settings.command_topic or command_topic(settings, target.venue, target.account)
    value, key = encode_command(command), target.name.encode()
    is_interrupted = False
    with trio.CancelScope(deadline=trio.current_time() + arguments.timeout) as scope:

        async def until_signal(*, task_status: trio.TaskStatus[None]) -> None:
            nonlocal is_interrupted
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    is_interrupted = True
                    scope.cancel()

        async with trio.open_nursery() as nursery:
            await nursery.start(until_signal)
            async with open_reader(settings, WATCHED) as records:
                write = partial(write_record, settings, topic, key, value, command.issued_at // 1000, arguments.timeout)
                is_in = await trio.to_thread.run_sync(write, abandon_on_cancel=True)
                stderr.write(f"command {command.command_id} {'is' if is_in else 'may be'} in {topic}\n")
                stderr.flush()
                async for record in records:
                    if watch.take(record):
                        told(record)
                    if watch.is_final:
                        scope.deadline = inf
                    if watch.is_closed if arguments.follow else watch.is_final:
                        break
            nursery.cancel_scope.cancel()
    if watch.is_final:
        return ACKNOWLEDGED if watch.is_acknowledged else REJECTED
    until = datetime.fromtimestamp(command.not_after / 1e6, UTC)
    stderr.write(
        f"no final result yet. It may be sent until {until:%H:%M:%S} UTC, and its result will come: "
        f"look for {command.command_id} with `tail --event order_result --from-beginning`\n"
    )
    return INTERRUPTED if is_interrupted else UNKNOWN


def _tell(stdout: TextIO, record: Received, *, as_json: bool) -> None:
    fields = record_to_json(record.kind, record.fields)
    stdout.write((json.dumps(fields, ensure_ascii=False) if as_json else line(fields)) + "\n")
    stdout.flush()
