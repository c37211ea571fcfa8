"""From an amount to a number of units: against a search through all numbers."""

import math
import random

import pytest

from coppice.methods.selection import (
    All,
    BestGain,
    Budget,
    BudgetOptimal,
    GlobalRanking,
    LargestScore,
    Limit,
    RoundRobin,
    nearest,
    possible_counts,
    wanted,
)
from coppice.methods.selection.amount import Amount
from coppice.testing.selection import candidate


class TestCounting:
    def test_every_count_is_possible_and_none_is_nearer(self):
        """Against a search through all counts, for many sizes, quanta, multiples and most units."""
        draws = random.Random(0)
        for _ in range(3000):
            kind, quantum, multiple = draws.choice(["grow", "prune"]), draws.choice([1, 1, 2, 3, 4]), draws.choice([1, 2, 3, 8])
            size = quantum * draws.randint(1, 20)
            most = draws.randint(0, size)
            c = candidate("a", size, [0.0] * size, most, quantum)
            sign = 1 if kind == "grow" else -1
            fine = [n for n in range(1, most + 1) if n % quantum == 0 and (size + sign * n) % multiple == 0]
            assert list(possible_counts(kind, c, multiple)) == fine
            units = draws.choice([draws.randint(0, 30), draws.uniform(0, 30)])
            best = min([0, *fine], key=lambda n: (abs(n - units), -n))
            assert nearest(possible_counts(kind, c, multiple), units) == best
            budget = Budget(draws.uniform(0, 300), draws.uniform(0, 3000))
            paid = [n for n in [0, *fine] if n * 10.0 <= budget.parameters and n * 100.0 <= budget.flops and n <= best]
            assert budget.spend(c, best, possible_counts(kind, c, multiple)) == max(paid)

    def test_a_budget_is_never_overdrawn_by_rounding(self):
        draws = random.Random(1)
        for _ in range(3000):
            cost = draws.choice([0.1, 0.3, 1 / 3, 7.7])
            budget = Budget(cost * draws.randint(0, 50), None)
            budget.parameters = draws.choice([budget.parameters, math.nextafter(budget.parameters, 0.0)])
            left, c = budget.parameters, candidate("a", 60, parameters=cost)
            count = budget.spend(c, 60)
            assert count * cost <= left < (count + 1) * cost * (1 + 1e-12) or count == 60

    def test_nothing_is_free_when_nothing_is_left(self):
        assert Budget(0.0, None).spend(candidate(parameters=0.0), 3) == 0
        assert Budget(1.0, None).spend(candidate(parameters=0.0), 3) == 3

    def test_a_size_becomes_the_nearest_multiple(self):
        c = candidate("a", 10, [0.0] * 40, most=40)
        assert [wanted("grow", c, Amount(n, multiple=8)) for n in (1, 2, 3, 9, 10, 14)] == [0, 0, 6, 6, 14, 14]
        c = candidate("a", 10, [0.0] * 10, most=9)
        assert [wanted("prune", c, Amount(n, multiple=8)) for n in (1, 2, 9)] == [2, 2, 2]
        assert wanted("prune", candidate("a", 16, most=7), Amount(4, multiple=8)) == 0

    def test_a_multiple_holds_after_the_budget_as_well(self):
        c = candidate("a", 8, [1.0] * 40, most=40)
        for selection in (All(), RoundRobin(), BestGain(), GlobalRanking(), BudgetOptimal(most=8.0), LargestScore()):
            found = selection.choose("grow", [c], Amount(24, multiple=8), Limit(parameters=150.0), 0)
            assert len(found[0].units) == 8, selection

    def test_fractions_of_now_and_of_the_seed(self):
        c = candidate("a", 12, [1.0] * 40, most=40, seed_size=4)
        assert (wanted("grow", c, Amount(0.5)), wanted("grow", c, Amount(0.5, "seed"))) == (6, 2)
        assert len(All().choose("prune", [candidate("a", 12, seed_size=4)], Amount(0.5, "seed"), Limit(), 0)[0].units) == 2

    def test_above_takes_no_unit_on_the_other_side_of_the_threshold(self):
        sigma = [5.0, 2, 1, 0.5, 0.1, 0.01]
        for quantum, num in ((1, 3), (2, 2), (4, 0)):
            assert wanted("grow", candidate("a", 8, sigma, 8, quantum), Amount(0.9, "above")) == num
            assert wanted("prune", candidate("a", 6, sigma, 5, quantum), Amount(0.9, "above")) == num
        assert wanted("grow", candidate("a", 8, sigma, 8), Amount(0.9, "above", 8)) == 0
        assert wanted("grow", candidate("a", 6, sigma, 8), Amount(0.9, "above", 8)) == 2

    def test_advice_is_rounded_and_bounded_by_room(self):
        assert wanted("grow", candidate("a", 8, advised=5, most=4), Amount(0, "advised")) == 4
        assert wanted("grow", candidate("a", 8, advised=3, quantum=2), Amount(0, "advised")) == 4
        with pytest.raises(ValueError, match="advise"):
            wanted("grow", candidate("a", advised=None), Amount(0, "advised"))
