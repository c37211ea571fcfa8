"""Cascade correlation: of a pool of trained candidates, the one that follows the error best comes in (Fahlman, Lebiere 1990)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.growth.cascade.candidate_pool import CandidatePool
from coppice.methods.growth.cascade.frozen_neurons import FrozenNeurons
from coppice.methods.measures.dag_site import DagSite, Neuron, dag_site_of, why_no_dag_site
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class Cascade(Method):
    """Adds the candidate whose output V follows the errors E best: S = sum_o |sum_p (V_p - mean V)(E_po - mean E_o)|.

    A candidate sees all inputs and all neurons that there are; its weights climb S by Adam on whole passes over `num_batches`
    batches (the paper uses quickprop). E is the derivative of each sample's loss by its outputs, which for squared errors is the
    residual error up to a factor. S is divided by N here. The new neuron comes last, feeds the outputs only, and starts with
    outgoing weights of zero (the function stays), or with the Newton step of each output alone (for squared errors its
    least-squares fit): minus the covariance with E over the variance of V and the loss's second derivative, times `step`; the
    outputs' biases take up the mean.

    With `freeze`, as published, what goes into neurons that are added while the adaptation lives is not trained any more.
    One neuron is offered at a time; its score is S.
    """

    kind = "grow"
    levels = ("channel",)
    why = "a feature detector for the error that is left, found without training the network itself"
    paper = "Fahlman and Lebiere 1990, the cascade-correlation learning architecture, eq. 1-2 (NIPS 2)"
    preserves = True
    batch_norm = "networks of single connections have none"
    cost = "a forward pass over the batches for each step of the candidates, and one backward to the outputs"
    when = ("plateau",)
    advises = True

    pool: int = parameter(8, "candidates", low=1, high=1000, log=True)
    steps: int = parameter(100, "ascent steps of the candidates; 0 leaves them random", low=0, high=10000)
    rate: float = parameter(0.05, "learning rate of the ascent", low=1e-4, high=1.0, log=True)
    outgoing: str = parameter("zero", "outgoing weights of the new neuron", choices=("zero", "fitted"))
    step: float = parameter(1.0, "fitted: fraction of the Newton step", low=1e-3, high=10.0, log=True)
    freeze: bool = parameter(True, "what goes into the new neurons is not trained", choices=(True, False))
    num_batches: int = parameter(8, "batches of a pass", low=1, high=10000)

    def promises(self) -> bool:
        """See `Method.promises`: fitted outgoing weights change the function."""
        return self.outgoing == "zero"

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element) or why_no_dag_site(context.network, element)
        if reason is None and dag_site_of(context.network, element).prefix:
            return "a cascade needs a network that is one DAG as a whole"
        return reason

    def companion(self, network: Network) -> FrozenNeurons | None:
        """Keeps what goes into new neurons as it is."""
        return FrozenNeurons() if self.freeze else None

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """The best candidate for each element."""
        scores, data = {}, {}
        for element in elements:
            site = dag_site_of(context.network, element)
            rows, biases = self._start(context, site)
            pool = CandidatePool(context, site, self.num_batches)
            rows, biases, correlations = pool.trained(rows, biases, self.steps, self.rate)
            best = int(correlations.argmax())
            outgoing, mean, gain = pool.fitted(rows[best], biases[best], self.step)
            require_finite("a candidate's correlation with the error", correlations, outgoing)
            scores[element.name] = correlations[best].reshape(1)
            data[element.name] = {"row": rows[best], "bias": biases[best], "outgoing": outgoing, "mean": mean, "gain": gain}
        return Measurement(scores, data, dict.fromkeys(scores, 1))

    def _start(self, context: Context, site: DagSite) -> tuple[Tensor, Tensor]:
        width = site.module.weight.shape[1]
        drawn = torch.rand(self.pool, width + 1, generator=context.generator, dtype=torch.float64) * 2 - 1
        return drawn[:, :width] / max(width, 1) ** 0.5 * 3**0.5, drawn[:, width]

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site, data = dag_site_of(context.network, element), measurement.data[element.name]
        inputs, outgoing = site.module.num_inputs, data["outgoing"]
        neuron = Neuron(
            data["row"][:inputs],
            data["row"][inputs:],
            data["bias"],
            torch.zeros(len(site.module.weight), dtype=torch.float64),
            torch.zeros_like(outgoing) if self.outgoing == "zero" else outgoing,
        )
        if self.outgoing == "zero":
            return site.plan(element, neuron, None)
        bias = (-outgoing * data["mean"]).to(site.module.weight.dtype)
        return replace(site.plan(element, neuron, float(data["gain"])), adjust={f"{site.prefix}out.bias": bias})
