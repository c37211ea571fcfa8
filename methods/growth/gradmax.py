"""New units that get the largest possible gradients (GradMax, Evci et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.exact import Exact
from coppice.methods.growth.first_order.gradients import Moment, fan_out_gradients, grouped, moments, offered, sites_of
from coppice.methods.growth.first_order.path import why_not_fan_in
from coppice.methods.growth.first_order.singular import leading
from coppice.methods.growth.first_order.sweep import layers_of
from coppice.methods.measures.site import Site, site_of
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class GradMax(Exact):
    """Sets new weights to singular vectors of A = E[gradient behind x input before], so that the new gradients are largest.

    `zero: fan_in` is the paper's: outgoing weights are the top singular vectors on the gradient's side, incoming ones are zero,
    and the gradient of new unit i has norm sigma_i times the norm of its outgoing weights. It needs a path between the two
    layers that is 0 at 0 and linear there (not ReLU, whose derivative at 0 is 0: such units would be dead for ever) and no
    BatchNorm (which would multiply the gradient by 1/sqrt(eps)). `zero: fan_out` is the inverse: incoming weights are the
    singular vectors on the input's side with the largest gradients through the real activation, both signs tried (better
    than chance, but no maximum: there is no closed form); outgoing ones are zero. `auto` takes fan_in where it is sound, else
    fan_out.

    Scores are squared gradient norms of the new units: the first-order decrease of the loss for a unit learning rate, comparable
    across layers. At most rank(A) units are offered at a time, and at most max(64, units that there are).
    """

    kind = "grow"
    levels = ("channel",)
    why = "new units whose gradients, and so the first decrease of the loss, are as large as possible"
    paper = "Evci et al. 2022, GradMax, eq. 8-11 and appendix B for convolutions (arXiv 2201.05125)"
    preserves = True
    batch_norm = "new rows are scale 1, shift 0, mean 0, variance 1; the zero side is always the fan-out"
    cost = "one forward and backward per batch, two with zero fan-out, for all elements; a singular value decomposition for each"

    scale: float = parameter(0.5, "norm of a new unit's non-zero weights", low=1e-3, high=10.0, log=True)
    norm: str = parameter(
        "mean_norm", "scale times the mean norm of the existing units' weights, or scale itself", choices=("mean_norm", "fixed")
    )
    zero: str = parameter("auto", "which side of the new units is zero", choices=("auto", "fan_in", "fan_out"))
    num_batches: int = parameter(1, "batches that A is taken over", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None or self.zero != "fan_in":
            return reason
        return why_not_fan_in(context.network, site_of(context.network, element), next(iter(context.batches(1)))[0])

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Singular vectors, and the squared gradient norms that new units will get."""
        sites, offers = sites_of(context, elements), {}
        exact = {"fan_in": True, "fan_out": False, "auto": None}[self.zero]
        for group in grouped(context, sites):
            rows, sigmas = {}, {}
            measured = moments(context, group, self.num_batches, exact)
            for name in group:
                moment = measured.pop(name)
                if self.zero == "fan_in" or (self.zero == "auto" and moment.why_not_zero is None):
                    offers[name] = self._fan_in_zero(context, sites[name], moment, offered(sites[name], most[name]))
                else:
                    rows[name], sigmas[name] = self._directions(context, sites[name], moment, offered(sites[name], most[name]))
            del moment
            rows, sigmas = context.ranks.same(rows), context.ranks.same(sigmas)
            gradients = fan_out_gradients(context, group, rows, self.num_batches)
            for name, directions in rows.items():
                offers[name] = _better_signs(directions, sigmas[name], gradients.pop(name), offered(sites[name], most[name]))
        for name, data in offers.items():
            require_finite(f"the gradients of new units of {name}", data["gains"])
        return Measurement({e.name: offers[e.name]["gains"] for e in elements if len(offers[e.name]["gains"])}, offers)

    def _fan_in_zero(self, context: Context, site: Site, moment: Moment, most: int) -> dict[str, Tensor]:
        """Zero fan-in, as published: outgoing weights of new units, `columns`, with their gains and singular values."""
        weight = layers_of(context.network, site)[1].weight
        _, sigma, right = leading(moment.matrix, most)
        length = self.length(weight if weight.dim() > 2 else weight.unflatten(1, (-1, site.taps)), 1)
        shape = (-1, len(weight), site.taps) if weight.dim() == 2 else (-1, len(weight), *weight.shape[2:])
        columns = (right * length).reshape(shape).to("cpu", weight.dtype)
        return {"gains": (sigma * length).square().cpu(), "sigma": sigma.cpu(), "columns": columns}

    def _directions(self, context: Context, site: Site, moment: Moment, most: int) -> tuple[Tensor, Tensor]:
        """Incoming weights for zero fan-out: candidates, [units, *shape of a row], and their singular values."""
        weight = layers_of(context.network, site)[0].weight
        left, sigma, _ = leading(moment.matrix, most + min(most, 64))
        return (left.T * self.length(weight, 0)).reshape(-1, *weight.shape[1:]).to(weight), sigma.cpu()

    def length(self, weight: Tensor, dim: int) -> float:
        """Norm of the non-zero weights of a new unit, which lie along the other dimensions of `weight`."""
        if self.norm == "fixed":
            return self.scale
        return self.scale * float(weight.detach().movedim(dim, 0).flatten(1).norm(dim=1).mean())

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = site_of(context.network, element)
        data, chosen = measurement.data[element.name], torch.tensor(list(units))
        gain = float(data["gains"][chosen].sum())
        plan = GrowPlan(element.name, len(units), produce="zero", consume="zero", predicted_gain=gain)
        if "rows" in data:
            return replace(plan, values={f"{site.producer}.weight:0": data["rows"][chosen]})
        return replace(plan, values={f"{site.consumer}.weight:1": _columns(data["columns"][chosen], site)})


def _columns(columns: Tensor, site: Site) -> Tensor:
    """[units, out, taps or kernel] -> new slices of the consumer's weight along its dimension 1."""
    moved = columns.movedim(0, 1)
    return moved.flatten(1) if columns.dim() == 3 else moved


def _better_signs(rows: Tensor, sigma: Tensor, gradients: Tensor, most: int) -> dict[str, Tensor]:
    """Each candidate with the sign that has the larger gradients, the best first."""
    better, sign = torch.linalg.vector_norm(gradients, dim=2, dtype=torch.float64).square().max(0)
    signed = torch.where((sign == 0).view(-1, *[1] * (rows.dim() - 1)).to(rows.device), rows, -rows)
    order = better.argsort(descending=True, stable=True)[:most]
    return {"gains": better[order], "sigma": sigma[order], "rows": signed.cpu()[order]}
