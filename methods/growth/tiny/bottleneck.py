"""What a layer should do but its weights cannot, measured at several sites at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.growth.first_order.covariance import Moments
from coppice.methods.growth.first_order.cross_moment import run_rows
from coppice.methods.growth.first_order.linearised import linearise
from coppice.methods.growth.first_order.singular import leading
from coppice.methods.growth.first_order.sweep import View, layers_of, sweep
from coppice.methods.growth.tiny.factored_moments import FactoredMoments
from coppice.methods.growth.tiny.own_weights import OwnWeights
from coppice.methods.growth.tiny.whitening import Whitening
from coppice.methods.measures.site import Site, why_not_zero
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context

_NOTHING = 1e-6
"""Decrease of the loss relative to that by the existing weights that counts as none: these can do everything."""


@dataclass(frozen=True)
class Settings:
    """What is measured: the parameters of `coppice.methods.growth.tiny.method.Tiny` with these names."""

    natural_step: bool
    projection: bool
    whitening: bool
    threshold: float
    cut: float
    num_batches: int


class Bottleneck:
    """Measures the sites of one group in two passes, or in one where consumers are narrow linear layers.

    Args:
        settings: what is measured.
        context: network, data and loss.
        sites: by name.
        samples: how many the batches have, about: layers with more entries than these have positions are held in factors, where
            there is one rank; 0: none.
    """

    def __init__(self, settings: Settings, context: Context, sites: Mapping[str, Site], samples: int = 0) -> None:
        self.settings, self.context, self.sites = settings, context, sites
        self.expected = samples if context.ranks.size == 1 else 0
        self.moments: dict[str, Moments | FactoredMoments] = {}
        self.own: dict[str, OwnWeights] = {}
        self.linear: dict[str, bool] = {}
        self.natural: dict[str, Tensor] = {}
        self.gain: dict[str, Tensor] = {}
        self.samples = 0

    def run(self) -> None:
        """Moments; the natural steps; then what these leave to be done."""
        ranks, settings = self.context.ranks, self.settings
        self.samples = sweep(self.context, self.sites, self._first, settings.num_batches)
        for name, moments in self.moments.items():
            moments.sum(ranks)
            if name in self.own:
                self.own[name].sum(ranks)
        for name, moments in self.moments.items():
            require_finite(f"the moments of {name}", *moments.tensors())
            if name in self.own:
                natural, gain = self.own.pop(name).natural(name, settings.cut)
                self.natural[name], self.gain[name] = natural, gain / self.samples
            moments.set_missing(self.natural[name] if settings.projection else None, self.sites[name].taps, self.linear[name])
        if settings.projection:
            self._subtract_natural_steps()

    def _subtract_natural_steps(self) -> None:
        """The second pass.

        Raises:
            ValueError: it had other samples.
        """
        ranks = self.context.ranks
        self.natural = ranks.same(self.natural)
        rest = {name: site for name, site in self.sites.items() if self.moments[name].between is None}
        missing = [m for m in (self.moments[name].missing for name in rest) if m is not None]
        for total in missing if ranks.rank else ():
            total.zero_()
        again = sweep(self.context, rest, self._second, self.settings.num_batches)
        if rest and again != self.samples:
            raise ValueError(f"`batches` must give the same samples each time, but gave {self.samples} of them and then {again}.")
        ranks.sum(*missing)

    def _first(self, name: str, view: View) -> None:
        existing = self.settings.projection or self.settings.natural_step
        if name not in self.moments:
            linear = why_not_zero(view.run, view.shape, view.before) is None
            self.linear[name] = self.context.ranks.from_rank_0(linear)
            bias = view.producer.bias is not None and view.site.batch_norm is None
            thin = FactoredMoments.of(view, bias, existing, self.expected * view.shape[2:].numel())
            self.moments[name] = thin or Moments.of(view, bias, existing)
            if existing:
                self.own[name] = OwnWeights(view, self.expected * view.gradient.shape[2:].numel())
        held = self.moments[name]
        if isinstance(held, FactoredMoments) and not held.fits(view):
            held = self.moments[name] = held.folded()
        path = linearise(view.run, view.shape, view.before, self.linear[name], view.drawn)
        held.add(view, path, self.context.ranks)
        if existing:
            self.own[name].add(view)

    def _second(self, name: str, view: View) -> None:
        """Add what the natural step does, so that the gradient's remainder is left."""
        own, natural = view.consumer.weight[0].numel(), self.natural[name].to(view.gradient)
        weight = natural[:, :own].reshape(view.consumer.weight.shape)
        done = run_rows(view.consumer, view.behind, weight, natural[:, own] if view.consumer.bias is not None else None)
        path = linearise(view.run, view.shape, view.before, self.linear[name], view.drawn)
        self.moments[name].add_done(view, path, done)

    def units(self, name: str, most: int) -> dict[str, Tensor]:
        """What new units at step 1 are, see `Tiny.measure`; what was held for this site is given up."""
        site, held, natural = self.sites[name], self.moments.pop(name), self.natural.pop(name, None)
        entries = held.entries
        moments, basis = held.reduced() if isinstance(held, FactoredMoments) else (held, None)
        inner, sigma, outgoing = self._directions(name, moments, most, entries)
        incoming = inner if basis is None else inner @ basis.T
        consumer = layers_of(self.context.network, site)[1]
        kernel = consumer.weight.shape[2:] if consumer.weight.dim() > 2 else (site.taps,)
        units = {
            "scores": sigma.square(),
            "gains": torch.zeros_like(sigma),
            "incoming": incoming,
            "outgoing": outgoing.unflatten(1, (len(consumer.weight), *kernel)),
        }
        if moments.cross is not None:
            units["gains"] = -((inner @ (moments.cross / self.samples).to(inner)) * outgoing).sum(1)
        if moments.plain is not None:
            units["mean"] = incoming.double() @ moments.mean.double() / max(moments.positions, 1)
            units["variance"] = moments.variance(inner, units["mean"])
        if self.settings.natural_step and natural is not None:
            units |= {"natural": natural, "natural_gain": self.gain[name]}
        return units

    def _directions(self, name: str, moments: Moments, most: int, entries: int) -> tuple[Tensor, Tensor, Tensor]:
        """Incoming weights [units, x], sigma, outgoing weights [units, ...]; none where existing weights can do it all."""
        missing, moments.missing = moments.missing, None
        assert missing is not None, "the run is over"
        missing /= self.samples
        white = None
        if self.settings.whitening:
            before, moments.before = moments.before, missing.new_empty(0)
            white = Whitening.of(before.div_(self.samples).to(missing), self.settings.cut, entries)
            del before
            missing = white.left(missing)
        left, sigma, right = leading(missing, most, self.settings.threshold)
        if self.settings.projection:
            there = sigma.square() > _NOTHING * (sigma[:1].square() + self.gain[name])
            left, sigma, right = left[:, there], sigma[there], right[there]
        left = left * sigma.sqrt()
        return (left if white is None else white.back(left)).T, sigma, right * sigma.sqrt().unsqueeze(1)
