"""Expressions over atoms: what a dimension of a tensor is made of.

A dimension is a constant, an atom (a set of units that may be resized), a row-major product (flatten, heads times
head size) or an ordered concatenation. These are the resolved, immutable values that a trace ends with; the unifying
happens in `unify.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

NEW = -1
"""In an index map: an entry that has no counterpart in the old tensor."""


@dataclass(frozen=True)
class Const:
    """A dimension that never changes."""

    size: int

    def __str__(self) -> str:
        return str(self.size)


@dataclass(frozen=True)
class Atom:
    """A set of `size` units that may be resized; `name` is stable across processes."""

    name: str
    size: int

    def __str__(self) -> str:
        return f"[{self.name}={self.size}]"


@dataclass(frozen=True)
class Prod:
    """Row-major product: the last factor varies fastest."""

    factors: tuple[Expr, ...]

    @cached_property
    def size(self) -> int:
        """Number of entries along the dimension."""
        return math.prod(f.size for f in self.factors)

    def __str__(self) -> str:
        return "(" + "*".join(map(str, self.factors)) + ")"


@dataclass(frozen=True)
class Sum:
    """Parts of a dimension one behind the other, in order."""

    terms: tuple[Expr, ...]

    @cached_property
    def size(self) -> int:
        """Number of entries along the dimension."""
        return sum(t.size for t in self.terms)

    def __str__(self) -> str:
        return "(" + "+".join(map(str, self.terms)) + ")"


Expr = Const | Atom | Prod | Sum


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct parts of an expression."""
    if isinstance(expr, Prod):
        return expr.factors
    return expr.terms if isinstance(expr, Sum) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all its parts, outermost first."""
    yield expr
    for part in children(expr):
        yield from walk(part)


def atom_names(expr: Expr) -> frozenset[str]:
    """Names of the atoms in an expression."""
    if isinstance(expr, Atom):
        return frozenset((expr.name,))
    return frozenset(e.name for e in walk(expr) if isinstance(e, Atom))


def resized(expr: Expr, sizes: Mapping[str, int]) -> int:
    """Size of `expr` when the atoms named in `sizes` have those sizes."""
    if isinstance(expr, Const):
        return expr.size
    if isinstance(expr, Atom):
        return sizes.get(expr.name, expr.size)
    parts = [resized(p, sizes) for p in children(expr)]
    return math.prod(parts) if isinstance(expr, Prod) else sum(parts)


def index_map(expr: Expr, indices: Mapping[str, Sequence[int]]) -> list[int]:
    """For each entry of the resized dimension: its entry in the old one, or `NEW`.

    Args:
        expr: what the dimension is made of.
        indices: for each atom that changes, the old unit of each new unit (or `NEW`).
    """
    if isinstance(expr, Const):
        return list(range(expr.size))
    if isinstance(expr, Atom):
        return list(indices.get(expr.name, range(expr.size)))
    if isinstance(expr, Sum):
        out: list[int] = []
        offset = 0
        for term in expr.terms:
            out += [NEW if i < 0 else i + offset for i in index_map(term, indices)]
            offset += term.size
        return out
    out = [0]
    for factor in expr.factors:
        inner = index_map(factor, indices)
        out = [NEW if outer < 0 or i < 0 else outer * factor.size + i for outer in out for i in inner]
    return out


def unit_map(expr: Expr, atom: str) -> list[int]:
    """For each entry of the dimension: the unit of `atom` it belongs to, or `NEW` when it belongs to none."""
    if isinstance(expr, Const):
        return [NEW] * expr.size
    if isinstance(expr, Atom):
        return list(range(expr.size)) if expr.name == atom else [NEW] * expr.size
    if isinstance(expr, Sum):
        return [u for term in expr.terms for u in unit_map(term, atom)]
    out = [NEW]
    for factor in expr.factors:
        inner = unit_map(factor, atom)
        out = [max(outer, i) for outer in out for i in inner]
    return out
