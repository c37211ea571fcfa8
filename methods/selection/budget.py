"""The best choice for a budget: a linear programme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linprog

from coppice.methods.parameters import parameter
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import SIZED, at_most, base, is_count, possible_counts, requested, take
from coppice.methods.selection.ranking import Steps
from coppice.methods.selection.values import Candidate, Choice, Limit, Selection

MOST_STEPS = 1000
"""Steps of one candidate in the programme: more units than that are taken in larger steps."""
SLACK = 1e-7


@dataclass(frozen=True)
class BudgetOptimal(Selection):
    """The units with the largest total gain (least total importance when pruning) for a budget of parameters, FLOPs or latency.

    Of step i of a candidate's units, best first, a share 0 <= beta_i <= 1 is taken: growing maximises sum(beta_i gain_i) with
    sum(beta_i cost_i) <= amount x (cost of all units that there are); pruning removes as much cost as that, or as near as the
    units and limit allow, with the least sum(beta_i importance_i). Steps with beta >= 0.99 are taken, so that a budget is never
    exceeded and less than one step of each of the few constraints is left. Gains are taken for additive, costs for linear.

    A count as amount bounds the number of units instead, `above` and `advised` the units of each element. Where growth predicts
    nothing every unit promises the same, and the cheapest are added. Latency is measured when it acts, so that choices by it are
    not reproducible bit by bit.
    """

    why = "the most gain for a given cost: a wide cheap layer may beat a promising dear one"
    paper = "Wang et al. 2019, energy-aware splitting (arXiv 1910.03103), whose cost is the square root of FLOPs"
    by_element = False

    of: str = parameter("flops", "what the budget is made of", choices=("parameters", "flops", "latency"))
    most: float = parameter(
        1.0, "largest growth of a channel, head or group element in one act, relative to its size", low=0.01, high=64.0, log=True
    )

    @property
    def needs_latency(self) -> bool:
        """See `Selection.needs_latency`."""
        return self.of == "latency"

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`.

        Raises:
            ValueError: the budget is one of latency, but a candidate comes without a measured one.
        """
        ready = self._ready(kind, candidates)
        steps = [Steps.of(kind, c, amount.multiple, self._most(kind, c, amount)) for c in ready]
        if not any(len(s.sizes) for s in steps):
            return []
        owner = np.concatenate([np.full(len(s.sizes), i) for i, s in enumerate(steps)])
        sizes = torch.cat([s.sizes for s in steps]).numpy()
        scores = torch.cat([s.scores for s in steps]).numpy() * sizes
        prices = np.array([self._price(c) for c in ready])
        counting = amount.of in ("now", "seed") and is_count(amount, [base(amount, c) for c in ready])
        driver = sizes if counting else sizes * prices[owner]
        bounds = [(sizes * np.array([c.parameters_per_unit for c in ready])[owner], limit.parameters)]
        bounds.append((sizes * np.array([c.flops_per_unit for c in ready])[owner], limit.flops))
        if amount.of in ("now", "seed"):
            total = amount.value * sum(p * base(amount, c) for p, c in zip(prices, ready, strict=True))
            bounds.append((driver, amount.value if counting else float(total)))
        taken = _solve(kind, scores, driver, [(row, bound) for row, bound in bounds if bound is not None])
        units = np.bincount(owner, weights=sizes * (taken >= 0.99), minlength=len(ready)).tolist()
        counts = [at_most(possible_counts(kind, c, amount.multiple), n) for c, n in zip(ready, units, strict=True)]
        return [take(kind, c, n) for c, n in zip(ready, counts, strict=True) if n > 0]

    def _ready(self, kind: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates with scores; equal ones where growth predicts nothing; weights in coarser steps where there are many."""
        scored = [c for c in candidates if len(c.scores)]
        if kind == "grow" and not scored:
            scored = [replace(c, scores=torch.ones(int(min(c.most, max(1.0, self.most) * max(c.active, 1))))) for c in candidates]
        return [_coarse(c) if len(c.scores) > MOST_STEPS else c for c in scored]

    def _price(self, candidate: Candidate) -> float:
        if self.of == "parameters":
            return candidate.parameters_per_unit
        if self.of == "flops":
            return candidate.flops_per_unit
        if candidate.latency_per_unit is None:
            name = candidate.element.name
            raise ValueError(f"selection budget of latency needs a measured latency_per_unit, but {name} has none.")
        return candidate.latency_per_unit

    def _most(self, kind: str, candidate: Candidate, amount: Amount) -> float:
        """Most units that may be taken of a candidate."""
        own = requested(kind, candidate, amount)
        bounded = kind == "grow" and candidate.element.level in SIZED
        grown = self.most * candidate.active if bounded else float("inf")
        return grown if own is None else min(own, grown)


def _coarse(candidate: Candidate) -> Candidate:
    """The same single weights in at most `MOST_STEPS` steps."""
    if candidate.element.level != "weight":
        return candidate
    return replace(candidate, element=replace(candidate.element, quantum=-(-len(candidate.scores) // MOST_STEPS)))


Bound = tuple[np.ndarray, float]
"""(cost of each step, most that all taken steps may cost)."""


def _solve(kind: str, scores: np.ndarray, driver: np.ndarray, bounds: Sequence[Bound]) -> np.ndarray:
    """Shares of the steps that are taken: the most gain, or the most of `driver` for the least importance."""
    if kind == "grow":
        return _programme(scores, bounds)
    best = _programme(driver, bounds)
    reached = float(driver @ best)
    return _programme(-scores, [*bounds, (-driver, -reached * (1 - SLACK))])


def _programme(value: np.ndarray, bounds: Sequence[Bound]) -> np.ndarray:
    """The shares in [0, 1] with the largest value within bounds. Rows and values are scaled to at most 1, for the tolerances."""
    scales = [max(float(np.abs(row).max()), 1e-300) for row, _ in bounds]
    rows = np.stack([row / s for (row, _), s in zip(bounds, scales, strict=True)]) if bounds else None
    most = [bound / s for (_, bound), s in zip(bounds, scales, strict=True)] if bounds else None
    objective = -value / max(float(np.abs(value).max()), 1e-300)
    solution = linprog(objective, A_ub=rows, b_ub=most, bounds=(0, 1), method="highs-ds")
    if not solution.success:
        raise RuntimeError(f"the linear programme of selection budget must have a solution, but: {solution.message}")
    return np.asarray(solution.x)
