"""Units go by chance: the control arm of pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import require_finite
from coppice.methods.measures.units import held
from coppice.methods.method import Context, Measurement
from coppice.methods.pruning.bases.units import UnitPruning
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class RandomUnits(UnitPruning):
    """Removes channels, heads or groups drawn uniformly."""

    why = "what every score of units must beat"
    paper = "control arm"
    batch_norm = "removed with its channel"
    where = ("all", "global")

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Uniform numbers; the weights of a network that has diverged are not pruned."""
        for o, _ in (pair for e in elements for pair in held(context.network, e, ("produce",))):
            require_finite(o.tensor, get_tensor(context.network.module, o.tensor))
        scores = {e.name: torch.rand(e.size, generator=context.generator) for e in elements}
        return Measurement(scores, self.absorbed(context, elements))
