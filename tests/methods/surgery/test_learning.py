"""New units learn: some of their entries move within three steps of training, or the growth is refused with that reason."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from coppice.methods.apply import apply
from coppice.methods.graph.expr import NEW, index_map
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.tensors import copy_of, get_tensor
from tests.support.zoo import ZOO


def randomised(module: nn.Module) -> nn.Module:
    """Without parameters that are zero or constant, which would keep gradients from everything before them."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and float(parameter.std()) == 0:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


def moved(network: Network, element: Element, count: int = 2) -> float:
    """How far the new entries have moved, at most, after three steps of SGD."""
    graph = network.graph()
    apply(network, GrowPlan(element.name, count * element.quantum))
    grown = {m.atom: [*range(element.size * m.units), *([NEW] * count * element.quantum * m.units)] for m in element.moves}
    start = {n: p.detach().clone() for n, p in network.module.named_parameters()}
    optimizer = torch.optim.SGD(network.module.parameters(), 0.01)
    torch.manual_seed(2)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = [t for t in tree_leaves(network.module(*network.example_inputs)) if isinstance(t, Tensor) and t.requires_grad]
        torch.stack([(t.float() - torch.randn(t.shape)).square().mean() for t in outputs]).sum().backward()
        optimizer.step()
    most = 0.0
    for name in start.keys() & graph.tensors.keys():
        change = (get_tensor(network.module, name).detach() - start[name]).abs()
        for dim, expr in enumerate(graph.tensors[name]):
            new = [i for i, old in enumerate(index_map(expr, grown)) if old == NEW]
            most = max([most, *change.index_select(dim, torch.tensor(new)).flatten().tolist()]) if new else most
    return most


@pytest.mark.parametrize("name", ZOO)
def test_every_element_of_the_zoo(name):
    torch.manual_seed(0)
    factory, inputs = ZOO[name]
    origin = Network(randomised(factory()), "x:y", {}, inputs())
    for element in origin.elements():
        if element.level in ("channel", "head", "group") and element.permissible and element.grow != "no":
            network = Network(copy_of(origin.module), "x:y", {}, origin.example_inputs)
            try:
                assert moved(network, element) > 0, element.name
            except PlanError as error:
                assert "could never learn" in str(error)


@pytest.mark.parametrize("groups", [8, 4, 1])
def test_transposed_convolutions(groups):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=groups), nn.Tanh()]
    origin = Network(nn.Sequential(*layers, nn.Conv2d(8, 3, 1)), "x:y", {}, (torch.randn(2, 3, 8, 8),))
    found = [e for e in origin.elements() if e.permissible and e.level in ("channel", "group")]
    assert len(found) >= 2
    for element in found:
        network = Network(copy_of(origin.module), "x:y", {}, origin.example_inputs)
        before = network.module(*network.example_inputs).detach()
        grown = Network(copy_of(origin.module), "x:y", {}, origin.example_inputs)
        apply(grown, GrowPlan(element.name, element.quantum))
        torch.testing.assert_close(grown.module(*grown.example_inputs).detach(), before)
        assert moved(network, element) > 0


class Normalised(nn.Linear):
    """A layer whose weight is normalised by its own statistics before it is used."""

    def __init__(self, inputs: int, outputs: int, how: str) -> None:
        super().__init__(inputs, outputs)
        self.how = how

    def forward(self, x):
        w = self.weight
        w = {
            "standardised": lambda: (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5),
            "centred": lambda: w - w.mean(1, keepdim=True),
            "cosine": lambda: F.normalize(w, dim=1),
            "largest": lambda: w / w.abs().max(),
            "softmax": lambda: w.softmax(1),
        }[self.how]()
        return F.linear(x, w, self.bias)


@pytest.mark.parametrize("how", ["standardised", "centred", "cosine", "largest", "softmax"])
def test_weights_that_are_normalised(how):
    torch.manual_seed(0)
    module = nn.Sequential(Normalised(6, 8, how), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), Normalised(8, 3, how))
    network = Network(module, "x:y", {}, (torch.randn(16, 6),))
    made, used = network.element("0.weight:0"), network.element("2.weight:0")
    assert made.grow == ("inexact" if how == "largest" else "exact")
    assert used.grow == ("exact" if how == "cosine" else "inexact") or how == "cosine", "zeros change the statistics"
    assert moved(network, made) > 0 and moved(network, network.element("2.weight:0")) > 0


def test_normalised_queries_and_keys():
    from tests.methods.surgery.test_compensations import Attention

    torch.manual_seed(0)
    network = Network(Attention("normed"), "x:y", {}, (torch.randn(2, 5, 6),))
    assert moved(network, network.element("q.weight:0/1")) > 0


def frozen() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    module[2].requires_grad_(False)
    return Network(module, "x:y", {}, (torch.randn(16, 6),))


def test_nothing_grows_before_a_frozen_layer():
    network = frozen()
    before = network.module[0].weight.detach().clone()
    with pytest.raises(PlanError, match=r"frozen \(2\.weight\), so that they could never learn"):
        apply(network, GrowPlan("0.weight:0", 2))
    assert torch.equal(network.module[0].weight, before)
    assert moved(network, network.element("2.weight:0")) > 0, "its own new rows stay, but the next layer learns"
    given = GrowPlan("0.weight:0", 1, produce="zero", values={"2.weight:1": torch.ones(10, 1)[:8]})
    apply(frozen(), given)
    apply(frozen(), GrowPlan("0.weight:0", 1, sources=(2,)))
