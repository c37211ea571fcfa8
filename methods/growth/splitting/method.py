"""Units split in two where the loss bends down (splitting steepest descent, Liu, Wu, Wang 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.growth.splitting.curvature import Ends, SplittingMatrices, exact_ends, fast_ends
from coppice.methods.measures.site import Site, site_of, why_no_factor, why_no_site
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import GrowPlan

_LARGEST_ROW = 256
"""Entries of a row up to which `form: auto` forms the splitting matrices."""
_ROUNDING = 1e-6
"""Eigenvalues that are smaller than this, relative to the largest of the unit, count as 0."""


@dataclass(frozen=True)
class Splitting(Method):
    """Splits a unit with weights theta into theta + eps v and theta - eps v, each with half of the outgoing weights.

    The loss changes by eps^2 lambda / 2 (and terms of eps^4): v is the eigenvector of the splitting matrix S with the smallest
    eigenvalue lambda, and only units with lambda < 0 are offered, each once, the largest decrease first. S comes from the
    curvature of the unit's own activation; ReLU, which has none, is taken as a softplus of sharpness 3 there, so that the
    predictions rank units but are not met in size. The bias of the unit is copied and takes no part.

    `signed` also splits into children with outgoing shares 1 + a and -a, offsets a/(1+a) eps v and eps v, and the eigenvector v
    of the largest eigenvalue: the shares sum to 1, the weighted offsets to 0, and the loss changes by -a/(1+a) eps^2
    lambda_max / 2 (our derivation for two children). With `weight_sum` = 1 + 2a, the sum of absolute shares, a/(1+a) =
    (weight_sum - 1) / (weight_sum + 1). So there is a descent wherever S is not 0. A unit takes the split that promises more.

    `form: exact` forms S, [D, D] for each unit with D incoming weights; `fast` finds the extrema of its Rayleigh quotient from
    products S v, with `steps` Lanczos steps (the paper takes RMSprop for some epochs); `auto` is exact up to D = 256.
    """

    kind = "grow"
    levels = ("channel",)
    why = "leaves stationary points that gradient descent cannot leave, by the steepest descent among splits"
    paper = (
        "Liu, Wu, Wang 2019, splitting steepest descent (arXiv 1910.02366); fast form: Wang et al. 2019 (arXiv 1910.03103); "
        "signed: Wu et al. 2020 (arXiv 2003.10392)"
    )
    preserves = False
    batch_norm = "rows are copied; in eval mode it is a factor gamma / sqrt(var + eps) on the weights, which enters S squared"
    cost = (
        "exact: one forward, two backwards and a product of D^2 per weight and position for each batch; fast: `steps` times "
        "a forward and two backwards for each element and batch"
    )
    when = ("splitting", "plateau", "periodic")
    where = ("global", "budget")

    form: str = parameter("auto", "form the splitting matrix, or only multiply with it", choices=("auto", "exact", "fast"))
    signed: bool = parameter(False, "also split with negative outgoing weights", choices=(False, True))
    epsilon: float = parameter(1e-2, "length of the step of each child", low=1e-4, high=1.0, log=True)
    weight_sum: float = parameter(3.0, "signed: sum of the absolute outgoing shares", low=1.1, high=100.0, log=True)
    num_batches: int = parameter(1, "batches that S is taken over", low=1, high=1000)
    steps: int = parameter(12, "fast: products with S", low=2, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element) or why_no_site(context.network, element)
        return reason or why_no_factor(context.network, site_of(context.network, element))

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Eigenvalues, directions and predicted decreases; the signal `lambda_min` is the smallest eigenvalue of all."""
        scores: dict[str, Tensor] = {}
        data: dict[str, dict[str, Tensor]] = {}
        lowest = float("inf")
        for element in elements:
            site = site_of(context.network, element)
            ends = self._ends(context, site)
            lowest = min(lowest, float(ends.low.min()))
            offered = self._offers(ends)
            if len(offered["gains"]):
                scores[element.name], data[element.name] = offered["gains"], offered
        return Measurement(scores, data, signals={"lambda_min": lowest})

    def _ends(self, context: Context, site: Site) -> Ends:
        curvature = SplittingMatrices(context, site, self.num_batches)
        row = curvature.unmasked().shape[1]
        if self.form == "exact" or (self.form == "auto" and row <= _LARGEST_ROW):
            return exact_ends(curvature)
        return fast_ends(curvature, self.steps, context.generator)

    def _offers(self, ends: Ends) -> dict[str, Tensor]:
        """Units to split, the best first: `parents`, `rows` (v), `shares` (of the new child), `gains`, `eigenvalues`."""
        half = self.epsilon**2 / 2
        noise = _ROUNDING * torch.maximum(ends.low.abs(), ends.high.abs())
        gains, shares = torch.where(ends.low < -noise, -ends.low, 0.0) * half, torch.full_like(ends.low, 0.5)
        rows, values = ends.low_vectors, ends.low
        if self.signed:
            factor = (self.weight_sum - 1) / (self.weight_sum + 1)
            other = torch.where(ends.high > noise, ends.high, 0.0) * (half * factor)
            better = other > gains
            gains, values = torch.where(better, other, gains), torch.where(better, ends.high, values)
            shares = torch.where(better, -(self.weight_sum - 1) / 2, shares)
            rows = torch.where(better.unsqueeze(1), ends.high_vectors, rows)
        order = gains.argsort(descending=True, stable=True)
        order = order[gains[order] > 0]
        splits = {"gains": gains, "rows": rows, "shares": shares, "eigenvalues": values}
        return {"parents": order} | {name: t[order] for name, t in splits.items()}

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = site_of(context.network, element)
        chosen = {name: t[torch.tensor(list(units))] for name, t in measurement.data[element.name].items()}
        producer = context.network.module.get_submodule(site.producer)
        weight, share = producer.weight, chosen["shares"]
        assert isinstance(weight, Tensor)
        new = chosen["rows"] * self.epsilon
        old = new * (-share / (1 - share)).unsqueeze(1)
        adjust = torch.zeros(weight.shape, dtype=torch.float64)
        adjust[chosen["parents"]] = old.view(-1, *weight.shape[1:])
        offset = (new - old).view(-1, *weight.shape[1:])
        name = f"{site.producer}.weight"
        return GrowPlan(
            element.name,
            len(units),
            sources=tuple(chosen["parents"].tolist()),
            predicted_gain=float(chosen["gains"].sum()),
            adjust={name: adjust.to(weight.dtype), **_signed_adjust(context, site, chosen)},
            offsets={f"{name}:0": offset.to(weight.dtype), **_signed_offsets(context, site, chosen)},
        )


def _columns(context: Context, site: Site, parents: Tensor) -> tuple[Tensor, Tensor]:
    """The consumer's weight on the CPU, and which of its columns use the parents, [parents * taps]."""
    weight = context.network.module.get_submodule(site.consumer).weight
    assert isinstance(weight, Tensor)
    return weight.detach().cpu(), (parents.unsqueeze(1) * site.taps + torch.arange(site.taps)).flatten()


def _scaled(weight: Tensor, columns: Tensor, factors: Tensor, taps: int) -> Tensor:
    """Those columns times a factor for each unit."""
    each = factors.repeat_interleave(taps).to(weight.dtype)
    return weight[:, columns] * each.view(1, -1, *[1] * (weight.dim() - 2))


def _signed_adjust(context: Context, site: Site, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What brings the parents' columns to twice their share; they are halved when the copies are made."""
    if bool((chosen["shares"] == 0.5).all()):
        return {}
    weight, columns = _columns(context, site, chosen["parents"])
    added = torch.zeros_like(weight)
    added[:, columns] = _scaled(weight, columns, 1 - 2 * chosen["shares"], site.taps)
    return {f"{site.consumer}.weight": added}


def _signed_offsets(context: Context, site: Site, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What takes the copies' columns from the parents' share, which is there by then, to their own."""
    if bool((chosen["shares"] == 0.5).all()):
        return {}
    weight, columns = _columns(context, site, chosen["parents"])
    return {f"{site.consumer}.weight:1": _scaled(weight, columns, 2 * chosen["shares"] - 1, site.taps)}
