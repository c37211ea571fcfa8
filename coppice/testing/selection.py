"""What every selection must keep: subclass the suite and say in `make` what is tested."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

from coppice.methods.graph.values import Element, Level
from coppice.methods.selection import Candidate, Choice, Limit, Selection, offered
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import SIZED

AMOUNTS = (
    Amount(0.1), Amount(0.25), Amount(0.5), Amount(1.0), Amount(3), Amount(2.0), Amount(100), Amount(0.5, "seed"),
    Amount(2, "seed"), Amount(0.9, "above"), Amount(-1.0, "above"), Amount(0, "advised"), Amount(0.3, multiple=4),
    Amount(5, multiple=8), Amount(0.9, "above", 2), Amount(0, "advised", 4), Amount(0.25, "seed", 3),
)  # fmt: skip
LIMITS = (
    Limit(), Limit(parameters=45.0), Limit(flops=350.0), Limit(parameters=200.0, flops=399.0), Limit(flops=9.0),
    Limit(parameters=0.0),
)  # fmt: skip


def candidate(
    name: str = "a", size: int = 8, scores: Sequence[float] | None = None, most: int | None = None, quantum: int = 1,
    parameters: float = 10.0, flops: float = 100.0, level: Level = "channel", **more: Any,
) -> Candidate:  # fmt: skip
    """A candidate whose scores are 0, 1, 2, ... unless they are given."""
    element = Element(name, level, size, quantum=quantum)
    given = torch.arange(float(size)) if scores is None else torch.tensor(scores)
    known = {"seed_size": size, "active": size, "advised": 2, **more}
    return Candidate(
        element, given, size - 1 if most is None else most, parameters_per_unit=parameters, flops_per_unit=flops, **known
    )


def chosen(choices: Iterable[Choice]) -> dict[str, tuple[int, ...]]:
    """Units by element."""
    return {c.element: tuple(c.units) for c in choices}


class SelectionContract:
    """Selections that take single weights only override `candidates`."""

    def make(self) -> Selection:
        """The selection under test: override this."""
        raise NotImplementedError(f"{type(self).__name__} must have a method `make` that returns what is tested.")

    @pytest.fixture
    def selection(self) -> Selection:
        """What `make` returns, new for each test."""
        return self.make()

    def candidates(self, kind: str) -> list[Candidate]:
        """Of several sizes, costs, quanta and kinds of scores; the last one is full, or offers nothing."""
        scores = ([5.0, 4, 3, 2, 1, 0.5, 0.2, 0.1], [9.0, 1, 0.9, 0.8, 0.01, 0, 0, 0], [3.0] * 8, [2.0, 1.5])
        more: dict[str, Any] = {"latency_per_unit": 1e-4}
        return [
            candidate("a", 8, scores[0], most=6, seed_size=4, **more),
            candidate("b", 10, scores[1], most=6, quantum=2, parameters=25.0, flops=30.0, advised=3, **more),
            candidate("c", 8, scores[2], most=7, level="head", flops=160.0, advised=0, **more),
            candidate("d", 2, scores[3], most=0, **more),
        ]

    def weights(self, kind: str) -> list[Candidate]:
        """Single weights: masked ones that may come back, active ones that may go."""
        torch.manual_seed(0)
        candidates = []
        for name, (rows, columns) in {"w": (6, 10), "v": (5, 8)}.items():
            num = rows * columns
            active = num // 2
            scores = torch.rand(num - active if kind == "grow" else active)
            scores = scores.sort(descending=True).values if kind == "grow" else scores
            candidates.append(candidate(
                name, num, scores.tolist(), most=len(scores) - 1, parameters=1.0, flops=2.0, level="weight", active=active,
                advised=5, shape=(rows, columns), latency_per_unit=1e-6))  # fmt: skip
        return candidates

    def choose(
        self, selection: Selection, kind: str, candidates: list[Candidate], amount: Amount, limit: Limit = LIMITS[0],
        turn: int = 1,
    ) -> list[Choice]:  # fmt: skip
        """Choose, and check everything that holds for any choice."""
        choices = selection.choose(kind, candidates, amount, limit, turn)
        by_name = {c.element.name: c for c in candidates}
        assert len({c.element for c in choices}) == len(choices)
        for choice in choices:
            c = by_name[choice.element]
            assert 0 < len(choice.units) <= offered(kind, c), (choice, amount)
            assert len(choice.units) % c.element.quantum == 0, (choice, amount)
            assert len(set(choice.units)) == len(choice.units)
            self.check_units(kind, c, choice.units)
            size = c.active + (len(choice.units) if kind == "grow" else -len(choice.units))
            assert c.element.level not in SIZED or size % amount.multiple == 0, (choice, amount)
        for name, most in dataclasses.asdict(limit).items():
            spent = sum(len(c.units) * getattr(by_name[c.element], f"{name}_per_unit") for c in choices)
            assert most is None or spent <= most, (choices, amount, limit)
        return choices

    def check_units(self, kind: str, c: Candidate, units: Sequence[int]) -> None:
        """Growing takes the first of what is offered, pruning the lowest scores."""
        if kind == "grow":
            assert list(units) == list(range(len(units)))
        else:
            assert set(units) <= set(range(len(c.scores)))
            left = [s for i, s in enumerate(c.scores.tolist()) if i not in set(units)]
            assert not left or max(c.scores[list(units)].tolist()) <= min(left)

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_stays_within_room_quantum_multiple_and_limit(self, selection: Selection, kind: str) -> None:
        somewhere = False
        for amount, limit, turn in itertools.product(AMOUNTS, LIMITS, (0, 3)):
            somewhere |= bool(self.choose(selection, kind, self.candidates(kind), amount, limit, turn))
        assert somewhere

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_chooses_single_weights(self, selection: Selection, kind: str) -> None:
        for amount in AMOUNTS:
            choices = self.choose(selection, kind, self.weights(kind), amount)
            assert choices or amount.of == "above"

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_chooses_layers_and_blocks_by_count(self, selection: Selection, kind: str) -> None:
        rows: tuple[tuple[str, float, Level], ...] = (("x", 0.3, "block"), ("y", 0.1, "layer"), ("z", 0.2, "block"))
        blocks = [
            candidate(n, 1, [s], most=1, level=level, advised=1, latency_per_unit=1e-3)
            for n, s, level in rows
        ]
        for amount in (Amount(1), Amount(1.0), Amount(0, "advised", 8)):
            assert self.choose(selection, kind, blocks, amount), amount

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_is_deterministic_and_touches_nothing(self, selection: Selection, kind: str) -> None:
        for candidates in (self.candidates(kind), self.weights(kind)):
            before = copy.deepcopy(candidates)
            first, second = (selection.choose(kind, candidates, Amount(0.5), Limit(), 2) for _ in range(2))
            assert first == second != []
            for old, new in zip(before, candidates, strict=True):
                assert torch.equal(old.scores, new.scores) and old.element == new.element and old.most == new.most

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_an_amount_that_rounds_to_zero_chooses_nothing(self, selection: Selection, kind: str) -> None:
        assert selection.choose(kind, self.candidates(kind), Amount(0.001), Limit(), 0) == []

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_nothing_is_chosen_of_nothing(self, selection: Selection, kind: str) -> None:
        full = [dataclasses.replace(c, most=0) for c in self.candidates(kind)]
        for amount in AMOUNTS:
            assert selection.choose(kind, [], amount, Limit(), 0) == []
            assert selection.choose(kind, full, amount, Limit(), 0) == []

    def test_growth_without_predictions_chooses_by_room_alone(self, selection: Selection) -> None:
        silent = [dataclasses.replace(c, scores=torch.empty(0)) for c in self.candidates("grow")]
        for limit in LIMITS:
            choices = self.choose(selection, "grow", silent, Amount(0.5), limit)
            assert choices or limit != Limit()
        assert self.choose(selection, "grow", silent, Amount(0, "advised"))

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_advice_that_is_missing_is_an_error(self, selection: Selection, kind: str) -> None:
        silent = [dataclasses.replace(c, advised=None) for c in self.candidates(kind)]
        with pytest.raises(ValueError, match="advise"):
            selection.choose(kind, silent, Amount(0, "advised"), Limit(), 0)

    def test_says_what_it_is(self, selection: Selection) -> None:
        assert selection.why and selection.paper
