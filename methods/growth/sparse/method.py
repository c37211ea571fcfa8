"""Sparse training with a fixed number of connections: which come back (SET 2018, RigL 2020, SNFS 2019, NeST 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.growth.sparse.dense_momentum import DenseMomentum
from coppice.methods.growth.sparse.regrow import Regrow
from coppice.methods.measures.connections import no_dense_gradient, weights_of
from coppice.methods.measures.per_sample import mean_gradients
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.network import Network
from coppice.methods.plan import MaskPlan
from coppice.methods.surgery.masks import mask_of


@dataclass(frozen=True)
class Set(Regrow):
    """Connections come back by chance (sparse evolutionary training).

    Ours: dropped are the smallest magnitudes, as in RigL's code, where the paper drops the smallest positive and the largest
    negative weights.
    """

    why = "a sparse network that is rewired while it trains beats one that is fixed"
    paper = "Mocanu et al. 2018, SET (arXiv 1707.04780)"

    def candidates(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """Uniform random numbers at each tensor's shape."""
        tensors = weights_of(context, elements)
        return {n: torch.rand(w.shape, generator=context.generator).to(w.device) for n, w in tensors.items()}


@dataclass(frozen=True)
class RigL(Regrow):
    """The connections with the largest gradients come back; gradients are dense, those of the masked network."""

    why = "of all connections that are missing, those that would lower the loss fastest"
    paper = "Evci et al. 2020, RigL, algorithm 1 (arXiv 1911.11134)"
    batch_norm = "gradients are taken with running statistics"
    cost = "`num_batches` forwards and backwards"

    num_batches: int = parameter(1, "batches over which the gradient is averaged", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        return super().accepts(context, element) or no_dense_gradient(context.network, element.name)

    def candidates(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """The gradient of the mean loss at each tensor's shape."""
        gradients = mean_gradients(context, [e.name for e in elements], self.num_batches)
        return {name: gradient[0] for name, gradient in gradients.items()}


@dataclass(frozen=True)
class Snfs(Regrow):
    """The connections with the largest momentum come back (sparse networks from scratch).

    A companion keeps the momentum of the dense gradients of masked tensors: the optimizer's own sees no gradient of masked
    weights. Left out: the budget's redistribution over layers; each tensor keeps its number of connections.
    """

    why = "the mean direction of many steps says more than one batch's gradient"
    paper = "Dettmers and Zettlemoyer 2019, SNFS (arXiv 1907.04840); the scaled form is that of its code for Adam"
    cost = "no pass; one multiply and add of every masked tensor's gradient beside each training step"

    beta: float = parameter(0.9, "decay of the momentum", low=0.0, high=0.9999)
    scaled: bool = parameter(False, "divide by the root of the mean square gradient, as Adam does", choices=(False, True))
    beta2: float = parameter(0.999, "decay of the mean square gradient", low=0.0, high=0.99999)

    def companion(self, network: Network) -> Companion:
        """See `Method.companion`."""
        return DenseMomentum(self.beta, self.beta2 if self.scaled else None)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element) or no_dense_gradient(context.network, element.name)
        if reason is not None:
            return reason
        if not isinstance(context.companion, DenseMomentum):
            return "the momentum of masked connections is kept by a companion while the network trains, but there is none"
        if element.name not in context.companion.steps:
            return f"no training step was taken since weights of {element.name} were masked, so there is no momentum yet"
        return None

    def candidates(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """m, or m / (sqrt(v) + 1e-8), both corrected for their start at 0."""
        assert isinstance(context.companion, DenseMomentum), "adapt asks `accepts` before"
        return {e.name: context.companion.direction(e.name) for e in elements}


@dataclass(frozen=True)
class NestConnections(RigL):
    """NeST's connection growth: dormant connections with the largest entries of the bridging matrix come alive.

    The bridging matrix, the mean product of a connection's input and the negative gradient at its output, is -dL/dw. The paper
    says neither how many come nor with which value; ours: a new connection is born as `birth` times that entry, a gradient step
    of its own, which a plan predicts to lower the loss by birth * sum (dL/dw)^2 to first order.
    """

    why = "a connection between what fires and what is wrong lowers the loss"
    paper = "Dai, Yin, Jha 2019, NeST, policy 1 (arXiv 1711.02017)"

    replace: bool = parameter(False, "as many active weights of small magnitude go", choices=(False, True))
    birth: float = parameter(0.1, "step along the negative gradient with which a connection is born", low=0.0, high=100.0)

    def promises(self) -> bool:
        """See `Method.promises`."""
        return super().promises() and self.birth == 0

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Regrow.plan`; new connections are born."""
        plan = super().plan(context, element, units, measurement)
        gradient = measurement.data[element.name]["value"].cpu()
        born = plan.masks[element.name] & ~mask_of(context.network, element.name).cpu()
        step = torch.where(born, -self.birth * gradient, 0.0)
        return replace(plan, adjust={element.name: step}, predicted_gain=float(-(step.double() * gradient).sum()))
