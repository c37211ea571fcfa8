"""Candidates of growth: what is trained of them, within which norms, and their first values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.expr import Atom
from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.insertion import module_before
from coppice.methods.measures.site import Site, site_of
from coppice.methods.method import Context
from coppice.methods.network import Network


@dataclass
class TrainedTensor:
    """Something that is trained: `scale * value`, with the norm of each entry of dimension `dim` of the value kept.

    Attributes:
        value: in units of `scale`.
        scale: norm of a typical existing row or column.
        limit: norm that each entry of `dim` may have.
        fixed: whether it has that norm always, or at most.
        dim: entries have norms of their own along it; None: the tensor as a whole.
        mask: what may be other than zero, or None.
    """

    value: Tensor
    scale: float
    limit: float
    fixed: bool
    dim: int | None = 0
    mask: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """What it stands for."""
        return self.value * self.scale

    @property
    def rate(self) -> float:
        """Change of each number that changes an entry by its limit."""
        entries = self.value.numel() // (1 if self.dim is None else max(self.value.shape[self.dim], 1))
        return self.limit / max(entries, 1) ** 0.5

    @torch.no_grad()
    def project(self) -> None:
        """Bring the value back to what is allowed."""
        if self.mask is not None:
            self.value *= self.mask
        entries = self.value.unsqueeze(0) if self.dim is None else self.value.movedim(self.dim, 0)
        norms = entries.reshape(len(entries), -1).norm(dim=1).clamp(min=1e-30)
        factors = self.limit / norms if self.fixed else (self.limit / norms).clamp(max=1.0)
        shape = [1] * self.value.dim()
        if self.dim is not None:
            shape[self.dim] = -1
        self.value *= factors.view(shape)


@dataclass
class WidthCandidates:
    """Candidates of one site; `splits`, `fan_in` and `fan_out` are None where there are none.

    `fan_out` is [out, new units, taps or kernel].
    """

    site: Site
    new: int
    splits: TrainedTensor | None
    fan_in: TrainedTensor | None
    fan_out: TrainedTensor | None

    def rows(self, base: Tensor) -> Tensor:
        """What all rows (old, copies, new) take from one row each of the network."""
        return torch.cat([base, base, base.new_zeros(self.new, *base.shape[1:])])

    def columns(self, base: Tensor, taps: int) -> Tensor:
        """What all columns, `taps` for a unit, take from the network's: halves, and zero."""
        return torch.cat([base / 2, base / 2, base.new_zeros(len(base), self.new * taps, *base.shape[2:])], dim=1)

    def row_changes(self, gates: Tensor) -> Tensor:
        """What is added to the rows."""
        parts: list[Tensor] = []
        if self.splits is not None:
            step = self.splits.tensor * gates[: self.site.size].view(-1, *[1] * (self.splits.value.dim() - 1))
            parts = [-step, step]
        if self.fan_in is not None:
            like = self.fan_in.tensor
            parts = parts or [like.new_zeros(2 * self.site.size, *like.shape[1:])]
            parts.append(like)
        return torch.cat(parts)

    def column_changes(self, gates: Tensor) -> Tensor | None:
        """What is added to the columns."""
        if self.fan_out is None:
            return None
        new = self.fan_out.tensor * gates[self.site.size :].view(1, -1, *[1] * (self.fan_out.value.dim() - 2))
        new = new.flatten(1) if new.dim() == 3 else new
        return torch.cat([new.new_zeros(len(new), 2 * self.site.size * self.site.taps, *new.shape[2:]), new], dim=1)


@dataclass
class DepthCandidate:
    """A residual block: `first`, `bias`, `last` by name in `tensors`; `owner` is the element of the channels that it works on."""

    kind: str
    width: int
    owner: str
    tensors: Mapping[str, TrainedTensor]


@dataclass(frozen=True)
class Draws:
    """First values of what is tried."""

    context: Context
    epsilon: float

    def wide(self, element: Element, new: int, with_splits: bool) -> WidthCandidates:
        """Splits, where they are wanted, and `new` new units of a channel."""
        site = site_of(self.context.network, element)
        epsilon = self.epsilon
        row, column = (self._weight(n) for n in (site.producer, site.consumer))
        each = column.unflatten(1, (site.size, -1)) if column.dim() == 2 else column
        splits, fan_in, fan_out = None, None, None
        if with_splits:
            mask = self.context.network.masks.get(f"{site.producer}.weight")
            splits = TrainedTensor(self._draw(row.shape, epsilon / 2), _typical(row, 0), epsilon, False, 0, mask)
        if new:
            fan_in = TrainedTensor(self._draw((new, *row.shape[1:]), 1.0), _typical(row, 0), 1.0, True)
            shape = (len(each), new, *each.shape[2:])
            fan_out = TrainedTensor(self._draw(shape, epsilon / 10, dim=1), _typical(each, 1), epsilon, False, 1)
        return WidthCandidates(site, new, splits, fan_in, fan_out)

    def deep(self, element: Element, atoms: Mapping[str, str]) -> DepthCandidate:
        """A residual block half as wide as what it works on."""
        kind = next(k for k in element.kinds if k.startswith("residual"))
        atom = channel_atom(self.context.network, element)
        assert atom is not None, "accepted before"
        size, kernel = self.context.network.graph().atoms[atom].size, (3, 3) if kind.endswith("conv") else ()
        width, limit = max(1, size // 2), self.epsilon * size**0.5
        tensors = {
            "first": TrainedTensor(self._draw((width, size, *kernel), 1.0), 2**0.5, 1.0, True),
            "bias": TrainedTensor(self._draw((width,), 0.0), 1.0, self.epsilon, False),
            "last": TrainedTensor(self._draw((size, width, *kernel), limit / 10, dim=None), 1.0, limit, False, None),
        }
        return DepthCandidate(kind, width, atoms.get(atom, ""), tensors)

    def _weight(self, name: str) -> Tensor:
        weight = self.context.network.module.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    def _draw(self, shape: Sequence[int], norm: float, dim: int | None = 0) -> Tensor:
        """Random directions of that norm, along `dim` each or as a whole."""
        like = next(self.context.network.module.parameters())
        drawn = torch.randn(tuple(shape), generator=self.context.generator, dtype=torch.float64).to(like.device, like.dtype)
        made = TrainedTensor(drawn, 1.0, norm, True, dim)
        made.project()
        return made.value


def _typical(weight: Tensor, dim: int) -> float:
    """Mean norm of the entries along `dim`; where all are zero, that of a kaiming-normal draw."""
    flat = weight.movedim(dim, 0).flatten(1)
    mean = float(flat.norm(dim=1).mean())
    return mean if mean > 0 else (2.0 * flat.shape[1] / max(weight[0].numel(), 1)) ** 0.5


def channel_atom(network: Network, element: Element) -> str | None:
    """Name of the channels at an insertion point; None where they are a part of something else."""
    output = network.graph().modules[module_before(element)].output
    channels = output[1 if len(output) == 4 else -1] if output else None
    return channels.name if isinstance(channels, Atom) else None
