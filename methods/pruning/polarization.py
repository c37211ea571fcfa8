"""A penalty takes some BatchNorm scales to zero and leaves the others alone (polarization, Zhuang et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.network import Network
from coppice.methods.pruning.bases.scales import ScalePenalty, ScalePruning
from coppice.methods.surgery.tensors import get_tensor

BINS = 100
"""Bins of the histogram in which the threshold is looked for."""
HIGHEST = 0.2
"""A valley above this fraction of `upper` does not part two modes: nothing is advised there (the published code warns)."""
FIXED = 0.01
"""Fraction of `upper` that is the threshold where `threshold` is `fixed`."""


@dataclass(frozen=True)
class Polarization(ScalePruning):
    """Adds strength * R to the loss and keeps the scales g in [0, upper]; score of a unit: its scale.

    R(g) = t * |g|_1 - |g - mean(g)|_1 over all scales of units that may go, in the whole network; its gradient goes through the
    mean. Units whose scale is at or below a threshold of their own layer are those that it advises to remove: the first valley of
    the histogram of the layer's scales over [0, upper] (`grad`), or upper / 100 (`fixed`).

    A unit whose scale is 0 still sends on its shift: `removal: absorb` moves that into the consumer's bias. A scale that is
    negative or above `upper` when training begins is clamped at the first step.
    """

    why = "scales become 0 or stay large, with few in between, so that where to cut is clear and cutting costs little"
    paper = "Zhuang et al. 2020, Neuron-level Structured Pruning using Polarization Regularizer, eq. 2-4 (NeurIPS 2020)"
    where = ("all", "global")
    advises = True

    strength: float = parameter(1e-4, "weight of the penalty in the loss", low=0.0, high=0.1, log=True)
    t: float = parameter(1.2, "weight of the L1 part: a fraction of about 1/2 - t/4 of the scales stays at `upper`", -2.0, 2.0)
    upper: float = parameter(1.0, "largest scale", low=1e-3, high=10.0)
    threshold: str = parameter("grad", "first valley of the layer's histogram, or upper / 100", choices=("grad", "fixed"))

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scales, and how many are at or below their layer's threshold.

        The signal `between` is the fraction of units whose scale lies within the middle half of the range up to the largest one.
        """
        scales = self.unit_scales(context, elements)
        advised = {name: int((scale <= self.cut(scale)).sum()) for name, scale in scales.items()}
        every = torch.cat([*scales.values(), torch.zeros(0, dtype=torch.float64)])
        signals = {"between": fraction_between(every)} if len(every) else {}
        return Measurement(scales, self.absorbed(context, elements), advised, signals)

    def cut(self, scale: Tensor) -> float:
        """The threshold of a layer whose units have these scales; -1 where none would be right."""
        if self.threshold == "fixed":
            return FIXED * self.upper
        return valley(scale, self.upper)

    def companion(self, network: Network) -> Companion:
        """The penalty on the scales, added while the network trains."""
        return PolarizationPenalty(self.strength, self.t, self.upper)


class PolarizationPenalty(ScalePenalty):
    """Adds the sub-gradient of strength * (t * |g|_1 - |g - mean(g)|_1), and clamps g to [0, upper] after each step."""

    def __init__(self, strength: float, t: float, upper: float) -> None:
        super().__init__()
        self.strength, self.t, self.upper = strength, t, upper

    @torch.no_grad()
    def after_backward(self, network: Network) -> None:
        """d/dg_i = t sign(g_i) - sign(g_i - m) + mean_j sign(g_j - m), with m the mean of all."""
        tensors = {name: (get_tensor(network.module, name), mask) for name, mask in self.sparse(network).items()}
        if not tensors:
            return
        every = torch.cat([tensor[mask].double() for tensor, mask in tensors.values()])
        mean = every.mean()
        pull = (every - mean).sign().mean()
        for scale, mask in tensors.values():
            if scale.grad is not None:
                gradient = self.t * scale.sign() - (scale.double() - mean).sign() + pull
                scale.grad.add_((gradient * mask).to(scale), alpha=self.strength)

    @torch.no_grad()
    def after_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """Clamp the scales to [0, upper]."""
        for name, mask in self.sparse(network).items():
            scale = get_tensor(network.module, name)
            scale.copy_(torch.where(mask, scale.clamp(0.0, self.upper), scale))


def valley(scale: Tensor, upper: float) -> float:
    """The first valley of the histogram of scales over [0, upper]: where counts stop falling and do not fall further.

    Returns -1 where there is none, or only one that does not part two modes.
    """
    counts = torch.histc(scale.double().clamp(max=upper), BINS, 0.0, upper)
    change = counts.diff()
    turns = ((change[:-1] <= 0) & (change[1:] >= 0)).nonzero().flatten()
    if not len(turns):
        return -1.0
    cut = (int(turns[0]) + 1) * upper / BINS
    return cut if cut <= HIGHEST * upper else -1.0


def fraction_between(scale: Tensor) -> float:
    """Fraction of scales between a quarter and three quarters of the largest one."""
    share = scale / scale.max().clamp(min=1e-30)
    return float(((share > 0.25) & (share < 0.75)).double().mean())
