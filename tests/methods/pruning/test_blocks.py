"""Blocks: identities have no influence and go first, a trial's loss is the measured one, gates reach exactly zero."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.plan import RemovePlan
from coppice.methods.pruning.remove_blocks import cosines
from coppice.methods.selection import All, GlobalRanking
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import Block, context, mixed

NAMES = [f"blocks.{i}" for i in range(3)]


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(6) for _ in range(3)))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def task(seed=0):
    torch.manual_seed(seed)
    y = torch.arange(64) % 4
    wave = torch.sin(torch.arange(6.0) * (y[:, None] + 1) * 0.7)[:, None, None, :]
    return torch.randn(64, 3, 6, 6) * 0.5 + wave, y


def train(ctx, steps, companion=None, lr=0.05, optimizer=None):
    module, (x, y) = ctx.network.module, next(iter(ctx.batches(1)))
    optimizer = optimizer or torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        if companion:
            companion.after_backward(ctx.network)
            companion.before_step(ctx.network, optimizer)
        optimizer.step()
        if companion:
            companion.after_step(ctx.network, optimizer)
    return optimizer


def scores(ctx, method):
    measured = method.measure(ctx, [ctx.network.element(n) for n in NAMES], dict.fromkeys(NAMES, 1))
    return torch.cat([measured.scores[n] for n in NAMES]), measured.advised


@pytest.fixture(scope="module")
def trained():
    """Trained, with a middle block that passes its input on (its last scale and shift are 0 and stay so)."""
    x, y = task()
    ctx = context(Chain(), x, y)
    with torch.no_grad():
        ctx.network.module.blocks[1].norm2.weight.zero_()
    ctx.network.module.blocks[1].requires_grad_(False)
    train(ctx, 80)
    return ctx


@pytest.mark.parametrize("score", ["trial_loss", "influence", "scale", "gate"])
def test_a_block_that_passes_its_input_on_scores_zero_and_goes_first(trained, score):
    ctx = copy.deepcopy(trained)
    method = build("prune", "remove_blocks", {"score": score})
    changes, advised = scores(ctx, method)
    assert float(changes[1]) == pytest.approx(0, abs=1e-6) and min(float(changes[0]), float(changes[2])) > 0.01
    assert advised == {"blocks.0": 0, "blocks.1": 1, "blocks.2": 0}
    (event,) = adapt(ctx, Adaptation(method, GlobalRanking(), 1, Scope(elements=("blocks.*",)))).events
    assert event.element == "blocks.1" and event.function_change < 1e-6


def test_a_trials_loss_is_the_rise_that_removal_brings(trained):
    for name in ("blocks.0", "blocks.2"):
        ctx = copy.deepcopy(trained)
        x, y = next(iter(ctx.batches(1)))
        with torch.no_grad():
            before = F.cross_entropy(ctx.network.module.eval()(x), y)
            (event,) = adapt(ctx, Adaptation(build("prune", "remove_blocks", {}), All(), 1, Scope(elements=(name,)))).events
            rise = float(F.cross_entropy(ctx.network.module.eval()(x), y) - before)
        assert event.predicted == pytest.approx(rise, rel=1e-5) and abs(rise) > 1e-3


def test_influence_is_one_minus_the_mean_cosine():
    ctx = mixed(torch.float64)
    module, (x, _) = ctx.network.module, next(iter(ctx.batches(1)))
    method = build("prune", "remove_blocks", {"score": "influence", "num_batches": 1})
    influence = float(method.measure(ctx, [ctx.network.element("block")], {"block": 1}).scores["block"])
    with torch.no_grad():
        evaluated = copy.deepcopy(module).eval()
        before = evaluated.stem_act(evaluated.stem_norm(evaluated.stem(x)))
        expected = 1 - F.cosine_similarity(before, evaluated.block(before), dim=1).mean()
    assert influence == pytest.approx(float(expected), rel=1e-9)
    a = torch.tensor([[1.0, 0], [0, 0], [0, 0], [2, 2]])
    b = torch.tensor([[0.0, 3], [0, 0], [1, 0], [-1, -1]])
    assert cosines(a, b).tolist() == pytest.approx([0, 1, 0, -1])


def test_gates_reach_exactly_zero_and_removal_is_exact():
    """With the penalty some gate rests at exactly 0, at no cost in accuracy; that block is advised, and goes exactly."""
    x, y = task()
    ctx = context(Chain(), x, y)
    method = build("prune", "remove_blocks", {"score": "gate", "strength": 0.5})
    companion = method.companion(ctx.network)
    optimizer = train(ctx, 110, companion)
    module = ctx.network.module
    gates = {n: float(g) for n, g in companion.own.items()}
    zero = [n for n, g in gates.items() if g == 0]
    assert 1 <= len(zero) < 3, gates
    assert not any(p.any() for n in zero for p in module.get_submodule(n).norm2.parameters())
    assert (module(x).argmax(1) == y).float().mean() > 0.95
    seen = dataclasses.replace(ctx, companion=companion)
    followers = [companion, OptimizerFollower(optimizer, module)]
    events = adapt(seen, Adaptation(method, All(), Amount.read("advised")), followers).events
    assert [e.element for e in events] == zero and all(e.function_change < 1e-6 for e in events)
    before = module(x).detach()
    optimizer.param_groups[0]["lr"] = 0.0
    train(ctx, 1, companion, optimizer=optimizer)
    assert torch.allclose(before, module(x), atol=1e-5) and set(companion.own) == set(gates) - set(zero)


def test_the_gates_gradient_is_that_of_a_factor_on_the_branch():
    ctx = mixed(torch.float64)
    module, (x, y) = ctx.network.module, next(iter(ctx.batches(1)))
    companion = build("prune", "remove_blocks", {"score": "gate", "strength": 0.02, "rate": 0.5}).companion(ctx.network)
    companion.own["block"] = companion.own["block"] * 0.6
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    with torch.no_grad():
        for name in ("block.norm2.weight", "block.norm2.bias"):
            module.get_parameter(name).mul_(0.6)
    companion._written = {}
    raw = {n: companion.raw[n].clone().requires_grad_() for n in ("block.norm2.weight", "block.norm2.bias")}
    gate = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    gated = torch.func.functional_call(copy.deepcopy(module), {n: gate * w for n, w in raw.items()}, (x,))
    expected = torch.autograd.grad(F.cross_entropy(gated, y), [gate, *raw.values()])
    F.cross_entropy(module(x), y).backward()
    companion.after_backward(ctx.network)
    for name, gradient in zip(raw, expected[1:], strict=True):
        torch.testing.assert_close(module.get_parameter(name).grad, gradient, rtol=1e-8, atol=1e-12)
    companion.before_step(ctx.network, optimizer)
    optimizer.param_groups[0]["lr"] = 0.1
    companion.after_step(ctx.network, optimizer)
    step = 0.1 * 0.5
    moved = 0.6 - step * float(expected[0])
    assert float(companion.own["block"]) == pytest.approx(moved - step * 0.02, rel=1e-9)


def test_training_goes_on_when_the_last_gated_block_is_gone():
    ctx = context(Chain(), *task())
    companion = build("prune", "remove_blocks", {"score": "gate"}).companion(ctx.network)
    optimizer = train(ctx, 1, companion)
    followers = [companion, OptimizerFollower(optimizer, ctx.network.module)]
    for name in NAMES:
        apply(ctx.network, RemovePlan(name), followers)
    train(ctx, 2, companion, optimizer=optimizer)
    assert not companion.raw and not companion.own


def test_training_with_gates_goes_on_from_a_checkpoint_bit_by_bit():
    x, y = task()
    ctx = context(Chain(), x, y)
    method = build("prune", "remove_blocks", {"score": "gate", "strength": 0.15})
    companion = method.companion(ctx.network)
    optimizer = train(ctx, 5, companion)
    whole = copy.deepcopy((ctx, companion, optimizer))
    train(whole[0], 4, whole[1], optimizer=whole[2])
    again = method.companion(ctx.network)
    again.load({n: t.clone() for n, t in companion.tensors().items()})
    train(ctx, 4, again, optimizer=optimizer)
    for a, b in zip(whole[0].network.module.parameters(), ctx.network.module.parameters(), strict=True):
        assert torch.equal(a, b)


class Nested(Block):
    """A block whose second half is a branch of its own: both end in the same weights."""

    def __init__(self, width):
        super().__init__(width)
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.end = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        del self.conv2, self.norm2

    def forward(self, x):
        return F.relu(x + self.end(F.relu(self.norm1(self.conv1(x)))))


def test_of_blocks_within_blocks_the_outer_one_has_the_gate():
    torch.manual_seed(0)
    module = Chain()
    module.blocks[1] = Nested(6)
    ctx, method = context(module, *task()), build("prune", "remove_blocks", {"score": "gate"})
    companion = method.companion(ctx.network)
    offered = [e for e in ctx.network.elements() if method.accepts(ctx, e) is None]
    assert {e.name for e in offered} == {*NAMES, "blocks.1.end"} and set(companion.own) == set(NAMES)
    assert set(method.measure(dataclasses.replace(ctx, companion=companion), offered, {}).scores) == set(NAMES)


class Saturating(Block):
    def forward(self, x):
        return x + torch.sigmoid(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class PreNorm(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.stem, self.norm, self.branch, self.head = nn.Linear(4, 8), nn.LayerNorm(8), inner, nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.branch(self.norm(x)))


def test_what_cannot_be_scored_in_a_way_is_refused_with_the_reason():
    torch.manual_seed(0)
    module = Chain()
    module.blocks[1] = Saturating(6)
    ctx = context(module, *task())
    reason = build("prune", "remove_blocks", {"score": "gate"}).accepts(ctx, ctx.network.element("blocks.1"))
    assert "still does something" in reason
    assert build("prune", "remove_blocks", {"score": "gate"}).accepts(ctx, ctx.network.element("blocks.0")) is None
    inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    branch = context(PreNorm(inner), torch.randn(5, 4), torch.arange(5) % 3)
    element = branch.network.element("branch")
    assert "skip path" in build("prune", "remove_blocks", {"score": "influence"}).accepts(branch, element)
    assert build("prune", "remove_blocks", {"score": "gate"}).accepts(branch, element) is None
    plain = build("prune", "remove_blocks", {"layers": True, "score": "scale"})
    layers = [e for e in ctx.network.elements() if e.level == "layer" and e.permissible]
    assert all("skip path" in plain.accepts(ctx, e) for e in layers) and layers
