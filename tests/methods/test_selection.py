"""Selections choose what they say, within limits, and always the same."""

import random
from dataclasses import replace

import pytest
import torch

from methods.amount import Amount
from methods.catalog import SELECTIONS, build
from methods.selection import (
    All,
    BestGain,
    Budget,
    BudgetOptimal,
    Candidate,
    GlobalRanking,
    LargestScore,
    Learned,
    Limit,
    RandomElement,
    RoundRobin,
    nearest,
    possible_counts,
    wanted,
)
from tests.support.selection_contract import SelectionContract, candidate, chosen

VARIANTS = {
    "all": [{}],
    "round_robin": [{}],
    "best_gain": [{}, {"per": "parameter"}, {"per": "flop"}],
    "global": [{}, {"normalise": "mean"}, {"normalise": "max"}],
    "largest_score": [{}],
    "budget": [{}, {"cost": "parameters"}, {"cost": "latency"}, {"most": 0.5}],
    "random_element": [{}, {"seed": 3}],
    "learned": [{}],
}
OWN_SUITE: dict[str, str] = {}
"""Selections that need other candidates: name -> the test file with a subclass of the contract for them."""


@pytest.mark.parametrize(("name", "arguments"), [(n, a) for n, found in VARIANTS.items() for a in found])
class TestContract(SelectionContract):
    @pytest.fixture
    def selection(self, name, arguments):
        return build("selection", name, arguments)


def test_every_selection_of_the_table_is_tested():
    assert set(SELECTIONS) == set(VARIANTS) | set(OWN_SUITE) and not set(VARIANTS) & set(OWN_SUITE)


def test_all_takes_a_fraction_of_each_rounded_to_quanta():
    found = All().choose("prune", [candidate("a", 10), candidate("b", 6, quantum=2), candidate("c", 1)], Amount(0.3), Limit(), 0)
    assert chosen(found) == {"a": (0, 1, 2), "b": (0, 1)}


def test_counts_and_single_units():
    blocks = [candidate(n, 1, [float(i)], room=1, level="block") for i, n in enumerate("ab")]
    assert chosen(All().choose("prune", blocks, Amount(1.0), Limit(), 0)) == {"a": (0,), "b": (0,)}
    assert chosen(GlobalRanking().choose("prune", blocks, Amount(1.0), Limit(), 0)) == {"a": (0,)}
    assert chosen(GlobalRanking().choose("prune", blocks, Amount(0.5), Limit(), 0)) == {"a": (0,)}
    assert chosen(All().choose("prune", [candidate("a")], Amount(1), Limit(), 0)) == {"a": (0,)}
    assert len(All().choose("prune", [candidate("a")], Amount(3.0), Limit(), 0)[0].units) == 3


def test_growing_takes_no_more_than_was_offered():
    assert chosen(All().choose("grow", [candidate("a", 8, [2.0, 1.0], room=99)], Amount(1.0), Limit(), 0)) == {"a": (0, 1)}
    assert chosen(All().choose("grow", [candidate("a", 4, [], room=99)], Amount(1.0), Limit(), 0)) == {"a": (0, 1, 2, 3)}


def test_round_robin_goes_round_and_passes_over_what_is_full():
    found = [candidate("a"), candidate("b", room=0), candidate("c")]
    names = [RoundRobin().choose("prune", found, Amount(0.25), Limit(), turn)[0].element for turn in range(4)]
    assert names == ["a", "c", "c", "a"]


def test_best_gain_takes_the_largest_sum_or_the_least_important():
    found = [candidate("a", 4, [5.0, 0, 0, 0]), candidate("b", 4, [3.0, 3.0, 0, 0])]
    assert chosen(BestGain().choose("grow", found, Amount(0.5), Limit(), 0)) == {"b": (0, 1)}
    assert chosen(BestGain().choose("grow", found, Amount(0.25), Limit(), 0)) == {"a": (0,)}
    assert chosen(BestGain().choose("prune", found[::-1], Amount(0.5), Limit(), 0)) == {"b": (2, 3)}
    silent = [candidate(n, 4, [], room=4) for n in "ab"]
    assert [BestGain().choose("grow", silent, Amount(0.5), Limit(), t)[0].element for t in (0, 1, 2)] == ["a", "b", "a"]


def test_global_ranking_is_one_threshold():
    found = [candidate("a", 4, [0.1, 0.5, 0.2, 0.9]), candidate("b", 4, [5.0, 0.3, 6, 7])]
    assert chosen(GlobalRanking().choose("prune", found, Amount(3 / 8), Limit(), 0)) == {"a": (0, 2), "b": (1,)}
    uneven = [candidate("a", 2, [1.0, 2]), candidate("b", 2, [30.0, 100])]
    normalised = GlobalRanking("max").choose("prune", uneven, Amount(0.25), Limit(), 0)
    assert chosen(normalised) == {"b": (0,)}


def test_global_ranking_leaves_the_room_and_goes_on_elsewhere():
    found = [candidate("a", 4, [0.0, 0, 0, 0], room=1), candidate("b", 4, [1.0, 2, 3, 4], room=3)]
    assert chosen(GlobalRanking().choose("prune", found, Amount(0.5), Limit(), 0)) == {"a": (0,), "b": (0, 1, 2)}


def test_a_limit_is_spent_on_the_best_units():
    found = [candidate("a", 4, [5.0, 4, 1, 0], room=4), candidate("b", 4, [9.0, 0, 0, 0], room=4, parameters=25.0)]
    assert chosen(GlobalRanking().choose("grow", found, Amount(1.0), Limit(parameters=46.0), 0)) == {"a": (0, 1), "b": (0,)}


def test_millions_of_weights_are_ranked_at_once():
    big = [candidate(n, 400_000, torch.rand(400_000).tolist(), level="weight") for n in "ab"]
    found = GlobalRanking().choose("prune", big, Amount(0.5), Limit(), 0)
    assert sum(len(c.units) for c in found) == 400_000


class TestCounting:
    def test_every_count_is_possible_and_none_is_nearer(self):
        """Against a search through all counts, for many sizes, quanta, multiples and rooms."""
        draws = random.Random(0)
        for _ in range(3000):
            kind, quantum, multiple = draws.choice(["grow", "prune"]), draws.choice([1, 1, 2, 3, 4]), draws.choice([1, 2, 3, 8])
            size = quantum * draws.randint(1, 20)
            room = draws.randint(0, size)
            c = candidate("a", size, [0.0] * size, room, quantum)
            sign = 1 if kind == "grow" else -1
            fine = [n for n in range(1, room + 1) if n % quantum == 0 and (size + sign * n) % multiple == 0]
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
            left, c = budget.parameters, candidate("a", 60, parameters=cost)
            count = budget.spend(c, 60)
            assert count * cost <= left < (count + 1) * cost * (1 + 1e-12) or count == 60

    def test_nothing_is_free_when_nothing_is_left(self):
        assert Budget(0.0, None).spend(candidate(parameters=0.0), 3) == 0
        assert Budget(1.0, None).spend(candidate(parameters=0.0), 3) == 3

    def test_a_size_becomes_the_nearest_multiple(self):
        c = candidate("a", 10, [0.0] * 40, room=40)
        assert [wanted("grow", c, Amount(n, multiple=8)) for n in (1, 2, 3, 9, 10, 14)] == [0, 0, 6, 6, 14, 14]
        c = candidate("a", 10, [0.0] * 10, room=9)
        assert [wanted("prune", c, Amount(n, multiple=8)) for n in (1, 2, 9)] == [2, 2, 2]
        assert wanted("prune", candidate("a", 16, room=7), Amount(4, multiple=8)) == 0

    def test_a_multiple_holds_after_the_budget_as_well(self):
        c = candidate("a", 8, [1.0] * 40, room=40)
        for selection in (All(), RoundRobin(), BestGain(), GlobalRanking(), BudgetOptimal(most=8.0), LargestScore()):
            found = selection.choose("grow", [c], Amount(24, multiple=8), Limit(parameters=150.0), 0)
            assert len(found[0].units) == 8, selection

    def test_fractions_of_now_and_of_the_seed(self):
        c = candidate("a", 12, [1.0] * 40, room=40, seed_size=4)
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
        assert wanted("grow", candidate("a", 8, advised=5, room=4), Amount(0, "advised")) == 4
        assert wanted("grow", candidate("a", 8, advised=3, quantum=2), Amount(0, "advised")) == 4
        with pytest.raises(ValueError, match="advise"):
            wanted("grow", candidate("a", advised=None), Amount(0, "advised"))


class TestBestGain:
    def found(self):
        wide = candidate("wide", 4, [4.0, 4, 0, 0], parameters=100.0, flops=10.0)
        return [wide, candidate("narrow", 4, [3.0, 3, 0, 0], parameters=10.0, flops=100.0)]

    @pytest.mark.parametrize(("per", "name"), [("unit", "wide"), ("parameter", "narrow"), ("flop", "wide")])
    def test_growing_divides_by_the_cost(self, per, name):
        assert list(chosen(BestGain(per).choose("grow", self.found(), Amount(2), Limit(), 0))) == [name]

    @pytest.mark.parametrize(("per", "name"), [("unit", "b"), ("parameter", "a"), ("flop", "b")])
    def test_pruning_loses_least_for_what_it_frees(self, per, name):
        found = [candidate("a", 4, [2.0] * 4, parameters=100.0, flops=1.0), candidate("b", 4, [1.0] * 4)]
        assert list(chosen(BestGain(per).choose("prune", found, Amount(2), Limit(), 0))) == [name]

    def test_what_has_no_known_cost_comes_last(self):
        free = candidate("free", 1, [99.0], room=1, parameters=0.0, level="insertion")
        found = BestGain("parameter").choose("grow", [free, candidate("a")], Amount(1), Limit(), 0)
        assert list(chosen(found)) == ["a"]
        assert list(chosen(BestGain("parameter").choose("grow", [free], Amount(1), Limit(), 0))) == ["free"]

    def test_the_largest_score_is_another_choice(self):
        found = [candidate("a", 4, [5.0, 0, 0, 0]), candidate("b", 4, [3.0, 3.0, 0, 0])]
        assert chosen(LargestScore().choose("grow", found, Amount(0.5), Limit(), 0)) == {"a": (0, 1)}
        assert chosen(BestGain().choose("grow", found, Amount(0.5), Limit(), 0)) == {"b": (0, 1)}
        pruned = LargestScore().choose("prune", [candidate("a", 2, [2.0, 2]), candidate("b", 2, [9.0, 1])], Amount(1), Limit(), 0)
        assert chosen(pruned) == {"b": (1,)}


class TestRanking:
    def test_quanta_are_ranked_by_their_mean(self):
        found = [candidate("a", 4, [9.0, 0, 0, 0], room=4, quantum=2), candidate("b", 4, [5.0, 4, 1, 1], room=4)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(1), Limit(), 0)) == {"b": (0,)}
        assert chosen(GlobalRanking().choose("grow", found, Amount(3), Limit(), 0)) == {"a": (0, 1), "b": (0,)}
        assert chosen(GlobalRanking().choose("grow", found, Amount(2), Limit(), 0)) == {"a": (0, 1), "b": (0,)}

    def test_a_threshold_holds_for_the_scores_as_they_are_ranked(self):
        found = [candidate("a", 4, [4.0, 3, 1, 0], room=4), candidate("b", 4, [40.0, 10, 0, 0], room=4)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(2.0, "above"), Limit(), 0)) == {"a": (0, 1), "b": (0, 1)}
        assert chosen(GlobalRanking("max").choose("grow", found, Amount(0.5, "above"), Limit(), 0)) == {"a": (0, 1), "b": (0,)}

    def test_advice_is_the_number_of_units_of_all_together(self):
        found = [candidate("a", 4, [4.0, 3, 1, 0], room=4, advised=1), candidate("b", 4, [0.1] * 4, room=4, advised=1)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(0, "advised"), Limit(), 0)) == {"a": (0, 1)}


def brute_force(kind, candidates, budget, cost):
    """The best total score of all combinations of counts within the budget; when pruning: the least for the most removed."""
    best = (0.0, 0.0)
    for i in range(candidates[0].room + 1):
        for j in range(candidates[1].room + 1):
            scores = [c.scores.sort(descending=kind == "grow").values for c in candidates]
            spent = sum(n * getattr(c, cost) for n, c in zip((i, j), candidates, strict=True))
            total = float(scores[0][:i].sum() + scores[1][:j].sum())
            if spent <= budget + 1e-9:
                best = max(best, (total, -spent) if kind == "grow" else (spent, -total))
    return best


class TestBudgetOptimal:
    def test_is_the_best_of_all_choices_up_to_one_unit(self):
        """Growing: no combination within the budget gains more than the choice and one more unit of each constraint."""
        draws = random.Random(2)
        for _ in range(60):
            found = []
            for name in "ab":
                scores = sorted((draws.expovariate(1) for _ in range(6)), reverse=True)
                cost = draws.choice([5.0, 10.0, 40.0])
                found.append(candidate(name, 6, scores, room=6, parameters=cost, flops=cost * draws.choice([1.0, 9.0])))
            taken = chosen(BudgetOptimal("parameters").choose("grow", found, Amount(0.4), Limit(), 0))
            budget = 0.4 * sum(6 * c.parameters_per_unit for c in found)
            spent = sum(len(taken.get(c.element.name, ())) * c.parameters_per_unit for c in found)
            gain = sum(float(c.scores[: len(taken.get(c.element.name, ()))].sum()) for c in found)
            best, _ = brute_force("grow", found, budget, "parameters_per_unit")
            following = [float(c.scores[n]) for c in found if (n := len(taken.get(c.element.name, ()))) < 6]
            assert spent <= budget + 1e-9 and best <= gain + max(following, default=0.0) + 1e-6

    def test_a_cheap_layer_with_less_gain_is_preferred(self):
        found = [candidate("dear", 4, [4.0] * 4, parameters=100.0), candidate("cheap", 4, [3.0] * 4, room=4, parameters=10.0)]
        assert chosen(BudgetOptimal("parameters").choose("grow", found, Amount(40 / 440), Limit(), 0)) == {"cheap": (0, 1, 2, 3)}
        assert chosen(BudgetOptimal("parameters").choose("grow", found, Amount(3), Limit(), 0)) == {"dear": (0, 1, 2)}

    def test_pruning_removes_the_budget_at_the_least_importance(self):
        found = [candidate("a", 4, [1.0, 2, 3, 4], flops=100.0), candidate("b", 4, [1.0, 2, 3, 4], flops=10.0)]
        assert chosen(BudgetOptimal().choose("prune", found, Amount(200 / 440), Limit(), 0)) == {"a": (0, 1)}
        assert chosen(BudgetOptimal().choose("prune", found, Amount(310 / 440), Limit(), 0)) == {"a": (0, 1, 2), "b": (0,)}

    def test_both_limits_and_latency_bound_it_together(self):
        found = [
            candidate("a", 8, [2.0] * 8, room=8, parameters=10.0, flops=1.0, latency_per_unit=0.5),
            candidate("b", 8, [1.0] * 8, room=8, parameters=1.0, flops=10.0, latency_per_unit=0.0),
        ]
        taken = BudgetOptimal("latency").choose("grow", found, Amount(0.5), Limit(parameters=36.0, flops=55.0), 0)
        assert chosen(taken) == {"a": (0, 1, 2), "b": (0, 1, 2, 3, 4)}
        taken = BudgetOptimal("latency").choose("grow", found, Amount(0.25), Limit(), 0)
        assert chosen(taken) == {"a": (0, 1), "b": tuple(range(8))}

    def test_an_element_grows_no_more_than_said(self):
        found = [candidate("a", 4, [9.0] * 20, room=20), candidate("b", 4, [1.0] * 20, room=20)]
        assert chosen(BudgetOptimal().choose("grow", found, Amount(1.0), Limit(), 0)) == dict.fromkeys("ab", (0, 1, 2, 3))
        assert chosen(BudgetOptimal(most=2.0).choose("grow", found, Amount(1.0), Limit(), 0)) == {"a": tuple(range(8))}

    def test_tiny_gains_are_told_apart(self):
        found = [candidate("a", 4, [1e-12] * 4), candidate("b", 4, [3e-12] * 4)]
        assert chosen(BudgetOptimal().choose("grow", found, Amount(0.25), Limit(), 0)) == {"b": (0, 1)}

    def test_latency_must_be_measured(self):
        assert BudgetOptimal("latency").needs_latency and not BudgetOptimal().needs_latency
        with pytest.raises(ValueError, match="needs a measured latency_per_unit, but a has none"):
            BudgetOptimal("latency").choose("grow", [candidate("a")], Amount(0.5), Limit(), 0)

    def test_many_weights_are_taken_in_coarser_steps(self):
        big = [candidate(n, 50_000, torch.rand(50_000).tolist(), level="weight", flops=2.0) for n in "ab"]
        taken = BudgetOptimal().choose("prune", big, Amount(0.5), Limit(), 0)
        assert sum(len(c.units) for c in taken) == pytest.approx(50_000, rel=0.002)


class TestLearned:
    def test_is_as_many_as_advised(self):
        found = [candidate("a", 8, advised=3), candidate("b", 8, advised=0)]
        assert chosen(Learned().choose("prune", found, Amount(0, "advised"), Limit(), 0)) == {"a": (0, 1, 2)}
        assert Learned().choose("grow", found, Amount(0, "advised"), Limit(), 0) == All().choose(
            "grow", found, Amount(0, "advised"), Limit(), 0)

    def test_a_number_is_an_upper_bound(self):
        found = [candidate("a", 8, advised=3), candidate("b", 8, advised=1)]
        assert chosen(Learned().choose("prune", found, Amount(2), Limit(), 0)) == {"a": (0, 1), "b": (0,)}
        with pytest.raises(ValueError, match="says nothing of a"):
            Learned().choose("prune", [replace(found[0], advised=None)], Amount(2), Limit(), 0)


def test_random_elements_are_all_drawn_and_differ_by_seed():
    found = [candidate(n) for n in "abcd"]
    draws = [[RandomElement(s).choose("prune", found, Amount(1), Limit(), t)[0].element for t in range(40)] for s in (0, 1)]
    assert draws[0] != draws[1] and set(draws[0]) == set("abcd")
    full = [replace(c, room=0) for c in found[1:]]
    assert all(RandomElement().choose("prune", [found[0], *full], Amount(1), Limit(), t)[0].element == "a" for t in range(5))


def test_a_candidate_is_known_by_its_latency():
    assert Candidate(candidate().element, torch.empty(0), 1, 1, 1.0, 1.0, 1).latency_per_unit is None
