"""Splits, new units and new blocks that compete in one supernet (Firefly, Wu et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.growth.firefly.candidates import Draws, channel_atom
from coppice.methods.growth.firefly.offers import grow_plan, offered_block, offered_units, statistics
from coppice.methods.growth.firefly.supernet import Supernet
from coppice.methods.growth.first_order.insertion import why_bare, why_nothing_fits
from coppice.methods.measures.site import site_of, why_no_factor, why_no_site
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import InsertPlan, Plan

_EVALUATIONS = 3
"""Points between a gate of 0 and of 1 at which gradients are taken (midpoints of as many intervals)."""


@dataclass(frozen=True)
class Firefly(Method):
    """Over-grows a copy of the network in one pass, trains the perturbations for some steps, and keeps the best.

    In the copy each unit is split into theta + v and theta - v with half of the outgoing weights each, each element has new units
    with incoming weights a and outgoing weights c, and with `depth` each insertion point a residual block x + L relu(F x + f).
    The network's own weights stand still; v, a, c, F, f, L are trained, with |v| and |c| at most `epsilon` times the norm of a
    typical row and column, and L likewise. Then each candidate is scored by the integrated gradient of the loss with respect to
    its gate, from 0 to 1, at three points: its share in the change of the loss. Scores are comparable over all elements and
    kinds, so that selection `global` ranks them. A new unit or block that would raise the loss takes the opposite sign.

    Norm bounds instead of penalties, Adam with steps relative to them, and blocks scored as a whole are ours. `epsilon` bounds
    the change of the function, which is small but not 0.
    """

    kind = "grow"
    levels = ("channel", "insertion")
    why = "the steepest descent among all networks that are near the present one and larger"
    paper = "Wu, Liu, Stone, Liu 2020, Firefly neural architecture descent, algorithm 1 (arXiv 2102.08574)"
    preserves = False
    batch_norm = (
        "in eval mode while candidates are trained; splits copy its rows; rows of new units take the statistics of their own "
        "inputs, scale and shift undo the normalisation, so that evaluation and training see the candidate that was scored"
    )
    cost = "`steps` + 3 forwards and backwards of a network more than twice as wide"
    when = ("periodic", "plateau")
    where = ("global",)

    epsilon: float = parameter(0.1, "norm of a perturbation, relative to a typical row or column", low=1e-4, high=1.0, log=True)
    splits: bool = parameter(True, "whether units are split", choices=(False, True))
    candidates: int = parameter(16, "new units that each element tries", low=0, high=4096)
    depth: bool = parameter(False, "whether residual blocks are tried", choices=(False, True))
    steps: int = parameter(20, "training steps of the perturbations, a batch each", low=1, high=10_000)
    rate: float = parameter(0.2, "training step, relative to the bound of what it changes", low=1e-3, high=1.0, log=True)
    num_batches: int = parameter(4, "batches that scores are taken over", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if element.level == "insertion":
            return self._refuses_block(context, element)
        if not self.splits and not self.candidates:
            return "without splits and without new candidates there is nothing to try"
        reason = why_no_site(context.network, element)
        return reason or why_no_factor(context.network, site_of(context.network, element))

    def _refuses_block(self, context: Context, element: Element) -> str | None:
        if not self.depth:
            return "blocks are tried only with depth: true"
        if not any(kind.startswith("residual") for kind in element.kinds):
            return f"none of {', '.join(element.kinds)} is a residual block"
        if channel_atom(context.network, element) is None:
            return "its channels are a part of a concatenation or of a product"
        return why_nothing_fits(context.network, element) or why_bare(context.network, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Predicted decreases of the loss; data holds what was trained, and `parents`: the unit that is split, or -1 if new."""
        draws = Draws(context, self.epsilon)
        new = {e.name: min(self.candidates, most[e.name]) for e in elements if e.level == "channel"}
        wide = {e.name: draws.wide(e, new[e.name], self.splits) for e in elements if e.name in new}
        atoms = {context.network.element(name).moves[0].atom: name for name in wide}
        deep = {e.name: draws.deep(e, atoms) for e in elements if e.level == "insertion"}
        with torch.autocast(context.network.device().type, enabled=False):
            grown = Supernet.build(context.network, wide, deep)
            self._train(context, grown)
            shares = self._score(context, grown)
            offered = {name: context.ranks.same(offered_units(c, shares[name])) for name, c in wide.items()}
            for name, c in wide.items():
                offered[name] |= statistics(context, c.site, offered[name], self.num_batches)
        offered |= {name: offered_block(block, shares[name]) for name, block in deep.items()}
        offered = {name: data for name, data in offered.items() if len(data["gains"])}
        return Measurement({name: data["gains"] for name, data in offered.items()}, offered)

    def _train(self, context: Context, grown: Supernet) -> None:
        trained = list(grown.trained())
        for f in trained:
            f.project()
            f.value.requires_grad_()
        optimizer = torch.optim.Adam([{"params": [f.value], "lr": self.rate * f.rate} for f in trained], betas=(0.9, 0.99))
        gates = grown.gates(1.0)
        with torch.enable_grad():
            for inputs, targets in context.batches(self.steps):
                loss = grown.loss(gates, context.loss, inputs, targets)
                require_finite("the loss of the supernet", loss.detach(), ranks=context.ranks)
                gradients = torch.autograd.grad(loss, [f.value for f in trained], allow_unused=True)
                for f, gradient in zip(trained, gradients, strict=True):
                    f.value.grad = gradient
                optimizer.step()
                for f in trained:
                    f.project()
        for f in trained:
            f.value.requires_grad_(False)
            require_finite("trained candidates", f.value, ranks=context.ranks)
        for f, value in zip(trained, context.ranks.same({str(i): f.value for i, f in enumerate(trained)}).values(), strict=True):
            f.value = value

    def _score(self, context: Context, grown: Supernet) -> dict[str, Tensor]:
        """Share of each gate in the change of the loss from all at 0 to all at 1, float64, CPU."""
        total: dict[str, Tensor] = {}
        samples = 0
        with torch.enable_grad():
            for inputs, targets in context.shards(self.num_batches):
                samples += len(targets)
                for point in range(_EVALUATIONS):
                    gates = {n: g.requires_grad_() for n, g in grown.gates((2 * point + 1) / (2 * _EVALUATIONS)).items()}
                    loss = grown.loss(gates, context.loss, inputs, targets) * len(targets)
                    for name, gradient in zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True):
                        total[name] = total.get(name, 0) + gradient.double().cpu() / _EVALUATIONS
        context.ranks.sum(*total.values())
        require_finite("the scores of candidates", *total.values())
        samples = context.ranks.count(samples)
        return {name: t / samples for name, t in total.items()}

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> Plan:
        """See `Method.plan`."""
        data = measurement.data[element.name]
        if element.level == "insertion":
            kind = next(k for k in element.kinds if k.startswith("residual"))
            values = {"first.weight": data["first"], "first.bias": data["bias"], "last.weight": data["last"]}
            gain = float(data["gains"][0])
            return InsertPlan(element.name, kind, {"width": len(data["first"])}, predicted_gain=gain, values=values)
        site = site_of(context.network, element)
        chosen = {name: t[torch.tensor(list(units))] for name, t in data.items()}
        return grow_plan(context, element, site, chosen)
