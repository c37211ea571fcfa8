"""Units that are scaled copies of others are merged exactly, behind every activation for which that can be."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.pruning.bases.merging import fan
from coppice.methods.pruning.condense import MERGED_INTO, scores_of
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import context, mixed, randomised

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CLONES = {1: (0, 2.5), 4: (0, 0.3), 6: (3, 1.7)}
"""Unit -> (the unit it is a copy of, factor)."""


def dense(activation, factors, dtype):
    """Linear, activation, Linear; some units are others times a factor."""
    module = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 3)).to(dtype)
    with torch.no_grad():
        for unit, (source, factor) in factors.items():
            module[0].weight[unit] = factor * module[0].weight[source]
            module[0].bias[unit] = factor * module[0].bias[source]
    return module, torch.randn(32, 5, dtype=dtype)


def convolutional(activation, factors, dtype):
    """Convolution, BatchNorm, activation, pooling, flatten, Linear: copies with scales, statistics and shifts of their own.

    The normalised outputs are copies whatever the rows' lengths; the scale and shift carry the factor.
    """
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), activation, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 3)]
    module = randomised(nn.Sequential(*layers)).to(dtype)
    conv, norm = module[0], module[1]
    with torch.no_grad():
        for unit, (source, factor) in factors.items():
            inner, shift = 0.1 + float(torch.rand(())), float(torch.randn(()))
            conv.weight[unit], conv.bias[unit] = inner * conv.weight[source], inner * conv.bias[source] + shift
            var = norm.running_var[source] + norm.eps
            norm.running_mean[unit] = inner * norm.running_mean[source] + shift
            norm.running_var[unit] = inner**2 * 2.0 * var - norm.eps
            norm.weight[unit], norm.bias[unit] = factor * 2.0**0.5 * norm.weight[source], factor * norm.bias[source]
    return module.eval(), torch.randn(16, 3, 6, 6, dtype=dtype)


def merged(module, inputs, amount="advised", **arguments):
    ctx = context(module, inputs, torch.arange(len(inputs)) % 3)
    before = copy.deepcopy(module).eval()(inputs).detach()
    result = adapt(ctx, Adaptation(build("prune", "condense", arguments), All(), Amount.read(amount)))
    change = (module.eval()(inputs) - before).detach().abs().max() / before.abs().max()
    return result, float(change)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2)], ids=["relu", "leaky"])
def test_scaled_copies_are_merged_exactly(activation, make, dtype):
    torch.manual_seed(0)
    result, change = merged(*make(activation, CLONES, dtype))
    (event,) = result.events
    assert len(event.units) == 3 and change < TOLERANCE[dtype], (event.units, change)
    assert len({0, 1, 4} - set(event.units)) == 1 and len({3, 6} - set(event.units)) == 1


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_odd_activations_take_signs_but_no_factors(dtype):
    torch.manual_seed(0)
    result, change = merged(*dense(nn.Tanh(), {1: (0, -1.0), 4: (2, 1.0), 6: (3, 2.0)}, dtype))
    (event,) = result.events
    assert len(event.units) == 2 and not {3, 6} & set(event.units) and change < TOLERANCE[dtype]


def test_opposite_units_behind_relu_are_not_alike():
    torch.manual_seed(0)
    result, _ = merged(*dense(nn.ReLU(), {1: (0, -1.0)}, torch.float64), cosine=0.99)
    assert not result.events


def test_layers_without_an_activation_take_any_factor():
    torch.manual_seed(0)
    result, change = merged(*dense(nn.Identity(), {1: (0, -2.0)}, torch.float64), cosine=0.999)
    assert len(result.events[0].units) == 1 and change < 1e-12


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.GELU(), nn.Softplus(), nn.Softmax(1)], ids=lambda a: type(a).__name__)
def test_other_activations_are_refused_with_the_reason(activation):
    torch.manual_seed(0)
    module, inputs = dense(activation, {}, torch.float32)
    ctx = context(module, inputs, torch.arange(32) % 3)
    reason = build("prune", "condense", {}).accepts(ctx, ctx.network.element("0.weight:0"))
    assert "homogeneous" in reason or "channel by channel" in reason


def test_the_variance_needs_its_root():
    """With running_var in place of sqrt(running_var + eps), as the published code has it, the copies would not be found."""
    torch.manual_seed(0)
    module, inputs = convolutional(nn.ReLU(), CLONES, torch.float64)
    ctx = context(module, inputs, torch.arange(16) % 3)
    fan_ins = fan(ctx, ctx.network.element("0.weight:0"))
    assert float(fan_ins.alike([1], [0])) == pytest.approx(1, abs=1e-12) and fan_ins.factor(1, 0) == pytest.approx(2.5, rel=1e-12)
    norm = module[1]
    with torch.no_grad():
        norm.running_var.copy_((norm.running_var + norm.eps).square() - norm.eps)  # now sqrt(var + eps) is what var + eps was
    assert fan(ctx, ctx.network.element("0.weight:0")).factor(1, 0) != pytest.approx(2.5, rel=0.05)


def test_nothing_is_merged_into_a_unit_that_goes_and_dead_units_go_first():
    vectors = torch.tensor([[1.0, 0], [2, 0.1], [3, 0.4], [0, 1], [0.1, 2], [-1, -1]], dtype=torch.float64)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    scores = scores_of(unit @ unit.T, vectors.norm(dim=1))
    assert scores[5] > 1 - 0.1 and (scores == MERGED_INTO).sum() >= 2
    gone = {i for i in range(6) if scores[i] < 0.05}
    assert gone == {0, 1, 3} or gone == {0, 2, 3}, scores
    torch.manual_seed(0)
    module, inputs = dense(nn.ReLU(), {}, torch.float64)
    with torch.no_grad():
        module[0].weight[5], module[0].bias[5] = 0, 0
    result, change = merged(module, inputs, amount=1)
    assert result.events[0].units == (5,) and change < 1e-12


def test_merging_near_copies_changes_less_than_removing_them():
    """The removal style `merge` of another method, on units that are almost copies."""
    torch.manual_seed(0)
    changes = {}
    for removal in ("immediate", "merge"):
        torch.manual_seed(0)
        module, inputs = dense(nn.ReLU(), CLONES, torch.float32)
        with torch.no_grad():
            module[0].weight.add_(0.02 * torch.randn(8, 5))
            for unit in CLONES:
                module[0].weight[unit] *= 1e-1
                module[0].bias[unit] *= 1e-1
                module[2].weight[:, unit] *= 5e-1
        ctx = context(module, inputs, torch.arange(32) % 3)
        result = adapt(ctx, Adaptation(build("prune", "magnitude", {"removal": removal}), All(), 3))
        assert result.events[0].units == tuple(CLONES)
        changes[removal] = result.events[0].function_change
    assert changes["merge"] < 0.2 * changes["immediate"], changes


def test_condensed_training_is_found():
    """Small initial weights condense into few directions (the paper's observation): most units can be merged at little loss."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    y = F.relu(2 * x - 0.4) - F.relu(-x - 0.1)
    module = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 1))
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.02)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(1000):
        optimizer.zero_grad()
        F.mse_loss(module(x), y).backward()
        optimizer.step()
    ctx = context(module, x, y, loss=F.mse_loss)
    before = F.mse_loss(module(x), y).item()
    result = adapt(ctx, Adaptation(build("prune", "condense", {"cosine": 0.98}), All(), Amount.read("advised")))
    after = F.mse_loss(module(x), y).item()
    assert before < 3e-3 and module[0].out_features <= 15 and after < before + 5e-3, (module, before, after, result)


def test_residual_streams_are_refused():
    ctx = mixed()
    assert "residual" in build("prune", "condense", {}).accepts(ctx, ctx.network.element("stem.weight:0"))
