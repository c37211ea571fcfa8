"""Tensors that a forward makes by itself, or copies and casts."""

from __future__ import annotations

from typing import Any

import torch

from coppice.methods.graph.rules.common import Args, Kwargs, fixed, run, same_label, tensors
from coppice.methods.graph.terms import Fix, Term, Var
from coppice.methods.graph.watch import CONSTANT, Handler, Watch

FACTORIES = frozenset(
    ("zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_full", "new_empty", "randn", "rand", "empty_permuted")
)
IDENTITIES = frozenset(
    ("clone", "contiguous", "detach", "alias", "dropout", "_to_copy", "to", "lift", "lift_fresh_copy", "native_dropout",
     "_conj", "_conj_physical", "conj_physical", "resolve_conj", "_neg_view", "resolve_neg")
)


def identity(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Copies and casts: the same values, perhaps in another type."""
    out = run(watch, func, args, kwargs)
    outputs = list(tensors(out))
    source = watch.value(args[0])
    value = same_label(watch, source, outputs[0])
    value.squares = source.squares
    if source.bit & watch.nonnegative:
        watch.nonnegative |= value.bit
    for extra in outputs[1:]:
        watch.put(extra, source.dims, (source,))
    return out


def factory(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A new tensor of given sizes: its dimensions may turn out to be anything."""
    if watch.meta:
        if args[0] == [0]:
            return torch.empty((0,), dtype=kwargs.get("dtype"), device="meta")
        kwargs = {**kwargs, "device": torch.device("meta")}
    out = run(watch, func, args, kwargs)
    dims: list[Term] = [Var(n) if n > 1 else Fix(n) for n in out.shape]
    watch.written_sizes(dims, out.shape)
    watch.put(out, dims, (), watch.operator in ("zeros", "new_zeros"))
    return out


def constant(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A new tensor whose entries have a meaning by position."""
    if watch.meta:
        kwargs = {**kwargs, "device": torch.device("meta")}
    out = run(watch, func, args, kwargs)
    watch.put(out, fixed(out.shape, CONSTANT))
    return out


def lift(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """A tensor written out in the forward."""
    out = run(watch, func, args, kwargs)
    if watch.meta:
        out = torch.empty_like(out, device="meta")
    watch.put(out, fixed(out.shape, CONSTANT))
    return out


RULES: dict[str, Handler] = {
    **dict.fromkeys(IDENTITIES, identity),
    **dict.fromkeys(("arange", "linspace", "eye", "scalar_tensor"), constant),
    "lift_fresh": lift,
}
