"""Single weights that are small are masked (Han et al. 2015), and RigL's drop (Evci et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import magnitudes, noisy
from coppice.methods.method import Context, parameter
from coppice.methods.pruning.bases.weights import WeightPruning


@dataclass(frozen=True)
class MagnitudeWeights(WeightPruning):
    """Masks the weights with the smallest absolute value."""

    why = "small weights matter little; what every other way to sparsity must beat"
    paper = "Han et al. 2015 (arXiv 1506.02626)"
    when: ClassVar[tuple[str, ...]] = ("periodic", "cubic")
    where: ClassVar[tuple[str, ...]] = ("all", "global", "erk", "uniform")

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """Absolute values of the weights, float32."""
        return magnitudes(context, elements)


@dataclass(frozen=True)
class RiglDrop(MagnitudeWeights):
    """Magnitude, and a little noise that decides among equal weights: what RigL drops before it regrows.

    `rigl` drops by itself; use this to make a dense network as sparse as `rigl` is to keep it.
    """

    why = "equal weights (zeros above all) go by chance and not by their place in the tensor"
    paper = "Evci et al. 2020, RigL (arXiv 1911.11134)"

    noise: float = parameter(1e-5, "standard deviation of what is added to the absolute values", low=0.0, high=1.0)

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """|w| + N(0, noise^2)."""
        sizes = super().importance(context, elements)
        return {name: noisy(size, self.noise, context.generator) for name, size in sizes.items()}
