"""Notes on a forward: every tensor carries the terms of its dimensions and where it comes from; rules write them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from coppice.methods.graph.functions import Call
from coppice.methods.graph.given import Computed, Extent, Given, Origin
from coppice.methods.graph.source import caller
from coppice.methods.graph.terms import Cat, Fix, Term, Var, norm
from coppice.methods.graph.unify import Algebra

Source = tuple[str, tuple[tuple[int, ...], ...]]
"""A parameter or buffer that a tensor is made of, and for each dimension of the tensor the dimensions of that parameter."""

_IDENTITY = tuple(tuple((i,) for i in range(rank)) for rank in range(8))
CONSTANT = "a constant that the forward makes"


class Value:
    """What is known of one tensor of the forward.

    Attributes:
        dims: the term of each dimension.
        bit: a bit of its own, for the sets below.
        deps: bits of all values it was computed from.
        adds: bits of the values that it is a sum of (with others).
        zero: a unit whose producers are zero is zero in it.
        sources: the parameters that it is nothing but a rearrangement or product of; empty for activations.
        squares: the value whose square it is (or the mean of that, or its inverse root), while an RMS norm may follow.
        freezes: terms that freeze, with the reason, as soon as anything but its shape is used.
        live: it depends on the network's input (not on parameters and constants alone).
        even: the variables of its dimensions along which it is linear in what makes it: a unit whose producers are the mean
            of the other units' is the mean of those units in it.
        offset: it is the parameter in `sources` plus this number, entry by entry; None where it is anything else.
    """

    __slots__ = ("adds", "bit", "deps", "dims", "even", "freezes", "live", "offset", "sources", "squares", "tensor", "zero")

    def __init__(self, tensor: Tensor, dims: Sequence[Term], bit: int) -> None:
        self.tensor = tensor
        self.dims = dims
        self.bit = bit
        self.deps = 0
        self.adds = bit
        self.zero = False
        self.live = False
        self.sources: tuple[Source, ...] = ()
        self.squares: tuple[str, int] | None = None
        self.freezes: list[tuple[Term, str]] = []
        self.even: frozenset[Var] = frozenset()
        self.offset: float | None = None


@dataclass
class Norm:
    """One place where the forward divides by the statistics of units.

    Attributes:
        kind: `layernorm` or `rmsnorm`.
        over: the dimensions that the statistics are taken over.
        sound: new units can be such that the statistics change by a known factor.
        eps: what is added to the variance or mean square; None where that is not known.
        scale: the parameter that the result is multiplied by, plus `offset`; None where there is none.
    """

    kind: str
    over: tuple[Term, ...]
    sound: bool
    eps: float | None
    scale: str | None = None
    offset: float = 0.0
    training: bool = False


Handler = Callable[["Watch", Any, tuple[Any, ...], dict[str, Any]], Any]
"""Runs one operator and labels what it returns."""


class Watch:
    """The notes on a forward: labels of its tensors, and what their dimensions are used for.

    Args:
        meta: tensors hold no data; constants made in the forward are moved to the meta device too.

    Attributes:
        given_numbers: whole numbers among the arguments of an operator that runs as its decomposition.
        redispatch: while what it returns is entered, the operators that a rule itself calls have rules too.
    """

    def __init__(self, meta: bool) -> None:
        self.meta = meta
        self.values: dict[int, Value] = {}
        self.algebra = Algebra(self.describe)
        self.roles: dict[tuple[str, int], set[str]] = {}
        self.seen: set[str] = set()
        self.nonnegative = 0
        self.kept = 0
        self.sums: dict[int, int] = {}
        self.call: Call | None = None
        self.needed: list[tuple[Origin, Origin, str]] = []
        self.ties: list[tuple[Term, Term]] = []
        self.pending: dict[int, Term] = {}
        self.norms: dict[int, Norm] = {}
        self.scores: list[tuple[Term, Value, Value, bool]] = []
        self.bits: dict[str, int] = {}
        self.buffers: set[str] = set()
        self.epsilons: dict[int, float | None] = {}
        self.training = False
        self.unknown: set[str] = set()
        self.operator = ""
        self.nothing = torch.empty((0,), device="meta")
        self.given_numbers: frozenset[int] = frozenset()
        self.redispatch: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._next_bit = 1

    def release(self) -> list[ref[Tensor]]:
        """Let go of all tensors; weak references to them tell which of them something else still holds."""
        made = [ref(value.tensor) for value in self.values.values() if value.tensor is not self.nothing]
        self.values.clear()
        return made

    def used(self) -> int:
        """Labels of all tensors that another was computed from, or that the network returned."""
        return functools.reduce(lambda labels, value: labels | value.deps, self.values.values(), self.kept)

    def describe(self) -> str:
        """Which operator is running, and from where in the user's code."""
        return f"{self.operator} at {caller()}"

    def written_sizes(self, pieces: Sequence[Term], sizes: Sequence[int]) -> None:
        """Note what the sizes that a view, cut or factory is given follow; freeze dimensions that it gets by a mere number."""
        given = self.call.sizes(len(sizes)) if self.call is not None and self.call.by_user else None
        for position, (piece, size) in enumerate(zip(pieces, sizes, strict=True)):
            number = given[position] if given is not None else None
            if isinstance(number, Given):
                self.needs(number.origin, piece)
            elif size in self.given_numbers or (number is not None and number > 1):
                self._by_number(piece, size)

    def _by_number(self, term: Term, size: int) -> None:
        if not isinstance(norm(term), Fix):
            self.algebra.freeze(term, f"the number {size} in {self.describe()}")

    def needs(self, origin: Origin, term: Term) -> None:
        """Note that a size that the forward computes is that of a term."""
        if not (isinstance(origin, Extent) and norm(origin.term) is norm(term)):
            self.needed.append((origin, Extent(term), caller()))

    def written_bound(self, bound: Any, before: Sequence[Term], after: Sequence[Term]) -> None:
        """Likewise for a bound of a slice, with the pieces of the dimension before and after it."""
        if bound is None or bound == 0:
            return
        if not isinstance(bound, Given):
            for piece in before if bound > 0 else after:
                self._by_number(piece, abs(bound))
        elif bound > 0:
            self.needs(bound.origin, Cat(before))
        else:
            self.needs(Computed("-", 0, bound.origin), Cat(after))

    def bounds(self, start: int, stop: int) -> tuple[Any, Any] | None:
        """The bounds of the slice that is cut now as the user's code gives them; None where it gives none."""
        return self.call.bounds(start, stop) if self.call is not None and self.call.by_user else None

    def added(self, value: Value, other: Value) -> None:
        """Note that `value` was added to `other`."""
        self.sums[value.bit] = self.sums.get(value.bit, 0) | other.bit

    def put(self, tensor: Tensor, dims: Sequence[Term], inputs: Iterable[Value] = (), zero: bool = False) -> Value:
        """Label a tensor that was computed from `inputs`."""
        bit = self._next_bit
        self._next_bit = bit << 1
        value = Value(tensor, dims, bit)
        deps = 0
        for other in inputs:
            deps |= other.deps | other.bit
            value.live = value.live or other.live
        value.deps = deps
        value.zero = zero
        self.values[id(tensor)] = value
        return value

    def value(self, tensor: Tensor) -> Value:
        """The value of a tensor; one that was never seen is a constant."""
        value = self.values.get(id(tensor))
        if value is None:
            return self.put(tensor, [Fix(n, CONSTANT) for n in tensor.shape])
        while value.freezes:
            self.algebra.freeze(*value.freezes.pop())
        return value

    def parameter(self, name: str, tensor: Tensor) -> list[Term]:
        """Label a parameter or buffer: every dimension may change, for all that is known."""
        dims: list[Term] = [Var(n) for n in tensor.shape]
        value = self.put(tensor, dims, zero=True)
        self.bits[name] = value.bit
        value.offset, value.even = 0.0, frozenset(d for d in dims if type(d) is Var)
        value.sources = ((name, _IDENTITY[len(dims)] if len(dims) < len(_IDENTITY) else tuple((i,) for i in range(len(dims)))),)
        return dims

    def role(self, value: Value, dim: int, role: str) -> None:
        """Note what a dimension of the parameters behind `value` is used for."""
        for name, mapping in value.sources:
            for source_dim in mapping[dim]:
                self.roles.setdefault((name, source_dim), set()).add(role)

    def is_fixed(self, value: Value) -> bool:
        """Whether it is made of buffers alone."""
        return bool(value.sources) and all(name in self.buffers for name, _ in value.sources)

    def uses(self, value: Value) -> None:
        """Note that the parameters behind `value` took part in an operation."""
        for name, _ in value.sources:
            self.seen.add(name)

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A contiguous meta tensor of the shape, with the dtype of `like`."""
        return torch.empty(shape, dtype=like.dtype, device="meta")

    def empty_like(self, like: Tensor) -> Tensor:
        """A meta tensor whose dimensions lie in memory in the same order."""
        if like.is_contiguous():
            return torch.empty(like.shape, dtype=like.dtype, device="meta")
        old = like.stride()
        if 0 in old:
            return torch.empty_like(like)
        stride, step = [0] * len(old), 1
        for dim in sorted(range(len(old)), key=lambda d: (old[d], -d)):
            stride[dim] = step
            step *= like.shape[dim]
        return torch.empty_strided(like.shape, stride, dtype=like.dtype, device="meta")
