"""Every optimizer of torch.optim: one step after a change is the same step after a round trip of its state."""

import copy
import json

import pytest
import torch
from torch import nn, optim

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, PrunePlan
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.methods.surgery.optimizer_state import load_optimizer_state, optimizer_state
from coppice.methods.surgery.state_entries import fill_of

KINDS = {
    "adamw amsgrad": lambda p: optim.AdamW(p, lr=1e-2, amsgrad=True),
    "adam fused": lambda p: optim.Adam(p, lr=1e-2, fused=True),
    "adam foreach": lambda p: optim.Adam(p, lr=1e-2, foreach=True),
    "adam tensor rate": lambda p: optim.Adam(p, lr=torch.tensor(1e-2)),
    "adafactor": lambda p: optim.Adafactor(p, lr=1e-2),
    "adadelta": optim.Adadelta,
    "adagrad": lambda p: optim.Adagrad(p, lr=1e-2),
    "adagrad fused": lambda p: optim.Adagrad(p, lr=1e-2, fused=True),
    "adamax": optim.Adamax,
    "asgd": lambda p: optim.ASGD(p, lr=1e-2, t0=1),
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "rmsprop": lambda p: optim.RMSprop(p, centered=True, momentum=0.9),
    "rprop": lambda p: optim.Rprop(p, lr=1e-3),
    "sgd fused": lambda p: optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
    "sgd maximize": lambda p: optim.SGD(p, lr=1e-3, momentum=0.9, maximize=True),
}


def network(layout):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.GELU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).double().to(memory_format=layout)
    return Network(module, "x:y", {}, (torch.randn(4, 3, 8, 8).double().to(memory_format=layout),))


def step(module, x, optimizer):
    optimizer.zero_grad()
    module(x).pow(2).mean().backward()
    optimizer.step()


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("name", KINDS)
def test_one_step_after_a_round_trip(name, layout):
    n = network(layout)
    optimizer = KINDS[name](list(n.module.parameters()))
    step(n.module, *n.example_inputs, optimizer)
    for plan in (GrowPlan("0.weight:0", 3), PrunePlan("0.weight:0", (1, 5))):
        step(n.module, *n.example_inputs, optimizer)
        apply(n, plan, [OptimizerFollower(optimizer, n.module)])
        again = copy.deepcopy(n.module)
        fresh = KINDS[name](list(again.parameters()))
        tensors, rest = optimizer_state(optimizer, n.module)
        load_optimizer_state(fresh, again, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(rest)))
        step(n.module, *n.example_inputs, optimizer)
        step(again, *n.example_inputs, fresh)
        for a, b in zip(n.module.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_averages_of_asgd_are_copies_of_the_weights():
    n = network(torch.contiguous_format)
    optimizer = KINDS["asgd"](list(n.module.parameters()))
    step(n.module, *n.example_inputs, optimizer)
    apply(n, GrowPlan("0.weight:0", 3), [OptimizerFollower(optimizer, n.module)])
    weight = n.module[0].weight
    assert torch.equal(optimizer.state[weight]["ax"][8:], weight[8:]) and bool(weight[8:].any())


def test_new_entries_of_complex_weights_get_a_mean():
    torch.manual_seed(0)
    weight = torch.randn(4, 3, dtype=torch.complex64, requires_grad=True)
    assert fill_of("exp_avg_sq", [(weight.detach().abs().square().to(weight.dtype), weight)]) == "mean"
    assert fill_of("own", [(torch.ones(4, 3), weight)]) == "zero"


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(9, 6, sparse=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.words(x).mean(1))


def test_sparse_adam_beside_adam():
    torch.manual_seed(0)
    n = Network(Words(), "x:y", {}, (torch.randint(9, (8, 3)),))
    optimizers = [optim.SparseAdam(n.module.words.parameters(), lr=0.01), optim.Adam(n.module.last.parameters(), lr=0.01)]

    def both():
        n.module(*n.example_inputs).pow(2).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    both()
    for plan in (GrowPlan("words.weight:1", 2), PrunePlan("words.weight:1", (0, 3))):
        apply(n, plan, [OptimizerFollower(o, n.module) for o in optimizers])
        before = n.module.words.weight.detach().clone()
        both()
        moved = (n.module.words.weight != before).any(0)
        assert int(moved.sum()) >= 6
