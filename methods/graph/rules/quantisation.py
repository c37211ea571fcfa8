"""Fake quantisation: values are rounded to a grid, whose step may be that of a whole tensor or of each channel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import Args, Kwargs, argument, fixed, run, tensors
from coppice.methods.graph.watch import Handler, Value, Watch


def fake_quantize(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Round to a given grid: entry by entry, where steps and zero points belong to channels."""
    out = run(watch, func, args, kwargs)
    at = _axis(watch.operator, args)
    inputs = [watch.value(t) for t in tensors(args)]
    _follow(watch, inputs[0], inputs[1:], at)
    _label(watch, out, inputs)
    return out


def _axis(operator: str, args: Args) -> int | None:
    """The dimension that has a step for each entry; None where one step holds for all."""
    return args[3] if "per_channel" in operator else None


def _follow(watch: Watch, x: Value, steps: list[Value], at: int | None) -> None:
    """Steps and zero points are kept like statistics: they follow the width of what they belong to."""
    for value in steps:
        watch.uses(value)
        if len(value.dims) == 1 and at is not None and value.dims[0].size == x.dims[at].size:
            watch.algebra.unify(value.dims[0], x.dims[at])
            watch.role(value, 0, "mean" if value is steps[-1] and len(steps) == 2 else "var")


def _label(watch: Watch, out: Any, inputs: list[Value]) -> None:
    first, *others = tensors(out)
    x = inputs[0]
    watch.uses(x)
    value = watch.put(first, x.dims, inputs, x.zero)
    value.sources = x.sources
    for extra in others:
        watch.put(extra, x.dims if extra.shape == first.shape else fixed(extra.shape), inputs)


def observed(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Round to the grid of an observer, which sees the extremes of the tensor (or of each channel)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    each_channel = bool(argument(args, kwargs, 11, "per_row_fake_quant", False))
    at = args[10] if each_channel else None
    for position, dim in enumerate(x.dims):
        if position != at:
            watch.algebra.mark(dim, "reduced")
    inputs = [x, *(watch.value(t) for t in args[1:7] if isinstance(t, Tensor))]
    for value in inputs[1:]:
        watch.uses(value)
    for value, role in zip(inputs[3:7], ("mean", "mean", "var", "mean"), strict=False):
        if at is not None and len(value.dims) == 1 and value.dims[0].size == x.dims[at].size:
            watch.algebra.unify(value.dims[0], x.dims[at])
            watch.role(value, 0, role)
    _label(watch, out, inputs)
    return out


RULES: dict[str, Handler] = {
    **dict.fromkeys(
        (
            "fake_quantize_per_tensor_affine_cachemask",
            "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
            "fake_quantize_per_channel_affine_cachemask",
            "_fake_quantize_learnable_per_tensor_affine",
            "_fake_quantize_learnable_per_channel_affine",
        ),
        fake_quantize,
    ),
    "_fused_moving_avg_obs_fq_helper": observed,
}
