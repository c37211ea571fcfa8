"""Every way to deepen a network starts as it says; the sensitivity finds the place that asks for a layer."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import build
from coppice.methods.selection import All, BestGain
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import context, mixed


def network(act=nn.ReLU):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), act(), nn.Linear(8, 7), act(), nn.Linear(7, 3)).double()
    return context(module, torch.randn(24, 6, dtype=torch.float64), torch.randint(3, (24,)))


def deepened(ctx, selection=None, amount=1, rules=None, **arguments):
    return adapt(ctx, Adaptation(build("grow", "deepen", arguments), selection or All(), amount, rules or Scope()))


@pytest.mark.parametrize(
    "arguments", [{"block": "identity"}, {"block": "residual"}, {"block": "identity", "batch_norm_inside": True}]
)
def test_the_function_stays_and_every_place_gets_one(arguments):
    ctx = network()
    inputs, _ = next(iter(ctx.batches(1)))
    before = ctx.network.module(inputs)
    result = deepened(ctx, **arguments, rules=Scope(elements=("after:1", "after:3")))
    assert len(result.events) == 2
    assert (copy.deepcopy(ctx.network.module).eval()(inputs) - before).abs().max() < 1e-12
    kinds = [m for m in ctx.network.module.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(kinds) == (2 if "batch_norm_inside" in arguments else 0)


def test_an_identity_with_batch_norm_keeps_the_function_in_training_too():
    """Scale and shift are the deviation and mean of the batch that it was planned on (Net2DeeperNet's data pass)."""
    ctx = network()
    inputs, _ = next(iter(ctx.batches(1)))
    before = ctx.network.module(inputs)
    deepened(ctx, block="identity", batch_norm_inside=True, rules=Scope(elements=("after:1",)))
    norm = next(m for m in ctx.network.module.modules() if isinstance(m, nn.BatchNorm1d))
    assert torch.allclose(norm.weight, (norm.running_var + norm.eps).sqrt()) and norm.running_var.var() > 0
    assert (copy.deepcopy(ctx.network.module).train()(inputs) - before).abs().max() < 1e-12


@pytest.mark.parametrize("last", ["normal", "uniform", "zero"])
def test_autogrow_draws_weight_and_bias_of_the_last_norm(last):
    ctx = mixed()
    method = build("grow", "deepen", {"block": "duplicate", "last": last})
    (event,) = adapt(ctx, Adaptation(method, All(), 1, Scope(elements=("after:block",)))).events
    assert method.promises() == (last == "zero") and (event.function_change > 1e-3) == (last != "zero")
    old, new = ctx.network.module.block, ctx.network.module.block.grown_0
    assert torch.equal(old.conv1.weight, new.conv1.weight) and torch.equal(old.norm1.weight, new.norm1.weight)
    drawn = torch.cat([new.norm2.weight, new.norm2.bias]).detach()
    if last == "zero":
        assert (drawn == 0).all()
    elif last == "uniform":
        assert (drawn > 0).all() and (drawn < 1).all()
    else:
        assert (new.norm2.weight != 0).all() and (new.norm2.bias != 0).all() and (drawn < 0).any() and drawn.abs().max() < 4
    assert not torch.equal(new.norm2.weight, new.norm2.bias) or last == "zero"


def test_the_sensitivity_is_the_gradient_of_the_new_layer_over_the_mean_of_the_others():
    ctx = network()
    method = build("grow", "deepen", {"block": "identity", "score": "sensitivity"})
    names = ["after:1", "after:3"]
    before = {n: p.clone() for n, p in ctx.network.module.named_parameters()}
    scores = method.measure(ctx, [ctx.network.element(n) for n in names], dict.fromkeys(names, 1)).scores
    inputs, targets = next(iter(ctx.batches(1)))
    layers = list(copy.deepcopy(ctx.network.module))
    new = [nn.Linear(n, n).double() for n in (8, 7)]
    for layer in new:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    whole = nn.Sequential(*layers[:2], new[0], nn.ReLU(), *layers[2:4], new[1], nn.ReLU(), layers[4])
    F.cross_entropy(whole(inputs), targets).backward()
    square = lambda layer: float(sum(p.grad.square().sum() for p in layer.parameters()))
    mean = (square(layers[0]) + square(layers[2]) + square(layers[4])) / 3
    for name, layer in zip(names, new, strict=True):
        assert float(scores[name]) == pytest.approx(square(layer) / mean, rel=1e-9)
    assert all(torch.equal(before[n], p) and p.grad is None for n, p in ctx.network.module.named_parameters())


def test_the_best_place_is_chosen_and_only_above_the_threshold():
    ctx = network()
    arguments = {"block": "identity", "score": "sensitivity"}
    names = ["after:1", "after:3"]
    scores = (
        build("grow", "deepen", arguments).measure(ctx, [ctx.network.element(n) for n in names], dict.fromkeys(names, 1)).scores
    )
    best = max(names, key=lambda n: float(scores[n]))
    rules = Scope(elements=("after:1", "after:3"))
    high = Amount(1.01 * float(scores[best]), "above")
    assert not deepened(copy.deepcopy(ctx), BestGain(), high, rules, **arguments).events
    assert [e.element for e in deepened(ctx, BestGain(), 1, rules, **arguments).events] == [best]


def test_what_is_not_finite_is_a_skipped_event():
    ctx = network()
    with torch.no_grad():
        ctx.network.module[0].weight.fill_(float("nan"))
    result = deepened(ctx, score="sensitivity", block="residual")
    assert not result.events and "finite" in result.skipped[-1]
