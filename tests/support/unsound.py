"""Parts of campaigns that can be imported, and in which something is wrong that only shows when they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coppice.orchestrator.tasks.dataset import Dataset, Split


def narrow(inputs: int = 32) -> nn.Module:
    """Takes inputs of another size than digits has."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 10))


def too_few_outputs(width: int = 4) -> nn.Module:
    """Has fewer outputs than there are classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))


def fails_when_wide(width: int = 4) -> nn.Module:
    """Fine up to a width of 8."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(min(width, 8), 10))


def broken(width: int = 4) -> nn.Module:
    """An error of the user's own."""
    return [nn.Linear(64, 10)][width]


def many_losses(output: Tensor, target: Tensor) -> Tensor:
    """One loss a sample, where one a batch is needed."""
    return nn.functional.cross_entropy(output, target, reduction="none")


def detached(output: Tensor, target: Tensor) -> Tensor:
    """No gradient comes through."""
    return nn.functional.cross_entropy(output, target).detach()


def no_dataset(data_dir: Path | None = None, seed: int = 0) -> Any:
    """Not a data set."""
    return [1, 2, 3]


def points(data_dir: Path | None = None, seed: int = 0) -> Dataset:
    """A small regression."""
    inputs = torch.rand(40, 64, generator=torch.Generator().manual_seed(seed))
    split = Split(inputs, inputs[:, :2])
    return Dataset("points", split, split, None, "regression", 2, (64,))


class NoBody:
    """Lacks `step`."""

    @classmethod
    def open(cls, spec: Any, folder: Path) -> NoBody:
        return cls()

    def close(self) -> None:
        return None
