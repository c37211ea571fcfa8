"""Movement sums -g * w over steps, survives checkpoints and surgery, and keeps weights that grow."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.plan import GrowPlan
from coppice.methods.pruning.movement import Movement
from coppice.methods.selection import All
from coppice.methods.surgery.masks import apply_masks, mask_gradients
from coppice.testing.examples import context, mixed
from coppice.testing.method import PruningContract


def moved(ctx, steps=3, lr=0.05):
    """With a companion that has seen training steps, taken as a trial takes them."""
    companion = ctx.companion or build("prune", "movement", {}).companion(ctx.network)
    module = ctx.network.module
    state = copy.deepcopy([m.training for m in module.modules()])
    for inputs, targets in ctx.batches(steps):
        module.zero_grad()
        ctx.loss(module(inputs), targets).backward()
        companion.after_backward(ctx.network)
        mask_gradients(ctx.network)
        with torch.no_grad():
            for p in module.parameters():
                p.sub_(lr * p.grad)
        apply_masks(ctx.network)
    module.zero_grad()
    assert state == [m.training for m in module.modules()]
    return replace(ctx, companion=companion)


class TestContract(PruningContract):
    def context(self, dtype=torch.float32, seed=0):
        return moved(mixed(dtype, seed))

    @pytest.fixture
    def method(self):
        return build("prune", "movement", {})

    def test_less_is_left(self, method):
        for event in self.act(self.context(), method).events:
            assert event.kind == "mask" and event.parameters_after < event.parameters_before


def test_growing_weights_stay_and_shrinking_ones_go():
    """y = 2 (x1 + x2): weights 1 and 2 start small and grow, 3 and 4 start large and shrink; magnitude thinks otherwise."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.1, 0.2, 1.5, -1.6]]))
    x = torch.randn(64, 4, dtype=torch.float64)
    ctx = moved(context(module, x, 2 * x[:, :2].sum(1, keepdim=True), loss=F.mse_loss), steps=5, lr=0.02)
    assert module.weight.detach().abs()[0, :2].max() < module.weight.detach().abs()[0, 2:].min()
    other = replace(ctx, network=copy.deepcopy(ctx.network))
    adapt(ctx, Adaptation(build("prune", "movement", {}), All(), 0.5))
    adapt(other, Adaptation(build("prune", "magnitude_weights", {}), All(), 0.5))
    assert ctx.network.masks["weight"].tolist() == [[True, True, False, False]]
    assert other.network.masks["weight"].tolist() == [[False, False, True, True]]


def test_scores_are_the_sum_of_minus_gradient_times_weight():
    ctx = mixed()
    module, companion, expected = ctx.network.module, Movement(), 0
    for inputs, targets in ctx.batches(3):
        module.zero_grad()
        F.cross_entropy(module(inputs), targets).backward()
        companion.after_backward(ctx.network)
        weight = module.fc1.weight
        expected = expected - (weight.grad * weight).detach()
        with torch.no_grad():
            weight.sub_(weight.grad)
    torch.testing.assert_close(companion.tables["movement"]["fc1.weight"], expected)
    assert companion.steps["fc1.weight"] == 3 and "fc1.bias" not in companion.steps


def test_companion_goes_on_from_a_checkpoint_and_follows_surgery():
    ctx = moved(mixed())
    again = Movement()
    again.load(ctx.companion.tensors())
    assert again.steps == ctx.companion.steps
    assert all(torch.equal(t, again.tables["movement"][n]) for n, t in ctx.companion.tables["movement"].items())
    before = again.tables["movement"]["fc1.weight"].clone()
    apply(ctx.network, GrowPlan("fc1.weight:0", 2), [again])
    after = again.tables["movement"]["fc1.weight"]
    assert after.shape == (9, 32) and torch.equal(after[:7], before) and not after[7:].any()
    moved(replace(ctx, companion=again), 1)
    assert again.tables["movement"]["fc2.weight"].shape == (4, 9)


def test_without_training_it_says_why_not():
    ctx = mixed()
    method, element = build("prune", "movement", {}), ctx.network.element("fc1.weight")
    assert "companion" in method.accepts(ctx, element)
    assert "no training step" in method.accepts(replace(ctx, companion=Movement()), element)
