"""Whole numbers that remember where they come from: an attribute of an object, a dimension of a tensor, or arithmetic on these.

While a forward is traced, attributes that hold whole numbers, and shapes, are such numbers. So it is known what each size that
the forward gives to an operator follows, wherever it was read: in a decorated forward, a comprehension, a free function.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from coppice.methods.graph.source import caller, is_user
from coppice.methods.graph.terms import Term

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Attribute:
    """An attribute of an object; `path` names it from the object, `value` is its value."""

    owner: Any
    path: str
    value: int


@dataclass(frozen=True, eq=False)
class Extent:
    """A dimension of a tensor."""

    term: Term


@dataclass(frozen=True, eq=False)
class Computed:
    """Arithmetic: `sign` is one of `OPERATIONS`."""

    sign: str
    left: Origin
    right: Origin


Origin = Attribute | Extent | Computed | int

_equal: list[list[tuple[Origin, Origin, str]]] = []


@contextmanager
def equalities() -> Iterator[list[tuple[Origin, Origin, str]]]:
    """Note which numbers the user's code finds equal by comparing them."""
    found: list[tuple[Origin, Origin, str]] = []
    _equal.append(found)
    try:
        yield found
    finally:
        _equal.remove(found)


class Given(int):
    """A whole number with its origin; it is used, compared and written like any other.

    Args:
        value: the number.
        origin: where it comes from.
    """

    origin: Origin

    def __new__(cls, value: int, origin: Origin) -> Given:
        """A number that remembers."""
        self = super().__new__(cls, value)
        self.origin = origin
        return self

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Copies and files hold plain numbers."""
        return int, (int(self),)

    def __deepcopy__(self, memo: Any) -> Given:
        """Numbers do not change."""
        return self

    def __neg__(self) -> Given:
        """The negative number."""
        return Given(-int(self), Computed("-", 0, self.origin))

    def __eq__(self, other: object) -> bool:
        """Equal as numbers; who compares relies on it."""
        if not isinstance(other, int) or int.__ne__(self, other):
            return NotImplemented if not isinstance(other, (int, float)) else int(self) == other
        if _equal and is_user(sys._getframe(1).f_code.co_filename):
            _equal[-1].append((self.origin, origin_of(other), caller()))
        return True

    def __ne__(self, other: object) -> bool:
        """Different as numbers."""
        equal = self == other
        return equal if equal is NotImplemented else not equal

    __hash__ = int.__hash__


def origin_of(number: int) -> Origin:
    """Where a number comes from; itself, where it comes from nowhere."""
    return number.origin if isinstance(number, Given) else int(number)


def _arithmetic(sign: str, swapped: bool) -> Callable[[Given, Any], Any]:
    compute: Any = OPERATIONS[sign]
    plain = getattr(int, f"__{'r' if swapped else ''}{compute.__name__.strip('_')}__")

    def method(self: Given, other: Any) -> Any:
        result = plain(self, other)
        if type(result) is not int or isinstance(other, bool):
            return result
        pair = (origin_of(other), self.origin) if swapped else (self.origin, origin_of(other))
        return Given(result, Computed(sign, *pair))

    return method


for _sign, _compute in OPERATIONS.items():
    setattr(Given, f"__{_compute.__name__.strip('_')}__", _arithmetic(_sign, swapped=False))
    setattr(Given, f"__r{_compute.__name__.strip('_')}__", _arithmetic(_sign, swapped=True))


def watched(owner: Any, name: str, value: int) -> int:
    """The number that stands for an attribute while a forward is traced."""
    return Given(value, Attribute(owner, name, value)) if value > 0 else value


def watched_items(owner: Any, name: str, items: Any) -> Any:
    """Likewise for a list or tuple of numbers."""
    if items and all(type(i) is int for i in items):
        return type(items)(watched(owner, f"{name}[{i}]", value) for i, value in enumerate(items))
    return items

