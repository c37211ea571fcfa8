"""An L1 penalty on BatchNorm scales, and channels with small scales go (network slimming, Liu et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.network import Network
from coppice.methods.pruning.bases.scales import ScalePenalty, ScalePruning
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Slimming(ScalePruning):
    """Adds `strength * sign(scale)` to the gradient of BatchNorm scales while training; score of a unit: its |scale|.

    Where several BatchNorms see a unit, `reduce` says what counts. The paper's global percentile is selection `global`.
    """

    why = "training itself drives the scales of channels that are not needed to zero"
    paper = "Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming, eq. 1 (arXiv 1708.06519)"

    strength: float = parameter(1e-4, "weight of the L1 penalty in the loss", low=0.0, high=0.1, log=True)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """See `Method.measure`."""
        return Measurement(self.unit_scales(context, elements), self.absorbed(context, elements))

    def companion(self, network: Network) -> Companion:
        """The L1 penalty on the scales, added while the network trains."""
        return L1Penalty(self.strength)


class L1Penalty(ScalePenalty):
    """Adds the sub-gradient of strength * sum of |scale| to the gradients of BatchNorm scales."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    @torch.no_grad()
    def after_backward(self, network: Network) -> None:
        """See `Companion.after_backward`."""
        for name, mask in self.sparse(network).items():
            scale = get_tensor(network.module, name)
            if scale.grad is not None:
                scale.grad.add_(scale.sign() * mask, alpha=self.strength)
