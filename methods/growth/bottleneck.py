"""What a layer should do but its weights cannot, measured at several sites at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.growth.covariance import Moments, Whitening, solved
from methods.growth.cross_moment import add_cross_moment, run_rows
from methods.growth.linearised import linearise
from methods.growth.singular import leading
from methods.growth.sweep import View, layers_of, sweep
from methods.measures.site import Site, why_not_zero
from methods.method import Context
from methods.statistics import require_finite

_NOTHING = 1e-6
"""Decrease of the loss relative to that by the existing weights that counts as none: these can do everything."""


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
    """Measures the sites of one group in two passes, or in one where consumers are narrow linear layers."""

    def __init__(self, demands: Demands, context: Context, sites: Mapping[str, Site]) -> None:
        self.demands, self.context, self.sites = demands, context, sites
        self.moments: dict[str, Moments] = {}
        self.linear: dict[str, bool] = {}
        self.natural: dict[str, Tensor] = {}
        self.missing: dict[str, Tensor] = {}
        self.samples = 0

    def run(self) -> None:
        """Moments; the natural steps; then what these leave to be done."""
        ranks = self.context.ranks
        self.samples = sweep(self.context, self.sites, self._first, self.demands.num_batches)
        for moments in self.moments.values():
            moments.sum(ranks)
        for name, moments in self.moments.items():
            require_finite(f"the moments of {name}", moments.cross, moments.before, moments.mean)
            self.missing[name] = -moments.cross
            if moments.behind is not None and moments.product is not None:
                require_finite(f"the inputs of the consumer of {name}", moments.behind, moments.product)
                with torch.autocast(moments.behind.device.type, enabled=False):
                    self.natural[name] = solved(moments.behind, moments.product.to(moments.behind), self.demands.cut).T
                if self.demands.projection and moments.between is not None:
                    done = moments.between.unflatten(1, (-1, self.sites[name].taps))
                    self.missing[name] += torch.einsum("uht,oh->uot", done, self.natural[name].to(done)).flatten(1)
        if self.demands.projection:
            self.natural = ranks.same(self.natural)
            rest = {name: site for name, site in self.sites.items() if self.moments[name].between is None}
            for name in rest if ranks.rank else ():
                self.missing[name].zero_()
            sweep(self.context, rest, self._second, self.demands.num_batches)
            ranks.sum(*(self.missing[name] for name in rest))

    def _first(self, name: str, view: View) -> None:
        if name not in self.moments:
            linear = why_not_zero(view.run, view.shape, view.before) is None
            self.linear[name] = self.context.ranks.opinion(linear)
            bias = view.producer.bias is not None and view.site.batch_norm is None
            self.moments[name] = Moments.of(view, bias, self.demands.projection or self.demands.natural_step)
        path = linearise(view.run, view.shape, view.before, self.linear[name], view.drawn)
        self.moments[name].add(view, path, self.context.ranks)

    def _second(self, name: str, view: View) -> None:
        """Add what the natural step does, so that the gradient's remainder is left."""
        own, natural = view.consumer.weight[0].numel(), self.natural[name].to(view.gradient)
        weight = natural[:, :own].reshape(view.consumer.weight.shape)
        done = run_rows(view.consumer, view.behind, weight, natural[:, own] if view.consumer.bias is not None else None)
        path = linearise(view.run, view.shape, view.before, self.linear[name], view.drawn)
        add_cross_moment(self.missing[name], view, path, done)

    def units(self, name: str, most: int) -> dict[str, Tensor]:
        """What new units at step 1 are: see `methods.growth.tiny.Tiny.measure`."""
        moments, site, n = self.moments[name], self.sites[name], self.samples
        incoming, sigma, outgoing = self._directions(name, most)
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
            found["natural_gain"] = self._natural_gain(name)
        return found

    def _natural_gain(self, name: str) -> Tensor:
        """First-order decrease of the loss by the natural step of size 1."""
        product = self.moments[name].product
        assert product is not None, "it was taken"
        return (self.natural[name].T * product).sum() / self.samples

    def _directions(self, name: str, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Incoming weights [units, x], sigma, outgoing weights [units, ...]; none where existing weights can do it all."""
        moments, missing = self.moments[name], self.missing[name] / self.samples
        if self.demands.whitening:
            white = Whitening.of((moments.before / self.samples).to(missing), self.demands.cut)
        else:
            white = Whitening(torch.eye(len(missing)).to(missing), False)
        left, sigma, right = leading(white.left(missing), most, self.demands.threshold)
        if self.demands.projection:
            there = sigma.square() > _NOTHING * (sigma[:1].square() + self._natural_gain(name))
            left, sigma, right = left[:, there], sigma[there], right[there]
        return white.back(left * sigma.sqrt()).T, sigma, right * sigma.sqrt().unsqueeze(1)
