"""What Bybit says of an account: orders, executions, positions, wallet and greeks as its private messages have them.

The REST interface tells the same with a few other names: those differences are with its endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pipeline.sim.accounts import Balance, Fill, Order, Position, SimulatedAccount
from pipeline.sim.listing import Listing
from pipeline.sim.worth import is_spot, value_of

LEVERAGE = 10
MAINTENANCE = Decimal("0.005")
"""Fraction of a position's value."""
GREEKS = {
    "delta": Decimal("0.47831"),
    "gamma": Decimal("0.00021453"),
    "vega": Decimal("0.81351067"),
    "theta": Decimal("-19.9115368"),
}
"""Of one option, as its ticker has them."""

_DERIVATIVES = ("linear", "inverse")
_STATUSES = {
    "new": "New",
    "partially_filled": "PartiallyFilled",
    "filled": "Filled",
    "cancelled": "Cancelled",
    "rejected": "Rejected",
    "expired": "Deactivated",
}
_USD = ("USDT", "USDC", "USD")


def text(number: Decimal) -> str:
    """Decimal text without an exponent; every zero is "0"."""
    return f"{number:f}" if number else "0"


def ms(micros: int) -> str:
    """Milliseconds as private messages have them."""
    return str(micros // 1000)


def side_of(side: str) -> str:
    """Buy or Sell."""
    return side.capitalize()


def order(account: SimulatedAccount, of: Order) -> dict[str, Any]:
    """An element of `order`."""
    listing = account.market.find(of.market, of.symbol)
    leaves = text(value_of(listing, of.price, of.remaining)) if listing and of.price and of.remaining else "0"
    row: dict[str, Any] = {
        "category": of.market,
        "symbol": of.symbol,
        "orderId": of.order_id,
        "orderLinkId": of.client_order_id,
        "blockTradeId": "",
        "side": side_of(of.side),
        "positionIdx": 0,
        "orderStatus": _status(of),
        "cancelType": _cancel_type(of),
        "rejectReason": _reject_reason(of),
        "timeInForce": "IOC" if of.order_type == "market" else of.time_in_force,
        "isLeverage": "0" if of.market == "spot" else "",
        "price": text(of.price or of.average_price or Decimal(0)),
        "qty": text(of.quote_size or of.size),
        "avgPrice": "" if of.average_price is None else text(of.average_price),
        "leavesQty": text(of.remaining),
        "leavesValue": leaves,
        "cumExecQty": text(of.filled),
        "cumExecValue": text(of.value),
        "cumExecFee": text(sum(of.fees.values(), Decimal(0))) if of.market in ("inverse", "option") else "0",
        "cumFeeDetail": {coin: text(fee) for coin, fee in of.fees.items()},
        "feeCurrency": "",
        "closedPnl": text(of.pnl),
        "orderType": of.order_type.capitalize(),
        "stopOrderType": "" if of.market == "option" else "UNKNOWN",
        "orderIv": "",
        "triggerPrice": "",
        "takeProfit": "",
        "stopLoss": "",
        "tpLimitPrice": "",
        "slLimitPrice": "",
        "tpTriggerBy": "",
        "slTriggerBy": "",
        "triggerBy": "",
        "triggerDirection": 0,
        "lastPriceOnCreated": "",
        "reduceOnly": of.reduce_only,
        "closeOnTrigger": False,
        "placeType": "price" if of.market == "option" else "",
        "smpType": "None",
        "smpGroup": 0,
        "smpOrderId": "",
        "slippageToleranceType": "UNKNOWN",
        "slippageTolerance": "",
        "rpiTakerAccess": False,
        "rpiMatchedQty": "0",
        "createdTime": ms(of.created_us),
        "updatedTime": ms(of.updated_us),
    }
    if of.market == "spot":
        unit = "" if of.price is not None else "quoteCoin" if of.quote_size else "baseCoin"
        row |= {"ocoTriggerBy": "OcoTriggerByUnknown", "marketUnit": unit}
    else:
        row |= {"tpslMode": "", "parentOrderLinkId": ""}
    if of.market in _DERIVATIVES:
        row["createType"] = "CreateByUser"
    return row


def _status(of: Order) -> str:
    if of.market == "spot" and of.status == "cancelled" and of.filled:
        return "PartiallyFilledCanceled"
    return _STATUSES[of.status]


def _cancel_type(of: Order) -> str:
    if of.status != "cancelled" or of.reason.startswith("EC_"):
        return "UNKNOWN"
    return of.reason or "CancelByUser"


def _reject_reason(of: Order) -> str:
    if of.status == "rejected":
        return of.reason or "EC_Others"
    return of.reason if of.reason.startswith("EC_") else "EC_NoError"


def execution(of: Fill) -> dict[str, Any]:
    """An element of `execution`."""
    funding, option = of.kind == "funding", of.market == "option"
    placed = of.order
    row: dict[str, Any] = {
        "category": of.market,
        "symbol": of.symbol,
        "closedSize": text(of.closed),
        "execFee": text(of.fee),
        "execId": of.fill_id,
        "execPrice": text(of.price),
        "execQty": text(of.size),
        "execType": "Funding" if funding else "Trade",
        "execValue": text(of.value),
        "feeRate": text(of.fee_rate),
        "tradeIv": "0.4987" if option else "",
        "markIv": "0.5012" if option else "",
        "blockTradeId": "",
        "markPrice": "" if of.mark is None else text(of.mark),
        "indexPrice": text(of.mark) if option and of.mark is not None else "",
        "underlyingPrice": text(of.mark) if option and of.mark is not None else "",
        "leavesQty": "0" if placed is None else text(placed.remaining),
        "orderId": f"{of.time_us // 1_000_000}-{of.sequence}" if placed is None else placed.order_id,
        "orderLinkId": "" if placed is None else placed.client_order_id,
        "orderPrice": text((placed and placed.price) or of.price),
        "orderQty": text(of.size if placed is None else placed.size),
        "orderType": "UNKNOWN" if placed is None else placed.order_type.capitalize(),
        "stopOrderType": "" if option else "UNKNOWN",
        "side": side_of(of.side),
        "execTime": ms(of.time_us),
        "isLeverage": "0",
        "isMaker": of.maker,
        "seq": of.sequence,
        "marketUnit": "",
        "execPnl": text(of.pnl),
        "extraFees": "",
        "feeCurrency": of.fee_coin,
    }
    if of.market in _DERIVATIVES:
        row["createType"] = "CreateByUser"
    return row


def fast_execution(of: Fill) -> dict[str, Any]:
    """An element of `execution.fast`: a maker is not told its own identifier."""
    row = execution(of)
    names = ("category", "symbol", "execId", "execPrice", "execQty", "orderId", "isMaker", "side", "execTime", "seq")
    return {**{name: row[name] for name in names}, "orderLinkId": "" if of.maker else row["orderLinkId"]}


def position(account: SimulatedAccount, of: Position) -> dict[str, Any]:
    """An element of `position`."""
    listing = account.market.find(of.market, of.symbol)
    worth = position_value(listing, of)
    row: dict[str, Any] = {
        "category": of.market,
        "symbol": of.symbol,
        "side": "" if not of.size else "Buy" if of.size > 0 else "Sell",
        "size": text(abs(of.size)),
        "positionIdx": 0,
        "positionValue": text(worth),
        "entryPrice": text(of.entry_price),
        "sessionAvgPrice": text(of.entry_price) if listing and listing.settle == "USDC" else "",
        "markPrice": text(account.mark(listing)) if listing else "",
        "leverage": str(LEVERAGE),
        "breakEvenPrice": text(of.entry_price),
        "liqPrice": "",
        "bustPrice": "",
        "autoAddMargin": 0,
        "positionIM": text(worth / LEVERAGE),
        "positionIMByMp": text(worth / LEVERAGE),
        "positionMM": text(worth * MAINTENANCE),
        "positionMMByMp": text(worth * MAINTENANCE),
        "positionBalance": "0",
        "tpslMode": "Full",
        "tradeMode": 0,
        "takeProfit": "0",
        "stopLoss": "0",
        "trailingStop": "0",
        "unrealisedPnl": text(account.unrealized(of)),
        "curRealisedPnl": text(of.realized),
        "cumRealisedPnl": text(of.total_pnl),
        "positionStatus": "Normal",
        "adlRankIndicator": 2 if of.size else 0,
        "riskId": 1,
        "riskLimitValue": "2000000",
        "isReduceOnly": False,
        "mmrSysUpdatedTime": "",
        "leverageSysUpdatedTime": "",
        "createdTime": ms(of.created_us),
        "updatedTime": ms(of.updated_us),
        "openTime": of.opened_us // 1000 if of.size else 0,
        "seq": "-1" if of.sequence is None else of.sequence,
    }
    if of.market == "option":
        del row["breakEvenPrice"]
        row |= {name: text(greek * of.size) for name, greek in GREEKS.items()}
    return row


def position_value(listing: Listing | None, of: Position) -> Decimal:
    """At the entry price; nothing for a flat position."""
    return value_of(listing, of.entry_price, abs(of.size)) if listing and of.size else Decimal(0)


def wallet(account: SimulatedAccount, balances: Iterable[Balance]) -> dict[str, Any]:
    """The element of `wallet`: the account in US dollars, and these coins."""
    coins = {coin: _coin(account, balance) for coin, balance in account.balances.items()}
    usd = {name: _in_usd(account, coins.values(), name) for name in ("equity", "walletBalance", "unrealisedPnl")}
    initial = _in_usd(account, coins.values(), "totalPositionIM") + _in_usd(account, coins.values(), "totalOrderIM")
    maintenance = _in_usd(account, coins.values(), "totalPositionMM")
    margin = usd["walletBalance"] + usd["unrealisedPnl"]
    return {
        "accountType": "UNIFIED",
        "accountLTV": "0",
        "accountIMRate": _rate(initial, margin),
        "accountIMRateByMp": _rate(initial, margin),
        "accountMMRate": _rate(maintenance, margin),
        "accountMMRateByMp": _rate(maintenance, margin),
        "totalEquity": text(usd["equity"]),
        "totalWalletBalance": text(usd["walletBalance"]),
        "totalMarginBalance": text(margin),
        "totalAvailableBalance": text(margin - initial),
        "totalPerpUPL": text(usd["unrealisedPnl"]),
        "totalInitialMargin": text(initial),
        "totalInitialMarginByMp": text(initial),
        "totalMaintenanceMargin": text(maintenance),
        "totalMaintenanceMarginByMp": text(maintenance),
        "coin": [_coin(account, balance) for balance in balances],
    }


def _coin(account: SimulatedAccount, of: Balance) -> dict[str, Any]:
    orders = positions = maintenance = unrealized = options = Decimal(0)
    for held in account.positions.values():
        listing = account.market.find(held.market, held.symbol)
        if listing is None or (listing.settle or listing.quote) != of.coin:
            continue
        worth = position_value(listing, held)
        positions += worth / LEVERAGE
        maintenance += worth * MAINTENANCE
        if listing.option is None:
            unrealized += account.unrealized(held)
        else:
            options += account.mark(listing) * held.size
    for placed in account.open_orders():
        listing = account.market.find(placed.market, placed.symbol)
        if listing and not is_spot(listing) and (listing.settle or listing.quote) == of.coin:
            orders += value_of(listing, placed.price or account.mark(listing), placed.remaining) / LEVERAGE
    equity = of.total + unrealized + options
    return {
        "coin": of.coin,
        "equity": text(equity),
        "usdValue": text((equity * usd_price(account, of.coin)).quantize(Decimal("0.00000001"))),
        "walletBalance": text(of.total),
        "locked": text(of.locked),
        "spotHedgingQty": "0",
        "borrowAmount": "0",
        "spotBorrow": "0",
        "accruedInterest": "0",
        "totalOrderIM": text(orders),
        "totalPositionIM": text(positions),
        "totalPositionMM": text(maintenance),
        "unrealisedPnl": text(unrealized),
        "cumRealisedPnl": text(of.total_pnl),
        "bonus": "0",
        "collateralSwitch": True,
        "marginCollateral": True,
        "colRes": "0",
        "availableToWithdraw": "",
        "availableToBorrow": "",
        "free": "",
    }


def usd_price(account: SimulatedAccount, coin: str) -> Decimal:
    """Of one coin: the mark of its perpetual, nothing without one."""
    if coin in _USD:
        return Decimal(1)
    for market, symbol in (("linear", f"{coin}USDT"), ("inverse", f"{coin}USD")):
        if listing := account.market.find(market, symbol):
            return account.mark(listing)
    return Decimal(0)


def _in_usd(account: SimulatedAccount, coins: Iterable[dict[str, Any]], name: str) -> Decimal:
    total = sum((Decimal(row[name]) * usd_price(account, row["coin"]) for row in coins), Decimal(0))
    return total.quantize(Decimal("0.00000001"))


def _rate(part: Decimal, whole: Decimal) -> str:
    return text((part / whole).quantize(Decimal("0.0001"))) if whole else "0"


def greeks(account: SimulatedAccount, base: str | None = None) -> list[dict[str, Any]]:
    """Elements of `greeks`: one per base coin with options, or of one coin only."""
    sizes: dict[str, Decimal] = {}
    for held in account.positions.values():
        listing = account.market.find(held.market, held.symbol)
        if listing is not None and listing.option is not None and base in (None, listing.base):
            sizes[listing.base] = sizes.get(listing.base, Decimal(0)) + held.size
    return [
        {"baseCoin": coin, **{f"total{name.capitalize()}": text(greek * size) for name, greek in GREEKS.items()}}
        for coin, size in sizes.items()
    ]
