"""Fully connected networks, for data without a grid and for tests of methods."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class MLP(nn.Module):
    """Linear layers with an activation after each but the last; flattens what it is given."""

    def __init__(self, widths: Sequence[int], activation: str, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in itertools.pairwise(widths[:-1]):
            layers.append(nn.Linear(before, width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(ACTIVATIONS[activation]())
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(widths[-2], widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) with in_features values a sample -> (N, out_features)."""
        return self.output(self.hidden(torch.flatten(x, 1)))


def mlp(
    in_features: int,
    out_features: int,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    batch_norm: bool = False,
) -> MLP:
    """A fully connected network.

    Args:
        in_features: values a sample, over all its dimensions.
        out_features: values or class scores predicted.
        hidden: width of each hidden layer; none gives a linear model.
        activation: a key of `ACTIVATIONS`.
        batch_norm: whether the hidden layers are normalised before their activation.

    Raises:
        KeyError: unknown activation.
        ValueError: a width below 1.
    """
    if activation not in ACTIVATIONS:
        raise KeyError(f"unknown activation {activation!r}; known are {sorted(ACTIVATIONS)}.")
    widths = [in_features, *hidden, out_features]
    if min(widths) < 1:
        raise ValueError(f"all widths of an mlp must be at least 1, but got {widths}.")
    return MLP(widths, activation, batch_norm)
