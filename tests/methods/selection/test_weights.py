"""Erdos-Renyi-kernel and uniform densities, against hand computations and the published loop."""

import dataclasses
import math

import pytest
import torch

from coppice.methods.catalog import build
from coppice.methods.selection import Limit
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.weights import filled
from coppice.testing.selection import SelectionContract, candidate

VARIANTS = [
    ("erk", {}), ("erk", {"kernel": False, "power": 0.5}), ("erk", {"power": 0.0}), ("uniform", {}),
    ("uniform", {"first_dense": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str, scope="class")
class TestContract(SelectionContract):
    @pytest.fixture
    def selection(self, name, arguments):
        return build("selection", name, arguments)

    def candidates(self, kind):
        full = weights("full", (3, 4), active=12 if kind == "grow" else 1)
        return [*self.weights(kind), weights("conv", (4, 3, 2, 2), active=30), full]

    @pytest.mark.parametrize("kind", ["grow", "prune"])
    def test_chooses_layers_and_blocks_by_count(self, selection, kind):
        with pytest.raises(ValueError, match="x is of level block; use it with methods for weights"):
            selection.choose(kind, [candidate("x", 1, [1.0], most=1, level="block")] * 2, Amount(1), Limit(), 0)


def weights(name, shape, active=None, kind="prune", minimum=0):
    size = math.prod(shape)
    active = size if active is None else active
    num = size - active if kind == "grow" else active
    return candidate(
        name, size, torch.linspace(1, 0, num).tolist(), most=num if kind == "grow" else max(0, num - minimum), parameters=1.0,
        flops=0.0, level="weight", active=active, advised=1, shape=shape)  # fmt: skip


def left(selection, candidates, amount, kind="prune", **arguments):
    found = {c.element: len(c.units) for c in build("selection", selection, arguments).choose(
        kind, candidates, amount, Limit(), 0)}  # fmt: skip
    sign = 1 if kind == "grow" else -1
    return [c.active + sign * found.get(c.element.name, 0) for c in candidates]


def published(shapes, sparsity):
    """The loop of RigL's code: one more dense tensor at a time until no density is above 1."""
    sizes, dense = [math.prod(s) for s in shapes], set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in dense]
        raw = {i: sum(shapes[i]) / sizes[i] for i in rest}
        rhs = sum((1 - sparsity) * sizes[i] for i in rest) - sum(sparsity * sizes[i] for i in dense)
        epsilon = rhs / sum(raw[i] * sizes[i] for i in rest)
        highest = max(raw.values())
        if epsilon * highest <= 1:
            break
        dense |= {i for i in rest if raw[i] == highest}
    return [n if i in dense else n - math.floor((1 - epsilon * raw[i]) * n + 1e-9) for i, n in enumerate(sizes)]


def test_erk_by_hand():
    """100 x 100 and 10 x 40 at 80 % sparsity: raw 0.02 and 0.125, 2080 weights = epsilon (200 + 50), so epsilon = 8.32: the
    second one would be 104 % dense, is made dense, and leaves 1680 for the first."""
    found = left("erk", [weights("a", (100, 100)), weights("b", (10, 40))], Amount(0.8))
    assert found == [1680, 400]
    found = left("erk", [weights("a", (100, 100)), weights("b", (10, 40))], Amount(0.9))
    assert found == [832, 208]  # epsilon = 4.16


def test_a_convolution_by_hand_with_and_without_kernel():
    """(8, 4, 3, 3): 288 weights, raw 18/288 or 12/32; (20, 30): 600 weights, raw 50/600. Half of 888 is 444."""
    candidates = [weights("conv", (8, 4, 3, 3)), weights("fc", (20, 30))]
    assert left("erk", candidates, Amount(0.5)) == [math.ceil(444 * 18 / 68), math.ceil(444 * 50 / 68)]  # 117.5 and 326.5
    assert left("erk", candidates, Amount(0.5), kernel=False) == [288, 156]  # shares 108 and 50: the first would have 303
    assert left("uniform", candidates, Amount(0.5)) == [144, 300]
    assert left("uniform", candidates, Amount(0.5), first_dense=True) == [288, 300]


SHAPES = [(16, 3, 3, 3), (32, 16, 3, 3), (32, 32, 1, 1), (64, 32, 3, 3), (64, 100), (100, 10)]


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.9, 0.95, 0.98])
def test_erk_from_dense_is_the_published_division(sparsity):
    candidates = [weights(str(i), s) for i, s in enumerate(SHAPES)]
    assert left("erk", candidates, Amount(sparsity)) == published(SHAPES, sparsity)


def test_step_by_step_arrives_where_one_step_does():
    sparse = [weights(str(i), s) for i, s in enumerate(SHAPES)]
    for _ in range(4):
        sparse = [weights(c.element.name, c.shape, n) for c, n in zip(sparse, left("erk", sparse, Amount(0.4)), strict=True)]
    total = sum(math.prod(s) for s in SHAPES)
    at_once = published(SHAPES, 1 - sum(c.active for c in sparse) / total)
    assert sum(c.active for c in sparse) == pytest.approx(0.6**4 * total, abs=24)
    assert all(abs(c.active - n) <= 8 for c, n in zip(sparse, at_once, strict=True))


def test_uneven_tensors_are_evened_out_and_none_goes_the_wrong_way():
    pruned = left("uniform", [weights("a", (10, 10), 90), weights("b", (10, 10), 20)], Amount(30))
    assert pruned == [60, 20]
    grown = left("uniform", [weights("a", (10, 10), 90, "grow"), weights("b", (10, 10), 20, "grow")], Amount(30), "grow")
    assert grown == [90, 50]


def test_a_limit_is_shared_by_shape_too():
    candidates = [weights("a", (10, 10)), weights("b", (10, 30))]
    found = build("selection", "uniform", {}).choose("prune", candidates, Amount(0.5), Limit(parameters=40.0), 0)
    assert [len(c.units) for c in found] == [10, 30]


def test_the_least_important_weights_of_a_tensor_go():
    c = weights("a", (4, 5))
    (choice,) = build("selection", "erk", {}).choose("prune", [c], Amount(0.25), Limit(), 0)
    assert choice.units == (15, 16, 17, 18, 19)


def test_filled_meets_its_total_within_its_bounds():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        shares, low, extra = (torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(3))
        high = low + extra
        total = float(low.sum() + (high - low).sum() * torch.rand(1, generator=generator))
        found = filled(shares, low, high, total)
        assert float(found.sum()) == pytest.approx(total, rel=1e-12)
        assert (found >= low - 1e-12).all() and (found <= high + 1e-12).all()
        free = (found > low + 1e-9) & (found < high - 1e-9)
        factors = (found / shares)[free]
        assert not len(factors) or float(factors.max() - factors.min()) < 1e-9
        assert torch.equal(filled(shares, low, high, -9.0), low) and torch.equal(filled(shares, low, high, 99.0), high)


def test_candidates_without_room_stay():
    stuck = dataclasses.replace(weights("a", (10, 10)), most=0)
    assert left("erk", [stuck, weights("b", (10, 10))], Amount(0.25)) == [100, 50]
