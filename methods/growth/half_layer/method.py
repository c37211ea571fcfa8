"""A neuron between the inputs and everything else of a DAG: layer one half (Shemyakova and Khashin 2021)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.growth.half_layer.schur import ranked_neurons
from coppice.methods.measures.dag_site import DagSite, Neuron, dag_site_of, why_no_dag_site
from coppice.methods.measures.quadratic import Flat
from coppice.methods.measures.statistics import mean_loss, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan

PARTS = ("from_inputs", "bias", "to_neurons", "to_outputs")


@dataclass(frozen=True)
class HalfLayer(Method):
    """Adds one neuron that all inputs feed and that feeds all other neurons and all outputs.

    `random` is the published choice: `draws` times all of its weights are drawn from [-1, 1], and the draw with the smallest
    loss is kept, even where that is larger than before (training afterwards is meant to repair it). `schur` (ours) draws only
    what goes into the neuron and finds its outgoing weights by a Newton step in which all existing weights take part:
    -S^-1 gamma with S = J_c^T J_c - B^T H^-1 B and gamma = g_c - B^T H^-1 g, where J_c is the Jacobian of the new weights and
    B = J^T J_c; of the `tried` draws with the largest predicted decrease gamma^T S^-1 gamma / 2 the one with the smallest loss
    is kept, its outgoing weights backed off (1, 0.3, 0.1, 0.03, 0.01). It offers nothing where no draw makes the loss smaller.

    One neuron is offered at a time. Its score is the decrease of the loss, negative for an increase.
    """

    kind = "grow"
    levels = ("channel",)
    why = "a neuron where it can take part in everything, so that fewer connections are needed"
    paper = "Shemyakova and Khashin 2021 (arXiv 2108.02231), layer 1/2; the Schur selection is ours"
    preserves = False
    batch_norm = "networks of single connections have none"
    cost = "a forward pass a draw; with schur the Jacobian of every sample, and a matrix product with it a draw"
    when = ("plateau",)
    advises = True

    choice: str = parameter("random", "how the neuron is found", choices=("random", "schur"))
    draws: int = parameter(100, "random neurons that are looked at", low=1, high=10000, log=True)
    tried: int = parameter(4, "of these, how many schur tries in full", low=1, high=100)
    spread: float = parameter(6.0, "schur: largest slope of a neuron, in standard deviations of the inputs", low=0.1, high=100.0)
    damping: float = parameter(1e-5, "schur: added to the curvature, times its diagonal", low=1e-12, high=1.0, log=True)
    num_batches: int = parameter(8, "batches that losses and curvature are taken over", low=1, high=10000)
    largest: int = parameter(3000, "schur: weights that a network may have (H has their square)", low=1, high=20000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element) or why_no_dag_site(context.network, element)
        if reason is not None:
            return reason
        if self.choice == "schur" and dag_site_of(context.network, element).prefix:
            return "the Schur selection needs a network that is one DAG as a whole; use choice random"
        if self.choice == "schur" and (size := len(Flat.of(context.network))) > self.largest:
            return f"the curvature of {size} weights is too large for schur (at most {self.largest}); use choice random"
        return None

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """The best neuron for each element, and by how much it makes the loss smaller."""
        before = mean_loss(context, self.num_batches) if elements else torch.zeros(())
        scores, data = {}, {}
        for element in elements:
            site = dag_site_of(context.network, element)
            trial = WithNeuron(context, element, site, self.num_batches)
            best = self._random(context, site, trial) if self.choice == "random" else self._schur(context, site, trial, before)
            if best is None:
                continue
            neuron, loss = best
            require_finite(f"the loss with a new neuron of {element.name}", loss)
            scores[element.name] = (before - loss).reshape(1)
            data[element.name] = {part: getattr(neuron, part) for part in PARTS}
        return Measurement(scores, data, dict.fromkeys(scores, 1), {"loss": float(before)})

    def _random(self, context: Context, site: DagSite, trial: WithNeuron) -> tuple[Neuron, Tensor] | None:
        drawn = [random_neuron(site, context.generator) for _ in range(self.draws)]
        return min(((neuron, trial.loss(neuron)) for neuron in drawn), key=lambda tried: float(tried[1]))

    def _schur(self, context: Context, site: DagSite, trial: WithNeuron, before: Tensor) -> tuple[Neuron, Tensor] | None:
        neurons = ranked_neurons(
            context, site, self.draws, spread=self.spread, damping=self.damping, num_batches=self.num_batches
        )
        best: tuple[Neuron, Tensor] | None = None
        for neuron in neurons[: self.tried]:
            for back in (1.0, 0.3, 0.1, 0.03, 0.01):
                shorter = Neuron(
                    neuron.from_inputs, neuron.from_neurons, neuron.bias, neuron.to_neurons * back, neuron.to_outputs * back
                )
                loss = trial.loss(shorter)
                if loss < (before if best is None else best[1]):
                    best = (shorter, loss)
        return best

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site, data = dag_site_of(context.network, element), measurement.data[element.name]
        none = torch.zeros(len(data["to_neurons"]), dtype=torch.float64)
        return site.plan(element, Neuron(from_neurons=none, **data), float(measurement.scores[element.name][0]))


def random_neuron(site: DagSite, generator: torch.Generator) -> Neuron:
    """All weights from [-1, 1]."""
    inputs, neurons, outputs = site.module.num_inputs, len(site.module.weight), len(site.module.out.weight)
    drawn = torch.rand(inputs + 1 + neurons + outputs, generator=generator, dtype=torch.float64) * 2 - 1
    from_inputs, bias, to_neurons, to_outputs = drawn.split([inputs, 1, neurons, outputs])
    return Neuron(from_inputs, torch.zeros(neurons, dtype=torch.float64), bias[0], to_neurons, to_outputs)


class WithNeuron:
    """A copy of the network with one more neuron, whose weights are set again and again."""

    def __init__(self, context: Context, element: Element, site: DagSite, num_batches: int) -> None:
        old = context.network
        module = copy.deepcopy(old.module)
        network = Network(module, old.factory, old.arguments, old.example_inputs, masks=old.masks)
        self._context = Context(network, context.batches, context.loss, context.generator, ranks=context.ranks)
        self._num_batches = num_batches
        first = random_neuron(site, torch.Generator().manual_seed(0))
        apply(self._context.network, site.plan(element, first, None))
        self._module = dag_site_of(self._context.network, element).module

    @torch.no_grad()
    def loss(self, neuron: Neuron) -> Tensor:
        """Mean loss with this neuron, a float64 scalar."""
        module = self._module
        inputs, last = module.num_inputs, len(module.weight) - 1
        module.weight[last, :inputs] = neuron.from_inputs.to(module.weight)
        module.bias[last] = neuron.bias.to(module.weight)
        module.weight[:last, inputs + last] = neuron.to_neurons.to(module.weight)
        module.out.weight[:, inputs + last] = neuron.to_outputs.to(module.weight)
        return mean_loss(self._context, self._num_batches)
