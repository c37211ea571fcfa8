"""The derivative of the path between two layers near 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from coppice.methods.growth.first_order.path import Run
from coppice.methods.growth.first_order.sweep import Drawn

_EPSILON = 1e-3


@dataclass(frozen=True)
class Linearised:
    """Derivative of a path.

    Attributes:
        shape: of the path's output.
        diagonal: [n, 1, positions...] where the path acts on each entry alone (activations): its derivative; else None.
        pull: gradients at the consumer's input, [n, units, ...] for at most as many units as the site has -> gradients at the
            entry's output. The path treats all units alike.
        exact: whether it is the derivative at 0.
    """

    shape: torch.Size
    diagonal: Tensor | None
    pull: Callable[[Tensor], Tensor]
    exact: bool


def linearise(run: Run, shape: torch.Size, like: Tensor, exact: bool, drawn: Drawn = None) -> Linearised:
    """The derivative of a path, whose input has `shape`, with the device and dtype of `like`.

    Args:
        run: the path.
        shape: [n, units, ...].
        like: any tensor.
        exact: at 0; else near 0 at random points, where ReLU and max-pooling have a derivative: of what acts on each entry alone
            the mean over both signs of that point, which is half the identity for ReLU.
        drawn: see `View`.
    """
    base = torch.zeros(shape, device=like.device, dtype=like.dtype)
    if not exact:
        base += _points(shape, drawn).to(base) * _EPSILON
    z = base.requires_grad_()
    h = run(z)
    diagonal = _diagonal(h, z) if h.shape == z.shape else None
    if diagonal is None:
        return Linearised(h.shape, None, partial(_pull, h, z), exact)
    if not exact:
        other = (-base.detach()).requires_grad_()
        (mirrored,) = torch.autograd.grad(run(other), other, torch.ones_like(h))
        diagonal = (diagonal + mirrored) / 2
    diagonal = diagonal.mean(1, keepdim=True)
    return Linearised(h.shape, diagonal, lambda g: g * diagonal, exact)


def _pull(h: Tensor, z: Tensor, gradients: Tensor) -> Tensor:
    """Gradients at h(z), for at most as many units as it has -> gradients at z."""
    n, units = gradients.shape[:2]
    padded = gradients.new_zeros(n, z.shape[1], *gradients.shape[2:])
    padded[:, :units] = gradients
    (pulled,) = torch.autograd.grad(h, z, padded.reshape(h.shape), retain_graph=True)
    return pulled[:, :units]


def _points(shape: torch.Size, drawn: Drawn) -> Tensor:
    """Normal numbers of this shape, the same at every call; a part of those for more samples where `drawn` says so."""
    first, total = drawn or (0, shape[0])
    if first + shape[0] > total:
        first, total = 0, shape[0]
    return torch.randn((total, *shape[1:]), generator=torch.Generator().manual_seed(0))[first : first + shape[0]]


def _diagonal(h: Tensor, z: Tensor) -> Tensor | None:
    """dh/dz where each entry of h depends on the same entry of z alone, which random gradients tell; else None."""
    probe = torch.ones_like(h)
    generator = torch.Generator().manual_seed(1)
    for dim, size in enumerate(h.shape):
        probe += torch.rand(size, generator=generator).to(h).view(-1, *[1] * (h.dim() - dim - 1))
    (ones,) = torch.autograd.grad(h, z, torch.ones_like(h), retain_graph=True)
    (probed,) = torch.autograd.grad(h, z, probe, retain_graph=True)
    return ones if torch.allclose(probed, ones * probe, rtol=1e-5, atol=0.0) else None
