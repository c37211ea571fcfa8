"""Keep the function where new units change a norm's statistics or an attention's scale (LEMON-style average expansion).

LayerNorm over n units that become n + k: new units carry the mean of the old ones, so mean and variance change by a known
factor; the old scales are multiplied by sqrt(n / (n + k)) and eps by n / (n + k). RMSNorm: new units are zero, the same
factors. Attention with a scale of 1 / sqrt(head size): new keys are zero and queries are multiplied by sqrt(d_new / d_old).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from methods.graph.expr import Const, Expr, Prod, resized, unit_map
from methods.graph.values import Element, Graph, Occurrence
from methods.plan import GrowPlan
from methods.surgery.fill import seed_for
from methods.surgery.tensors import get_tensor, set_tensor


def compensate(module: nn.Module, graph: Graph, element: Element, size: int, plan: GrowPlan) -> dict[str, float]:
    """Called after the tensors of `element` were widened to `size` units; returns the attributes it set (`module|name`)."""
    if plan.sources:
        return {}
    done: dict[str, float] = {}
    for move in element.moves:
        marks = graph.atoms[move.atom].marks
        growth = _Growth(module, graph, move.atom, element.size * move.units, size * move.units, plan)
        if "layernorm" in marks or "rmsnorm" in marks:
            done |= growth.norm(mean="layernorm" in marks)
        if "attention_scale" in marks and "attention_scale" in element.compensation:
            growth.attention()
    return done


class _Growth:
    """One atom that went from `old` to `new` units."""

    def __init__(self, module: nn.Module, graph: Graph, atom: str, old: int, new: int, plan: GrowPlan) -> None:
        self.module, self.graph, self.atom, self.old, self.new, self.plan = module, graph, atom, old, new, plan

    def norm(self, mean: bool) -> dict[str, float]:
        done: dict[str, float] = {}
        for o in self.graph.atoms[self.atom].occurrences:
            tensor = get_tensor(self.module, o.tensor).detach().clone()
            fresh = self._fresh(o)
            if o.role == "scale" and self._is_norm(o.tensor):
                done |= self._rescale(o, tensor, fresh)
            elif o.role == "consume":
                self._randomise(o, tensor, fresh)
            elif o.role in ("produce", "bias", "raw") and mean:
                kept = tensor.index_select(o.dim, (~fresh).nonzero().flatten())
                tensor = tensor.index_copy(o.dim, fresh.nonzero().flatten(), kept.mean(o.dim, True).expand_as(
                    tensor.index_select(o.dim, fresh.nonzero().flatten())))
                set_tensor(self.module, o.tensor, tensor)
            elif o.role in ("produce", "bias", "raw"):
                set_tensor(self.module, o.tensor, tensor.index_fill(o.dim, fresh.nonzero().flatten(), 0.0))
        return done

    def _is_norm(self, name: str) -> bool:
        return isinstance(self.module.get_submodule(name.rpartition(".")[0]), (nn.LayerNorm, nn.RMSNorm))

    def _fresh(self, o: Occurrence) -> Tensor:
        """Which entries of the resized dimension are new."""
        units = unit_map(_with_size(o.expr, self.atom, self.new), self.atom)
        return torch.tensor([u >= self.old for u in units], device=get_tensor(self.module, o.tensor).device)

    def _rescale(self, o: Occurrence, tensor: Tensor, fresh: Tensor) -> dict[str, float]:
        before, after = o.expr.size, resized(o.expr, {self.atom: self.new})
        set_tensor(self.module, o.tensor, torch.where(fresh, tensor, tensor * math.sqrt(before / after)))
        owner = o.tensor.rpartition(".")[0]
        norm = self.module.get_submodule(owner)
        if norm.eps is None:
            norm.eps = torch.finfo(tensor.dtype).eps
        norm.eps = norm.eps * before / after
        return {f"{owner}|eps": norm.eps}

    def _randomise(self, o: Occurrence, tensor: Tensor, fresh: Tensor) -> None:
        """New consumers may be anything, since what they see is zero after the norm; random ones are alive."""
        where = fresh.nonzero().flatten()
        part = tensor.index_select(o.dim, where)
        generator = torch.Generator().manual_seed(seed_for(self.plan, o.tensor, o.dim))
        kept = tensor.index_select(o.dim, (~fresh).nonzero().flatten())
        noise = torch.randn(part.shape, generator=generator).to(part) * float(kept.std(correction=0)) * self.plan.scale
        set_tensor(self.module, o.tensor, tensor.index_copy(o.dim, where, noise))

    def attention(self) -> None:
        factor = math.sqrt(self.new / self.old)
        queries, keys = self._queries_and_keys()
        for name, dim, chosen in queries:
            tensor = get_tensor(self.module, name).detach()
            factors = torch.ones_like(chosen, dtype=tensor.dtype).masked_fill_(chosen, factor)
            view = [1] * tensor.ndim
            view[dim] = -1
            set_tensor(self.module, name, tensor * factors.view(view))
        for name, dim, chosen in keys:
            tensor = get_tensor(self.module, name).detach()
            set_tensor(self.module, name, tensor.index_fill(dim, chosen.nonzero().flatten(), 0.0))

    def _queries_and_keys(self) -> tuple[list[tuple[str, int, Tensor]], list[tuple[str, int, Tensor]]]:
        """The entries that make queries (all of them) and the new entries that make keys.

        A fused tensor (3 * heads * size) holds queries, keys and values in this order; otherwise the first producer makes the
        queries and the second the keys.
        """
        queries, keys = [], []
        made: list[str] = []
        for o in self._producers():
            fresh = self._fresh(o)
            parts = o.expr.factors[0].size if isinstance(o.expr, Prod) and isinstance(o.expr.factors[0], Const) else 1
            owner = o.tensor.rpartition(".")[0]
            if parts >= 3:
                block = torch.arange(len(fresh), device=fresh.device) // (len(fresh) // parts)
                queries.append((o.tensor, o.dim, block == 0))
                keys.append((o.tensor, o.dim, (block == 1) & fresh))
                continue
            if owner not in made:
                made.append(owner)
            if made.index(owner) == 0:
                queries.append((o.tensor, o.dim, torch.ones_like(fresh)))
            elif made.index(owner) == 1:
                keys.append((o.tensor, o.dim, fresh))
        return queries, keys

    def _producers(self) -> Iterator[Occurrence]:
        return (o for o in self.graph.atoms[self.atom].occurrences if o.role in ("produce", "bias"))


def _with_size(expr: Expr, atom: str, size: int) -> Expr:
    """The expression with the atom at another size."""
    from methods.graph.expr import Atom, Sum

    if isinstance(expr, Atom):
        return Atom(expr.name, size) if expr.name == atom else expr
    if isinstance(expr, Prod):
        return Prod(tuple(_with_size(f, atom, size) for f in expr.factors))
    if isinstance(expr, Sum):
        return Sum(tuple(_with_size(t, atom, size) for t in expr.terms))
    return expr
