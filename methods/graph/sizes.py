"""Sizes that the forward computes or compares: rules that hold before a change and must hold after it.

A rule says that two formulas over dimensions and attributes are equal. Where an element's change breaks a rule, an attribute is
set or another atom moves too; where neither helps, the element cannot change, and the rule is the reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coppice.methods.graph.expr import Atom, Const, Expr, Prod, Sum, atom_names, resized, walk


@dataclass(frozen=True)
class Held:
    """An attribute of an object.

    Attributes:
        module: the module that has it; None for any other object.
        name: of the attribute.
        value: its value.
        settable: a change may set it.
    """

    module: str | None
    name: str
    value: int
    settable: bool

    def __str__(self) -> str:
        return ".".join(part for part in (self.module, self.name) if part)


@dataclass(frozen=True)
class Arithmetic:
    """`left sign right`, whole numbers."""

    sign: str
    left: Size
    right: Size

    def __str__(self) -> str:
        return f"({self.left} {self.sign} {self.right})"


Size = int | Const | Atom | Prod | Sum | Held | Arithmetic


@dataclass(frozen=True)
class SizeRule:
    """Two sizes that the forward needs to be equal, and where."""

    left: Size
    right: Size
    place: str

    def __str__(self) -> str:
        return f"{self.left} = {self.right} at {self.place}"


Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """Atoms that move, each with its entries for one unit, and attributes with the expression whose size they take."""

    moves: Mapping[str, int]
    attributes: Mapping[Key, Expr]


def leaves(size: Size) -> Iterator[Held | Expr]:
    """The attributes and dimensions of a formula."""
    if isinstance(size, Arithmetic):
        yield from leaves(size.left)
        yield from leaves(size.right)
    elif not isinstance(size, int):
        yield size


def evaluate(size: Size, sizes: Mapping[str, int], change: Change) -> int | None:
    """The value of a formula when atoms have `sizes`; None where it has none."""
    if isinstance(size, int):
        return size
    if isinstance(size, Held):
        expr = change.attributes.get((size.module or "", size.name))
        return size.value if expr is None else resized(expr, sizes)
    if not isinstance(size, Arithmetic):
        return resized(size, sizes)
    left, right = evaluate(size.left, sizes, change), evaluate(size.right, sizes, change)
    if left is None or right is None or (right == 0 and size.sign in ("//", "%")):
        return None
    if size.sign in ("+", "-", "*"):
        return left + right if size.sign == "+" else left - right if size.sign == "-" else left * right
    return left // right if size.sign == "//" else left % right


class Sizes:
    """All rules of a network.

    Args:
        rules: what the forward needs.
        atoms: size of each atom.
    """

    def __init__(self, rules: tuple[SizeRule, ...], atoms: Mapping[str, int]) -> None:
        self._atoms = atoms
        self._by_leaf: dict[str | Key, list[SizeRule]] = {}
        for rule in rules:
            names: set[str | Key] = set()
            for leaf in (*leaves(rule.left), *leaves(rule.right)):
                names |= {(leaf.module or "", leaf.name)} if isinstance(leaf, Held) else atom_names(leaf)
            for name in names:
                self._by_leaf.setdefault(name, []).append(rule)
        self.broken: SizeRule | None = None

    def follow(self, change: Change, step: int = 1) -> Change | None:
        """The change with all that must follow, in multiples of `step`; None where that is impossible: `broken` is the rule."""
        self.broken = None
        self._step = step
        self._left = 400
        changed: list[str | Key] = [*change.moves, *change.attributes]
        todo = deque(rule for name in changed for rule in self._by_leaf.get(name, ()))
        return self._follow(change, todo)

    def _follow(self, change: Change, todo: deque[SizeRule]) -> Change | None:
        while todo:
            rule = todo.popleft()
            if self._holds(rule, change):
                continue
            self._left -= 1
            for name, repaired in self._repairs(rule, change) if self._left > 0 else ():
                done = self._follow(repaired, deque((rule, *todo, *self._by_leaf.get(name, ()))))
                if done is not None:
                    return done
            self.broken = self.broken or rule
            return None
        return change

    def _sizes(self, change: Change, steps: int) -> dict[str, int]:
        return {name: self._atoms[name] + units * steps * self._step for name, units in change.moves.items()}

    def _difference(self, rule: SizeRule, change: Change, steps: int) -> int | None:
        sizes = self._sizes(change, steps)
        if min(sizes.values(), default=1) < 1:
            return 0
        left, right = evaluate(rule.left, sizes, change), evaluate(rule.right, sizes, change)
        return None if left is None or right is None else left - right

    def _holds(self, rule: SizeRule, change: Change) -> bool:
        return all(self._difference(rule, change, steps) == 0 for steps in (1, 2, -1))

    def _repairs(self, rule: SizeRule, change: Change) -> Iterator[tuple[str | Key, Change]]:
        """Changes with which the rule holds: an attribute is set to a size, or an atom moves."""
        inner = [*leaves(rule.left), *leaves(rule.right)]
        for leaf in inner:
            if isinstance(leaf, Held) and leaf.settable and (leaf.module or "", leaf.name) not in change.attributes:
                key = (leaf.module or "", leaf.name)
                for expr in self._stands_for(leaf.value, inner, change):
                    repaired = Change(change.moves, {**change.attributes, key: expr})
                    if self._holds(rule, repaired):
                        yield key, repaired
        unmoved = dict.fromkeys(n for x in inner if not isinstance(x, Held) for n in _in_order(x) if n not in change.moves)
        for name in unmoved:
            units = self._units(rule, change, name)
            if units:
                yield name, Change({**change.moves, name: units}, change.attributes)

    def _stands_for(self, value: int, inner: list[Held | Expr], change: Change) -> list[Expr]:
        """Parts of the rule's dimensions that have an attribute's value and change, smallest first."""
        found: dict[Expr, int] = {}
        for expr in inner:
            if not isinstance(expr, Held):
                for part in runs(expr):
                    if part.size == value and not atom_names(part).isdisjoint(change.moves):
                        found.setdefault(part, len(list(walk(part))))
        return sorted(found, key=lambda e: found[e])

    def _units(self, rule: SizeRule, change: Change, name: str) -> int:
        """How many entries of an atom must move for each unit; 0 where no number makes the rule hold."""
        now, one = (self._difference(rule, Change({**change.moves, name: units}, change.attributes), 1) for units in (0, 1))
        tries = [1]
        if now is not None and one is not None and now != one and now % (now - one) == 0:
            tries.append(now // (now - one))
        inner = (*leaves(rule.left), *leaves(rule.right))
        tries += sorted({leaf.value if isinstance(leaf, Held) else leaf.size for leaf in inner})
        return next((u for u in tries if u > 0 and self._holds(rule, Change({**change.moves, name: u}, change.attributes))), 0)


def _in_order(expr: Expr) -> list[str]:
    return [e.name for e in walk(expr) if isinstance(e, Atom)]


def runs(expr: Expr) -> Iterator[Expr]:
    """All parts of an expression, and all runs of neighbours in its products and sums."""
    yield expr
    if isinstance(expr, (Prod, Sum)):
        parts = expr.factors if isinstance(expr, Prod) else expr.terms
        for start in range(len(parts)):
            for stop in range(start + 1, len(parts) + 1):
                run = parts[start:stop]
                if len(run) == 1:
                    yield from runs(run[0])
                elif len(run) < len(parts):
                    yield type(expr)(run)
