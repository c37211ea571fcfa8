"""What the convolutional networks share: how widths scale, and how weights begin."""

from __future__ import annotations

from torch import nn


def scaled(channels: int, factor: float) -> int:
    """`channels` times a positive width factor, rounded, at least 1.

    Raises:
        ValueError: the factor is not positive.
    """
    if not factor > 0:
        raise ValueError(f"width > 0 must hold, but got width={factor}.")
    return max(1, round(channels * factor))


def he_initialise(module: nn.Module) -> None:
    """Draw the weights of all convolutions by He et al. 2015, equation 10 (over the fan-in); biases become zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
