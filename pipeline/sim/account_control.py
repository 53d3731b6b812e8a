"""Acting for an account over HTTP: the requests below `/sim/`, each a struct that is read from JSON and applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pipeline.sim.accounts import SimulatedAccount

if TYPE_CHECKING:
    from pipeline.sim.venue import SimulatedVenue

FILLS_SHOWN = 1000

T = TypeVar("T", bound=msgspec.Struct)


class Act(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Anything done to one account. Prices, sizes and rates are texts."""

    account: str | None = None
    """Its name; may be left out where there is only one."""

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """Do it; what to answer. Raises `ValueError` naming the field."""
        raise NotImplementedError


class PlaceOrder(Act):
    """A new order; it rests until it is filled or ended."""

    market: str
    symbol: str
    side: str
    size: str
    price: str | None = None
    client_order_id: str = ""
    reduce_only: bool = False
    order_type: str = "limit"
    time_in_force: str = "GTC"

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """Its identifier."""
        order_id = account.place(
            self.market, self.symbol, self.side, self.price, self.size, client_order_id=self.client_order_id,
            reduce_only=self.reduce_only, order_type=self.order_type, time_in_force=self.time_in_force,
        )  # fmt: skip
        return {"order_id": order_id}


class AmendOrder(Act):
    """Another price or size of an open order."""

    order_id: str
    price: str | None = None
    size: str | None = None

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """The order again."""
        account.amend(self.order_id, price=self.price, size=self.size)
        return {"order_id": self.order_id}


class FillOrder(Act):
    """All or a part of an open order is traded."""

    order_id: str
    size: str | None = None
    price: str | None = None
    maker: bool = True

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """The fill's identifier."""
        return {"fill_id": account.fill(self.order_id, self.size, self.price, maker=self.maker)}


class EndOrder(Act):
    """An open order ends; the venue's word for the reason may be given."""

    order_id: str
    reason: str = ""


class CancelOrder(EndOrder):
    """By its owner or the venue."""

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """The order again."""
        account.cancel(self.order_id, self.reason)
        return {"order_id": self.order_id}


class RejectOrder(EndOrder):
    """By the venue, after all."""

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """The order again."""
        account.reject(self.order_id, self.reason)
        return {"order_id": self.order_id}


class ExpireOrder(EndOrder):
    """By time."""

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """The order again."""
        account.expire(self.order_id, self.reason)
        return {"order_id": self.order_id}


class Deposit(Act):
    """Money comes, or with a negative amount goes."""

    coin: str
    amount: str

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """What there is then."""
        account.deposit(self.coin, self.amount)
        return {"total": account.balance(self.coin).total}


class Funding(Act):
    """A perpetual's funding is booked."""

    market: str
    symbol: str
    rate: str

    def apply(self, account: SimulatedAccount) -> dict[str, Any]:
        """The booking's identifier."""
        return {"fill_id": account.fund(self.market, self.symbol, self.rate)}


class Revoke(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The account's key is no longer good."""

    account: str | None = None
    expired: bool = False
    drop: bool = False


ACTS: Mapping[str, type[Act]] = {
    "/sim/order": PlaceOrder,
    "/sim/amend": AmendOrder,
    "/sim/fill": FillOrder,
    "/sim/cancel": CancelOrder,
    "/sim/reject": RejectOrder,
    "/sim/expire": ExpireOrder,
    "/sim/deposit": Deposit,
    "/sim/funding": Funding,
}


def act(venue: SimulatedVenue, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Carry out a POST to a path of `ACTS`. Raises `ValueError` naming the field."""
    request = _read(body, ACTS[path])
    return request.apply(account_named(venue, request.account))


def revoke(venue: SimulatedVenue, body: dict[str, Any]) -> dict[str, Any]:
    """How many connections that ended. Raises `ValueError` naming the field."""
    request = _read(body, Revoke)
    account = account_named(venue, request.account)
    return {"hit": venue.revoke(account.name, expired=request.expired, drop=request.drop)}


def push_private(venue: SimulatedVenue, body: dict[str, Any]) -> dict[str, Any]:
    """How many connections got it. Raises `ValueError` naming the field."""
    account = account_named(venue, body.pop("account", None))
    return {"hit": venue.dialect.push_private(account, body)}


def account_named(venue: SimulatedVenue, name: object) -> SimulatedAccount:
    """An account by its name, the only one without a name. Raises `ValueError` if there is none."""
    if name is None and len(venue.accounts) == 1:
        return next(iter(venue.accounts.values()))
    found = venue.accounts.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"account: {name!r} is not one of {', '.join(venue.accounts) or 'none'}")
    return found


def state(account: SimulatedAccount) -> dict[str, Any]:
    """Everything of an account, oldest first; of the fills the last `FILLS_SHOWN`."""
    return {
        "account": account.name,
        "revoked": account.revoked,
        "orders": list(account.orders.values()),
        "fills": list(account.fills)[-FILLS_SHOWN:],
        "positions": list(account.positions.values()),
        "balances": list(account.balances.values()),
    }


def _read(body: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
