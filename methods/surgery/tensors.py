"""Reach and replace single tensors of a module, in place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that holds the tensor or module called `name`, and its name in there."""
    *path, leaf = name.split(".")
    for part in path:
        child = module._modules.get(part)
        if child is None:
            raise AttributeError(f"{type(module).__name__} has no submodule {part!r}, which {name!r} needs.")
        module = child
    return module, leaf


def get_tensor(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name`."""
    holder, leaf = owner(module, name)
    tensor: Tensor | None = holder._parameters.get(leaf)
    if tensor is None:
        tensor = holder._buffers[leaf]
    assert tensor is not None
    return tensor


def set_tensor(module: nn.Module, name: str, value: Tensor) -> None:
    """Give the tensor called `name` a new value, of any shape.

    A parameter keeps its identity (optimizer groups, hooks and ties survive); its stale gradient is dropped. `set_` is
    used because assigning `.data` breaks while an older autograd graph is alive, and a new Parameter would no longer be
    trained by the optimizer.
    """
    holder, leaf = owner(module, name)
    parameter = holder._parameters.get(leaf)
    if parameter is None:
        holder._buffers[leaf] = value
        return
    with torch.no_grad():
        parameter.grad = None
        parameter.set_(value.detach().to(parameter.dtype).contiguous())  # type: ignore[call-overload]


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy, also of modules that keep a tensor that was computed (a masked or normalised weight)."""
    memo: dict[int, Any] = {}
    for m in module.modules():
        for value in vars(m).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def tied_names(module: nn.Module) -> dict[str, list[str]]:
    """First name of each parameter and buffer -> all of its names, the first one included."""
    groups: dict[int, list[str]] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        groups.setdefault(id(tensor), []).append(name)
    return {names[0]: names for names in groups.values()}
