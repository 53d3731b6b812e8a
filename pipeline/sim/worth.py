"""What sizes come to at a listing's prices, exactly: values, profits, averages and fees of every form of contract."""

from __future__ import annotations

from decimal import Decimal

from pipeline.sim.listing import Listing

SCALE = Decimal("0.00000001")
"""What venues print at most."""


def is_spot(listing: Listing) -> bool:
    """Whether trading it exchanges coins instead of opening a position."""
    return listing.market.lower() == "spot"


def value_of(listing: Listing, price: Decimal, size: Decimal) -> Decimal:
    """What a size is worth: quote currency; of inverse contracts and of options priced in base currency, base."""
    amount = size * (listing.contract_value or 1)
    if _is_reciprocal(listing):
        return (amount / price).quantize(SCALE)
    return amount * price


def profit(listing: Listing, entry: Decimal, exit_price: Decimal, size: Decimal) -> Decimal:
    """Of a signed size that was entered and left at these prices, before fees, in the settlement coin."""
    amount = size * (listing.contract_value or 1)
    if _is_reciprocal(listing):
        return (amount / entry - amount / exit_price).quantize(SCALE)
    return amount * (exit_price - entry)


def _is_reciprocal(listing: Listing) -> bool:
    """Sized in quote currency and settled in base: everything inverse but options."""
    return listing.inverse and listing.option is None


def average_of(listing: Listing, price: Decimal, size: Decimal, new_price: Decimal, new_size: Decimal) -> Decimal:
    """The price of two sizes together."""
    if not size:
        return new_price
    if _is_reciprocal(listing):
        exact = (size + new_size) / (size / price + new_size / new_price)
    else:
        exact = (size * price + new_size * new_price) / (size + new_size)
    return rounded(exact)


def rounded(number: Decimal) -> Decimal:
    """At most as many decimals as venues print; fewer stay fewer."""
    exponent = number.as_tuple().exponent
    return number.quantize(SCALE) if isinstance(exponent, int) and exponent < -8 else number


def fee_of(listing: Listing, side: str, price: Decimal, size: Decimal, rate: Decimal) -> tuple[Decimal, str]:
    """Amount and coin: on spot of what is received, a rebate of what is given; elsewhere of the settlement coin."""
    if not is_spot(listing):
        coin = listing.settle or listing.quote
        return (value_of(listing, price, size) * rate).quantize(SCALE), coin
    in_base = (side == "buy") == (rate >= 0)
    return (size if in_base else size * price) * rate, listing.base if in_base else listing.quote
