"""How the loss bends with the incoming weights of one unit: the splitting matrix, formed or multiplied with vectors only.

S = E[sum over positions of dL/da * a''(z) * x x^T] for a unit with output a(z), z = theta . x, and x the producer's input at a
position, [entries of a row]. It is the part of the unit's Hessian that two children with opposite offsets see (Liu et al. 2019,
eq. 3); behind BatchNorm in eval mode z is scaled by gamma / sqrt(var + eps), which enters squared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from coppice.methods.growth.first_order.cross_moment import run_rows
from coppice.methods.growth.splitting.smooth_relu import SmoothReLU
from coppice.methods.measures.site import Site, through
from coppice.methods.measures.statistics import Seen, observe, require_finite
from coppice.methods.method import Context
from coppice.methods.network import Network

_CHUNK = 2**22
"""Entries of unfolded inputs that are held at a time."""


def rows_gradient(module: nn.Module, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the rows of a Linear or Conv2d, [units, entries of a row], from that of its output, summed over samples."""
    if isinstance(module, nn.Linear):
        return gradient.T @ inputs
    assert isinstance(module, nn.Conv2d)
    shape = (gradient.shape[1], *module.weight.shape[1:])
    rows = conv2d_weight(inputs, shape, gradient.contiguous(), module.stride, module.padding, module.dilation)
    return rows.flatten(1)


def batch_norm_factors(network: Network, site: Site) -> Tensor:
    """What BatchNorm in eval mode multiplies each unit with, [units]; ones without it."""
    if site.batch_norm is None:
        return torch.ones(site.size, device=network.device())
    norm = network.module.get_submodule(site.batch_norm)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None
    scale = (norm.running_var.detach() + norm.eps).rsqrt()
    return scale if norm.weight is None else scale * norm.weight.detach()


def second_derivatives(network: Network, site: Site, inputs: Tensor, entry: Tensor, gradient: Tensor) -> Tensor:
    """Second derivative of the loss, seen through the units' own activations only, for each entry of the site's entry output.

    The path between the entry and the consumer must treat entries one by one up to linear maps and choices (activations, average
    and max-pooling, flatten do).

    Args:
        network: not changed; in eval mode within.
        site: the units.
        inputs: of the network.
        entry: output of the site's entry.
        gradient: of the summed loss at the consumer's output.
    """
    z = entry.detach().clone().requires_grad_()
    with SmoothReLU():
        behind = through(network, site, inputs, z)
    consumer = network.module.get_submodule(site.consumer)
    weight = consumer.weight
    assert isinstance(weight, Tensor)
    with torch.enable_grad():
        value = (run_rows(consumer, behind, weight.detach()) * gradient).sum()
        (slope,) = torch.autograd.grad(value, z, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(z)
        (second,) = torch.autograd.grad(slope.sum(), z, allow_unused=True)
    return torch.zeros_like(slope) if second is None else second.detach()


@dataclass(frozen=True)
class SplittingMatrices:
    """The splitting matrices of all units of a site, mean over samples."""

    context: Context
    site: Site
    num_batches: int

    @property
    def producer(self) -> nn.Module:
        """The layer whose rows make the units."""
        return self.context.network.module.get_submodule(self.site.producer)

    def unmasked(self) -> Tensor:
        """1 where an incoming weight is not masked, else 0: [units, entries of a row], float64, CPU."""
        weight, mask = self.producer.weight, self.context.network.masks.get(f"{self.site.producer}.weight")
        assert isinstance(weight, Tensor)
        return torch.ones(weight.shape, dtype=torch.float64).flatten(1) if mask is None else mask.double().flatten(1).cpu()

    def matrices(self) -> Tensor:
        """S of each unit, [units, D, D] for rows of D entries, float64, CPU."""
        kept = self.unmasked()
        total = torch.zeros(len(kept), kept.shape[1], kept.shape[1], dtype=torch.float64)

        def use(before: Tensor, second: Tensor) -> None:
            samples = max(1, _CHUNK // (kept.shape[1] * second[0, 0].numel()))
            for x, c in zip(before.split(samples), second.split(samples), strict=True):
                wide = self._patches(x).double().movedim(1, 0).flatten(1)
                for unit, row in enumerate(c.double().movedim(1, 0).flatten(1)):
                    total[unit] += ((wide * row) @ wide.T).cpu()

        samples = self._observe(use)
        self.context.ranks.sum(total)
        require_finite(f"the splitting matrices of {self.site.producer}", total)
        return total / samples * kept.unsqueeze(1) * kept.unsqueeze(2)

    def times(self, vectors: Tensor) -> Tensor:
        """S v for one v of each unit, [units, D], without forming S; float64, CPU."""
        kept, weight = self.unmasked(), self.producer.weight
        assert isinstance(weight, Tensor)
        vectors = self.context.ranks.same({"": vectors})[""]
        rows = (vectors * kept).view(weight.shape).to(weight)
        total = torch.zeros_like(kept)

        def use(before: Tensor, second: Tensor) -> None:
            made = run_rows(self.producer, before, rows) * second
            total.add_(rows_gradient(self.producer, before, made).double().cpu())

        samples = self._observe(use)
        self.context.ranks.sum(total)
        require_finite(f"products with the splitting matrices of {self.site.producer}", total)
        return total / samples * kept

    def _observe(self, use: Callable[[Tensor, Tensor], None]) -> int:
        """Show `use` the producer's input and how the loss bends at its output, [n, units, ...], batch by batch."""
        network, site = self.context.network, self.site
        squared = batch_norm_factors(network, site).square()

        def see(seen: dict[str, Seen], inputs: Tensor) -> None:
            gradient = seen[site.consumer].gradient
            assert gradient is not None, "the loss depends on the consumer"
            second = site.rows(second_derivatives(network, site, inputs, seen[site.entry].output, gradient))
            use(site.rows(seen[site.producer].input), second * squared.view(-1, *[1] * (second.dim() - 2)))

        with torch.autocast(network.device().type, enabled=False):
            return observe(self.context, list(dict.fromkeys((site.producer, site.entry, site.consumer))), see, self.num_batches)

    def _patches(self, before: Tensor) -> Tensor:
        """[n, entries of a row, positions]."""
        if isinstance(self.producer, nn.Linear):
            return before.unsqueeze(2)
        assert isinstance(self.producer, nn.Conv2d)
        module = self.producer
        return F.unfold(before, module.weight.shape[2:], module.dilation, module.padding, module.stride)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ends:
    """Smallest and largest eigenvalue of each unit's matrix, [units], and unit eigenvectors, [units, D]; float64, CPU."""

    low: Tensor
    low_vectors: Tensor
    high: Tensor
    high_vectors: Tensor

    @staticmethod
    def of(values: Tensor, vectors: Tensor) -> Ends:
        """From ascending eigenvalues [units, k] and eigenvectors [units, D, k]."""
        return Ends(values[:, 0], vectors[:, :, 0], values[:, -1], vectors[:, :, -1])


def exact_ends(curvature: SplittingMatrices) -> Ends:
    """From the matrices themselves."""
    return Ends.of(*torch.linalg.eigh(curvature.matrices()))


def fast_ends(curvature: SplittingMatrices, steps: int, generator: torch.Generator) -> Ends:
    """The extrema of the Rayleigh quotient v^T S v / v^T v over the space of v, S v, ..., S^(steps-1) v (Lanczos).

    A value is never outside of what the whole space allows, and exact with as many steps as a row has entries. A space that ends
    earlier gives eigenvalues 0 with vectors 0 beside its own.
    """
    kept = curvature.unmasked()
    steps = min(steps, kept.shape[1])
    basis = torch.zeros(len(kept), kept.shape[1], steps, dtype=torch.float64)
    small = torch.zeros(len(kept), steps, steps, dtype=torch.float64)
    vector = torch.randn(kept.shape, generator=generator, dtype=torch.float64) * kept
    size = torch.zeros(len(kept), dtype=torch.float64)
    for step in range(steps):
        for _ in range(2):
            vector = vector - (basis @ (basis.mT @ vector.unsqueeze(2))).squeeze(2)
        length = vector.norm(dim=1)
        goes_on = length > 1e-6 * size
        basis[:, :, step] = torch.where(goes_on.unsqueeze(1), vector / length.clamp(min=1e-300).unsqueeze(1), 0.0)
        vector = curvature.times(basis[:, :, step])
        column = (basis.mT @ vector.unsqueeze(2)).squeeze(2)
        small[:, : step + 1, step] = small[:, step, : step + 1] = column[:, : step + 1]
        size = torch.maximum(size, vector.norm(dim=1))
    values, inner = torch.linalg.eigh(small)
    vectors = basis @ inner
    return Ends.of(values, vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-300))
