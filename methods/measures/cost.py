"""What a network costs, and what one unit of an element costs: parameters and FLOPs of one forward of one sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from coppice.methods.graph.expr import resized
from coppice.methods.graph.values import Element, Graph, Move, Occurrence

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _count(module: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, float]:
    """FLOPs per sample of every submodule, by name ('' is the whole)."""
    modes = [(m, m.training) for m in module.modules()]
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), counter:
        module.eval()
        try:
            module(*example_inputs)
        finally:
            for submodule, training in modes:
                submodule.training = training
    batch = next((t.shape[0] for t in tree_leaves(example_inputs) if isinstance(t, Tensor) and t.ndim), 1)
    root = type(module).__name__
    flops_by_module: dict[str, float] = {}
    for name, ops in counter.get_flop_counts().items():
        if name in ("Global", root) or name.startswith(root + "."):
            key = "" if name in ("Global", root) else name.removeprefix(root + ".")
            flops_by_module[key] = max(flops_by_module.get(key, 0.0), float(sum(ops.values())) / batch)
    return flops_by_module


def flops(module: nn.Module, example_inputs: tuple[Any, ...]) -> float:
    """FLOPs of one forward of one sample (a multiply and an add are two), counted by running it in eval mode."""
    return _count(module, example_inputs).get("", 0.0)


def _occurrences(graph: Graph, element: Element) -> Iterator[tuple[Move, Occurrence]]:
    for move in element.moves:
        for o in graph.atoms[move.atom].occurrences:
            yield move, o


def _share(move: Move, o: Occurrence, graph: Graph) -> float:
    """Fraction of the dimension's entries that one unit of the element takes."""
    size = graph.atoms[move.atom].size
    return (resized(o.expr, {move.atom: size + move.units}) - o.expr.size) / o.expr.size


def parameters_per_unit(graph: Graph, element: Element) -> float:
    """Entries of parameters that one unit of the element takes (a block or layer: all of its own; an insertion: 0)."""
    if not element.moves:
        own = [
            dims
            for name, dims in graph.tensors.items()
            if (name == element.name or name.startswith(element.name + ".")) and name.rpartition(".")[2] not in _STATISTICS
        ]
        return float(sum(math.prod(e.size for e in dims) for dims in own)) / (element.size if element.level == "weight" else 1)
    return sum(
        math.prod(e.size for e in graph.tensors[o.tensor]) * _share(move, o, graph)
        for move, o in _occurrences(graph, element)
        if o.role not in ("mean", "var")
    )


def flops_per_unit(
    module: nn.Module, example_inputs: tuple[Any, ...], graph: Graph, elements: Sequence[Element]
) -> dict[str, float]:
    """FLOPs per sample that one unit of each element takes in the layers that own its weights, by element name.

    Products without weights (queries with keys) are left out.
    """
    counts = _count(module, example_inputs)
    per_unit = {}
    for element in elements:
        if not element.moves:
            per_unit[element.name] = counts.get(element.name, 0.0)
            continue
        per_unit[element.name] = sum(
            counts.get(o.tensor.rpartition(".")[0], 0.0) * _share(move, o, graph)
            for move, o in _occurrences(graph, element)
            if o.role in ("produce", "consume")
        )
    return per_unit
