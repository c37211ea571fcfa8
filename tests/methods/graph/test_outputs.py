from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from coppice.methods.apply import apply, outputs
from coppice.methods.graph.outputs import Returned, tensors_in
from coppice.methods.network import Network
from coppice.methods.plan import PrunePlan

Pair = namedtuple("Pair", "logits name")


@dataclass
class Data:
    logits: torch.Tensor
    inputs: Any


class Cache:
    def __init__(self, tensor):
        self.layers, self.me = [{"keys": tensor}], self


class Slotted:
    __slots__ = ("logits",)

    def __init__(self, tensor):
        self.logits = tensor


class Net(nn.Module):
    def __init__(self, wrap, dtype=torch.float32):
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(6, 8, dtype=dtype), nn.Linear(8, 3, dtype=dtype), wrap

    def forward(self, x):
        return self.wrap(self.b(self.a(x)))


WRAPPERS = {
    "dataclass": lambda y: Data(y, "nothing"),
    "named tuple": lambda y: Pair(y, "nothing"),
    "nested": lambda y: [{"a": (Data(None, {"b": [y]}),)}],
    "slots": lambda y: (Slotted(y),),
    "whole numbers": lambda y: (100 * y).long(),
    "beside": lambda y: (torch.zeros(1), {"later": y}),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_change_is_seen_whatever_holds_the_outputs(kind):
    torch.manual_seed(0)
    x = (torch.randn(4, 6),)
    network = Network(Net(WRAPPERS[kind]), "x:y", {}, x)
    element = next(e.name for e in network.elements() if e.name == "a.weight:0") if kind != "slots" else "a.weight:0"
    event = apply(network, PrunePlan(element, (0, 1, 2, 3, 4, 5)), certify=x)
    assert event.function_change > 0.1 * event.function_scale > 0


def test_complex_outputs_are_compared():
    torch.manual_seed(0)
    x = (torch.randn(4, 6, dtype=torch.cfloat),)
    event = apply(Network(Net(lambda y: y, torch.cfloat), "x:y", {}, x), PrunePlan("a.weight:0", (0, 1, 2, 3)), certify=x)
    assert event.function_change > 0.1 * event.function_scale > 0


@pytest.mark.parametrize("nothing", [None, "text", (), {"a": [1, 2.0]}, torch.zeros(0, 3)])
def test_nothing_to_compare_is_an_error(nothing):
    with pytest.raises(ValueError, match="at least one tensor"):
        outputs(Net(lambda y: nothing), torch.randn(4, 6))


def test_what_a_cache_holds_is_seen_beside_the_results_and_may_change_its_shape():
    before = Returned.of((torch.ones(2), Cache(torch.ones(3))))
    assert len(tensors_in(Cache(torch.ones(3)))) == 1
    assert Returned.of((torch.ones(2), Cache(torch.full((3,), 2.0)))).differences(before) == (1.0, 1.0)
    assert Returned.of((torch.ones(2), Cache(torch.ones(4)))).differences(before) == (0.0, 1.0)
    assert Returned.of((torch.ones(3), Cache(torch.ones(3)))).differences(before) is None
