"""A deep fingerprint of a module's object graph: what holds what, by identity and by value."""

import functools
from collections import deque
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

_VALUES = (int, float, str, bool, bytes, complex, type(None), torch.dtype, torch.device)


def fingerprint(module: nn.Module, *others: Any) -> list[tuple[Any, ...]]:
    """One entry for each object reached from the module (and `others`), in order."""
    out: list[tuple[Any, ...]] = []
    todo: list[Any] = [module, *others]
    seen: set[int] = set()
    while todo:
        thing = todo.pop()
        if isinstance(thing, _VALUES):
            out.append(("value", type(thing), repr(thing)))
            continue
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            data = None if thing.is_meta else thing.detach().double()
            sums = None if data is None else (float(data.sum()), float(data.square().sum()))
            gradient = id(thing.grad) if thing.is_leaf else None
            out.append(("tensor", id(thing), thing.device, thing.requires_grad, gradient, repr(sums)))
        inner = _inner(thing)
        out.append(("object", id(thing), type(thing), [id(x) if not isinstance(x, _VALUES) else repr(x) for x in inner]))
        todo += inner
    return out


def _inner(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, (list, tuple, deque)):
        return list(thing)
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=id)
    if isinstance(thing, FunctionType):
        return [c.cell_contents for c in thing.__closure__ or ()] + [*(thing.__defaults__ or ()), thing.__dict__]
    if isinstance(thing, MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, type) or type(thing).__module__.startswith("builtins"):
        return []
    return [vars(thing)] if hasattr(thing, "__dict__") else []
