"""The matrix whose singular vectors GradMax takes, exactly, for linear layers and convolutions of any stride, padding, dilation.

A[u, v] = sum over samples and positions of (input of the producer at tap u) * (gradient of the loss at the consumer's input,
seen through the consumer's tap v): the gradient of new fan-in weight u of a unit whose only outgoing weight is tap v.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import grad

from methods.growth.site import Site
from methods.network import Network


def num_taps(module: nn.Module, taps: int) -> int:
    """Outgoing weights of one unit."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0] * (taps if isinstance(module, nn.Linear) else weight[0, 0].numel())


def consumer_taps(module: nn.Module, gradient: Tensor, shape: torch.Size, taps: int, which: Tensor) -> Tensor:
    """Gradients at the consumer's input for units that have one outgoing weight each.

    Args:
        module: the consumer, Linear or Conv2d.
        gradient: of the loss at its output.
        shape: of its input.
        taps: see `Site.taps`.
        which: tap of each unit, in the order (output channel, position).

    Returns:
        [n, len(which), positions of the input].
    """
    n, units = len(gradient), len(which)
    if isinstance(module, nn.Linear):
        out, position = which // taps, which % taps
        found = gradient.new_zeros(n, units, taps)
        found[:, torch.arange(units, device=which.device), position] = gradient[:, out]
        return found
    assert isinstance(module, nn.Conv2d)
    area = module.weight[0, 0].numel()
    out, position = which // area, which % area
    kernels = gradient.new_zeros(units, 1, area)
    kernels[torch.arange(units, device=which.device), 0, position] = 1.0
    return grad.conv2d_input(
        (n, units, *shape[2:]), kernels.view(units, 1, *module.weight.shape[2:]), gradient[:, out].contiguous(),
        module.stride, module.padding, module.dilation, groups=units,
    )  # fmt: skip


def fan_in_gradient(module: nn.Module, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of new rows of the producer, [units, entries of a row], from the gradient at their outputs [n, units, ...]."""
    if isinstance(module, nn.Linear):
        return gradient.flatten(1).T @ inputs
    assert isinstance(module, nn.Conv2d)
    shape = (gradient.shape[1], *module.weight.shape[1:])
    return grad.conv2d_weight(inputs, shape, gradient.contiguous(), module.stride, module.padding, module.dilation).flatten(1)


def fan_out_gradient(module: nn.Module, inputs: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Gradient of the consumer's columns of each of `size` units, [units, outgoing weights in the order of the taps]."""
    if isinstance(module, nn.Linear):
        found = (gradient.T @ inputs).view(len(module.weight), size, -1)
    else:
        assert isinstance(module, nn.Conv2d)
        shape = (module.weight.shape[0], size, *module.weight.shape[2:])
        found = grad.conv2d_weight(inputs, shape, gradient, module.stride, module.padding, module.dilation).flatten(2)
    return found.movedim(1, 0).flatten(1)


def cross_moment(
    network: Network, site: Site, inputs: Tensor, gradient: Tensor, shape: torch.Size, pull: Callable[[Tensor], Tensor]
) -> Tensor:
    """A of one batch, summed over its samples: [entries of a producer row, outgoing weights of a unit].

    Args:
        network: not changed.
        site: producer and consumer.
        inputs: of the producer.
        gradient: of the summed loss at the consumer's output.
        shape: of the consumer's input.
        pull: `methods.growth.site.pull_back` of the batch.
    """
    producer, consumer = (network.module.get_submodule(n) for n in (site.producer, site.consumer))
    columns = []
    for which in torch.arange(num_taps(consumer, site.taps), device=inputs.device).split(site.size):
        columns.append(fan_in_gradient(producer, inputs, pull(consumer_taps(consumer, gradient, shape, site.taps, which))))
    return torch.cat(columns).T
