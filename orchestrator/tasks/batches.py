"""Batches of a data set that lies in memory: order and augmentation follow from seed and epoch, nothing is done per image.

The random numbers of an epoch are drawn on the CPU, so that they are the same on every device, and go to the device at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coppice.orchestrator.seeds import generator
from coppice.orchestrator.tasks.dataset import Dataset

Batch = tuple[Tensor, Tensor]


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size >= 1 must hold, but got batch_size={batch_size}.")


def num_batches(num_samples: int, batch_size: int, ranks: int = 1) -> int:
    """Number of batches that `train_batches` yields.

    A last batch that would leave some rank with fewer than two samples is left out, for BatchNorm's sake.

    Raises:
        ValueError: a whole batch is too small for that many ranks.
    """
    _check(batch_size)
    if ranks > 1 and min(batch_size, num_samples) < 2 * ranks:
        raise ValueError(
            f"a batch must have two samples or more for each of the {ranks} ranks, but batch_size is {batch_size} and there are "
            f"{num_samples} samples; raise training.batch_size (it counts the samples of all ranks) or ask for fewer GPUs."
        )
    whole, rest = divmod(num_samples, batch_size)
    return whole + (rest >= 2 * ranks or (rest == 1 and whole == 0))


def train_batches(
    dataset: Dataset, batch_size: int, seed: int, epoch: int, augment: bool = True, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """The training data once, in random order, augmented and normalised.

    Args:
        dataset: the data; batches come from its device and stay there.
        batch_size: samples of a batch, of all ranks together; the last one may have fewer, see `num_batches`.
        seed: decides, together with `epoch`, on order and augmentation.
        epoch: which epoch.
        augment: whether the data set's augmentation is applied.
        share: (rank, ranks): every how manieth sample of each batch is this rank's. All ranks together have the samples that a
            single process has, each changed in the same way.

    Yields:
        inputs (n, *input_shape) float32 and their targets.
    """
    device, num = dataset.train.targets.device, len(dataset.train)
    draws = generator(seed, "train", epoch)
    order = torch.randperm(num, generator=draws).to(device)
    change = dataset.augment if augment else None
    choices = None if change is None else change.draw(num, draws).to(device)
    rank, ranks = share
    for number in range(num_batches(num, batch_size, ranks)):
        own = slice(number * batch_size + rank, (number + 1) * batch_size, ranks)
        index = order[own]
        inputs = dataset.train.inputs[index]
        if change is not None and choices is not None:
            inputs = change.apply(inputs, choices[own])
        yield dataset.normalise(inputs), dataset.train.targets[index]


def eval_batches(dataset: Dataset, split: str, batch_size: int = 512, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """All of a split in its own order, normalised; with `share` = (rank, ranks) every how manieth batch of it.

    Raises:
        KeyError: the data set has no such split.
    """
    _check(batch_size)
    samples = dataset.split(split)
    rank, ranks = share
    for start in range(rank * batch_size, len(samples), ranks * batch_size):
        part = slice(start, start + batch_size)
        yield dataset.normalise(samples.inputs[part]), samples.targets[part]


def statistics_batches(dataset: Dataset, batch_size: int, seed: int, epoch: int, count: int) -> Iterator[Batch]:
    """`count` full batches of training data without augmentation, the same ones for the same seed and epoch.

    Samples repeat only after all were used. A data set smaller than `batch_size` gives batches of all its samples.
    """
    _check(batch_size)
    num = len(dataset.train)
    size = min(batch_size, num)
    draws = generator(seed, "statistics", epoch)
    rounds = [torch.randperm(num, generator=draws) for _ in range(-(-count * size // num))]
    order = torch.cat(rounds).to(dataset.train.targets.device) if rounds else torch.empty(0, dtype=torch.int64)
    for number in range(count):
        index = order[number * size : (number + 1) * size]
        yield dataset.normalise(dataset.train.inputs[index]), dataset.train.targets[index]
