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
class Scale:
    """What values of a source became: (value - mean) / std; both are broadcast against (N, *shape of one value)."""

    mean: Tensor
    std: Tensor

    def to(self, device: torch.device | str) -> Scale:
        """The same on `device`."""
        return Scale(self.mean.to(device), self.std.to(device))

    def then(self, mean: Tensor, std: Tensor) -> Scale:
        """This one and after it another as one."""
        return Scale(self.mean + self.std * mean, self.std * std)


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
        input_scale: how the stored inputs came from the source's; None: they are the source's own.
        target_scale: how the stored targets of a regression came from the source's; None: they are the source's own.
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
    input_scale: Scale | None = None
    target_scale: Scale | None = None

    def __post_init__(self) -> None:
        self._check_normalisation()
        for name in SPLITS:
            split = getattr(self, name)
            if split is not None:
                self._check(name, split)

    def _check_normalisation(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            if not bool(values.isfinite().all()) or (name == "std" and not bool((values > 0).all())):
                wanted = "finite" if name == "mean" else "finite and above 0"
                raise ValueError(f"dataset {self.name}: {name} must be {wanted}, but is {values.tolist()}.")
            try:
                fits = torch.broadcast_shapes(values.shape, (1, *self.input_shape)) == (1, *self.input_shape)
            except RuntimeError:
                fits = False
            if not fits:
                shape = tuple(values.shape)
                raise ValueError(f"dataset {self.name}: {name} must fit inputs (N, *{self.input_shape}), but has shape {shape}.")

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
        values = inputs.to(torch.float32, copy=True) if self.mean is None else inputs.float().sub(self.mean)
        return values if self.std is None else values.div_(self.std)

    def whole_scale(self) -> Scale | None:
        """How what the network sees comes from the source's inputs; None: it sees float32 values as they are."""
        stored = self.train.inputs
        if self.mean is None and self.std is None:
            one = torch.ones(1, device=stored.device)
            return self.input_scale if self.input_scale or stored.dtype == torch.float32 else Scale(torch.zeros_like(one), one)
        mean = torch.zeros(1, device=stored.device) if self.mean is None else self.mean
        std = torch.ones(1, device=stored.device) if self.std is None else self.std
        return Scale(mean, std) if self.input_scale is None else self.input_scale.then(mean, std)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on `device`."""
        return dataclasses.replace(
            self,
            train=self.train.to(device),
            val=self.val.to(device),
            test=None if self.test is None else self.test.to(device),
            mean=None if self.mean is None else self.mean.to(device),
            std=None if self.std is None else self.std.to(device),
            input_scale=None if self.input_scale is None else self.input_scale.to(device),
            target_scale=None if self.target_scale is None else self.target_scale.to(device),
        )


def scales(dataset: Dataset) -> dict[str, Tensor]:
    """How the network's inputs, and the targets of a regression, come from the source's values.

    Returns:
        `inputs.mean`, `inputs.std`, `targets.mean`, `targets.std`: (value - mean) / std; those that change nothing are left out.
    """
    found = {"inputs": dataset.whole_scale(), "targets": dataset.target_scale}
    return {f"{of}.{name}": getattr(s, name).contiguous() for of, s in found.items() if s for name in ("mean", "std")}
