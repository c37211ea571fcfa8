"""New units where the natural gradient can no longer follow the gradient of the loss (SENN, Mitchell et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.exact import Exact
from coppice.methods.growth.first_order.gradients import sites_of
from coppice.methods.growth.first_order.sweep import layers_of
from coppice.methods.growth.senn.kfac import Settings, score_layers, total
from coppice.methods.growth.senn.output_curvature import reachable, why_no_curvature
from coppice.methods.growth.senn.search import choose, draw, improve, moments
from coppice.methods.measures.site import site_of
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class ExpansionScore(Method):
    """What width and depth share: how the score is measured, and when an addition is worth it."""

    kind = "grow"
    preserves = True
    when = ("score", "learned")
    where = ("largest_score", "best_gain", "global")
    advises = True

    threshold: float = parameter(0.03, "tau: gain / eta above which an addition is worth it", low=1e-4, high=10.0, log=True)
    least: float = parameter(2.5e-3, "alpha: gain above which an addition is worth it", low=1e-8, high=10.0, log=True)
    proposals: int = parameter(100, "random candidates for each place", low=1, high=1024)
    num_batches: int = parameter(4, "batches that all statistics are taken over", low=1, high=1000)
    draws: int = parameter(1, "random gradients per sample for the curvature; 0: all, exactly", low=0, high=64)
    damping: float = parameter(0.1, "added to S, relative to its mean diagonal", low=0.0, high=10.0)
    ridge: float = parameter(1e-3, "added to A, relative to its mean diagonal", low=1e-12, high=1.0, log=True)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        return super().accepts(context, element) or why_no_curvature(context)

    def settings(self) -> Settings:
        """How curvature is measured."""
        return Settings(self.num_batches, self.draws, self.damping, self.ridge)

    def measurement(
        self, context: Context, gains: Mapping[str, Tensor], data: Mapping[str, Mapping[str, Tensor]], eta: float
    ) -> Measurement:
        """Scores, signals and advice from the gains of every element."""
        for name, gain in gains.items():
            require_finite(f"the expansion scores of {name}", gain)
        best = max((float(g[0]) for g in gains.values() if len(g)), default=0.0)
        relative = best / eta if eta > 0 else math.inf if best > 0 else 0.0
        most = additions(reachable(context, self.num_batches), self.least, self.threshold)
        worth = sorted((float(g) for gain in gains.values() for g in gain), reverse=True)
        bar = max(self.threshold * eta, self.least)
        limit = worth[most - 1] if 0 < most <= len(worth) else math.inf if most == 0 else -math.inf
        advised = {name: int(((g > bar) & (g >= limit)).sum()) for name, g in gains.items()}
        return Measurement(gains, data, advised, {"eta": eta, "gain": best, "relative": relative})


def additions(largest: float, least: float, threshold: float) -> int:
    """The most additions that can be worth it one after the other: N < 1 + (ln lambda - ln alpha) / ln(1 + tau).

    Each one lifts the score by the factor 1 + tau from at least alpha, and it cannot pass lambda.

    Args:
        largest: lambda, what no score can pass, see `coppice.methods.growth.senn.output_curvature.reachable`.
        least: alpha.
        threshold: tau.
    """
    if largest <= 0:
        return 0
    return max(0, math.ceil(1 + (math.log(largest) - math.log(least)) / math.log1p(threshold)) - 1)


def scored_layers(network: Network) -> Iterable[str]:
    """Layers that the network's score is summed over: Linear and plain Conv2d, called once."""
    for name, call in network.graph().modules.items():
        module = network.module.get_submodule(name)
        if call.calls != 1 or not call.inputs:
            continue
        plain = type(module) is nn.Linear and len(call.inputs) >= 2
        if type(module) is nn.Conv2d:
            plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        if plain:
            yield name


@dataclass(frozen=True)
class Senn(Exact, ExpansionScore):
    """Adds the candidates with the largest lower bound on what they add to the network's natural-gradient score.

    The score eta = g^T F^-1 g is twice the decrease of the loss that a natural-gradient step of the present weights promises. A
    new unit with zero outgoing weights and activations a_p raises that of its consumer by at least Tr[S^-1 W A_p^-1 W^T], W =
    E[r a_p^T], r the part of the gradient that the consumer's present inputs do not explain. A copy of a unit adds nothing.
    Candidates are random, about as long as the rows that there are, improved by `steps` of gradient ascent on that bound (the
    published code: Langevin steps) on the first samples, and chosen one after the other, each beside those before it.

    Signals: `eta` (sum over layers), `gain` (largest bound), `relative` (gain / eta). Advised are those with gain > threshold *
    eta and gain > least, over all elements at most N_s < 1 + (ln lambda - ln alpha) / ln(1 + tau), see `additions`. lambda, the
    score of a network that could move every output as it likes, is published as the mean squared norm of the gradient at the
    output, which is that for a squared error of variance 1; here it is taken in the metric of the loss's curvature, so that it
    is for any loss. The trigger is `score` with `threshold: 0.03`, `relative_to: signal_eta`, `least: 0.0025`, or `learned`.

    The Fisher matrix is the K-FAC one, from the loss's curvature at the outputs (exact for log-likelihoods). Ours: A has a ridge
    of its own; a layer behind a flatten or with a kernel has a matrix A_p for each candidate.
    """

    levels = ("channel",)
    why = "the network grows where, and when, its own parameters cannot reduce the loss any more but others could"
    paper = "Mitchell et al. 2023, Self-expanding neural networks, sections 3-4 (arXiv 2307.04526)"
    batch_norm = "statistics in eval mode; a new row is scale 1, shift 0, mean 0, variance 1, and its candidate is taken as that"
    cost = "per batch: 3 forward and backward, 1 more for each draw, and one for the ascent; an inverse for each layer"

    steps: int = parameter(10, "gradient steps on the candidates", low=0, high=300)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Candidates of each element with the bounds on what they add."""
        sites = sites_of(context, elements)
        layers = score_layers(context, list(scored_layers(context.network)), self.settings())
        rows = {name: draw(context, site, self.proposals) for name, site in sites.items()}
        rows = improve(context, sites, rows, layers, self.steps)
        measured = moments(context, sites, rows, layers, self.num_batches)
        gains, data = {}, {}
        for name, site in sites.items():
            require_finite(f"the moments of candidates for {name}", measured[name].gradient, measured[name].second)
            order, gains[name] = choose(measured[name], layers[site.consumer], most[name])
            data[name] = {"rows": rows[name].cpu()[order]}
        return self.measurement(context, gains, data, total(layers))

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = site_of(context.network, element)
        producer = layers_of(context.network, site)[0]
        chosen = torch.tensor(list(units))
        rows, entries = measurement.data[element.name]["rows"][chosen], producer.weight[0].numel()
        values = {f"{site.producer}.weight:0": rows[:, :entries].unflatten(1, producer.weight.shape[1:])}
        if producer.bias is not None:
            values[f"{site.producer}.bias:0"] = rows[:, entries]
        gain = float(measurement.scores[element.name][chosen].sum()) / 2
        return GrowPlan(element.name, len(units), produce="zero", consume="zero", values=values, predicted_gain=gain)
