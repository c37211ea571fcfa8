"""What belongs to a unit: where its tensors are, and sums over their entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coppice.methods.graph.expr import unit_map
from coppice.methods.graph.values import Element, Occurrence, Role
from coppice.methods.network import Network


def held(network: Network, element: Element, roles: Sequence[Role]) -> Iterator[tuple[Occurrence, Tensor]]:
    """Occurrences of an element with these roles, each with the unit of every entry of its dimension (-1 for none)."""
    for move in element.moves:
        for o in network.graph().atoms[move.atom].occurrences:
            if o.role in roles:
                units = torch.tensor(unit_map(o.expr, move.atom))
                yield o, torch.where(units >= 0, units // move.units, units)


def sum_per_unit(element: Element, tensor: Tensor, dim: int, units: Tensor) -> Tensor:
    """Sums of a tensor's entries by unit, [size], float64 on the CPU."""
    sums = tensor.detach().double().movedim(dim, 0).flatten(1).sum(1).cpu() if tensor.ndim > 1 else tensor.detach().double().cpu()
    return torch.zeros(element.size, dtype=torch.float64).index_add_(0, units[units >= 0], sums[units >= 0])
