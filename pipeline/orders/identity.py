"""The client order id of an order that was given none: the same whoever works it out, and however often."""

from __future__ import annotations

from hashlib import sha256

import attrs

from pipeline.model.orders import CREATE, OrderCommand

DIGITS = 30
"""Both venues take digits; OKX shows a client order id in its `fills` channel only if it is made of them."""
_LOWEST = 10 ** (DIGITS - 1)


def client_order_id(command_id: str, item: int) -> str:
    """`DIGITS` decimal digits, the first one not 0, for the item at this position of a command."""
    digest = sha256(f"{command_id}/{item}".encode()).digest()
    return str(_LOWEST + int.from_bytes(digest, "big") % (9 * _LOWEST))


def identified(command: OrderCommand) -> OrderCommand:
    """The command with a client order id on every order that it creates."""
    if command.action != CREATE:
        return command
    items = (
        item
        if item.client_order_id is not None
        else attrs.evolve(item, client_order_id=client_order_id(command.command_id, position))
        for position, item in enumerate(command.items)
    )
    return attrs.evolve(command, items=tuple(items))
