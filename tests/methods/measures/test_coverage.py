"""Coverage: parameters that usable units hold, and the reasons for the others."""

import torch
from torch import Tensor, nn

from coppice.methods.measures.coverage import coverage
from coppice.methods.network import Network


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.skip = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x))) + self.skip(x)


def test_each_parameter_counts_once_and_the_rest_has_reasons() -> None:
    found = coverage(Network(Net(), "x:y", {}, (torch.randn(2, 4),)))
    assert found.parameters == 30 + 21 + 12
    assert found.units == found.by_level["channel"] == 30 + 18
    assert found.by_level["weight"] == 24 + 18 + 12
    assert dict(found.reasons) == {"output of the network": 3 + 12, "input of the network": 12}
    assert found.share == 48 / 63


def test_part_of_a_dimension_counts_in_part() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6, bias=False), nn.Linear(10, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cat([self.a(x), x], 1))

    found = coverage(Network(Joined(), "x:y", {}, (torch.randn(2, 4),)))
    assert found.units == 24 + 18


def test_elements_in_doubt_or_refused_hold_nothing() -> None:
    network = Network(Net(), "x:y", {}, (torch.randn(2, 4),))
    found = coverage(network, [])
    assert (found.units, found.share) == (0, 0.0)
