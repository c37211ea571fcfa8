"""What the existing weights of a layer are multiplied with, from which their natural step is solved."""

from __future__ import annotations

import torch
from torch import Tensor

from coppice.methods.growth.first_order.covariance import add_lower, inputs_of, zeros
from coppice.methods.growth.first_order.cross_moment import blocks
from coppice.methods.growth.first_order.sweep import View
from coppice.methods.growth.tiny.whitening import solved
from coppice.methods.measures.statistics import require_finite
from coppice.methods.ranks import Ranks


class OwnWeights:
    """Sums over samples and positions at a consumer: of h h^T and h g^T, with h its unfolded inputs and g the gradient behind it.

    `capacity` bounds the memory: as long as samples and positions are at most as many as that and as the entries of h, h and g
    themselves are held, which are the sums in factors and take less memory. More of them are added up.

    Attributes:
        rows: samples and positions that are held; None: sums.
        inputs: [h, capacity], or the sum of h h^T, [h, h], its lower triangle.
        gradients: [out, capacity], or the sum of h g^T, [h, out].
    """

    def __init__(self, view: View, capacity: int) -> None:
        entries = view.consumer.weight[0].numel() + (view.consumer.bias is not None)
        self.rows: int | None = 0 if 0 < capacity <= entries else None
        out = len(view.consumer.weight)
        inputs, gradients = ((entries, entries), (entries, out)) if self.rows is None else ((entries, capacity), (out, capacity))
        self.inputs, self.gradients = zeros(view.before, *inputs), zeros(view.before, *gradients)

    def add(self, view: View) -> None:
        """Those of some more samples."""
        size = view.before.element_size()
        for part in blocks(len(view.behind), len(self.inputs) * view.gradient.shape[2:].numel() * size):
            h = inputs_of(view.consumer, view.behind[part], view.consumer.bias is not None)
            g = view.gradient[part].movedim(1, 0).reshape(view.gradient.shape[1], -1)
            self._put(h, g)

    def _put(self, h: Tensor, g: Tensor) -> None:
        if self.rows is not None and self.rows + h.shape[1] > self.inputs.shape[1]:
            held = self.inputs[:, : self.rows], self.gradients[:, : self.rows]
            self.rows, entries = None, len(self.inputs)
            self.inputs, self.gradients = zeros(h, entries, entries), zeros(h, entries, len(g))
            self._put(*held)
        if self.rows is not None:
            stop = self.rows + h.shape[1]
            self.inputs[:, self.rows : stop], self.gradients[:, self.rows : stop] = h, g
            self.rows = stop
            return
        add_lower(self.inputs, h, h)
        self.gradients += (h @ g.T).to(self.gradients)

    def sum(self, ranks: Ranks) -> None:
        """Make them those of the samples of all ranks, of which each holds sums."""
        assert self.rows is None or ranks.size == 1, "what ranks hold in factors cannot be added up"
        ranks.sum(self.inputs, self.gradients)

    def natural(self, name: str, ridge: float) -> tuple[Tensor, Tensor]:
        """The least-squares solution of h for g, [out, h], and the sum of its products with the gradients of the weights.

        What is held is used up.

        Raises:
            NonFiniteStatistics: something is NaN or infinite.
        """
        require_finite(f"the inputs of the consumer of {name}", self.inputs, self.gradients)
        with torch.autocast(self.inputs.device.type, enabled=False):
            if self.rows is None:
                step = solved(self.inputs, self.gradients, ridge)
                return step.T, (step * self.gradients).sum()
            entries, held = len(self.inputs), self.inputs[:, : self.rows]
            self.inputs = held.new_empty(0)
            basis, inner = torch.linalg.qr(held)
            del held
            product = inner @ self.gradients[:, : self.rows].to(inner).T
            inner = inner @ inner.T
            step = solved(inner, product, ridge, entries)
            return (basis @ step).T, (step * product).sum()
