"""Masks of weights: False stays zero through training; shapes do not change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coppice.methods.network import Network
from coppice.methods.surgery.tensors import get_tensor


def mask_of(network: Network, name: str) -> Tensor:
    """A copy of the tensor's mask; all True where it has none."""
    known = network.masks.get(name)
    return torch.ones_like(get_tensor(network.module, name), dtype=torch.bool).contiguous() if known is None else known.clone()


@torch.no_grad()
def apply_masks(network: Network, module: nn.Module | None = None) -> None:
    """Zero the masked weights (after each optimizer step: momentum and weight decay may have moved them).

    Args:
        network: whose masks.
        module: another one than the network's own, of the same shape (an average).
    """
    for name, mask in network.masks.items():
        get_tensor(network.module if module is None else module, name).mul_(mask)


@torch.no_grad()
def mask_gradients(network: Network) -> None:
    """Zero the gradients of masked weights (before each optimizer step)."""
    for name, mask in network.masks.items():
        gradient = get_tensor(network.module, name).grad
        if gradient is not None:
            gradient.mul_(mask)
