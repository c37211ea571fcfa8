"""Less common operators that contract a dimension: bags of embeddings, distances, bilinear forms, sparse and grouped products."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import Args, Kwargs, argument, broadcast, fixed, run, tensors
from coppice.methods.graph.rules.contraction import add_bias, contract, product
from coppice.methods.graph.terms import MULTIPLE, Fix, Term, norm
from coppice.methods.graph.watch import Handler, Value, Watch


def embedding_bag(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Sums, means or maxima of rows of a table: (rows, D), numbers -> (bags, D)."""
    out = run(watch, func, args, kwargs)
    weight, index = watch.value(args[0]), watch.value(args[1])
    watch.uses(weight)
    watch.algebra.freeze(weight.dims[0], "rows of an embedding are looked up by number")
    watch.role(weight, 1, "produce")
    inputs = [weight, index, *(watch.value(t) for t in tensors(args[2:]))]
    for value in inputs[2:]:
        watch.uses(value)
    first, *others = tensors(out)
    watch.put(first, [*fixed(first.shape[:1]), weight.dims[1]], inputs, True)
    for extra in others:
        watch.put(extra, fixed(extra.shape), inputs)
    return out


def distance(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Distances between rows: (..., P, M), (..., R, M) -> (..., P, R)."""
    out = run(watch, func, args, kwargs)
    left, right = watch.value(args[0]), watch.value(args[1])
    for value in (left, right):
        watch.uses(value)
    watch.algebra.unify(left.dims[-1], right.dims[-1])
    watch.algebra.mark(left.dims[-1], "reduced")
    outer = [Value(v.tensor, v.dims[:-2], 0) for v in (left, right)]
    batch = broadcast(watch, outer, out.shape[:-2])
    value = watch.put(out, [*batch, left.dims[-2], right.dims[-2]], (left, right))
    if not out.dim():
        value.dims = []
    return out


def pair_distance(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Distances between all pairs of rows of one matrix: the rows are told apart by number, the columns are reduced."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    watch.algebra.freeze(x.dims[0])
    watch.algebra.mark(x.dims[1], "reduced")
    watch.put(out, fixed(out.shape), (x,))
    return out


def trilinear(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """`sum_d a * b * c` over some dimensions of three tensors that are first given dimensions of size one."""
    out = run(watch, func, args, kwargs)
    values = [watch.value(t) for t in args[:3]]
    rank = len(values[0].dims) + len(args[3])
    gone = {d % rank for d in args[6]}
    aligned: list[list[Term | None]] = []
    for value, new in zip(values, args[3:6], strict=True):
        rest = iter(value.dims)
        aligned.append([None if i in {d % rank for d in new} else next(rest) for i in range(rank)])
    dims = [_together(watch, [a[i] for a in aligned]) for i in range(rank)]
    for value, mine in zip(values, aligned, strict=True):
        watch.uses(value)
        held = [i for i, dim in enumerate(mine) if dim is not None]
        for position, i in enumerate(held):
            watch.role(value, position, "consume" if i in gone else "produce")
        for i in gone.intersection(held) if not value.sources else ():
            watch.algebra.mark(dims[i], "offset" if not value.zero else "used")
    watch.put(out, [d for i, d in enumerate(dims) if i not in gone], values, any(v.sources or v.zero for v in values))
    return out


def _together(watch: Watch, parts: list[Term | None]) -> Term:
    """One dimension of a product that broadcasts."""
    held = [p for p in parts if p is not None]
    first = max(held, key=lambda p: p.size)
    for part in held:
        if part.size == first.size:
            watch.algebra.unify(first, part)
        elif not isinstance(norm(part), Fix):
            watch.algebra.freeze(part, f"broadcast in {watch.describe()}")
    return first


def grouped_mm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Products of groups of rows with a matrix for each group, as mixtures of experts have them.

    (T, K) x (G, K, N) -> (T, N); (G, M, K) x (G, K, N) -> (G, M, N); (G, M, K) x (K, T) -> (M, T); (M, T) x (T, N) -> (G, M, N).
    Groups are told apart by their number: they do not change. Rows must lie at multiples of 16 bytes.
    """
    out = run(watch, func, args, kwargs)
    left, right = watch.value(args[0]), watch.value(args[1])
    ranks = len(left.dims), len(right.dims)
    for value in (left, right):
        if len(value.dims) == 3:
            watch.algebra.freeze(value.dims[0], f"groups of rows in {watch.describe()}")
    contract(watch, left, ranks[0] - 1, right, ranks[1] - 2)
    for tensor, value in ((args[0], left), (args[1], right)):
        for at in (-1, -2):
            if tensor.stride()[at] == 1:
                watch.algebra.mark(value.dims[at], f"{MULTIPLE}{max(1, 16 // tensor.element_size())}")
                break
    if ranks == (2, 2):
        watch.algebra.freeze(left.dims[1])
        watch.put(out, [*fixed(out.shape[:1]), left.dims[0], right.dims[1]], (left, right))
        return out
    kept = {
        (2, 3): ([0, -1], [-1, 2]),
        (3, 3): ([0, 1, -1], [-1, -1, 2]),
        (3, 2): ([1, -1], [-1, 1]),
    }[ranks]
    value = product(watch, (left, right), out, kept)
    bias = argument(args, kwargs, 3, "bias")
    if isinstance(bias, Tensor):
        add_bias(watch, value, watch.value(bias), out)
    return out


def sparse_addmm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A bias plus a sparse matrix times a dense one: (I, K) x (K, J) -> (I, J)."""
    out = run(watch, func, args, kwargs)
    left, right = watch.value(args[1]), watch.value(args[2])
    contract(watch, left, 1, right, 0)
    value = product(watch, (left, right), out, ([0, -1], [-1, 1]))
    add_bias(watch, value, watch.value(args[0]), out)
    return out


RULES: dict[str, Handler] = {
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), embedding_bag),
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist"), distance),
    "_pdist_forward": pair_distance,
    "_trilinear": trilinear,
    **dict.fromkeys(("_grouped_mm", "grouped_mm", "grouped_mm_fallback"), grouped_mm),
    **dict.fromkeys(("_sparse_addmm", "sparse_addmm"), sparse_addmm),
}
