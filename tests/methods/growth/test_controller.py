"""The controller's mask is the paper's, its gradient is right, and it listens to the data unless it is detached."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from coppice.methods.catalog import build
from coppice.methods.growth.gated.controller import Controller, ControllerPruning
from coppice.methods.growth.gated.gates import ControllerGate
from tests.support.gates import GatedGrowthContract, GatedPruningContract, act, gated, regression, step

ELEMENT = "0.weight:0"


class TestGrowing(GatedGrowthContract):
    @pytest.fixture(params=[{}, {"detach": True, "most": 4.0, "ahead": 3}], ids=str)
    def method(self, request):
        self.made = build("grow", "controller", request.param)
        return self.made

    def of(self):
        return self.made


class TestPruning(GatedPruningContract):
    @pytest.fixture(params=[{"start": 0.3}, {"start": 0.5, "most": 1.0}], ids=str)
    def method(self, request):
        self.made = build("prune", "controller", request.param)
        return self.made

    def of(self):
        return build("grow", "controller", vars(self.made))


def mask(c: float, units: int) -> Tensor:
    """The paper's: the first floor(t N) entries 1, the next the fraction, the rest 0."""
    t = math.sin(math.pi * c / 2) ** 2
    gates = torch.zeros(units, dtype=torch.float64)
    gates[: math.floor(t * units)] = 1.0
    if math.floor(t * units) < units:
        gates[math.floor(t * units)] = t * units - math.floor(t * units)
    return gates


@pytest.mark.parametrize("c", [0.0, 0.1, 0.37, 0.5, 0.81, 1.0])
def test_the_mask_is_the_papers(c):
    gate = ControllerGate(0.32, 0.0, 1.0, False, "", 1.0)
    assert torch.allclose(gate.ramp(gate.open(c, 7.0) - torch.arange(7).double()), mask(c, 7), atol=1e-9)


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_of_the_controller_is_autograds(detach):
    ctx = regression(6)
    raw = ctx.network.module[2].weight.detach().clone()
    ctx = gated(ctx, Controller(start=0.55, strength=0.2, detach=detach))
    inputs, targets = next(iter(ctx.batches(1)))
    c = torch.tensor(ctx.companion.states[ELEMENT].value, dtype=torch.float64, requires_grad=True)
    w = raw.clone().requires_grad_()
    opened = 12 * torch.sin(math.pi / 2 * c) ** 2
    gates = (opened - torch.arange(6)).clamp(0, 1)
    data = ctx.loss(torch.func.functional_call(ctx.network.module, {"2.weight": w * gates}, (inputs,)), targets)
    ((data.detach() if detach else data) + 0.2 * (c - 1) ** 2).backward()
    ctx.loss(ctx.network.module(inputs), targets).backward()
    ctx.companion.after_backward(ctx.network)
    assert abs(ctx.companion.states[ELEMENT].gradient - float(c.grad)) <= 1e-10
    if not detach:
        assert (ctx.network.module[2].weight.grad - w.grad).abs().max() <= 1e-10


def values(detach: bool, seed: int) -> list[float]:
    """The controller over 20 steps, on data that depend on the seed."""
    ctx = gated(regression(6, seed=seed), Controller(start=0.55, detach=detach, lr=0.003))
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.01)
    values = []
    for _ in range(20):
        step(ctx, optimizer)
        values.append(ctx.companion.states[ELEMENT].value)
    return values


def test_detached_it_ignores_the_data():
    """As published: (1 - c) shrinks by 1 - 2 * strength * lr a step, whatever the data."""
    detached = values(True, 0)
    assert detached == values(True, 1)
    rate = 1 - 2 * 0.32 * 0.003
    assert all((1 - b) == pytest.approx((1 - a) * rate, rel=1e-12) for a, b in itertools.pairwise(detached))


def test_attached_it_moves_with_the_data():
    attached, others, without = values(False, 0), values(False, 1), values(True, 0)
    assert max(abs(a - b) for a, b in zip(attached, without, strict=True)) > 1e-3
    assert max(abs(a - b) for a, b in zip(attached, others, strict=True)) > 1e-3


def test_data_alone_move_it_and_lower_the_loss():
    ctx = gated(regression(6), Controller(strength=0.0, start=0.55, lr=1e-4))
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.0)
    before = ctx.companion.states[ELEMENT].value
    losses = [step(ctx, optimizer) for _ in range(20)]
    assert ctx.companion.states[ELEMENT].value != before
    assert all(b < a for a, b in itertools.pairwise(losses))


def test_a_layer_grows_to_the_most_and_shrinks_when_the_controller_closes():
    method, pruning = (cls(most=2.0, detach=True, lr=0.1, start=0.9) for cls in (Controller, ControllerPruning))
    ctx = gated(regression(4), method)
    optimizer = torch.optim.Adam(ctx.network.module.parameters(), 0.02)
    sizes, losses = [4], []
    for _ in range(40):
        losses += [step(ctx, optimizer) for _ in range(5)]
        for one in (method, pruning):
            assert all(e.function_change <= 1e-12 for e in act(ctx, one, optimizer).events)
        sizes.append(ctx.network.element(ELEMENT).size)
    assert sizes[-1] == max(sizes) == 8 and ctx.companion.states[ELEMENT].value > 0.95 and losses[-1] < 0.3 * losses[0]
    state = ctx.companion.states[ELEMENT]
    state.value = ctx.companion.gate.value_of(2.5, state.limit)
    step(ctx, optimizer)
    act(ctx, pruning, optimizer)
    assert ctx.network.element(ELEMENT).size == 4, "2.5 open, one that stands ready"


def test_a_controller_that_nothing_could_move_is_refused():
    with pytest.raises(ValueError, match="something must move"):
        gated(regression(4), Controller(most=1.0))
