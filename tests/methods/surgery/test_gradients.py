"""Gradients accumulated before a change are kept for all parameters or for none, and the event says which."""

import torch
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan, RemovePlan


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    n = Network(module, "x:y", {}, (torch.randn(4, 5),))
    module(*n.example_inputs).sum().backward()
    return n


def test_kept_for_all():
    n = network()
    before = {name: p.grad.clone() for name, p in n.module.named_parameters()}
    event = apply(n, PrunePlan("0.weight:0", (1,)))
    assert event.gradients == "kept" == event.to_json()["gradients"]
    kept = torch.tensor([0, 2, 3, 4, 5])
    assert torch.equal(n.module[0].weight.grad, before["0.weight"][kept])
    assert torch.equal(n.module[2].weight.grad, before["2.weight"][:, kept])
    assert torch.equal(n.module[4].weight.grad, before["4.weight"])
    apply(n, GrowPlan("0.weight:0", 2))
    assert torch.equal(n.module[0].weight.grad[:5], before["0.weight"][kept]) and not n.module[0].weight.grad[5:].any()
    assert apply(n, InsertPlan("after:0", "residual_linear")).gradients == "kept"
    assert torch.equal(n.module[4].weight.grad, before["4.weight"]) and n.module[0].grown_0.first.weight.grad is None
    apply(n, RemovePlan("0.grown_0"))
    assert torch.equal(n.module[4].weight.grad, before["4.weight"])


def test_none_where_there_are_none():
    n = network()
    n.module.zero_grad()
    assert apply(n, GrowPlan("0.weight:0", 2)).gradients is None
    assert all(p.grad is None for p in n.module.parameters())


def test_a_rejected_change_leaves_them():
    n = network()
    before = {name: (p.grad, p.grad.clone()) for name, p in n.module.named_parameters()}

    def train(event):
        n.module(*n.example_inputs).sum().backward()
        return False

    apply(n, GrowPlan("0.weight:0", 2), accept=train)
    for name, p in n.module.named_parameters():
        assert torch.equal(p.grad, before[name][1]), name
        assert p.grad is before[name][0], name


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(7, 6, sparse=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.words(x).mean(1))


def test_dropped_for_all_where_a_sparse_one_cannot_follow():
    torch.manual_seed(0)
    n = Network(Words(), "x:y", {}, (torch.randint(7, (4, 2)),))
    n.module(*n.example_inputs).sum().backward()
    assert apply(n, GrowPlan("words.weight:1", 2)).gradients == "dropped"
    assert all(p.grad is None for p in n.module.parameters())
