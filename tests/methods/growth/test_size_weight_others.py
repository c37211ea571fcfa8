"""The trained size of a layer when others change the network: growth, pruning, roll-backs, masks, decay."""

import copy
from dataclasses import replace

import pytest
import torch

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.growth.gated.size_weight import SizeWeight, SizeWeightPruning
from coppice.methods.method import Context
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan
from coppice.methods.selection import All
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import same
from tests.support.gates import (
    gated,
    outputs,
    regression,
    step,
    still,
)  # fmt: skip


def partly_open() -> tuple[Context, torch.optim.Optimizer]:
    """Two hidden layers of 6 and 5, of which 3.4 and 2.6 units are open, after a few steps."""
    ctx = gated(regression(6, 5), SizeWeight(start=0.55, strength=0.02, target=0.56))
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.02, momentum=0.9, weight_decay=0.01)
    for _ in range(4):
        step(ctx, optimizer)
    return ctx, optimizer


OTHERS = {
    "the same layer grows": GrowPlan("0.weight:0", 2, produce="kaiming", consume="zero", seed=3),
    "the same layer grows with copies": GrowPlan("0.weight:0", 2, sources=(0, 1)),
    "the next layer grows": GrowPlan("2.weight:0", 2, produce="kaiming", consume="zero", seed=3),
    "the next layer grows with copies": GrowPlan("2.weight:0", 2, sources=(4, 1)),
    "a shut unit goes": PrunePlan("0.weight:0", (5,)),
    "units of the next layer that are shut go": PrunePlan("2.weight:0", (3, 4)),
}
"""Changes by other methods which leave the function as it is."""


@pytest.mark.parametrize("name", OTHERS)
def test_what_others_do_is_followed_and_no_gate_undoes_it(name):
    ctx, optimizer = partly_open()
    before = outputs(ctx)
    open_units = {n: s.open(ctx.companion.gate) for n, s in ctx.companion.states.items()}
    plan = OTHERS[name]
    apply(ctx.network, plan, [OptimizerFollower(optimizer, ctx.network.module), ctx.companion])
    assert torch.allclose(outputs(ctx), before, rtol=0, atol=1e-12)
    assert torch.allclose(still(ctx, SizeWeight()), before, rtol=0, atol=1e-12)
    more = plan.count if isinstance(plan, GrowPlan) else 0
    assert ctx.companion.states[plan.element].open(ctx.companion.gate) == pytest.approx(open_units[plan.element] + more)
    losses = [step(ctx, optimizer) for _ in range(30)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("unit", "left"), [(1, 2.4), (3, 3.0), (5, 3.4)])
def test_where_units_go_the_others_keep_their_gates(unit, left):
    """An open one, the one that is opening, a shut one."""
    ctx = gated(regression(6), SizeWeight(start=3.4 / 6))
    companion = ctx.companion
    gates = companion.states["0.weight:0"].gates(companion.gate)
    apply(ctx.network, PrunePlan("0.weight:0", (unit,)), [companion])
    rest = torch.cat([gates[:unit], gates[unit + 1 :]])
    before = outputs(ctx)
    assert companion.states["0.weight:0"].value == pytest.approx(left)
    assert torch.allclose(companion.states["0.weight:0"].gates(companion.gate), rest, atol=1e-12)
    assert torch.allclose(still(ctx, SizeWeight()), before, rtol=0, atol=1e-12)


def test_a_change_that_is_rolled_back_leaves_it_as_it_was():
    ctx, optimizer = partly_open()
    before = {k: v.clone() for k, v in ctx.companion.tensors().items()}
    for plan in OTHERS.values():
        apply(ctx.network, plan, [OptimizerFollower(optimizer, ctx.network.module), ctx.companion], accept=lambda event: False)
        assert same(before, ctx.companion.tensors())
    pruned = adapt(ctx, Adaptation(SizeWeightPruning(start=0.55, strength=0.02, target=0.56), All(), 0.9), [ctx.companion])
    assert not pruned.events and same(before, ctx.companion.tensors()), "open units: the promise is kept, the change rolled back"
    assert any("promises" in reason for reason in pruned.skipped)


def test_a_layer_that_is_put_behind_takes_over_the_gates():
    ctx, optimizer = partly_open()
    before = outputs(ctx)
    plan = InsertPlan("after:1", next(k for k in ctx.network.element("after:1").kinds if k.startswith("residual")))
    apply(ctx.network, plan, [OptimizerFollower(optimizer, ctx.network.module), ctx.companion])
    assert torch.allclose(outputs(ctx), before, atol=1e-12)
    losses = [step(ctx, optimizer) for _ in range(30)]
    assert losses[-1] < losses[0]


def test_masks_are_kept():
    ctx, _optimizer = partly_open()
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[:, 3] = mask[1] = False
    ctx.network.masks["2.weight"] = mask
    ctx.network.module[2].weight.data *= mask
    before = outputs(ctx)
    assert torch.allclose(still(ctx, SizeWeight()), before, rtol=0, atol=1e-12)


def test_decay_works_on_the_weights_behind_the_gates():
    """AdamW's decay of a partly open unit is that of its raw weight."""
    ctx = gated(regression(4), SizeWeight(start=0.6, lr=1e-30))
    state = ctx.companion.states["0.weight:0"]
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), 0.1, weight_decay=0.5)
    raw = copy.deepcopy(state.raw)
    inputs, targets = next(iter(ctx.batches(1)))
    targets = outputs(ctx)
    step(replace(ctx, batches=lambda count: [(inputs, targets)] * count), optimizer)
    assert torch.allclose(state.raw, raw * (1 - 0.1 * 0.5), rtol=1e-12)
