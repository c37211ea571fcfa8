import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.graph.expr import Atom
from coppice.methods.graph.values import AttributeEdit
from coppice.methods.network import Network
from coppice.methods.probe import probe
from tests.support.zoo import ZOO

INEXACT = {("group_shuffle", "stem.weight:0/1"), ("group_shuffle", "conv1.weight:0/4")}
"""Inside a group of GroupNorm over an image, no fill of fewer than all channels keeps mean and variance."""


def build(name: str) -> Network:
    torch.manual_seed(0)
    factory, inputs = ZOO[name]
    return Network(factory(), f"tests.support.zoo:{name}", {}, inputs())


@pytest.mark.parametrize("name", ZOO)
def test_what_the_algebra_proposes_runs_and_agrees(name):
    network = build(name)
    before = copy.deepcopy(network.module.state_dict())
    rng = torch.get_rng_state()
    probed = probe(network)
    assert [p.name for p in probed] == [e.name for e in network.elements()]
    for element, seen in zip(network.elements(), probed, strict=True):
        if element.level == "weight" or not element.permissible:
            assert seen == element
            continue
        assert seen.permissible, f"{seen.name}: {seen.reason}"
        assert seen.verified or (name, seen.name) in INEXACT, f"{seen.name} {element.grow} {element.shrink} -> {seen}"
    assert all(torch.equal(t, before[k]) for k, t in network.module.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())


class Cut(nn.Module):
    """`width` is what the slice needs; `other` is equal to it by chance and breaks the forward when it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.width = self.other = 8
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = F.relu(self.a(x)) + torch.ones(self.width) * 0.0
        return self.b(y) + torch.ones(self.other).sum() * 0.01


def test_attributes_that_do_not_follow_are_dropped():
    network = Network(Cut(), "x:y", {}, (torch.randn(5, 4),))
    atom = Atom("a.weight:0", 8)
    edits = (AttributeEdit("", "width", atom), AttributeEdit("", "other", atom))
    element = replace(network.element("a.weight:0"), attributes=edits, reason=None, grow="exact", shrink="exact")
    (seen,) = probe(network, [element])
    assert [a.name for a in seen.attributes] == ["width"]
    assert seen.verified and seen.permissible


def test_what_does_not_run_gets_a_reason():
    network = Network(Cut(), "x:y", {}, (torch.randn(5, 4),))
    element = replace(network.element("a.weight:0"), attributes=(), reason=None, grow="exact", shrink="exact")
    (seen,) = probe(network, [element])
    assert not seen.permissible and (seen.grow, seen.shrink) == ("no", "no") and seen.verified is False
    assert "size" in seen.reason


class Spread(nn.Module):
    """The number of units changes every output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.softmax(self.a(x), -1))


def test_a_wrong_claim_is_taken_back():
    network = Network(Spread(), "x:y", {}, (torch.randn(5, 4),))
    claimed = replace(network.element("a.weight:0"), grow="exact", shrink="exact")
    (seen,) = probe(network, [claimed])
    assert (seen.grow, seen.shrink, seen.verified, seen.permissible) == ("inexact", "inexact", False, True)


class Blocks(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6)) for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def counted(depth: int) -> int:
    network = Network(Blocks(depth), "x:y", {}, (torch.randn(5, 6),))
    units = [e for e in network.elements() if e.level == "channel" and e.permissible]
    assert len(units) == depth
    made, plain = [], Blocks.forward
    Blocks.forward = lambda self, x: (made.append(1), plain(self, x))[1]
    try:
        assert all(e.verified for e in probe(network, units))
    finally:
        Blocks.forward = plain
    return len(made)


def test_units_of_a_deep_network_are_verified_together():
    assert counted(24) == counted(4) <= 20
