"""What OKX sends of liquidations, limits, options and maintenance, as types; what `wire` says holds here."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from pipeline.exchanges.okx.wire import Millis, Push, Text


class LiquidationDetail(Struct, gc=False):
    """One liquidation."""

    sz: Text
    ts: Millis
    bkPx: str = ""
    side: str = ""
    posSide: str = ""
    bkLoss: str = ""
    ccy: str = ""


class LiquidationRow(Struct, gc=False):
    """`liquidation-orders`: liquidations in one instrument."""

    UNREAD: ClassVar = ("instFamily", "uly")

    instType: Text
    instId: Text
    details: list[LiquidationDetail]


class PriceLimitRow(Struct, gc=False):
    """`price-limit`."""

    UNREAD: ClassVar = ("instId",)

    ts: Millis
    instType: str = ""
    buyLmt: str = ""
    sellLmt: str = ""
    enabled: bool | None = None


class OptionSummaryRow(Struct, gc=False):
    """`opt-summary`."""

    UNREAD: ClassVar = ("instType", "uly")

    instId: Text
    ts: Millis
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    deltaBS: float | None = None
    gammaBS: float | None = None
    vegaBS: float | None = None
    thetaBS: float | None = None
    lever: str = ""
    markVol: float | None = None
    volLv: float | None = None
    # Often or always empty: as numbers they would send the whole family the slow way.
    bidVol: str = ""
    askVol: str = ""
    realVol: str = ""
    fwdPx: str = ""


class EstimatedPriceRow(Struct, gc=False):
    """`estimated-price`."""

    instType: Text
    instId: Text
    settlePx: Text
    ts: Millis
    settleType: str = ""


class AdlWarningRow(Struct, gc=False):
    """`adl-warning`."""

    UNREAD: ClassVar = ("maxBal", "maxBalTs", "adlType", "adlBal", "adlRecBal", "decRate", "adlRate", "adlRecRate")

    instType: Text
    ts: Millis
    instFamily: str = ""
    state: str = ""
    bal: str = ""
    ccy: str = ""


class StatusRow(Struct, gc=False):
    """`status`."""

    title: Text
    state: Text
    ts: Millis
    begin: str = ""
    end: str = ""
    preOpenBegin: str = ""
    href: str = ""
    scheDesc: str = ""
    serviceType: str = ""
    system: str = ""
    maintType: str = ""
    env: str = ""


class Liquidations(Push, gc=False):
    """A push of `liquidation-orders`."""

    UNREAD: ClassVar = ("arg", "id")

    data: list[LiquidationRow]


class PriceLimits(Push, gc=False):
    """A push of `price-limit`."""

    data: list[PriceLimitRow]


class OptionSummaries(Push, gc=False):
    """A push of `opt-summary`."""

    data: list[OptionSummaryRow]


class EstimatedPrices(Push, gc=False):
    """A push of `estimated-price`."""

    data: list[EstimatedPriceRow]


class AdlWarnings(Push, gc=False):
    """A push of `adl-warning`."""

    data: list[AdlWarningRow]


class Statuses(Push, gc=False):
    """A push of `status`."""

    data: list[StatusRow]


class Unnamed(Struct):
    """A push of any other channel."""

    data: list[Any]
    text: str = ""
    """The whole message; not of the wire."""
