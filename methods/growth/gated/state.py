"""What is behind the gates of one element: the trained number, the order of its units, raw weights of those not fully open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from coppice.methods.growth.gated.gates import Gate
from coppice.methods.measures.site import Site

_SHUT = 1e-4
"""Gates below this are not divided by."""


@dataclass
class GateState:
    """One element. The network's consumer holds gate * raw weight in the columns of each unit, always.

    Attributes:
        producer: weight whose rows make the units.
        consumer: weight whose columns (dimension 1) use them.
        taps: columns for each unit.
        value: the trained number.
        limit: see `Gate`.
        ranks: place of each unit in the order in which they open, [size], on the CPU.
        closed: columns of units whose gate is below 1, [k], on the CPU.
        raw: their weights without the gate, [k, out, ...].
        gradient: of the whole loss with respect to `value`, from the last backward pass.
    """

    producer: str
    consumer: str
    taps: int
    value: float
    limit: float
    ranks: Tensor
    closed: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    raw: Tensor | None = None
    gradient: float = 0.0

    @staticmethod
    def fresh(site: Site, gate: Gate, fraction: float) -> GateState:
        """All units in their order, this fraction of them open."""
        limit = gate.limit(site.size)
        value = gate.value_of(fraction * site.size, limit)
        return GateState(f"{site.producer}.weight", f"{site.consumer}.weight", site.taps, value, limit, torch.arange(site.size))

    def belongs_to(self, site: Site) -> bool:
        """Whether it is about these two layers."""
        return (self.producer, self.consumer) == (f"{site.producer}.weight", f"{site.consumer}.weight")

    def moved_to(self, site: Site) -> GateState:
        """The same order between other layers, whose weights tell what is behind the gates."""
        closed = torch.zeros(0, dtype=torch.long)
        names = {"producer": f"{site.producer}.weight", "consumer": f"{site.consumer}.weight"}
        return replace(self, **names, taps=site.taps, closed=closed, raw=None)  # type: ignore[arg-type]

    def open(self, gate: Gate) -> float:
        """Units that are open, a real number."""
        return gate.open(self.value, self.limit)

    def gates(self, gate: Gate) -> Tensor:
        """Of each unit, [size], float64."""
        return gate.ramp(self.open(gate) - self.ranks.double())

    def _columns(self, gates: Tensor) -> Tensor:
        units = (gates < 1).nonzero()
        return (units * self.taps + torch.arange(self.taps)).flatten()

    def _factors(self, gates: Tensor, columns: Tensor, like: Tensor) -> Tensor:
        return gates[columns // self.taps].to(like).view(-1, *[1] * (like.dim() - 1))

    @torch.no_grad()
    def apply_gates(self, gate: Gate, weight: Tensor) -> None:
        """Close the gates of a consumer that holds raw weights in all columns."""
        gates = self.gates(gate)
        self.closed = self._columns(gates)
        self.raw = weight.detach().movedim(1, 0)[self.closed.to(weight.device)].clone()
        self._put(weight, self._factors(gates, self.closed, self.raw) * self.raw)

    @torch.no_grad()
    def remove_gates(self, weight: Tensor) -> None:
        """Give the consumer its raw weights."""
        if self.raw is not None:
            self._put(weight, self.raw)

    def _put(self, weight: Tensor, columns: Tensor) -> None:
        if len(self.closed):
            weight.detach().index_copy_(1, self.closed.to(weight.device), columns.movedim(0, 1).contiguous())

    @torch.no_grad()
    def refresh(self, gate: Gate, weight: Tensor) -> None:
        """What the network holds is right: where it is not gate * raw (others changed it), raw weights become weight / gate.

        Behind a gate that is shut (below 1e-4) a weight that is not 0 is taken as raw, and the gate closed.
        """
        gates = self.gates(gate)
        columns = self._columns(gates)
        now = weight.detach().movedim(1, 0)[columns.to(weight.device)]
        raw = torch.full_like(now, float("nan"))
        if self.raw is not None and len(self.closed):
            place = torch.full((weight.shape[1],), -1)
            place[columns] = torch.arange(len(columns))
            kept = place[self.closed] >= 0
            raw[place[self.closed][kept].to(raw.device)] = self.raw.to(raw)[kept.to(raw.device)]
        factors = self._factors(gates, columns, now)
        foreign = now != factors * raw
        shut = factors <= _SHUT
        raw = torch.where(foreign, torch.where(shut, now, now / factors), raw)
        self.closed, self.raw = columns, raw
        if bool((foreign & shut & (now != factors * raw)).any()):
            self._put(weight, factors * raw)

    @torch.no_grad()
    def differentiate(self, gate: Gate, gradient: Tensor) -> float:
        """Chain rule: the gradient of the gated columns becomes that of the raw ones; returns dL/d(open units)."""
        if self.raw is None or not len(self.closed):
            return 0.0
        where = self.closed.to(gradient.device)
        ranks = self.ranks[self.closed // self.taps].double()
        slopes = gate.ramp_slope(self.open(gate) - ranks).to(gradient.device)
        seen = gradient.movedim(1, 0)[where]
        derivative = float(((seen.double() * self.raw.double()).flatten(1).sum(1) * slopes).sum())
        gradient.index_copy_(1, where, (self._factors(self.gates(gate), self.closed, seen) * seen).movedim(0, 1).contiguous())
        return derivative

    def follow_units(self, gate: Gate, index: Sequence[int], own: bool) -> None:
        """The element's units were changed; `own` new ones come last in the order and start shut.

        New units of others come first, fully open, and all that were there move up by as many. Where an open unit goes, one less
        is open; where the one that is opening goes, it is as if it had not begun. No gate of another unit changes (with a ramp
        of one unit).
        """
        units, kept = self.open(gate), {i for i in index if i >= 0}
        gone = sorted((int(r) for i, r in enumerate(self.ranks) if i not in kept), reverse=True)
        for rank in gone:
            units -= min(1.0, max(units - rank, 0.0))
        new = sum(i < 0 for i in index)
        size = len(kept)
        order = torch.tensor([int(self.ranks[i]) for i in index if i >= 0], dtype=torch.long).argsort().argsort()
        ranks, places = torch.empty(len(index), dtype=torch.long), torch.tensor(index)
        ranks[places >= 0] = order if own else order + new
        ranks[places < 0] = torch.arange(new) + (size if own else 0)
        self.ranks = ranks
        if gone or (new and not own):
            units += 0 if own else new
            self.limit = max(self.limit, gate.least_limit(len(index)))
            self.value = gate.value_of(units, self.limit)

    def follow_columns(self, index: Sequence[int], fresh: Tensor | None) -> None:
        """The consumer's columns were changed; `fresh` are raw weights of new ones, [new, out, ...], None when not known."""
        held = self.raw if self.raw is not None or fresh is None else fresh[:0]
        if held is None:
            return
        places = {old: new for new, old in enumerate(index) if old >= 0}
        kept = torch.tensor([int(c) in places for c in self.closed], dtype=torch.bool)
        closed = [places[int(c)] for c in self.closed[kept]]
        raw = held[kept.to(held.device)]
        if fresh is not None:
            closed += [i for i, old in enumerate(index) if old < 0]
            raw = torch.cat([raw, _fitted(fresh.to(raw), raw.shape[1:])])
        self.closed, self.raw = torch.tensor(closed, dtype=torch.long), raw

    def follow_others(self, dim: int, index: Sequence[int]) -> None:
        """Another dimension of the consumer was changed; new entries are told by the network's own weights."""
        if self.raw is None:
            return
        dim = dim + 1 if dim == 0 else dim
        where = torch.tensor(index, device=self.raw.device)
        self.raw = self.raw.index_select(dim, where.clamp(min=0)).index_fill(dim, (where < 0).nonzero().flatten(), float("nan"))

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors by name, for a checkpoint."""
        numbers = torch.tensor([self.value, self.limit, float(self.taps)], dtype=torch.float64)
        held = {"numbers": numbers, "ranks": self.ranks, "closed": self.closed}
        return held if self.raw is None else {**held, "raw": self.raw}

    @staticmethod
    def of(producer: str, consumer: str, tensors: Mapping[str, Tensor]) -> GateState:
        """The state of which `tensors` returned these."""
        value, limit, taps = tensors["numbers"].tolist()
        ranks, closed = tensors["ranks"].clone().cpu(), tensors["closed"].clone().cpu()
        raw = tensors["raw"].clone() if "raw" in tensors else None
        return GateState(producer, consumer, int(taps), value, limit, ranks, closed, raw)


def _fitted(fresh: Tensor, shape: Sequence[int]) -> Tensor:
    """Raw weights drawn before another change of the same step, in the shape of now."""
    if fresh.shape[1:] == torch.Size(shape):
        return fresh
    padded = fresh.new_zeros(len(fresh), *shape)
    part = tuple(slice(min(a, b)) for a, b in zip(fresh.shape[1:], shape, strict=True))
    padded[(slice(None), *part)] = fresh[(slice(None), *part)]
    return padded
