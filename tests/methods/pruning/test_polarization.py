"""Polarization: the penalty's gradient, the clamp, its threshold, and scales that part into two modes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.pruning.polarization import fraction_between, valley
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import context, mixed

SPARSE = ("stem_norm.weight", "block.norm1.weight", "block.norm2.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_penalty_has_the_gradient_that_autograd_gives(dtype):
    ctx = mixed(dtype)
    module = ctx.network.module
    with torch.no_grad():
        module.stem_norm.weight[0] *= -1
    named = dict(module.named_parameters())
    every = torch.cat([named[n] for n in SPARSE])
    penalty = 1.3 * every.abs().sum() - (every - every.mean()).abs().sum()
    expected = dict(zip(SPARSE, torch.autograd.grad(0.02 * penalty, [named[n] for n in SPARSE]), strict=True))
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    build("prune", "polarization", {"strength": 0.02, "t": 1.3}).companion(ctx.network).after_backward(ctx.network)
    for name, p in named.items():
        torch.testing.assert_close(p.grad - 1, expected.get(name, torch.zeros_like(p)), atol=1e-6, rtol=0)


def test_scales_are_clamped_after_a_step_and_nothing_else_is():
    ctx = mixed()
    module = ctx.network.module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.linspace(-3, 3, p.numel()).view_as(p))
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    build("prune", "polarization", {"upper": 0.8}).companion(ctx.network).after_step(ctx.network, optimizer)
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name].clamp(0, 0.8) if name in SPARSE else before[name]), name


def test_the_penalty_follows_the_network_as_it_shrinks():
    ctx = mixed()
    module, method = ctx.network.module, build("prune", "polarization", {"strength": 0.1})
    companion = method.companion(ctx.network)
    for _ in range(2):
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        companion.after_backward(ctx.network)
        assert all(dict(module.named_parameters())[n].grad.abs().sum() > 0 for n in SPARSE)
        assert adapt(ctx, Adaptation(method, All(), 2)).events


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([0.0] * 5 + [0.003] * 3 + [0.8, 0.9, 0.95], 0.01),
        ([0.001] * 6 + [0.012] * 4 + [0.025] * 2 + [0.9] * 8, 0.03),
        ([0.5, 0.6, 0.7, 0.8], 0.01),
        ([i / 1000 + 0.0005 for i in range(1000) for _ in range(1 + (1000 - i) // 10)], -1.0),
        ([i / 100 + 0.005 for i in range(50) for _ in range(abs(30 - i) + 1)], -1.0),
    ],
    ids=["two modes", "a tail", "one mode above", "no valley", "a valley too high"],
)
def test_the_threshold_is_the_first_valley_of_the_layers_histogram(values, cut):
    assert valley(torch.tensor(values, dtype=torch.float64), 1.0) == pytest.approx(cut)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv2, self.norm2 = nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        x = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


def trained(name, arguments, steps=220):
    """A small network trained with a penalty on classes that are frequencies in images; scales start at 0.5."""
    torch.manual_seed(0)
    y = torch.arange(128) % 4
    wave = torch.sin(torch.arange(6.0) * (y[:, None] + 1) * 0.7)[:, None, None, :]
    x = torch.randn(128, 3, 6, 6) * 0.7 + wave
    module = Net()
    for norm in (module.norm1, module.norm2):
        nn.init.uniform_(norm.weight, 0.4, 0.6)
    ctx = context(module, x, y)
    companion = build("prune", name, arguments).companion(ctx.network)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        companion.after_backward(ctx.network)
        optimizer.step()
        companion.after_step(ctx.network, optimizer)
    return ctx, torch.cat([module.norm1.weight, module.norm2.weight]).detach()


def test_scales_part_into_two_modes_and_those_at_zero_are_advised():
    plain = trained("slimming", {"strength": 0.0})[1]
    l1 = trained("slimming", {"strength": 5e-3})[1]
    ctx, polar = trained("polarization", {"strength": 5e-3, "t": 1.0})
    low, kept = polar <= 0.01, polar[polar > 0.01]
    between = [float(((g.abs() > 0.01) & (g.abs() < 0.5)).float().mean()) for g in (polar, plain, l1)]
    assert between[0] < 0.05 and min(between[1:]) > 0.15, between
    assert 0.3 < float(low.float().mean()) < 0.7 and float(kept.median()) > 0.9
    assert fraction_between(polar) < fraction_between(plain)
    method = build("prune", "polarization", {"removal": "absorb"})
    result = adapt(ctx, Adaptation(method, All(), Amount.read("advised")))
    norms = [ctx.network.module.norm1.weight, ctx.network.module.norm2.weight]
    assert sum(len(e.units) for e in result.events) == int(low.sum()) and all(bool((g > 0.01).all()) for g in norms)
    exact = next(e for e in result.events if e.element == "conv2.weight:0")
    assert exact.function_change < 1e-3 * exact.function_scale, "what is left of a unit is its constant shift, which was absorbed"


def test_elements_without_batch_norm_are_refused():
    ctx = mixed()
    assert "BatchNorm" in build("prune", "polarization", {}).accepts(ctx, ctx.network.element("conv.weight:0"))
