"""The modules that surgery puts into a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PassThrough(nn.Sequential):
    """Stands where a module was taken out: runs what had been put behind it on its first argument, or returns that."""

    def forward(self, input: Tensor, *args: object, **kwargs: object) -> Tensor:
        """The first argument, unchanged where nothing had been put behind the module."""
        return super().forward(input)


class Zero(PassThrough):
    """Stands where a branch beside a skip path was taken out: as `PassThrough`, on zeros like the first argument."""

    def forward(self, input: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Zeros of the first argument's shape, where nothing had been put behind the module."""
        return super().forward(torch.zeros_like(input))


class Residual(nn.Module):
    """`x + last(relu(norm(first(x))))`, with `last` zero at first, so that it starts as the identity.

    Args:
        first: makes the inner channels.
        norm: of the inner channels, or None.
        last: maps them back; its weight and bias are set to zero.
    """

    def __init__(self, first: nn.Module, norm: nn.Module | None, last: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.norm = norm if norm is not None else nn.Identity()
        self.last = last
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return x + self.last(torch.relu(self.norm(self.first(x))))


class RunAfter:
    """Forward hook that runs the child called `name` on the module's output.

    It holds nothing but a name, so it survives deep copies and functional calls: the child is looked up in the module it is
    called for.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        """The output of the child when it runs on the output of `module`."""
        return module._modules[self.name](output)  # type: ignore[misc]


def runs_children(holder: nn.Module) -> bool:
    """Whether the module's own forward runs a child that is appended to it."""
    return type(holder).forward in (nn.Sequential.forward, PassThrough.forward, Zero.forward)


def put_behind(holder: nn.Module, name: str, made: nn.Module) -> None:
    """Make `made` the child `name` of `holder`, run on its own output: before what was put there earlier."""
    holder.add_module(name, made)
    if not runs_children(holder):
        holder.register_forward_hook(RunAfter(name), prepend=True)


def put_behind_names(holder: nn.Module) -> list[str]:
    """The children that hooks run on the module's output, in order."""
    return [hook.name for hook in holder._forward_hooks.values() if isinstance(hook, RunAfter)]


def take_away_behind(holder: nn.Module) -> dict[str, nn.Module]:
    """Undo `put_behind` wherever a hook does the running; returns the children by name."""
    names = put_behind_names(holder)
    for key in [k for k, hook in holder._forward_hooks.items() if isinstance(hook, RunAfter)]:
        del holder._forward_hooks[key]
    children = {name: holder._modules.pop(name) for name in names}
    return {name: child for name, child in children.items() if child is not None}
