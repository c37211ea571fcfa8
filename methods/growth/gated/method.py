"""Growth and pruning by a trained number of open units: two sides of one companion."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.growth.gated.companion import GateCompanion, why_no_gate
from coppice.methods.growth.gated.gates import Gate
from coppice.methods.measures.site import site_of
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, PrunePlan


@dataclass(frozen=True)
class GatedUnits(Method):
    """What growing and pruning share. The kind says which side a class is; the parameters of both must be equal.

    Advised: so many units that `ahead` of them stand ready behind those that are (partly) open. Growing adds units whose gate
    is 0, last in the order; pruning removes the last ones of those whose gate is 0. Both are exact.
    """

    levels = ("channel",)
    preserves = True
    batch_norm = "gates are behind it, on the consumer's weights; new rows are scale 1, shift 0, mean 0, variance 1"
    when = ("learned",)
    advises = True

    strength: float = parameter(0.1, "weight of the size loss", low=0.0, high=100.0)
    lr: float = parameter(0.0, "of the trained size (plain gradient descent); 0 is the optimizer's", low=0.0, high=100.0)
    start: float = parameter(1.0, "fraction of the units that are open at the start", low=0.0, high=1.0)
    ahead: int = parameter(1, "units that stand ready behind the open ones", low=1, high=1024)
    scale: float = parameter(
        1.0, "deviation of new outgoing weights behind their gate, relative to kaiming's", low=1e-3, high=10.0, log=True
    )
    only: str = parameter("", "glob pattern of elements that have gates; empty: all that can")

    @abstractmethod
    def gate(self) -> Gate:
        """The gate with these parameters."""

    def companion(self, network: Network) -> Companion:
        """The gates; `begin` closes them."""
        return GateCompanion(self.gate())

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if not isinstance(context.companion, GateCompanion):
            return f"{type(self).__name__} needs its companion beside the training (Method.companion), but there is none"
        if context.companion.gate != self.gate():
            return "growing and pruning must have the same parameters: they share one trained size"
        return why_no_gate(context.network, element, self.only)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """How many units must come or go. Signals: `open`, the sum of open units, and `size`, that of all of them."""
        companion = context.companion
        assert isinstance(companion, GateCompanion), "accepted before"
        companion.sync(context.network)
        scores: dict[str, Tensor] = {}
        advised = {}
        states = {e.name: companion.states[e.name] for e in elements}
        open_units = {name: state.open(companion.gate) for name, state in states.items()}
        for element in elements:
            name, units = element.name, open_units[element.name]
            require_finite(f"the size of {name}", torch.tensor(units))
            wanted = min(math.ceil(units) + self.ahead, companion.gate.most_units(states[name].limit))
            missing = int(wanted) - element.size
            missing = missing if self.kind == "grow" else -missing
            if missing > 0:
                advised[name] = min(missing, most[name])
                ranks = states[name].ranks.double()
                scores[name] = torch.empty(0) if self.kind == "grow" else units - ranks
        signals = {"open": sum(open_units.values()), "size": float(sum(e.size for e in elements))}
        return Measurement(scores, {}, advised, signals)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan | PrunePlan:
        """See `Method.plan`."""
        if self.kind == "prune":
            return PrunePlan(element.name, tuple(units))
        site = site_of(context.network, element)
        assert isinstance(context.companion, GateCompanion), "accepted before"
        weight = context.network.module.get_submodule(site.consumer).weight
        assert isinstance(weight, Tensor)
        new = len(units) * site.taps
        fan_in = weight[0].numel() // weight.shape[1] * (weight.shape[1] + new)
        columns = torch.randn((new, len(weight), *weight.shape[2:]), generator=context.generator) * math.sqrt(2.0 / fan_in)
        context.companion.propose(element.name, (columns * self.scale).to(weight.dtype))
        seed = int(torch.randint(2**31, (), generator=context.generator))
        return GrowPlan(element.name, len(units), produce="kaiming", consume="zero", seed=seed)
