"""Positions and balances as OKX prints them: the rows that private channels and REST share."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any
from zlib import crc32

from pipeline.sim.accounts import Balance, Fill, Position, SimulatedAccount
from pipeline.sim.floor import Market
from pipeline.sim.listing import Listing
from pipeline.sim.okx_streams import plain
from pipeline.sim.worth import is_spot

LEVERAGE = 10

_NOTHING = Decimal(0)
_CENT_DIGITS = Decimal("1e-8")
_DOLLARS = ("USDT", "USDC", "USD")


def uid(account: SimulatedAccount) -> str:
    """The user identifier: eighteen digits."""
    return str(6 * 10**17 + account.index * 10**9 + crc32(account.name.encode()) % 10**9)


def millis(time_us: int) -> str:
    """A time as text."""
    return str(time_us // 1000)


def shown(number: Decimal) -> str:
    """At most eight decimals."""
    exponent = number.as_tuple().exponent
    return plain(number.quantize(_CENT_DIGITS) if isinstance(exponent, int) and exponent < -8 else number)


def usd_price(market: Market, coin: str) -> Decimal:
    """The index price of a coin in dollars; 0 if nothing is listed that tells."""
    if coin in _DOLLARS:
        return Decimal(1)
    for listing in market.listings.values():
        if listing.base == coin and listing.quote in _DOLLARS and listing.option is None:
            return listing.tick * market.engine(listing).index
    return _NOTHING


def settle_coin(listing: Listing) -> str:
    """What a contract is margined in; nothing on spot."""
    return "" if is_spot(listing) else listing.settle or listing.quote


def notional_usd(market: Market, listing: Listing, price: Decimal, size: Decimal) -> Decimal:
    """The value of a size in dollars, without its sign."""
    amount = abs(size) * (listing.contract_value or 1)
    if listing.option is not None:
        return amount * price * usd_price(market, listing.base)
    return amount if listing.inverse else amount * price


def position_row(account: SimulatedAccount, position: Position, now_ms: int) -> dict[str, Any]:
    """A row of positions; a closed one keeps its identity and has no prices."""
    listing = account.market.find(position.market, position.symbol)
    flat, option = not position.size, position.market == "OPTION"
    engine = None if listing is None else account.market.engine(listing)
    tick = _NOTHING if listing is None else listing.tick
    mark, last, index = (
        (_NOTHING,) * 3 if engine is None else (tick * engine.mark, tick * engine.last, tick * engine.index)
    )
    coin = "" if listing is None else settle_coin(listing)
    worth = _NOTHING if listing is None else notional_usd(account.market, listing, mark, position.size)
    value = worth / (usd_price(account.market, coin) or 1)
    upl = account.unrealized(position)
    ratio = shown(upl * LEVERAGE / value) if value else ""
    own = "" if flat else shown(upl)
    return {
        "adl": "1",
        "availPos": plain(position.size) if option else "",
        "avgPx": "" if flat else plain(position.entry_price),
        "baseBal": "",
        "baseBorrowed": "",
        "baseInterest": "",
        "bePx": "" if flat else plain(position.entry_price),
        "bizRefId": "",
        "bizRefType": "",
        "cTime": millis(position.opened_us),
        "ccy": coin,
        "clSpotInUseAmt": "",
        "closeOrderAlgo": [],
        "deltaBS": shown(position.size / 2) if option else "",
        "deltaPA": shown(position.size / 2) if option else "",
        "fee": shown(-position.fees),
        "fundingFee": shown(-position.funding),
        "gammaBS": "0" if option else "",
        "gammaPA": "0" if option else "",
        "hedgedPos": "",
        "idxPx": plain(index),
        "imr": "" if flat else shown(value / LEVERAGE),
        "instId": position.symbol,
        "instType": position.market,
        "interest": "",
        "last": plain(last),
        "lever": "" if option else str(LEVERAGE),
        "liab": "",
        "liabCcy": "",
        "liqPenalty": "0",
        "liqPx": "",
        "margin": "",
        "markPx": plain(mark),
        "maxSpotInUseAmt": "",
        "mgnMode": "cross",
        "mgnRatio": "" if flat else "100",
        "mmr": "" if flat else shown(value / LEVERAGE / 10),
        "nonSettleAvgPx": "",
        "notionalUsd": shown(worth),
        "optVal": shown(position.size * mark) if option else "",
        "pTime": str(now_ms),
        "pendingCloseOrdLiabVal": "",
        "pnl": shown(position.pnl),
        "pos": plain(position.size),
        "posCcy": "",
        "posId": position_id(account, position),
        "posSide": "net",
        "quoteBal": "",
        "quoteBorrowed": "",
        "quoteInterest": "",
        "realizedPnl": shown(position.realized),
        "settledPnl": "",
        "spotInUseAmt": "",
        "spotInUseCcy": "",
        "thetaBS": "0" if option else "",
        "thetaPA": "0" if option else "",
        "tradeId": last_trade_id(account, position),
        "uTime": millis(position.updated_us),
        "upl": own,
        "uplLastPx": own,
        "uplRatio": "" if flat else ratio,
        "uplRatioLastPx": "" if flat else ratio,
        "usdPx": "" if listing is None else plain(usd_price(account.market, listing.base)),
        "vegaBS": "0" if option else "",
        "vegaPA": "0" if option else "",
    }


def position_id(account: SimulatedAccount, position: Position) -> str:
    """The same one for an account's instrument."""
    return str(32 * 10**16 + account.index * 10**11 + crc32(position.symbol.encode()))


def last_trade_id(account: SimulatedAccount, position: Position) -> str:
    """Of the last trade that changed it."""
    return next(
        (fill.fill_id for fill in reversed(account.fills) if fill.kind == "trade" and fill.symbol == position.symbol),
        "",
    )


def account_row(account: SimulatedAccount, balances: Iterable[Balance], now_ms: int) -> dict[str, Any]:
    """The row of account: the totals of all balances, details of those given."""
    equity = sum(
        (_equity(account, each) * usd_price(account.market, each.coin) for each in account.balances.values()), _NOTHING
    )
    upl = sum(
        (_upl(account, each.coin) * usd_price(account.market, each.coin) for each in account.balances.values()),
        _NOTHING,
    )
    notionals = {kind: _notional(account, kind) for kind in ("SWAP", "FUTURES", "OPTION")}
    notional = sum(notionals.values(), _NOTHING)
    margin = notional / LEVERAGE
    frozen = sum((each.locked * usd_price(account.market, each.coin) for each in account.balances.values()), _NOTHING)
    return {
        "adjEq": shown(equity),
        "availEq": shown(equity - margin - frozen),
        "borrowFroz": "0",
        "delta": "0",
        "deltaLever": "0",
        "deltaNeutralStatus": "0",
        "details": [_detail(account, each) for each in balances],
        "imr": shown(margin),
        "isoEq": "0",
        "mgnRatio": shown(equity * 10 / margin) if margin else "",
        "mmr": shown(margin / 10),
        "notionalUsd": shown(notional),
        "notionalUsdForBorrow": "0",
        "notionalUsdForFutures": shown(notionals["FUTURES"]),
        "notionalUsdForOption": shown(notionals["OPTION"]),
        "notionalUsdForSwap": shown(notionals["SWAP"]),
        "ordFroz": shown(frozen),
        "totalEq": shown(equity),
        "uTime": str(now_ms),
        "upl": shown(upl),
    }


def _detail(account: SimulatedAccount, balance: Balance) -> dict[str, Any]:
    equity, price = _equity(account, balance), usd_price(account.market, balance.coin)
    available = plain(balance.total - balance.locked)
    return {
        "autoLendStatus": "off",
        "autoLendMtAmt": "0",
        "availBal": available,
        "availEq": available,
        "borrowFroz": "0",
        "cashBal": plain(balance.total),
        "ccy": balance.coin,
        "coinUsdPrice": plain(price),
        "crossLiab": "0",
        "colRes": "0",
        "collateralEnabled": False,
        "collateralRestrict": False,
        "colBorrAutoConversion": "0",
        "disEq": shown(equity * price),
        "eq": shown(equity),
        "eqUsd": shown(equity * price),
        "smtSyncEq": "0",
        "spotCopyTradingEq": "0",
        "fixedBal": "0",
        "frozenBal": plain(balance.locked),
        "frpType": "0",
        "imr": "",
        "interest": "0",
        "isoEq": "0",
        "isoLiab": "0",
        "isoUpl": "0",
        "liab": "0",
        "maxLoan": "0",
        "mgnRatio": "",
        "mmr": "",
        "notionalLever": "",
        "ordFrozen": plain(balance.locked),
        "rewardBal": "0",
        "spotInUseAmt": "",
        "clSpotInUseAmt": "",
        "maxSpotInUseAmt": "",
        "spotIsoBal": "0",
        "stgyEq": "0",
        "twap": "0",
        "uTime": millis(balance.updated_us),
        "upl": shown(_upl(account, balance.coin)),
        "uplLiab": "0",
        "spotBal": "",
        "openAvgPx": "",
        "accAvgPx": "",
        "spotUpl": "",
        "spotUplRatio": "",
        "totalPnl": "",
        "totalPnlRatio": "",
    }


def balance_and_position_row(
    account: SimulatedAccount,
    cause: str,
    balances: Iterable[Balance],
    positions: Iterable[Position],
    trades: Iterable[Fill],
    now_ms: int,
) -> dict[str, Any]:
    """The row of balance_and_position."""
    return {
        "pTime": str(now_ms),
        "eventType": cause,
        "balData": [
            {"ccy": each.coin, "cashBal": plain(each.total), "uTime": millis(each.updated_us)} for each in balances
        ],
        "posData": [
            {key: value for key, value in position_row(account, each, now_ms).items() if key in _POSITION_DATA}
            for each in positions
        ],
        "trades": [{"instId": each.symbol, "tradeId": each.fill_id} for each in trades],
    }


_POSITION_DATA = frozenset(
    {
        "posId", "tradeId", "instId", "instType", "mgnMode", "avgPx", "ccy", "posSide", "pos", "posCcy",
        "nonSettleAvgPx", "settledPnl", "uTime",
    }
)  # fmt: skip


def greeks_rows(account: SimulatedAccount, coins: Iterable[str], now_ms: int) -> list[dict[str, Any]]:
    """Rows of account-greeks: deltas of what is held of each coin, in dollars and in the coin."""
    return [
        {
            "ccy": coin,
            "deltaBS": shown(account.balance(coin).total * usd_price(account.market, coin)),
            "deltaPA": shown(account.balance(coin).total),
            "gammaBS": "0",
            "gammaPA": "0",
            "thetaBS": "0",
            "thetaPA": "0",
            "ts": str(now_ms),
            "vegaBS": "0",
            "vegaPA": "0",
        }
        for coin in coins
    ]


def held(account: SimulatedAccount) -> list[Balance]:
    """The balances that are not zero."""
    return [each for each in account.balances.values() if each.total or _equity(account, each)]


def _equity(account: SimulatedAccount, balance: Balance) -> Decimal:
    return balance.total + _upl(account, balance.coin)


def _upl(account: SimulatedAccount, coin: str) -> Decimal:
    total = _NOTHING
    for position in account.positions.values():
        listing = account.market.find(position.market, position.symbol)
        if listing is not None and settle_coin(listing) == coin:
            total += account.unrealized(position)
    return total


def _notional(account: SimulatedAccount, kind: str) -> Decimal:
    total = _NOTHING
    for position in account.positions.values():
        listing = account.market.find(position.market, position.symbol)
        if listing is not None and position.market == kind:
            total += notional_usd(account.market, listing, account.mark(listing), position.size)
    return total
