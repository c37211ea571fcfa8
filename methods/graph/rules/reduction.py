"""Reductions, pooling and other operators that leave out or resample a dimension."""

from __future__ import annotations

from typing import Any

import torch

from coppice.methods.graph.rules.common import SPATIAL, Args, Kwargs, argument, fixed, run, tensors
from coppice.methods.graph.terms import ONE, Fix, Term, norm
from coppice.methods.graph.watch import Handler, Watch


def reduce(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Mean, sum, maximum, norm ... over some dimensions."""
    name = func._overloadpacket.__name__
    position = 2 if name == "linalg_vector_norm" else 1
    x = watch.value(args[0])
    rank = len(x.dims)
    dims = argument(args, kwargs, position, "dim")
    keep = bool(argument(args, kwargs, position + 1, "keepdim", False))
    if isinstance(dims, bool) or dims is None or dims == []:
        dims = range(rank)
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)} if rank else set()
    out = _pooled(watch, args[0], gone, keep) if watch.meta and name == "mean" and not kwargs.get("dtype") else None
    if out is None:
        out = run(watch, func, args, kwargs)
    watch.operator = name
    squares = x.squares if name == "mean" and x.squares and x.squares[0] == "square" else None
    for dim in sorted(gone):
        term = norm(x.dims[dim])
        if isinstance(term, Fix):
            continue
        if squares:
            watch.pending[squares[1]] = term
        else:
            watch.algebra.mark(term, "reduced")
    zero = x.zero and name not in ("logsumexp", "all")
    kept: list[Term] = [ONE if i in gone else d for i, d in enumerate(x.dims) if keep or i not in gone]
    for tensor in tensors(out):
        value = watch.put(tensor, kept if tensor.dim() == len(kept) else fixed(tensor.shape), (x,), zero)
        value.even = x.even if name in ("mean", "sum") else frozenset()
        if squares:
            value.squares = ("mean", squares[1])
    return out


def _pooled(watch: Watch, tensor: torch.Tensor, gone: set[int], keep: bool) -> torch.Tensor:
    return watch.empty([1 if i in gone else n for i, n in enumerate(tensor.shape) if keep or i not in gone], tensor)


def spatial(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Pooling, resampling and border padding: the last dimensions are space or time."""
    out = run(watch, func, args, kwargs)
    name = watch.operator
    rank = next(int(c) for c in reversed(name.replace("_with_indices", "")) if c.isdigit())
    if not name[-1].isdigit() and "d" not in name:
        rank = len(args[0].shape) - 2
    x = watch.value(args[0])
    apart = _windows_of_one(args, rank) if "avg_pool" in name and "adaptive" not in name else [False] * rank
    last: list[Term] = []
    for dim, size, alone in zip(x.dims[-rank:], next(tensors(out)).shape[-rank:], apart, strict=True):
        if not alone and not isinstance(norm(dim), Fix):
            watch.algebra.freeze(dim)
        last.append(dim if alone else Fix(size, SPATIAL))
    for tensor in tensors(out):
        value = watch.put(tensor, [*x.dims[:-rank], *last], (x,), x.zero)
        value.even = x.even if "max" not in name else frozenset()
    return out


def _windows_of_one(args: Args, rank: int) -> list[bool]:
    """Along which dimensions a window of an average holds one entry, and each entry is in one window."""
    kernel, stride, padding = ([*(args[i] if len(args) > i else default)] for i, default in ((1, ()), (2, args[1]), (3, (0,))))
    wide = [list(given) * (rank if len(given) == 1 else 1) for given in (kernel, stride or kernel, padding)]
    return [pair == (1, 1, 0) for pair in zip(*wide, strict=True)]


def max_pool2d(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Maximum over windows of the last two dimensions."""
    kernel, stride = args[1], (args[2] if len(args) > 2 and args[2] else args[1])
    padding = args[3] if len(args) > 3 else [0, 0]
    dilation, ceil = (args[4] if len(args) > 4 else [1, 1]), len(args) > 5 and args[5]
    if not watch.meta or ceil or min(map(len, (kernel, stride, padding, dilation))) < 2:
        return spatial(watch, func, args, kwargs)
    watch.operator = "max_pool2d"
    size = args[0].shape
    plane = [(size[i - 2] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    x = watch.value(args[0])
    for dim in x.dims[-2:]:
        if type(dim) is not Fix:
            watch.algebra.freeze(dim)
    outputs = tuple(watch.empty((*size[:-2], *plane), args[0]) for _ in range(2))
    for tensor in outputs:
        watch.put(tensor, [*x.dims[:-2], *fixed(plane)], (x,), x.zero)
    return outputs


def ranked(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Sorting and arg-maximum: units are told apart by number or order."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    position = 2 if watch.operator in ("topk", "kthvalue") else 1
    dim = argument(args, kwargs, position, "dim", -1)
    axes = range(len(x.dims)) if dim is None else [dim % max(len(x.dims), 1)]
    for axis in axes:
        if x.dims and not isinstance(norm(x.dims[axis]), Fix):
            watch.algebra.freeze(x.dims[axis])
    for tensor in tensors(out):
        same = tensor.dim() == len(x.dims)
        dims = [Fix(n) if i in axes else d for i, (d, n) in enumerate(zip(x.dims, tensor.shape, strict=True))] if same else None
        watch.put(tensor, dims or fixed(tensor.shape), (x,))
    return out


def renormed(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rows of a table are scaled down, in place, to a largest norm, which sees all of their units."""
    x = watch.value(args[0])
    watch.uses(x)
    for dim in x.dims[1:]:
        watch.algebra.mark(dim, "reduced")
    return run(watch, func, args, kwargs)


_REDUCTIONS = (
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "logsumexp", "prod",
    "linalg_vector_norm", "all", "any", "nansum", "aminmax", "count_nonzero",
)  # fmt: skip
_SPATIAL = tuple(
    name.format(d)
    for d in (1, 2, 3)
    for name in (
        "max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_avg_pool{}d", "_adaptive_avg_pool{}d",
        "adaptive_max_pool{}d", "upsample_nearest{}d", "_upsample_nearest_exact{}d", "reflection_pad{}d", "replication_pad{}d",
        "fractional_max_pool{}d",
    )
)  # fmt: skip
_RESAMPLING = (
    "upsample_linear1d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "upsample_trilinear3d",
    "_upsample_bicubic2d_aa",
)  # fmt: skip

RULES: dict[str, Handler] = {
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys((*_SPATIAL, *_RESAMPLING), spatial),
    "max_pool2d_with_indices": max_pool2d,
    "embedding_renorm": renormed,
    **dict.fromkeys(("topk", "sort", "argmax", "argmin", "argsort", "kthvalue", "median", "mode"), ranked),
}
