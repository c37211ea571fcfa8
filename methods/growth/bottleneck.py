"""What a layer should do but its weights cannot, measured at several sites at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.growth.covariance import Moments, inverse_root, solved
from methods.growth.cross_moment import add_cross_moment, run_rows
from methods.growth.linearised import linearise
from methods.growth.singular import leading
from methods.growth.site import Site, why_not_zero
from methods.growth.sweep import View, layers_of, sweep
from methods.method import Context
from methods.statistics import require_finite

_NOTHING = 1e-6
"""Part of the desired change, relative to all of it, that counts as none: the existing weights can do everything."""


@dataclass(frozen=True)
class Demands:
    """What is measured: the parameters of `methods.growth.tiny.Tiny` with these names."""

    natural_step: bool
    projection: bool
    whitening: bool
    threshold: float
    cut: float
    num_batches: int


class Bottleneck:
    """Measures the sites of one group in two passes."""

    def __init__(self, demands: Demands, context: Context, sites: Mapping[str, Site]) -> None:
        self.demands, self.context, self.sites = demands, context, sites
        self.moments: dict[str, Moments] = {}
        self.linear: dict[str, bool] = {}
        self.natural: dict[str, Tensor] = {}
        self.missing: dict[str, Tensor] = {}
        self.samples = 0

    def run(self) -> None:
        """Moments; the natural steps; then what these leave to be done."""
        self.samples = sweep(self.context, self.sites, self._first, self.demands.num_batches)
        for name, moments in self.moments.items():
            require_finite(f"the moments of {name}", moments.cross, moments.before, moments.mean)
            self.missing[name] = -moments.cross
            if moments.behind is not None and moments.product is not None:
                require_finite(f"the inputs of the consumer of {name}", moments.behind, moments.product)
                with torch.autocast(moments.behind.device.type, enabled=False):
                    self.natural[name] = solved(moments.behind, moments.product.to(moments.behind), self.demands.cut).T
        if self.demands.projection:
            sweep(self.context, self.sites, self._second, self.demands.num_batches)

    def _first(self, name: str, view: View) -> None:
        if name not in self.moments:
            self.linear[name] = why_not_zero(view.run, view.shape, view.before) is None
            bias = view.producer.bias is not None and view.site.batch_norm is None
            self.moments[name] = Moments.of(view, bias, self.demands.projection or self.demands.natural_step)
        self.moments[name].add(view, linearise(view.run, view.shape, view.before, self.linear[name]))

    def _second(self, name: str, view: View) -> None:
        """Add what the natural step does, so that the gradient's remainder is left."""
        own, natural = view.consumer.weight[0].numel(), self.natural[name].to(view.gradient)
        weight = natural[:, :own].reshape(view.consumer.weight.shape)
        done = run_rows(view.consumer, view.behind, weight, natural[:, own] if view.consumer.bias is not None else None)
        path = linearise(view.run, view.shape, view.before, self.linear[name])
        add_cross_moment(self.missing[name], view, path, done)

    def units(self, name: str, most: int) -> dict[str, Tensor]:
        """What new units at step 1 are: see `methods.growth.tiny.Tiny.measure`."""
        moments, site, n = self.moments[name], self.sites[name], self.samples
        incoming, sigma, outgoing = self._directions(self.missing[name] / n, moments, most)
        consumer = layers_of(self.context.network, site)[1]
        kernel = consumer.weight.shape[2:] if consumer.weight.dim() > 2 else (site.taps,)
        found = {
            "scores": sigma.square(),
            "gains": -((incoming @ (moments.cross / n).to(incoming)) * outgoing).sum(1),
            "incoming": incoming,
            "outgoing": outgoing.unflatten(1, (len(consumer.weight), *kernel)),
            "mean": moments.mean.double() / max(moments.positions, 1),
        }
        if moments.plain is not None:
            found["plain"] = moments.plain.double() / max(moments.positions, 1)
        if moments.product is not None:
            found["natural"] = self.natural[name]
            found["natural_gain"] = (self.natural[name].T * (moments.product / n)).sum()
        return found

    def _directions(self, missing: Tensor, moments: Moments, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Incoming weights [units, x], sigma, outgoing weights [units, ...]; none where existing weights can do it all."""
        wanted = (moments.cross / self.samples).to(missing)
        root = torch.eye(len(missing)).to(missing)
        if self.demands.whitening:
            root = inverse_root((moments.before / self.samples).to(missing), self.demands.cut)
        left, sigma, right = leading(root @ missing, most, self.demands.threshold)
        there = sigma > _NOTHING * (root @ wanted).norm()
        left, sigma, right = left[:, there], sigma[there], right[there]
        return (root @ left * sigma.sqrt()).T, sigma, right * sigma.sqrt().unsqueeze(1)
