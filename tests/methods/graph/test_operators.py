"""Less common operators leave free what they do not mix, and say what they do mix (`test_soundness` resizes and runs each)."""

import pytest
import torch

from coppice.methods.graph import elements, trace
from coppice.methods.graph.expr import atom_names
from tests.support.zoo_operators import OPERATORS

OTHERS = {
    "experts": "up:1",
    "projected": "r.weight_ih_l0:0",
    "both_ways_projected": "r.weight_ih_l0:0",
    "lstm_cell": "r.weight_ih:0",
    "gru_cell": "r.weight_ih:0",
    "rnn_cell": "r.weight_ih:0",
}
"""Another dimension that must be free."""


@pytest.mark.parametrize("name", OPERATORS)
def test_the_width_is_free(name: str) -> None:
    torch.manual_seed(0)
    factory, inputs = OPERATORS[name]
    network, example = factory().eval(), inputs()
    graph = trace(network, example)
    permissible = {move.atom for e in elements(network, example, graph=graph) if e.permissible for move in e.moves}
    for dimension in ("a.weight:0", OTHERS.get(name, "a.weight:0")):
        tensor, _, position = dimension.rpartition(":")
        assert atom_names(graph.tensors[tensor][int(position)]) & permissible, graph.frozen
