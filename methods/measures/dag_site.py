"""Where a neuron is put into a network of single connections, and the plan that puts it there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.site import NoSite
from coppice.methods.network import Network
from coppice.methods.networks.dag import DAG
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class DagSite:
    """The neurons of a network of single connections.

    Attributes:
        module: the network, or the part of one.
        prefix: what the names of its tensors start with.
    """

    module: DAG
    prefix: str

    def plan(self, element: Element, neuron: Neuron, gain: float | None) -> GrowPlan:
        """The plan that adds one neuron."""
        kind = self.module.weight.dtype
        values = {
            "weight:0": torch.cat([neuron.from_inputs, neuron.from_neurons])[None],
            "bias:0": neuron.bias[None],
            "weight:1": neuron.to_neurons[:, None],
            "out.weight:1": neuron.to_outputs[:, None],
        }
        filled = {f"{self.prefix}{key}": value.to("cpu", kind) for key, value in values.items()}
        return GrowPlan(element.name, 1, values=filled, predicted_gain=gain)


@dataclass(frozen=True)
class Neuron:
    """The weights of a new neuron: from I inputs and H neurons, its bias, to H neurons and O outputs.

    One that feeds neurons must not be fed by any: it comes first. One that feeds none comes last.
    """

    from_inputs: Tensor
    from_neurons: Tensor
    bias: Tensor
    to_neurons: Tensor
    to_outputs: Tensor


def dag_site_of(network: Network, element: Element) -> DagSite:
    """The network of single connections whose neurons the element is.

    Raises:
        NoSite: it is something else.
    """
    owner, _, leaf = element.name.rpartition(".")
    module = network.module.get_submodule(owner) if element.level == "channel" else None
    if not isinstance(module, DAG) or leaf != "weight:0":
        raise NoSite(f"{element.name} is not the neurons of a network of single connections (coppice.methods.networks.dag)")
    return DagSite(module, f"{owner}." if owner else "")


def why_no_dag_site(network: Network, element: Element) -> str | None:
    """Why an element is not the neurons of a network of single connections; None when it is."""
    try:
        dag_site_of(network, element)
    except NoSite as error:
        return str(error)
    return None
