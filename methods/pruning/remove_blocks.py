"""Whole blocks and layers go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import RemovePlan
from methods.statistics import Seen, observe, require_finite


@dataclass(frozen=True)
class RemoveBlocks(Method):
    """Blocks that change their input least: block influence 1 - E[cos(x_in, x_out)] (Men et al. 2024, ShortGPT, eq. 1).

    A branch beside a skip path, whose output is added to x, is scored by E[|f(x)| / |x|] of its own input and output: ours.
    """

    kind = "prune"
    levels = ("block", "layer")
    paper = "Men et al. 2024, ShortGPT (arXiv 2403.03853), eq. 1"
    preserves = False
    batch_norm = "leaves with its block"

    batches: int = parameter(1, "batches of training data that are measured", low=1, high=64)
    layers: bool = parameter(False, "also layers that are not residual, which removal does change")

    def accepts(self, context: Context, element: Element) -> str | None:
        """As every method; plain layers only when asked for."""
        if element.level == "layer" and not self.layers:
            return "only residual blocks are removed; set layers: true for others"
        return super().accepts(context, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """One score for each block, high = it matters."""
        calls = context.network.graph().modules
        sums: dict[str, Tensor] = {e.name: torch.zeros(1) for e in elements}
        num = 0

        def add(seen: dict[str, Seen], size: int) -> None:
            nonlocal num
            num += size
            for name, one in seen.items():
                before, after = one.input.flatten(1).float(), one.output.flatten(1).float()
                beside = calls[name].branch and not calls[name].residual
                influence = (
                    after.norm(dim=1) / before.norm(dim=1).clamp_min(1e-12) if beside else 1 - F.cosine_similarity(before, after)
                )
                sums[name] += influence.sum().cpu()

        observe(context, [e.name for e in elements], add, self.batches, gradients=False)
        scores = {name: total / num for name, total in sums.items()}
        require_finite("the influence of the blocks", *scores.values())
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> RemovePlan:
        """Take the block out."""
        return RemovePlan(element.name)
