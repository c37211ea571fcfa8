"""Brief training of a copy of a network, for trials."""

from __future__ import annotations

import torch
from torch import Tensor

from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.method import Context
from coppice.methods.surgery.masks import apply_masks, mask_gradients


def retrain(context: Context, optimizer: str, steps: int, rate: float, num_batches: int) -> None:
    """Train `context.network` in place, in eval mode; masked weights stay zero.

    Args:
        context: holds a copy that nobody else looks at, the data and the loss.
        optimizer: `lbfgs` (steps are iterations with line search on the loss over all batches) or `adam` (a step a batch, over
            and over).
        steps: how many.
        rate: learning rate of adam.
        num_batches: batches of data.
    """
    module = context.network.module
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not steps:
        return
    with frozen_modes(module), torch.enable_grad():
        if optimizer == "lbfgs":
            everything = list(context.batches(num_batches))
            lbfgs = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")
            lbfgs.step(lambda: _backward(context, everything))
        else:
            _adam(context, torch.optim.Adam(parameters, lr=rate), steps, num_batches)
    module.zero_grad()
    apply_masks(context.network)


def _adam(context: Context, optimizer: torch.optim.Optimizer, steps: int, num_batches: int) -> None:
    """So many steps, a batch each."""
    done = 0
    while done < steps:
        for batch in context.batches(min(num_batches, steps - done)):
            _backward(context, [batch])
            optimizer.step()
            done += 1


def _backward(context: Context, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Mean loss over the samples of all these batches; its gradients, zero where masked, are left at the parameters."""
    module = context.network.module
    module.zero_grad()
    samples = sum(len(y) for _, y in batches)
    losses = [context.loss(module(x), y) * (len(y) / samples) for x, y in batches]
    total = torch.stack(losses).sum()
    total.backward()
    mask_gradients(context.network)
    return float(total.detach())
