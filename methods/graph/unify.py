"""Unifying: two dimensions hold the same units in the same order.

A variable may be refined into a product (by a view) or a concatenation (by a split); what cannot be brought together is frozen,
never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from coppice.methods.graph.terms import Cat, Fix, Mul, Term, Var, factors, norm, same, variables


class Algebra:
    """Unifies, cuts, reshapes and freezes terms.

    Args:
        describe: called only when something freezes; returns where in the forward that happens.

    Attributes:
        refinements: how often a variable was split into a product or a concatenation.
    """

    def __init__(self, describe: Callable[[], str]) -> None:
        self._describe = describe
        self.refinements = 0

    def freeze(self, term: Term, reason: str = "") -> None:
        """State that no unit of `term` may be added or removed."""
        for var in list(variables(term)):
            if var.to is None:
                var.to = Fix(var.size, reason or self._describe())

    def mark(self, term: Term, what: str) -> None:
        """Remember what happens across the units of `term`."""
        for var in variables(term):
            var.marks |= {what}

    def bind(self, var: Var, term: Term) -> None:
        """Replace an unbound variable."""
        self.refinements += not isinstance(term, (Fix, Var))
        if var.marks:
            for inner in variables(term):
                inner.marks |= var.marks
        var.to = term

    def unify(self, a: Term, b: Term) -> None:
        """State that two dimensions hold the same units."""
        if a is b:
            return
        a, b = norm(a), norm(b)
        if a is b or same(a, b):
            return
        if a.size != b.size:
            self._freeze_both(a, b)
        elif isinstance(a, Var):
            self._unify_var(a, b)
        elif isinstance(b, Var):
            self._unify_var(b, a)
        elif isinstance(a, Fix) or isinstance(b, Fix):
            reason = (a.reason if isinstance(a, Fix) else "") or (b.reason if isinstance(b, Fix) else "")
            self.freeze(a, reason)
            self.freeze(b, reason)
        elif isinstance(a, Cat) and isinstance(b, Cat):
            self._unify_cats(a, b)
        elif isinstance(a, Mul) and isinstance(b, Mul):
            self._unify_muls(a, b)
        else:
            self._unify_mul_cat(*((a, b) if isinstance(a, Mul) else (b, a)))

    def _freeze_both(self, a: Term, b: Term) -> None:
        reason = self._describe()
        self.freeze(a, reason)
        self.freeze(b, reason)

    def _unify_var(self, var: Var, term: Term) -> None:
        if isinstance(term, Fix):
            self.freeze(var, term.reason)
        elif isinstance(term, Var):
            older, younger = (var, term) if var.serial < term.serial else (term, var)
            self.bind(younger, older)
        elif any(v is var for v in variables(term)):
            self._freeze_both(var, term)
        else:
            self.bind(var, term)

    def _unify_cats(self, a: Cat, b: Cat) -> None:
        left, right = list(a.parts), list(b.parts)
        while left and right:
            x, y = norm(left.pop(0)), norm(right.pop(0))
            if x.size < y.size:
                x, y, left, right = y, x, right, left
            if x.size > y.size:
                halves = self.cut(x, y.size)
                if halves is None:
                    return self._freeze_both(a, b)
                x = halves[0]
                left.insert(0, halves[1])
            self.unify(x, y)
        return None

    def _unify_mul_cat(self, product: Mul, cat: Cat) -> None:
        first = product.parts[0]
        if not isinstance(first, Fix):
            return self._freeze_both(product, cat)
        return self.unify(Cat([Mul(product.parts[1:])] * first.size), cat)

    def _unify_muls(self, a: Mul, b: Mul) -> None:
        left, right = list(a.parts), list(b.parts)
        while left and right:
            x, y = norm(left.pop(0)), norm(right.pop(0))
            if isinstance(x, Mul) or isinstance(y, Mul):
                left[:0] = x.parts if isinstance(x, Mul) else [x]
                right[:0] = y.parts if isinstance(y, Mul) else [y]
                continue
            if x.size == y.size:
                self.unify(x, y)
                continue
            common = math.gcd(x.size, y.size)
            for rest, term in ((left, x), (right, y)):
                parts = self.factor(term, common) if common > 1 else None
                if parts is None:
                    return self._freeze_both(a, b)
                rest[:0] = parts
        for unmatched in left + right:
            self.freeze(unmatched)
        return None

    def factor(self, term: Term, outer: int) -> list[Term] | None:
        """Split a term into a product whose first factor has size `outer`; None when that is impossible."""
        term = norm(term)
        inner = term.size // outer
        if outer in (1, term.size):
            return [term]
        if isinstance(term, Fix):
            return [Fix(outer, term.reason), Fix(inner, term.reason)]
        unit: Term = Var(inner)
        if isinstance(term, Var):
            parts: list[Term] = [Var(outer), unit]
            self.bind(term, Mul(parts))
            return parts
        if isinstance(term, Cat):
            self.unify(Mul([Fix(outer), unit]), term)
            return [Fix(outer), unit]
        return None

    def cut(self, term: Term, at: int) -> tuple[Term, Term] | None:
        """Split a term into a concatenation of its first `at` entries and the rest; None when that is impossible."""
        term = norm(term)
        if at == 0:
            return Fix(0), term
        if at == term.size:
            return term, Fix(0)
        if isinstance(term, Fix):
            return Fix(at, term.reason), Fix(term.size - at, term.reason)
        if isinstance(term, Var):
            parts = Var(at), Var(term.size - at)
            self.bind(term, Cat(parts))
            return parts
        return self._cut_cat(term, at) if isinstance(term, Cat) else self._cut_mul(term, at)

    def _cut_cat(self, term: Cat, at: int) -> tuple[Term, Term] | None:
        before: list[Term] = []
        for position, part in enumerate(term.parts):
            if at <= part.size:
                halves = self.cut(part, at)
                if halves is None:
                    return None
                return norm(Cat([*before, halves[0]])), norm(Cat([halves[1], *term.parts[position + 1 :]]))
            at -= part.size
            before.append(part)
        return None

    def _cut_mul(self, term: Mul, at: int) -> tuple[Term, Term] | None:
        inner = norm(Mul(term.parts[1:]))
        if at % inner.size:
            return None
        halves = self.cut(term.parts[0], at // inner.size)
        return None if halves is None else (norm(Mul([halves[0], inner])), norm(Mul([halves[1], inner])))

    def reshape(self, dims: Sequence[Term], sizes: Sequence[int]) -> list[Term]:
        """The dimensions of a row-major reshape."""
        start, stop, end = 0, len(dims), len(sizes)
        while start < min(stop, end) and dims[start].size == sizes[start]:
            start += 1
        while min(stop, end) > start and dims[stop - 1].size == sizes[end - 1]:
            stop, end = stop - 1, end - 1
        middle = self._regroup(list(dims[start:stop]), sizes[start:end]) if start < end else []
        if start == end:
            for dim in dims[start:stop]:
                self.freeze(dim)
        return [*dims[:start], *middle, *dims[stop:]]

    def _regroup(self, dims: list[Term], sizes: Sequence[int]) -> list[Term]:
        left: list[Term] = [f for d in dims for f in factors(d)]
        if all(type(f) is Fix for f in left):
            return [Fix(n, left[0].reason if left else "") for n in sizes]  # type: ignore[union-attr]
        out: list[Term] = []
        for position, size in enumerate(sizes):
            taken: list[Term] = []
            done = 1
            while left and (done < size or (position == len(sizes) - 1) or (left[0].size == 1 and not taken and size == 1)):
                head = left.pop(0)
                if size % (done * head.size) == 0:
                    taken.append(head)
                    done *= head.size
                    continue
                common = math.gcd(size // done, head.size)
                parts = self.factor(head, common) if common > 1 else None
                if parts is None:
                    for dim in dims:
                        self.freeze(dim)
                    return [Fix(n) for n in sizes]
                left[:0] = [f for p in parts for f in factors(p)]
            out.append(norm(Mul(taken)))
        return out
