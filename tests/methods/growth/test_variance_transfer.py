"""Pairs cancel, rescaling keeps variances and BatchNorm's statistics, and each growth stage has its own learning rate."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.variance_transfer.stage_rates import StageRates
from coppice.methods.plan import GrowPlan, PrunePlan
from coppice.methods.selection import All
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import context, mixed


def grown(ctx, count, element="0.weight:0", followers=(), **arguments):
    method = build("grow", "variance_transfer", arguments)
    element = ctx.network.element(element)
    assert method.accepts(ctx, element) is None
    return apply(ctx.network, method.plan(ctx, element, range(count), method.measure(ctx, [element], {})), followers)


def mlp(width=6, act=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(5, width), act(), nn.Linear(width, 4)).double()
    return context(module, torch.randn(32, 5, dtype=torch.float64), torch.randint(4, (32,)))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("training", [False, True])
def test_pairs_leave_the_function_as_it_is_in_eval_and_in_training(count, training):
    ctx = mixed(torch.float64)
    inputs, _ = next(iter(ctx.batches(1)))
    module = ctx.network.module
    for element in ("conv.weight:0", "block.conv1.weight:0", "fc1.weight:0"):
        before = copy.deepcopy(module).train(training)(inputs)
        event = grown(ctx, count, element, rescale="none")
        assert (copy.deepcopy(module).train(training)(inputs) - before).abs().max() < 1e-12
        assert event.count == count
    assert module.fc2.weight[:, 7:].abs().max() > 0 or count == 1


def test_pairs_are_equal_before_and_opposite_behind_and_part_in_one_step():
    ctx = mlp()
    grown(ctx, 4, rescale="none")
    first, last = ctx.network.module[0], ctx.network.module[2]
    assert torch.equal(first.weight[6::2], first.weight[7::2]) and torch.equal(last.weight[:, 6::2], -last.weight[:, 7::2])
    assert not torch.equal(first.weight[6], first.weight[8])
    inputs, targets = next(iter(ctx.batches(1)))
    F.cross_entropy(ctx.network.module(inputs), targets).backward()
    assert torch.allclose(first.weight.grad[6::2], -first.weight.grad[7::2]) and first.weight.grad[6:].abs().sum() > 0


def wide(h, seed):
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(32, h, bias=False), nn.Tanh(), nn.Linear(h, 64, bias=False)).double()
    with torch.no_grad():
        for layer in (module[0], module[2]):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / layer.weight.shape[1] ** 0.5)
    inputs = torch.randn(64, 32, dtype=torch.float64, generator=generator)
    return context(module, inputs, torch.randint(4, (64,), generator=generator), seed)


@pytest.mark.parametrize(("rescale", "expected"), [("default", 1.0), ("none", 2.0)])
def test_rescaling_keeps_the_variance_of_the_output_at_initialisation(rescale, expected):
    """Twice as many units: without rescaling the variance doubles. 20 networks, 64 outputs of 64 samples each."""
    ratios = []
    for seed in range(20):
        ctx = wide(64, seed)
        inputs, _ = next(iter(ctx.batches(1)))
        before = float(ctx.network.module(inputs).detach().var())
        grown(ctx, 64, pairing="none", rescale=rescale)
        ratios.append(float(ctx.network.module(inputs).detach().var()) / before)
    mean = torch.tensor(ratios).mean()
    assert abs(float(mean) - expected) < 0.05 * expected, ratios


@pytest.mark.parametrize(("rescale", "spread"), [("old_shape", 1.0), ("new_shape", 0.5)])
def test_the_old_weights_get_the_variance_of_a_size(rescale, spread):
    ctx = mlp(8)
    with torch.no_grad():
        ctx.network.module[2].weight.mul_(3.0)
    grown(ctx, 8, rescale=rescale)
    old = ctx.network.module[2].weight.detach()[:, :8]
    assert float(old.var(correction=0)) * 8 == pytest.approx(spread)


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_behind_the_consumer_follows(bias):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, bias=bias), nn.BatchNorm2d(5, eps=1e-14),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    ).double()  # fmt: skip
    inputs = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    for _ in range(5):
        module(inputs)
    ctx = context(module, inputs, torch.randint(4, (16,)))
    before = [copy.deepcopy(module).train(mode)(inputs) for mode in (True, False)]
    mean, var = module[4].running_mean.clone(), module[4].running_var.clone()
    event = grown(ctx, 6)
    for mode, output in zip((True, False), before, strict=True):
        assert (copy.deepcopy(module).train(mode)(inputs) - output).abs().max() < 1e-12
    offset = module[3].bias.detach() if bias else 0.0
    assert torch.allclose(module[4].running_mean, (mean - offset) * 0.5**0.5 + offset)
    assert torch.allclose(module[4].running_var, var * 0.5)
    assert event.accepted


def stages(ctx, optimizer, companion, step=True):
    inputs, targets = next(iter(ctx.batches(1)))
    optimizer.zero_grad()
    F.cross_entropy(ctx.network.module(inputs), targets).backward()
    gradients = {n: p.grad.clone() for n, p in ctx.network.module.named_parameters()}
    companion.before_step(ctx.network, optimizer)
    optimizer.step()
    companion.after_step(ctx.network, optimizer)
    return gradients


def test_each_stage_has_its_learning_rate():
    """Three stages of SGD: every entry moves by exactly lr * ||W_dt|| / ||W_0|| * gradient; rescaling leaves ratios alone."""
    ctx = mlp()
    module, companion = ctx.network.module, StageRates()
    for count in (2, 3):
        grown(ctx, count, followers=[companion])
    sizes, expected = [6, 8, 11], {}
    for name, dim in (("0.weight", 0), ("2.weight", 1)):
        weight = module.get_parameter(name).detach()
        expected[name] = torch.ones_like(weight)
        first = weight.narrow(dim, 0, 6)
        for a, b in itertools.pairwise(sizes):
            rate = weight.narrow(dim, a, b - a).norm() / first.norm()
            expected[name].narrow(dim, a, b - a).fill_(rate)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    gradients = stages(ctx, torch.optim.SGD(module.parameters(), lr=0.1), companion)
    for name, p in module.named_parameters():
        moved = before[name] - p.detach()
        assert torch.allclose(moved, 0.1 * expected.get(name, torch.ones_like(p)) * gradients[name], rtol=1e-9, atol=1e-15), name
    assert (expected["0.weight"][6:] < 1).all()


def test_any_optimizer_steps_by_the_factor_and_entries_of_the_seed_are_not_touched():
    ctx, other = mlp(), mlp()
    companion, idle = StageRates(), StageRates()
    optimizers = []
    for c, follower in ((ctx, companion), (other, idle)):
        grown(c, 4, followers=[follower])
        optimizers.append(torch.optim.AdamW(c.network.module.parameters(), lr=0.01))
    idle.load({})
    before = ctx.network.module[0].weight.detach().clone()
    stages(ctx, optimizers[0], companion)
    stages(other, optimizers[1], idle)
    slow, full = (c.network.module[0].weight.detach() - before for c in (ctx, other))
    assert torch.equal(slow[:6], full[:6])
    assert torch.allclose(slow[6:], full[6:] * companion.factors["0.weight"][6:])
    assert not torch.equal(slow[6:], full[6:])


def test_units_that_go_take_their_rates_along():
    ctx, companion = mlp(), StageRates()
    grown(ctx, 2, followers=[companion])
    factor = companion.factors["2.weight"].clone()
    apply(ctx.network, PrunePlan("0.weight:0", (1, 7)), [companion])
    assert torch.equal(companion.factors["2.weight"], factor[:, [0, 2, 3, 4, 5, 6]])
    assert companion.seeds["0.weight"][:, 0].tolist() == [True] * 5 + [False]


def test_sub_blocks_at_zero_keep_the_rate():
    ctx, companion = mlp(), StageRates()
    apply(ctx.network, GrowPlan("0.weight:0", 3), [companion])
    assert (companion.factors["2.weight"] == 1).all() and (companion.factors["0.weight"][6:] != 1).all()
    assert set(companion.factors) == {"0.weight", "2.weight"}


def test_training_goes_on_from_the_tensors_bit_by_bit():
    ctx, companion = mlp(), StageRates()
    grown(ctx, 4, followers=[companion])
    again, loaded = copy.deepcopy(ctx), StageRates()
    loaded.load({k: t.clone() for k, t in companion.tensors().items()})
    for c, held in ((ctx, companion), (again, loaded)):
        optimizer = torch.optim.SGD(c.network.module.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            stages(c, optimizer, held)
        grown(c, 2, followers=[held, OptimizerFollower(optimizer, c.network.module)])
        stages(c, optimizer, held)
    for a, b in zip(ctx.network.module.parameters(), again.network.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_rejected_growth_leaves_the_rates_alone():
    ctx, companion = mlp(), StageRates()
    method = build("grow", "variance_transfer", {})
    element = ctx.network.element("0.weight:0")
    plan = method.plan(ctx, element, range(2), method.measure(ctx, [element], {}))
    apply(ctx.network, plan, [companion], accept=lambda event: False)
    assert not companion.tensors()


def test_layers_that_grow_in_one_step_are_each_rescaled_once():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    ctx = context(module, torch.randn(8, 5, dtype=torch.float64), torch.randint(3, (8,)))
    middle, last = module[2].weight.detach().clone(), module[4].weight.detach().clone()
    result = adapt(ctx, Adaptation(build("grow", "variance_transfer", {}), All(), 0.5))
    assert len(result.events) == 2
    assert torch.allclose(module[2].weight[:6, :4], middle * (2 / 3) ** 0.5)
    assert torch.allclose(module[4].weight[:, :6], last * (2 / 3) ** 0.5)


def test_only_methods_with_stage_rates_have_a_companion():
    network = mlp().network
    assert build("grow", "variance_transfer", {"stage_lr": False}).companion(network) is None
    assert isinstance(build("grow", "variance_transfer", {}).companion(network), StageRates)
