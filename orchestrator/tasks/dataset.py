"""What a network learns from: data that lies in memory, on the device that trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from coppice.orchestrator.tasks.augment import Augment

Kind = Literal["classification", "regression"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and what is to be predicted for them.

    Attributes:
        inputs: (N, *input_shape), float32 or uint8.
        targets: (N,) int64 class numbers, or (N, num_outputs) float32.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"each input needs a target, but got {len(self.inputs)} inputs, {len(self.targets)} targets.")

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Tensor) -> Split:
        """The samples at `index` (n,), in that order."""
        index = index.to(self.targets.device)
        return Split(self.inputs[index], self.targets[index])

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A task's data, split in three.

    Attributes:
        name: what it is called in reports.
        train: what is trained on.
        val: what is searched on; no sample of it is in `train`.
        test: what is reported at the very end, or None.
        kind: whether the targets are class numbers or values.
        num_outputs: number of classes, or of values predicted per sample.
        input_shape: shape of one sample, without the batch dimension.
        augment: random changes of training batches, or None.
        mean: subtracted from every batch, broadcast against (N, *input_shape), in the units of the stored inputs; None: 0.
        std: what every batch is then divided by; None: 1.
        target_std: how much of the source's own unit one unit of a stored (standardised) regression target is.
    """

    name: str
    train: Split
    val: Split
    test: Split | None
    kind: Kind
    num_outputs: int
    input_shape: tuple[int, ...]
    augment: Augment | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    target_std: float = 1.0

    def __post_init__(self) -> None:
        for name in SPLITS:
            split = getattr(self, name)
            if split is not None:
                self._check(name, split)

    def _check(self, name: str, split: Split) -> None:
        where = f"dataset {self.name}, split {name}"
        if len(split) == 0:
            raise ValueError(f"{where}: at least one sample must be there, but there is none; give the split more data.")
        if tuple(split.inputs.shape[1:]) != self.input_shape:
            raise ValueError(f"{where}: inputs must have shape (N, *{self.input_shape}), but have {tuple(split.inputs.shape)}.")
        if split.inputs.is_floating_point() and not bool(split.inputs.isfinite().all()):
            raise ValueError(f"{where}: inputs must be finite, but some are NaN or infinite; remove or fill those samples.")
        if self.kind == "classification":
            self._check_classes(where, split.targets)
        elif tuple(split.targets.shape[1:]) != (self.num_outputs,) or not bool(split.targets.isfinite().all()):
            raise ValueError(
                f"{where}: targets must be finite and of shape (N, {self.num_outputs}), but have {tuple(split.targets.shape)}."
            )

    def _check_classes(self, where: str, targets: Tensor) -> None:
        if targets.dtype != torch.int64 or targets.ndim != 1:
            raise ValueError(f"{where}: classes must be int64 of shape (N,), but are {targets.dtype} of {tuple(targets.shape)}.")
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= self.num_outputs:
            raise ValueError(f"{where}: classes must lie in 0..{self.num_outputs - 1}, but lie in {low}..{high}.")

    def split(self, name: str) -> Split:
        """The split called `name`.

        Raises:
            KeyError: no such name, or this data set has no such split.
        """
        split = getattr(self, name, None) if name in SPLITS else None
        if not isinstance(split, Split):
            known = [s for s in SPLITS if getattr(self, s) is not None]
            raise KeyError(f"dataset {self.name} has the splits {known}, but {name!r} was asked for.")
        return split

    def normalise(self, inputs: Tensor) -> Tensor:
        """A copy of `inputs` (N, *input_shape) as float32 with mean and deviation applied: networks may change it in place."""
        if self.mean is None or self.std is None:
            return inputs.to(torch.float32, copy=True)
        return inputs.float().sub(self.mean).div_(self.std)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on `device`."""
        return dataclasses.replace(
            self,
            train=self.train.to(device),
            val=self.val.to(device),
            test=None if self.test is None else self.test.to(device),
            mean=None if self.mean is None else self.mean.to(device),
            std=None if self.std is None else self.std.to(device),
        )
