"""Masks of weights: False stays zero through training; shapes do not change."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.network import Network
from methods.surgery.tensors import get_tensor


@torch.no_grad()
def apply_masks(network: Network) -> None:
    """Zero the masked weights (after each optimizer step: momentum and weight decay may have moved them)."""
    for name, mask in network.masks.items():
        get_tensor(network.module, name).mul_(mask)


@torch.no_grad()
def mask_gradients(network: Network) -> None:
    """Zero the gradients of masked weights (before each optimizer step)."""
    for name, mask in network.masks.items():
        gradient = get_tensor(network.module, name).grad
        if gradient is not None:
            gradient.mul_(mask)


def resized_mask(mask: Tensor, dim: int, index: Tensor) -> Tensor:
    """The mask of a resized tensor; new entries are kept ones."""
    gathered = mask.index_select(dim, index.clamp(min=0))
    return gathered.index_fill(dim, (index < 0).nonzero().flatten(), True)
