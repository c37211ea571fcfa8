"""Natural-gradient scores of layers by Kronecker-factored curvature.

Per layer the Fisher matrix is taken to be A (x) S: A the second moment of the layer's inputs (bias as one more input), S that of
gradients at its output under the model's own distribution. The score eta = Tr[S^-1 dW A^-1 dW^T] is twice the decrease of the
loss that a full natural-gradient step of the layer promises. Convolutions: sums over positions in A, means over them in S
(Grosse and Martens 2016, KFC, arXiv 1602.01407).

S needs the curvature of the loss with respect to the network's outputs (for log-likelihoods that is their Fisher matrix), which
is taken from the loss itself, sample by sample, whatever the loss is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from methods.growth.cross_moment import blocks, sum_dtype
from methods.growth.sweep import groups
from methods.growth.unfold import unfolded
from methods.method import Context
from methods.network import LossFunction
from methods.statistics import Seen, observe, require_finite

GROUP_BYTES = 64 * 2**20
MOST_OUTPUTS = 256
"""Numbers per sample that the network may return: their curvature is a matrix of that size for each sample."""


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
    found = unfolded(module, inputs.to(_weight(module).dtype))
    return torch.cat([found, torch.ones_like(found[:1])]) if module.bias is not None else found


def layer_gradients(gradient: Tensor) -> Tensor:
    """At the layer's output: [out, n, positions]."""
    return gradient.flatten(2).transpose(0, 1) if gradient.dim() > 2 else gradient.T.unsqueeze(2)


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
    found: dict[str, LayerScore] = {}
    for group in groups(sizes, GROUP_BYTES):
        found |= _score(context, group, settings)
    return found


def entries_of(module: nn.Module) -> int:
    """Weights of one row, the bias included."""
    return _weight(module)[0].numel() + (module.bias is not None)


def _score(context: Context, names: Sequence[str], settings: Settings) -> dict[str, LayerScore]:
    module = context.network.module
    layers = {n: module.get_submodule(n) for n in names}
    sums = {n: Sums.of(layer) for n, layer in layers.items()}

    def use(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, batch in seen.items():
            sums[name].add(layers[name], batch.input, batch.gradient)

    def curve(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, batch in seen.items():
            sums[name].add_curvature(batch.gradient)

    samples = observe(context, names, use, settings.num_batches)
    draws = observe_curvature(context, names, curve, settings)
    return {n: s.reduced(n, samples, draws, settings) for n, s in sums.items()}


def observe_curvature(
    context: Context, names: Sequence[str], use: Callable[[dict[str, Seen], Tensor], None], settings: Settings
) -> int:
    """`observe`, with gradients whose second moment is the curvature of the loss; returns what sums are divided by."""
    curvature, done, samples = Curvature(context.loss, context.generator), 0, 0
    while done < (settings.draws or curvature.outputs):
        loss = curvature.draw if settings.draws else curvature.column(done)
        samples = observe(replace(context, loss=loss), names, use, settings.num_batches)
        done += 1
    return samples * max(settings.draws, 1)


@dataclass
class Sums:
    """Sums over samples for one layer: A, dW and S."""

    inputs: Tensor
    gradient: Tensor
    outputs: Tensor
    positions: int = 1

    @staticmethod
    def of(module: nn.Module) -> Sums:
        """Zeros."""
        weight, entries = _weight(module), entries_of(module)

        def zeros(rows: int, columns: int) -> Tensor:
            return torch.zeros(rows, columns, dtype=sum_dtype(rows * columns, weight.dtype), device=weight.device)

        return Sums(zeros(entries, entries), zeros(len(weight), entries), zeros(len(weight), len(weight)))

    def add(self, module: nn.Module, inputs: Tensor, gradient: Tensor | None) -> None:
        """A batch at the layer; the gradient is that of the loss, None where the loss does not depend on the layer."""
        weight = _weight(module)
        for part in blocks(len(inputs), weight[0].numel() * inputs[0, 0].numel() * weight.element_size()):
            x = layer_inputs(module, inputs[part]).flatten(1)
            self.inputs += (x @ x.T).to(self.inputs)
            if gradient is not None:
                self.gradient += (layer_gradients(gradient[part].to(x)).flatten(1) @ x.T).to(self.gradient)

    def add_curvature(self, gradient: Tensor | None) -> None:
        """A batch of gradients from `observe_curvature`."""
        if gradient is not None:
            g = layer_gradients(gradient.to(self.outputs))
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


class Curvature:
    """Pseudo-losses whose gradients at the outputs have the loss's own curvature there as second moment, sample by sample."""

    def __init__(self, loss: LossFunction, generator: torch.Generator) -> None:
        self._loss, self._generator = loss, generator
        self.outputs = 1

    def draw(self, output: Tensor, target: Tensor) -> Tensor:
        """With one random gradient for each sample."""
        roots = self._roots(output, target)
        noise = torch.randn(roots.shape[:2], generator=self._generator, dtype=torch.float64).to(roots)
        return self._dot(output, (roots @ noise.unsqueeze(2)).squeeze(2))

    def column(self, index: int) -> LossFunction:
        """With a column of the root of the curvature; all columns together give the exact second moment."""
        return lambda output, target: self._dot(output, self._roots(output, target)[:, :, index])

    def _dot(self, output: Tensor, gradients: Tensor) -> Tensor:
        return (output.flatten(1) * gradients.to(output)).sum() / len(output)

    def _roots(self, output: Tensor, target: Tensor) -> Tensor:
        """R with R R^T = second derivative of each sample's loss (its positive part), [n, outputs, outputs]."""
        n, size = len(output), math.prod(output.shape[1:])
        if size > MOST_OUTPUTS:
            raise ValueError(f"the network may return at most {MOST_OUTPUTS} numbers per sample, but returns {size}.")
        self.outputs = size
        with torch.enable_grad():
            point = output.detach().double().requires_grad_()
            target = target.double() if target.is_floating_point() else target
            (gradient,) = torch.autograd.grad(self._loss(point, target) * n, point, create_graph=True)
            rows = []
            for each in gradient.flatten(1).sum(0):
                found = torch.autograd.grad(each, point, retain_graph=True)[0] if each.requires_grad else torch.zeros_like(point)
                rows.append(found.flatten(1))
        curvature = torch.stack(rows, 1)
        require_finite("the curvature of the loss at the outputs", curvature)
        values, vectors = torch.linalg.eigh(curvature)
        return vectors * values.clamp(min=0).sqrt().unsqueeze(1)


def output_gradient(context: Context, num_batches: int) -> float:
    """Mean over samples of the squared norm of the loss's gradient at the network's output."""
    squares: list[Tensor] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        point = output.detach().requires_grad_()
        value = context.loss(point, target)
        squares.append(torch.autograd.grad(value * len(target), point)[0].double().square().sum().cpu())
        return output.sum() * 0.0

    samples = observe(replace(context, loss=loss), (), lambda seen, inputs: None, num_batches)
    return float(sum(squares, torch.zeros((), dtype=torch.float64))) / max(samples, 1)


def total(scores: Mapping[str, LayerScore]) -> float:
    """The network's score."""
    return sum(s.eta for s in scores.values())
