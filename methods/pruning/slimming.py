"""Network slimming: an L1 penalty on BatchNorm scales, and channels with small scales go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.companion import Companion
from methods.graph.values import Element, Occurrence
from methods.method import Context, Measurement, parameter
from methods.network import Network
from methods.pruning.units import UnitPruning, held
from methods.statistics import require_finite
from methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Slimming(UnitPruning):
    """Adds `strength * sign(scale)` to the gradient of BatchNorm scales while training; score of a unit: its |scale|.

    Where several BatchNorms see a unit, `reduce` says what counts. The paper's global percentile is selection `global`.
    """

    why = "training itself drives the scales of channels that are not needed to zero"
    paper = "Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming, eq. 1 (arXiv 1708.06519)"
    batch_norm = "needed: elements without one are refused"

    strength: float = parameter(1e-4, "weight of the L1 penalty in the loss", low=0.0, high=0.1, log=True)
    reduce: str = parameter("max", "how the scales of several BatchNorms become one score", choices=("max", "mean"))

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and not any(True for _ in _scales(context.network, element)):
            reason = "no BatchNorm scales its units"
        return reason

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """See `Method.measure`."""
        scores = {}
        for element in elements:
            columns = []
            for o, units in _scales(context.network, element):
                values = get_tensor(context.network.module, o.tensor).detach().abs().double().cpu()[units >= 0]
                seen = torch.zeros(element.size, dtype=torch.float64)
                columns.append(seen.scatter_reduce_(0, units[units >= 0], values, "amax"))
            stacked = torch.stack(columns)
            require_finite(f"scales of {element.name}", stacked)
            scores[element.name] = stacked.amax(0) if self.reduce == "max" else stacked.mean(0)
        return Measurement(scores, self.absorbed(context, elements))

    def companion(self, network: Network) -> Companion:
        """The penalty."""
        return L1Penalty(self.strength)


class L1Penalty(Companion):
    """Adds the sub-gradient of strength * sum of |scale| to the gradients of BatchNorm scales."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    @torch.no_grad()
    def after_backward(self, network: Network) -> None:
        """See `Companion.after_backward`."""
        penalised = set()
        for element in network.elements():
            if not element.permissible or element.shrink == "no":
                continue
            for o, units in _scales(network, element):
                scale = get_tensor(network.module, o.tensor)
                if scale.grad is not None and (o.tensor, element.name) not in penalised:
                    penalised.add((o.tensor, element.name))
                    scale.grad.add_(scale.sign() * (units >= 0).to(scale), alpha=self.strength)


def _scales(network: Network, element: Element) -> Iterator[tuple[Occurrence, Tensor]]:
    """Scales of the BatchNorms that see an element's units."""
    for o, units in held(network, element, ("scale",)):
        if isinstance(network.module.get_submodule(o.tensor.rpartition(".")[0]), nn.modules.batchnorm._BatchNorm):
            yield o, units
