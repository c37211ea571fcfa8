"""The modules that surgery puts into a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PassThrough(nn.Module):
    """Stands where a module was taken out: returns its first argument."""

    def forward(self, input: Tensor, *args: object, **kwargs: object) -> Tensor:
        """The first argument, unchanged."""
        return input


class Zero(nn.Module):
    """Stands where a branch beside a skip path was taken out: returns zeros like its first argument."""

    def forward(self, input: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Zeros of the first argument's shape."""
        return torch.zeros_like(input)


class Residual(nn.Module):
    """`x + last(act(norm(first(x))))`, with `last` zero at first, so that it starts as the identity.

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
        """The child's output."""
        return module._modules[self.name](output)  # type: ignore[misc]
