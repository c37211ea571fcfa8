"""From a table of features to a data set: splits, and standardisation by what the training samples are like."""

from __future__ import annotations

import torch
from torch import Tensor

from coppice.orchestrator.tasks.dataset import Dataset, Scale, Split
from coppice.orchestrator.tasks.splits import divide

VAL_FRACTION = 0.2
TEST_FRACTION = 0.2
TEST_SEED = 0
"""Test samples are the same for every seed, so that test scores of different seeds can be compared."""


def table_dataset(name: str, samples: Split, test: Split | None, seed: int, val_fraction: float) -> Dataset:
    """A data set of (N, num_features) inputs; int64 targets (N,) are classes, (N, num_outputs) ones are values.

    Features, and targets of a regression, are standardised once, by mean and deviation of the training samples.

    Args:
        name: of the data set.
        samples: all but the test samples.
        test: None takes a fifth of `samples`, always the same ones.
        seed: decides which samples are for validation.
        val_fraction: how many.
    """
    if test is None:
        samples, test = divide(samples, TEST_FRACTION, TEST_SEED, "test")
    train, val = divide(samples, val_fraction, seed, "val")
    classes = train.targets.dtype == torch.int64
    num_outputs = 1 + max(int(s.targets.max()) for s in (train, val, test)) if classes else train.targets.shape[1]
    mean, std = _moments(train.inputs)
    target_mean, target_std = (torch.zeros(1), torch.ones(1)) if classes else _moments(train.targets)

    def standardised(split: Split) -> Split:
        inputs = ((split.inputs - mean) / std).float()
        return Split(inputs, split.targets if classes else ((split.targets - target_mean) / target_std).float())

    return Dataset(
        name, standardised(train), standardised(val), standardised(test), "classification" if classes else "regression",
        num_outputs, tuple(train.inputs.shape[1:]), target_std=float(target_std.square().mean().sqrt()),
        input_scale=Scale(mean, std), target_scale=None if classes else Scale(target_mean, target_std),
    )


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (d,) of `values` (N, d) in float64; a column that does not vary gets deviation 1."""
    values = values.double()
    std = values.std(0, correction=0)
    return values.mean(0), torch.where(std > 0, std, torch.ones_like(std))
