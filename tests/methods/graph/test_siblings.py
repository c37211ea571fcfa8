"""Experts that got no token from the example inputs are like their siblings: they follow, and run when their turn comes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.graph import elements, trace
from tests.support.resizing import resize

EXPERTS = 6


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 12
        self.w1, self.w2, self.w3 = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2((F.silu(self.w1(x)) * self.w3(x)).view(-1, self.width))


class Routed(nn.Module):
    """Mixture of experts in which each is called with the tokens that chose it; how it finds them differs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.gate, self.o = nn.Linear(4, 8), nn.Linear(8, EXPERTS), nn.Linear(8, 3)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).flatten(0, 1)
        weight, chosen = self.gate(h).softmax(-1).max(-1)
        return self.o(h + weight[:, None] * getattr(self, self.how)(h, chosen)).view(*x.shape[:2], -1)

    def skipped(self, h: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().squeeze(-1)
            if rows.numel():
                out[rows] = expert(h[rows])
        return out

    def empty(self, h: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(h)
        mask = F.one_hot(chosen[:, None], num_classes=len(self.experts)).permute(2, 1, 0)
        for number, expert in enumerate(self.experts):
            _, rows = torch.where(mask[number])
            out.index_add_(0, rows, expert.w2(expert.w1(h[None, rows].reshape(-1, h.shape[-1]))))
        return out

    def split(self, h: Tensor, chosen: Tensor) -> Tensor:
        order = chosen.argsort()
        counts = torch.bincount(chosen, minlength=len(self.experts)).tolist()
        parts = zip(self.experts, h[order].split(counts), strict=True)
        return torch.zeros_like(h).index_copy(0, order, torch.cat([expert(p) if len(p) else p for expert, p in parts]))


@pytest.mark.parametrize("how", ["skipped", "empty", "split"])
@torch.no_grad()
def test_experts_without_a_token_follow(how: str) -> None:
    torch.manual_seed(0)
    module, few, many = Routed(how).eval(), torch.randn(1, 3, 4), torch.randn(4, 32, 4)
    graph = trace(module, (few,))
    found = {e.name: e for e in elements(module, (few,), graph=graph) if e.permissible and e.level == "channel"}
    hidden = {name for name in found if name.startswith("experts")}
    assert len(hidden) >= EXPERTS and "a.weight:0" in found
    expected = module(many)
    for name in ("a.weight:0", *hidden):
        element = found[name]
        grown = {m.atom: [*range(graph.atoms[m.atom].size), *[-1] * m.units] for m in element.moves}
        torch.testing.assert_close(resize(module, graph, grown, element.attributes)(many), expected)


def test_what_no_list_holds_is_not_guessed() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.a(x))

    reasons = {e.name: e.reason for e in elements(Two(), (torch.randn(2, 4),))}
    assert reasons["b.weight:0"] == "never used by the forward"
