"""Costs agree with resizing the network and counting again."""

import pytest
import torch

from coppice.methods.apply import apply
from coppice.methods.measures.cost import flops, flops_per_unit, parameters_per_unit
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.testing.examples import everything, mixed, same
from tests.support.zoo import ZOO

NAMES = ["resnet", "vgg11bn", "flatnet", "densenet", "vit_hand", "dwsep_se"]


def build(name):
    torch.manual_seed(0)
    factory, inputs = ZOO[name]
    return Network(factory(), f"tests.support.zoo:{name}", {}, inputs())


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_costs_what_growing_by_it_adds(name):
    network = build(name)
    graph = network.graph()
    units = [e for e in network.elements() if e.permissible and e.moves and e.grow in ("exact", "compensated")][:6]
    costs = flops_per_unit(network.module, network.example_inputs, graph, units)
    for element in units:
        fresh = build(name)
        before = flops(fresh.module, fresh.example_inputs)
        event = apply(fresh, GrowPlan(element.name, element.quantum))
        added = (event.parameters_after - event.parameters_before) / element.quantum
        assert parameters_per_unit(graph, element) == pytest.approx(added, rel=1e-6), element.name
        more = (flops(fresh.module, fresh.example_inputs) - before) / element.quantum
        assert costs[element.name] == pytest.approx(more, rel=0.35 if name == "vit_hand" else 1e-6), element.name


def test_counting_leaves_no_trace_and_is_per_sample():
    network = mixed().network
    network.module.stem_norm.eval()
    before, rng = everything(network.module), torch.get_rng_state()
    one = flops(network.module, (torch.randn(1, 3, 8, 8),))
    torch.set_rng_state(rng)
    assert flops(network.module, (torch.zeros(4, 3, 8, 8),)) == one > 0
    assert same(before, everything(network.module)) and torch.equal(rng, torch.get_rng_state())
    assert network.module.training and not network.module.stem_norm.training


def test_a_linear_layer_takes_two_flops_a_weight():
    assert flops(torch.nn.Linear(7, 5), (torch.zeros(3, 7),)) == 2 * 7 * 5


def test_blocks_cost_what_is_in_them():
    network = mixed().network
    block = network.element("block")
    own = sum(p.numel() for p in network.module.block.parameters())
    assert parameters_per_unit(network.graph(), block) == own
    costs = flops_per_unit(network.module, network.example_inputs, network.graph(), [block])
    assert costs["block"] == pytest.approx(2 * 2 * 6 * 5 * 9 * 64)
