"""Channels, heads and groups with small weights go (Li et al. 2017; groups: DepGraph, Fang et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import require_finite
from coppice.methods.measures.units import held, sum_per_unit
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.pruning.bases.units import UnitPruning
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Magnitude(UnitPruning):
    """Score of a unit: the L2 norm of all weights that make it and that use it, over every tensor it lives in.

    `normaliser: mean` divides by the mean of the element's scores, so that layers of different sizes compare; `size` divides by
    the square root of the number of weights.
    """

    why = "units with small weights send little on"
    paper = "Li et al. 2017 (arXiv 1608.08710), over groups as in Fang et al. 2023, DepGraph (arXiv 2301.12900)"
    batch_norm = "its rows go with the unit; its scales do not count"

    normaliser: str = parameter("mean", "what scores are divided by", choices=("mean", "size", "none"))

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """See `Method.measure`."""
        scores = {}
        for element in elements:
            total = torch.zeros(element.size, dtype=torch.float64)
            entries = torch.zeros(element.size, dtype=torch.float64)
            for o, units in held(context.network, element, ("produce", "consume")):
                tensor = get_tensor(context.network.module, o.tensor).detach().double()
                total += sum_per_unit(element, tensor.square(), o.dim, units)
                entries += sum_per_unit(element, torch.ones_like(tensor), o.dim, units)
            require_finite(f"weights of {element.name}", total)
            norms = (total / entries.clamp(min=1)).sqrt() if self.normaliser == "size" else total.sqrt()
            scores[element.name] = norms / norms.mean().clamp(min=1e-30) if self.normaliser == "mean" else norms
        return Measurement(scores, self.absorbed(context, elements))
