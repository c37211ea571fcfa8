"""Magnitude relative to the weights of the same tensor that are at least as large: one threshold fits all (LAMP, Lee 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import weights_of
from coppice.methods.method import Context
from coppice.methods.pruning.bases.weights import WeightPruning
from coppice.methods.surgery.masks import mask_of


@dataclass(frozen=True)
class Lamp(WeightPruning):
    """Score of a weight: w_u^2 / sum over v with |w_v| >= |w_u| of w_v^2, among the tensor's weights that are not masked.

    Within a tensor the order is that of the magnitudes, so that only the share of each tensor differs from global magnitude. The
    largest weight of every tensor scores 1, the highest score there is: no tensor is emptied before all are down to one weight.
    """

    why = "a small weight matters where all others are small too: sparsity is divided among layers without a hyper-parameter"
    paper = "Lee et al. 2021, eq. 4 (arXiv 2010.07611)"
    where = ("global",)

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """See the class; float64."""
        return {n: lamp(w, mask_of(context.network, n)) for n, w in weights_of(context, elements).items()}


def lamp(weight: Tensor, mask: Tensor) -> Tensor:
    """Scores at the tensor's shape, float64; those of masked weights, and of a tensor of zeros, are 0."""
    squares = (weight.double().square() * mask).flatten()
    order = squares.argsort(stable=True)
    ascending = squares[order]
    tails = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.where(tails > 0, ascending / tails.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return torch.empty_like(squares).index_copy_(0, order, scores).view(weight.shape)
