"""Operators that contract a dimension: matrix products, embeddings, attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import Args, Kwargs, argument, broadcast, fixed, linear_along, run
from coppice.methods.graph.source import scaled_by_size
from coppice.methods.graph.terms import Fix, Mul, held
from coppice.methods.graph.watch import Handler, Value, Watch


def contract(watch: Watch, left: Value, left_dim: int, right: Value, right_dim: int) -> None:
    """Unify the contracted dimensions and note the roles of the parameters on either side."""
    watch.algebra.unify(left.dims[left_dim], right.dims[right_dim])
    for value in (left, right):
        if value.sources:
            watch.uses(value)
    if left.sources and right.sources and any(len(v.dims) == 1 and watch.is_fixed(v) for v in (left, right)):
        return  # a weight times a vector that nothing trains: a norm by power iteration
    if left.sources and right.sources:
        watch.role(left, left_dim, "produce")
        watch.role(right, right_dim, "consume")
        return
    if not left.sources and not right.sources and not (left.live and right.live):
        watch.algebra.mark(left.dims[left_dim], "reduced")
        return
    if not left.sources and not right.sources:
        watch.algebra.mark(left.dims[left_dim], "attention_scale")
        watch.scores.append((left.dims[left_dim], left, right, scaled_by_size()))
        return
    weight, dim, other = (left, left_dim, right) if left.sources else (right, right_dim, left)
    for position in range(len(weight.dims)):
        watch.role(weight, position, "consume" if position == dim else "produce")
    if not other.zero:
        watch.algebra.mark(weight.dims[dim], "offset")
    if not weight.zero:
        watch.algebra.mark(weight.dims[dim], "reduced")


def product(watch: Watch, sides: tuple[Value, Value], out: Tensor, kept: tuple[list[int], list[int]]) -> Value:
    """Label a product; `kept` says which dimensions of each side the result's dimensions come from (-1: none)."""
    left, right = sides
    dims = [left.dims[a] if a >= 0 else right.dims[b] for a, b in zip(*kept, strict=True)]
    weights = [v for v in (left, right) if v.sources]
    value = watch.put(out, dims, (left, right), all(v.zero for v in weights) if weights else left.zero or right.zero)
    linear_along((left, right), value, factors=True)
    if left.sources and right.sources:
        value.sources = tuple(
            (name, tuple(mapping[d] if d >= 0 else () for d in positions))
            for side, positions in ((left, kept[0]), (right, kept[1]))
            for name, mapping in side.sources
        )
    return value


def add_bias(watch: Watch, value: Value, bias: Value, out: Tensor) -> None:
    """Add a bias (or any tensor) to a product that was just labelled."""
    watch.uses(bias)
    for position in range(len(bias.dims)):
        watch.role(bias, position, "bias")
    dims = broadcast(watch, [value, bias], out.shape)
    total = watch.put(out, dims, (value, bias), value.zero and bias.zero)
    linear_along((value, bias), total)
    total.sources = value.sources if bias.sources else ()
    if not bias.sources and len(bias.dims) == len(dims):
        total.adds |= bias.adds
        watch.added(value, bias)


def mm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """[i, k] x [k, j]."""
    out = run(watch, func, args, kwargs)
    left, right = watch.value(args[0]), watch.value(args[1])
    contract(watch, left, 1, right, 0)
    product(watch, (left, right), out, ([0, -1], [-1, 1]))
    return out


def addmm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Bias + [i, k] x [k, j]."""
    watch.operator = "addmm"
    left, right = watch.value(args[1]), watch.value(args[2])
    shape = (left.dims[0].size, right.dims[1].size)
    out = watch.empty(shape, args[1]) if watch.meta else func(*args, **kwargs)
    contract(watch, left, 1, right, 0)
    value = product(watch, (left, right), out, ([0, -1], [-1, 1]))
    add_bias(watch, value, watch.value(args[0]), out)
    return out


def mv(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """[i, k] x [k]."""
    out = run(watch, func, args, kwargs)
    left, right = watch.value(args[0]), watch.value(args[1])
    contract(watch, left, 1, right, 0)
    product(watch, (left, right), out, ([0], [-1]))
    return out


def dot(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Inner product of two vectors: (K), (K) -> ()."""
    out = run(watch, func, args, kwargs)
    left, right = watch.value(args[0]), watch.value(args[1])
    contract(watch, left, 0, right, 0)
    product(watch, (left, right), out, ([], []))
    return out


def _bmm(watch: Watch, left: Value, right: Value, out: Tensor) -> Value:
    watch.algebra.unify(left.dims[0], right.dims[0])
    contract(watch, left, 2, right, 1)
    if not left.sources and not right.sources:
        watch.algebra.mark(left.dims[0], "heads")
    return product(watch, (left, right), out, ([0, 1, -1], [0, -1, 2]))


def bmm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """[b, i, k] x [b, k, j]."""
    watch.operator = "bmm"
    shape = (*args[0].shape[:2], args[1].shape[2])
    out = watch.empty(shape, args[0]) if watch.meta else func(*args, **kwargs)
    _bmm(watch, watch.value(args[0]), watch.value(args[1]), out)
    return out


def baddbmm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Bias + [b, i, k] x [b, k, j]."""
    bias = watch.value(args[0])
    out = run(watch, func, args, kwargs)
    value = _bmm(watch, watch.value(args[1]), watch.value(args[2]), out)
    add_bias(watch, value, bias, out)
    return out


def linear(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """[..., k] x [j, k]."""
    out = run(watch, func, args, kwargs)
    x, weight = watch.value(args[0]), watch.value(args[1])
    contract(watch, x, len(x.dims) - 1, weight, 1)
    rank = len(x.dims)
    kept = ([*range(rank - 1), -1], [-1] * (rank - 1) + [0])
    value = product(watch, (x, weight), out, kept)
    bias = argument(args, kwargs, 2, "bias")
    if bias is not None:
        add_bias(watch, value, watch.value(bias), out)
    return out


def embedding(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rows of a table."""
    out = run(watch, func, args, kwargs)
    weight, index = watch.value(args[0]), watch.value(args[1])
    watch.uses(weight)
    watch.algebra.freeze(weight.dims[0], "rows of an embedding are looked up by number")
    watch.role(weight, 1, "produce")
    watch.put(out, [*index.dims, weight.dims[1]], (weight, index), True).even = held(weight.dims[1:])
    return out


def attention(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Fused scaled dot product attention, with as many or fewer key-value heads."""
    out = run(watch, func, args, kwargs)
    query, key, value = (watch.value(t) for t in args[:3])
    algebra = watch.algebra
    algebra.unify(query.dims[-1], key.dims[-1])
    algebra.unify(key.dims[-2], value.dims[-2])
    for q, k, v in zip(query.dims[:-2], key.dims[:-2], value.dims[:-2], strict=True):
        algebra.unify(k, v)
        algebra.unify(q, k if q.size == k.size else Mul([k, Fix(q.size // k.size)]))
        algebra.mark(q, "heads")
    algebra.mark(query.dims[-1], "attention_scale")
    watch.scores.append((query.dims[-1], query, key, scaled_by_size()))
    first = out[0] if isinstance(out, (tuple, list)) else out
    watch.put(first, [*query.dims[:-1], value.dims[-1]], (query, key, value), value.zero)
    for extra in out[1:] if isinstance(out, (tuple, list)) else ():
        if isinstance(extra, Tensor):
            watch.put(extra, fixed(extra.shape), (query, key, value))
    return out


RULES: dict[str, Handler] = {
    "mm": mm,
    "addmm": addmm,
    "mv": mv,
    "dot": dot,
    "vdot": dot,
    "bmm": bmm,
    "baddbmm": baddbmm,
    "linear": linear,
    "embedding": embedding,
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        attention,
    ),
}

