"""A fully connected network as one of single connections."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coppice.methods.network import Network
from coppice.methods.networks.dag import dag
from coppice.methods.networks.mlp import ACTIVATIONS, MLP


@torch.no_grad()
def from_mlp(network: Network) -> Network:
    """The same function as a DAG, neuron by neuron and weight by weight; masked weights become absent connections.

    Args:
        network: holds a `coppice.methods.networks.mlp.MLP` with at least one hidden layer.

    Raises:
        ValueError: it holds something else, or normalises its layers.
    """
    module = network.module
    layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
    if not isinstance(module, MLP) or len(layers) < 2 or any(isinstance(m, nn.BatchNorm1d) for m in module.modules()):
        raise ValueError(
            "only an mlp with hidden layers and without batch norm, as coppice.methods.networks.mlp makes it, becomes a DAG, "
            f"but got {type(module).__name__}; fold its batch norm into the layers before, or build a dag."
        )
    kinds = {type(m) for m in module.hidden if not isinstance(m, nn.Linear)}
    activation = next((name for name, kind in ACTIVATIONS.items() if kinds == {kind}), None)
    if activation is None or any(m.bias is None for m in layers):
        raise ValueError("the layers of an mlp that becomes a DAG must have biases and one known activation, but have not.")
    first = layers[0].weight
    arguments: dict[str, Any] = {
        "in_features": first.shape[1],
        "out_features": layers[-1].out_features,
        "hidden": [m.out_features for m in layers[:-1]],
        "activation": activation,
    }
    made = dag(**arguments).to(first.device, first.dtype)
    column, row = 0, 0
    for layer in layers:
        width, fed = layer.weight.shape
        into = made.out if layer is layers[-1] else made
        rows = slice(0, width) if into is made.out else slice(row, row + width)
        name = next(n for n, p in module.named_parameters() if p is layer.weight)
        into.weight[rows, column : column + fed] = layer.weight
        into.bias[rows] = layer.bias
        if name in network.masks:
            into.connections[rows, column : column + fed] = network.masks[name]
        column, row = column + fed, row + width
    lineage = list(network.lineage)
    return Network(
        made.train(module.training), "coppice.methods.networks.dag:dag", arguments, network.example_inputs, lineage=lineage
    )
