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

from coppice.methods.graph.compensable import eps_of, scores_of, sides
from coppice.methods.graph.expr import Const, Prod, atom_names, index_map, resized
from coppice.methods.graph.values import Element, Graph, NormUse, Occurrence
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.fill import seed_for
from coppice.methods.surgery.tensors import get_tensor, set_tensor

Attributes = dict[str, int | float]


def is_norm(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is a norm of that kind, or one written by hand (known by its class name; the trace knows which kind it is)."""
    by_hand = not type(module).__module__.startswith("torch.nn.") and "norm" in type(module).__name__.lower()
    return by_hand or isinstance(module, kind)


def compensate(
    module: nn.Module, graph: Graph, element: Element, size: int, plan: GrowPlan | None, *, normalised: Collection[str] = (),
    by_size: bool = True,
) -> Attributes:
    """Called after the tensors of `element` were brought to `size` units.

    Args:
        module: the resized module.
        graph: the graph from before.
        element: what was resized.
        size: its units now.
        plan: how it grew; None when it shrank.
        normalised: consumers that see nothing but the output of a LayerNorm, so that their new columns may be random.
        by_size: whether the scale of attention follows its head size while the forward runs.

    Returns:
        The attributes that were set, by `module|name`.
    """
    if plan is not None and plan.sources:
        return {}
    done: Attributes = {}
    for move in element.moves:
        marks = graph.atoms[move.atom].marks
        atom = _Atom(module, graph, move.atom, element.size * move.units, size * move.units)
        if "attention_scale" not in marks:
            done |= atom.rescale_norms()
        for mark in ("layernorm", "rmsnorm"):
            if mark in marks and plan is not None and "attention_scale" not in marks:
                atom.fill_producers(plan, mean=mark == "layernorm")
                if atom.sound():
                    atom.randomise_consumers(plan, normalised if mark == "layernorm" else None)
        if "attention_scale" in marks:
            atom.rescale_scores(plan, by_size)
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

    def norms(self) -> list[NormUse]:
        """Where the forward takes statistics over the units."""
        return [n for n in self.graph.norms if any(self.name in atom_names(e) for e in n.over)]

    def sound(self) -> bool:
        """Whether new units are zero behind every norm."""
        return all(n.sound for n in self.norms())

    def rescale_norms(self) -> Attributes:
        """Multiply each scale (with its offset) by the root of old over new, and the eps that its module holds by their ratio."""
        done: Attributes = {}
        modules = dict(self.module.named_modules())
        for use in {n.scale: n for n in self.norms() if n.scale is not None}.values():
            assert use.scale is not None
            sizes = {self.name: self.new}
            ratio = math.prod(e.size for e in use.over) / math.prod(resized(e, sizes) for e in use.over)
            tensor = get_tensor(self.module, use.scale).detach()
            scaled = (tensor + use.offset) * math.sqrt(ratio) - use.offset
            for o in self.occurrences("scale"):
                if o.tensor == use.scale:
                    view = [-1 if d == o.dim else 1 for d in range(tensor.ndim)]
                    scaled = torch.where(self.fresh(o).view(view), 1.0 - use.offset, scaled)
            set_tensor(self.module, use.scale, scaled)
            owner = use.scale.rpartition(".")[0]
            for key in eps_of(modules, use) or ():
                assert use.eps is not None
                done[f"{owner}|{key}"] = value = use.eps * ratio
                setattr(modules[owner], key, value)
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

    def rescale_scores(self, plan: GrowPlan | None, by_size: bool) -> None:
        """Zero the new keys; where the scale follows the number of units, multiply all queries by sqrt(new / old)."""
        factor = math.sqrt(self.new / self.old) if by_size else 1.0
        for o, queries, keys in self._queries_and_keys():
            tensor = get_tensor(self.module, o.tensor).detach()
            fresh = self.fresh(o)
            if factor != 1.0 and bool(queries.any()):
                factors = torch.ones(len(queries), device=tensor.device, dtype=tensor.dtype).masked_fill_(queries, factor)
                tensor = tensor * factors.view([-1 if d == o.dim else 1 for d in range(tensor.ndim)])
            if plan is not None and f"{o.tensor}:{o.dim}" not in plan.values:
                tensor = tensor.index_fill(o.dim, (keys & fresh).nonzero().flatten(), 0.0)
            set_tensor(self.module, o.tensor, tensor)

    def _queries_and_keys(self) -> Iterator[tuple[Occurrence, Tensor, Tensor]]:
        """What makes queries or keys, with which of its entries make queries and which keys.

        A fused tensor (3 * heads * size) holds queries, keys and values in this order, one of (2 * heads * size) beside
        separate queries keys and values.
        """
        scores = scores_of(self.graph, self.name)
        known = sides(scores) or (frozenset(), frozenset())
        fused = frozenset().union(*(s.both for s in scores)) - known[0] - known[1]
        for o in self.occurrences("produce", "bias", "raw"):
            entries = torch.zeros(get_tensor(self.module, o.tensor).shape[o.dim], dtype=torch.bool)
            if o.tensor in known[0] or o.tensor in known[1]:
                yield o, entries | (o.tensor in known[0]), entries | (o.tensor in known[1])
            elif o.tensor in fused:
                parts = self._parts(o)
                block = torch.arange(len(entries)) // (len(entries) // parts)
                first = 0 if parts >= 3 or not known[0] else -1
                yield o, block == first, (block == first + 1) & (parts > 1)

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
