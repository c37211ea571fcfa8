"""The number of neurons is a weight of the network, trained with all others (Radhakrishnan et al. 2025, auxiliary weight)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from coppice.methods.growth.gated.gates import SizeGate
from coppice.methods.growth.gated.method import GatedUnits
from coppice.methods.method import parameter


@dataclass(frozen=True)
class SizeWeight(GatedUnits):
    """Unit m = 1, 2, ... sends theta(N - m + 1) times what it would; N descends the gradient of loss + strength (N - N_inf)^2.

    theta(n) = 0 below 0, sin^2(pi n / (2 spread)) up to `spread`, 1 above. Neurons appear where N passes the size of the layer
    and vanish where their theta is 0; how many is `advised` (trigger `learned`, amount `advised`). Use the pruning side with the
    same parameters and they share N.

    The ramp is flat at both ends. With `spread` 1, the paper's, only one unit is between 0 and 1, and the data cannot move N
    over a whole number: the size loss must (the paper starts with it), and where both are balanced on the far side N stalls
    there. With a spread above 1 some unit always feels the data; a network that starts with all units then begins with the last
    ones partly closed. Parameters with which N could never move are refused when training begins. The gradient is that of a mean
    loss, N counts units: where steps of N are above 1 (strength * lr near 1), lower `lr`.

    Left out: N as one more input of every neuron (the paper's formula has it); an architecture that it is in could not be used
    without N. Ours: one N for each layer, in networks with several, N_inf relative to the size at the start, and N kept between
    0 and the units that there are.
    """

    kind: ClassVar[Literal["grow", "prune"]] = "grow"
    why = "gradient descent itself finds the size that the data are worth"
    paper = "Radhakrishnan et al. 2025, Growing neural networks, auxiliary weight, published notebooks (arXiv 2501.18012)"
    cost = "no pass; beside each training step the product of gradients and raw weights of partly open units"

    companion_key = "size_weight"

    target: float = parameter(1.5, "N_inf, the size that the size loss draws to", low=0.0, high=1e5)
    target_of: str = parameter("seed", "whether N_inf is a multiple of the first size or units", choices=("seed", "units"))
    spread: float = parameter(1.0, "units over which the ramp goes from 0 to 1", low=0.25, high=64.0)

    def gate(self) -> SizeGate:
        """See `GatedUnits.gate`."""
        settings = self.strength, self.lr, self.start, False, self.only
        return SizeGate(*settings, self.target, self.target_of, self.spread)


@dataclass(frozen=True)
class SizeWeightPruning(SizeWeight):
    """The pruning side of `size_weight`: units whose theta is 0 go.

    The last ones of the order go first, and `ahead` of them stay. With an amount other than `advised` it may try to take open
    ones: those changes are rolled back, since it promises to keep the function.
    """

    kind = "prune"
