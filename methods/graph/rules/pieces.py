"""Operators that cut, join, pad and halve."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import (
    SPATIAL,
    Args,
    Kwargs,
    argument,
    fixed,
    linear_along,
    rearranged,
    run,
    same_label,
)
from coppice.methods.graph.terms import Cat, Fix, Term, norm
from coppice.methods.graph.watch import Handler, Source, Value, Watch


def cat(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Concatenate along a dimension."""
    out = run(watch, func, args, kwargs)
    given = [watch.value(t) for t in args[0] if not (t.dim() == 1 and t.numel() == 0)]
    if not given:
        watch.put(out, fixed(out.shape))
        return out
    inputs = _not_empty(given, argument(args, kwargs, 1, "dim", 0))
    at = argument(args, kwargs, 1, "dim", 0) % len(inputs[0].dims)
    dims: list[Term] = list(inputs[0].dims)
    for value in inputs[1:]:
        for i, dim in enumerate(value.dims):
            if i != at:
                watch.algebra.unify(dims[i], dim)
    dims[at] = norm(Cat([v.dims[at] for v in inputs]))
    _joined(watch, out, inputs, dims, None)
    return out


def _not_empty(values: list[Value], at: int) -> list[Value]:
    """The values with something along a dimension; all of them, where none has."""
    return [v for v in values if v.dims[at].size] or values


def stack(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Join along a new dimension."""
    out = run(watch, func, args, kwargs)
    inputs = [watch.value(t) for t in args[0]]
    dims: list[Term] = list(inputs[0].dims)
    for value in inputs[1:]:
        for known, dim in zip(dims, value.dims, strict=True):
            watch.algebra.unify(known, dim)
    at = argument(args, kwargs, 1, "dim", 0) % (len(dims) + 1)
    _joined(watch, out, inputs, [*dims[:at], Fix(len(inputs), "number of stacked tensors"), *dims[at:]], at)
    return out


def _joined(watch: Watch, out: Tensor, inputs: list[Value], dims: list[Term], new: int | None) -> None:
    value = watch.put(out, dims, inputs, all(v.zero for v in inputs))
    linear_along(inputs, value)
    if all(v.sources for v in inputs):
        sources: list[Source] = [s for v in inputs for s in v.sources]
        if new is not None:
            sources = [(n, (*m[:new], (), *m[new:])) for n, m in sources]
        value.sources = tuple(sources)
    for parameter in inputs:
        watch.uses(parameter)


def _pieces(watch: Watch, term: Term, offsets: Sequence[int]) -> list[Term]:
    """Cut a term at the given offsets (first 0, last its size); freeze it where that is impossible."""
    out: list[Term] = []
    rest, position = term, 0
    for offset in offsets[1:]:
        halves = watch.algebra.cut(rest, offset - position)
        if halves is None:
            watch.algebra.freeze(term)
            return [Fix(b - a, "a cut through a product") for a, b in itertools.pairwise(offsets)]
        out.append(halves[0])
        rest, position = halves[1], offset
    return out


def split(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Cut into pieces of equal or of given sizes."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    at = argument(args, kwargs, 2, "dim", 0) % len(x.dims)
    sizes = [t.shape[at] for t in out]
    pieces = _pieces(watch, x.dims[at], [0, *itertools.accumulate(sizes)])
    watch.written_sizes(pieces, sizes)
    if isinstance(args[1], int):
        watch.ties += [(pieces[0], p) for p in pieces[1:] if p.size == pieces[0].size]
    for tensor, piece in zip(out, pieces, strict=True):
        dims = list(x.dims)
        dims[at] = piece
        rearranged(watch, x, tensor, dims, range(len(dims)))
    return out


def unbind(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """One tensor for each entry of a dimension."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    at = argument(args, kwargs, 1, "dim", 0) % len(x.dims)
    _drop(watch, x, at, out)
    return out


def select(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """One entry of a dimension."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    _drop(watch, x, args[1] % len(x.dims), [out])
    return out


def _drop(watch: Watch, x: Value, at: int, outputs: Sequence[Tensor]) -> None:
    freezes = [] if isinstance(norm(x.dims[at]), Fix) else [(x.dims[at], watch.describe())]
    order = [i for i in range(len(x.dims)) if i != at]
    for tensor in outputs:
        rearranged(watch, x, tensor, [x.dims[i] for i in order], order).freezes = list(freezes)


def slice_(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A range of a dimension."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    at = argument(args, kwargs, 1, "dim", 0) % len(x.dims)
    size, new = x.dims[at].size, out.shape[at]
    watch.operator = "slice"
    if new == size:
        if len(args) > 3 and args[3] == size:
            _, stop = watch.bounds((args[2] or 0), size) or (None, None)
            watch.written_bound(stop, [x.dims[at]], [])
        same_label(watch, x, out)
        return out
    dims = list(x.dims)
    dims[at] = Fix(new, SPATIAL) if new == 0 or isinstance(norm(dims[at]), Fix) else _range(watch, dims[at], new, args)
    rearranged(watch, x, out, dims, range(len(dims)))
    return out


def _range(watch: Watch, term: Term, new: int, args: Args) -> Term:
    start = (args[2] if len(args) > 2 else 0) or 0
    step = args[4] if len(args) > 4 else 1
    if step != 1:
        watch.algebra.freeze(term)
        return Fix(new)
    bounds = watch.bounds(start, args[3] if len(args) > 3 and args[3] is not None else sys.maxsize)
    start = max(0, start + term.size if start < 0 else start)
    offsets = sorted({0, start, start + new, term.size})
    before = watch.algebra.refinements
    pieces = _pieces(watch, term, offsets)
    if bounds is not None:
        for bound, offset in zip(bounds, (start, start + new), strict=True):
            cut = offsets.index(offset)
            watch.written_bound(bound, pieces[:cut], pieces[cut:])
    elif not watch.given_numbers.isdisjoint({*offsets, *(term.size - o for o in offsets)} - {0, term.size}):
        for piece in pieces:
            watch.algebra.freeze(piece, f"a number in {watch.describe()}")
    elif watch.algebra.refinements != before:
        watch.ties += [(pieces[0], p) for p in pieces[1:] if p.size == pieces[0].size]
    return pieces[offsets.index(start)]


def pad(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Constant entries before and after."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    dims = list(x.dims)
    for i in range(len(args[1]) // 2):
        at = len(dims) - 1 - i
        before, after = args[1][2 * i : 2 * i + 2]
        if isinstance(norm(dims[at]), Fix):
            dims[at] = Fix(out.shape[at], SPATIAL)
        elif before < 0 or after < 0:
            watch.algebra.freeze(dims[at])
            dims[at] = Fix(out.shape[at])
        elif before or after:
            dims[at] = norm(Cat([Fix(before, "padding"), dims[at], Fix(after, "padding")]))
    value = rearranged(watch, x, out, dims, range(len(dims)))
    value.zero = x.zero and not argument(args, kwargs, 2, "value", 0)
    return out


def glu(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """One half gates the other."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    at = argument(args, kwargs, 1, "dim", -1) % len(x.dims)
    half = x.dims[at].size // 2
    left, right = _pieces(watch, x.dims[at], [0, half, 2 * half])
    watch.algebra.unify(left, right)
    dims = list(x.dims)
    dims[at] = left
    watch.put(out, dims, (x,), x.zero)
    return out


RULES: dict[str, Handler] = {
    "cat": cat,
    "stack": stack,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk"), split),
    "unbind": unbind,
    "select": select,
    "slice": slice_,
    "constant_pad_nd": pad,
    "glu": glu,
}
