"""What can be put into a network: how each kind is made and how it starts."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.surgery.inserted import Residual, take_away_behind

KINDS = {
    "identity_linear": "Linear with the identity as its weight, behind ReLU followed by another ReLU (Net2Deeper)",
    "identity_conv": "convolution with a Dirac kernel, behind ReLU followed by another ReLU (Net2Deeper)",
    "residual_linear": "x + W2 relu(W1 x) with W2 = 0",
    "residual_conv": "x + conv2(relu(conv1(x))) with conv2 = 0",
    "duplicate": "copy of a residual block, its last scale (or weight) zero, uniform or normal (AutoGrow)",
}
ARGUMENTS = {
    "identity_linear": ("batch_norm",),
    "identity_conv": ("batch_norm",),
    "residual_linear": ("width", "batch_norm"),
    "residual_conv": ("width", "batch_norm"),
    "duplicate": ("last",),
}
"""What a plan may say for each kind: `width` (inner channels; default as many as come in), `batch_norm` (a flag; for the
identities also `{"mean": [...], "var": [...]}`, the statistics of each channel there), `last` (`zero`, `uniform`, `normal`)."""


def check_arguments(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError where a plan says something that its kind does not take."""
    unknown = sorted(set(arguments) - set(ARGUMENTS[kind]))
    if unknown:
        raise ValueError(f"{kind} takes the arguments {list(ARGUMENTS[kind])}, but got {unknown} as well.")
    width = arguments.get("width", 1)
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"width must be a whole number >= 1, but is {width!r}.")
    if arguments.get("last", "zero") not in ("zero", "uniform", "normal"):
        raise ValueError(f"last must be zero, uniform or normal, but is {arguments['last']!r}.")
    if isinstance(arguments.get("batch_norm"), Mapping):
        held = arguments["batch_norm"]
        if not kind.startswith("identity") or set(held) != {"mean", "var"} or len(held["mean"]) != len(held["var"]):
            raise ValueError(
                f"batch_norm must be a flag or, for an identity, mean and var of equal length, but {kind} got {sorted(held)}."
            )


def make(holder: nn.Module, kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The module of an edit, with torch's initial values (a copy: with those of the block).

    Args:
        holder: the module it goes behind.
        kind: one of `KINDS`.
        arguments: of the edit: `size` (channels that come in), `relu`, `width`, `batch_norm`.
    """
    if kind == "duplicate":
        made = copy.deepcopy(holder)
        take_away_behind(made)
        return made
    if kind not in KINDS:
        raise ValueError(f"the kind of an insertion must be one of {list(KINDS)}, but is {kind!r}.")
    size = arguments["size"]
    width = arguments.get("width", size)
    conv = kind.endswith("conv")
    inner = width if kind.startswith("residual") else size
    norm: nn.Module | None = None
    if arguments.get("batch_norm"):
        norm = nn.BatchNorm2d(inner) if conv else nn.BatchNorm1d(inner)
    if kind.startswith("residual"):
        return Residual(_layer(size, width, conv), norm, _layer(width, size, conv))
    return nn.Sequential(_layer(size, size, conv), *([norm] if norm else []), *([nn.ReLU()] if arguments.get("relu") else []))


def _layer(size: int, width: int, conv: bool) -> nn.Module:
    return nn.Conv2d(size, width, 3, padding=1) if conv else nn.Linear(size, width)


@torch.no_grad()
def initialise(made: nn.Module, kind: str, arguments: Mapping[str, Any], generator: torch.Generator) -> None:
    """Give an insertion other than a copy its first values."""
    if isinstance(made, Residual):
        weight, bias = made.first.weight, made.first.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        weight.copy_(torch.randn(weight.shape, generator=generator) * math.sqrt(2.0 / weight[0].numel()))
        bias.zero_()
        return
    assert isinstance(made, nn.Sequential)
    layer = made[0]
    assert isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.bias is not None
    (nn.init.eye_ if kind.endswith("linear") else nn.init.dirac_)(layer.weight)
    layer.bias.zero_()
    if arguments.get("batch_norm"):
        norm = made[1]
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        _neutral(norm, arguments["batch_norm"])


def _neutral(norm: nn.modules.batchnorm._BatchNorm, given: Any) -> None:
    """Scale and shift undo the normalisation: exact in evaluation, and in training on batches of the given statistics."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    if isinstance(given, Mapping):
        if len(given["mean"]) != len(mean):
            raise ValueError(f"batch_norm must give statistics of {len(mean)} channels, but gives {len(given['mean'])}.")
        mean.copy_(torch.tensor(given["mean"], dtype=torch.float64))
        var.copy_(torch.tensor(given["var"], dtype=torch.float64))
    norm.weight.copy_((var + norm.eps).sqrt())
    norm.bias.copy_(mean)


@torch.no_grad()
def initialise_ends(ends: Sequence[nn.Module], how: str, generator: torch.Generator) -> None:
    """Set weight and bias of the modules that end a copied block's branches."""
    for end in ends:
        for parameter in (end._parameters.get("weight"), end._parameters.get("bias")):
            if parameter is None:
                continue
            draw = torch.randn if how == "normal" else torch.rand
            parameter.copy_(draw(parameter.shape, generator=generator)) if how != "zero" else parameter.zero_()
