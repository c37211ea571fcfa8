"""Losses: (output of the network, target) -> mean loss over the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from coppice.methods.network import LossFunction
from coppice.orchestrator.config.models import Named
from coppice.orchestrator.tasks.dataset import Dataset
from coppice.references import resolve

LOSSES = {
    "cross_entropy": "coppice.orchestrator.tasks.losses:cross_entropy",
    "mse": "coppice.orchestrator.tasks.losses:mse",
}
KINDS = {"cross_entropy": "classification", "mse": "regression"}


def cross_entropy(label_smoothing: float = 0.0) -> LossFunction:
    """Cross entropy of (N, num_classes) scores and (N,) class numbers, smoothed as in Szegedy et al. 2016, section 7."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"0 <= label_smoothing < 1 must hold, but got label_smoothing={label_smoothing}.")

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, label_smoothing=label_smoothing)

    return loss


def mse() -> LossFunction:
    """Mean squared error of (N, num_outputs) values, over samples and outputs."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if output.shape != target.shape:
            raise ValueError(f"output and target must have the same shape, not {tuple(output.shape)}, {tuple(target.shape)}.")
        return functional.mse_loss(output, target)

    return loss


def loss_for(dataset: Dataset, name: Named | str | Mapping[str, Any] | None = None) -> LossFunction:
    """The loss of a task.

    Args:
        dataset: classification trains with cross entropy and regression with mean squared error unless `name` says otherwise.
        name: a key of `LOSSES`; `{key: {argument: value}}`; or the same with `package.module:attribute` of your own. Without
            arguments your attribute is the loss itself (a class is instantiated); with arguments it is called with them first.

    Raises:
        ValueError: unknown name, the loss does not suit the kind of data set, or its arguments are wrong.
    """
    if name is None:
        name = "cross_entropy" if dataset.kind == "classification" else "mse"
    named = name if isinstance(name, Named) else Named.model_validate(name)
    key, arguments = named.name, named.arguments
    loss = resolve("loss", key, LOSSES)
    if KINDS.get(key, dataset.kind) != dataset.kind:
        raise ValueError(f"loss {key} is for {KINDS[key]}, but dataset {dataset.name} is a {dataset.kind}; choose another loss.")
    if not (key in LOSSES or arguments or isinstance(loss, type)):
        return loss
    try:
        return loss(**arguments)
    except TypeError as error:
        raise ValueError(f"loss {key}: its arguments must fit, but got {arguments}: {error}") from error
