"""Candidates of cascade correlation: how well they follow the error that is left, and their ascent."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coppice.methods.measures.dag_site import DagSite
from coppice.methods.measures.statistics import frozen_modes, require_finite
from coppice.methods.method import Context
from coppice.methods.networks.dag import FUNCTIONS


class CandidatePool:
    """Candidates over the inputs and neurons of a network: [K, I + H] weights and [K] biases, float64.

    Nothing but sums is kept between batches; each question is a pass over them.
    """

    def __init__(self, context: Context, site: DagSite, num_batches: int) -> None:
        self._context, self._module, self._num_batches = context, site.module, num_batches
        self._act = FUNCTIONS[site.module.activation]
        total, curvature, samples = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
        for _, errors, curvatures in self._batches(second=True):
            total, curvature, samples = total + errors.sum(0), curvature + curvatures.sum(0), samples + len(errors)
        require_finite("the errors", total, curvature)
        self._mean, self._curvature, self._samples = total / samples, curvature / samples, samples

    def _batches(self, second: bool = False) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What candidates see [n, I + H], each sample's loss by its outputs once [n, O] and twice [n, O] (else zeros)."""

        def loss(output: Tensor, target: Tensor) -> Tensor:
            return self._context.loss(output.unsqueeze(0), target.unsqueeze(0))

        for inputs, targets in self._context.batches(self._num_batches):
            with frozen_modes(self._module), torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
                x = inputs.flatten(1)
                seen = torch.cat([x, self._module.neurons(x)], 1)
                out = self._module.out(seen)
                errors = torch.func.vmap(torch.func.grad(loss))(out, targets).double().cpu()
                curvatures = torch.zeros_like(errors)
                if second:
                    curvature = torch.func.vmap(torch.func.jacrev(torch.func.grad(loss)))(out, targets)
                    curvatures = curvature.diagonal(dim1=1, dim2=2).double().cpu()
            yield seen.double().cpu(), errors, curvatures

    def covariance(self, rows: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
        """[K, O] of each candidate with each output's error, and its derivative by weights and bias [K, O, I + H + 1]."""
        covariances, slopes = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for seen, errors, _ in self._batches():
            with torch.enable_grad():
                z = (seen @ rows.T + biases).requires_grad_()
                activations = self._act(z)
                (slope,) = torch.autograd.grad(activations.sum(), z)
            off = errors - self._mean
            covariances = covariances + activations.detach().T @ off
            ones = torch.cat([seen, torch.ones(len(seen), 1, dtype=torch.float64)], 1)
            slopes = slopes + torch.einsum("nk,no,nd->kod", slope, off, ones)
        return covariances / self._samples, slopes / self._samples

    def trained(self, rows: Tensor, biases: Tensor, steps: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Each candidate at the highest S that its ascent came by: weights, biases, S [K]."""
        now = torch.cat([rows, biases[:, None]], 1)
        optimizer = torch.optim.Adam([now], lr=rate)
        best, highest = now.clone(), torch.full((len(now),), -torch.inf, dtype=torch.float64)
        for step in range(steps + 1):
            covariances, slopes = self.covariance(now[:, :-1], now[:, -1])
            score = covariances.abs().sum(1)
            require_finite("a candidate's correlation with the error", score)
            better = score > highest
            best[better], highest[better] = now[better], score[better]
            if step < steps:
                now.grad = -(covariances.sign()[:, :, None] * slopes).sum(1)
                optimizer.step()
        return best[:, :-1], best[:, -1], highest

    def fitted(self, row: Tensor, bias: Tensor, step: float) -> tuple[Tensor, Tensor, Tensor]:
        """Outgoing weights [O] of one candidate, its mean, and the decrease of the loss that they bring (exact for mse)."""
        total, squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for seen, _, _ in self._batches():
            activations = self._act(seen @ row + bias)
            total, squares = total + activations.sum(), squares + activations.square().sum()
        mean = total / self._samples
        variance = (squares / self._samples - mean.square()).clamp(min=1e-12)
        covariance = self.covariance(row[None], bias[None])[0][0]
        scaled = (variance * self._curvature).clamp(min=1e-12)
        outgoing = -step * covariance / scaled
        return outgoing, mean, -(covariance * outgoing + outgoing.square() * scaled / 2).sum()
