"""Splits of samples that are drawn from a seed and keep the classes in proportion."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from coppice.orchestrator.seeds import generator
from coppice.orchestrator.tasks.dataset import Dataset, Split


def divide(split: Split, fraction: float, seed: int, label: str) -> tuple[Split, Split]:
    """Divide into what stays and `fraction` that is set apart, each class in proportion; both keep their order.

    Args:
        split: the samples; int64 targets are classes.
        fraction: how much is set apart.
        seed: decides which samples, together with `label`.
        label: what is set apart, "val" or "test": the two are drawn independently.

    Raises:
        ValueError: `fraction` is out of range or leaves one of the two parts empty.
    """
    num = round(fraction * len(split))
    if not 0 < fraction < 1 or not 0 < num < len(split):
        raise ValueError(
            f"0 < {label}_fraction < 1 must hold and leave samples on both sides, but got {fraction} of {len(split)} samples."
        )
    order = torch.randperm(len(split), generator=generator(seed, label))
    ranks = _class_ranks(split.targets, order, relative=True)
    apart = torch.zeros(len(split), dtype=torch.bool)
    apart[order[ranks.argsort(stable=True)[:num]]] = True
    return split.take((~apart).nonzero()[:, 0]), split.take(apart.nonzero()[:, 0])


def limit(split: Split, num: int, seed: int) -> Split:
    """At most `num` samples, of each class the same number as far as they last; in their order.

    Raises:
        ValueError: `num` is below 1.
    """
    if num < 1:
        raise ValueError(f"a limit on samples must be at least 1, but got {num}.")
    if num >= len(split):
        return split
    order = torch.randperm(len(split), generator=generator(seed, "limit"))
    chosen = order[_class_ranks(split.targets, order, relative=False).argsort(stable=True)[:num]]
    return split.take(chosen.sort().values)


def limited(dataset: Dataset, seed: int, train: int | None = None, evaluation: int | None = None) -> Dataset:
    """The data set with at most `train` training samples, and at most `evaluation` in each of the other splits."""

    def at_most(split: Split, num: int | None) -> Split:
        return split if num is None else limit(split, num, seed)

    return dataclasses.replace(
        dataset,
        train=at_most(dataset.train, train),
        val=at_most(dataset.val, evaluation),
        test=None if dataset.test is None else at_most(dataset.test, evaluation),
    )


def _class_ranks(targets: Tensor, order: Tensor, relative: bool) -> Tensor:
    """For each sample of `order` its place among those of its class: 0, 1, ... or, relative, within (0, 1)."""
    if targets.dtype != torch.int64:
        return torch.arange(len(order)).double()
    classes = targets.cpu()[order]
    by_class = classes.argsort(stable=True)
    counts = classes.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty(len(order), dtype=torch.float64)
    ranks[by_class] = (torch.arange(len(order)) - starts[classes[by_class]]).double()
    return (ranks + 0.5) / counts[classes] if relative else ranks
