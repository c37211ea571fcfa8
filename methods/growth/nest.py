"""New units that bridge two layers where the gradient asks for a connection (NeST, Dai, Yin, Jha 2019)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.gradients import fan_out_gradients, offered, sites_of
from coppice.methods.growth.first_order.sweep import View, layers_of, sweep
from coppice.methods.measures.site import Site, site_of, why_no_site
from coppice.methods.measures.statistics import NonFiniteStatistics, mean_loss, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class Nest(Method):
    """Neurons from the bridging matrix, feature maps from the best of some random draws; both change the function at once.

    Between linear layers: B = -E[x g^T], [inputs, outputs], x before the producer and g the gradient at the consumer's output.
    For the `share` of its entries that are largest in size, with a random sign e for each, a new neuron gets e sgn(B) sqrt|B|
    on the input's side and e sqrt|B| on the output's, summed over entries; then both sides are scaled so that the mean size of
    their non-zero weights is `strength` times that of the existing ones. The product of both sides is B on average: the output
    moves against its gradient. Scores are the first-order decreases of the loss through the real activation, measured; of a
    neuron and its negative (both sides) the better one is taken, and only those that decrease the loss are offered (ours).

    Elsewhere (convolutions): for one new map after the other, `draws` random kernel sets are tried, each with either sign of
    the outgoing side (ours), and the one with the lowest loss on the batches is kept; the deviations of the weights are
    `strength` times those of the existing ones. These predict nothing before they are tried.
    """

    kind = "grow"
    levels = ("channel",)
    why = "new neurons that lower the loss the moment they are there"
    paper = "Dai, Yin, Jha 2019, NeST, growth policies 2 and 3 (arXiv 1711.02017)"
    preserves = False
    batch_norm = "new rows are scale 1, shift 0, mean 0, variance 1; gains and losses are measured through it in eval mode"
    cost = (
        "linear: two forwards and backwards per batch for all elements; convolutions: 2 `draws` forwards per map and batch"
    )

    strength: float = parameter(0.5, "birth strength; the paper finds more than 0.3 to work", low=1e-4, high=10.0, log=True)
    share: float = parameter(0.1, "of the entries of the bridging matrix, the largest", low=1e-4, high=1.0, log=True)
    draws: int = parameter(8, "convolutions: kernel sets tried for each new map", low=1, high=1000, log=True)
    num_batches: int = parameter(1, "batches that everything is measured on", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        return super().accepts(context, element) or why_no_site(context.network, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """New neurons with their gains; nothing for convolutions, whose maps are tried when they are planned."""
        sites = sites_of(context, elements)
        require_finite("the loss", mean_loss(context, 1))
        bridged = {name: site for name, site in sites.items() if _bridges(context, site)}
        matrices = self._bridging(context, bridged)
        sides = {n: self._neurons(context, bridged[n], b, offered(bridged[n], most[n])) for n, b in matrices.items()}
        incoming, outgoing = (context.ranks.same({n: pair[i] for n, pair in sides.items()}) for i in range(2))
        drawn = {n: (incoming[n], outgoing[n]) for n in incoming}
        gradients = fan_out_gradients(context, bridged, incoming, self.num_batches)
        data = {n: _improving(*drawn[n], gradients[n]) for n in bridged}
        scores = {n: data[n]["gains"] if n in data else torch.empty(0) for n in sites}
        return Measurement({n: s for n, s in scores.items() if n not in data or len(s)}, data)

    def _bridging(self, context: Context, sites: Mapping[str, Site]) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}

        def use(name: str, view: View) -> None:
            totals[name] = totals.get(name, 0) - (view.before.T @ view.gradient).double()

        samples = sweep(context, sites, use, self.num_batches)
        context.ranks.sum(*totals.values())
        for name, total in totals.items():
            require_finite(f"the bridging matrix of {name}", total)
        return {name: total / samples for name, total in totals.items()}

    def _neurons(self, context: Context, site: Site, bridging: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Both sides of new neurons: [count, inputs] and [count, outputs]."""
        size = bridging.abs().flatten()
        kept = size.topk(max(1, round(self.share * len(size)))).indices
        kept = kept[size[kept] > 0]
        root = torch.zeros_like(size).index_copy(0, kept, size[kept].sqrt()).view_as(bridging)
        signs = torch.randint(2, (count, *bridging.shape), generator=context.generator).to(root) * 2 - 1
        sides = (signs * (root * bridging.sign())).sum(2), (signs * root).sum(1)
        layers = layers_of(context.network, site)
        incoming, outgoing = (s * self._stretch(s, m.weight).to(s) for s, m in zip(sides, layers, strict=True))
        return incoming.to(layers[0].weight), outgoing.to(layers[1].weight)

    def _stretch(self, side: Tensor, weight: Tensor) -> Tensor:
        """What brings each row to `strength` times the mean size of the weights, zeros left aside."""
        mean = side.abs().sum(1, keepdim=True) / (side != 0).sum(1, keepdim=True).clamp(min=1)
        return self.strength * _mean_size(weight.detach()) / mean.clamp(min=1e-300)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = site_of(context.network, element)
        data = measurement.data.get(element.name)
        if data is None:
            return self._best_of(context, element, site, len(units))
        chosen = torch.tensor(list(units))
        values = {
            f"{site.producer}.weight:0": data["incoming"][chosen],
            f"{site.consumer}.weight:1": data["outgoing"][chosen].T.contiguous(),
        }
        gain = float(data["gains"][chosen].sum())
        return GrowPlan(element.name, len(units), values=values, produce="zero", consume="zero", predicted_gain=gain)

    def _best_of(self, context: Context, element: Element, site: Site, count: int) -> GrowPlan:
        """Map after map, the draw with the lowest loss, tried on a copy of the network."""
        network = copy.deepcopy(context.network)
        apply(network, GrowPlan(element.name, count, produce="zero", consume="zero"))
        trial = replace(context, network=network)
        producer, consumer = (layer.weight.detach() for layer in layers_of(network, site))
        old = [layer.weight.detach() for layer in layers_of(context.network, site)]
        start, before = old[1].shape[1], _loss(trial, self.num_batches)
        loss = before
        for unit in range(count):
            columns = slice(start + unit * site.taps, start + (unit + 1) * site.taps)
            row, column = producer[site.size + unit], consumer[:, columns]
            best, loss = (row.clone(), column.clone()), float("inf")
            for _ in range(self.draws):
                row.copy_(self._draw(context, old[0], row.shape))
                column.copy_(self._draw(context, old[1], column.shape))
                for _ in range(2):
                    column.neg_()
                    tried = _loss(trial, self.num_batches)
                    if tried < loss:
                        best, loss = (row.clone(), column.clone()), tried
            row.copy_(best[0])
            column.copy_(best[1])
        values = {
            f"{site.producer}.weight:0": producer[site.size :].clone(),
            f"{site.consumer}.weight:1": consumer[:, start:].clone(),
        }
        gain = before - loss if abs(before - loss) < float("inf") else None
        return GrowPlan(element.name, count, values=values, produce="zero", consume="zero", predicted_gain=gain)

    def _draw(self, context: Context, like: Tensor, shape: Sequence[int]) -> Tensor:
        deviation = self.strength * (float(like.double().std(correction=0)) or like[0].numel() ** -0.5)
        return (torch.randn(tuple(shape), generator=context.generator, dtype=torch.float64) * deviation).to(like)


def _bridges(context: Context, site: Site) -> bool:
    return site.taps == 1 and all(isinstance(layer, nn.Linear) for layer in layers_of(context.network, site))


def _mean_size(weight: Tensor) -> float:
    """Mean size of the weights that are not zero; where all are, that of a uniform draw of variance 1 / fan-in."""
    sizes = weight.double().abs().flatten()
    sizes = sizes[sizes > 0]
    return float(sizes.mean()) if len(sizes) else (0.75 / weight[0].numel()) ** 0.5


def _improving(incoming: Tensor, outgoing: Tensor, gradients: Tensor) -> dict[str, Tensor]:
    """The neurons, each with the better sign of both of its sides, that decrease the loss; the largest gains first."""
    incoming, outgoing = incoming.cpu(), outgoing.cpu()
    sides = outgoing.double()
    gains, sign = torch.stack([-(gradients[0] * sides).sum(1), (gradients[1] * sides).sum(1)]).max(0)
    signs = (1.0 - 2.0 * sign).to(incoming).unsqueeze(1)
    require_finite("the gains of new neurons", gains)
    order = gains.argsort(descending=True, stable=True)
    order = order[gains[order] > 0]
    return {"gains": gains[order], "incoming": (incoming * signs)[order], "outgoing": (outgoing * signs)[order]}


def _loss(context: Context, num_batches: int) -> float:
    """Mean loss; infinite where it is not finite."""
    try:
        return float(mean_loss(context, num_batches))
    except NonFiniteStatistics:
        return float("inf")
