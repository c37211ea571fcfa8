"""Neurons of a DAG that do nothing go: constant ones are folded into biases (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.dag_site import dag_site_of, why_no_dag_site
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.networks.dag import DAG, FUNCTIONS
from coppice.methods.plan import PrunePlan


@dataclass(frozen=True)
class DeadNeurons(Method):
    """Removes neurons that nothing feeds (what they say is constant and goes into the biases behind them) or that feed nothing.

    A neuron fed by nothing but such constants is one as well, and one that feeds nothing but unused neurons is unused. Weights of
    zero count as connections: only masks decide. Others are never removed, whatever the amount asks.
    """

    kind = "prune"
    levels = ("channel",)
    why = "what pruning of connections leaves without use costs parameters and time"
    paper = "ours; what removal of single connections (Shemyakova and Khashin 2021, arXiv 2108.02231) leaves behind"
    preserves = True
    batch_norm = "networks of single connections have none"
    when = ("periodic",)
    advises = True

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        return super().accepts(context, element) or why_no_dag_site(context.network, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """0 for neurons that do nothing, at least 1 for others; elements without any of them are left out."""
        scores, data, advised = {}, {}, {}
        for element in elements:
            site = dag_site_of(context.network, element)
            require_finite(element.name, site.module.weight, site.module.bias)
            dead, constants = idle(site.module)
            if bool(dead.any()):
                scores[element.name] = 1 + site.module.weight.detach().abs().sum(1).double().cpu()
                scores[element.name][dead] = 0.0
                data[element.name] = {"dead": dead, "constants": constants}
                advised[element.name] = int(dead.sum())
        return Measurement(scores, data, advised)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """See `Method.plan`."""
        data = measurement.data[element.name]
        gone = tuple(u for u in sorted(units) if bool(data["dead"][u]))
        return PrunePlan(element.name, gone, "absorb", tuple(float(data["constants"][u]) for u in gone))


@torch.no_grad()
def idle(module: DAG) -> tuple[Tensor, Tensor]:
    """Which neurons are constant or unused, [H] bool, and what each constant one says, [H] float64, else 0; both on the CPU."""
    inputs, feeds = (part.cpu() for part in module.connections.tensor_split([module.num_inputs], 1))
    weight, bias = module.weight[:, module.num_inputs :].double().cpu(), module.bias.double().cpu()
    constant = torch.zeros(len(bias), dtype=torch.bool)
    values = torch.zeros(len(bias), dtype=torch.float64)
    for level in module.levels():
        for i in level.tolist():
            if not bool(inputs[i].any()) and bool(constant[feeds[i]].all()):
                constant[i] = True
                values[i] = FUNCTIONS[module.activation](bias[i] + weight[i, feeds[i]] @ values[feeds[i]])
    unused = torch.zeros_like(constant)
    to_outputs = module.out.connections[:, module.num_inputs :].any(0).cpu()
    for level in reversed(module.levels()):
        for i in level.tolist():
            unused[i] = not bool(to_outputs[i]) and bool(unused[feeds[:, i]].all())
    return constant | unused, values
