"""Network slimming: an L1 penalty on BatchNorm scales while training, then the smallest scales go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.network import Network
from methods.plan import PrunePlan
from methods.pruning.magnitude import REMOVALS
from methods.pruning.units import occurrences, reduce_units, removal_plan
from methods.statistics import require_finite
from methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Slimming(Method):
    """Adds `strength * sign(gamma)` to the gradient of every BatchNorm scale and removes channels with small |gamma|.

    The paper's global threshold is the selection `global`. A channel with several BatchNorms (a residual stream) is scored by
    the mean of its scales.
    """

    kind = "prune"
    levels = ("channel",)
    paper = "Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming, eq. 1"
    preserves = False
    batch_norm = "it works on its scales; elements without BatchNorm are refused"

    strength: float = parameter(1e-4, "factor of the L1 penalty", low=1e-6, high=1e-2, log=True)
    removal: str = parameter("immediate", "how units leave", choices=REMOVALS)

    def accepts(self, context: Context, element: Element) -> str | None:
        """As every method; the element needs a BatchNorm with scales."""
        reason = super().accepts(context, element)
        if reason is None and not any(self._is_scale(context.network, o.tensor, o.role) for o, _ in occurrences(context, element)):
            return "no BatchNorm scale belongs to it"
        return reason

    def _is_scale(self, network: Network, tensor: str, role: str) -> bool:
        owner = network.module.get_submodule(tensor.rpartition(".")[0])
        return role == "scale" and isinstance(owner, nn.modules.batchnorm._BatchNorm)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Mean |gamma| of each channel."""
        scores = {}
        for element in elements:
            total, count = torch.zeros(element.size), torch.zeros(element.size)
            for o, units in occurrences(context, element):
                if self._is_scale(context.network, o.tensor, o.role):
                    gamma = get_tensor(context.network.module, o.tensor).detach().abs().cpu().float()
                    total += reduce_units(gamma, units, element.size)
                    count += reduce_units(torch.ones_like(gamma), units, element.size)
            require_finite(f"the scales of {element.name}", total)
            scores[element.name] = total / count.clamp_min(1)
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Remove `units`."""
        return removal_plan(context, element, units, self.removal, None)

    def after_backward(self, network: Network) -> None:
        """The penalty's sub-gradient."""
        for module in network.module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None and module.weight.grad is not None:
                module.weight.grad.add_(module.weight.detach().sign(), alpha=self.strength)
