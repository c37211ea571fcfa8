"""Whether growing an element keeps the function: by rule where it is exact, else by running a copy once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.carry_out import resize_all
from coppice.methods.surgery.resize import widening
from coppice.methods.surgery.tensors import copy_of
from coppice.methods.surgery.trial import change_between, copy_with_weights, like, results, scaled_by_size

SAME = 1e-6
"""Largest change of the outputs, relative to the largest output, that counts as none."""


def keeps_function(network: Network, element: Element) -> bool:
    """Whether new units of an element can leave the function as it is."""
    if element.grow == "exact" or not element.compensation:
        return element.grow == "exact"
    return element.grow != "no" and growth_change(network, element) < SAME


def growth_change(network: Network, element: Element) -> float:
    """How much growing an element changes the function, relative to the largest output; measured once, remembered.

    A copy with random numbers in place of constant parameters grows by one quantum; in double precision, where it runs in that.
    """
    known = network.growth_changes.get(element.name)
    if known is None:
        known = network.growth_changes[element.name] = _measured(network, element)
    return known


def _measured(network: Network, element: Element) -> float:
    by_size = scaled_by_size(network, [element], resize_all)
    original = copy_with_weights(network)
    before = _in_double(original)
    grown = like(original, copy_of(original.module))
    resize_all(grown, [widening(element, GrowPlan(element.name, element.quantum))], (), by_size)
    return change_between(before, results(grown))


def _in_double(network: Network) -> Any:
    """The outputs in double precision, which the network is brought to; in its own where it does not run in that."""
    single, inputs = copy_of(network.module), network.example_inputs
    network.module.double()
    network.example_inputs = tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x, inputs)
    try:
        return results(network)
    except (RuntimeError, TypeError, ValueError):
        network.module, network.example_inputs = single, inputs
        return results(network)
