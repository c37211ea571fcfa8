"""What is claimed to keep the function keeps it, for norms and attentions of many kinds."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.exactness import keeps_function
from coppice.methods.surgery.tensors import copy_of


def change(module: nn.Module, inputs: Tensor, name: str, count: int = 2) -> tuple[str, float]:
    """What is claimed of an element's growth, and by how much, relatively, it changes the function."""
    torch.manual_seed(1)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    network = Network(module, "x:y", {}, (inputs.double(),))
    element = network.element(name)
    event = apply(network, GrowPlan(name, count), certify=network.example_inputs)
    return element.grow, event.function_change / event.function_scale


class OnePlus(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), 0.05

    def forward(self, x):
        return x * torch.pow(x.pow(2).mean(-1, keepdim=True) + self.eps, -0.5) * (1.0 + self.weight)


class LiteralEps(OnePlus):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.04) * self.weight


class Residual(nn.Module):
    """A stream of one linear layer and one branch, with a norm before or after."""

    def __init__(self, where: str, norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.where = where
        self.inp, self.n1, self.f1, self.f2 = nn.Linear(6, 8), norm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.n2, self.gamma, self.out = norm(8), nn.Parameter(torch.ones(8)), nn.Linear(8, 3)
        self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)

    def forward(self, x):
        x = self.inp(x)
        if self.where == "post":
            x = self.n1(x)
            return self.out(self.n2(x + self.f2(torch.relu(self.f1(x)))))
        y = self.depthwise(x.mT).mT if self.where == "depthwise" else x
        y = self.f2(torch.relu(self.f1(self.n1(y))))
        x = x + (self.gamma * y if self.where == "scaled" else 0.5 * y)
        return self.out(self.n2(x))


@pytest.mark.parametrize(
    ("module", "claim"),
    [
        (nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), "compensated"),
        (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)), "inexact"),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.RMSNorm(8), nn.Linear(8, 3)), "compensated"),
        (nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.RMSNorm(8), nn.Linear(8, 3)), "inexact"),
        (nn.Sequential(nn.Linear(6, 8), OnePlus(8), nn.Linear(8, 3)), "compensated"),
        (nn.Sequential(nn.Linear(6, 8), LiteralEps(8), nn.Linear(8, 3)), "inexact"),
    ],
)
def test_norms(module, claim):
    found, error = change(module, torch.randn(5, 6), "0.weight:0")
    assert found == claim and (error < 1e-12) == (claim == "compensated")


@pytest.mark.parametrize(
    ("where", "norm", "claim"),
    [("pre", nn.LayerNorm, "compensated"), ("post", nn.LayerNorm, "inexact"), ("depthwise", nn.LayerNorm, "inexact"),
     ("scaled", nn.LayerNorm, "inexact"), ("post", nn.RMSNorm, "compensated"), ("scaled", OnePlus, "compensated")],
)  # fmt: skip
def test_residual_streams(where, norm, claim):
    found, error = change(Residual(where, norm), torch.randn(5, 4, 6), "inp.weight:0")
    assert found == claim and (error < 1e-12) == (claim == "compensated")


class Attention(nn.Module):
    """Attention with a scale of some kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.heads = kind, 2
        self.q, self.k, self.v, self.o = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.temperature, self.inv_norm_factor = 2.0, 0.5
        self.qn, self.kn = nn.RMSNorm(4), nn.RMSNorm(4)
        self.place = nn.Linear(6, 8)
        self.bias = nn.Parameter(torch.randn(2, 1, 4))

    def forward(self, x):
        q, k, v, p = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v, self.place))
        if self.kind == "normed":
            q, k = self.qn(q), self.kn(k)
        if self.kind == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.kind == "fused with a scale":
            y = F.scaled_dot_product_attention(q, k, v, scale=self.inv_norm_factor)
        else:
            scores = q @ k.mT
            if self.kind == "two terms":
                scores = (scores + (q + self.bias) @ p.mT) / math.sqrt(q.shape[-1])
            scores = {
                "none": lambda: scores, "literal": lambda: scores * 0.35, "temperature": lambda: scores / self.temperature,
                "live": lambda: scores / math.sqrt(q.shape[-1]), "inv": lambda: scores * self.inv_norm_factor,
            }.get(self.kind, lambda: scores)()  # fmt: skip
            y = scores.softmax(-1) @ v
        return self.o(y.transpose(1, 2).flatten(-2))


@pytest.mark.parametrize(
    ("kind", "claim"),
    [("fused", "compensated"), ("fused with a scale", "inexact"), ("none", "inexact"), ("literal", "inexact"),
     ("temperature", "inexact"), ("live", "inexact"), ("inv", "inexact"), ("two terms", "inexact")],
)  # fmt: skip
def test_attention_scales(kind, claim):
    """Where the rule is not certain, running the network finds the right compensation all the same."""
    torch.manual_seed(0)
    found, error = change(Attention(kind), 3 * torch.randn(2, 5, 6), "q.weight:0/1")
    assert found == claim and error < 1e-12


def test_normalised_queries_are_no_compensation():
    torch.manual_seed(0)
    found, error = change(Attention("normed"), 3 * torch.randn(2, 5, 6), "q.weight:0/1")
    assert found == "inexact" and error > 1e-6


@pytest.mark.parametrize(
    ("module", "name", "kept"),
    [
        (Attention("inv"), "q.weight:0/1", True), (Attention("normed"), "q.weight:0/1", False),
        (Residual("pre"), "inp.weight:0", True), (Residual("post"), "inp.weight:0", False),
        (Residual("scaled"), "f1.weight:0", True),
    ],
)  # fmt: skip
def test_what_a_compensation_achieves_is_measured(module, name, kept):
    torch.manual_seed(0)
    network = Network(module, "x:y", {}, (3 * torch.randn(2, 5, 6),))
    before = copy_of(module)
    assert keeps_function(network, network.element(name)) == kept
    if network.element(name).compensation:
        assert (network.growth_changes[name] < 1e-12) == kept, "in double precision"
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))
