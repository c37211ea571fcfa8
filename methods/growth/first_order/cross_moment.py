"""The matrix whose singular vectors GradMax takes, exactly, for linear layers and convolutions of any stride, padding, dilation.

A[u, v] = sum over samples and positions of (input of the producer at tap u) * (gradient of the loss at the consumer's input,
seen through the consumer's tap v): the gradient of new fan-in weight u of a unit whose only outgoing weight is tap v. It is the
product of the unfolded input and the transposed-unfolded gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import grad

from coppice.methods.growth.first_order.linearised import Linearised
from coppice.methods.growth.first_order.sweep import View
from coppice.methods.growth.first_order.unfold import unfolded, unfolded_back

BLOCK_BYTES = 8 * 2**20
"""Memory for the unfolded tensors of one block of samples."""
_LARGE = 2**20


def num_taps(module: nn.Module, taps: int) -> int:
    """Outgoing weights of one unit."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0] * (taps if isinstance(module, nn.Linear) else weight[0, 0].numel())


def moment_shape(producer: nn.Module, consumer: nn.Module, taps: int) -> tuple[int, int]:
    """Entries of a producer's row, outgoing weights of a unit."""
    assert isinstance(producer.weight, Tensor)
    return producer.weight[0].numel(), num_taps(consumer, taps)


def sum_dtype(entries: int, dtype: torch.dtype) -> torch.dtype:
    """In what sums over samples are kept: float64, or the network's own type where that would take much memory."""
    return dtype if entries > _LARGE else torch.float64


def blocks(samples: int, bytes_per_sample: int) -> Iterator[slice]:
    """Samples a few at a time, so that what is unfolded of them stays small."""
    rows = max(1, BLOCK_BYTES // max(bytes_per_sample, 1))
    for start in range(0, samples, rows):
        yield slice(start, min(start + rows, samples))


def add_cross_moment(total: Tensor, view: View, path: Linearised, gradient: Tensor | None = None) -> None:
    """Add A of some samples to `total`, [entries of a producer row, outgoing weights of a unit].

    Args:
        total: where to; with one more row, the last one is that of the producer's bias.
        view: the samples at a site.
        path: its derivative.
        gradient: at the consumer's output; the loss's own by default.
    """
    gradient = view.gradient if gradient is None else gradient
    at, left = None, None
    for part, columns, seen in seen_gradients(view, path, gradient, len(total)):
        if left is None or part != at:
            at, left = part, unfolded(view.producer, view.before[part]).flatten(1)
        _add_product(total[:, columns], left, seen)


def seen_gradients(view: View, path: Linearised, gradient: Tensor, more: int = 0) -> Iterator[tuple[slice, slice, Tensor]]:
    """The gradient as each outgoing weight of a new unit sees it at the producer's output.

    Args:
        view: the samples at a site.
        path: its derivative.
        gradient: at the consumer's output.
        more: entries of what the caller makes for each sample and position.

    Yields:
        Which samples, which outgoing weights, and [these weights, samples and positions].
    """
    taps = view.site.taps if isinstance(view.consumer, nn.Linear) else view.consumer.weight[0, 0].numel()
    count = gradient.shape[1] * taps
    if path.diagonal is not None:
        for part in blocks(len(gradient), (count + more) * path.shape[2:].numel() * gradient.element_size()):
            yield part, slice(0, count), _pointwise(view, path, path.diagonal[part], gradient[part])
        return
    for which in torch.arange(count, device=gradient.device).split(view.site.size):
        units = _one_tap_each(view, gradient, path.shape, which)
        pulled = path.pull(units).movedim(1, 0).reshape(len(which), -1)
        yield slice(0, len(gradient)), slice(int(which[0]), int(which[-1]) + 1), pulled


def _pointwise(view: View, path: Linearised, diagonal: Tensor, gradient: Tensor) -> Tensor:
    seen = unfolded_back(view.consumer, gradient, path.shape)
    seen = seen * diagonal.movedim(1, 0).unsqueeze(0) if seen.dim() > 3 else seen * diagonal.T
    return seen.flatten(2).flatten(0, 1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if len(total) > len(left):
        total[-1] += right.sum(1).to(total)
        total = total[:-1]
    if total.dtype == left.dtype and total.device == left.device:
        total.addmm_(left, right.T)
    else:
        total.add_((left @ right.T).to(total))


def _one_tap_each(view: View, gradient: Tensor, shape: torch.Size, which: Tensor) -> Tensor:
    """Gradients at the consumer's input for units with the single outgoing weights `which`: [n, len(which), positions]."""
    if isinstance(view.consumer, nn.Linear):
        taps = view.site.taps
        seen = gradient.new_zeros(len(gradient), len(which), taps)
        seen[:, torch.arange(len(which), device=which.device), which % taps] = gradient[:, which // taps]
        return seen
    area = math.prod(view.consumer.weight.shape[2:])
    first = int(which[0]) // area
    some = unfolded_back(view.consumer, gradient[:, first : int(which[-1]) // area + 1], shape)
    return some.flatten(0, 1)[int(which[0]) - first * area :][: len(which)].movedim(1, 0)


def fan_out_gradient(view: View, behind: Tensor, units: int) -> Tensor:
    """Gradient of the consumer's columns of the first units of `behind`: [units, outgoing weights in the order of the taps]."""
    module = view.consumer
    if isinstance(module, nn.Linear):
        some = behind.unflatten(1, (view.site.size, -1))[:, :units].flatten(1)
        by_output = (view.gradient.T @ some).view(len(module.weight), units, -1)
    else:
        shape = (module.weight.shape[0], units, *module.weight.shape[2:])
        geometry = module.stride, module.padding, module.dilation
        by_output = grad.conv2d_weight(behind[:, :units].contiguous(), shape, view.gradient, *geometry).flatten(2)
    return by_output.movedim(1, 0).flatten(1)


def run_rows(module: nn.Module, inputs: Tensor, rows: Tensor, bias: Tensor | None = None) -> Tensor:
    """What units with these incoming weights make."""
    if isinstance(module, nn.Linear):
        return nn.functional.linear(inputs, rows, bias)
    assert isinstance(module, nn.Conv2d)
    return nn.functional.conv2d(inputs, rows, bias, module.stride, module.padding, module.dilation)
