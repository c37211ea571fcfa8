"""Single weights: their values, masks that exchange some of them, and which of them can exist at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coppice.methods.graph.connectivity import connected, could_exist
from coppice.methods.graph.values import Element
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.surgery.masks import mask_of
from coppice.methods.surgery.tensors import get_tensor


def weights_of(context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
    """Element name -> its tensor, detached."""
    return {e.name: get_tensor(context.network.module, e.name).detach() for e in elements}


def magnitudes(context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
    """Element name -> absolute values of its tensor, float32."""
    return {name: tensor.abs().float() for name, tensor in weights_of(context, elements).items()}


def noisy(size: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """With normal noise of this standard deviation, drawn on the CPU."""
    return size + noise * torch.randn(size.shape, generator=generator).to(size)


def exchange(active: Tensor, drop: Tensor, grow: Tensor, count: int) -> Tensor:
    """A mask with as many active entries, `count` of which are chosen anew.

    The active entries with the highest drop scores are kept, all but `count`. The same number grows, by the highest grow scores
    among everything that is not kept: an entry that was just dropped may come back.

    Args:
        active: mask, any shape.
        drop: scores at the same shape, low goes.
        grow: scores at the same shape, high comes.
        count: at most the number of active entries.
    """
    num = int(active.sum())
    lifted = torch.where(active, drop.double(), -torch.inf).flatten()
    kept = torch.zeros_like(lifted, dtype=torch.bool)
    kept[lifted.argsort(descending=True, stable=True)[: num - count]] = True
    return grown(kept.view(active.shape), grow, count)


def grown(active: Tensor, grow: Tensor, count: int) -> Tensor:
    """The mask with the `count` highest-scored entries that are not active as well; the first of equal ones."""
    mask = active.flatten().clone()
    mask[torch.where(mask, -torch.inf, grow.double().flatten()).argsort(descending=True, stable=True)[:count]] = True
    return mask.view(active.shape)


def wanted(network: Network, name: str, value: Tensor) -> Tensor:
    """Grow scores of a tensor's connections: absolute values, -inf where none can exist (it would close a cycle)."""
    mask = mask_of(network, name)
    return torch.where(mask | could_exist(network.module, name, mask), value.abs(), -torch.inf)


def no_dense_gradient(network: Network, name: str) -> str | None:
    """Why masked weights of a tensor have no gradient, if so: modules that know their connections compute those only."""
    for owner, part in connected(network.module).items():
        prefix = f"{owner}." if owner else ""
        if name.startswith(prefix) and part.could_exist(name.removeprefix(prefix)) is not None:
            return f"{owner or 'the network'} gives no gradient to connections that do not exist; use set"
    return None
