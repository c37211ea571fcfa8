"""What stands in the new entries of a widened tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.graph.buffers import new_entries
from coppice.methods.graph.expr import NEW, Atom, Expr, Prod, Sum, atom_names, index_map
from coppice.methods.graph.values import Element, Graph, Role
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.changes import TensorChange, followed
from coppice.methods.surgery.tensors import owner

CONSTANTS = {"bias": 0.0, "scale": 1.0, "shift": 0.0, "mean": 0.0, "var": 1.0, "raw": 0.0}
"""Fill of new entries by role, where neither the plan's values nor copies say otherwise."""


def seed_for(plan: GrowPlan, name: str, dim: int) -> int:
    """A seed of its own for each tensor dimension, the same in every process."""

    digest = hashlib.sha256(f"{plan.seed} {plan.element} {name} {dim}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True)
class Fill:
    """Fills the new entries of tensors that contain `element`'s atoms, as `plan` says."""

    module: nn.Module
    element: Element
    plan: GrowPlan
    graph: Graph
    indices: Mapping[str, Sequence[int]]

    def fill(self, tensor: Tensor, name: str, dim: int, index: Sequence[int], before: Sequence[TensorChange] = ()) -> Tensor:
        """The tensor (new size along `dim`) with its new entries filled.

        Args:
            tensor: what to fill.
            name: its name.
            dim: the dimension that was widened.
            index: old entry of each entry of that dimension, or `NEW`.
            before: dimensions of the same tensor that were resized before this one.
        """
        new = torch.tensor([i for i, old in enumerate(index) if old == NEW], device=tensor.device)
        role = self._role(name, dim)
        given = self.plan.values.get(f"{name}:{dim}")
        holder, leaf = owner(self.module, name)
        if leaf in holder._buffers and given is None and (role not in ("mean", "var") or not self.plan.sources):
            return self._buffer(tensor, name, dim, new, role)
        if given is not None:
            tensor = tensor.index_copy(dim, new, _brought_to_size(given.to(tensor), before))
        elif self.plan.sources:
            tensor = self._copies(tensor, name, dim, new, role)
        else:
            tensor = tensor.index_copy(dim, new, self._fresh(tensor, name, dim, new, role))
        offset = self.plan.offsets.get(f"{name}:{dim}")
        return tensor if offset is None else tensor.index_add(dim, new, _brought_to_size(offset.to(tensor), before))

    def _role(self, name: str, dim: int) -> Role:
        """The role of new entries: a new group of a transposed convolution makes units, as its rows would."""
        role = self.graph.roles.get((name, dim), "raw")
        holder, _ = owner(self.module, name)
        if role != "consume" or not isinstance(holder, nn.modules.conv._ConvTransposeNd) or holder.groups == 1:
            return role
        grown = [a for a in atom_names(self.graph.tensors[name][dim]) if NEW in self.indices.get(a, ())]
        return "produce" if all("conv_groups" in self.graph.atoms[a].marks for a in grown) else role

    def _buffer(self, tensor: Tensor, name: str, dim: int, new: Tensor, role: Role) -> Tensor:
        """What a buffer holds for new units (see `coppice.methods.graph.buffers`)."""
        expr = self.graph.tensors[name][dim]
        grown = frozenset(a for a in atom_names(expr) if NEW in self.indices.get(a, ()))
        holder, leaf = owner(self.module, name)
        how = new_entries(holder, leaf, dim, expr, grown, role=role)
        if how == "copy":
            first = {a: [0 if i == NEW else k for k, i in enumerate(self.indices[a])] for a in grown}
            sizes = {a: len(i) for a, i in self.indices.items()}
            where = torch.tensor(index_map(_with_sizes(expr, sizes), first), device=tensor.device)
            return tensor.index_select(dim, where)
        shape = list(tensor.shape)
        shape[dim] = len(new)
        value = 1.0 if how == "one" else CONSTANTS[role] if how == "statistic" else 0.0
        return tensor.index_copy(dim, new, tensor.new_full(shape, value))

    def _fresh(self, tensor: Tensor, name: str, dim: int, new: Tensor, role: str) -> Tensor:
        shape = list(tensor.shape)
        shape[dim] = len(new)
        kind = self.plan.produce if role == "produce" else self.plan.consume if role == "consume" else None
        if role == "raw" and self.plan.produce != "zero":
            return self._drawn(tensor, name, dim, new, shape)
        if kind is None:
            return tensor.new_full(shape, CONSTANTS[role])
        if kind == "zero":
            return tensor.new_zeros(shape)
        return self._random(kind, tensor, name, dim, shape).to(tensor)

    def _drawn(self, tensor: Tensor, name: str, dim: int, new: Tensor, shape: list[int]) -> Tensor:
        """Entries drawn from those that there are: of a size and sign that such a parameter may have, and alive."""
        old = torch.ones(tensor.shape[dim], dtype=torch.bool, device=tensor.device).index_fill(0, new, False)
        entries = tensor.index_select(dim, old.nonzero().flatten()).flatten()
        generator = torch.Generator().manual_seed(seed_for(self.plan, name, dim))
        where = torch.randint(max(len(entries), 1), (math.prod(shape),), generator=generator)
        return entries[where.to(entries.device)].reshape(shape) if len(entries) else tensor.new_zeros(shape)

    def _random(self, kind: str, tensor: Tensor, name: str, dim: int, shape: list[int]) -> Tensor:
        generator = torch.Generator().manual_seed(seed_for(self.plan, name, dim))
        others = tensor.numel() // max(tensor.shape[dim], 1)
        fan_in = others if self.graph.roles.get((name, dim)) == "produce" else tensor.numel() // max(tensor.shape[0], 1)
        std = self.plan.scale * math.sqrt(2.0 / max(fan_in, 1))
        if kind == "normal":
            std = self.plan.scale * float(tensor.float().std(correction=0))
        if kind == "orthogonal" and shape[dim] > 1:
            flat = torch.empty(shape[dim], others)
            nn.init.orthogonal_(flat, gain=std * math.sqrt(others), generator=generator)
            moved = [shape[dim], *shape[:dim], *shape[dim + 1 :]]
            return flat.reshape(moved).movedim(0, dim)
        return torch.randn(shape, generator=generator) * std

    def _copies(self, tensor: Tensor, name: str, dim: int, new: Tensor, role: str) -> Tensor:
        """Net2Wider: new units are copies of their sources; consumers share what they received among the copies."""
        expr = self.graph.tensors[name][dim]
        units = (*range(self.element.size), *self.plan.sources)
        source = {
            m.atom: [NEW if s == NEW else s * m.units + k for s in units for k in range(m.units)] for m in self.element.moves
        }
        index = torch.tensor(index_map(expr, source), device=tensor.device)
        old = torch.arange(tensor.shape[dim], device=tensor.device)
        first = {int(o): i for i, o in reversed(list(enumerate(index_map(expr, {**self.indices})))) if o != NEW}
        lookup = torch.tensor([first.get(int(o), 0) for o in index], device=tensor.device)
        tensor = tensor.index_select(dim, torch.where(torch.isin(old, new), lookup, old))
        copies, fresh = new[index[new] != NEW], new[index[new] == NEW]
        if role == "consume" and len(copies):
            tensor = self._share(tensor, name, dim, index, copies)
        return tensor if not len(fresh) else tensor.index_copy(dim, fresh, self._fresh(tensor, name, dim, fresh, role))

    def _share(self, tensor: Tensor, name: str, dim: int, index: Tensor, new: Tensor) -> Tensor:
        counts = torch.bincount(index + 1)[index + 1].to(tensor.dtype)
        view = [1] * tensor.ndim
        view[dim] = -1
        tensor = tensor / counts.view(view)
        if self.plan.noise:
            generator = torch.Generator().manual_seed(seed_for(self.plan, name, dim))
            part = tensor.index_select(dim, new)
            noise = torch.randn(part.shape, generator=generator).to(part) * self.plan.noise * float(part.std(correction=0))
            noise = noise * (part != 0)  # weights that are masked are 0, and stay so
            tensor = tensor.index_add(dim, new, noise)
            tensor = tensor.index_add(dim, self._sources(index, new), -noise)
        return tensor

    def _sources(self, index: Tensor, new: Tensor) -> Tensor:
        """Positions of the old entries that the new ones copy: what noise adds to a copy is taken from its source, so that the
        sum, and with it the function, stays the same.
        """
        fresh = set(new.tolist())
        first = {int(o): i for i, o in reversed(list(enumerate(index.tolist()))) if i not in fresh}
        return torch.tensor([first[int(index[i])] for i in new.tolist()], device=index.device)


def _with_sizes(expr: Expr, sizes: Mapping[str, int]) -> Expr:
    """The expression after its atoms got these sizes."""
    if isinstance(expr, Atom):
        return Atom(expr.name, sizes.get(expr.name, expr.size))
    if isinstance(expr, Prod):
        return Prod(tuple(_with_sizes(e, sizes) for e in expr.factors))
    return Sum(tuple(_with_sizes(e, sizes) for e in expr.terms)) if isinstance(expr, Sum) else expr


def _brought_to_size(values: Tensor, changes: Sequence[TensorChange]) -> Tensor:
    """Values were given for the old sizes of the other dimensions: follow those that changed, with zeros for new entries."""
    for change in changes:
        values = followed(values, change)
    return values
