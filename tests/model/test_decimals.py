from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given

from pipeline.model.decimals import exact_negation, is_decimal
from tests.avro.strategies import decimal_texts


@given(decimal_texts())
def test_negation_keeps_every_digit(text: str) -> None:
    negated = exact_negation(text)
    assert is_decimal(negated)
    assert Decimal(negated) == Decimal(text).copy_negate()  # a minus would round to 28 digits
    assert negated.lstrip("-") == text.lstrip("-")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.02522168", "0.02522168"),
        ("1.50", "-1.50"),
        ("0", "0"),
        ("0.000", "0.000"),
        ("-0", "0"),
        ("0E+5", "0E+5"),
        ("0e5", "0e5"),
        ("1e-7", "-1e-7"),
    ],
)
def test_a_zero_has_no_sign(text: str, expected: str) -> None:
    assert exact_negation(text) == expected
