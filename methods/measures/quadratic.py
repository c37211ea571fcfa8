"""The loss of a small network as a quadratic function of its weights: gradient and curvature in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.measures.statistics import frozen_modes, require_finite
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.surgery.masks import mask_of

CHUNK_BYTES = 64 * 2**20
"""Memory for the Jacobians of the samples that are taken together."""


@dataclass(frozen=True)
class Flat:
    """The weights of a network in one vector: trained parameters in their order, masked entries left out.

    Attributes:
        masks: name -> which entries are in it.
    """

    masks: Mapping[str, Tensor]

    @staticmethod
    def of(network: Network) -> Flat:
        """Of all trained parameters."""
        return Flat({n: mask_of(network, n).cpu() for n, p in network.module.named_parameters() if p.requires_grad})

    def __len__(self) -> int:
        return sum(int(m.sum()) for m in self.masks.values())

    def range_of(self, name: str) -> range:
        """Positions of a tensor's entries, in the tensor's order."""
        start = 0
        for other, mask in self.masks.items():
            if other == name:
                return range(start, start + int(mask.sum()))
            start += int(mask.sum())
        raise KeyError(f"{name!r} must be a trained parameter, but those are {list(self.masks)}.")

    def gather(self, tensors: Mapping[str, Tensor], leading: int = 0) -> Tensor:
        """Tensors of the parameters' shapes (behind `leading` other dimensions) -> [..., length of the vector]."""
        parts = [tensors[n].flatten(leading)[..., m.flatten().to(tensors[n].device)] for n, m in self.masks.items()]
        return torch.cat(parts, -1)

    def scatter(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector as tensors of the parameters' shapes, zero where masked."""
        by_name, start = {}, 0
        for name, mask in self.masks.items():
            count = int(mask.sum())
            by_name[name] = torch.zeros(mask.shape, dtype=vector.dtype).masked_scatter_(mask, vector[start : start + count])
            start += count
        return by_name


@dataclass(frozen=True)
class Quadratic:
    """L(w + d) = loss + gradient . d + d . curvature . d / 2, all float64 on the CPU."""

    loss: float
    weights: Tensor
    gradient: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Linearised:
    """One chunk of samples: what goes in [n, ...], and at the outputs (flattened to K values a sample) of the mean loss over n.

    `jacobian` [n, K, P] of the outputs by the weights, `slope` [n, K] and `bend` [n, K, K]: first and second derivatives of each
    sample's own loss by its outputs.
    """

    inputs: Tensor
    jacobian: Tensor
    slope: Tensor
    bend: Tensor
    loss: float


def linearised(context: Context, flat: Flat, num_batches: int) -> Iterator[Linearised]:
    """The network in float64 and eval mode, a few samples of this rank at a time."""
    module = _double(context)
    parameters = {n: p.detach() for n, p in module.named_parameters() if n in flat.masks}
    device = context.network.device().type
    rows = 0
    for inputs, targets in context.shards(num_batches):
        x, y = _wide(inputs), _wide(targets)
        with frozen_modes(module), torch.autocast(device, enabled=False):
            outputs = module(x[:1]).flatten(1).shape[1] if not rows else 0
            rows = rows or max(1, CHUNK_BYTES // (8 * outputs * sum(p.numel() for p in parameters.values())))
            for a, b in zip(x.split(rows), y.split(rows), strict=True):
                yield _chunk(context, module, parameters, flat, (a, b))


def _double(context: Context) -> nn.Module:
    return copy.deepcopy(context.network.module).double()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _chunk(
    context: Context, module: nn.Module, parameters: dict[str, Tensor], flat: Flat, batch: tuple[Tensor, Tensor]
) -> Linearised:
    def outputs(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(module, weights, (sample.unsqueeze(0),))
        return output.squeeze(0)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return context.loss(output.unsqueeze(0), target.unsqueeze(0))

    x, y = batch
    with torch.no_grad():
        out = module(x)
        jacobian = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))(parameters, x)
        slope = torch.func.vmap(torch.func.grad(loss))(out, y).flatten(1)
        bend = torch.func.vmap(torch.func.jacrev(torch.func.grad(loss)))(out, y).reshape(len(x), slope.shape[1], -1)
        total = float(context.loss(out, y))
    flattened = {n: j.flatten(1, out.dim() - 1) for n, j in jacobian.items()}
    return Linearised(x, flat.gather(flattened, 2).cpu(), slope.cpu(), bend.cpu(), total)


def gauss_newton(context: Context, flat: Flat, num_batches: int) -> Quadratic:
    """Curvature sum J^T (d^2 loss / d output^2) J / N: exact where the outputs are linear in the weights."""
    size = len(flat)
    gradient, curvature = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    loss, samples = 0.0, 0
    for chunk in linearised(context, flat, num_batches):
        rows = chunk.jacobian.flatten(0, 1)
        gradient += rows.T @ chunk.slope.flatten()
        curvature += rows.T @ (chunk.bend @ chunk.jacobian).flatten(0, 1)
        loss, samples = loss + chunk.loss * len(chunk.inputs), samples + len(chunk.inputs)
    context.ranks.sum(gradient, curvature)
    loss, samples = context.ranks.number(loss), context.ranks.count(samples)
    return _checked(context, flat, loss / samples, gradient / samples, curvature / samples)


def exact_hessian(context: Context, flat: Flat, num_batches: int) -> Quadratic:
    """All second derivatives, a backward pass for each weight and batch."""
    module = _double(context)
    parameters = {n: p for n, p in module.named_parameters() if n in flat.masks}
    size, device = len(flat), context.network.device().type
    gradient, curvature = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    total, samples = 0.0, 0
    for inputs, targets in context.shards(num_batches):
        with frozen_modes(module), torch.autocast(device, enabled=False), torch.enable_grad():
            loss = context.loss(module(_wide(inputs)), _wide(targets)) * len(targets)
            first = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, materialize_grads=True)
            slope = flat.gather(dict(zip(parameters, first, strict=True)))
            for row, entry in enumerate(slope if slope.requires_grad else ()):
                second = torch.autograd.grad(entry, list(parameters.values()), retain_graph=True, materialize_grads=True)
                curvature[row] += flat.gather(dict(zip(parameters, second, strict=True))).cpu()
        gradient += slope.detach().cpu()
        total, samples = total + float(loss.detach()), samples + len(targets)
    context.ranks.sum(gradient, curvature)
    total, samples = context.ranks.number(total), context.ranks.count(samples)
    return _checked(context, flat, total / samples, gradient / samples, (curvature + curvature.T) / (2 * samples))


def _checked(context: Context, flat: Flat, loss: float, gradient: Tensor, curvature: Tensor) -> Quadratic:
    weights = flat.gather({n: p.detach().double().cpu() for n, p in context.network.module.named_parameters()})
    require_finite("the weights, the loss and its derivatives", torch.tensor(loss), weights, gradient, curvature)
    return Quadratic(loss, weights, gradient, curvature)


def inverse(curvature: Tensor, damping: float) -> Tensor:
    """Of the curvature, with `damping` times its diagonal added (at least 1e-6 of its largest); more where it bends down."""
    diagonal = curvature.diagonal()
    size = diagonal.abs().clamp(min=1e-6 * max(float(diagonal.abs().max()), 1e-300))
    while True:
        factor, failed = torch.linalg.cholesky_ex(curvature + torch.diag(damping * size))
        if not int(failed):
            return torch.cholesky_inverse(factor)
        damping *= 10
