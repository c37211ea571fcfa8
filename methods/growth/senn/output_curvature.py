"""Random gradients at a network's outputs whose second moment is the curvature of the loss there, sent back through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from coppice.methods.measures.statistics import Seen, frozen_modes, observe, require_finite
from coppice.methods.method import Context
from coppice.methods.network import LossFunction
from coppice.methods.ranks import ALONE, Ranks

MOST_OUTPUTS = 256
"""Numbers per sample that the network may return: their curvature is a matrix of that size for each sample."""


def observe_curvature(
    context: Context, names: Sequence[str], use: Callable[[dict[str, Seen], Tensor], None], draws: int, num_batches: int
) -> int:
    """`observe`, with gradients whose second moment is the curvature of the loss; returns what sums are divided by."""
    curvature, done, samples = OutputCurvature(context.loss, context.generator, context.ranks), 0, 0
    while done < (draws or curvature.outputs):
        loss = curvature.draw if draws else curvature.column(done)
        samples = observe(replace(context, loss=loss), names, use, num_batches)
        done += 1
    return samples * max(draws, 1)


class OutputCurvature:
    """Pseudo-losses whose gradients at the outputs have the loss's own curvature there as second moment, sample by sample."""

    def __init__(self, loss: LossFunction, generator: torch.Generator, ranks: Ranks = ALONE) -> None:
        self._loss, self._generator, self._ranks = loss, generator, ranks
        self.outputs = 1

    def draw(self, output: Tensor, target: Tensor) -> Tensor:
        """With one random gradient for each sample; the same ones however many ranks divide the batch."""
        roots = self._roots(output, target)
        total = self._ranks.count(len(roots))
        drawn = torch.randn((total, roots.shape[1]), generator=self._generator, dtype=torch.float64)
        noise = drawn[self._ranks.share(total)].to(roots)
        return self._dot(output, (roots @ noise.unsqueeze(2)).squeeze(2))

    def column(self, index: int) -> LossFunction:
        """With a column of the root of the curvature; all columns together give the exact second moment."""
        return lambda output, target: self._dot(output, self._roots(output, target)[:, :, index])

    def _dot(self, output: Tensor, gradients: Tensor) -> Tensor:
        return (output.flatten(1) * gradients.to(output)).sum() / len(output)

    def _roots(self, output: Tensor, target: Tensor) -> Tensor:
        """R with R R^T = second derivative of each sample's loss (its positive part), [n, outputs, outputs]."""
        self.outputs = math.prod(output.shape[1:])
        _, curvature = derivatives(self._loss, output, target, self._ranks)
        values, vectors = torch.linalg.eigh(curvature)
        return vectors * values.clamp(min=0).sqrt().unsqueeze(1)


@torch.no_grad()
def why_no_curvature(context: Context) -> str | None:
    """Why the curvature of the loss at the outputs cannot be formed; None when it can."""
    inputs = next(iter(context.batches(1)))[0]
    with frozen_modes(context.network.module):
        output = context.network.module(inputs[:1])
    size = math.prod(output.shape[1:])
    return f"the network returns {size:,} numbers per sample, and at most {MOST_OUTPUTS} can be" if size > MOST_OUTPUTS else None


def derivatives(loss: LossFunction, output: Tensor, target: Tensor, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """Gradient, [n, outputs], and second derivative, [n, outputs, outputs], of each sample's loss at the output, float64.

    Raises:
        ValueError: more than `MOST_OUTPUTS` outputs.
        NonFiniteStatistics: some entry is not finite, on one of the ranks.
    """
    n, size = len(output), math.prod(output.shape[1:])
    if size > MOST_OUTPUTS:
        raise ValueError(f"the network may return at most {MOST_OUTPUTS} numbers per sample, but returns {size}.")
    target = target.double() if target.is_floating_point() else target
    with torch.enable_grad():
        point = output.detach().double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point, target) * n, point, create_graph=True)
        rows = []
        for each in gradient.flatten(1).sum(0):
            derivative = torch.autograd.grad(each, point, retain_graph=True)[0] if each.requires_grad else torch.zeros_like(point)
            rows.append(derivative.flatten(1))
    curvature = torch.stack(rows, 1)
    require_finite("the derivatives of the loss at the outputs", gradient, curvature, ranks=ranks)
    return gradient.detach().flatten(1), curvature


def reachable(context: Context, num_batches: int) -> float:
    """Mean over samples of g^T H^+ g, g the loss's gradient at the outputs and H its curvature there.

    What the natural-gradient score of a network that could move each output as it likes would be. For a squared error of
    variance 1 it is the squared norm of g.
    """
    sums: list[Tensor] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        gradient, curvature = derivatives(context.loss, output, target, context.ranks)
        values, vectors = torch.linalg.eigh(curvature)
        along = (vectors.transpose(1, 2) @ gradient.unsqueeze(2)).squeeze(2)
        positive = values > (1e-12 * values.max(1, keepdim=True).values).clamp(min=1e-30)
        sums.append((along.square() / values.where(positive, 1.0)).where(positive, 0.0).sum().cpu())
        return output.sum() * 0.0

    samples = observe(replace(context, loss=loss), (), lambda seen, inputs: None, num_batches)
    return context.ranks.number(float(sum(sums, torch.zeros((), dtype=torch.float64)))) / max(samples, 1)
