"""Selections that weigh gains against costs: the best element, one ranking, a linear programme."""

import random

import pytest
import torch

from coppice.methods.selection import BestGain, BudgetOptimal, GlobalRanking, LargestScore, Limit
from coppice.methods.selection.amount import Amount
from coppice.testing.selection import candidate, chosen


class TestBestGain:
    def found(self):
        wide = candidate("wide", 4, [4.0, 4, 0, 0], parameters=100.0, flops=10.0)
        return [wide, candidate("narrow", 4, [3.0, 3, 0, 0], parameters=10.0, flops=100.0)]

    @pytest.mark.parametrize(("per", "name"), [("unit", "wide"), ("parameter", "narrow"), ("flop", "wide")])
    def test_growing_divides_by_the_cost(self, per, name):
        assert list(chosen(BestGain(per).choose("grow", self.found(), Amount(2), Limit(), 0))) == [name]

    def test_the_cost_is_that_of_all_units_of_the_act(self):
        found = [candidate("many", 8, [3.0] * 8), candidate("few", 2, [4.0] * 2)]
        assert list(chosen(BestGain().choose("grow", found, Amount(0.5), Limit(), 0))) == ["many"]
        assert list(chosen(BestGain("parameter").choose("grow", found, Amount(0.5), Limit(), 0))) == ["few"]

    @pytest.mark.parametrize(("per", "name"), [("unit", "b"), ("parameter", "a"), ("flop", "b")])
    def test_pruning_loses_least_for_what_it_frees(self, per, name):
        found = [candidate("a", 4, [2.0] * 4, parameters=100.0, flops=1.0), candidate("b", 4, [1.0] * 4)]
        assert list(chosen(BestGain(per).choose("prune", found, Amount(2), Limit(), 0))) == [name]

    def test_what_has_no_known_cost_comes_last(self):
        free = candidate("free", 1, [99.0], most=1, parameters=0.0, level="insertion")
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
        found = [candidate("a", 4, [9.0, 0, 0, 0], most=4, quantum=2), candidate("b", 4, [5.0, 4, 1, 1], most=4)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(1), Limit(), 0)) == {"b": (0,)}
        assert chosen(GlobalRanking().choose("grow", found, Amount(3), Limit(), 0)) == {"a": (0, 1), "b": (0,)}
        assert chosen(GlobalRanking().choose("grow", found, Amount(2), Limit(), 0)) == {"a": (0, 1), "b": (0,)}

    def test_a_threshold_holds_for_the_scores_as_they_are_ranked(self):
        found = [candidate("a", 4, [4.0, 3, 1, 0], most=4), candidate("b", 4, [40.0, 10, 0, 0], most=4)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(2.0, "above"), Limit(), 0)) == {"a": (0, 1), "b": (0, 1)}
        assert chosen(GlobalRanking("max").choose("grow", found, Amount(0.5, "above"), Limit(), 0)) == {"a": (0, 1), "b": (0,)}

    def test_quanta_are_not_rounded_beyond_the_threshold(self):
        found = [candidate("a", 8, [4.0, 3, 2, 1, 0, 0], most=6, quantum=2)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(1.5, "above"), Limit(), 0)) == {"a": (0, 1)}
        assert chosen(GlobalRanking().choose("grow", found, Amount(0.5, "above"), Limit(), 0)) == {"a": (0, 1, 2, 3)}

    def test_advice_is_the_number_of_units_of_all_together(self):
        found = [candidate("a", 4, [4.0, 3, 1, 0], most=4, advised=1), candidate("b", 4, [0.1] * 4, most=4, advised=1)]
        assert chosen(GlobalRanking().choose("grow", found, Amount(0, "advised"), Limit(), 0)) == {"a": (0, 1)}


def brute_force(kind, candidates, budget, cost):
    """The best total score of all combinations of counts within the budget; when pruning: the least for the most removed."""
    best = (0.0, 0.0)
    for i in range(candidates[0].most + 1):
        for j in range(candidates[1].most + 1):
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
                found.append(candidate(name, 6, scores, most=6, parameters=cost, flops=cost * draws.choice([1.0, 9.0])))
            taken = chosen(BudgetOptimal("parameters").choose("grow", found, Amount(0.4), Limit(), 0))
            budget = 0.4 * sum(6 * c.parameters_per_unit for c in found)
            spent = sum(len(taken.get(c.element.name, ())) * c.parameters_per_unit for c in found)
            gain = sum(float(c.scores[: len(taken.get(c.element.name, ()))].sum()) for c in found)
            best, _ = brute_force("grow", found, budget, "parameters_per_unit")
            following = [float(c.scores[n]) for c in found if (n := len(taken.get(c.element.name, ()))) < 6]
            assert spent <= budget + 1e-9 and best <= gain + max(following, default=0.0) + 1e-6

    def test_a_cheap_layer_with_less_gain_is_preferred(self):
        found = [candidate("dear", 4, [4.0] * 4, parameters=100.0), candidate("cheap", 4, [3.0] * 4, most=4, parameters=10.0)]
        assert chosen(BudgetOptimal("parameters").choose("grow", found, Amount(40 / 440), Limit(), 0)) == {"cheap": (0, 1, 2, 3)}
        assert chosen(BudgetOptimal("parameters").choose("grow", found, Amount(3), Limit(), 0)) == {"dear": (0, 1, 2)}

    def test_pruning_removes_the_budget_at_the_least_importance(self):
        found = [candidate("a", 4, [1.0, 2, 3, 4], flops=100.0), candidate("b", 4, [1.0, 2, 3, 4], flops=10.0)]
        assert chosen(BudgetOptimal().choose("prune", found, Amount(200 / 440), Limit(), 0)) == {"a": (0, 1)}
        assert chosen(BudgetOptimal().choose("prune", found, Amount(310 / 440), Limit(), 0)) == {"a": (0, 1, 2), "b": (0,)}

    def test_both_limits_and_latency_bound_it_together(self):
        found = [
            candidate("a", 8, [2.0] * 8, most=8, parameters=10.0, flops=1.0, latency_per_unit=0.5),
            candidate("b", 8, [1.0] * 8, most=8, parameters=1.0, flops=10.0, latency_per_unit=0.0),
        ]
        taken = BudgetOptimal("latency").choose("grow", found, Amount(0.5), Limit(parameters=36.0, flops=55.0), 0)
        assert chosen(taken) == {"a": (0, 1, 2), "b": (0, 1, 2, 3, 4)}
        taken = BudgetOptimal("latency").choose("grow", found, Amount(0.25), Limit(), 0)
        assert chosen(taken) == {"a": (0, 1), "b": tuple(range(8))}

    def test_an_element_grows_no_more_than_said(self):
        found = [candidate("a", 4, [9.0] * 20, most=20), candidate("b", 4, [1.0] * 20, most=20)]
        assert chosen(BudgetOptimal().choose("grow", found, Amount(1.0), Limit(), 0)) == dict.fromkeys("ab", (0, 1, 2, 3))
        assert chosen(BudgetOptimal(most=2.0).choose("grow", found, Amount(1.0), Limit(), 0)) == {"a": tuple(range(8))}

        advised = [candidate("a", 4, [9.0] * 20, most=20, advised=7), candidate("b", 4, [1.0] * 20, most=20, advised=3)]
        taken = BudgetOptimal().choose("grow", advised, Amount(0, "advised"), Limit(), 0)
        assert chosen(taken) == {"a": (0, 1, 2, 3), "b": (0, 1, 2)}

    def test_quanta_count_with_all_their_units(self):
        found = [candidate("a", 4, [3.0] * 4, most=4, quantum=2), candidate("b", 4, [2.0] * 4, most=4)]
        assert chosen(BudgetOptimal().choose("grow", found, Amount(2), Limit(), 0)) == {"a": (0, 1)}

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
