"""Normalisation layers and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coppice.methods.graph.rules.common import Args, Kwargs, fixed, run, tensors
from coppice.methods.graph.terms import ONE, Mul, Term, Var, held, norm
from coppice.methods.graph.watch import Handler, Norm, Value, Watch

_BATCH_NORM_ROLES = ("scale", "shift", "mean", "var")


def _affine(watch: Watch, parameter: Any, dim: Term, role: str, inputs: list[Value]) -> None:
    if not isinstance(parameter, Tensor):
        return
    value = watch.value(parameter)
    watch.uses(value)
    inputs.append(value)
    watch.algebra.unify(value.dims[-1], dim)
    watch.role(value, len(value.dims) - 1, role)


def batch_norm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Batch (and instance) normalisation: each channel by itself."""
    watch.operator = "batch_norm"
    x = watch.value(args[0])
    if watch.meta and func._overloadpacket.__name__ == "native_batch_norm":
        out: Any = (watch.empty_like(args[0]), watch.nothing, watch.nothing)
    else:
        out = run(watch, func, args, kwargs)
    inputs = [x]
    for parameter, role in zip(args[1:5], _BATCH_NORM_ROLES, strict=False):
        _affine(watch, parameter, x.dims[1], role, inputs)
    _label_first(watch, out, x, inputs)
    return out


def _label_first(watch: Watch, out: Any, x: Value, inputs: list[Value]) -> None:
    outputs = list(tensors(out))
    value = watch.put(outputs[0], x.dims, inputs, x.zero)
    if x.sources:  # a standardised weight: every entry of a row sees all others
        watch.uses(x)
        value.sources = x.sources
        for dim in (*x.dims[:1], *x.dims[2:]) if watch.operator == "batch_norm" else x.dims:
            watch.algebra.mark(dim, "reduced")
    for extra in outputs[1:]:
        if extra is not watch.nothing:
            watch.put(extra, fixed(extra.shape), inputs)


def layer_norm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Layer normalisation over the last dimensions."""
    watch.operator = "layer_norm"
    if watch.meta:
        out: Any = (watch.empty_like(args[0]), watch.nothing, watch.nothing)
    else:
        out = run(watch, func, args, kwargs)
    _last_dims(watch, out, args[:2], args[2:4], "layernorm", eps=args[4])
    return out


def rms_norm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Root mean square normalisation over the last dimensions."""
    out = run(watch, func, args, kwargs)
    eps = args[3] if len(args) > 3 and args[3] is not None else torch.finfo(args[0].dtype).eps
    _last_dims(watch, out, args[:2], args[2:3], "rmsnorm", eps=eps)
    return out


def _last_dims(watch: Watch, out: Any, normalised: Args, affine: Args, mark: str, *, eps: float) -> None:
    x, count = watch.value(normalised[0]), len(normalised[1])
    inputs = [x]
    last = x.dims[len(x.dims) - count :]
    for dim in last:
        watch.algebra.mark(dim, mark)
    for parameter, role in zip(affine, ("scale", "shift"), strict=False):
        if isinstance(parameter, Tensor):
            value = watch.value(parameter)
            watch.uses(value)
            inputs.append(value)
            for position, dim in enumerate(last):
                watch.algebra.unify(value.dims[position], dim)
                watch.role(value, position, role)
    _label_first(watch, out, x, inputs)
    sound = held(last) <= held(x.even) if mark == "layernorm" else x.zero
    watch.norms[x.bit] = known = Norm(mark, tuple(last), sound, eps, training=watch.training)
    if affine and isinstance(affine[0], Tensor):
        scale = watch.value(affine[0])
        if len(scale.sources) == 1 and scale.offset is not None:
            known.scale, known.offset = scale.sources[0][0], scale.offset
    else:
        watch.value(next(tensors(out))).squares = ("normalised", x.bit)


def group_norm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Group normalisation: channels are groups times channels in a group."""
    out = run(watch, func, args, kwargs)
    position = 6 if watch.operator == "native_group_norm" else 1
    x = watch.value(args[0])
    groups, affine = args[position], args[1:3] if position == 6 else args[2:4]
    inside = x.dims[1].size // groups
    group: Term = ONE if groups == 1 else Var(groups)
    unit: Term = ONE if inside == 1 else Var(inside)
    watch.algebra.mark(group, "gn_groups")
    watch.algebra.mark(unit, "groupnorm")
    watch.algebra.unify(x.dims[1], norm(Mul([group, unit])))
    inputs = [x]
    for parameter, role in zip(affine, ("scale", "shift"), strict=False):
        _affine(watch, parameter, x.dims[1], role, inputs)
    _label_first(watch, out, x, inputs)
    return out


def weight_norm(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Direction times length of a weight; a direction of zeros has none, so that no unit can be told to be unused."""
    out = run(watch, func, args, kwargs)
    direction, length = watch.value(args[0]), watch.value(args[1])
    norm_dim = (args[2] if len(args) > 2 else 0) % len(direction.dims)
    for dim in direction.dims:
        watch.algebra.mark(dim, "weight_norm")
    watch.algebra.unify(direction.dims[norm_dim], length.dims[norm_dim if len(length.dims) > norm_dim else 0])
    for position, dim in enumerate(length.dims):
        if position == norm_dim:
            watch.role(length, position, "scale")
        elif dim.size == 1:
            watch.algebra.freeze(dim, "length of a normalised weight")
    watch.uses(length)
    outputs = list(tensors(out))
    value = watch.put(outputs[0], direction.dims, (direction, length), True)
    value.sources = direction.sources
    for extra in outputs[1:]:
        watch.put(extra, fixed(extra.shape), (direction, length))
    return out


def softmax(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Softmax couples all units of a dimension."""
    widened = len(args) > 2 and args[2]
    out = watch.empty_like(args[0]) if watch.meta and not widened else run(watch, func, args, kwargs)
    x = watch.value(args[0])
    watch.algebra.mark(x.dims[args[1]], "softmax")
    value = watch.put(out, x.dims, (x,))
    value.sources = x.sources
    watch.uses(x)
    return out


RULES: dict[str, Handler] = {
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ),
        batch_norm,
    ),
    "native_layer_norm": layer_norm,
    "_fused_rms_norm": rms_norm,
    "rms_norm": rms_norm,
    "native_group_norm": group_norm,
    "group_norm": group_norm,
    "_weight_norm_interface": weight_norm,
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax"), softmax),
}
