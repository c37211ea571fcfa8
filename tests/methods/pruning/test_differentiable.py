"""Differentiable sparsification: gradients through the gate, gates at exactly zero, and a network that never jumps."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.plan import GrowPlan, PrunePlan
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import context, mixed


def student(seed=0, hidden=32):
    """A net that is much too wide for its task (a teacher with 3 units), and the task."""
    torch.manual_seed(seed)
    x = torch.randn(256, 6)
    y = (torch.tanh(x @ torch.randn(6, 3)) @ torch.randn(3, 3)).argmax(1)
    return context(nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3)), x, y)


def train(ctx, companion, optimizer, steps):
    module, (x, y) = ctx.network.module, next(iter(ctx.batches(1)))
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        companion.after_backward(ctx.network)
        companion.before_step(ctx.network, optimizer)
        optimizer.step()
        companion.after_step(ctx.network, optimizer)


def outputs(ctx):
    return ctx.network.module(next(iter(ctx.batches(1)))[0]).detach()


@pytest.fixture(scope="module")
def sparse():
    """Trained with gates: context, method, companion, optimizer."""
    ctx, method = student(), build("prune", "differentiable", {"strength": 0.04})
    companion = method.companion(ctx.network)
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), lr=0.2, momentum=0.9)
    train(ctx, companion, optimizer, 200)
    return ctx, method, companion, optimizer


def test_gradients_are_those_of_the_formula():
    """Raw weights and beta, against autograd through the gate as the paper writes it (all gates open)."""
    ctx = student(hidden=6)
    module, (x, y) = ctx.network.module.double(), next(iter(ctx.batches(1)))
    module, x = module.double(), x.double()
    method = build("prune", "differentiable", {"strength": 0.3, "start": 0.2, "rate": 0.01})
    companion = method.companion(ctx.network)
    raw = companion.raw["2.weight"].clone().requires_grad_()
    beta = companion.own["0.weight:0"].clone().requires_grad_()
    norm = raw.norm(dim=0)
    over = F.relu(norm - torch.sigmoid(beta) * norm.sum())
    v = raw * over / norm
    share = v.norm(dim=0) / v.norm(dim=0).sum()
    torch.testing.assert_close(v, module[2].weight, rtol=1e-9, atol=1e-12)
    loss = F.cross_entropy(F.relu(module[0](x)) @ v.T + module[2].bias, y) + 0.3 * (share + 1e-3).sqrt().sum()
    expected = torch.autograd.grad(loss, [raw, beta])
    F.cross_entropy(module(x), y).backward()
    companion.after_backward(ctx.network)
    torch.testing.assert_close(module[2].weight.grad, expected[0], rtol=1e-7, atol=1e-10)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    companion.before_step(ctx.network, optimizer)
    assert torch.equal(module[2].weight, raw)
    optimizer.step()
    companion.after_step(ctx.network, optimizer)
    torch.testing.assert_close(companion.own["0.weight:0"], beta - 0.1 * 0.01 * expected[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(companion.raw["2.weight"], raw - 0.1 * expected[0], rtol=1e-9, atol=1e-12)


def test_gates_reach_exactly_zero_and_removal_is_exact(sparse):
    ctx, method, companion, optimizer = copy.deepcopy(sparse)
    module = ctx.network.module
    zero = (module[2].weight == 0).all(0)
    accuracy = (outputs(ctx).argmax(1) == next(iter(ctx.batches(1)))[1]).float().mean()
    assert 4 <= int(zero.sum()) < 32 and accuracy > 0.97, (zero.sum(), accuracy)
    followers = [companion, OptimizerFollower(optimizer, module)]
    seen = dataclasses.replace(ctx, companion=companion)
    (event,) = adapt(seen, Adaptation(method, All(), Amount.read("advised")), followers).events
    assert event.units == tuple(zero.nonzero().flatten().tolist()) and event.function_change == pytest.approx(0, abs=1e-5)
    before = outputs(ctx)
    optimizer.param_groups[0]["lr"] = 0.0
    train(ctx, companion, optimizer, 2)
    assert torch.allclose(before, outputs(ctx), atol=1e-4), "the gates of the units that stay must not move"
    optimizer.param_groups[0]["lr"] = 0.05
    train(ctx, companion, optimizer, 20)
    assert F.cross_entropy(outputs(ctx), next(iter(ctx.batches(1)))[1]) < 0.1


def test_without_a_penalty_gates_stay_open():
    ctx = student()
    companion = build("prune", "differentiable", {"strength": 0.0, "start": 0.01}).companion(ctx.network)
    train(ctx, companion, torch.optim.SGD(ctx.network.module.parameters(), lr=0.2, momentum=0.9), 100)
    assert (ctx.network.module[2].weight != 0).any(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_starting_does_not_change_the_function(dtype):
    ctx = mixed(dtype)
    before = {n: p.detach().clone() for n, p in ctx.network.module.named_parameters()}
    companion = build("prune", "differentiable", {"start": 0.3}).companion(ctx.network)
    train(ctx, companion, torch.optim.SGD(ctx.network.module.parameters(), lr=0.0), 1)
    assert set(companion.raw) >= {"conv.weight", "fc1.weight", "fc2.weight", "block.conv2.weight"}
    for name, p in ctx.network.module.named_parameters():
        assert (p - before[name]).abs().max() <= (1e-5 if dtype == torch.float32 else 1e-12), name


def test_a_gate_at_zero_opens_again_when_the_gradient_wants_it(sparse):
    ctx, _, companion, optimizer = copy.deepcopy(sparse)
    weight = ctx.network.module[2].weight
    unit = int((weight == 0).all(0).nonzero()[0])
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(200):
        companion.sync(ctx.network)
        weight.grad = torch.zeros_like(weight)
        weight.grad[:, unit] = -companion.raw["2.weight"][:, unit].sign()
        companion.after_backward(ctx.network)
        companion.before_step(ctx.network, optimizer)
        optimizer.step()
        companion.after_step(ctx.network, optimizer)
    assert weight[:, unit].norm() > 0


def test_grown_units_without_outgoing_weights_learn_and_are_not_advised(sparse):
    ctx, method, companion, optimizer = copy.deepcopy(sparse)
    dead, name = int((ctx.network.module[2].weight == 0).all(0).sum()), "0.weight:0"
    apply(ctx.network, GrowPlan(name, 4, scale=0.5), [companion, OptimizerFollower(optimizer, ctx.network.module)])
    advised = method.measure(dataclasses.replace(ctx, companion=companion), [ctx.network.element(name)], {name: 1}).advised
    assert advised[name] == dead
    ctx, method = student(), build("prune", "differentiable", {"strength": 0.0})
    companion, optimizer = method.companion(ctx.network), torch.optim.SGD(ctx.network.module.parameters(), lr=0.0)
    before = outputs(ctx)
    apply(ctx.network, GrowPlan(name, 4), [companion, OptimizerFollower(optimizer, ctx.network.module)])
    train(ctx, companion, optimizer, 1)
    assert torch.allclose(before, outputs(ctx), atol=1e-4)
    optimizer.param_groups[0]["lr"] = 0.2
    train(ctx, companion, optimizer, 10)
    assert (ctx.network.module[2].weight[:, -4:] != 0).any(0).all()


def test_other_changes_of_the_network_are_kept(sparse):
    ctx, _, companion, optimizer = copy.deepcopy(sparse)
    weight = ctx.network.module[2].weight
    apply(ctx.network, PrunePlan("0.weight:0", (0, 1, 2)), [companion, OptimizerFollower(optimizer, ctx.network.module)])
    with torch.no_grad():
        weight.mul_(1.5)
    before, dead = outputs(ctx), (weight == 0).all(0)
    behind = companion.raw["2.weight"][:, dead].clone()
    optimizer.param_groups[0]["lr"] = 0.0
    train(ctx, companion, optimizer, 1)
    assert torch.allclose(before, outputs(ctx), atol=1e-4 * float(before.abs().max()))
    same = F.cosine_similarity(behind, companion.raw["2.weight"][:, dead], dim=0)
    assert dead.any() and (same > 0.999).all(), "what is behind gates at zero must be remembered"


def test_goes_on_from_a_checkpoint_bit_by_bit(sparse):
    whole, pieces = copy.deepcopy(sparse), copy.deepcopy(sparse)
    train(whole[0], whole[2], whole[3], 6)
    ctx, method, companion, optimizer = pieces
    train(ctx, companion, optimizer, 3)
    again = method.companion(ctx.network)
    again.load({n: t.clone() for n, t in companion.tensors().items()})
    train(ctx, again, optimizer, 3)
    for a, b in zip(whole[0].network.module.parameters(), ctx.network.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(t, again.tensors()[n]) for n, t in whole[2].tensors().items())
