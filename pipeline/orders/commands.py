"""Commands from records and back: what is no command is refused with the field's name, whatever the venue would say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from io import BytesIO
from typing import Any, TypeVar, cast

import attrs
from fastavro import parse_schema, schemaless_writer

from pipeline.avro.schemas import ORDER_COMMAND, Schema, load_schema, single_object_header
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.errors import BadMessage
from pipeline.model.header import BASE, CONTRACT, QUOTE, Micros
from pipeline.model.orders import (
    ACTIONS,
    AMEND,
    CANCEL_ALL,
    CREATE,
    ITEM_ACTIONS,
    MASS_CANCEL,
    MAX_ITEMS,
    OrderCommand,
    OrderItem,
)

T = TypeVar("T")

MAX_ID = 64
"""Characters of a command id."""
MAX_CLIENT_ORDER_ID = 36
"""Characters; the venue may take fewer."""
MAX_TEXT = 256
"""Characters of any other text."""
MAX_NUMBER = 40
"""Characters of a price or size."""
MAX_EXTRAS = 32

_SIDES = ("buy", "sell")
_TYPES = ("limit", "market")
_TIMES_IN_FORCE = ("gtc", "ioc", "fok")
_UNITS = (BASE, QUOTE, CONTRACT)
_POSITION_SIDES = ("long", "short")
_MARGIN_MODES = ("cash", "cross", "isolated", "spot_isolated")
_OF_NEW_ORDERS = (
    "side",
    "order_type",
    "time_in_force",
    "size_unit",
    "is_post_only",
    "is_reduce_only",
    "position_side",
    "margin_mode",
)
"""What an order is born with: amendments and cancellations do not change it."""
_CHANGES = ("price", "size", "trigger_price")
_YEAR_10000 = 253_402_300_800_000_000
"""In microseconds: what is later was meant in nanoseconds."""


class MalformedCommand(BadMessage):
    """A record that is no command; the text names the field."""

    def __init__(self, text: str, command_id: str | None) -> None:
        super().__init__(text)
        self.command_id = command_id
        """None if not even that can be read."""


def encode_command(command: OrderCommand, header: bytes | None = None) -> bytes:
    """The command as a record's value; without a header that of the single-object encoding is written.

    Raises `ValueError` for what no record can hold.
    """
    schema, own_header = _schema()
    stream = BytesIO()
    stream.write(own_header if header is None else header)
    try:
        schemaless_writer(stream, schema, attrs.asdict(command))
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"no record can hold this command: {error}") from None
    return stream.getvalue()


def read_command(fields: Mapping[str, Any]) -> OrderCommand:
    """The command that a decoded record tells. Raises `MalformedCommand`."""
    command_id = None
    try:
        command_id = _needed(fields, "command_id", partial(_text, longest=MAX_ID))
        command = OrderCommand(
            command_id=command_id,
            venue=_needed(fields, "venue", _text),
            account=_needed(fields, "account", _text),
            action=_needed(fields, "action", _one_of(ACTIONS)),
            issued_at=_time(fields, "issued_at"),
            not_after=_time(fields, "not_after"),
            items=_items(fields),
            market=_text(fields, "market"),
            instrument=_text(fields, "instrument"),
            reason=_text(fields, "reason"),
        )
        _check(command)
    except BadMessage as error:
        raise MalformedCommand(str(error), command_id) from None
    return command


@cache
def _schema() -> tuple[Schema, bytes]:
    schema = load_schema(ORDER_COMMAND)
    return cast("Schema", parse_schema(schema)), single_object_header(schema)


def _items(fields: Mapping[str, Any]) -> tuple[OrderItem, ...]:
    found = fields.get("items", ())
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        raise BadMessage(f"items: expected a list, got {_shown(found)}")
    if len(found) > MAX_ITEMS:
        raise BadMessage(f"items: {len(found)} are too many, at most {MAX_ITEMS} go into one command")
    for position, item in enumerate(found):
        if not isinstance(item, Mapping):
            raise BadMessage(f"items[{position}]: expected a record, got {_shown(item)}")
    return tuple(_at(f"items[{position}]", _item, item) for position, item in enumerate(found))


def _item(fields: Mapping[str, Any]) -> OrderItem:
    return OrderItem(
        market=_needed(fields, "market", _text),
        instrument=_needed(fields, "instrument", _text),
        client_order_id=_text(fields, "client_order_id", MAX_CLIENT_ORDER_ID),
        order_id=_text(fields, "order_id"),
        side=_one_of(_SIDES)(fields, "side"),
        order_type=_one_of(_TYPES)(fields, "order_type"),
        time_in_force=_one_of(_TIMES_IN_FORCE)(fields, "time_in_force"),
        price=_number(fields, "price"),
        size=_number(fields, "size"),
        size_unit=_one_of(_UNITS)(fields, "size_unit"),
        is_post_only=_flag(fields, "is_post_only"),
        is_reduce_only=_flag(fields, "is_reduce_only"),
        position_side=_one_of(_POSITION_SIDES)(fields, "position_side"),
        margin_mode=_one_of(_MARGIN_MODES)(fields, "margin_mode"),
        trigger_price=_number(fields, "trigger_price"),
        extras=_extras(fields),
    )


def _check(command: OrderCommand) -> None:
    """Raise `BadMessage` for parts that contradict each other."""
    if command.not_after < command.issued_at:
        raise BadMessage(f"not_after: {command.not_after} is before issued_at, which is {command.issued_at}")
    if command.action in ITEM_ACTIONS:
        _check_items(command)
    elif command.items:
        raise BadMessage(f"items: {command.action} takes none")
    elif command.action == CANCEL_ALL:
        if command.instrument is not None and command.market is None:
            raise BadMessage("market: is missing beside instrument")
    elif command.action == MASS_CANCEL:
        for name in ("market", "instrument"):
            if getattr(command, name) is None:
                raise BadMessage(f"{name}: is missing, mass_cancel needs it")
    else:
        _refuse_scope(command, f"{command.action} concerns the whole account")


def _refuse_scope(command: OrderCommand, why: str) -> None:
    for name in ("market", "instrument"):
        if getattr(command, name) is not None:
            raise BadMessage(f"{name}: {why}")


def _check_items(command: OrderCommand) -> None:
    items = command.items
    if not items:
        raise BadMessage(f"items: {command.action} needs at least one")
    _refuse_scope(command, f"belongs to the items of {command.action}")
    check = _check_new if command.action == CREATE else _check_known
    for position, item in enumerate(items):
        _at(f"items[{position}]", lambda item: check(command.action, item), item)
        if item.market != items[0].market:
            raise BadMessage(f"items[{position}].market: {item.market} beside {items[0].market}, it must be one market")
    seen: dict[tuple[str, str], int] = {}
    for position, item in enumerate(items):
        for name in ("client_order_id", "order_id"):
            value = getattr(item, name)
            if value is not None and seen.setdefault((name, value), position) != position:
                raise BadMessage(f"items[{position}].{name}: {value} is that of items[{seen[name, value]}] too")


def _check_new(action: str, item: OrderItem) -> None:
    for name in ("side", "order_type", "size"):
        if getattr(item, name) is None:
            raise BadMessage(f"{name}: is missing, {action} needs it")
    if item.order_id is not None:
        raise BadMessage(f"order_id: the venue gives it, {action} cannot")
    if item.order_type == "limit":
        if item.price is None:
            raise BadMessage("price: is missing, a limit order needs it")
        if item.size_unit == QUOTE:
            raise BadMessage("size_unit: quote is for market orders only")
    elif item.price is not None:
        raise BadMessage("price: a market order has none")
    if item.is_post_only and (item.order_type == "market" or item.time_in_force in ("ioc", "fok")):
        raise BadMessage("is_post_only: contradicts an order that takes at once or not at all")


def _check_known(action: str, item: OrderItem) -> None:
    if item.client_order_id is None and item.order_id is None:
        raise BadMessage(f"client_order_id: is missing, and order_id too: {action} needs one of them")
    if item.client_order_id is not None and item.order_id is not None:
        raise BadMessage("order_id: is given beside client_order_id, and they may name two orders: give one of them")
    for name in _OF_NEW_ORDERS:
        if getattr(item, name) not in (None, False):
            raise BadMessage(f"{name}: {action} does not change it")
    changes = [name for name in _CHANGES if getattr(item, name) is not None]
    if action != AMEND and changes:
        raise BadMessage(f"{changes[0]}: {action} does not change it")
    if action == AMEND and not changes and not item.extras:
        raise BadMessage("price: is missing, and size and trigger_price too: amend without a change")


def _at(path: str, work: Callable[[Any], T], value: object) -> T:
    try:
        return work(value)
    except BadMessage as error:
        raise BadMessage(f"{path}.{error}") from None


def _needed(fields: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any], str], str | None]) -> str:
    value = read(fields, name)
    if value is None:
        raise BadMessage(f"{name}: is missing")
    return value


def _text(fields: Mapping[str, Any], name: str, longest: int = MAX_TEXT) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadMessage(f"{name}: expected text, got {_shown(value)}")
    if not value:
        raise BadMessage(f"{name}: is empty")
    if len(value) > longest:
        raise BadMessage(f"{name}: {len(value)} characters are too many, at most {longest}")
    if not value.isprintable():
        raise BadMessage(f"{name}: {_shown(value)} has characters that cannot be printed")
    return value


def _one_of(known: Sequence[str]) -> Callable[[Mapping[str, Any], str], str | None]:
    def read(fields: Mapping[str, Any], name: str) -> str | None:
        value = _text(fields, name)
        if value is not None and value not in known:
            raise BadMessage(f"{name}: {_shown(value)} is none of {', '.join(known)}")
        return value

    return read


def _number(fields: Mapping[str, Any], name: str) -> DecimalText | None:
    value = _text(fields, name, MAX_NUMBER)
    if value is None:
        return None
    if not is_decimal(value) or "e" in value.lower():  # what venues do not take
        raise BadMessage(f"{name}: {_shown(value)} is no decimal number")
    if Decimal(value) <= 0:
        raise BadMessage(f"{name}: {value} is not above 0")
    return DecimalText(value)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise BadMessage(f"{name}: expected true or false, got {_shown(value)}")
    return value


def _time(fields: Mapping[str, Any], name: str) -> Micros:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadMessage(f"{name}: expected microseconds since 1970, got {_shown(value)}")
    if value <= 0:
        raise BadMessage(f"{name}: {value} is not after 1970")
    if value >= _YEAR_10000:
        raise BadMessage(f"{name}: {value} is after the year 9999: expected microseconds since 1970")
    return Micros(value)


def _extras(fields: Mapping[str, Any]) -> dict[str, str]:
    found = fields.get("extras", {})
    if not isinstance(found, Mapping):
        raise BadMessage(f"extras: expected a map, got {_shown(found)}")
    if len(found) > MAX_EXTRAS:
        raise BadMessage(f"extras: {len(found)} are too many, at most {MAX_EXTRAS}")
    for name in found:
        if len(name) > MAX_ID or not name.isidentifier():
            raise BadMessage(f"extras: {_shown(name)} is no parameter's name")
    return {name: _at("extras", lambda name: _needed(found, name, _text), name) for name in found}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
