"""Tasks that are computed, of any size and difficulty."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from coppice.orchestrator.seeds import generator
from coppice.orchestrator.tasks.dataset import Dataset, Split


def bessel(data_dir: Path | None, seed: int, num_samples: int = 1024, noise: float = 0.0) -> Dataset:
    """Regression of J0(x) + J1(x) + J2(x), Bessel functions of the first kind, on [-2 pi, 2 pi].

    Args:
        data_dir: not used.
        seed: of the places and the noise.
        num_samples: training samples, at random places; validation has a quarter as many, test an even grid of 512.
        noise: standard deviation of what is added to the training targets.
    """
    draws = generator(seed, "bessel")
    span = 2 * math.pi
    train, val = ((2 * torch.rand(n, 1, generator=draws).double() - 1) * span for n in (num_samples, -(-num_samples // 4)))
    test = torch.linspace(-span, span, 512, dtype=torch.float64)[:, None]
    splits = [Split((x / span).float(), bessel_sum(x).float()) for x in (train, val, test)]
    noisy = splits[0].targets + noise * torch.randn(num_samples, 1, generator=draws)
    return Dataset("bessel", Split(splits[0].inputs, noisy), splits[1], splits[2], "regression", 1, (1,))


def bessel_sum(x: Tensor) -> Tensor:
    """J0 + J1 + J2 at `x`; J2 by J2(x) = 2 J1(x) / x - J0(x), and by its series where x is small."""
    j0, j1 = torch.special.bessel_j0(x), torch.special.bessel_j1(x)
    small = x.abs() < 1e-2
    safe = torch.where(small, torch.ones_like(x), x)
    series = x.square() / 8 * (1 - x.square() / 12)
    return j0 + j1 + torch.where(small, series, 2 * j1 / safe - j0)


def teacher(
    data_dir: Path | None,
    seed: int,
    *,
    in_features: int = 10,
    hidden: int = 10,
    out_features: int = 10,
    num_samples: int = 1000,
) -> Dataset:
    """Regression of a random network: standard normal inputs, one hidden ReLU layer, weights uniform in [-1, 1], no biases.

    With the defaults the task of Evci et al. 2022 (GradMax), section 4.1.

    Args:
        data_dir: not used.
        seed: of weights and inputs.
        in_features: inputs of the teacher.
        hidden: its hidden width.
        out_features: its outputs.
        num_samples: training samples; validation and test have as many.
    """
    draws = generator(seed, "teacher")
    first = 2 * torch.rand(hidden, in_features, generator=draws) - 1
    second = 2 * torch.rand(out_features, hidden, generator=draws) - 1

    def draw() -> Split:
        inputs = torch.randn(num_samples, in_features, generator=draws)
        return Split(inputs, (inputs @ first.T).relu() @ second.T)

    return Dataset("teacher", draw(), draw(), draw(), "regression", out_features, (in_features,))


def spirals(
    data_dir: Path | None, seed: int, *, arms: int = 2, turns: float = 1.5, noise: float = 0.03, num_samples: int = 1000
) -> Dataset:
    """Points in the plane on as many intertwined spirals as there are classes.

    Args:
        data_dir: not used.
        seed: of the points.
        arms: number of spirals.
        turns: how often each goes around.
        noise: standard deviation of the distance from the spiral; the outer radius is 1.
        num_samples: training samples, classes balanced; validation and test have as many.
    """
    if arms < 2:
        raise ValueError(f"arms >= 2 must hold, but got arms={arms}.")
    draws = generator(seed, "spirals")

    def draw() -> Split:
        classes = torch.arange(num_samples) % arms
        radius = torch.rand(num_samples, generator=draws).sqrt()
        angle = 2 * math.pi * (turns * radius + classes / arms)
        points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        return Split(points + noise * torch.randn(num_samples, 2, generator=draws), classes)

    return Dataset("spirals", draw(), draw(), draw(), "classification", arms, (2,))
