"""What stands in the new entries of a buffer: nothing trains it, so a rule must say which value is right."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm

from coppice.methods.graph.expr import Atom, Expr, index_map, walk
from coppice.methods.graph.values import Role

How = Literal["statistic", "one", "zero", "copy"]


def new_entries(holder: nn.Module, leaf: str, dim: int, expr: Expr, atoms: frozenset[str], *, role: Role) -> How | None:
    """What new entries of a buffer along a dimension are; None where no rule says it: then units may only be removed.

    Running statistics start anew. A mask of `torch.nn.utils.prune` is one: new weights are there. The vectors of a power
    iteration are zero, and find their values while the network trains. A buffer that is the same for all units (a fixed
    kernel, a grid) is so for new ones.

    Args:
        holder: the module that holds the buffer.
        leaf: its name in there.
        dim: the dimension that has the units.
        expr: what this dimension is made of.
        atoms: those in it that grow.
        role: what the forward does with the dimension.
    """
    if role in ("mean", "var"):
        return "statistic"
    if _is_mask(holder, leaf):
        return "one"
    if _is_power_vector(holder, leaf):
        return "zero"
    buffer = holder._buffers[leaf]
    assert buffer is not None
    return "copy" if not buffer.is_meta and _same_for_all(buffer, dim, expr, atoms) else None


def _is_mask(holder: nn.Module, leaf: str) -> bool:
    return any(isinstance(h, BasePruningMethod) and leaf == f"{h._tensor_name}_mask" for h in holder._forward_pre_hooks.values())


def _is_power_vector(holder: nn.Module, leaf: str) -> bool:
    if isinstance(holder, _SpectralNorm):
        return leaf in ("_u", "_v")
    hooks = holder._forward_pre_hooks.values()
    return any(isinstance(h, SpectralNorm) and leaf in (f"{h.name}_u", f"{h.name}_v") for h in hooks)


def first_units(expr: Expr, atoms: frozenset[str], sizes: dict[str, int]) -> list[int]:
    """For each entry along a dimension, where it would stand for the first unit of each of these atoms."""
    return index_map(expr, {name: [0] * sizes[name] for name in atoms})


def _same_for_all(buffer: Tensor, dim: int, expr: Expr, atoms: frozenset[str]) -> bool:
    sizes = {e.name: e.size for e in walk(expr) if isinstance(e, Atom) and e.name in atoms}
    first = torch.tensor(first_units(expr, atoms, sizes), device=buffer.device)
    return torch.equal(buffer, buffer.index_select(dim, first))
