"""The cross moment of GradMax: what a layer's input and the gradient two layers later have in common.

For a producer with input X and a consumer with output gradient G, the moment is A = sum_n U_n T_n^T, where U_n are the
producer's input patches at each hidden position and T_n what each of the consumer's weights sees of the gradient there. A new
unit with fan-in w and fan-out v changes the loss by -w^T A v to first order, where what lies between is linear at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = nn.Linear | nn.Conv2d


def is_layer(module: nn.Module) -> bool:
    """Whether the moment is defined for the module: Linear, or Conv2d with zero padding and without groups."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


def patches(layer: Layer, inputs: Tensor) -> Tensor:
    """What each hidden position of the layer sees: (N, fan_in, *hidden positions)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), -1, inputs.shape[-1]).transpose(1, 2)
    assert not isinstance(layer.padding, str)
    unfolded = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(inputs.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    return unfolded.reshape(*unfolded.shape[:2], *size)


def seen_gradients(layer: Layer, gradient: Tensor, hidden: tuple[int, ...]) -> Tensor:
    """Gradient that a unit entry at each hidden position receives through each weight of one channel of the consumer.

    Args:
        layer: the consumer.
        gradient: of its output.
        hidden: spatial size of its input.

    Returns:
        (N, weights of one channel, *hidden); the order of the weights is that of `layer.weight.movedim(1, 0).flatten(1)`.
    """
    if isinstance(layer, nn.Linear):
        return gradient.reshape(len(gradient), -1, gradient.shape[-1]).transpose(1, 2)
    out, (kh, kw) = layer.out_channels, layer.kernel_size
    assert not isinstance(layer.padding, str)
    basis = torch.eye(kh * kw, dtype=gradient.dtype, device=gradient.device).reshape(1, kh * kw, kh, kw)
    kernel = basis.repeat(out, 1, 1, 1).reshape(out, kh * kw, kh, kw)
    rest = tuple(
        h - ((g - 1) * s - 2 * p + d * (k - 1) + 1)
        for h, g, s, p, d, k in zip(
            hidden, gradient.shape[2:], layer.stride, layer.padding, layer.dilation, layer.kernel_size, strict=True
        )
    )
    # Positions that the consumer's stride leaves out at the border get no gradient; they are padded with zeros, because
    # conv_transpose2d limits output_padding to the stride.
    full = F.conv_transpose2d(gradient, kernel, None, layer.stride, 0, 0, out, layer.dilation)
    top, left = layer.padding
    padded = F.pad(full, (0, max(rest[1], 0) + left, 0, max(rest[0], 0) + top))
    return padded[:, :, top : top + hidden[0], left : left + hidden[1]]


def cross_moment(producer: Layer, consumer: Layer, inputs: Tensor, gradient: Tensor, consumed: Tensor, pieces: int) -> Tensor:
    """A of one batch, (fan-in of a new unit, fan-out of a new unit), summed over samples and positions.

    Args:
        producer: layer that makes the units.
        consumer: layer that takes them.
        inputs: of the producer.
        gradient: of the consumer's output.
        consumed: the consumer's input.
        pieces: entries of the consumer's input dimension that one unit takes (positions of a flattened map; 1 otherwise).
    """
    u = patches(producer, inputs)
    if isinstance(consumer, nn.Conv2d):
        t = seen_gradients(consumer, gradient, tuple(consumed.shape[2:])).flatten(2)
        u = _on_grid(u, tuple(consumed.shape[2:]))
        return torch.einsum("nuq,nvq->uv", u, t)
    t = seen_gradients(consumer, gradient, ())
    if isinstance(producer, nn.Linear):
        return torch.einsum("nuq,nvq->uv", u, t)
    side = round(pieces**0.5)
    u = _on_grid(u, (side, side) if side * side == pieces else (pieces, 1))
    return torch.einsum("nuq,nv->uvq", u, t[:, :, 0]).flatten(1)


def _on_grid(u: Tensor, size: tuple[int, ...]) -> Tensor:
    """Patches at the positions the consumer sees; averaged where pooling lies between (exact for average pooling)."""
    if u.ndim == 4 and tuple(u.shape[2:]) != size:
        u = F.adaptive_avg_pool2d(u.flatten(0, 1)[:, None], size).reshape(*u.shape[:2], *size)
    return u.flatten(2)
