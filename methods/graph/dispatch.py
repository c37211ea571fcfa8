"""The dispatch mode that hands every operator of a forward to its rule: the one place where notes and rules meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from coppice.methods.graph.rules import handler
from coppice.methods.graph.watch import Watch


class Dispatch(TorchDispatchMode):
    """While it is entered, each operator runs by its rule, which labels what the operator returns.

    Tensors from outside of the trace (what the module, a class or a function cache holds besides parameters and buffers) are
    never written to: on meta, stand-ins without data take their place; else their data is noted before it is written to.

    Args:
        watch: where the rules take their notes.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self._outside: dict[int, tuple[Tensor, Tensor]] = {}
        self._written: list[tuple[Tensor, Tensor]] = []
        watch.redispatch = lambda: self

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No guard against compilation around each operator: nothing is compiled while a mode is active."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Hand the operator to its rule."""
        kwargs = kwargs or {}
        if self.watch.meta:
            if any(map(_has_data, args)) or (kwargs and any(map(_has_data, kwargs.values()))):
                if func is torch.ops.aten._local_scalar_dense.default and id(args[0]) not in self._outside:
                    return func(*args)
                args, kwargs = self._without_data(args), self._without_data(kwargs)
        elif func._schema.is_mutable:
            self._note(func, args, kwargs)
        return handler(func)(self.watch, func, args, kwargs)

    def _without_data(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return item if item.is_meta else self._outer(item)
        if isinstance(item, (list, tuple)):
            return type(item)(map(self._without_data, item))
        return {k: self._without_data(v) for k, v in item.items()} if isinstance(item, dict) else item

    def _outer(self, tensor: Tensor) -> Tensor:
        known = self._outside.get(id(tensor))
        if known is None:
            new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            known = self._outside[id(tensor)] = (tensor, new)
        return known[1]

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy what an operator will write to, where the trace has not made it."""
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            target = args[position] if position < len(args) else kwargs.get(argument.name)
            for tensor in target if isinstance(target, (list, tuple)) else (target,):
                base = tensor if not isinstance(tensor, Tensor) or tensor._base is None else tensor._base
                if isinstance(base, Tensor) and id(base) not in self.watch.values:
                    self._written.append((base, base.detach().clone()))

    def undo_writes(self) -> None:
        """Give the tensors from outside the data that they had."""
        with torch.no_grad():
            for tensor, data in reversed(self._written):
                tensor.detach().copy_(data)
        self._written.clear()


def _has_data(item: Any) -> bool:
    if isinstance(item, Tensor):
        return not item.is_meta
    return isinstance(item, (list, tuple)) and any(map(_has_data, item))
