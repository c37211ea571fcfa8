"""Helpers of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from coppice.methods.graph.terms import Fix, Term, held, norm
from coppice.methods.graph.watch import Value, Watch

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
SPATIAL = "a size in space or time, not of channels"


def tensors(items: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries (missing one would make a bogus group)."""
    if isinstance(items, Tensor):
        yield items
    elif isinstance(items, (list, tuple)):
        for item in items:
            yield from tensors(item)
    elif isinstance(items, dict):
        for item in items.values():
            yield from tensors(item)


def argument(args: Args, kwargs: Kwargs, position: int, name: str, default: Any = None) -> Any:
    """A positional or keyword argument of an operator."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def run(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Run the operator itself, on the device of the trace."""
    if watch.meta and kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("meta")}
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
    watch.operator = func._overloadpacket.__name__
    return func(*args, **kwargs)


def fixed(sizes: Sequence[int], reason: str = SPATIAL) -> list[Term]:
    """Dimensions of these sizes that never change."""
    return [Fix(n, reason) for n in sizes]


def freeze_all(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The rule of an operator that has none: nothing it touches may change."""
    out = run(watch, func, args, kwargs)
    inputs = [watch.value(t) for t in tensors((args, kwargs))]
    name = watch.operator
    for value in inputs:
        watch.uses(value)
        for dim in value.dims:
            if not isinstance(norm(dim), Fix):
                watch.unknown.add(name)
                watch.algebra.freeze(dim, f"no rule for the operator {watch.describe()}")
    for tensor in tensors(out):
        watch.put(tensor, fixed(tensor.shape, f"made by the operator {name}, which has no rule"), inputs)
    return out


def broadcast(watch: Watch, inputs: Sequence[Value], shape: Sequence[int]) -> list[Term]:
    """Dimensions of the result of broadcasting `inputs`; equal ones are unified."""
    out: list[Term | None] = [None] * len(shape)
    algebra = watch.algebra
    for value in inputs:
        offset = len(shape) - len(value.dims)
        for position, dim in enumerate(value.dims, offset):
            if position < 0 or dim.size != shape[position]:
                if dim.size != 1 or not isinstance(norm(dim), Fix):
                    algebra.freeze(dim, f"broadcast in {watch.describe()}")
                continue
            known = out[position]
            if known is None or (known.size == 1 and isinstance(norm(known), Fix) and norm(known) is not norm(dim)):
                if known is not None:
                    algebra.unify(known, dim)
                out[position] = dim
            elif known is not dim:
                algebra.unify(known, dim)
    return [dim if dim is not None else Fix(n, SPATIAL) for dim, n in zip(out, shape, strict=True)]


def rearranged(watch: Watch, x: Value, out: Tensor, dims: Sequence[Term], order: Sequence[int | None]) -> Value:
    """Label a tensor whose dimension i is dimension `order[i]` of `x` (None: a new one)."""
    value = watch.put(out, dims, (x,), x.zero)
    value.squares, value.offset, value.even = x.squares, x.offset, x.even
    if x.sources:
        value.sources = tuple((n, tuple(() if i is None else m[i] for i in order)) for n, m in x.sources)
    return value


def linear_along(inputs: Sequence[Value], out: Value, factors: bool = False) -> None:
    """Note along which variables a sum (`factors`: a product) of values is linear in what makes it.

    Every summand that has a variable must be so; of the factors of a product only one may have it.
    """
    mine = [(held(v.dims), held(v.even)) for v in inputs]
    if not factors:
        out.even = frozenset().union(*(e for _, e in mine)) - frozenset().union(*(h - e for h, e in mine))
    elif any(e for _, e in mine):
        out.even = frozenset(v for h, e in mine for v in e if sum(v in other for other, _ in mine) == 1)


def freeze_axes(watch: Watch, x: Value, axes: Iterable[int]) -> None:
    """Freeze some dimensions of a value."""
    for axis in axes:
        if not isinstance(norm(x.dims[axis]), Fix):
            watch.algebra.freeze(x.dims[axis])


def same_label(watch: Watch, source: Value, tensor: Tensor) -> Value:
    """Label a tensor that holds the same values as `source`."""
    value = watch.put(tensor, source.dims, (source,), source.zero)
    value.adds |= source.adds
    value.squares, value.offset, value.even = source.squares, source.offset, source.even
    value.sources = source.sources
    return value


def rebuilt(watch: Watch, x: Value, out: Tensor, axes: Iterable[int], reason: str = SPATIAL) -> Value:
    """Label a linear map of `x` that mixes entries along `axes`, whose sizes are as in `out`; the other dimensions stay."""
    gone = {axis % len(x.dims) for axis in axes}
    freeze_axes(watch, x, gone)
    dims: list[Term] = [Fix(n, reason) if i in gone else d for i, (d, n) in enumerate(zip(x.dims, out.shape, strict=True))]
    return rearranged(watch, x, out, dims, [None if i in gone else i for i in range(len(dims))])


def written(watch: Watch, target: Any) -> None:
    """After writing into a view, its base is no longer a known sum, nor known to keep zeros."""
    base = target._base if isinstance(target, Tensor) else None
    if base is not None and id(base) in watch.values:
        value = watch.values[id(base)]
        value.adds, value.zero, value.even = value.bit, False, frozenset()
