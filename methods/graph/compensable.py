"""Whether a known factor makes up for what new units change in the statistics of a norm, or in the scale of an attention."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from coppice.methods.graph.expr import Atom, Const, Expr, Prod, atom_names
from coppice.methods.graph.values import AtomInfo, Graph, NormUse, ScoreUse

EPSILONS = frozenset(("eps", "epsilon", "variance_epsilon"))
_NORMS = frozenset(("layernorm", "rmsnorm"))


def compensates(modules: Mapping[str, nn.Module], graph: Graph, info: AtomInfo) -> bool:
    """Whether, by rule, the function stays the same when units are added and what `info` is marked with is compensated.

    A mark that is not certain says no: running the network may then still show that the function stays the same.
    """
    kinds = info.marks & _NORMS
    if "groupnorm" in info.marks or len(kinds) > 1 or (kinds and "attention_scale" in info.marks):
        return False
    scores = scores_of(graph, info.name)
    if "attention_scale" in info.marks and not (all(_scores_known(info, s) for s in scores) and sides(scores)):
        return False
    uses = [n for n in graph.norms if any(info.name in atom_names(e) for e in n.over)]
    return bool(uses or not kinds) and all(_follows(modules, info, use) for use in uses)


def _follows(modules: Mapping[str, nn.Module], info: AtomInfo, use: NormUse) -> bool:
    whole = use.kind == "rmsnorm" or all(_is_plain(e, info.name) for e in use.over)
    return use.sound and whole and use.scale is not None and eps_of(modules, use) is not None


def scores_of(graph: Graph, atom: str) -> list[ScoreUse]:
    """Where the forward multiplies two activations over units of an atom."""
    return [s for s in graph.scores if atom in atom_names(s.over)]


def _scores_known(info: AtomInfo, use: ScoreUse) -> bool:
    """Whether the scale follows the number of units, and which entries make the queries is known."""
    parts = [o.expr for o in info.occurrences if o.tensor in use.both]
    fused = all(isinstance(e, Prod) and isinstance(e.factors[0], Const) for e in parts)
    return use.by_size and use.sound and fused and isinstance(use.over, Atom)


def sides(scores: list[ScoreUse]) -> tuple[frozenset[str], frozenset[str]] | None:
    """Tensors on one side of all products, and those on the other; None where one would have to be on both."""
    sign: dict[str, int] = {}
    waiting = list(scores)
    while waiting:
        known = next((s for s in waiting if (s.left | s.right) & sign.keys()), waiting[0])
        waiting.remove(known)
        left = next((sign[n] for n in known.left if n in sign), None)
        right = next((-sign[n] for n in known.right if n in sign), None)
        first = left if left is not None else right if right is not None else 1
        for names, value in ((known.left, first), (known.right, -first)):
            if any(sign.setdefault(n, value) != value for n in names):
                return None
    return frozenset(n for n, v in sign.items() if v > 0), frozenset(n for n, v in sign.items() if v < 0)


def _is_plain(expr: Expr, atom: str) -> bool:
    return isinstance(expr, Const) or (isinstance(expr, Atom) and expr.name == atom)


def eps_of(modules: Mapping[str, nn.Module], use: NormUse) -> tuple[str, ...] | None:
    """The attributes, of the module that holds a norm's scale, which are its eps; None where it is kept somewhere else."""
    if use.scale is None or use.eps is None:
        return None
    held = modules[use.scale.rpartition(".")[0]].__dict__
    found = tuple(k for k in sorted(EPSILONS & held.keys()) if held[k] is None or math.isclose(held[k], use.eps, rel_tol=1e-6))
    return found if found or use.eps == 0.0 else None
