"""Operators that rearrange: views, permutations, cutting and joining."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from methods.graph.mode import Handler, Source, Value, Watch
from methods.graph.rules.common import SPATIAL, Args, Kwargs, argument, fixed, freeze_all, run, same_label, tensors
from methods.graph.source import sizes_follow
from methods.graph.unify import ONE, Cat, Fix, Mul, Term, Var, norm

Mapping = tuple[tuple[int, ...], ...]


def _rearranged(watch: Watch, x: Value, out: Tensor, dims: Sequence[Term], order: Sequence[int | None]) -> Value:
    """Label a tensor whose dimension i is dimension `order[i]` of `x` (None: a new one)."""
    value = watch.put(out, dims, (x,), x.zero)
    value.squares = x.squares
    if x.sources:
        value.sources = tuple((n, tuple(() if i is None else m[i] for i in order)) for n, m in x.sources)
    return value


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


def view(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Row-major reshape."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    shape = list(out.shape)
    if 0 in shape:
        return out
    dims = watch.algebra.reshape(x.dims, shape)
    watch.written_sizes(dims, shape)
    value = watch.put(out, dims, (x,), x.zero)
    value.squares = x.squares
    if shape == list(args[0].shape):
        value.adds |= x.adds
    if x.sources:
        value.sources = tuple((n, _view_mapping(args[0].shape, shape, m)) for n, m in x.sources)
    return out


def transpose_2d(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Matrix transpose."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    order = list(range(len(x.dims)))[::-1]
    _rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def transpose(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Swap two dimensions."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    order = list(range(len(x.dims)))
    order[args[1]], order[args[2]] = order[args[2]], order[args[1]]
    _rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def permute(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Reorder dimensions."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    order = [d % len(x.dims) for d in args[1]]
    _rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def unsqueeze(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A new dimension of size one."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    at = args[1] % (len(x.dims) + 1)
    order: list[int | None] = list(range(len(x.dims)))
    order.insert(at, None)
    _rearranged(watch, x, out, [ONE if i is None else x.dims[i] for i in order], order)
    return out


def squeeze(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Leave out dimensions of size one."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    rank = len(x.dims)
    which = argument(args, kwargs, 1, "dim")
    asked = range(rank) if which is None else [d % rank for d in ([which] if isinstance(which, int) else which)]
    order = [i for i in range(rank) if not (i in asked and x.dims[i].size == 1)]
    for i in set(range(rank)) - set(order):
        watch.algebra.freeze(x.dims[i])
    _rearranged(watch, x, out, [x.dims[i] for i in order], order)
    return out


def expand(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Repeat dimensions of size one without copying."""
    out = func(*args, **kwargs)
    watch.operator = "expand"
    x = watch.value(args[0])
    shape = out.shape
    new = len(shape) - len(x.dims)
    dims: list[Term] = fixed(shape[:new])
    order: list[int | None] = [None] * new
    for i, dim in enumerate(x.dims):
        if dim.size == shape[new + i]:
            dims.append(dim)
            order.append(i)
            continue
        if not isinstance(norm(dim), Fix):
            watch.algebra.freeze(dim)
        dims.append(Var(shape[new + i]) if sizes_follow() else Fix(shape[new + i], SPATIAL))
        order.append(None)
    watch.written_sizes(dims, shape)
    value = _rearranged(watch, x, out, dims, order)
    if not new and list(args[0].shape) == list(shape):
        value.adds |= x.adds
    return out


def repeat(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Copies one after the other along each dimension."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    new = len(args[1]) - len(x.dims)
    old: list[Term] = [*[ONE] * new, *x.dims]
    dims = [norm(Mul([Fix(r), d])) for r, d in zip(args[1], old, strict=True)]
    _rearranged(watch, x, out, dims, [None] * new + list(range(len(x.dims))))
    return out


def repeat_interleave(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Copies of each entry beside it."""
    dim = argument(args, kwargs, 2, "dim")
    if not isinstance(args[1], int) or dim is None:
        return freeze_all(watch, func, args, kwargs)
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    dims = list(x.dims)
    dims[dim] = norm(Mul([dims[dim], Fix(args[1])]))
    _rearranged(watch, x, out, dims, range(len(dims)))
    return out


def cat(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Concatenate along a dimension."""
    out = run(watch, func, args, kwargs)
    inputs = [watch.value(t) for t in args[0] if not (t.dim() == 1 and t.numel() == 0)]
    if not inputs:
        watch.put(out, fixed(out.shape))
        return out
    at = argument(args, kwargs, 1, "dim", 0) % len(inputs[0].dims)
    dims: list[Term] = list(inputs[0].dims)
    for value in inputs[1:]:
        for i, dim in enumerate(value.dims):
            if i != at:
                watch.algebra.unify(dims[i], dim)
    dims[at] = norm(Cat([v.dims[at] for v in inputs]))
    _joined(watch, out, inputs, dims, None)
    return out


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
        _rearranged(watch, x, tensor, dims, range(len(dims)))
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
    if not isinstance(norm(x.dims[at]), Fix):
        watch.algebra.freeze(x.dims[at])
    order = [i for i in range(len(x.dims)) if i != at]
    for tensor in outputs:
        _rearranged(watch, x, tensor, [x.dims[i] for i in order], order)


def slice_(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A range of a dimension."""
    out = func(*args, **kwargs)
    x = watch.value(args[0])
    at = argument(args, kwargs, 1, "dim", 0) % len(x.dims)
    size, new = x.dims[at].size, out.shape[at]
    watch.operator = "slice"
    if new == size:
        if len(args) > 3 and args[3] == size and not isinstance(norm(x.dims[at]), Fix) and watch.written_bounds({size}):
            watch.algebra.freeze(x.dims[at], f"a number in {watch.describe()}")
        same_label(watch, x, out)
        return out
    dims = list(x.dims)
    dims[at] = Fix(new, SPATIAL) if isinstance(norm(dims[at]), Fix) else _range(watch, dims[at], new, args)
    _rearranged(watch, x, out, dims, range(len(dims)))
    return out


def _range(watch: Watch, term: Term, new: int, args: Args) -> Term:
    start = (args[2] if len(args) > 2 else 0) or 0
    step = args[4] if len(args) > 4 else 1
    if step != 1:
        watch.algebra.freeze(term)
        return Fix(new)
    start = max(0, start + term.size if start < 0 else start)
    offsets = sorted({0, start, start + new, term.size})
    before = watch.algebra.refinements
    pieces = _pieces(watch, term, offsets)
    if watch.written_bounds({*offsets, *(term.size - o for o in offsets)} - {0, term.size}):
        for piece in pieces:
            watch.algebra.freeze(piece, f"a number in {watch.describe()}")
    if watch.algebra.refinements != before:
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
    value = _rearranged(watch, x, out, dims, range(len(dims)))
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


def pixel_shuffle(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Channels become pixels."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    channels = out.shape[-3]
    parts = watch.algebra.reshape([x.dims[-3]], [channels, args[1] ** 2])
    watch.algebra.freeze(parts[1], "pixels of a pixel shuffle")
    watch.put(out, [*x.dims[:-3], parts[0], *fixed(out.shape[-2:])], (x,), x.zero)
    return out


def pixel_unshuffle(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Pixels become channels."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    watch.put(out, [*x.dims[:-3], norm(Mul([x.dims[-3], Fix(args[1] ** 2)])), *fixed(out.shape[-2:])], (x,), x.zero)
    return out


def moved(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rolls and flips: the order of units changes along some dimensions."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    axes = argument(args, kwargs, 1 if watch.operator == "flip" else 2, "dims", ()) or range(len(x.dims))
    _freeze_axes(watch, x, axes)
    _rearranged(watch, x, out, x.dims, range(len(x.dims)))
    return out


def _indexed(indices: Sequence[Tensor | None]) -> list[int]:
    """The dimensions that are indexed; a mask takes as many as it has."""
    used: list[int] = []
    position = 0
    for i in indices:
        width = i.dim() if i is not None and i.dtype in (torch.bool, torch.uint8) else 1
        used += [] if i is None else range(position, position + width)
        position += width
    return used


def _freeze_axes(watch: Watch, x: Value, axes: Iterable[int]) -> None:
    for axis in axes:
        if not isinstance(norm(x.dims[axis]), Fix):
            watch.algebra.freeze(x.dims[axis])


def _index_order(x: Value, used: Sequence[int], rank: int) -> tuple[list[int | None], int]:
    """Where the dimensions of an indexed tensor come from (None: from the indices), and how many are from the indices."""
    left = [i for i in range(len(x.dims)) if i not in used]
    new = rank - len(left)
    adjacent = list(used) == list(range(used[0], used[-1] + 1))
    at = used[0] if adjacent else 0
    return [*left[:at], *[None] * new, *left[at:]], new


def index(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Gather by index tensors: the indexed dimensions are frozen, the others stay."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    used = _indexed(args[1])
    _freeze_axes(watch, x, used)
    order, _ = _index_order(x, used, len(out.shape))
    dims = [Fix(n, SPATIAL) if o is None else x.dims[o] for o, n in zip(order, out.shape, strict=True)]
    value = _rearranged(watch, x, out, dims, order)
    for tensor in tensors(args[1]):
        value.deps |= watch.value(tensor).deps
        watch.uses(watch.value(tensor))
    return out


def index_put(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Write by index tensors: what is written holds the same units along the dimensions that are not indexed."""
    x = watch.value(args[0])
    used = _indexed(args[1])
    _freeze_axes(watch, x, used)
    out = run(watch, func, args, kwargs)
    written = watch.value(args[2])
    order, new = _index_order(x, used, max(len(written.dims), len(x.dims) - len(used)))
    shape = [1 if o is None else x.dims[o].size for o in order]
    for dim, o, size in zip(reversed(written.dims), reversed(order), reversed(shape), strict=False):
        if o is not None and dim.size == size:
            watch.algebra.unify(dim, x.dims[o])
        elif not isinstance(norm(dim), Fix):
            watch.algebra.freeze(dim)
    if new < 0:
        for dim in (*written.dims, *x.dims):
            watch.algebra.freeze(dim)
    watch.put(out, x.dims, [x, written, *(watch.value(t) for t in tensors(args[1]))], x.zero and written.zero)
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
    "cat": cat,
    "stack": stack,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk"), split),
    "unbind": unbind,
    "select": select,
    "slice": slice_,
    "constant_pad_nd": pad,
    "glu": glu,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "roll": moved,
    "flip": moved,
    "index": index,
    "index_put": index_put,
}
IN_PLACE = frozenset(("t", "transpose", "squeeze", "unsqueeze", "index_put"))
"""Rules that also hold for the in-place form."""
