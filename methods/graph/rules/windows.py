"""Windows and grids over space or time: unfolding, folding, sampling at points, Fourier transforms."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import (
    SPATIAL,
    Args,
    Kwargs,
    argument,
    fixed,
    freeze_axes,
    rearranged,
    rebuilt,
    run,
    tensors,
)
from coppice.methods.graph.source import called
from coppice.methods.graph.terms import Fix, Mul, Term, norm
from coppice.methods.graph.watch import Handler, Watch


def im2col(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Windows of an image as columns: (N, C, H, W) -> (N, C * window, positions)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    freeze_axes(watch, x, (-2, -1))
    window = Fix(math.prod(args[1]), "positions in a window")
    dims = [*x.dims[:-3], norm(Mul([x.dims[-3], window])), *fixed(out.shape[-1:])]
    watch.put(out, dims, (x,), x.zero)
    return out


def col2im(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Sum columns back into an image: (N, C * window, positions) -> (N, C, H, W)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    freeze_axes(watch, x, (-1,))
    parts = watch.algebra.reshape([x.dims[-2]], [out.shape[-3], math.prod(args[2])])
    watch.algebra.freeze(parts[1], "positions in a window")
    watch.put(out, [*x.dims[:-2], parts[0], *fixed(out.shape[-2:])], (x,), x.zero)
    return out


def unfold(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Windows along one dimension, as a new last dimension."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    at = args[1] % max(len(x.dims), 1)
    freeze_axes(watch, x, [at] if x.dims else [])
    dims: list[Term] = [Fix(out.shape[i], SPATIAL) if i == at else d for i, d in enumerate(x.dims)]
    order: list[int | None] = [None if i == at else i for i in range(len(x.dims))]
    rearranged(watch, x, out, [*dims, *fixed(out.shape[len(dims) :])], [*order, *[None] * (len(out.shape) - len(dims))])
    return out


def sampled(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Values of an image at the points of a grid: (N, C, ...), (N, ..., points) -> (N, C, ...)."""
    out = run(watch, func, args, kwargs)
    x, grid = watch.value(args[0]), watch.value(args[1])
    watch.algebra.unify(x.dims[0], grid.dims[0])
    freeze_axes(watch, x, range(2, len(x.dims)))
    freeze_axes(watch, grid, range(1, len(grid.dims)))
    watch.uses(x)
    watch.uses(grid)
    watch.put(out, [*x.dims[:2], *fixed(out.shape[2:])], (x, grid), x.zero)
    return out


def regions(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Windows of fixed size at boxes: (N, C, H, W), (K, 5) -> (K, C, h, w)."""
    out = run(watch, func, args, kwargs)
    x, boxes = watch.value(args[0]), watch.value(args[1])
    freeze_axes(watch, x, (0, 2, 3))
    freeze_axes(watch, boxes, range(len(boxes.dims)))
    for tensor in tensors(out):
        dims = [*fixed(tensor.shape[:1]), x.dims[1], *fixed(tensor.shape[2:])]
        watch.put(tensor, dims if len(dims) == tensor.dim() else fixed(tensor.shape), (x, boxes), x.zero)
    return out


def grid_of(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The grid of an affine map: its sizes are those of an image and of space."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    freeze_axes(watch, x, range(1, len(x.dims)))
    watch.uses(x)
    watch.put(out, [x.dims[0], *fixed(out.shape[1:])], (x,))
    return out


def unpool(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Put values back to where their maximum was."""
    out = run(watch, func, args, kwargs)
    x, indices = watch.value(args[0]), watch.value(args[1])
    rank = 2 if "2d" in watch.operator else 3
    for dim, mine in zip(x.dims, indices.dims, strict=True):
        watch.algebra.unify(dim, mine)
    freeze_axes(watch, x, range(-rank, 0))
    watch.put(out, [*x.dims[:-rank], *fixed(out.shape[-rank:])], (x, indices), x.zero)
    return out


def fourier(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Fourier transforms mix all entries along their dimensions; the others stay."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    watch.uses(x)
    rebuilt(watch, x, out, args[1], "frequencies or times of a Fourier transform")
    return out


def as_pairs(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Complex numbers as pairs of real ones in a new last dimension, or back."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    order: list[int | None] = list(range(len(x.dims)))
    if out.dim() > len(x.dims):
        rearranged(watch, x, out, [*x.dims, Fix(2, "real and imaginary part")], [*order, None])
    else:
        freeze_axes(watch, x, (-1,))
        rearranged(watch, x, out, x.dims[:-1], order[:-1])
    return out


def as_strided(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Another order of the same dimensions where torch itself calls it and the strides say so; else nothing is known."""
    out = run(watch, func, args, kwargs)
    tensor: Tensor = args[0]
    x = watch.value(tensor)
    same_start = argument(args, kwargs, 3, "storage_offset") in (None, tensor.storage_offset())
    order = _same_strides(tensor, out) if same_start and called() != "as_strided" else None
    if order is None:
        freeze_axes(watch, x, range(len(x.dims)))
        watch.put(out, fixed(out.shape, f"memory read in steps by {watch.describe()}"), (x,), x.zero)
        return out
    freeze_axes(watch, x, set(range(len(x.dims))) - set(order))
    dims: list[Term] = [Fix(n, SPATIAL) if i is None else x.dims[i] for i, n in zip(order, out.shape, strict=True)]
    rearranged(watch, x, out, dims, order)
    return out


def _same_strides(old: Tensor, new: Tensor) -> list[int | None] | None:
    """For each dimension of `new`, that of `old` with its size and stride.

    None for one that reads windows of a single further dimension of `old`; no list at all where that is not all there is.
    """
    left = {i: (n, s) for i, (n, s) in enumerate(zip(old.shape, old.stride(), strict=True)) if n != 1}
    if len(set(left.values())) != len(left) or any(s == 0 for _, s in left.values()):
        return None
    order: list[int | None] = []
    rest: list[tuple[int, int]] = []
    for pair in zip(new.shape, new.stride(), strict=True):
        match = next((i for i, known in left.items() if known == pair), None)
        order.append(match)
        if match is not None:
            del left[match]
        elif pair[0] != 1:
            rest.append(pair)
    size, stride = next(iter(left.values()), (1, 1))
    reach = sum((n - 1) * s for n, s in rest)
    inside = len(left) <= 1 and reach <= (size - 1) * stride and all(s % stride == 0 for _, s in rest)
    return order if inside else None


RULES: dict[str, Handler] = {
    "im2col": im2col,
    "col2im": col2im,
    "unfold": unfold,
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler", "_grid_sampler_2d_cpu_fallback"), sampled),
    "affine_grid_generator": grid_of,
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), unpool),
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), fourier),
    **dict.fromkeys(("view_as_real", "view_as_complex"), as_pairs),
    "as_strided": as_strided,
    **dict.fromkeys(("roi_align", "roi_pool"), regions),
}
