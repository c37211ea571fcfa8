"""Momentum of dense gradients, masked connections included."""

from __future__ import annotations

import torch
from torch import Tensor

from coppice.methods.measures.step_sums import StepSums
from coppice.methods.network import Network
from coppice.methods.surgery.tensors import get_tensor


class DenseMomentum(StepSums):
    """m = beta m + (1 - beta) g and, with beta2, v = beta2 v + (1 - beta2) g^2 of every masked tensor; g is not masked yet.

    Penalties of companions that come earlier in the trial are part of g. A tensor's averages start when it is first masked.
    """

    def __init__(self, beta: float, beta2: float | None = None) -> None:
        super().__init__("momentum", *(["square"] if beta2 is not None else []))
        self.beta = beta
        self.beta2 = beta2

    @torch.no_grad()
    def after_backward(self, network: Network) -> None:
        """See `Companion.after_backward`."""
        for name in network.masks:
            gradient = get_tensor(network.module, name).grad
            if gradient is None:
                continue
            self.seen(name, gradient)
            gradient = gradient.float()
            self.tables["momentum"][name].lerp_(gradient, 1 - self.beta)
            if self.beta2 is not None:
                self.tables["square"][name].lerp_(gradient.square(), 1 - self.beta2)

    def direction(self, name: str) -> Tensor:
        """m / (1 - beta^t), or that over (sqrt(v / (1 - beta2^t)) + 1e-8) after t steps, at the tensor's shape."""
        steps = self.steps[name]
        mean = self.tables["momentum"][name] / (1 - self.beta**steps)
        if self.beta2 is None:
            return mean
        return mean / ((self.tables["square"][name] / (1 - self.beta2**steps)).sqrt() + 1e-8)
