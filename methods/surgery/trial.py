"""Grow an element of a copy, and see what that does to the function."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph.compensable import scores_of
from coppice.methods.graph.outputs import Returned
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.resize import Resize, widening
from coppice.methods.surgery.tensors import copy_of

ResizeAll = Callable[[Network, Sequence[Resize], Sequence[Any], Collection[str]], None]


def copy_with_weights(network: Network) -> Network:
    """A copy with random numbers in place of constant parameters, which would hide what a change does."""
    generator = torch.Generator().manual_seed(0)
    module = copy_of(network.module)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1 and float(parameter.std()) == 0.0:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.2)
    return like(network, module)


def like(network: Network, module: nn.Module) -> Network:
    """The network with another module of the same structure."""
    made = replace(network, module=module, edits=[], attributes={}, masks=dict(network.masks), lineage=[], growth_changes={})
    made._graph, made._elements = network.graph(), network.elements()
    return made


@torch.no_grad()
def results(network: Network) -> list[Tensor]:
    """What the network returns for its example inputs, in evaluation mode."""
    network.module.eval()
    with torch.random.fork_rng(devices=[]):
        output = network.module(*network.example_inputs)
    return Returned.of(output).results


def change_between(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Largest difference over the largest entry, of any output."""
    worst = 0.0
    for a, b in zip(after, before, strict=True):
        if a.shape != b.shape:
            return math.inf
        if b.numel():
            change = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-12)
            worst = max(worst, change if math.isfinite(change) else math.inf)
    return worst


def scaled_by_size(network: Network, elements: Sequence[Element], resize_all: ResizeAll) -> frozenset[str]:
    """Those of the elements whose scale of attention follows their size while the forward runs.

    Where the code does not show it, a copy is grown both ways, and the way that changes less is right.
    """
    found = []
    for element in elements:
        if "attention_scale" not in element.compensation:
            continue
        scores = [s for m in element.moves for s in scores_of(network.graph(), m.atom)]
        if all(s.by_size for s in scores) or _changes_less(network, element, resize_all):
            found.append(element.name)
    return frozenset(found)


def _changes_less(network: Network, element: Element, resize_all: ResizeAll) -> bool:
    original = copy_with_weights(network)
    reference = results(original)
    changes = []
    for by_size in ((element.name,), ()):
        grown = like(network, copy_of(original.module))
        resize_all(grown, [widening(element, GrowPlan(element.name, element.quantum))], (), by_size)
        changes.append(change_between(reference, results(grown)))
    return changes[0] < changes[1]
