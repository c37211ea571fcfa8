"""Modules that know which of their connections exist, and masks that say the same.

A module that evaluates by its connections (`coppice.methods.networks.dag.DAG`) has a method `settle`. Whatever changes a
network's masks hands them over, so that masks, weights and the module's own buffers always agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Connected(Protocol):
    """A module whose forward depends on which connections exist."""

    def settle(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take over masks, as far as they are possible.

        Args:
            masks: name of a tensor within the module -> bool mask of its shape; tensors that are left out keep what they have.

        Returns:
            Which entries of each of these tensors exist by now.
        """
        ...

    def could_exist(self, name: str) -> Tensor | None:
        """Bool mask: the absent entries of a tensor each of which, alone, could be added; None for any other tensor."""
        ...


def connected(module: nn.Module) -> dict[str, Connected]:
    """Submodules that know their connections, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, Connected)}


def settle(module: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of a network after its modules have taken them over: those of entries that cannot exist are False."""
    settled = dict(masks)
    for name, part in connected(module).items():
        prefix = f"{name}." if name else ""
        own = {key.removeprefix(prefix): mask for key, mask in masks.items() if key.startswith(prefix)}
        settled |= {prefix + key: mask for key, mask in part.settle(own).items()}
    return settled


def could_exist(module: nn.Module, name: str, mask: Tensor) -> Tensor:
    """Which masked entries of a tensor could be added: all of them, but for connections that would close a cycle.

    Two that are possible alone may close a cycle together; of those a change adds only the first.
    """
    for owner, part in connected(module).items():
        prefix = f"{owner}." if owner else ""
        addable = part.could_exist(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if addable is not None:
            return addable
    return ~mask
