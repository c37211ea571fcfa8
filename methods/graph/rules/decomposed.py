"""Operators without a rule: torch's own decomposition into operators that have one, else everything is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch._decomp import decomposition_table

from coppice.methods.graph.rules.common import Args, Kwargs, freeze_all, tensors
from coppice.methods.graph.watch import Handler, Watch

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def decomposed(func: Any) -> Handler | None:
    """The rule that runs torch's decomposition of an operator; None where there is none, or where it writes into its operands."""
    decomposition = _decomposition(func)
    if decomposition is None or func._schema.is_mutable:
        return None

    def rule(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
        before, watch.given_numbers = watch.given_numbers, watch.given_numbers | frozenset(_numbers((args, kwargs)))
        try:
            with watch.redispatch():
                out = decomposition(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            out = None
        finally:
            watch.given_numbers = before
        if out is None or not all(id(t) in watch.values for t in tensors(out)):
            return freeze_all(watch, func, args, kwargs)
        return out

    return rule


def _numbers(items: Any) -> Iterator[int]:
    """The whole numbers above one in nested arguments: sizes that are given, and so do not follow."""
    if type(items) is int and items > 1:
        yield items
    elif isinstance(items, (list, tuple, dict)):
        for item in items.values() if isinstance(items, dict) else items:
            yield from _numbers(item)


@lru_cache(maxsize=1024)
def _decomposition(func: Any) -> Callable[..., Any] | None:
    """What torch registers for an operator, or its composition in C++."""
    known: Callable[..., Any] | None = decomposition_table.get(func)
    if known is None and func.has_kernel_for_dispatch_key(_COMPOSITE):
        known = func.decompose
    return known
