"""A trained controller opens a layer neuron by neuron (Radhakrishnan et al. 2025, controller mask)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from coppice.methods.growth.gated.gates import ControllerGate
from coppice.methods.growth.gated.method import GatedUnits
from coppice.methods.method import parameter


@dataclass(frozen=True)
class Controller(GatedUnits):
    """t = sin^2(pi c / 2) of N_max units are open: the first floor(t N_max) fully, the next one by the fraction that is left.

    c descends the gradient of data loss + strength (c - 1)^2. Neurons appear where the open ones pass the size of the layer, up
    to N_max, and vanish where their gate is 0; how many is `advised` (trigger `learned`, amount `advised`). Use the pruning side
    with the same parameters and they share c. The size loss alone would open all of N_max; only the data can hold it.

    The published code has two faults, both corrected here: its mask has one entry, which is a gate on the whole layer, and the
    data loss is never differentiated with respect to c, which so follows (c - 1)^2 alone. `detach` gives that second variant,
    for comparison. The slope of t is 0 at c = 0 and c = 1, where only the size loss moves c, and that of the rounded-down entries
    is 0 by definition: the data reach c through the one unit that is opening, with its derivative to the right at whole numbers.

    Left out: c as one more input (an architecture with it could not be used without c). Ours: one c for each layer, plain
    gradient descent where the published code has Adam, N_max relative to the size at the start.
    """

    kind: ClassVar[Literal["grow", "prune"]] = "grow"
    why = "one number decides how much of a layer is used, and the data have a say in it"
    paper = "Radhakrishnan et al. 2025, Growing neural networks, controller mask, corrected (arXiv 2501.18012)"
    cost = "no pass; beside each training step the product of gradients and raw weights of the unit that is opening"

    companion_key = "controller"

    strength: float = parameter(0.32, "weight of the size loss", low=0.0, high=100.0)
    most: float = parameter(2.0, "N_max as a multiple of the first size", low=1.0, high=1e4)
    detach: bool = parameter(False, "the data do not reach c, as in the published code", choices=(False, True))

    def gate(self) -> ControllerGate:
        """See `GatedUnits.gate`."""
        return ControllerGate(self.strength, self.lr, self.start, self.detach, self.only, self.most)


@dataclass(frozen=True)
class ControllerPruning(Controller):
    """The pruning side of `controller`: units whose gate is 0 go, the last ones of the order first; `ahead` of them stay."""

    kind = "prune"
