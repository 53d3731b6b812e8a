"""Exact decimal text: prices and sizes as a venue wrote them, never through float."""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import NewType

DecimalText = NewType("DecimalText", str)
"""A decimal number as the venue wrote it, scale included: "65000.50"."""

match_decimal = re.compile(r"-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII).fullmatch
"""`is_decimal` without its call: the encoder asks for every price that it has not seen lately."""
_EXACT = Context(prec=200, Emax=9_999, Emin=-9_999, traps=[Inexact, InvalidOperation])


def is_decimal(text: str) -> bool:
    """Whether `text` is one finite decimal number in ASCII digits, without spaces or a leading plus."""
    return match_decimal(text) is not None


@lru_cache(maxsize=65_536)
def exact_product(left: str, right: str) -> DecimalText:
    """The exact product in plain notation, e.g. a size in contracts times the contract value.

    Raises `decimal.Inexact` beyond 200 digits and `decimal.InvalidOperation` for what is no number.
    """
    product = _EXACT.multiply(Decimal(left), Decimal(right))
    return DecimalText(format(product.normalize(_EXACT), "f"))


@lru_cache(maxsize=65_536)
def exact_difference(left: str, right: str) -> DecimalText:
    """The exact difference `left - right` in plain notation; raises as `exact_product` does."""
    return DecimalText(format(_EXACT.subtract(Decimal(left), Decimal(right)), "f"))


def exact_negation(text: str) -> DecimalText:
    """The number with the other sign and the same digits; a zero has no sign. What is no number is not noticed."""
    if text.startswith("-"):
        return DecimalText(text[1:])
    mantissa = text.replace("E", "e").partition("e")[0]
    return DecimalText("-" + text if mantissa.strip("0.") else text)
