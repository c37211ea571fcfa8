"""Which new first neuron helps most when its outgoing weights and all existing weights take a Newton step together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coppice.methods.measures.dag_site import DagSite, Neuron
from coppice.methods.measures.quadratic import Flat, gauss_newton, inverse, linearised
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context
from coppice.methods.networks.dag import FUNCTIONS


def ranked_neurons(
    context: Context, site: DagSite, draws: int, *, spread: float, damping: float, num_batches: int
) -> list[Neuron]:
    """Drawn neurons with their best outgoing weights, the largest predicted decrease of the loss first.

    With J the Jacobian of the outputs by the existing weights, J_c that by the new neuron's outgoing weights (what it says times
    the Jacobian by the targets' biases), both weighted by the second derivative of the loss, H = J^T J / N, B = J^T J_c / N:
    S = J_c^T J_c / N - B^T H^-1 B, gamma = g_c - B^T H^-1 g; outgoing weights -S^-1 gamma, decrease gamma^T S^-1 gamma / 2 beyond
    what the existing weights reach alone.

    Args:
        context: network and data.
        site: the network as a whole.
        draws: how many neurons.
        spread: largest slope in units of the inputs' standard deviation; slopes are log-uniform down to 0.3.
        damping: of H, relative to its diagonal.
        num_batches: batches.
    """
    rows, biases = _drawn(context, site, draws, spread, num_batches)
    flat = Flat.of(context.network)
    whole = gauss_newton(context, flat, num_batches)
    backward = inverse(whole.curvature, damping)
    step, gains = _solved(_moments(context, site, (rows, biases), flat, num_batches), whole.gradient, backward)
    require_finite("the predicted decrease of the loss", gains)
    same, neurons = context.ranks.same({"step": step, "gains": gains}), len(site.module.weight)
    step, gains = same["step"], same["gains"]
    return [
        Neuron(rows[c], torch.zeros(neurons, dtype=torch.float64), biases[c], step[c, :neurons], step[c, neurons:])
        for c in gains.argsort(descending=True, stable=True).tolist()
    ]


def _moments(
    context: Context, site: DagSite, neurons: tuple[Tensor, Tensor], flat: Flat, num_batches: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Means over samples for each draw: B [draws, P, targets], J_c^T J_c [draws, targets, targets], g_c [draws, targets].

    Args:
        context: network and data.
        site: the network as a whole.
        neurons: incoming weights [draws, I] and biases [draws].
        flat: the P existing weights.
        num_batches: batches.
    """
    rows, biases = neurons
    targets = torch.tensor([*flat.range_of("bias"), *flat.range_of("out.bias")])
    draws, size, width = len(rows), len(flat), len(targets)
    cross, own = torch.zeros(draws, size, width, dtype=torch.float64), torch.zeros(draws, width, width, dtype=torch.float64)
    slope, samples = torch.zeros(draws, width, dtype=torch.float64), 0
    for chunk in linearised(context, flat, num_batches):
        activations = FUNCTIONS[site.module.activation](chunk.inputs.flatten(1).cpu() @ rows.T + biases)
        at, curved = chunk.jacobian[:, :, targets], chunk.bend @ chunk.jacobian
        pulled = torch.einsum("nk,nkt->nt", chunk.slope, at)
        slope += activations.T @ pulled
        inner = torch.einsum("nkp,nkt->npt", curved, at)
        cross += torch.einsum("nc,npt->cpt", activations, inner)
        own += torch.einsum("nc,nut->cut", activations.square(), inner[:, targets])
        samples += len(activations)
    context.ranks.sum(cross, own, slope)
    samples = context.ranks.count(samples)
    return cross / samples, own / samples, slope / samples


def _drawn(context: Context, site: DagSite, draws: int, spread: float, num_batches: int) -> tuple[Tensor, Tensor]:
    """Incoming weights [draws, I] and biases: random directions and slopes, each centred at a sample; a quarter of them zero."""
    total, squares, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for inputs, _ in context.batches(num_batches):
        x = inputs.flatten(1).double().cpu()
        total, squares, count = total + x.sum(0), squares + x.square().sum(0), count + len(x)
    require_finite("the inputs", total, squares)
    deviation = (squares / count - (total / count).square()).clamp(min=0).sqrt().clamp(min=1e-3)
    generator, size = context.generator, len(deviation)
    directions = torch.randn(draws, size, generator=generator, dtype=torch.float64) / deviation
    low, high = math.log(min(0.3, spread)), math.log(spread)
    slopes = torch.exp(low + (high - low) * torch.rand(draws, 1, generator=generator, dtype=torch.float64)) / math.sqrt(size)
    kept = torch.rand(draws, size, generator=generator) >= 0.25
    rows = directions * slopes * kept
    inputs = next(iter(context.batches(1)))[0].flatten(1).double().cpu()
    centres = inputs[torch.randint(len(inputs), (draws,), generator=generator)]
    return rows, -(rows * centres).sum(1)


def _solved(moments: tuple[Tensor, Tensor, Tensor], gradient: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """Best outgoing weights of each draw, [draws, targets], and the decreases of the loss that they bring, [draws]."""
    cross, own, slope = moments
    carried = cross.transpose(1, 2) @ backward
    schur = own - carried @ cross
    diagonal = own.diagonal(dim1=1, dim2=2)
    schur = schur + torch.diag_embed(1e-3 * diagonal + 1e-12)
    gamma = slope - carried @ gradient
    step = -torch.linalg.solve(schur, gamma)
    return step, -(gamma * step).sum(1) / 2
