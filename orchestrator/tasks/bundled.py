"""Data sets that lie inside scikit-learn's wheel: no download, no data_dir."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn import datasets
from torch import Tensor

from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.images import ImageOptions, image_dataset
from coppice.orchestrator.tasks.splits import divide
from coppice.orchestrator.tasks.tables import TEST_FRACTION, TEST_SEED, VAL_FRACTION, table_dataset


def digits(data_dir: Path | None, seed: int, val_fraction: float = VAL_FRACTION, pad: int = 0) -> Dataset:
    """Handwritten digits: 1,797 images of 1x8x8 with values 0..16, 10 classes.

    Args:
        data_dir: not used.
        seed: decides which samples are for validation; the test samples are always the same.
        val_fraction: of what is not test.
        pad: zeros around training images before a random crop.
    """
    data = datasets.load_digits()
    images = torch.from_numpy(data.images).to(torch.uint8)[:, None]
    rest, test = divide(Split(images, torch.from_numpy(data.target).long()), TEST_FRACTION, TEST_SEED, "test")
    return image_dataset("digits", rest, None, test, seed, ImageOptions(val_fraction, pad, flip=False))


def wine(data_dir: Path | None, seed: int, val_fraction: float = VAL_FRACTION) -> Dataset:
    """Wines by their cultivar: 178 samples, 13 features, 3 classes. `data_dir` is not used."""
    inputs, targets = _arrays(datasets.load_wine(return_X_y=True))
    return table_dataset("wine", Split(inputs, targets.long()), None, seed, val_fraction)


def breast_cancer(data_dir: Path | None, seed: int, val_fraction: float = VAL_FRACTION) -> Dataset:
    """Tumours, malignant or benign: 569 samples, 30 features, 2 classes. `data_dir` is not used."""
    inputs, targets = _arrays(datasets.load_breast_cancer(return_X_y=True))
    return table_dataset("breast_cancer", Split(inputs, targets.long()), None, seed, val_fraction)


def diabetes(data_dir: Path | None, seed: int, val_fraction: float = VAL_FRACTION) -> Dataset:
    """Progression of diabetes after a year: 442 samples, 10 features, 1 value. `data_dir` is not used."""
    inputs, targets = _arrays(datasets.load_diabetes(return_X_y=True))
    return table_dataset("diabetes", Split(inputs, targets[:, None]), None, seed, val_fraction)


def _arrays(data: tuple[object, object]) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(data[0]), torch.as_tensor(data[1])
