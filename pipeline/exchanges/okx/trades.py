"""Public trades: `trades`, `trades-all`, `option-trades`, of spreads, and of the block market."""

from __future__ import annotations

from pipeline.exchanges.okx.streams import Stream, amounts
from pipeline.exchanges.okx.wire import OptionTrades, Trades
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Event, Micros, Trade

RPI = "1"
"""`source` of a trade against retail-price-improvement liquidity."""


def trades(stream: Stream, push: Trades, receive_time: Micros) -> list[Event]:
    """Trades of one instrument.

    OKX repeats the last trade at every subscription, however old it is; what was published before is dropped.
    On a new connection that is any id up to the last one in `resume`; later only that very id, because ids need
    not rise when one order fills against ordinary and RPI orders.
    """
    listing = stream.listing
    first = not stream.messages
    seen = stream.resume.get(stream.resume_key) if first else stream.last_number
    last = seen
    events: list[Event] = []
    for row in push.data:
        number = _number(row.tradeId)
        if number is not None:
            if seen is not None and (number == seen or (first and number < seen)):
                continue
            last = number
        base_size, quote_size = amounts(listing, row.sz)
        events.append(
            Trade(
                listing.origin,
                row.ts * 1000,
                receive_time,
                row.seqId,
                row.tradeId,
                row.px,
                row.sz,
                listing.size_unit,
                base_size,
                quote_size,
                row.side,
                False,
                row.source == RPI if row.source else None,
                row.count,
            )
        )
    if last is not None:
        stream.last_number = last
        stream.resume[stream.resume_key] = last
    return events


def option_trades(stream: Stream, push: OptionTrades, receive_time: Micros) -> list[Event]:
    """Trades of the options of one family; the first push may repeat an earlier trade, as in `trades`."""
    first = not stream.messages
    resume: dict[str, int] = {}
    events: list[Event] = []
    for row in push.data:
        key = f"{stream.channel}:{row.instId}"
        number = _number(row.tradeId)
        if number is not None:
            seen = stream.resume.get(key) if first else None
            if seen is not None and number <= seen:
                continue
            resume[key] = number
        listing = stream.listings.get("option", row.instId, receive_time)
        base_size, quote_size = amounts(listing, row.sz)
        events.append(
            Trade(
                listing.origin,
                row.ts * 1000,
                receive_time,
                None,
                row.tradeId,
                row.px,
                row.sz,
                listing.size_unit,
                base_size,
                quote_size,
                row.side,
                implied_volatility=row.fillVol,
                mark_price=DecimalText(row.markPx) if row.markPx else None,
                index_price=DecimalText(row.idxPx) if row.idxPx else None,
                forward_price=DecimalText(row.fwdPx) if row.fwdPx else None,
            )
        )
    stream.resume.update(resume)
    return events


def block_trades(stream: Stream, push: OptionTrades, receive_time: Micros) -> list[Event]:
    """Legs of block trades, published 15 minutes after they happened."""
    listing = stream.listing
    events: list[Event] = []
    for row in push.data:
        base_size, quote_size = amounts(listing, row.sz)
        events.append(
            Trade(
                listing.origin,
                row.ts * 1000,
                receive_time,
                None,
                row.tradeId,
                row.px,
                row.sz,
                listing.size_unit,
                base_size,
                quote_size,
                row.side,
                is_block=True,
                implied_volatility=row.fillVol,
                mark_price=DecimalText(row.markPx) if row.markPx else None,
                index_price=DecimalText(row.idxPx) if row.idxPx else None,
                forward_price=DecimalText(row.fwdPx) if row.fwdPx else None,
            )
        )
    return events


def _number(trade_id: str) -> int | None:
    return int(trade_id) if trade_id.isdecimal() and trade_id.isascii() else None
