"""New layers where the natural gradient can no longer follow the gradient of the loss (SENN, Mitchell et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.cross_moment import run_rows
from coppice.methods.growth.first_order.insertion import module_before, why_bare
from coppice.methods.growth.first_order.sweep import groups
from coppice.methods.growth.senn.kfac import GROUP_BYTES, LayerSums, Settings, entries_of, score_layers, total
from coppice.methods.growth.senn.method import ExpansionScore, scored_layers
from coppice.methods.growth.senn.output_curvature import observe_curvature
from coppice.methods.measures.statistics import Seen, observe
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import InsertPlan


@dataclass(frozen=True)
class SennDepth(ExpansionScore):
    """Inserts the residual layer x + W2 relu(W1 x), W2 = 0, whose natural-gradient score is largest.

    W2 and its bias are a layer of their own: the score that they add is Tr[S^-1 W A^-1 W^T] with the gradient W = E[g h^T], h =
    relu(W1 x) and 1. W1 is the best of `proposals` random ones (each a full layer, so few are enough). The paper puts an
    identity layer with a rational activation in place, or a dense block with zero outgoing weights; a residual block with a zero
    end is the same idea with what can be put in here, and exact. `damping`, `threshold` and `least` are those of `senn`.

    Advised is one layer at a time, at the best place: neighbouring places offer the same part of the gradient. As in `deepen`,
    places behind bare layers are left aside where there are activations or blocks.

    Signals: `eta`, `gain`, `relative`, as with `senn`.
    """

    levels = ("insertion",)
    why = "a layer is added where its first natural-gradient step would reduce the loss more than those of all that there are"
    paper = "Mitchell et al. 2023, Self-expanding neural networks, section 4 (arXiv 2307.04526); residual form ours"
    batch_norm = "none is put in; statistics in eval mode"
    cost = "per batch: 3 forward and backward, 1 more for each draw; an inverse for each layer and each proposal"

    proposals: int = parameter(8, "random first layers for each place", low=1, high=256)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if not any(k.startswith("residual") for k in element.kinds):
            return f"no residual layer can be put here, but {', '.join(element.kinds) or 'nothing'}"
        reason = why_bare(context.network, element)
        if reason is not None:
            return reason
        output = context.network.graph().modules[module_before(element)].output
        return None if len(output) in (2, 4) else f"what comes out has {len(output)} dimensions; 2 or 4 are needed"

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """See `Method.measure`."""
        places = {e.name: module_before(e) for e in elements}
        eta = total(score_layers(context, list(scored_layers(context.network)), self.settings()))
        first_layers = best_layers(context, list(places.values()), self.proposals, self.settings())
        gains = {name: first_layers[at].gain.reshape(1) for name, at in places.items()}
        data = {name: {"weight": first_layers[at].weight} for name, at in places.items()}
        measured = self.measurement(context, gains, data, eta)
        best = max(gains, key=lambda name: float(gains[name]))
        return replace(measured, advised={name: most if name == best else 0 for name, most in measured.advised.items()})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> InsertPlan:
        """See `Method.plan`."""
        data = measurement.data[element.name]
        kind = next(k for k in element.kinds if k.startswith("residual"))
        values = {"first.weight": data["weight"]}
        seed = int(torch.randint(2**31, (), generator=context.generator))
        gain = float(measurement.scores[element.name].sum()) / 2
        return InsertPlan(element.name, kind, {}, seed, gain, values)


@dataclass(frozen=True)
class FirstLayer:
    """The first weight of a residual layer, and what the last one would add to the score: a scalar, float64, on the CPU."""

    weight: Tensor
    gain: Tensor


def best_layers(context: Context, places: Sequence[str], proposals: int, settings: Settings) -> dict[str, FirstLayer]:
    """The best of some random first layers behind each of these modules, by name."""
    layers = {at: _layer(context, at) for at in places}
    best: dict[str, FirstLayer] = {}
    for group in groups([(at, 8 * entries_of(layer) ** 2) for at, layer in layers.items()], GROUP_BYTES):
        here = {at: layers[at] for at in group}
        curved = {at: LayerSums.of(layer) for at, layer in here.items()}

        def curve(seen: dict[str, Seen], inputs: Tensor, curved: Mapping[str, LayerSums] = curved) -> None:
            for at, batch in seen.items():
                curved[at].add_curvature(layers[at], batch.gradient)

        draws = observe_curvature(context, group, curve, settings.draws, settings.num_batches)
        context.ranks.sum(*(s.outputs for s in curved.values()))
        for _ in range(proposals):
            for at, first in _propose(context, here, curved, draws, settings).items():
                if at not in best or first.gain > best[at].gain:
                    best[at] = first
    return best


def _layer(context: Context, at: str) -> nn.Linear | nn.Conv2d:
    """A layer like both of those in a residual layer behind the module `at`."""
    output = context.network.graph().modules[at].output
    size = output[1].size
    weight = next(context.network.module.parameters())
    where: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    if len(output) == 2:
        return skip_init(nn.Linear, size, size, **where)
    return skip_init(nn.Conv2d, size, size, 3, padding=1, **where)


def _propose(
    context: Context, layers: Mapping[str, nn.Linear | nn.Conv2d], curved: Mapping[str, LayerSums], draws: int, settings: Settings
) -> dict[str, FirstLayer]:
    """One random first layer behind each module."""
    sums, weights = {}, {}
    for at, layer in layers.items():
        sums[at] = replace(LayerSums.of(layer), outputs=curved[at].outputs, positions=curved[at].positions)
        drawn = torch.randn(layer.weight.shape, generator=context.generator) * math.sqrt(2.0 / layer.weight[0].numel())
        weights[at] = drawn.to(layer.weight)

    def use(seen: dict[str, Seen], inputs: Tensor) -> None:
        for at, batch in seen.items():
            hidden = run_rows(layers[at], batch.output.to(weights[at]), weights[at]).relu()
            sums[at].add(layers[at], hidden, batch.gradient)

    samples = observe(context, list(layers), use, settings.num_batches)
    context.ranks.sum(*(t for s in sums.values() for t in (s.inputs, s.gradient)))
    gains = {at: s.reduced(f"a new layer behind {at}", samples, draws, settings).eta for at, s in sums.items()}
    return {at: FirstLayer(weights[at].cpu(), torch.tensor(gain, dtype=torch.float64)) for at, gain in gains.items()}
