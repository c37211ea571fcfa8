"""New layers and blocks that start as the identity (Net2DeeperNet, Chen et al. 2016; AutoGrow, Wen et al. 2019)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.insertion import fitting_kind, module_before, why_bare, why_nothing_fits
from coppice.methods.measures.statistics import frozen_modes, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import InsertPlan
from coppice.methods.surgery.layers import channel_statistics


@dataclass(frozen=True)
class Deepen(Method):
    """Puts a layer or a block where it leaves the function as it is.

    `auto` takes a copy of a residual block with its last scale zero, else an identity layer behind ReLU (ReLU of ReLU is ReLU),
    else a residual block whose last layer is zero. Behind a bare layer it inserts only where the network has no block and no
    activation module. With `last: uniform` or `normal` a copied block changes the function: weight and bias of its last norm are
    drawn from U(0, 1) or N(0, 1) (AutoGrow found normal the best).

    `score: sensitivity` puts the layer at every offered place of a copy of the network, as it would start if it kept the
    function, and takes its gradient: the score is the squared norm of the new parameters' gradient over the mean of that of the
    layers that there are. The paper inserts the best place where it is at least 1 (amount `{above: 1}`).
    """

    kind = "grow"
    levels = ("insertion",)
    why = "a deeper network that goes on from the same function"
    paper = (
        "Chen et al. 2016, Net2DeeperNet (arXiv 1511.05641); Wen et al. 2019, AutoGrow (arXiv 1906.02909); score: Kreis et al. "
        "2023, SensLI (arXiv 2311.15995)"
    )
    preserves = True
    batch_norm = (
        "a copied block takes its statistics along; batch_norm_inside puts one into a new residual block, or into an identity, "
        "where scale and shift undo the statistics of one batch"
    )
    cost = (
        "nothing is measured; an identity with BatchNorm: one forward; a score: one forward and backward per batch for all places"
    )
    when = ("plateau", "periodic")
    where = ("round_robin", "best_gain")

    block: str = parameter("auto", "what is inserted", choices=("auto", "identity", "residual", "duplicate"))
    last: str = parameter("zero", "last scale of a copied block", choices=("zero", "uniform", "normal"))
    batch_norm_inside: bool = parameter(False, "BatchNorm in a new residual block or identity", choices=(False, True))
    score: str = parameter("none", "how places are compared", choices=("none", "sensitivity"))
    num_batches: int = parameter(1, "batches that a score is taken over", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element) or why_nothing_fits(context.network, element, self.block)
        if reason is not None:
            return reason
        if self.batch_norm_inside and self._flat_norm(context.network, element):
            return "BatchNorm in a new linear layer needs an output of 2 dimensions"
        return why_bare(context.network, element) if self.block == "auto" else None

    def promises(self) -> bool:
        """See `Method.promises`: a copied block with a last scale that is not zero changes the function."""
        return self.last == "zero"

    def _flat_norm(self, network: Network, element: Element) -> bool:
        """Whether BatchNorm1d would be put behind something that is not [n, channels]."""
        linear = str(fitting_kind(network, element, self.block)).endswith("linear")
        return linear and len(network.graph().modules[module_before(element)].output) != 2

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """The score of each place; without one, it predicts nothing."""
        if self.score == "none":
            return Measurement({e.name: torch.empty(0) for e in elements})
        plans = {e.name: self._plan(context, e, "zero") for e in elements}
        sensitivities: dict[str, float] = {}
        left: Mapping[str, InsertPlan] = plans
        while left:
            scored = self._sensitivities(context, left)
            sensitivities |= scored
            left = {name: plan for name, plan in left.items() if scored and name not in scored}
        seeds = {name: {"seed": torch.tensor(plans[name].seed)} for name in sensitivities}
        return Measurement({n: torch.tensor([sensitivities[n]], dtype=torch.float64) for n in plans if n in sensitivities}, seeds)

    def _sensitivities(self, context: Context, plans: Mapping[str, InsertPlan]) -> dict[str, float]:
        """Of all places that one copy of the network has room for at a time: an insertion into a block may exclude its copy."""
        network = copy.deepcopy(context.network)
        base, added = _layers(network.module), {}
        for name, plan in plans.items():
            try:
                added[name] = _insert(network, plan)
            except ValueError:
                continue
        squares = self._squares(context, network)
        require_finite("gradients of a copy with new layers", torch.tensor(list(squares.values())))
        mean = sum(squares[n] for layer in base for n in layer) / max(len(base), 1)
        return {name: sum(squares[n] for n in new) / max(mean, 1e-300) for name, new in added.items()}

    def _squares(self, context: Context, network: Network) -> dict[str, float]:
        """Squared norm of the mean loss' gradient, by parameter name."""
        parameters = {n: p.requires_grad_() for n, p in network.module.named_parameters()}
        total: dict[str, Tensor] = {}
        samples = 0
        with frozen_modes(network.module), torch.enable_grad():
            for inputs, targets in context.shards(self.num_batches):
                loss = context.loss(network.module(inputs), targets) * len(targets)
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                for name, g in zip(parameters, gradients, strict=True):
                    total[name] = total.get(name, 0) + (torch.zeros(()) if g is None else g.double())
                samples += len(targets)
        context.ranks.sum(*total.values())
        samples = context.ranks.count(samples)
        return {name: float((g / samples).square().sum()) for name, g in total.items()}

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> InsertPlan:
        """See `Method.plan`."""
        seed = measurement.data.get(element.name, {}).get("seed")
        return self._plan(context, element, self.last, None if seed is None else int(seed))

    def _plan(self, context: Context, element: Element, last: str, seed: int | None = None) -> InsertPlan:
        kind = fitting_kind(context.network, element, self.block)
        assert kind is not None, "accepted before"
        arguments: dict[str, Any] = {"last": last} if kind == "duplicate" else {}
        if kind.startswith("residual") and self.batch_norm_inside:
            arguments["batch_norm"] = True
        if kind.startswith("identity") and self.batch_norm_inside:
            inputs, _ = next(iter(context.batches(1)))
            with frozen_modes(context.network.module):
                held = channel_statistics(context.network, module_before(element), (inputs,))
            require_finite(f"activations behind {element.name}", *map(torch.tensor, held.values()))
            arguments["batch_norm"] = held
        drawn = int(torch.randint(2**31, (), generator=context.generator)) if seed is None else seed
        return InsertPlan(element.name, kind, arguments, drawn)


def _layers(module: nn.Module) -> list[list[str]]:
    """Names of the parameters of each module that has any of its own."""
    by_module = [[f"{n}.{p}".lstrip(".") for p, _ in m.named_parameters(recurse=False)] for n, m in module.named_modules()]
    known = {n for n, _ in module.named_parameters()}
    return [[n for n in names if n in known] for names in by_module if known.intersection(names)]


def _insert(network: Network, plan: InsertPlan) -> list[str]:
    """Names of the parameters that a plan adds."""
    before = {n for n, _ in network.module.named_parameters()}
    apply(network, plan)
    return [n for n, _ in network.module.named_parameters() if n not in before]
