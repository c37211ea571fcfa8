"""How the loss of each single sample depends on each unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element, Role
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.measures.units import held
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.surgery.tensors import get_tensor

EVERY: tuple[Role, ...] = ("produce", "consume", "bias", "scale", "shift", "raw")
"""Roles of the tensors that a unit lives in and that are trained."""
CHUNK_BYTES = 64 * 2**20
"""Memory for the gradients of the samples that are taken together."""

Gradients = Callable[[dict[str, Tensor], Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Part:
    """A dimension of a tensor that holds units of an element: which unit each entry belongs to (-1 for none), and how many."""

    tensor: str
    dim: int
    units: Tensor
    size: int

    def sums(self, tensor: Tensor) -> Tensor:
        """[n, *shape of the tensor] -> sums of the entries of each unit, [n, size], float64 on the CPU."""
        return self.units_of(tensor.movedim(self.dim + 1, 1).flatten(2).sum(2) if tensor.ndim > 2 else tensor)

    def units_of(self, rows: Tensor) -> Tensor:
        """[n, entries of the dimension] -> sums over the entries of each unit, [n, size], float64 on the CPU."""
        inside = self.units >= 0
        rows = rows.double().cpu()
        return rows.new_zeros(len(rows), self.size).index_add_(1, self.units[inside], rows[:, inside])


def parts(network: Network, element: Element, roles: Sequence[Role] = EVERY) -> list[Part]:
    """Where the units of an element live, each place once; tensors that do not train (buffers) are left out."""
    trained = {name for name, _ in network.module.named_parameters()}
    by_place = {(o.tensor, o.dim, o.role): Part(o.tensor, o.dim, u, element.size) for o, u in held(network, element, roles)}
    return [part for part in by_place.values() if part.tensor in trained]


def products(network: Network, places: Sequence[Part], gradients: Mapping[str, Tensor]) -> Tensor:
    """Sum of weight times gradient over all places of each unit: d loss / d (factor on the unit), [samples, size], float64."""
    total = torch.zeros((), dtype=torch.float64)
    for part in places:
        weight = get_tensor(network.module, part.tensor).detach()
        total = total + part.sums(weight * gradients[part.tensor])
    return total


def sample_gradients(context: Context, names: Sequence[str], num_batches: int) -> Iterator[dict[str, Tensor]]:
    """Gradients of single samples' losses, a few samples of this rank at a time: tensor name -> [samples, *shape].

    The network runs in eval mode and full precision; its gradients, modes and the RNG are left as they were. Samples are taken
    together where the forward allows it (`torch.func.vmap`), else one by one.
    """
    weights = {n: get_tensor(context.network.module, n).detach() for n in names}
    rows = max(1, CHUNK_BYTES // max(1, sum(w.numel() * w.element_size() for w in weights.values())))
    together = rows > 1
    for inputs, targets in context.shards(num_batches):
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            with frozen_modes(context.network.module), torch.autocast(x.device.type, enabled=False):
                gradients = _together(context, weights, x, y) if together else None
                together = gradients is not None
                yield gradients if gradients is not None else _one_by_one(context, weights, x, y)


def mean_gradients(context: Context, names: Sequence[str], num_batches: int) -> dict[str, Tensor]:
    """Gradient of the mean loss: tensor name -> [1, *shape]."""
    weights = {n: get_tensor(context.network.module, n).detach() for n in names}
    totals = {n: torch.zeros_like(w) for n, w in weights.items()}
    samples = 0
    for x, y in context.shards(num_batches):
        with frozen_modes(context.network.module), torch.autocast(x.device.type, enabled=False):
            for name, gradient in _gradient(context, weights, x, y).items():
                totals[name] += gradient * len(y)
        samples += len(y)
    context.ranks.sum(*totals.values())
    samples = context.ranks.count(samples)
    return {n: (t / max(samples, 1)).unsqueeze(0) for n, t in totals.items()}


def _loss(context: Context, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return context.loss(torch.func.functional_call(context.network.module, weights, (x,)), y)


def _gradient(context: Context, weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
    with torch.enable_grad():
        loss = _loss(context, leaves, x, y)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(weights.items(), gradients, strict=True)}


def _one_by_one(context: Context, weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    gradients = [_gradient(context, weights, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return {n: torch.stack([g[n] for g in gradients]) for n in weights}


def _together(context: Context, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
    """None where the forward cannot be mapped over samples."""

    def one(inner: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
        return _loss(context, inner, sample.unsqueeze(0), target.unsqueeze(0))

    try:
        with torch.no_grad():
            of_each = torch.func.vmap(torch.func.grad(one), (None, 0, 0), randomness="different")
            gradients: dict[str, Tensor] = of_each(weights, x, y)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return None
    return gradients
