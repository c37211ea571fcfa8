"""From decoded images to a data set: validation split, normalisation, augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.orchestrator.tasks.augment import Augment
from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.splits import divide


@dataclass(frozen=True)
class ImageOptions:
    """What every data set of images lets its user choose.

    Attributes:
        val_fraction: how many of the training images are for validation, where the source has none for it.
        pad: zeros around training images before a random crop.
        flip: whether training images are mirrored half of the time.
        num_classes: None takes one more than the largest class.
    """

    val_fraction: float
    pad: int
    flip: bool
    num_classes: int | None = None


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of uint8 `images` (N, C, H, W), each (C, 1, 1) float32; deviation 0 becomes 1."""
    values = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in range(images.shape[1]):
        frequency = images[:, channel].flatten().bincount(minlength=256).double()
        frequency /= frequency.sum()
        mean = (frequency * values).sum()
        std = (frequency * (values - mean).square()).sum().sqrt()
        means.append(mean)
        stds.append(std if std > 0 else torch.ones_like(std))
    return torch.stack(means).float()[:, None, None], torch.stack(stds).float()[:, None, None]


def image_dataset(
    name: str, train: Split, val: Split | None, test: Split | None, seed: int, options: ImageOptions
) -> Dataset:
    """A classification of images.

    Args:
        name: of the data set.
        train: uint8 images (N, C, H, W) and classes; they stay uint8 and are normalised in batches.
        val: None takes `options.val_fraction` of the training samples, drawn by `seed`.
        test: kept apart from all of that.
        seed: decides which samples are for validation.
        options: validation, augmentation, number of classes.
    """
    num_classes = options.num_classes
    if num_classes is None:
        num_classes = max(int(s.targets.max()) for s in (train, val, test) if s is not None) + 1
    if val is None:
        train, val = divide(train, options.val_fraction, seed, "val")
    mean, std = channel_statistics(train.inputs)
    augment = Augment(options.pad, options.flip) if options.pad or options.flip else None
    shape = tuple(train.inputs.shape[1:])
    return Dataset(name, train, val, test, "classification", num_classes, shape, augment, mean, std)
