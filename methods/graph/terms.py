"""Mutable terms that a trace unifies; `convert.py` turns the result into the frozen expressions of `expr.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

MULTIPLE = "multiple of "
"""Start of a mark: a kernel takes a dimension only in multiples of the number that follows."""


class Fix:
    """A dimension that does not change; `reason` says why, where it is known."""

    __slots__ = ("reason", "size")

    def __init__(self, size: int, reason: str = "") -> None:
        self.size = size
        self.reason = reason


class Var:
    """A dimension that may change, until it is bound to another term."""

    __slots__ = ("marks", "serial", "size", "to")
    _serials = count()

    def __init__(self, size: int) -> None:
        self.size = size
        self.to: Term | None = None
        self.marks: frozenset[str] = frozenset()
        self.serial = next(Var._serials)


class Mul:
    """Dimensions that a view made one, row-major: the last varies fastest."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Term]) -> None:
        self.parts = tuple(parts)
        self.size: int = math.prod(p.size for p in self.parts)


class Cat:
    """Parts of a dimension one behind the other, in order."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Term]) -> None:
        self.parts = tuple(parts)
        self.size: int = sum(p.size for p in self.parts)


Term = Fix | Var | Mul | Cat
ONE = Fix(1)


def norm(term: Term) -> Term:
    """The term with bindings followed, nested products and sums flattened, and constants merged."""
    while type(term) is Var:
        if term.to is None:
            return term
        term = term.to
    if type(term) is Mul:
        return _norm_mul(term)
    return _norm_cat(term) if type(term) is Cat else term


def _norm_mul(term: Mul) -> Term:
    out: list[Term] = []
    for part in map(norm, term.parts):
        for factor in part.parts if isinstance(part, Mul) else (part,):
            if isinstance(factor, Fix) and factor.size == 1:
                continue
            last = out[-1] if out else None
            if isinstance(factor, Fix) and isinstance(last, Fix):
                out[-1] = Fix(last.size * factor.size, last.reason or factor.reason)
            else:
                out.append(factor)
    if len(out) > 1:
        return Mul(out)
    return out[0] if out else ONE


def _norm_cat(term: Cat) -> Term:
    out: list[Term] = []
    for part in map(norm, term.parts):
        for piece in part.parts if isinstance(part, Cat) else (part,):
            if piece.size == 0:
                continue
            last = out[-1] if out else None
            if isinstance(piece, Fix) and isinstance(last, Fix):
                out[-1] = Fix(last.size + piece.size, last.reason or piece.reason)
            else:
                out.append(piece)
    if len(out) > 1:
        return Cat(out)
    return out[0] if out else Fix(0)


def variables(term: Term) -> Iterator[Var]:
    """The unbound variables in a term, with repetition."""
    term = norm(term)
    if isinstance(term, Var):
        yield term
    elif not isinstance(term, Fix):
        for part in term.parts:
            yield from variables(part)


def held(dims: Iterable[Term]) -> frozenset[Var]:
    """The variables in dimensions, as far as they are known by now."""
    return frozenset(v for d in dims if type(d) is not Fix for v in variables(d))


def same(a: Term, b: Term) -> bool:
    """Whether two terms are already known to be equal."""
    a, b = norm(a), norm(b)
    if a is b:
        return True
    if isinstance(a, Fix) or isinstance(b, Fix):
        return isinstance(a, Fix) and isinstance(b, Fix) and a.size == b.size
    if isinstance(a, Var) or isinstance(b, Var) or type(a) is not type(b):
        return False
    return len(a.parts) == len(b.parts) and all(map(same, a.parts, b.parts))


def factors(term: Term) -> list[Term]:
    """The factors of a term that are not one."""
    term = norm(term)
    parts: tuple[Term, ...] = term.parts if isinstance(term, Mul) else (term,)
    return [p for p in parts if not (isinstance(p, Fix) and p.size == 1)]
