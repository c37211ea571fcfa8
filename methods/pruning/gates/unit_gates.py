"""Gates on the outgoing weights of units: norms above a trained threshold pass, what is below is exactly zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.per_sample import Part
from coppice.methods.network import Network
from coppice.methods.pruning.gates.unit_norms import along, excess, gated_parts, has_unit, norms, scaled
from coppice.methods.pruning.gates.weight_gates import Gates

LARGEST = 0.95
"""The threshold stays below this fraction of the largest norm, so that no element loses all of its units."""
MOST = 0.1
"""Largest change of beta in a step."""
SMALLEST = 1e-3
"""Added to shares before they are raised to the power p, whose derivative at 0 is infinite."""


class UnitGates(Gates):
    """The gates of units' outgoing weights; `own` holds beta of each element.

    Args:
        network: which is not changed.
        strength: weight of the penalty.
        p: power of the penalty.
        start: threshold of a new element, as a fraction of the mean norm.
        rate: learning rate of beta, as a multiple of the optimizer's.
    """

    def __init__(self, network: Network, strength: float, p: float, start: float, rate: float) -> None:
        super().__init__()
        self.strength, self.p, self.start, self.rate = strength, p, start, rate
        self._elements: tuple[Element, ...] | None = None
        self._places: dict[str, list[Part]] = {}
        self.sync(network)

    def places(self, network: Network) -> dict[str, list[Part]]:
        """See `gated_parts`; computed anew only after the network has changed."""
        if self._elements is not network.elements():
            self._elements, self._places = network.elements(), gated_parts(network)
        return self._places

    def names(self, network: Network) -> list[str]:
        """See `Gates.names`."""
        return sorted({p.tensor for places in self.places(network).values() for p in places})

    def gated(self, network: Network, raw: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Gates.gated`."""
        done = dict(raw)
        for name, places in self.places(network).items():
            norm = norms(places, raw)
            over = self._over(norm, own[name])
            done = scaled(places, done, torch.where(norm > 0, over / norm.clamp(min=torch.finfo(norm.dtype).tiny), 1.0))
        return done

    def penalty(self, network: Network, raw: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor:
        """strength * sum over elements of sum over units of (share + a little)^p."""
        total = torch.zeros((), device=network.device())
        for name, places in self.places(network).items():
            over = self._over(norms(places, raw), own[name])
            share = over / over.sum().clamp(min=torch.finfo(over.dtype).tiny)
            total = total + (share + SMALLEST).pow(self.p).sum()
        return total * self.strength

    def step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """Gradient descent on beta."""
        for name, gradient in gradients.items():
            if name in self.own:
                self.own[name] = self.own[name] - (lr * self.rate * gradient).clamp(-MOST, MOST)

    def adjusted(self, network: Network) -> None:
        """Keep beta where the threshold is below its cap, so that it can come back.

        Units that got their first outgoing weights get a gate, which leaves those as they are.
        """
        for name, places in self.places(network).items():
            norm = norms(places, self.raw)
            cap = LARGEST * norm.max().double() / norm.sum().double().clamp(min=1e-300)
            self.own[name] = torch.logit(self.own[name].sigmoid().minimum(cap.clamp(1e-12, 1 - 1e-12)))
            fresh = (norm > 0) & ~self._had[name] if name in self._had else None
            if fresh is not None and bool(fresh.any()):
                over = self._over(torch.where(fresh, 0.0, norm), self.own[name])
                factors = torch.where(fresh, 1.0, over / norm.clamp(min=torch.finfo(norm.dtype).tiny))
                self._rebuild(name, places, scaled(places, {p.tensor: self.raw[p.tensor] for p in places}, factors))

    def before_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """See `Gates.before_step`."""
        self._had = {name: norms(places, self.raw) > 0 for name, places in self.places(network).items()}
        super().before_step(network, optimizer)

    _had: Mapping[str, Tensor] = {}

    def _over(self, norm: Tensor, beta: Tensor) -> Tensor:
        threshold = beta.sigmoid().to(norm.dtype) * norm.sum()
        return excess(norm, torch.minimum(threshold, LARGEST * norm.max()))

    def rebuild(self, network: Network, weights: Mapping[str, Tensor]) -> None:
        """See `Gates.rebuild`; thresholds stay as they are where they can."""
        places = self.places(network)
        self.own = {n: self.own[n] if n in self.own else self._first(p[0].size, network.device()) for n, p in places.items()}
        known = self.raw
        self.raw = {n: known[n] if n in known and known[n].shape == w.shape else torch.zeros_like(w) for n, w in weights.items()}
        held = {n: torch.zeros_like(w, dtype=torch.bool) for n, w in weights.items()}
        for name, element_places in places.items():
            self._rebuild(name, element_places, weights)
            for part in element_places:
                held[part.tensor] |= has_unit(part, weights[part.tensor])
        self.raw = {n: torch.where(held[n], w, weights[n]) for n, w in self.raw.items()}

    def _first(self, size: int, device: torch.device) -> Tensor:
        return torch.logit(torch.tensor(self.start / size, dtype=torch.float64, device=device))

    def _rebuild(self, name: str, places: Sequence[Part], weights: Mapping[str, Tensor]) -> None:
        """Raw weights of one element behind whose gates are `weights`.

        With T = sigmoid(beta) and S the sum of all raw norms, a unit of norm |v| > 0 has the raw norm |v| + T S. Those at 0 keep
        their direction and their share d <= T of S. So S = sum |v| / (1 - (number above 0) T - sum d).
        """
        value, held = norms(places, weights).double(), norms(places, self.raw).double()
        alive, dead = value > 0, (value == 0) & (held > 0)
        share, t, total = torch.where(dead, held / held.sum().clamp(min=1e-300), 0.0), self.own[name].sigmoid(), value.sum()
        for _ in range(60):
            share = share.minimum(t)
            rest = 1 - alive.sum() * t - share.sum()
            if bool(rest >= 0.05) and bool(value.max() * LARGEST * rest >= (1.001 - LARGEST) * t * total):
                break
            t = t / 2
        self.own[name] = torch.logit(t)
        every = total / rest
        factors = torch.where(alive, (value + t * every) / value.clamp(min=1e-300), 1.0)
        back = torch.where(dead, share * every / held.clamp(min=1e-300), 1.0)
        for part in places:
            now, before = weights[part.tensor], self.raw[part.tensor]
            gone = torch.where(part.units >= 0, dead[part.units.clamp(min=0)], False)
            now = scaled([part], {part.tensor: now}, factors)[part.tensor]
            kept = scaled([part], {part.tensor: before}, back)[part.tensor]
            now = torch.where(along(part, gone, now), kept, now)
            self.raw[part.tensor] = torch.where(has_unit(part, now), now, before)
