"""Amounts as campaign files write them."""

import pytest

from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import wanted
from coppice.testing.selection import candidate


@pytest.mark.parametrize(("written", "amount"), [
    (0.1, Amount(0.1)), (8, Amount(8)), (8.0, Amount(8.0)), ("advised", Amount(0, "advised")), ({"now": 3}, Amount(3)),
    ({"seed": 0.25, "multiple": 8}, Amount(0.25, "seed", 8)), ({"above": 1e-3}, Amount(1e-3, "above")),
    ({"above": -2.0}, Amount(-2.0, "above")), ({"advised": 0, "multiple": 4}, Amount(0, "advised", 4)), (0, Amount(0)),
])  # fmt: skip
def test_what_is_written_is_read(written, amount):
    read = Amount.read(written)
    assert read == amount and type(read.value) is type(amount.value)


@pytest.mark.parametrize(("written", "said"), [
    (True, "an amount is"), ("all", "an amount is"), ("now", "an amount is"), (-0.1, "at least 0"), ({"seed": -1}, "at least 0"),
    ({}, "an amount is"), ({"seed": 0.1, "now": 0.1}, "an amount is"), ({"multiple": 8}, "an amount is"),
    ({"of": 3}, "an amount is"), ({"now": 0.5, "multiple": 0}, "at least 1"), ({"now": 0.5, "multiple": 2.5}, "whole number"),
    ({"seed": "0.5"}, "write 0.5"), ("25%", "write 0.25"), ({"now": 0.5, "multiple": True}, "whole number"),
    (float("nan"), "finite"), ({"above": float("inf")}, "finite"), (None, "amount is"),
])  # fmt: skip
def test_what_is_none_is_said(written, said):
    with pytest.raises(ValueError, match=said):
        Amount.read(written)


def test_what_was_read_is_left_alone():
    written = {"seed": 0.25, "multiple": 8}
    Amount.read(written)
    assert written == {"seed": 0.25, "multiple": 8}


@pytest.mark.parametrize(("amount", "value", "scaled"), [
    (Amount(8), 2.5, Amount(3)), (Amount(8), 0.4, Amount(0)), (Amount(8.0), 0.7, Amount(0.7)), (Amount(0.5), 0.2, Amount(0.2)),
    (Amount(1), 0.6, Amount(1)), (Amount(0.5, "seed", 8), 0.1, Amount(0.1, "seed", 8)),
    (Amount(3.0, "above"), 0.7, Amount(0.7, "above")),
])  # fmt: skip
def test_a_schedule_keeps_counts_counts_and_fractions_fractions(amount, value, scaled):
    found = amount.scaled(value)
    assert found == scaled and type(found.value) is type(scaled.value)


@pytest.mark.parametrize(("arguments", "said"), [
    ((-1,), "at least 0"), ((-0.5, "seed"), "at least 0"), ((float("nan"),), "finite"), ((float("inf"), "above"), "finite"),
    ((True,), "an amount is"), (("8",), "an amount is"), ((1, "then"), "'then'"), ((1, "now", 0), "at least 1"),
])  # fmt: skip
def test_an_amount_that_is_none_cannot_be_made(arguments, said):
    with pytest.raises(ValueError, match=said):
        Amount(*arguments)


@pytest.mark.parametrize(("written", "units"), [
    ({"seed": 1.5}, 12), ({"seed": 2}, 2), ({"seed": 2.0}, 16), (0.25, 4), (1.5, 24), (3, 3), (2.0, 32)])
def test_a_number_with_a_point_is_a_fraction_and_a_whole_one_counts_units(written, units):
    """Of 8 units at first, 16 now."""
    offered = candidate("x", 16, [1.0] * 100, most=100, seed_size=8)
    assert wanted("grow", offered, Amount.read(written)) == units
