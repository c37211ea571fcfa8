"""What the pruning methods claim: planted useless parts are found, penalties work, masks stay."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import build
from coppice.methods.selection import All, GlobalRanking
from coppice.methods.surgery.masks import apply_masks
from coppice.testing.examples import Block, context, mixed


def scores(ctx, method, name):
    return method.measure(ctx, [ctx.network.element(name)], {name: 1}).scores[name]


@pytest.mark.parametrize("normaliser", ["mean", "size", "none"])
def test_magnitude_sees_everything_that_makes_and_uses_a_unit(normaliser):
    ctx = mixed()
    module = ctx.network.module
    with torch.no_grad():
        module.conv.weight[3], module.fc1.weight[:, 12:16] = 0, 0  # channel 3 of 8 is 4 inputs of fc1
    norms = scores(ctx, build("prune", "magnitude", {"normaliser": normaliser}), "conv.weight:0")
    assert norms[3] == 0 and (norms[[0, 1, 2, 4, 5, 6, 7]] > 0).all()
    if normaliser == "mean":
        assert float(norms.mean()) == pytest.approx(1.0)
    if normaliser == "none":
        expected = (module.conv.weight[0].square().sum() + module.fc1.weight[:, :4].square().sum()).sqrt()
        assert float(norms[0]) == pytest.approx(expected.item(), rel=1e-5)


def test_absorbing_keeps_constant_units_exactly():
    """A unit that is constant goes without a change of the function; immediate removal changes it."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        module[0].weight[2], module[0].bias[2], module[2].weight[:, 2] = 0, 0.7, 1e-3
    changes = {}
    for removal in ("immediate", "absorb"):
        ctx = context(copy.deepcopy(module), torch.randn(9, 4, dtype=torch.float64), torch.randint(3, (9,)))
        (event,) = adapt(ctx, Adaptation(build("prune", "magnitude", {"removal": removal}), All(), 1 / 6)).events
        assert event.units == (2,)
        changes[removal] = event.function_change
    assert changes["absorb"] < 1e-12 < 1e-4 < changes["immediate"]


def test_absorbing_is_refused_without_a_bias():
    ctx = mixed()
    method = build("prune", "magnitude", {"removal": "absorb"})
    assert "bias" in method.accepts(ctx, ctx.network.element("block.conv1.weight:0"))


def test_slimming_drives_useless_scales_down_and_finds_them():
    """Channels 0-3 carry the label; 4-7 are useless, and the penalty takes their scales away."""
    torch.manual_seed(0)
    convolution = [nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    module = nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with torch.no_grad():
        module[0].weight.copy_(torch.cat([torch.eye(4), torch.randn(4, 4)])[:, :, None, None])
        module[5].weight.copy_(torch.cat([4 * torch.eye(4), torch.zeros(4, 4)], 1))
    module[0].requires_grad_(False)
    module[5].requires_grad_(False)
    y = torch.randint(4, (64,))
    x = torch.randn(64, 4, 3, 3) * 0.3 + 2 * F.one_hot(y, 4)[:, :, None, None]
    ctx = context(module, x, y)
    method = build("prune", "slimming", {"strength": 0.02})
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        method.companion(ctx.network).after_backward(ctx.network)
        optimizer.step()
    gamma = module[1].weight.abs()
    assert gamma[:4].min() > 5 * gamma[4:].max() and gamma[4:].max() < 0.05, gamma
    (event,) = adapt(ctx, Adaptation(method, GlobalRanking(), 0.5)).events
    assert event.units == (4, 5, 6, 7)


def test_the_penalty_is_added_once_to_batch_norm_scales_only():
    ctx = mixed()
    module = ctx.network.module
    inputs, targets = next(iter(ctx.batches(1)))
    F.cross_entropy(module(inputs), targets).backward()
    before = {n: p.grad.clone() for n, p in module.named_parameters()}
    with torch.no_grad():
        module.stem_norm.weight[0] *= -1
    build("prune", "slimming", {"strength": 0.01}).companion(ctx.network).after_backward(ctx.network)
    for name, p in module.named_parameters():
        change = p.grad - before[name]
        scale = name in ("stem_norm.weight", "block.norm1.weight", "block.norm2.weight")
        assert torch.allclose(change, 0.01 * p.sign() if scale else torch.zeros_like(p), atol=1e-7), name


def test_slimming_refuses_elements_without_batch_norm():
    ctx = mixed()
    assert "BatchNorm" in build("prune", "slimming", {}).accepts(ctx, ctx.network.element("conv.weight:0"))


@pytest.mark.parametrize("selection", [All(), GlobalRanking()])
def test_masked_weights_stay_masked_and_amounts_are_of_what_is_left(selection):
    ctx = mixed()
    method = build("prune", "magnitude_weights", {})
    total = sum(e.size for e in ctx.network.elements() if e.level == "weight")
    left = total
    seen = {}
    for _ in range(3):
        adapt(ctx, Adaptation(method, selection, 0.3))
        masks = ctx.network.masks
        assert all(not (masks[n] & ~m).any() for n, m in seen.items())
        with torch.no_grad():
            for p in ctx.network.module.parameters():
                p.add_(torch.randn_like(p))
        apply_masks(ctx.network)
        seen = {n: m.clone() for n, m in masks.items()}
        now = total - sum(int((~m).sum()) for m in masks.values())
        assert now == pytest.approx(0.7 * left, abs=8)
        left = now


def test_global_weights_have_one_threshold():
    ctx = mixed()
    before = {n: p.detach().abs().clone() for n, p in ctx.network.module.named_parameters()}
    adapt(ctx, Adaptation(build("prune", "magnitude_weights", {}), GlobalRanking(), 0.4))
    masks = ctx.network.masks
    kept = torch.cat([before[n][m] for n, m in masks.items()])
    gone = torch.cat([before[n][~m] for n, m in masks.items()])
    assert gone.max() <= kept.min()


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(6) for _ in range(3)))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def test_blocks_that_do_nothing_go_first():
    torch.manual_seed(0)
    module = Chain()
    with torch.no_grad():
        module.blocks[1].norm2.weight.zero_()
    module.blocks[1].requires_grad_(False)
    x, y = torch.randn(32, 3, 6, 6), torch.randint(4, (32,))
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    ctx = context(module, x, y)
    method = build("prune", "remove_blocks", {})
    names = [f"blocks.{i}" for i in range(3)]
    measured = method.measure(ctx, [ctx.network.element(n) for n in names], dict.fromkeys(names, 1)).scores
    assert float(measured["blocks.1"]) == pytest.approx(0.0, abs=1e-7)
    assert min(float(measured["blocks.0"]), float(measured["blocks.2"])) > 0.01
    result = adapt(ctx, Adaptation(method, GlobalRanking(), 1, Scope(elements=("blocks.*",))))
    assert [e.element for e in result.events] == ["blocks.1"] and result.events[0].function_change < 1e-6
    assert result.events[0].predicted == pytest.approx(0.0, abs=1e-7)
