"""What Firefly claims: candidates are trained, scored by their share in the change of the loss, and ranked over all elements."""

import copy

import pytest
import torch
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.apply import apply
from coppice.methods.growth.firefly.candidates import Draws
from coppice.methods.growth.firefly.method import Firefly
from coppice.methods.growth.firefly.offers import grow_plan, offered_block, offered_units, statistics
from coppice.methods.growth.firefly.supernet import Supernet
from coppice.methods.growth.random import Random
from coppice.methods.measures.site import site_of
from coppice.methods.measures.statistics import mean_loss
from coppice.methods.method import Context
from coppice.methods.plan import InsertPlan
from coppice.methods.selection import All, GlobalRanking
from coppice.testing.examples import context, everything, mixed, randomised, same

LAYERS = ("block.conv1.weight:0", "conv.weight:0", "fc1.weight:0")


def trained(dtype: torch.dtype = torch.float64, steps: int = 30, width: int = 3) -> Context:
    """A small convolutional network with BatchNorm, trained on a few random images."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    ctx = context(randomised(module).to(dtype), torch.randn(24, 2, 8, 8, dtype=dtype), torch.randint(3, (24,)))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(steps):
        inputs, targets = next(iter(ctx.batches(1)))
        ctx.loss(module(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return ctx


def all_candidates(ctx: Context, method: Firefly, names) -> tuple[Supernet, dict]:
    elements = [ctx.network.element(n) for n in names]
    draws = Draws(ctx, method.epsilon)
    wide = {e.name: draws.wide(e, method.candidates, True) for e in elements if e.level == "channel"}
    atoms = {n: n for n in wide}
    deep = {e.name: draws.deep(e, atoms) for e in elements if e.level == "insertion"}
    return Supernet.build(ctx.network, wide, deep), wide | deep


def loss_at(grown: Supernet, ctx: Context, gate: float) -> float:
    inputs, targets = next(iter(ctx.batches(1)))
    with torch.no_grad():
        return float(grown.loss(grown.gates(gate), ctx.loss, inputs, targets))


@pytest.mark.parametrize("names", [*((n,) for n in LAYERS), (*LAYERS, "after:act", "after:tanh", "after:stem_act")], ids=str)
def test_the_over_grown_network_is_the_network_with_all_candidates(names):
    """Closed gates give the network itself; open ones give what the plans make of it, with BatchNorm, pooling and flatten."""
    ctx, method = mixed(torch.float64), Firefly(epsilon=0.3, candidates=5)
    ctx.network.module.block.norm1.eps = 0.1
    before = everything(ctx.network.module)
    grown, candidates = all_candidates(ctx, method, names)
    assert loss_at(grown, ctx, 0.0) == pytest.approx(float(mean_loss(ctx, 1)), rel=1e-12)
    assert abs(loss_at(grown, ctx, 1.0) - loss_at(grown, ctx, 0.0)) > 1e-6
    assert same(before, everything(ctx.network.module))
    if len(names) > 1:
        return
    element, site = ctx.network.element(names[0]), site_of(ctx.network, ctx.network.element(names[0]))
    offered = offered_units(candidates[names[0]], -torch.ones(site.size + 5))
    offered |= statistics(ctx, site, offered, 1)
    apply(ctx.network, grow_plan(ctx, element, site, offered))
    assert float(mean_loss(ctx, 1)) == pytest.approx(loss_at(grown, ctx, 1.0), rel=1e-10)


@pytest.mark.parametrize("at", ["after:act", "after:tanh"])
def test_a_block_of_the_over_grown_network_is_the_one_that_is_inserted(at):
    ctx = mixed(torch.float64)
    grown, candidates = all_candidates(ctx, Firefly(epsilon=0.3, candidates=4), ["conv.weight:0", at])
    block = offered_block(candidates[at], torch.tensor([-1.0]))
    gates = grown.gates(0.0) | {at: torch.ones(1, dtype=torch.float64)}
    inputs, targets = next(iter(ctx.batches(1)))
    values = {"first.weight": block["first"], "first.bias": block["bias"], "last.weight": block["last"]}
    apply(ctx.network, InsertPlan(at, candidates[at].kind, {"width": len(block["first"])}, values=values))
    assert float(mean_loss(ctx, 1)) == pytest.approx(float(grown.loss(gates, ctx.loss, inputs, targets)), rel=1e-10)


def test_scores_add_up_to_the_change_of_the_loss():
    ctx, method = trained(), Firefly(candidates=5, depth=True)
    names = ["0.weight:0", "3.weight:0", "7.weight:0", "after:2", "after:4"]
    grown, _ = all_candidates(ctx, method, names)
    method._train(ctx, grown)
    shares = method._score(ctx, grown)
    change = loss_at(grown, ctx, 1.0) - loss_at(grown, ctx, 0.0)
    assert change < 0 and sum(float(s.sum()) for s in shares.values()) == pytest.approx(change, rel=0.01)


def test_the_candidates_are_trained():
    """More steps move every candidate further away from its first value, and promise more."""
    gains, moved = [], []
    for steps in (1, 40):
        ctx, method = trained(), Firefly(steps=steps, candidates=4)
        ctx.generator.manual_seed(3)
        grown, _ = all_candidates(ctx, method, ["0.weight:0", "7.weight:0"])
        first = [f.tensor.clone() for f in grown.trained()]
        method._train(ctx, grown)
        moved.append([float((f.tensor - a).norm() / a.norm()) for f, a in zip(grown.trained(), first, strict=True)])
        gains.append(-sum(float(s.sum()) for s in method._score(ctx, grown).values()))
    assert len(moved[0]) == 6 and all(0 < a < b and b > 0.3 for a, b in zip(*moved, strict=True)), moved
    assert gains[1] > 2 * abs(gains[0]), gains


def test_perturbations_keep_their_bounds():
    ctx, method = trained(), Firefly(epsilon=0.05, rate=1.0, steps=30, candidates=4)
    grown, candidates = all_candidates(ctx, method, ["0.weight:0", "7.weight:0"])
    method._train(ctx, grown)
    for name, consumer in (("0.weight:0", 3), ("7.weight:0", 9)):
        c, module = candidates[name], ctx.network.module
        row = module.get_parameter(name[:-2]).detach().flatten(1).norm(dim=1).mean()
        column = module[consumer].weight.detach().movedim(1, 0).flatten(1).norm(dim=1).mean()
        norms = c.splits.tensor.flatten(1).norm(dim=1)
        assert (norms <= 0.05 * row * (1 + 1e-9)).all() and norms.max() > 0.04 * row
        assert torch.allclose(c.fan_in.tensor.flatten(1).norm(dim=1), row)
        assert (c.fan_out.tensor.movedim(1, 0).flatten(1).norm(dim=1) <= 0.05 * column * (1 + 1e-9)).all()


@pytest.mark.parametrize("selection", [All(), GlobalRanking()])
def test_growth_lowers_the_loss_where_random_growth_does_not(selection):
    decreases = {}
    for method in (Firefly(), Random(), Random(zero="none", scale=0.1)):
        ctx = trained()
        before = float(mean_loss(ctx, 1))
        events = adapt(ctx, Adaptation(method, selection, 0.5)).events
        assert events
        decreases[method] = before - float(mean_loss(ctx, 1))
        if isinstance(method, Firefly):
            predicted = sum(e.predicted for e in events)
    firefly, zero, other = decreases.values()
    assert predicted > 0 and firefly == pytest.approx(predicted, rel=0.5)
    assert firefly > 0.01 and firefly > 3 * max(abs(zero), other), decreases


def test_a_new_unit_that_would_raise_the_loss_takes_the_opposite_sign():
    """Hardly trained units point up or down by chance; all are offered, and what they promise is measured."""
    method = Firefly(epsilon=1e-3, splits=False, candidates=8, steps=1, rate=1e-3)
    for name in ("0.weight:0", "7.weight:0"):
        ctx = trained(width=8)
        before = float(mean_loss(ctx, 1))
        (event,) = adapt(ctx, Adaptation(method, All(), 1.0, Scope(elements=(name,)))).events
        assert event.count >= 5
        assert before - float(mean_loss(ctx, 1)) == pytest.approx(event.predicted, rel=0.02)


def test_splits_and_new_units_are_told_apart_and_ranked_together():
    ctx = trained(torch.float32)
    names = ("0.weight:0", "3.weight:0", "7.weight:0")
    measurement = Firefly().measure(ctx, [ctx.network.element(n) for n in names], dict.fromkeys(names, 9))
    for name in names:
        parents, gains = measurement.data[name]["parents"], measurement.scores[name]
        size = ctx.network.element(name).size
        assert (parents == -1).sum() <= 9 and len(set(parents[parents >= 0].tolist())) == (parents >= 0).sum()
        assert ((parents >= -1) & (parents < size)).all() and (gains > 0).all() and (gains.diff() <= 0).all()
    everyone = torch.cat(list(measurement.scores.values())).sort(descending=True).values
    plans = []
    adapt(trained(torch.float32), Adaptation(Firefly(candidates=9), GlobalRanking(), 5), defer=lambda p: plans.append(p) or True)
    assert sum(p.count for p in plans) == 5
    assert sum(p.predicted_gain for p in plans) == pytest.approx(float(everyone[:5].sum()), rel=1e-4)


def test_batch_norm_sees_new_units_alike_in_training_and_evaluation():
    ctx = trained()
    adapt(ctx, Adaptation(Firefly(splits=False), All(), 1.0, Scope(elements=("0.weight:0",))))
    conv, norm = ctx.network.module[0], copy.deepcopy(ctx.network.module[1])
    assert len(conv.weight) > 3
    inputs, _ = next(iter(ctx.batches(1)))
    training, evaluation = norm.train()(conv(inputs))[:, 3:], None
    norm.load_state_dict(ctx.network.module[1].state_dict())
    evaluation = norm.eval()(conv(inputs))[:, 3:]
    assert torch.allclose(training, evaluation, rtol=1e-6, atol=1e-9)


def test_blocks_compete_with_units():
    ctx = trained()
    before = float(mean_loss(ctx, 1))
    events = adapt(ctx, Adaptation(Firefly(depth=True, epsilon=0.2), All(), 1, Scope(elements=("after:*",)))).events
    assert [e.kind for e in events] == ["insert"] * len(events) and len(events) >= 2
    decrease, predicted = before - float(mean_loss(ctx, 1)), sum(e.predicted for e in events)
    assert decrease == pytest.approx(predicted, rel=0.5) and decrease > 0.01
    assert "depth: true" in Firefly().accepts(ctx, ctx.network.element("after:2"))


def test_masked_weights_take_no_part():
    ctx = trained()
    mask = torch.rand(5, 16) > 0.3
    ctx.network.masks["7.weight"] = mask
    with torch.no_grad():
        ctx.network.module[7].weight.mul_(mask)
    (event,) = adapt(ctx, Adaptation(Firefly(candidates=0), All(), 2, Scope(elements=("7.weight:0",)))).events
    weight = ctx.network.module[7].weight
    assert event.count == 2 and (weight[:5][~mask] == 0).all()
    assert (weight[5:] == 0).any()


def test_nothing_to_try_is_refused():
    ctx = trained()
    assert "nothing to try" in Firefly(splits=False, candidates=0).accepts(ctx, ctx.network.element("0.weight:0"))
