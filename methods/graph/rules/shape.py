"""Operators that rearrange: views, permutations, repetitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import (
    SPATIAL,
    Args,
    Kwargs,
    argument,
    fixed,
    freeze_all,
    freeze_axes,
    rearranged,
    rebuilt,
    run,
)
from coppice.methods.graph.terms import ONE, Fix, Mul, Term, Var, norm
from coppice.methods.graph.watch import Handler, Value, Watch

Mapping = tuple[tuple[int, ...], ...]


def _view_mapping(before: Sequence[int], after: Sequence[int], mapping: Mapping) -> Mapping:
    """Which old dimensions each new dimension of a row-major view is made of."""
    edges = list(itertools.accumulate(before[::-1], lambda a, b: a * b, initial=1))[::-1]
    out, inner = [], 1
    for size in reversed(after):
        outer = inner * size
        parts = [m for i, m in enumerate(mapping) if edges[i + 1] < outer and inner < edges[i]]
        out.append(tuple(sorted({d for m in parts for d in m})))
        inner = outer
    return tuple(reversed(out))


def _reshape_empty(watch: Watch, x: Value, shape: Sequence[int]) -> list[Term]:
    """The dimensions of a reshape of a tensor without entries, where the sizes besides one of 0 leave no doubt."""
    before = [dim for dim in x.dims if dim.size]
    after = [n for n in shape if n]
    if shape.count(0) != 1 or len(before) != len(x.dims) - 1 or math.prod(d.size for d in before) != math.prod(after):
        freeze_axes(watch, x, range(len(x.dims)))
        return fixed(shape)
    dims = watch.algebra.reshape(before, after)
    return [*dims[: shape.index(0)], Fix(0, SPATIAL), *dims[shape.index(0) :]]


def view(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Reshape in row-major order: dimensions become one, or one becomes several."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    shape = list(out.shape)
    if out.numel() != args[0].numel():
        rebuilt(watch, x, out, (-1,), "bytes of numbers")
        return out
    dims = _reshape_empty(watch, x, shape) if 0 in shape else watch.algebra.reshape(x.dims, shape)
    watch.written_sizes(dims, shape)
    value = watch.put(out, dims, (x,), x.zero)
    value.squares, value.offset, value.even = x.squares, x.offset, x.even
    if shape == list(args[0].shape):
        value.adds |= x.adds
    if x.sources and 0 not in shape:
        value.sources = tuple((n, _view_mapping(args[0].shape, shape, m)) for n, m in x.sources)
    return out


def transpose_2d(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Transpose of a matrix: (M, N) -> (N, M)."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    order = list(range(len(x.dims)))[::-1]
    rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def transpose(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Swap the two dimensions that the arguments name."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    order = list(range(len(x.dims)))
    order[args[1]], order[args[2]] = order[args[2]], order[args[1]]
    rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def permute(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Put the dimensions into the order of the argument."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    order = [d % len(x.dims) for d in args[1]]
    rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def unsqueeze(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A new dimension of size one."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    at = args[1] % (len(x.dims) + 1)
    order: list[int | None] = list(range(len(x.dims)))
    order.insert(at, None)
    rearranged(watch, x, out, [ONE if i is None else x.dims[i] for i in order], order)
    return out


def squeeze(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Leave out dimensions of size one."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    rank = len(x.dims)
    which = argument(args, kwargs, 1, "dim")
    squeezed = range(rank) if which is None else [d % rank for d in ([which] if isinstance(which, int) else which)]
    order = [i for i in range(rank) if not (i in squeezed and x.dims[i].size == 1)]
    for i in set(range(rank)) - set(order):
        watch.algebra.freeze(x.dims[i])
    rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def expand(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Repeat dimensions of size one without copying; what makes a unit of the new size does not make it zero."""
    out = func(*args, **kwargs)
    watch.operator = "expand"
    x = watch.value(args[0])
    shape = out.shape
    new = len(shape) - len(x.dims)
    dims: list[Term] = [Var(n) if n > 1 else ONE for n in shape[:new]]
    order: list[int | None] = [None] * new
    for i, dim in enumerate(x.dims):
        if dim.size == shape[new + i]:
            dims.append(dim)
            order.append(i)
            continue
        if not isinstance(norm(dim), Fix):
            watch.algebra.freeze(dim)
        dims.append(Var(shape[new + i]))
        if args[0].is_floating_point():
            watch.algebra.mark(dims[-1], "offset")
        order.append(None)
    watch.written_sizes(dims, shape)
    value = rearranged(watch, x, out, dims, order)
    if not new and list(args[0].shape) == list(shape):
        value.adds |= x.adds
    return out


def _copies(watch: Watch, counts: Sequence[int], of: Tensor) -> list[Term]:
    """How often something is repeated, which may follow a width; what makes a copy does not make it zero."""
    times: list[Term] = [Var(n) if n > 1 else Fix(n) for n in counts]
    watch.written_sizes(times, counts)
    for term in times if of.is_floating_point() else ():
        watch.algebra.mark(term, "offset")
    return times


def repeat(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Copies one after the other along each dimension."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    new = len(args[1]) - len(x.dims)
    old: list[Term] = [*[ONE] * new, *x.dims]
    times = _copies(watch, args[1], args[0])
    freeze_axes(watch, x, [i for i, dim in enumerate(x.dims) if dim.size == 1 < times[new + i].size])
    dims = [norm(Mul([r, d])) for r, d in zip(times, old, strict=True)]
    rearranged(watch, x, out, dims, [None] * new + list(range(len(x.dims))))
    return out


def repeat_interleave(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Copies of each entry beside it."""
    dim = argument(args, kwargs, 2, "dim")
    if not isinstance(args[1], int) or dim is None:
        return freeze_all(watch, func, args, kwargs)
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    dims = list(x.dims)
    dims[dim] = norm(Mul([dims[dim], *_copies(watch, [args[1]], args[0])]))
    rearranged(watch, x, out, dims, range(len(dims)))
    return out


def moved(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rolls and flips: the order of units changes along some dimensions."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    axes = argument(args, kwargs, 1 if watch.operator == "flip" else 2, "dims", ()) or range(len(x.dims))
    freeze_axes(watch, x, axes)
    rearranged(watch, x, out, x.dims, range(len(x.dims)))
    return out


RULES: dict[str, Handler] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_as"), view),
    "t": transpose_2d,
    "transpose": transpose,
    "permute": permute,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    "roll": moved,
    "flip": moved,
}
IN_PLACE = frozenset(("t", "transpose", "squeeze", "unsqueeze"))
"""Rules that also hold for the in-place form."""
