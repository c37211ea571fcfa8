"""Copies of a network that change in full, just as it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from coppice.methods.surgery import layers
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.tensors import owner


def mirrors(followers: Iterable[Follower]) -> list[nn.Module]:
    """The copies of all followers."""
    return [mirror for follower in followers for mirror in follower.mirrors()]


def restructure(mirror: nn.Module, module: nn.Module, edits: Sequence[Mapping[str, Any]]) -> None:
    """Repeat edits of `module` on its copy; new tensors get the values of the module's own.

    Everything else keeps its identity and values. What is new takes the copy's mode, its device and precision if it has one of
    each, and requires gradients only if some of the copy's parameters do.
    """
    known, like = _tensors(mirror).keys(), {(p.device, p.dtype) for p in mirror.parameters()}
    trained = not known or any(p.requires_grad for p in mirror.parameters())
    modules = {id(m) for m in mirror.modules()}
    layers.replay(mirror, edits)
    copies: dict[int, Tensor] = {}
    for name, tensor in _tensors(module).items():
        if name in known:
            continue
        if id(tensor) not in copies:
            value = tensor.detach().clone()
            if len(like) == 1 and tensor.is_floating_point():
                value = value.to(*next(iter(like)))
            parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(value, trained and tensor.requires_grad) if parameter else value
        holder, leaf = owner(mirror, name)
        setattr(holder, leaf, copies[id(tensor)])
    for new in mirror.modules():
        if id(new) not in modules:
            new.training = mirror.training


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return dict(named)
