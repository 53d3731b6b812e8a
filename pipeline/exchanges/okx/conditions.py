"""The conditions of a market beside its prices: liquidations, limits, option greeks, settlement, funds, maintenance."""

from __future__ import annotations

from pipeline.exchanges.okx.streams import Stream, amounts
from pipeline.exchanges.okx.topics import micros
from pipeline.exchanges.okx.wire_conditions import (
    AdlWarnings,
    EstimatedPrices,
    Liquidations,
    OptionSummaries,
    PriceLimits,
    Statuses,
)
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.events import (
    AdlAlert,
    EstimatedPrice,
    Event,
    InsuranceFund,
    Liquidation,
    Micros,
    OptionSummary,
    PriceLimit,
    SystemStatus,
)

_CLOSED_BY = {"buy": "short", "sell": "long"}
_STATES = {"adl": True, "warning": False, "normal": False}


def liquidations(stream: Stream, push: Liquidations, receive_time: Micros) -> list[Event]:
    """Some of the liquidations of a market; in net mode the order's side tells the position's."""
    events: list[Event] = []
    for row in push.data:
        listing = stream.listings.get(row.instType.lower(), row.instId, receive_time)
        for detail in row.details:
            base_size, quote_size = amounts(listing, detail.sz)
            events.append(
                Liquidation(
                    listing.origin,
                    Micros(detail.ts * 1000),
                    receive_time,
                    None,
                    _text(detail.bkPx),
                    DecimalText(detail.sz),
                    listing.size_unit,
                    detail.posSide if detail.posSide in ("long", "short") else _CLOSED_BY.get(detail.side),
                    detail.side or None,
                    base_size,
                    quote_size,
                    _text(detail.bkLoss),
                    detail.ccy or None,
                )
            )
    return events


def price_limits(stream: Stream, push: PriceLimits, receive_time: Micros) -> list[Event]:
    """Price limits; none while they are not enabled."""
    return [
        PriceLimit(
            stream.of(row.instType, receive_time).origin,
            Micros(row.ts * 1000),
            receive_time,
            None,
            _text(row.buyLmt),
            _text(row.sellLmt),
            row.enabled,
        )
        for row in push.data
    ]


def option_summaries(stream: Stream, push: OptionSummaries, receive_time: Micros) -> list[Event]:
    """Greeks and volatilities of all options of a family."""
    return [
        OptionSummary(
            stream.listings.get("option", row.instId, receive_time).origin,
            Micros(row.ts * 1000),
            receive_time,
            None,
            bid_implied_volatility=number(row.bidVol),
            ask_implied_volatility=number(row.askVol),
            mark_implied_volatility=row.markVol,
            forward_price=_text(row.fwdPx),
            delta=row.deltaBS,
            gamma=row.gammaBS,
            vega=row.vegaBS,
            theta=row.thetaBS,
            coin_delta=row.delta,
            coin_gamma=row.gamma,
            coin_vega=row.vega,
            coin_theta=row.theta,
            leverage=_text(row.lever),
            realized_volatility=number(row.realVol),
            atm_implied_volatility=row.volLv,
        )
        for row in push.data
    ]


def estimated_prices(stream: Stream, push: EstimatedPrices, receive_time: Micros) -> list[Event]:
    """Estimated settlement, delivery and exercise prices, sent in the half hour before."""
    return [
        EstimatedPrice(
            stream.listings.get(row.instType.lower(), row.instId, receive_time).origin,
            Micros(row.ts * 1000),
            receive_time,
            None,
            DecimalText(row.settlePx),
            row.settleType or None,
        )
        for row in push.data
    ]


def adl_warnings(stream: Stream, push: AdlWarnings, receive_time: Micros) -> list[Event]:
    """Warnings of auto-deleveraging, each with the balance of its fund; the end of one is not announced."""
    events: list[Event] = []
    for row in push.data:
        origin = stream.listings.get(row.instType.lower(), None, receive_time).origin
        time, pool, currency, balance = Micros(row.ts * 1000), row.instFamily or None, row.ccy or None, _text(row.bal)
        events.append(
            AdlAlert(
                origin,
                time,
                receive_time,
                None,
                pool,
                row.state or None,
                _STATES.get(row.state),
                currency,
                balance,
            )
        )
        if balance is not None:
            events.append(InsuranceFund(origin, time, receive_time, None, balance, currency, pool))
    return events


def statuses(stream: Stream, push: Statuses, receive_time: Micros) -> list[Event]:
    """Announced maintenance."""
    return [
        SystemStatus(
            stream.listing.origin,
            Micros(row.ts * 1000),
            receive_time,
            None,
            row.state,
            row.title,
            begin_time=_micros(row.begin),
            end_time=_micros(row.end),
            pre_open_time=_micros(row.preOpenBegin),
            href=row.href or None,
            description=row.scheDesc or None,
            service_types=(row.serviceType,) if row.serviceType else (),
            maintenance_type=row.maintType or None,
            environment=row.env or None,
            system=row.system or None,
        )
        for row in push.data
    ]


def number(text: str) -> float | None:
    """An analytical value; None for an empty text. Raises `ValueError`."""
    if not text:
        return None
    if not is_decimal(text):
        raise ValueError(f"{text[:40]!r} is no number")
    return float(text)


def _text(value: str) -> DecimalText | None:
    return DecimalText(value) if value else None


def _micros(text: str) -> Micros | None:
    return micros(text) if text else None
