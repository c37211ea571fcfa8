"""One act of an adaptation: plans of one measurement all fit, and what is not done is said."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.adaptation.pending_plans import PendingPlans
from coppice.methods.apply import apply
from coppice.methods.catalog import GROWTH, build
from coppice.methods.measures.statistics import NonFiniteStatistics
from coppice.methods.plan import GrowPlan, MaskPlan, PrunePlan
from coppice.methods.selection import All, GlobalRanking, Limit, RoundRobin
from coppice.methods.surgery.changes import TensorChange
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import context, mixed


def chain(dtype=torch.float64):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 5, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(5 * 16, 7), nn.ReLU(), nn.Linear(7, 4),
    ).to(dtype)  # fmt: skip
    return context(module, torch.randn(8, 3, 6, 6, dtype=dtype), torch.randint(4, (8,)))


@pytest.mark.parametrize("name", ["random", "net2wider", "gradmax", "deepen"])
def test_neighbours_grow_in_one_act_by_plans_of_one_measurement(name):
    ctx = chain()
    optimizer = torch.optim.SGD(ctx.network.module.parameters(), lr=0.1, momentum=0.9)
    followers = [OptimizerFollower(optimizer, ctx.network.module)]
    result = adapt(ctx, Adaptation(build("grow", name, {}), All(), 1 if name == "deepen" else 0.5), followers)
    rank = "5.weight:0: 3 units instead of 4, as GradMax has no more to offer"
    assert len(result.events) == 3 and result.skipped == ((rank,) if name == "gradmax" else ())
    assert all(e.function_change < 1e-12 for e in result.events)


def test_gradmax_of_neighbours_gets_the_gradients_that_were_measured():
    """What the first change adds to the second plan's tensors is zero, so the predicted gradients come true."""
    ctx = chain()
    result = adapt(ctx, Adaptation(build("grow", "gradmax", {}), All(), 2))
    module = ctx.network.module
    x, y = next(iter(ctx.batches(1)))
    F.cross_entropy(module(x), y).backward()
    first, second, third = (e.predicted for e in result.events)
    assert module[0].weight.grad[6:].square().sum().item() == pytest.approx(first)
    assert module[2].weight.grad[5:].square().sum().item() == pytest.approx(second)
    assert module[7].weight.grad[:, 7:].square().sum().item() == pytest.approx(third)


def test_blocks_inside_removed_blocks_are_skipped_with_a_reason():
    ctx = mixed()
    adapt(ctx, Adaptation(build("grow", "deepen", {"block": "duplicate"}), All(), 1))
    result = adapt(ctx, Adaptation(build("prune", "remove_blocks", {"layers": True}), All(), 1))
    assert result.events
    for reason in result.skipped:
        assert "does not fit any more" in reason


@dataclass(frozen=True)
class Broken(GROWTH["random"]):
    def measure(self, context, elements, most):
        raise NonFiniteStatistics("gradients must be finite")


SKIPPED = {
    "rounds to 0": ("grow", "random", 0.001, Scope(), "rounds to 0"),
    "parameters": ("grow", "random", 0.5, Scope(limit=Limit(parameters=10.0)), "limit"),
    "flops": ("grow", "gradmax", 0.5, Scope(limit=Limit(flops=10.0)), "limit"),
    "pruned below": ("prune", "magnitude", 0.5, Scope(limit=Limit(parameters=1e9)), "limit"),
    "width": ("grow", "net2wider", 0.5, Scope(width=1.0, seed_sizes={}), "width limit of 1.0x"),
    "minimum": ("prune", "magnitude", 0.5, Scope(minimum=100), "minimum of 100"),
    "no such element": ("grow", "random", 0.5, Scope(elements=("no.such.*",)), "no.such"),
    "no BatchNorm": ("prune", "slimming", 0.5, Scope(elements=("conv.*", "fc1.*")), "no BatchNorm"),
    "not finite": ("grow", f"{__name__}:Broken", 0.5, Scope(), "finite"),
    "busy": ("prune", "magnitude", 0.5, Scope(elements=("conv.weight:0",), exclude={"conv.weight:0"}), "nothing to prune"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_what_is_not_done_has_its_reason(case):
    kind, name, amount, rules, said = SKIPPED[case]
    ctx = mixed()
    before = ctx.network.num_parameters()
    result = adapt(ctx, Adaptation(build(kind, name, {}), All(), amount, rules))
    assert not result.events and any(said in reason for reason in result.skipped), result.skipped
    assert ctx.network.num_parameters() == before


@pytest.mark.parametrize("selection", [All(), GlobalRanking(), RoundRobin()])
def test_limits_hold_for_the_whole_network(selection):
    ctx = mixed()
    start = ctx.network.num_parameters()
    for turn in range(3):
        scope = Scope(limit=Limit(parameters=start + 400.0))
        adapt(ctx, Adaptation(build("grow", "random", {}), selection, 0.5, scope), turn=turn)
    assert start < ctx.network.num_parameters() <= start + 400


def test_deferred_plans_are_not_applied():
    ctx = mixed()
    offered = []
    result = adapt(ctx, Adaptation(build("prune", "magnitude", {}), All(), 0.3), defer=lambda p: offered.append(p) or True)
    assert offered and not result.events and not ctx.network.lineage


def test_what_would_break_the_limit_with_the_changes_before_it_is_rolled_back():
    """Each of two neighbours alone keeps the limit; both together do not, because of the weights between them."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 2))
    ctx = context(module, torch.randn(4, 2), torch.randint(2, (4,)))
    start = ctx.network.num_parameters()
    limit = start + 10 * 13.0 + 10 * 13.0 + 50
    result = adapt(ctx, Adaptation(build("grow", "random", {}), All(), 1.0, Scope(limit=Limit(parameters=limit))))
    assert [e.element for e in result.events] == ["0.weight:0"]
    assert "rolled back" in result.skipped[0] and ctx.network.num_parameters() == start + 130 <= limit
    assert module[2].weight.shape == (10, 20)


def test_waiting_plans_get_zeros_for_what_is_new():
    value = torch.ones(2, 3)
    pending = PendingPlans([GrowPlan("b", 2, values={"b.weight:0": value}), GrowPlan("c", 1, values={"c.weight:1": value})])
    pending.resized("b.weight", value, [TensorChange("b.weight", 1, (0, -1, 2, -1), 3), TensorChange("b.weight", 0, (0,), 2)])
    first, second = pending.next(), pending.next()
    assert first.values["b.weight:0"].tolist() == [[1.0, 0.0, 1.0, 0.0]] * 2
    assert torch.equal(second.values["c.weight:1"], value) and pending.next() is None


def test_waiting_adjustments_and_masks_follow_what_was_resized():
    value, mask = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    pending = PendingPlans(
        [PrunePlan("b", (0,), adjust={"b.weight": value}), MaskPlan({"b.weight": mask}, adjust={"b.weight": value})]
    )
    pending.resized("b.weight", value, [TensorChange("b.weight", 1, (0, -1, 2), 3)])
    pruning, masking = pending.next(), pending.next()
    assert pruning.adjust["b.weight"].tolist() == masking.adjust["b.weight"].tolist() == [[1.0, 0.0, 1.0]] * 2
    assert masking.masks["b.weight"].tolist() == [[False, True, False]] * 2


def test_values_for_the_shape_that_an_earlier_plan_leaves_are_kept():
    """A small network beside the first one: its second layer reads units that its first plan brings."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    small = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2, bias=False)).double()
    ctx = context(module, torch.randn(6, 3, dtype=torch.float64), torch.randint(2, (6,)))
    x, _ = next(iter(ctx.batches(1)))
    wanted = (module(x) + small(x)).detach()
    second = torch.cat([torch.zeros(2, 4), small[2].weight.detach()], 1)
    pending = PendingPlans([
        GrowPlan("0.weight:0", 2, values={"0.weight:0": small[0].weight.detach(), "0.bias:0": small[0].bias.detach()}),
        GrowPlan("2.weight:0", 2, values={
            "2.weight:0": second, "2.bias:0": small[2].bias.detach(), "4.weight:1": small[4].weight.detach()}),
    ])  # fmt: skip
    while (plan := pending.next()) is not None:
        apply(ctx.network, plan, [pending])
    assert torch.allclose(module(x), wanted, rtol=0, atol=1e-12)


@dataclass(frozen=True)
class Liar(GROWTH["random"]):
    def promises(self):
        return True


def test_a_broken_promise_is_rolled_back():
    ctx = mixed()
    before = {n: t.clone() for n, t in ctx.network.module.state_dict().items()}
    result = adapt(ctx, Adaptation(Liar(zero="none"), All(), 0.5))
    assert not result.events and all("promises to keep the function" in reason for reason in result.skipped)
    assert all(torch.equal(before[n], t) for n, t in ctx.network.module.state_dict().items())
    assert adapt(ctx, Adaptation(build("grow", "random", {"zero": "none"}), All(), 0.5)).events


@pytest.mark.parametrize(("selection", "told"), [(All(), True), (RoundRobin(), True), (GlobalRanking(), False)])
def test_less_than_was_asked_is_told_where_the_amount_is_that_of_the_element(selection, told):
    """The last layer of four outputs gives at most four directions to the layer before it; a ranking asks nothing of it alone."""
    result = adapt(chain(), Adaptation(build("grow", "gradmax", {}), selection, 40, Scope(elements=("5.*",))))
    assert len(result.events) == 1 and result.events[0].count <= 4
    assert any("units instead of 40" in reason for reason in result.skipped) == told


@dataclass(frozen=True)
class Picky(type(build("grow", "random", {}))):
    def plan(self, context, element, units, measurement):
        if element.name == "2.weight:0":
            raise PlanError("not with these units")
        return super().plan(context, element, units, measurement)


def test_an_element_that_its_method_cannot_plan_for_is_skipped_and_told():
    result = adapt(chain(), Adaptation(Picky(), All(), 0.5))
    assert [e.element for e in result.events] == ["0.weight:0", "5.weight:0"]
    assert result.skipped == ("2.weight:0: not with these units",)
