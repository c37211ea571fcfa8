"""Single weights go by chance: the control arm of every other way to sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import weights_of
from coppice.methods.method import Context
from coppice.methods.pruning.bases.weights import WeightPruning


@dataclass(frozen=True)
class RandomWeights(WeightPruning):
    """Masks weights drawn uniformly."""

    why = "what every score of weights must beat; with erk or uniform, the random sparse network to start from"
    paper = "control arm"
    where = ("all", "erk", "uniform")

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """Uniform random numbers at each tensor's shape."""
        tensors = weights_of(context, elements)
        return {n: torch.rand(w.shape, generator=context.generator).to(w.device) for n, w in tensors.items()}
