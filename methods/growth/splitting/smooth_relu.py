"""ReLU with a second derivative, for curvature: softplus in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

BETA = 3.0
"""Sharpness of the softplus that stands for ReLU, whose second derivative is 0 (code of Liu et al. 2019)."""


class SmoothReLU(TorchFunctionMode):
    """Within: ReLU and its kin are made of softplus, so that they have a second derivative."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        smooth = _SMOOTH.get(func, func)
        return smooth(*args, **(kwargs or {}))


def _softplus(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.softplus(x, beta=BETA)


def _softplus_(x: Tensor) -> Tensor:
    return x.copy_(F.softplus(x.clone(), beta=BETA))


def _leaky(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return negative_slope * x + (1.0 - negative_slope) * _softplus(x)


def _relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return _softplus(x) - _softplus(x - 6.0)


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    return _softplus(x) if max is None and not isinstance(min, Tensor) and min == 0 else torch.clamp(x, min, max)


_SMOOTH: dict[Any, Callable[..., Tensor]] = {
    F.relu: _softplus, torch.relu: _softplus, Tensor.relu: _softplus, torch.relu_: _softplus_, Tensor.relu_: _softplus_,
    F.leaky_relu: _leaky, F.relu6: _relu6, torch.clamp: _clamp, Tensor.clamp: _clamp,
}  # fmt: skip
