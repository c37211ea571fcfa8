"""Selections choose what they say, within limits, and always the same."""

from dataclasses import replace

import pytest
import torch

from coppice.methods.catalog import SELECTIONS, build
from coppice.methods.selection import All, BestGain, Candidate, GlobalRanking, Learned, Limit, RandomElement, RoundRobin
from coppice.methods.selection.amount import Amount
from coppice.testing.selection import SelectionContract, candidate, chosen

VARIANTS = {
    "all": [{}],
    "round_robin": [{}],
    "best_gain": [{}, {"per": "parameter"}, {"per": "flop"}],
    "global": [{}, {"normalise": "mean"}, {"normalise": "max"}],
    "largest_score": [{}],
    "budget": [{}, {"of": "parameters"}, {"of": "latency"}, {"most": 0.5}],
    "random_element": [{}, {"seed": 3}],
    "learned": [{}],
}
OWN_SUITE: dict[str, str] = {"erk": "test_selection_weights.py", "uniform": "test_selection_weights.py"}
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
    blocks = [candidate(n, 1, [float(i)], most=1, level="block") for i, n in enumerate("ab")]
    assert chosen(All().choose("prune", blocks, Amount(1.0), Limit(), 0)) == {"a": (0,), "b": (0,)}
    assert chosen(GlobalRanking().choose("prune", blocks, Amount(1.0), Limit(), 0)) == {"a": (0,)}
    assert chosen(GlobalRanking().choose("prune", blocks, Amount(0.5), Limit(), 0)) == {"a": (0,)}
    assert chosen(All().choose("prune", [candidate("a")], Amount(1), Limit(), 0)) == {"a": (0,)}
    assert len(All().choose("prune", [candidate("a")], Amount(3), Limit(), 0)[0].units) == 3


def test_growing_takes_no_more_than_was_offered():
    assert chosen(All().choose("grow", [candidate("a", 8, [2.0, 1.0], most=99)], Amount(1.0), Limit(), 0)) == {"a": (0, 1)}
    assert chosen(All().choose("grow", [candidate("a", 4, [], most=99)], Amount(1.0), Limit(), 0)) == {"a": (0, 1, 2, 3)}


def test_round_robin_goes_round_and_passes_over_what_is_full():
    found = [candidate("a"), candidate("b", most=0), candidate("c")]
    names = [RoundRobin().choose("prune", found, Amount(0.25), Limit(), turn)[0].element for turn in range(4)]
    assert names == ["a", "c", "c", "a"]


def test_best_gain_takes_the_largest_sum_or_the_least_important():
    found = [candidate("a", 4, [5.0, 0, 0, 0]), candidate("b", 4, [3.0, 3.0, 0, 0])]
    assert chosen(BestGain().choose("grow", found, Amount(0.5), Limit(), 0)) == {"b": (0, 1)}
    assert chosen(BestGain().choose("grow", found, Amount(0.25), Limit(), 0)) == {"a": (0,)}
    assert chosen(BestGain().choose("prune", found[::-1], Amount(0.5), Limit(), 0)) == {"b": (2, 3)}
    silent = [candidate(n, 4, [], most=4) for n in "ab"]
    assert [BestGain().choose("grow", silent, Amount(0.5), Limit(), t)[0].element for t in (0, 1, 2)] == ["a", "b", "a"]


def test_global_ranking_is_one_threshold():
    found = [candidate("a", 4, [0.1, 0.5, 0.2, 0.9]), candidate("b", 4, [5.0, 0.3, 6, 7])]
    assert chosen(GlobalRanking().choose("prune", found, Amount(3 / 8), Limit(), 0)) == {"a": (0, 2), "b": (1,)}
    uneven = [candidate("a", 2, [1.0, 2]), candidate("b", 2, [30.0, 100])]
    normalised = GlobalRanking("max").choose("prune", uneven, Amount(0.25), Limit(), 0)
    assert chosen(normalised) == {"b": (0,)}


def test_global_ranking_leaves_the_room_and_goes_on_elsewhere():
    found = [candidate("a", 4, [0.0, 0, 0, 0], most=1), candidate("b", 4, [1.0, 2, 3, 4], most=3)]
    assert chosen(GlobalRanking().choose("prune", found, Amount(0.5), Limit(), 0)) == {"a": (0,), "b": (0, 1, 2)}


def test_a_limit_is_spent_on_the_best_units():
    found = [candidate("a", 4, [5.0, 4, 1, 0], most=4), candidate("b", 4, [9.0, 0, 0, 0], most=4, parameters=25.0)]
    assert chosen(GlobalRanking().choose("grow", found, Amount(1.0), Limit(parameters=46.0), 0)) == {"a": (0, 1), "b": (0,)}


def test_millions_of_weights_are_ranked_at_once():
    big = [candidate(n, 400_000, torch.rand(400_000).tolist(), level="weight") for n in "ab"]
    found = GlobalRanking().choose("prune", big, Amount(0.5), Limit(), 0)
    assert sum(len(c.units) for c in found) == 400_000


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
    full = [replace(c, most=0) for c in found[1:]]
    assert all(RandomElement().choose("prune", [found[0], *full], Amount(1), Limit(), t)[0].element == "a" for t in range(5))


def test_a_candidate_is_known_by_its_latency():
    assert Candidate(candidate().element, torch.empty(0), 1, 1, 1.0, 1.0, 1).latency_per_unit is None
