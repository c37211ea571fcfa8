"""Inputs as a layer multiplies its rows with, and gradients as single outgoing weights see them; units come first."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unfolded(module: nn.Module, inputs: Tensor) -> Tensor:
    """What a layer multiplies its rows with: [entries of a row, n, positions of the output]; tokens are positions."""
    if isinstance(module, nn.Linear):
        return inputs.movedim(-1, 0).flatten(2) if inputs.dim() > 2 else inputs.T.unsqueeze(2)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = _geometry(module)
    padded = nn.functional.pad(inputs.transpose(0, 1), (pw, pw, ph, ph))
    height, width = ((padded.shape[2 + i] - (k - 1) * d - 1) // s + 1 for i, k, d, s in ((0, kh, dh, sh), (1, kw, dw, sw)))
    patches = inputs.new_empty(inputs.shape[1], kh, kw, len(inputs), height, width)
    for a in range(kh):
        for b in range(kw):
            rows = slice(a * dh, a * dh + (height - 1) * sh + 1, sh)
            patches[:, a, b] = padded[:, :, rows, b * dw : b * dw + (width - 1) * sw + 1 : sw]
    return patches.view(inputs.shape[1] * kh * kw, len(inputs), height * width)


def unfolded_back(module: nn.Module, gradient: Tensor, shape: torch.Size) -> Tensor:
    """Gradients at the consumer's input for units that have one outgoing weight each (the transposed unfolding).

    Args:
        module: the consumer.
        gradient: of the loss at its output.
        shape: of its input.

    Returns:
        [out, kernel positions, n, *positions of the input] of a convolution, [out, 1, n] of a linear layer.
    """
    if isinstance(module, nn.Linear):
        return gradient.T.unsqueeze(1)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = _geometry(module)
    n, out, height, width = gradient.shape
    gradients = gradient.new_zeros(out, kh, kw, n, shape[2] + 2 * ph, shape[3] + 2 * pw)
    for a in range(kh):
        for b in range(kw):
            rows = slice(a * dh, a * dh + (height - 1) * sh + 1, sh)
            gradients[:, a, b, :, rows, b * dw : b * dw + (width - 1) * sw + 1 : sw] = gradient.transpose(0, 1)
    return gradients[..., ph : ph + shape[2], pw : pw + shape[3]].flatten(1, 2)


def _geometry(module: nn.Module) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation."""
    assert isinstance(module, nn.Conv2d)
    return tuple(v for v in (module.kernel_size, module.stride, module.padding, module.dilation) if isinstance(v, tuple))  # type: ignore[misc]
