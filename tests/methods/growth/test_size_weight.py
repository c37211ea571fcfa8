"""The size of a layer is a weight: its gradient is right, it moves with the data, and the layer follows it."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.gated.companion import GateCompanion
from coppice.methods.growth.gated.size_weight import SizeWeight, SizeWeightPruning
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.selection import All
from coppice.testing.examples import context, everything, same
from tests.support.gates import (
    ADVISED,
    GatedGrowthContract,
    GatedPruningContract,
    act,
    gated,
    outputs,
    regression,
    step,
    still,
)  # fmt: skip


class TestGrowing(GatedGrowthContract):
    @pytest.fixture(params=[{}, {"spread": 2.0, "ahead": 3}], ids=str)
    def method(self, request):
        self.made = build("grow", "size_weight", request.param)
        return self.made

    def of(self):
        return self.made


class TestPruning(GatedPruningContract):
    @pytest.fixture(params=[{"start": 0.3}, {"start": 0.5, "target": 2.0, "spread": 2.0}], ids=str)
    def method(self, request):
        self.made = build("prune", "size_weight", request.param)
        return self.made

    def of(self):
        return build("grow", "size_weight", {k: v for k, v in vars(self.made).items()})


def theta(n: Tensor, spread: float) -> Tensor:
    """The notebook's formula, written once more."""
    inside = torch.sin(math.pi * n / (2 * spread)) ** 2
    return torch.where(n < 0, torch.zeros_like(n), torch.where(n > spread, torch.ones_like(n), inside))


def convolutional() -> Context:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 4, 3)).double()
    return context(module, torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.randint(3, (6,)))


CASES = {
    "one hidden layer": (lambda: regression(6), "0.weight:0", 2, 1),
    "behind a flatten": (convolutional, "0.weight:0", 3, 4),
}


@pytest.mark.parametrize("spread", [1.0, 2.5])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_the_size_is_autograds(case, spread):
    factory, element, layer, taps = CASES[case]
    ctx = factory()
    consumer, size = ctx.network.module[layer], ctx.network.element(element).size
    raw = consumer.weight.detach().clone()
    method = SizeWeight(strength=0.3, start=0.55, target=1.2, spread=spread)
    ctx = gated(ctx, method)
    inputs, targets = next(iter(ctx.batches(1)))
    n, w = torch.tensor(0.55 * size, dtype=torch.float64, requires_grad=True), raw.clone().requires_grad_()
    gates = theta(n - torch.arange(1, size + 1) + 1, spread).repeat_interleave(taps)
    loss = ctx.loss(torch.func.functional_call(ctx.network.module, {f"{layer}.weight": w * gates}, (inputs,)), targets)
    (loss + 0.3 * (n - 1.2 * size) ** 2).backward()
    ctx.loss(ctx.network.module(inputs), targets).backward()
    ctx.companion.after_backward(ctx.network)
    assert abs(ctx.companion.states[element].gradient - float(n.grad)) <= 1e-10
    assert (consumer.weight.grad - w.grad).abs().max() <= 1e-10
    assert abs(float(n.grad) - 0.6 * (0.55 - 1.2) * size) > 1e-4, "the data have a say"


def test_the_data_alone_move_the_size_and_lower_the_loss():
    """No size loss, weights that do not move: what is left is gradient descent in N."""
    ctx = gated(regression(6), SizeWeight(strength=0.0, start=0.6, lr=0.02))
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.0)
    before = ctx.companion.states["0.weight:0"].value
    losses = [step(ctx, optimizer) for _ in range(30)]
    after = ctx.companion.states["0.weight:0"].value
    assert abs(after - before) > 0.01
    assert all(b < a for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize("useful", [True, False])
def test_data_push_the_size_up_where_the_next_unit_helps_and_down_where_it_hurts(useful):
    """The target is the network with its third unit fully open, or fully shut."""
    ctx = regression(4)
    module = ctx.network.module
    inputs, _ = next(iter(ctx.batches(1)))
    with torch.no_grad():
        module[2].weight[:, 3] = 0.0
        if not useful:
            kept = module[2].weight[:, 2].clone()
            module[2].weight[:, 2] = 0.0
        targets = module(inputs)
        if not useful:
            module[2].weight[:, 2] = kept
    ctx = gated(replace(ctx, batches=lambda count: [(inputs, targets)] * count), SizeWeight(strength=0.0, start=0.625, lr=0.1))
    step(ctx, torch.optim.SGD(module.parameters(), 0.0))
    assert (ctx.companion.states["0.weight:0"].value > 2.5) == useful


def test_a_layer_grows_and_shrinks_with_its_size_while_it_is_trained():
    ctx = gated(regression(3), SizeWeight(target=7.0, target_of="units", strength=0.5, lr=0.05))
    optimizer = torch.optim.Adam(ctx.network.module.parameters(), 0.02)
    element, sizes, losses = "0.weight:0", [3], []
    for target in (7.0, 2.0):
        ctx.companion.states[element].limit = target
        for _ in range(40):
            losses += [step(ctx, optimizer) for _ in range(5)]
            for method in (SizeWeight, SizeWeightPruning):
                result = act(ctx, method(target=7.0, target_of="units", strength=0.5, lr=0.05), optimizer)
                assert all(e.function_change <= 1e-12 for e in result.events)
            sizes.append(ctx.network.element(element).size)
    n = ctx.companion.states[element].value
    assert max(sizes) in (8, 9) and sizes[-1] == math.ceil(n) + 1 and n < 3
    assert losses[199] < 0.3 * losses[0]
    assert ctx.network.module[0].weight.shape == (sizes[-1], 2)


def test_new_units_come_with_raw_weights_of_their_own():
    ctx = gated(regression(3), SizeWeight())
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.01)
    step(ctx, optimizer)
    act(ctx, SizeWeight(), optimizer)
    assert float(ctx.network.module[2].weight.detach()[:, -1].abs().max()) == 0.0
    state = ctx.companion.states["0.weight:0"]
    assert 3 in state.closed.tolist() and float(state.raw[-1].abs().min()) > 0.0
    before = outputs(ctx)
    assert torch.equal(still(ctx, SizeWeight()), before)


def test_it_goes_on_bit_by_bit_from_what_it_saved():
    runs = []
    for stop in (False, True):
        ctx = gated(regression(5, 4), SizeWeight(start=0.7))
        optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.05, momentum=0.9)
        for i in range(12):
            if i == 6:
                act(ctx, SizeWeight(start=0.7), optimizer)
                if stop:
                    companion = GateCompanion(ctx.companion.gate)
                    companion.load({k: v.clone() for k, v in ctx.companion.tensors().items()})
                    ctx = replace(ctx, companion=companion)
            step(ctx, optimizer)
        runs.append({**everything(ctx.network.module), **ctx.companion.tensors()})
    assert same(*runs)


@pytest.mark.parametrize("arguments", [{"strength": 0.0}, {"target": 1.0}])
def test_a_size_that_nothing_could_move_is_refused(arguments):
    with pytest.raises(ValueError, match="something must move the size of 0"):
        gated(regression(4), SizeWeight(**arguments))
    gated(regression(4), SizeWeight(spread=2.0, **arguments))


def test_what_it_needs_is_said():
    ctx = regression(4)
    element = ctx.network.element("0.weight:0")
    assert "needs its companion" in SizeWeight().accepts(ctx, element)
    ctx = gated(ctx, SizeWeight())
    assert SizeWeight().accepts(ctx, element) is None
    assert "same parameters" in SizeWeightPruning(strength=0.2).accepts(ctx, element)
    assert "only elements named" in SizeWeight(only="7*").accepts(gated(ctx, SizeWeight(only="7*")), element)
    apply(ctx.network, GrowPlan("0.weight:0", 1))
    with pytest.raises(RuntimeError, match="as a follower"):
        ctx.companion.sync(ctx.network)


def test_nothing_is_offered_where_enough_units_stand_ready():
    ctx = gated(regression(6, 5), SizeWeight(start=0.5))
    result = adapt(ctx, Adaptation(SizeWeight(start=0.5), All(), ADVISED), [ctx.companion])
    assert not result.events
    measurement = SizeWeightPruning(start=0.5).measure(ctx, [ctx.network.element("0.weight:0")], {"0.weight:0": 5})
    assert measurement.advised == {"0.weight:0": 2} and measurement.signals == {"open": 3.0, "size": 6.0}
    assert isinstance(ctx.network, Network)
