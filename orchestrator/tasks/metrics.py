"""How good a network is on a split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coppice.methods.network import LossFunction
from coppice.methods.ranks import ALONE, Ranks
from coppice.orchestrator.tasks.batches import eval_batches
from coppice.orchestrator.tasks.dataset import Dataset


@torch.no_grad()
def evaluate(
    module: nn.Module, dataset: Dataset, split: str, loss: LossFunction, batch_size: int = 512, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Loss and quality of `module` on a split, in eval mode; each submodule's mode is put back.

    Args:
        module: takes (n, *input_shape) float32 on the data set's device.
        dataset: the data.
        split: "train", "val" or "test".
        loss: mean loss over a batch.
        batch_size: samples at a time; changes nothing but rounding and memory.
        ranks: with whom the batches are shared out.

    Returns:
        `loss`, and for classification `accuracy` (fraction), for regression `r2` (1 - squared error / variance, both summed
        over the outputs) and `rmse` (in the source's unit of the targets). Values that are not finite are returned as they are.

    Raises:
        KeyError: the data set has no such split.
        ValueError: a regression whose output differs from the targets in shape.
    """
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        return _measure(module, dataset, split, loss, batch_size, ranks)
    finally:
        for submodule, training in modes:
            submodule.training = training


def _measure(
    module: nn.Module, dataset: Dataset, split: str, loss: LossFunction, batch_size: int, ranks: Ranks
) -> dict[str, float]:
    targets = dataset.split(split).targets
    total = torch.zeros((), dtype=torch.float64, device=targets.device)
    quality = torch.zeros_like(total)
    for inputs, target in eval_batches(dataset, split, batch_size, (ranks.rank, ranks.size)):
        output = module(inputs)
        total += loss(output, target) * len(target)
        quality += _correct(output, target) if dataset.kind == "classification" else _squared_error(output, target)
    ranks.sum(total, quality)
    metrics = {"loss": float(total) / len(targets)}
    if dataset.kind == "classification":
        return metrics | {"accuracy": float(quality) / len(targets)}
    variance = float((targets - targets.mean(0)).double().square().sum())
    rmse = (float(quality) / targets.numel()) ** 0.5 * dataset.target_std
    return metrics | {"r2": 1 - float(quality) / variance if variance else float("nan"), "rmse": rmse}


def _correct(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).sum()


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    if output.shape != target.shape:
        raise ValueError(f"the network must return {tuple(target.shape)} for such targets, but returns {tuple(output.shape)}.")
    return (output - target).double().square().sum()
