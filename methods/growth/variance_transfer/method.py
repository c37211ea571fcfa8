"""New units in cancelling pairs; old weights are rescaled so that variances stay (Yuan, Savarese, Maire 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.exact import Exact
from coppice.methods.growth.first_order.sweep import layers_of
from coppice.methods.growth.variance_transfer.stage_rates import StageRates
from coppice.methods.measures.site import Site, site_of
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class VarianceTransfer(Exact):
    """Pairs with equal incoming weights (V, V) and opposite outgoing ones (Z, -Z); old outgoing weights times beta.

    Pairs cancel exactly and learn from the first step on (their incoming gradients are opposite); of an odd number the last
    unit has zero outgoing weights. `pairing: none` draws V and Z for each unit alone.

    beta, with h units before and h' after, and K outgoing taps a unit and output:
        `default`: sqrt(h / h'). With `pairing: none` and independent weights the variance of the consumer's output stays the
        same; with pairs it is beta^2 times what it was until the pairs have moved apart.
        `old_shape`: 1 / sqrt(h K Var W), the variance 1/fan-in of the old size; `new_shape`: that of the new size.
        `none`: 1.
    Where a BatchNorm follows the consumer directly its running mean and variance follow too, and the network's function stays
    the same up to its epsilon; elsewhere it changes. The consumer's bias is left alone.

    The paper's rule is for the fan-in of its own parametrisation; the square root suits standard initialisation (ours: V and Z
    with the deviation of the old weights, `init: copy`). Incoming weights are not rescaled: the growth of a layer's output
    leaves its fan-in as it was.

    `stage_lr` gives the new entries of every weight a learning rate of their own, see `StageRates`; as it follows every resize
    in a trial, the growth of other methods beside this one gets it as well.
    """

    kind = "grow"
    levels = ("channel",)
    why = "growth that keeps the signal's variance and trains old and new weights at rates that suit each"
    paper = "Yuan, Savarese, Maire 2023, accelerated training via incrementally growing networks (arXiv 2306.12700), section 3"
    preserves = False
    batch_norm = (
        "behind the consumer: running mean times beta, variance times beta^2; between: new rows are scale 1, shift 0, mean 0, "
        "variance 1, the same for both of a pair"
    )
    cost = "one forward of the example inputs; with stage_lr a copy of the grown weights for each training step"
    companion_key = "stage_rates"

    pairing: str = parameter("vv_z_negz", "new units in cancelling pairs, or each alone", choices=("vv_z_negz", "none"))
    rescale: str = parameter(
        "default", "what old outgoing weights are multiplied by", choices=("none", "default", "old_shape", "new_shape")
    )
    init: str = parameter("copy", "deviation of new weights: that of the old ones, or 1/sqrt(fan-in)", choices=("copy", "fan_in"))
    scale: float = parameter(1.0, "of that deviation", low=1e-3, high=10.0, log=True)
    stage_lr: bool = parameter(True, "a learning rate for each growth stage", choices=(False, True))

    def promises(self) -> bool:
        """See `Method.promises`: pairs without rescaling leave the function as it is."""
        return self.rescale == "none" and self.pairing != "none"

    def companion(self, network: Network) -> Companion | None:
        """See `Method.companion`."""
        return StageRates() if self.stage_lr else None

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """No scores: nothing is measured."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site, count = site_of(context.network, element), len(units)
        consumer = layers_of(context.network, site)[1]
        beta = self._beta(consumer.weight.detach(), 1 + count / site.size)
        rows, columns = self._new(context, site, count, beta)
        values = {f"{site.producer}.weight:0": rows, f"{site.consumer}.weight:1": columns}
        adjust = {} if beta == 1.0 else _rescaled(context.network, site.consumer, beta)
        return GrowPlan(element.name, count, values=values, produce="zero", consume="zero", adjust=adjust)

    def _beta(self, weight: Tensor, ratio: float) -> float:
        """What the consumer's weight is multiplied by when it has `ratio` times as many inputs."""
        if self.rescale in ("none", "default"):
            return 1.0 if self.rescale == "none" else ratio**-0.5
        spread = float(weight.double().var(correction=0)) * weight[0].numel()
        if spread == 0.0:
            return 1.0
        return (spread * (ratio if self.rescale == "new_shape" else 1.0)) ** -0.5

    def _new(self, context: Context, site: Site, count: int, beta: float) -> tuple[Tensor, Tensor]:
        """New rows of the producer and new columns of the consumer, in the order of the units."""
        producer, consumer = (layer.weight.detach() for layer in layers_of(context.network, site))
        paired = self.pairing != "none"
        drawn = -(-count // 2) if paired else count
        fan_in = consumer[0].numel() * (1 + count / site.size)
        rows = self._draw(context, producer, (drawn, *producer.shape[1:]), self._deviation(producer, 1.0, producer[0].numel()))
        taps = (site.taps,) if consumer.dim() == 2 else consumer.shape[2:]
        columns = self._draw(context, consumer, (drawn, len(consumer), *taps), self._deviation(consumer, beta, fan_in))
        if paired:
            rows = rows.repeat_interleave(2, 0)[:count]
            columns = torch.stack([columns, -columns], 1).flatten(0, 1)[:count]
            if count % 2:
                columns[-1] = 0.0
        columns = columns.movedim(0, 1)
        return rows, columns.flatten(1) if consumer.dim() == 2 else columns.contiguous()

    def _deviation(self, weight: Tensor, factor: float, fan_in: float) -> float:
        deviation = float(weight.double().std(correction=0)) * factor if self.init == "copy" else 0.0
        return self.scale * (deviation if deviation > 0 else 1 / math.sqrt(fan_in))

    def _draw(self, context: Context, like: Tensor, shape: Sequence[int], deviation: float) -> Tensor:
        return (torch.randn(tuple(shape), generator=context.generator, dtype=torch.float64) * deviation).to(like)


def _rescaled(network: Network, name: str, beta: float) -> dict[str, Tensor]:
    """What is added to a layer's weight, and to the statistics of the BatchNorms right behind it, to multiply it by beta."""
    layer = network.module.get_submodule(name)
    assert isinstance(layer.weight, Tensor)
    added = {f"{name}.weight": layer.weight.detach() * (beta - 1)}
    for norm_name in _norms_behind(network, name):
        norm = network.module.get_submodule(norm_name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        if norm.running_mean is None or norm.running_var is None:
            continue
        offset = layer.bias.detach() if isinstance(layer.bias, Tensor) else 0.0
        added[f"{norm_name}.running_mean"] = (norm.running_mean - offset) * (beta - 1)
        added[f"{norm_name}.running_var"] = norm.running_var * (beta**2 - 1)
    return added


@torch.no_grad()
def _norms_behind(network: Network, name: str) -> list[str]:
    """BatchNorms that are given just what the layer `name` returns, in one forward of the example inputs."""
    made: list[Tensor] = []
    norms: list[str] = []

    def behind(norm: str) -> Any:
        return lambda module, args: norms.append(norm) if any(args[0] is t for t in made) else None

    modules = network.module.named_modules()
    hooks = [m.register_forward_pre_hook(behind(n)) for n, m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    layer = network.module.get_submodule(name)
    hooks.append(layer.register_forward_hook(lambda module, args, output: made.append(output), prepend=True))
    try:
        with frozen_modes(network.module):
            network.module(*network.example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(norms))
