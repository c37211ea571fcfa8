"""The outgoing weights of units that can be gated, their norms, and factors on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coppice.methods.measures.per_sample import Part, parts
from coppice.methods.network import Network
from coppice.methods.pruning.bases.units import UnitPruning


def gated_parts(network: Network) -> dict[str, list[Part]]:
    """Where the outgoing weights of each element's units are, for the elements that have some to themselves."""
    gated: dict[str, list[Part]] = {}
    taken: dict[str, tuple[int, Tensor]] = {}
    for element in network.elements():
        if not element.permissible or element.doubt is not None or element.shrink == "no":
            continue
        if element.level not in UnitPruning.levels:
            continue
        places = parts(network, element, ("consume",))
        if not places or any(_overlaps(taken.get(p.tensor), p) for p in places):
            continue
        for p in places:
            before = taken[p.tensor][1] if p.tensor in taken else torch.zeros_like(p.units, dtype=torch.bool)
            taken[p.tensor] = (p.dim, before | (p.units >= 0))
        device = network.device()
        gated[element.name] = [Part(p.tensor, p.dim, p.units.to(device), p.size) for p in places]
    return gated


def _overlaps(taken: tuple[int, Tensor] | None, part: Part) -> bool:
    return taken is not None and (taken[0] != part.dim or bool((taken[1] & (part.units >= 0)).any()))


def norms(places: Sequence[Part], weights: Mapping[str, Tensor]) -> Tensor:
    """Norm of the weights of each unit over all places, [size]; differentiable except where it is 0."""
    total: Tensor | None = None
    for part in places:
        squares = weights[part.tensor].square().movedim(part.dim, 0).flatten(1).sum(1)
        inside = part.units >= 0
        sums = _added(squares[inside], part.units[inside], part.size)
        total = sums if total is None else total + sums
    assert total is not None, "only elements with weights are gated"
    return torch.where(total == 0, 0.0, total.clamp(min=torch.finfo(total.dtype).tiny).sqrt())


def _added(values: Tensor, units: Tensor, size: int) -> Tensor:
    """Sums of the values of each unit, [size]; in the same order every time, so that ranks have the same gates to the bit."""
    zeros = values.new_zeros(size)
    return zeros.index_put((units,), values, accumulate=True) if values.is_cuda else zeros.index_add(0, units, values)


def scaled(places: Sequence[Part], weights: Mapping[str, Tensor], factors: Tensor) -> dict[str, Tensor]:
    """The tensors with the entries of each unit times its factor."""
    done = dict(weights)
    for part in places:
        entries = torch.where(part.units >= 0, factors[part.units.clamp(min=0)], 1.0).to(done[part.tensor].dtype)
        done[part.tensor] = done[part.tensor] * along(part, entries, done[part.tensor])
    return done


def excess(norm: Tensor, threshold: Tensor) -> Tensor:
    """relu(norm - threshold), with the gradient of an ELU of the scale of the mean norm below 0."""
    x = norm - threshold
    scale = norm.detach().mean().clamp(min=torch.finfo(norm.dtype).tiny)
    below = scale * torch.expm1(x.clamp(max=0) / scale)
    return torch.where(x > 0, x, below - below.detach())


def along(part: Part, entries: Tensor, like: Tensor) -> Tensor:
    """A number for each entry of the part's dimension, in a shape that broadcasts to the tensor `like`."""
    return entries.view([-1 if d == part.dim else 1 for d in range(like.ndim)])


def has_unit(part: Part, like: Tensor) -> Tensor:
    """Whether entries belong to a unit, in a shape that broadcasts to the tensor `like`."""
    return along(part, part.units >= 0, like)
