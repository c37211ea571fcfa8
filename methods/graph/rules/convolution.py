"""Convolutions of any rank, transposed, grouped or depthwise."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import Args, Kwargs, fixed
from coppice.methods.graph.terms import ONE, Fix, Mul, Term, Var, held, norm
from coppice.methods.graph.watch import Handler, Value, Watch


def _conv_shape(x: Tensor, weight: Tensor, args: Args) -> list[int]:
    stride, padding, dilation, transposed, extra, groups = args[3:9]
    rank = weight.dim() - 2
    size, kernel = x.shape, weight.shape
    out = [size[0], kernel[1] * groups if transposed else kernel[0]]
    for i in range(rank):
        s = stride[i] if len(stride) > 1 else stride[0]
        p = padding[i] if len(padding) > 1 else padding[0]
        span = (dilation[i] if len(dilation) > 1 else dilation[0]) * (kernel[2 + i] - 1)
        if transposed:
            out.append((size[2 + i] - 1) * s - 2 * p + span + (extra[i] if len(extra) > 1 else extra[0]) + 1)
        else:
            out.append((size[2 + i] + 2 * p - span - 1) // s + 1)
    return out


def convolution(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Convolution of any rank, transposed, grouped or depthwise."""
    watch.operator = "convolution"
    x, weight = watch.value(args[0]), watch.value(args[1])
    rank = len(weight.dims) - 2
    if watch.meta and len(x.dims) == rank + 2:
        shape = _conv_shape(args[0], args[1], args)
        if min(shape) < 1:
            func(*args, **kwargs)
        out = watch.empty(shape, args[0])
    else:
        out = func(*args, **kwargs)
    channels = _convolve(watch, x, weight, args[8], args[6])
    dims = [x.dims[0], channels, *fixed(out.shape[2:])]
    value = watch.put(out, dims, (x, weight), True)
    value.even = held([channels]) if args[8] == 1 else frozenset()
    if args[2] is not None:
        bias = watch.value(args[2])
        watch.uses(bias)
        watch.algebra.unify(bias.dims[0], channels)
        watch.role(bias, 0, "bias")
        value.deps |= bias.deps | bias.bit
    return out


def _convolve(watch: Watch, x: Value, weight: Value, groups: int, transposed: bool) -> Term:
    """Unify the channels; returns those of the result."""
    algebra = watch.algebra
    produced, consumed = (1, 0) if transposed else (0, 1)
    for dim in x.dims[2:]:
        if type(dim) is not Fix:
            algebra.freeze(dim)
    for dim in weight.dims[2:]:
        if type(dim) is Var and dim.to is None:
            dim.to = Fix(dim.size, "kernel size")
        elif type(dim) is not Var:
            algebra.freeze(dim, "kernel size")
    watch.uses(weight)
    watch.uses(x)
    watch.role(weight, produced, "produce")
    watch.role(weight, consumed, "consume")
    if not x.zero:
        algebra.mark(x.dims[1], "offset")
    if groups == 1:
        algebra.unify(x.dims[1], weight.dims[consumed])
        return weight.dims[produced]
    return _grouped(watch, x.dims[1], weight, groups, transposed)


def _grouped(watch: Watch, channels: Term, weight: Value, groups: int, transposed: bool) -> Term:
    algebra = watch.algebra
    group = Var(groups)
    algebra.mark(group, "conv_groups")
    if channels.size == groups:
        algebra.mark(group, "depthwise")
    if transposed:
        algebra.unify(weight.dims[0], Mul([group, _part(channels.size // groups)]))
        algebra.unify(channels, weight.dims[0])
        return norm(Mul([group, weight.dims[1]]))
    inner = _part(weight.dims[1].size)
    if isinstance(inner, Fix):
        algebra.freeze(weight.dims[1], "one input channel in each group")
    else:
        algebra.unify(weight.dims[1], inner)
    algebra.unify(channels, Mul([group, inner]))
    algebra.unify(weight.dims[0], Mul([group, _part(weight.dims[0].size // groups)]))
    return weight.dims[0]


def _part(size: int) -> Term:
    return ONE if size == 1 else Var(size)


RULES: dict[str, Handler] = {"convolution": convolution, "convolution_overrideable": convolution}
