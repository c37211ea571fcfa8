"""Keep the function where a norm's statistics or an attention's scale change with the number of units (LEMON-style).

LayerNorm over n units that become m > n: new units carry the mean of the old ones, so mean and variance change by a known
factor; the scales are multiplied by sqrt(n / m) and eps by n / m. RMSNorm: new units are zero, the same factors. Attention
with a scale of 1 / sqrt(head size): new keys are zero and queries are multiplied by sqrt(m / n).

The same factors with m < n keep the function when units that are zero go (RMSNorm, attention) and come close for LayerNorm.
Inside the groups of a GroupNorm over images no fill keeps mean and variance; nothing is done there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.graph.expr import Const, Prod, index_map, resized
from coppice.methods.graph.values import Element, Graph, Occurrence
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.fill import seed_for
from coppice.methods.surgery.tensors import get_tensor, set_tensor

Attributes = dict[str, int | float]
EPSILONS = frozenset(("eps", "epsilon", "variance_epsilon"))


def is_norm(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is a norm of that kind, or one written by hand (known by its class name; the trace knows which kind it is)."""
    by_hand = not type(module).__module__.startswith("torch.nn.") and "norm" in type(module).__name__.lower()
    return by_hand or isinstance(module, kind)


def compensate(
    module: nn.Module, graph: Graph, element: Element, size: int, plan: GrowPlan | None, *, normalised: Collection[str] = ()
) -> Attributes:
    """Called after the tensors of `element` were brought to `size` units.

    Args:
        module: the resized module.
        graph: the graph from before.
        element: what was resized.
        size: its units now.
        plan: how it grew; None when it shrank.
        normalised: consumers that see nothing but the output of a LayerNorm, so that their new columns may be random.

    Returns:
        The attributes that were set, by `module|name`.
    """
    if plan is not None and plan.sources:
        return {}
    done: Attributes = {}
    for move in element.moves:
        marks = graph.atoms[move.atom].marks
        atom = _Atom(module, graph, move.atom, element.size * move.units, size * move.units)
        for mark, kind in (("layernorm", nn.LayerNorm), ("rmsnorm", nn.RMSNorm)):
            if mark in marks:
                done |= atom.rescale_norms(kind)
                if plan is not None:
                    atom.fill_producers(plan, mean=mark == "layernorm")
                    atom.randomise_consumers(plan, normalised if mark == "layernorm" else None)
        if "attention_scale" in marks:
            done |= atom.rescale_scores(plan)
    return done


@dataclass(frozen=True)
class _Atom:
    """One atom that went from `old` to `new` units."""

    module: nn.Module
    graph: Graph
    name: str
    old: int
    new: int

    def occurrences(self, *roles: str) -> Iterator[Occurrence]:
        return (o for o in self.graph.atoms[self.name].occurrences if o.role in roles)

    def fresh(self, o: Occurrence) -> Tensor:
        """Which entries of the resized dimension are new."""
        index = index_map(o.expr, {self.name: [i if i < self.old else -1 for i in range(self.new)]})
        return torch.tensor(index, device=get_tensor(self.module, o.tensor).device) < 0

    def rescale_norms(self, kind: type[nn.LayerNorm | nn.RMSNorm]) -> Attributes:
        done: Attributes = {}
        for o in self.occurrences("scale"):
            owner = o.tensor.rpartition(".")[0]
            norm = self.module.get_submodule(owner)
            if not is_norm(norm, kind):
                continue
            ratio = o.expr.size / resized(o.expr, {self.name: self.new})
            tensor = get_tensor(self.module, o.tensor).detach()
            set_tensor(self.module, o.tensor, torch.where(self.fresh(o), tensor, tensor * math.sqrt(ratio)))
            for key in EPSILONS & vars(norm).keys():
                eps = getattr(norm, key)
                done[f"{owner}|{key}"] = value = (torch.finfo(tensor.dtype).eps if eps is None else eps) * ratio
                setattr(norm, key, value)
        return done

    def fill_producers(self, plan: GrowPlan, mean: bool) -> None:
        """New entries of everything that makes the units: the mean of the old ones, or zero."""
        for o in self.occurrences("produce", "bias", "raw"):
            if f"{o.tensor}:{o.dim}" in plan.values:
                continue
            tensor, fresh = get_tensor(self.module, o.tensor).detach(), self.fresh(o)
            old = tensor.index_select(o.dim, (~fresh).nonzero().flatten()).mean(o.dim, keepdim=True)
            shape = list(tensor.shape)
            shape[o.dim] = int(fresh.sum())
            fill = old.expand(shape) if mean else tensor.new_zeros(shape)
            set_tensor(self.module, o.tensor, tensor.index_copy(o.dim, fresh.nonzero().flatten(), fill))

    def randomise_consumers(self, plan: GrowPlan, only: Collection[str] | None) -> None:
        """New consumers may be anything where what they see is zero; random ones are alive."""
        for o in self.occurrences("consume"):
            if f"{o.tensor}:{o.dim}" in plan.values or (only is not None and o.tensor not in only):
                continue
            tensor, fresh = get_tensor(self.module, o.tensor).detach(), self.fresh(o)
            std = tensor.index_select(o.dim, (~fresh).nonzero().flatten()).float().std(correction=0)
            shape = list(tensor.shape)
            shape[o.dim] = int(fresh.sum())
            generator = torch.Generator().manual_seed(seed_for(plan, o.tensor, o.dim))
            noise = torch.randn(shape, generator=generator).to(tensor) * float(std) * plan.scale
            set_tensor(self.module, o.tensor, tensor.index_copy(o.dim, fresh.nonzero().flatten(), noise))

    def rescale_scores(self, plan: GrowPlan | None) -> Attributes:
        """Multiply all queries by sqrt(new / old), zero the new keys; a scale that is stored is set as for a new network."""
        for position, (name, dim, chosen, fresh) in self._queries_and_keys():
            tensor = get_tensor(self.module, name).detach()
            if position == 0:
                factors = torch.ones_like(chosen, dtype=tensor.dtype).masked_fill_(chosen, math.sqrt(self.new / self.old))
                set_tensor(self.module, name, tensor * factors.view([-1 if d == dim else 1 for d in range(tensor.ndim)]))
            elif plan is not None and f"{name}:{dim}" not in plan.values:
                set_tensor(self.module, name, tensor.index_fill(dim, (chosen & fresh).nonzero().flatten(), 0.0))
        return self._stored_scale()

    def _queries_and_keys(self) -> Iterator[tuple[int, tuple[str, int, Tensor, Tensor]]]:
        """(0 for queries, 1 for keys), with tensor, dimension, which entries make them, and which are new.

        A fused tensor (3 * heads * size) holds queries, keys and values in this order, one of (2 * heads * size) beside
        separate queries keys and values; otherwise the first producer makes the queries and the second the keys.
        """
        made: list[str] = []
        for o in self.occurrences("produce", "bias"):
            fresh = self.fresh(o)
            parts = self._parts(o)
            owner = o.tensor if o.tensor.endswith("_proj_weight") else o.tensor.rpartition(".")[0]
            if owner not in made:
                made.append(owner)
            start = 0 if parts >= 3 else made.index(owner)
            block = torch.arange(len(fresh), device=fresh.device) // (len(fresh) // parts)
            for position in range(start, 2):
                chosen = block == position - start
                if position - start < parts:
                    yield position, (o.tensor, o.dim, chosen, fresh)

    def _parts(self, o: Occurrence) -> int:
        """How many of queries, keys and values a producer makes: it has as many entries for a unit as they have heads together.

        The heads are those that the values are used with; a fixed number of them may stand in one constant with the parts.
        """
        first = o.expr.factors[0] if isinstance(o.expr, Prod) else None
        if not isinstance(first, Const):
            return 1
        heads = min((c.expr.size // self.old for c in self.occurrences("consume")), default=0)
        parts = max(o.expr.size // self.old // heads, 1) if heads else first.size
        return parts if first.size % parts == 0 else 1

    def _stored_scale(self) -> Attributes:
        done: Attributes = {}
        for o in self.occurrences("produce"):
            parts = o.tensor.split(".")[:-1]
            for depth in range(len(parts) + 1):
                owner = ".".join(parts[:depth])
                holder = self.module.get_submodule(owner)
                for key, value in vars(holder).items():
                    if "scal" in key and isinstance(value, float) and math.isclose(value, self.old**-0.5, rel_tol=1e-6):
                        done[f"{owner}|{key}"] = self.new**-0.5
        for name, value in done.items():
            owner, _, key = name.partition("|")
            setattr(self.module.get_submodule(owner), key, value)
        return done
