"""Neurons that do nothing go, in chains, and the function stays."""

import pytest
import torch

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.method import Context
from coppice.methods.plan import MaskPlan
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import mixed
from coppice.testing.method import PruningContract
from tests.support.single_connections import classification, regression


class TestContract(PruningContract):
    def context(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Context:
        ctx = classification(dtype, seed)
        mask = ctx.network.masks["weight"].clone()
        mask[0] = False
        apply(ctx.network, MaskPlan({"weight": mask}))
        return ctx

    @pytest.fixture
    def method(self):
        return build("prune", "dead_neurons", {})

    def test_measuring_and_planning_touch_nothing(self, method):
        ctx = self.context()
        before = {n: t.clone() for n, t in ctx.network.module.state_dict().items()}
        assert self.plans(ctx, method)
        assert all(torch.equal(t, before[n]) for n, t in ctx.network.module.state_dict().items())
        assert ctx.network.module.training

    def test_less_is_left(self, method):
        (event,) = self.act(self.context(), method).events
        assert event.kind == "prune" and event.parameters_after < event.parameters_before


def chained():
    """Neurons 0-2, 3-4, 5: 0 is constant, 3 sees nothing but 0; 4 feeds nothing but 5, which feeds nothing."""
    ctx = regression((3, 2, 1))
    masks = {n: m.clone() for n, m in ctx.network.masks.items()}
    masks["weight"][0], masks["weight"][3] = False, False
    masks["weight"][3, 2] = True
    masks["weight"][5, 2 + 3] = True
    masks["out.weight"][:, [2 + 4, 2 + 5]] = False
    apply(ctx.network, MaskPlan(masks))
    return ctx


def test_constant_and_unused_neurons_go_and_the_function_stays():
    ctx = chained()
    x, _ = next(iter(ctx.batches(1)))
    before = ctx.network.module(x)
    assert ctx.network.module.out.weight[0, 5].abs() > 1e-3, "what the constant neuron 3 says must reach the output"
    (event,) = adapt(ctx, Adaptation(build("prune", "dead_neurons", {}), All(), Amount(0, "advised"))).events
    assert event.units == (0, 3, 4, 5) and event.size_after == 2
    assert torch.allclose(ctx.network.module(x), before, rtol=1e-12, atol=1e-12)
    again = adapt(ctx, Adaptation(build("prune", "dead_neurons", {}), All(), Amount(0, "advised")))
    assert not again.events and any("nothing to offer" in reason for reason in again.skipped)


def test_living_neurons_stay_whatever_the_amount():
    ctx = chained()
    x, _ = next(iter(ctx.batches(1)))
    before = ctx.network.module(x)
    (event,) = adapt(ctx, Adaptation(build("prune", "dead_neurons", {}), All(), 5)).events
    assert event.units == (0, 3, 4, 5)
    assert torch.allclose(ctx.network.module(x), before, rtol=1e-12, atol=1e-12)


def test_other_networks_are_refused_with_a_reason():
    ctx = mixed()
    assert "single connections" in build("prune", "dead_neurons", {}).accepts(ctx, ctx.network.element("conv.weight:0"))
