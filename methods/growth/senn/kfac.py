"""Natural-gradient scores of layers by Kronecker-factored curvature.

Per layer the Fisher matrix is taken to be A (x) S: A the second moment of the layer's inputs (bias as one more input), S that of
gradients at its output under the model's own distribution. The score eta = Tr[S^-1 dW A^-1 dW^T] is twice the decrease of the
loss that a full natural-gradient step of the layer promises. Convolutions: sums over positions in A, means over them in S
(Grosse and Martens 2016, KFC, arXiv 1602.01407).

S needs the curvature of the loss with respect to the network's outputs (for log-likelihoods that is their Fisher matrix), which
is taken from the loss itself, sample by sample, whatever the loss is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.growth.first_order.cross_moment import blocks, sum_dtype
from coppice.methods.growth.first_order.sweep import groups
from coppice.methods.growth.first_order.unfold import unfolded
from coppice.methods.growth.senn.output_curvature import observe_curvature
from coppice.methods.measures.statistics import Seen, observe, require_finite
from coppice.methods.method import Context

GROUP_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Settings:
    """How curvature is measured.

    Attributes:
        num_batches: over how many batches.
        draws: random gradients for S from each sample; 0: its exact expectation, one pass for each output of the network.
        damping: added to the diagonal of S, relative to its mean.
        ridge: likewise for A.
    """

    num_batches: int
    draws: int
    damping: float
    ridge: float


@dataclass(frozen=True)
class LayerScore:
    """What is left of one layer's statistics.

    Attributes:
        eta: its score.
        regression: dW A^-1, [out, inputs]: times an input it is the part of the gradient that the layer itself can follow.
        inverse: S^-1, [out, out].
        ridge: what was added to the diagonal of A.
    """

    eta: float
    regression: Tensor
    inverse: Tensor
    ridge: float


def layer_inputs(module: nn.Module, inputs: Tensor) -> Tensor:
    """What the layer's weight and bias are multiplied with: [entries (+ 1), n, positions]."""
    entries = unfolded(module, inputs.to(_weight(module).dtype))
    return torch.cat([entries, torch.ones_like(entries[:1])]) if module.bias is not None else entries


def layer_gradients(module: nn.Module, gradient: Tensor) -> Tensor:
    """At the layer's output: [out, n, positions]; tokens are positions."""
    if gradient.dim() == 2:
        return gradient.T.unsqueeze(2)
    return gradient.movedim(-1 if isinstance(module, nn.Linear) else 1, 0).flatten(2)


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module.weight, Tensor)
    return module.weight


def score_layers(context: Context, names: Sequence[str], settings: Settings) -> dict[str, LayerScore]:
    """Scores of Linear and Conv2d layers that are called once, by name.

    Raises:
        NonFiniteStatistics: something measured is not finite.
        ValueError: the network returns more than `MOST_OUTPUTS` numbers per sample.
    """
    network, sizes = context.network, []
    for name in names:
        entries = entries_of(network.module.get_submodule(name)) ** 2
        sizes.append((name, entries * sum_dtype(entries, torch.float32).itemsize))
    scores: dict[str, LayerScore] = {}
    for group in groups(sizes, GROUP_BYTES):
        scores |= _score(context, group, settings)
    return scores


def entries_of(module: nn.Module) -> int:
    """Weights of one row, the bias included."""
    return _weight(module)[0].numel() + (module.bias is not None)


def _score(context: Context, names: Sequence[str], settings: Settings) -> dict[str, LayerScore]:
    module = context.network.module
    layers = {n: module.get_submodule(n) for n in names}
    sums = {n: LayerSums.of(layer) for n, layer in layers.items()}

    def use(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, batch in seen.items():
            sums[name].add(layers[name], batch.input, batch.gradient)

    def curve(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, batch in seen.items():
            sums[name].add_curvature(layers[name], batch.gradient)

    samples = observe(context, names, use, settings.num_batches)
    draws = observe_curvature(context, names, curve, settings.draws, settings.num_batches)
    context.ranks.sum(*(t for s in sums.values() for t in (s.inputs, s.gradient, s.outputs)))
    return {n: s.reduced(n, samples, draws, settings) for n, s in sums.items()}


@dataclass
class LayerSums:
    """LayerSums over samples for one layer: A, dW and S."""

    inputs: Tensor
    gradient: Tensor
    outputs: Tensor
    positions: int = 1

    @staticmethod
    def of(module: nn.Module) -> LayerSums:
        """All sums 0, for a Linear or Conv2d layer."""
        weight, entries = _weight(module), entries_of(module)

        def zeros(rows: int, columns: int) -> Tensor:
            return torch.zeros(rows, columns, dtype=sum_dtype(rows * columns, weight.dtype), device=weight.device)

        return LayerSums(zeros(entries, entries), zeros(len(weight), entries), zeros(len(weight), len(weight)))

    def add(self, module: nn.Module, inputs: Tensor, gradient: Tensor | None) -> None:
        """A batch at the layer; the gradient is that of the loss, None where the loss does not depend on the layer."""
        weight = _weight(module)
        for part in blocks(len(inputs), weight[0].numel() * inputs[0, 0].numel() * weight.element_size()):
            x = layer_inputs(module, inputs[part]).flatten(1)
            self.inputs += (x @ x.T).to(self.inputs)
            if gradient is not None:
                self.gradient += (layer_gradients(module, gradient[part].to(x)).flatten(1) @ x.T).to(self.gradient)

    def add_curvature(self, module: nn.Module, gradient: Tensor | None) -> None:
        """A batch of gradients from `observe_curvature`."""
        if gradient is not None:
            g = layer_gradients(module, gradient.to(self.outputs))
            self.outputs += g.flatten(1) @ g.flatten(1).T
            self.positions = g.shape[2]

    def reduced(self, name: str, samples: int, draws: int, settings: Settings) -> LayerScore:
        """The score.

        Raises:
            NonFiniteStatistics: some sum is not finite; `name` says whose.
        """
        inputs, gradient, outputs = self.inputs / samples, self.gradient / samples, self.outputs / (draws * self.positions)
        require_finite(f"inputs and gradients of {name}", inputs, gradient, outputs)
        ridge = settings.ridge * float(inputs.diagonal().mean())
        inverse = inverted(outputs, settings.damping * float(outputs.diagonal().mean()))
        regression = (inverted(inputs, ridge) @ gradient.T.to(inputs)).T.to(outputs)
        eta = float((inverse @ gradient.to(outputs)).mul(regression).sum())
        return LayerScore(max(eta, 0.0), regression, inverse, ridge)


def inverted(matrix: Tensor, added: float) -> Tensor:
    """Inverse of a symmetric matrix with something added to its diagonal; of 0 where it is not positive."""
    if len(matrix) > 512:
        factor, failed = torch.linalg.cholesky_ex(matrix + added * torch.eye(len(matrix)).to(matrix))
        if not bool(failed):
            return torch.cholesky_inverse(factor)
    values, vectors = torch.linalg.eigh(matrix)
    values = values + added
    least = float(values.max().clamp(min=0)) * len(matrix) * torch.finfo(matrix.dtype).eps
    return (vectors * torch.where(values > least, 1 / values, 0.0)) @ vectors.T


def total(scores: Mapping[str, LayerScore]) -> float:
    """The network's score: the sum over its layers."""
    return sum(s.eta for s in scores.values())
