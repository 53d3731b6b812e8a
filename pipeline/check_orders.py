"""What `check` tells of order entry: for whom, what may be ordered, and what has to be there for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipeline.config import Config
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Venue
from pipeline.feeds.plan import hosts
from pipeline.feeds.settings import VenueSettings
from pipeline.feeds.specs import session_times
from pipeline.model.orders import OrderResult
from pipeline.orders.settings import AccountOrderSettings
from pipeline.sink.topics import command_topic, topic_name


def described(config: Config) -> dict[str, Any] | None:
    """Ready for JSON; None if no orders are taken. Nothing is contacted."""
    orders = config.orders
    accounts = [
        _account(config, VENUES[name], account, settings)
        for name, accounts in orders.accounts.items()
        for account, settings in accounts.items()
    ]
    if not accounts:
        return None
    return {
        "directory": orders.directory,
        "kill_file": orders.kill_file,
        "group": orders.group,
        "remembered": orders.remembered,
        "result_topic": topic_name(config.kafka, OrderResult.KIND),
        "accounts": accounts,
    }


def _account(config: Config, venue: Venue, account: str, settings: AccountOrderSettings) -> dict[str, Any]:
    venue_settings = config.venues[venue.name]
    return {
        "account": f"{venue.name}.{account}",
        "environment": venue_settings.environment or next(iter(venue.environments)),
        "url": _url(venue, venue_settings),
        "command_topic": settings.command_topic or command_topic(config.kafka, venue.name, account),
        "group": f"{config.orders.group}.{venue.name}.{account}",
        "instruments": {market: list(patterns) for market, patterns in settings.instruments.items()},
        "max_order_value": settings.max_order_value,
        "price_band": settings.price_band,
        "max_open_orders": settings.max_open_orders,
        "max_age": settings.max_age,
        "rate_wait": settings.rate_wait,
        "answer_within": settings.answer_within,
        "not_arrived_after": settings.not_arrived_after,
        "price_age": settings.price_age,
        "cancel_on_disconnect": settings.cancel_on_disconnect,
    }


def _url(venue: Venue, settings: VenueSettings) -> str:
    assert venue.trading is not None
    base = hosts(venue, settings)
    times = session_times(venue.session_times, settings)
    return (base.private_websocket or base.websocket) + venue.path(venue.trading.endpoint, times)


def tried(orders: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """What of the machine is asked, and changed by nobody: subject, whether it will do, and what was found."""
    folder = Path(orders["directory"])
    yield f"ledgers in {folder}", *_folder(folder)
    if orders["kill_file"] is not None:
        yield f"kill file {orders['kill_file']}", *_kill_file(Path(orders["kill_file"]))


def _folder(folder: Path) -> tuple[bool, str]:
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    except OSError as error:
        return False, str(error.strerror)
    if not there.is_dir():
        return False, f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return False, f"{there} cannot be written by us"
    return True, "can be written" if there == folder else f"will be created in {there}"


def _kill_file(file: Path) -> tuple[bool, str]:
    try:
        file.stat()
    except FileNotFoundError:
        return True, "is not there"
    except OSError as error:
        return False, f"cannot be looked at, so that no account takes orders: {error.strerror}"
    return True, "is there: no account takes orders"


def text(orders: Mapping[str, Any]) -> Iterator[str]:
    """The same for people, with markup."""
    kill_file = f", kill file {orders['kill_file']}" if orders["kill_file"] is not None else ""
    yield f"[bold]orders[/]  ledgers in {escape(orders['directory'])}{escape(kill_file)}"
    for account in orders["accounts"]:
        yield f"  [cyan]{escape(account['account'])}[/] ({account['environment']})  {account['url']}"
        yield f"    commands from {escape(account['command_topic'])}, results to {escape(orders['result_topic'])}"
        for market, patterns in account["instruments"].items():
            yield f"    may order in {market}: {escape(', '.join(patterns))}"
        yield (
            f"    at most {account['max_order_value']} in quote currency an order, {account['max_open_orders']} open"
            f" orders, prices within {_per_cent(account['price_band'])} of the mark price"
        )
        yield f"    {_when_gone(account['cancel_on_disconnect'])}"


def _per_cent(fraction: str) -> str:
    return f"{(Decimal(fraction) * 100).normalize():f} %"


def _when_gone(seconds: float | None) -> str:
    if seconds is None:
        return "open orders stay when we are gone: no cancel_on_disconnect"
    return f"open orders are cancelled by the venue when we are gone for {seconds:g} s"
