"""A removal spread over steps: producers go to zero linearly, so that taking the units out at the end changes nothing.

Progressive shrinking as in Only-Train-Once / HESSO (Chen et al.): at step t of T the units are multiplied by
(T - t - 1) / (T - t).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from coppice.methods.graph.expr import unit_map
from coppice.methods.network import Network
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Shrinking:
    """Units of an element on their way to zero: `done` of `steps` steps are taken. JSON-able."""

    element: str
    units: tuple[int, ...]
    steps: int
    done: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps >= 1 must hold, but got steps={self.steps}; use immediate removal instead.")


@torch.no_grad()
def advance(network: Network, shrinking: Shrinking) -> Shrinking:
    """Take one step; call it once after each optimizer step.

    What makes the units (rows, biases, the norm's scale and shift) is multiplied; running statistics are not.
    """
    factor = (shrinking.steps - shrinking.done - 1) / (shrinking.steps - shrinking.done)
    element = network.element(shrinking.element)
    wanted = set(shrinking.units)
    graph = network.graph()
    for move in element.moves:
        for o in graph.atoms[move.atom].occurrences:
            if o.role not in ("produce", "bias", "scale", "shift", "raw"):
                continue
            tensor = get_tensor(network.module, o.tensor)
            units = unit_map(o.expr, move.atom)
            chosen = torch.tensor([u >= 0 and u // move.units in wanted for u in units], device=tensor.device)
            view = [1] * tensor.ndim
            view[o.dim] = -1
            tensor.mul_(torch.where(chosen, factor, 1.0).to(tensor.dtype).view(view))
    return replace(shrinking, done=shrinking.done + 1)
