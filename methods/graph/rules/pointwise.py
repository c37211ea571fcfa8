"""Operators that work entry by entry, and running sums and products along a dimension."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import Args, Kwargs, broadcast, linear_along, run, tensors, written
from coppice.methods.graph.terms import Fix, Term, held, norm
from coppice.methods.graph.watch import Handler, Norm, Source, Value, Watch

UNTAGGED = frozenset(
    ("hardswish", "_prelu_kernel", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
     "copy", "fill", "zero", "bernoulli", "rrelu_with_noise", "masked_fill", "uniform", "normal", "hardsigmoid",
     "exponential", "geometric", "cauchy", "log_normal", "random")
)  # fmt: skip
KEEPS_ZERO = frozenset(
    ("relu", "tanh", "gelu", "silu", "hardswish", "neg", "abs", "sqrt", "sin", "erf", "leaky_relu", "elu", "hardtanh", "floor",
     "ceil", "round", "trunc", "sign", "square", "mish", "expm1", "log1p", "celu", "selu", "_prelu_kernel", "asinh", "atan",
     "sinh", "positive", "nan_to_num", "softshrink", "hardshrink", "tanhshrink", "clamp_min", "zeros_like", "zero")
)  # fmt: skip
SAME_TYPE = KEEPS_ZERO | frozenset(
    ("sigmoid", "exp", "mul", "div", "cos", "rsqrt", "pow", "hardsigmoid", "softplus", "logsigmoid", "rsub", "log", "reciprocal")
)
"""Operators whose result has the type of their floating operands."""
_LIKE = frozenset(("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"))


def pointwise_rule(name: str) -> Handler:
    """The rule of the entry-by-entry operator `name`."""
    return {"relu": relu, "add": add, "sub": add, "mul": mul}.get(name) or partial(pointwise, name)


def _merge(inputs: list[Value], rank: int) -> tuple[Source, ...]:
    merged: list[Source] = []
    for value in inputs:
        for name, mapping in value.sources:
            aligned = [m if d.size > 1 else () for m, d in zip(mapping, value.dims, strict=True)]
            merged.append((name, ((),) * (rank - len(aligned)) + tuple(aligned)))
    return tuple(merged)


def _label(watch: Watch, out: Tensor, inputs: list[Value], role: str | None, zero: bool) -> Value:
    first = inputs[0]
    if len(inputs) == 1 and len(first.dims) == out.dim():
        dims: list[Term] = list(first.dims)
    else:
        dims = broadcast(watch, inputs, out.shape)
    value = watch.put(out, dims, inputs, zero)
    activations = [v for v in inputs if v.live]
    for parameter in inputs:
        if not parameter.sources:
            continue
        watch.uses(parameter)
        if role and activations:
            for position in range(len(parameter.dims)):
                watch.role(parameter, position, role if role != "bias" or len(parameter.sources[0][1]) == 1 else "raw")
    if not activations:
        value.sources = _merge(inputs, out.dim())
    return value


def run_pointwise(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Run an entry-by-entry operator; on meta, only the shape is needed, and torch's own way to it may be slow."""
    name = watch.operator = func._overloadpacket.__name__
    in_place = name[-1] == "_"
    if watch.meta and (name[:-1] if in_place else name) in SAME_TYPE and "out" not in kwargs:
        first = args[0]
        if isinstance(first, Tensor) and first.is_floating_point() and all(_fits(a, first) for a in args[1:]):
            return first if in_place else watch.empty_like(first)
    return run(watch, func, args, kwargs)


def _fits(other: Any, first: Tensor) -> bool:
    """Whether an operand broadcasts to the shape and type of the first one."""
    if not isinstance(other, Tensor):
        return not isinstance(other, complex)
    if other.dtype != first.dtype or other.dim() > first.dim():
        return False
    start = first.dim() - other.dim()
    return other.shape == first.shape or all(n in (1, m) for n, m in zip(other.shape, first.shape[start:], strict=True))


def pointwise(name: str, watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Any entry-by-entry operator: all operands hold the same units."""
    inputs = [watch.value(t) for t in tensors((args, kwargs))]
    out = run_pointwise(watch, func, args, kwargs)
    if isinstance(out, tuple):
        for tensor in out:
            _label(watch, tensor, inputs, None, False)
        return out
    if not inputs or not isinstance(out, Tensor):
        return out
    zero = name in KEEPS_ZERO and inputs[0].zero
    role = None
    if name == "div":
        zero, role = inputs[0].zero and not any(v.zero and not v.live and not v.sources for v in inputs[1:]), "scale"
    elif name == "pow":
        zero = inputs[0].zero and isinstance(args[1], (int, float)) and args[1] > 0
    elif name == "_prelu_kernel":
        role = "scale"
    if name in _LIKE:
        same = watch.put(out, inputs[0].dims, (), zero)
        same.deps = 0
        return out
    value = _label(watch, out, inputs, role, zero)
    _follow_squares(name, value, inputs, args)
    if name == "div":
        value.even = held(inputs[0].even) - held(d for v in inputs[1:] for d in v.dims)
        _normalised(watch, value, inputs)
    elif name in ("neg", "positive"):
        value.even = inputs[0].even
    if name in ("copy", "fill", "zero", "masked_fill"):
        written(watch, args[0])
    return out


def _follow_squares(name: str, value: Value, inputs: list[Value], args: Args) -> None:
    first = inputs[0]
    if name == "square" or (name == "pow" and type(args[1]) in (int, float) and args[1] == 2):
        value.squares = ("square", first.bit)
    elif first.squares and first.squares[0] in ("mean", "root") and (name in _ROOTS or _is_root(name, args)):
        value.squares = (first.squares[0] if name == "clamp_min" else "root", first.squares[1])
    elif name == "div" and len(inputs) == 2 and inputs[1].squares == ("root", first.bit):
        value.squares = ("normalised", first.bit)


_ROOTS = ("rsqrt", "sqrt", "clamp_min", "reciprocal")


def _is_root(name: str, args: Args) -> bool:
    return name == "pow" and isinstance(args[1], (int, float)) and abs(args[1]) == 0.5


def relu(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """ReLU: a non-negative summand passes through it unchanged."""
    watch.operator = "relu"
    tensor: Tensor = args[0]
    x = watch.value(tensor)
    name = func._overloadpacket.__name__
    if not watch.meta:
        out = func(*args)
    elif name == "relu_":
        out = tensor
    else:
        out = watch.empty_like(tensor)
    value = watch.put(out, x.dims, (x,), x.zero)
    value.adds |= x.adds & watch.nonnegative
    watch.nonnegative |= value.bit
    if x.sources:
        watch.uses(x)
        value.sources = x.sources
    return out


def _covers(part: Value, whole: Value) -> bool:
    """Whether an operand is broadcast along no dimension that may change."""
    new = len(whole.dims) - len(part.dims)
    free = (i for i, dim in enumerate(whole.dims) if not isinstance(norm(dim), Fix))
    return all(i >= new and part.dims[i - new].size == whole.dims[i].size for i in free)


def add(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Sum or difference; remembers what a sum consists of."""
    left, right = args[0], args[1]
    watch.operator = "add"
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        a, b = watch.value(left), watch.value(right)
        if not (watch.meta and left.is_floating_point() and _fits(right, left)):
            out = func(*args, **kwargs)
        elif func._overloadpacket.__name__[-1] == "_":
            out = left
        else:
            out = watch.empty_like(left)
        value = _label(watch, out, [a, b], "bias", a.zero and b.zero)
        value.zero = value.zero and _covers(a, value) and _covers(b, value)
        linear_along((a, b), value)
        if left.shape == right.shape and not (a.sources and b.sources):
            value.adds |= a.adds | (b.adds if func._overloadpacket.__name__[:3] == "add" else 0)
            watch.added(a, b)
            watch.added(b, a)
        if func._overloadpacket.__name__[-1] == "_":
            written(watch, left)
        return out
    inputs = [watch.value(t) for t in tensors((args, kwargs))]
    out = run(watch, func, args, kwargs)
    value = _label(watch, out, inputs, None, inputs[0].zero and any(type(a) in (int, float) and a == 0 for a in args[:2]))
    _add_number(watch, func, args, value, inputs[0])
    return out


def _add_number(watch: Watch, func: Any, args: Args, value: Value, x: Value) -> None:
    """A number added to every entry: the eps of a norm, or `1 + weight`."""
    number = next((a for a in args[:2] if isinstance(a, (int, float))), None)
    forward = func._overloadpacket.__name__.startswith("add") and len(args) == 2
    value.even = x.even if number is not None else frozenset()
    value.offset = x.offset + number if x.offset is not None and number is not None and forward else None
    if x.squares and x.squares[0] in ("mean", "root"):
        value.squares = x.squares
        known = forward and number is not None and x.squares[0] == "mean" and x.squares[1] not in watch.epsilons
        watch.epsilons[x.squares[1]] = float(number) if known and number is not None else None


def mul(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Product: zero wherever one of the activations is."""
    inputs = [watch.value(t) for t in tensors((args, kwargs))]
    out = run_pointwise(watch, func, args, kwargs)
    activations = [v for v in inputs if not v.sources]
    value = _label(watch, out, inputs, "scale", False)
    value.zero = any(v.zero and _covers(v, value) for v in activations or inputs)
    if len(inputs) == 2:
        a, b = inputs
        if a.bit == b.bit:
            value.squares = ("square", a.bit)
        for x, inverse in ((a, b), (b, a)):
            if inverse.squares == ("root", x.bit):
                value.squares = ("normalised", x.bit)
            elif x.squares and x.squares[0] == "normalised" and inverse.sources:
                _scaled(watch, x.squares[1], inverse)
        if not (value.squares and value.squares[0] == "normalised"):
            linear_along(inputs, value, factors=True)
    elif len(inputs) == 1:
        value.even = inputs[0].even
    _normalised(watch, value, inputs)
    return out


def _normalised(watch: Watch, value: Value, inputs: list[Value]) -> None:
    """A value over the root of its own mean square: an RMS norm written by hand."""
    if value.squares and value.squares[0] == "normalised" and value.squares[1] in watch.pending:
        bit = value.squares[1]
        term = watch.pending.pop(bit)
        watch.algebra.mark(term, "rmsnorm")
        zero = any(v.zero for v in inputs if v.bit == bit)
        watch.norms[bit] = Norm("rmsnorm", (term,), zero, watch.epsilons.get(bit, 0.0), training=watch.training)


def _scaled(watch: Watch, bit: int, parameter: Value) -> None:
    """A normalised value is multiplied by a parameter."""
    norm = watch.norms.get(bit)
    if norm is not None and norm.scale is None and len(parameter.sources) == 1 and parameter.offset is not None:
        norm.scale, norm.offset = parameter.sources[0][0], parameter.offset


def in_order(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Cumulative operators: the order of the units matters along their dimension."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    dim = args[1]
    if x.dims and not isinstance(norm(x.dims[dim]), Fix):
        watch.algebra.freeze(x.dims[dim])
    for tensor in tensors(out):
        watch.put(tensor, x.dims, (x,), x.zero and watch.operator != "logcumsumexp")
    return out


RULES: dict[str, Handler] = {
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), in_order),
}
