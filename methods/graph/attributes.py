"""Python attributes of modules that hold sizes, found by their value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import nn

from coppice.methods.graph.expr import Expr, Prod, Sum, atom_names, walk
from coppice.methods.graph.values import AtomInfo, AttributeEdit, Graph, Occurrence

_BUILTIN = ("groups", "num_groups", "num_heads")
_FROM_SHAPES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("in_channels", "out_channels"),
    nn.Linear: ("in_features", "out_features"),
    nn.modules.batchnorm._NormBase: ("num_features",),
    nn.LayerNorm: ("normalized_shape",),
    nn.RMSNorm: ("normalized_shape",),
    nn.GroupNorm: ("num_channels",),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.PReLU: ("num_parameters",),
    nn.RNNBase: ("hidden_size", "input_size"),
    nn.MultiheadAttention: ("embed_dim", "kdim", "vdim", "head_dim"),
}
"""Attributes of torch's layers, and of layers derived from them, that follow from the shapes of their tensors."""


def attribute_edits(modules: Mapping[str, nn.Module], graph: Graph) -> dict[str, tuple[AttributeEdit, ...]]:
    """For each atom, the attributes that must probably follow its size.

    Candidates are whole numbers on the modules that own a tensor with the atom, or that contain such a module, which equal the
    size of an expression with the atom, unless the forward itself shows what they are used for. Of torch's own modules only
    those that do not follow from shapes are taken; of other modules only those that some method besides the constructor reads.
    """
    read = _names_read(modules)
    tables = {name: _integers(m, read) for name, m in modules.items()}
    for edit in graph.attributes:
        tables.get(edit.module, {}).pop(edit.name, None)
    return {name: _of_atom(info, graph.attributes, modules, tables) for name, info in graph.atoms.items()}


def _of_atom(
    info: AtomInfo, known: tuple[AttributeEdit, ...], modules: Mapping[str, nn.Module], tables: dict[str, dict[str, int]]
) -> tuple[AttributeEdit, ...]:
    """What is given, and candidates by value for sizes that nothing given in the same module stands for."""
    given = tuple(_given(info.name, known))
    explained = {(edit.module, edit.expr.size) for edit in given}
    return (*given, *(e for e in _edits(info, modules, tables) if e.certain or (e.module, e.expr.size) not in explained))


def _given(atom: str, attributes: tuple[AttributeEdit, ...]) -> Iterator[AttributeEdit]:
    """Attributes that the forward itself gives as the size of something with the atom."""
    done: set[tuple[str, str]] = set()
    for edit in attributes:
        if atom in atom_names(edit.expr) and (edit.module, edit.name) not in done:
            done.add((edit.module, edit.name))
            yield replace(edit, certain=True)


def _names_read(modules: Mapping[str, nn.Module]) -> frozenset[str]:
    kinds: set[Any] = {type(m) for m in modules.values() if not _is_builtin(type(m))}
    return frozenset().union(*(_names_read_by(kind) for kind in kinds))


@lru_cache(maxsize=1024)
def _names_read_by(kind: type) -> frozenset[str]:
    names: set[str] = set()
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for key, method in vars(base).items():
            function = method.fget if isinstance(method, property) else method
            if key != "__init__" and isinstance(function, FunctionType):
                names.update(function.__code__.co_names)
    return frozenset(names)


def _is_builtin(kind: type) -> bool:
    return kind.__module__.startswith("torch.nn.")


@lru_cache(maxsize=1024)
def _is_layer(kind: type) -> bool:
    """Whether it is one of torch's own modules, or derived from one of its layers."""
    return _is_builtin(kind) or issubclass(kind, tuple(_FROM_SHAPES))


@lru_cache(maxsize=1024)
def _follow_from_shapes(kind: type) -> frozenset[str]:
    return frozenset(name for base, names in _FROM_SHAPES.items() if issubclass(kind, base) for name in names)


def _integers(module: nn.Module, read: frozenset[str]) -> dict[str, int]:
    table = module.__dict__
    kind: Any = type(module)
    own = [] if _is_builtin(kind) else sorted((table.keys() & read) - _follow_from_shapes(kind))
    wanted = (*_BUILTIN, *(k for k in own if k not in _BUILTIN)) if _is_layer(kind) else own
    return {k: table[k] for k in wanted if type(table.get(k)) is int and table[k] > 1}


def _edits(info: AtomInfo, modules: Mapping[str, nn.Module], tables: dict[str, dict[str, int]]) -> Iterator[AttributeEdit]:
    done: set[tuple[str, str]] = set()
    for occurrence in info.occurrences if info.size > 1 else ():  # a factor of one is in every product by chance
        parts = occurrence.tensor.split(".")[:-1]
        inserted = max((i for i, part in enumerate(parts, 1) if part.startswith("grown_")), default=0)
        for depth in range(len(parts), inserted - 1, -1):
            owner = ".".join(parts[:depth])
            if not tables[owner]:
                continue
            kind: Any = type(modules[owner])
            layer = _is_layer(kind)
            for name, value in tables[owner].items():
                builtin = layer and name in _BUILTIN
                if (owner, name) in done or (builtin and not _governs(modules[owner], name, occurrence, depth == len(parts))):
                    continue
                expr = _matching(occurrence.expr, info.name, value, prefix=builtin and name != "num_heads")
                if expr is not None:
                    done.add((owner, name))
                    yield AttributeEdit(owner, name, expr, certain=builtin)


def _governs(module: nn.Module, name: str, occurrence: Occurrence, direct: bool) -> bool:
    """Groups are the leading factor of the first dimension of the module's own weight; heads a factor of a projection."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    return direct and occurrence.dim == 0 and name != "num_heads"


def _matching(expr: Expr, atom: str, value: int, prefix: bool) -> Expr | None:
    """The smallest part of `expr` that contains the atom and has the given size (at its front, if `prefix`)."""
    runs = [e for e in _runs(expr, prefix) if e.size == value and atom in atom_names(e)]
    return min(runs, key=lambda e: len(list(walk(e))), default=None)


def _runs(expr: Expr, prefix: bool) -> Iterator[Expr]:
    """All parts of an expression, and all runs of neighbours in its products and sums."""
    yield expr
    if isinstance(expr, (Prod, Sum)):
        parts = expr.factors if isinstance(expr, Prod) else expr.terms
        for start in range(1 if prefix else len(parts)):
            for stop in range(start + 1, len(parts) + 1):
                run = parts[start:stop]
                if len(run) == 1:
                    yield from _runs(run[0], prefix)
                elif len(run) < len(parts):
                    yield type(expr)(run)
