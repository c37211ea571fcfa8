"""Effective rank is counted right; new units differ from those that there are; memory of the reference."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.adaptation.signals import SIGNALS, measure_signals
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.first_order.effective_rank import RankMemory, effective_rank, effective_ranks
from coppice.methods.growth.north import orthonormal_rows
from coppice.methods.measures.site import site_of
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import context, mixed


def test_the_effective_rank_of_a_matrix_by_hand():
    """Singular values of H / sqrt(n): 3, 0.5, 0.02, 0.005, 0 -> 3 of 5 are above 0.01."""
    torch.manual_seed(0)
    n = 50
    left = torch.linalg.qr(torch.randn(n, 5, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    h = left @ torch.diag(torch.tensor([3, 0.5, 0.02, 0.005, 0.0], dtype=torch.float64)) @ right.T * n**0.5
    assert effective_rank(h.T @ h / n) == 3 / 5
    assert effective_rank(h.T @ h / n, threshold=0.1) == 2 / 5


def linear(act=nn.Tanh, copies=0, width=8, batches=None):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, width), act(), nn.Linear(width, 4)).double()
    with torch.no_grad():
        for i in range(copies):
            module[0].weight[-1 - i], module[0].bias[-1 - i] = module[0].weight[0], module[0].bias[0]
    return context(module, torch.randn(200, 12, dtype=torch.float64), torch.randint(4, (200,)))


def test_copies_and_dead_units_lower_it():
    ctx = linear(copies=3)
    site = site_of(ctx.network, ctx.network.element("0.weight:0"))
    assert effective_ranks(ctx, {"a": site}, 1, 0.01) == {"a": 5 / 8}
    module = ctx.network.module
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = 0, 0
    assert effective_ranks(ctx, {"a": site}, 2, 0.01) == {"a": 4 / 8}


def test_positions_of_convolutions_and_behind_a_flatten_are_samples():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3)).double()
    inputs = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    ctx = context(module, inputs, torch.randint(3, (3,)))
    site = site_of(ctx.network, ctx.network.element("0.weight:0"))
    h = module[1](module[0](inputs)).movedim(1, -1).reshape(-1, 5)
    expected = float((torch.linalg.svdvals(h / len(h) ** 0.5) > 0.4).double().mean())
    assert effective_ranks(ctx, {"a": site}, 1, 0.4)["a"] == expected and 0 < expected < 1


def distances(ctx, element, count, candidates):
    """Relative distance of each new unit's activations to the span of the old ones' and of the new ones before it."""
    network = copy.deepcopy(ctx.network)
    ctx = replace(ctx, network=network, generator=torch.Generator().manual_seed(5))
    site = site_of(network, network.element(element))
    method = build("grow", "north", {"num_batches": 1, "candidates": candidates})
    at = network.element(element)
    apply(network, method.plan(ctx, at, range(count), method.measure(ctx, [at], {element: count})))
    inputs, _ = next(iter(ctx.batches(1)))
    h = network.module.eval()[:2](inputs).detach()
    h = h.movedim(1, -1).flatten(0, -2) if h.dim() == 4 else h
    basis = torch.linalg.qr(h).R
    return (basis.diagonal().abs() / h.norm(dim=0))[site.size :].mean().item()


@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_selected_units_are_farther_from_the_others_than_random_ones(act, kind):
    if kind == "linear":
        ctx = linear(act, width=24)
    else:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(2, 12, 3), act(), nn.Conv2d(12, 4, 3), nn.Flatten(), nn.Linear(64, 3)).double()
        ctx = context(module, torch.randn(16, 2, 8, 8, dtype=torch.float64), torch.randint(3, (16,)))
    best, drawn = (distances(ctx, "0.weight:0", 3, candidates) for candidates in (50, 1))
    assert best > 1.15 * drawn, (best, drawn)


def test_pre_activations_are_orthogonal_to_the_old_ones_and_to_each_other():
    ctx = linear(width=6)
    module = ctx.network.module
    inputs, _ = next(iter(ctx.batches(1)))
    element = ctx.network.element("0.weight:0")
    method = build("grow", "north", {"init": "pre"})
    apply(ctx.network, method.plan(ctx, element, range(4), method.measure(ctx, [element], {})))
    z = module[0](inputs).detach()
    z = z / z.norm(dim=0)
    assert (z[:, 6:].T @ z[:, :6]).abs().max() < 1e-9
    assert (z[:, 6:].T @ z[:, 6:] - torch.eye(4)).abs().max() < 1e-9


def test_weights_are_of_the_kernel_and_beyond_it_of_the_weakest_directions():
    ctx = linear(width=6)
    element = ctx.network.element("0.weight:0")
    method = build("grow", "north", {"init": "weight"})
    old = ctx.network.module[0].weight.detach().clone()
    apply(ctx.network, method.plan(ctx, element, range(6), method.measure(ctx, [element], {})))
    new = ctx.network.module[0].weight.detach()[6:]
    assert (old @ new.T).abs().max() < 1e-12
    assert torch.allclose(new.norm(dim=1), old.norm(dim=1).mean().expand(6))
    generator = torch.Generator().manual_seed(0)
    used = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    rows = orthonormal_rows(used, 2, generator)
    assert rows[:, :2].abs().max() < 1e-12 and torch.allclose(rows @ rows.T, torch.eye(2, dtype=torch.float64))
    many = orthonormal_rows(used, 7, generator)
    assert many.shape == (7, 4) and torch.allclose(many[:4] @ many[:4].T, torch.eye(4, dtype=torch.float64))


def test_the_excess_of_rank_is_advised():
    """5 of 8 directions used: 8 (5/8 - 0.5) = 1 unit; without memory the reference is full rank."""
    ctx = linear(copies=3)
    element = ctx.network.element("0.weight:0")
    advised = lambda c, gamma: build("grow", "north", {"gamma": gamma}).measure(c, [element], {}).advised[element.name]
    assert [advised(ctx, gamma) for gamma in (0.5, 0.6, 0.97)] == [1, 0, 0]
    memory = RankMemory()
    ctx = replace(ctx, companion=memory)
    assert advised(ctx, 0.8) == 1 and memory.known == {element.name: (5 / 8, 5 / 8)}
    with torch.no_grad():
        ctx.network.module[0].weight[0].neg_()
    assert advised(ctx, 0.8) == 2 and memory.known[element.name] == (5 / 8, 6 / 8), "the first measurement stays the reference"
    again = RankMemory()
    again.load(memory.tensors())
    assert again.known == memory.known


def test_convolutions_refer_to_the_largest_rank():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3)).double()
    ctx = context(module, torch.randn(16, 2, 8, 8, dtype=torch.float64), torch.randint(3, (16,)))
    memory = RankMemory()
    memory.known = {"0.weight:0": (0.25, 1.0)}
    measured = build("grow", "north", {"gamma": 0.9}).measure(
        replace(ctx, companion=memory), [ctx.network.element("0.weight:0")], {}
    )
    assert measured.advised == {"0.weight:0": 0}


def test_a_trial_grows_by_what_is_advised():
    ctx = replace(linear(copies=3), companion=RankMemory())
    result = adapt(ctx, Adaptation(build("grow", "north", {"gamma": 0.5}), All(), Amount(0, "advised")))
    assert [e.count for e in result.events] == [2] and result.events[0].function_change < 1e-12


def test_the_signal_is_the_rank_of_what_may_grow():
    ctx = linear(copies=3)
    method = build("grow", "north", {})
    assert SIGNALS["effective_rank"] and measure_signals(ctx, method, Scope(), ["effective_rank"]) == {
        "rank_best": 5 / 8,
        "rank_mean": 5 / 8,
    }
    ctx = mixed()
    signals = measure_signals(ctx, build("grow", "random", {}), Scope(), ["effective_rank"])
    assert 0 < signals["rank_mean"] < signals["rank_best"] <= 1
    assert measure_signals(ctx, method, Scope(elements=("stem*",)), ["effective_rank"]) == {}


def test_new_units_change_nothing_and_learn():
    ctx = linear()
    element = ctx.network.element("0.weight:0")
    for init in ("select", "pre", "weight", "random"):
        method = build("grow", "north", {"init": init})
        inputs, targets = next(iter(ctx.batches(1)))
        before = ctx.network.module(inputs)
        apply(ctx.network, method.plan(ctx, element, range(2), method.measure(ctx, [element], {})))
        assert (ctx.network.module(inputs) - before).abs().max() < 1e-12
        F.cross_entropy(ctx.network.module(inputs), targets).backward()
        assert (ctx.network.module[2].weight.grad[:, -2:].abs() > 0).all()
        element = ctx.network.element("0.weight:0")
