"""Reading and writing by index tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coppice.methods.graph.rules.common import SPATIAL, Args, Kwargs, freeze_axes, rearranged, run, tensors
from coppice.methods.graph.terms import Fix, norm
from coppice.methods.graph.watch import Handler, Value, Watch


def _indexed(indices: Sequence[Tensor | None]) -> list[int]:
    """The dimensions that are indexed; a mask takes as many as it has."""
    used: list[int] = []
    position = 0
    for i in indices:
        width = i.dim() if i is not None and i.dtype in (torch.bool, torch.uint8) else 1
        used += [] if i is None else range(position, position + width)
        position += width
    return used


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
    freeze_axes(watch, x, used)
    order, _ = _index_order(x, used, len(out.shape))
    dims = [Fix(n, SPATIAL) if o is None else x.dims[o] for o, n in zip(order, out.shape, strict=True)]
    value = rearranged(watch, x, out, dims, order)
    for tensor in tensors(args[1]):
        value.deps |= watch.value(tensor).deps
        watch.uses(watch.value(tensor))
    return out


def index_put(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Write by index tensors: what is written holds the same units along the dimensions that are not indexed."""
    x = watch.value(args[0])
    used = _indexed(args[1])
    freeze_axes(watch, x, used)
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


RULES: dict[str, Handler] = {"index": index, "index_put": index_put}
