"""Pruning by the scales of BatchNorm: which scales belong to which units, and the scores that they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element, Occurrence
from coppice.methods.measures.statistics import require_finite
from coppice.methods.measures.units import held
from coppice.methods.method import Context, parameter
from coppice.methods.network import Network
from coppice.methods.pruning.bases.units import UnitPruning
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class ScalePruning(UnitPruning):
    """Score of a unit: the absolute value of the BatchNorm scale that multiplies it."""

    batch_norm = "needed: elements without one are refused"

    reduce: str = parameter("max", "how the scales of several BatchNorms become one score", choices=("max", "mean"))

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and not any(True for _ in scales(context.network, element)):
            reason = "no BatchNorm scales its units"
        return reason

    def unit_scales(self, context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
        """|scale| of each unit, [size], float64 on the CPU, by element name; several BatchNorms become one by `reduce`.

        Raises:
            NonFiniteStatistics: some scale is not finite.
        """
        by_element = {}
        for element in elements:
            columns = []
            for o, units in scales(context.network, element):
                values = get_tensor(context.network.module, o.tensor).detach().abs().double().cpu()[units >= 0]
                seen = torch.zeros(element.size, dtype=torch.float64)
                columns.append(seen.scatter_reduce_(0, units[units >= 0], values, "amax"))
            stacked = torch.stack(columns)
            require_finite(f"scales of {element.name}", stacked)
            by_element[element.name] = stacked.amax(0) if self.reduce == "max" else stacked.mean(0)
        return by_element


def scales(network: Network, element: Element) -> Iterator[tuple[Occurrence, Tensor]]:
    """Scales of the BatchNorms that see an element's units, as `held` gives them."""
    for o, units in held(network, element, ("scale",)):
        if isinstance(network.module.get_submodule(o.tensor.rpartition(".")[0]), nn.modules.batchnorm._BatchNorm):
            yield o, units


class ScalePenalty(Companion):
    """A companion that acts on the sparse scales: all BatchNorm scales of units that may go."""

    def __init__(self) -> None:
        self._elements: tuple[Element, ...] | None = None
        self._masks: dict[str, Tensor] = {}

    def sparse(self, network: Network) -> dict[str, Tensor]:
        """Name of each tensor of scales -> bool mask of those that may go; computed anew only after the network has changed."""
        if self._elements is not network.elements():
            self._elements, self._masks = network.elements(), {}
            for element in self._elements:
                if element.permissible and element.shrink != "no" and element.moves:
                    for o, units in scales(network, element):
                        mask = (units >= 0).to(get_tensor(network.module, o.tensor).device)
                        self._masks[o.tensor] = self._masks.get(o.tensor, torch.zeros_like(mask)) | mask
        return self._masks
