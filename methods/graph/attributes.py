"""Attributes of torch's own modules that must follow a size, and do not follow from the shapes of their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from coppice.methods.graph.expr import Expr, Prod, atom_names, walk
from coppice.methods.graph.sizes import runs
from coppice.methods.graph.values import AtomInfo, AttributeEdit, Graph, Occurrence

_NAMES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.modules.conv._ConvNd, "groups"), (nn.GroupNorm, "num_groups"), (nn.MultiheadAttention, "num_heads"),
)  # fmt: skip


def attribute_edits(modules: Mapping[str, nn.Module], graph: Graph) -> dict[str, tuple[AttributeEdit, ...]]:
    """For each atom, the `groups`, `num_groups` and `num_heads` of torch's own modules (and subclasses) that follow its size."""
    tables = {name: value for name, m in modules.items() if (value := _number(m)) is not None}
    return {name: tuple(_edits(info, modules, tables)) for name, info in graph.atoms.items()}


def _number(module: nn.Module) -> tuple[str, int] | None:
    for kind, name in _NAMES:
        if isinstance(module, kind) and module.__dict__[name] > 1:
            return name, module.__dict__[name]
    return None


def _edits(
    info: AtomInfo, modules: Mapping[str, nn.Module], tables: Mapping[str, tuple[str, int]]
) -> Iterator[AttributeEdit]:
    done: set[str] = set()
    for occurrence in info.occurrences:
        parts = occurrence.tensor.split(".")[:-1]
        for depth in range(len(parts), -1, -1):
            owner = ".".join(parts[:depth])
            if owner not in tables or owner in done or not _governs(modules[owner], occurrence, depth == len(parts)):
                continue
            name, value = tables[owner]
            expr = _matching(occurrence.expr, info.name, value, prefix=name != "num_heads")
            if expr is not None:
                done.add(owner)
                yield AttributeEdit(owner, name, expr, certain=True)


def _governs(module: nn.Module, occurrence: Occurrence, direct: bool) -> bool:
    """Groups are the leading factor of the first dimension of the module's own weight; heads a factor of a projection.

    That dimension is the inputs of a transposed convolution, whose bias has one entry for each output.
    """
    beside = getattr(module, "transposed", False) and occurrence.tensor.rpartition(".")[2] == "bias"
    return isinstance(module, nn.MultiheadAttention) or (direct and occurrence.dim == 0 and not beside)


def _matching(expr: Expr, atom: str, value: int, prefix: bool) -> Expr | None:
    """The smallest part of `expr` that contains the atom and has the given size (at its front, if `prefix`)."""
    parts = _at_front(expr) if prefix else runs(expr)
    return min((e for e in parts if e.size == value and atom in atom_names(e)), key=lambda e: len(list(walk(e))), default=None)


def _at_front(expr: Expr) -> Iterator[Expr]:
    yield expr
    if isinstance(expr, Prod):
        yield from _at_front(expr.factors[0])
        for stop in range(2, len(expr.factors)):
            yield Prod(expr.factors[:stop])
