"""Selections choose what they say, within limits, and always the same."""

import pytest
import torch

from methods.amount import Amount
from methods.catalog import SELECTIONS, build
from methods.graph.values import Element
from methods.selection import All, BestGain, Candidate, GlobalRanking, Limit, RoundRobin


def candidate(name="a", size=8, scores=None, room=None, quantum=1, parameters=10.0, flops=100.0, level="channel"):
    element = Element(name, level, size, quantum=quantum)
    scores = torch.arange(float(size)) if scores is None else torch.tensor(scores)
    return Candidate(element, scores, size - 1 if room is None else room, size, parameters, flops, active=size)


def chosen(found):
    return {c.element: c.units for c in found}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("kind", ["grow", "prune"])
class TestContract:
    def candidates(self, kind):
        scores = [[5.0, 4, 3, 2, 1, 0.5, 0.2, 0.1], [9.0, 1, 0.9, 0.8, 0.01, 0, 0, 0], [3.0] * 8]
        return [candidate(n, 8, s, room=6, quantum=q) for n, s, q in zip("abc", scores, (1, 2, 1), strict=True)]

    def test_stays_within_room_quantum_and_limit(self, name, kind):
        for amount in (0.1, 0.25, 0.5, 1.0, 3, 100):
            for limit in (Limit(), Limit(parameters=45.0), Limit(flops=350.0), Limit(parameters=0.0)):
                found = build("selection", name, {}).choose(kind, self.candidates(kind), Amount(amount), limit, 1)
                by_name = {c.element.name: c for c in self.candidates(kind)}
                assert len({c.element for c in found}) == len(found)
                for choice in found:
                    c = by_name[choice.element]
                    assert 0 < len(choice.units) <= c.room and len(choice.units) % c.element.quantum == 0
                    assert len(set(choice.units)) == len(choice.units) and set(choice.units) <= set(range(8))
                num = sum(len(c.units) for c in found)
                assert limit.parameters is None or num * 10 <= limit.parameters
                assert limit.flops is None or num * 100 <= limit.flops

    def test_is_deterministic(self, name, kind):
        selection = build("selection", name, {})
        first, second = (selection.choose(kind, self.candidates(kind), Amount(0.5), Limit(), 2) for _ in range(2))
        assert first == second != []

    def test_an_amount_that_rounds_to_zero_chooses_nothing(self, name, kind):
        assert build("selection", name, {}).choose(kind, self.candidates(kind), Amount(0.001), Limit(), 0) == []

    def test_nothing_is_chosen_of_nothing(self, name, kind):
        assert build("selection", name, {}).choose(kind, [], Amount(0.5), Limit(), 0) == []


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
