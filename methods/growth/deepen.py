"""New layers and blocks that start as the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import InsertPlan


@dataclass(frozen=True)
class Deepen(Method):
    """Puts a layer or a residual block behind a layer, an activation or a block.

    `auto` takes a copy of the block where a residual block ends, an identity layer behind ReLU (Net2Deeper), and a zero
    residual block anywhere else.
    """

    kind = "grow"
    levels = ("insertion",)
    paper = "Chen et al. 2016, Net2Net (Net2DeeperNet, section 3.2); Wen et al. 2020, AutoGrow (initialisation of copied blocks)"
    preserves = True
    batch_norm = "inserted layers have none; copied blocks keep theirs, the last scale set to zero"

    how: str = parameter("auto", "what is put in", choices=("auto", "identity", "residual", "duplicate"))

    def accepts(self, context: Context, element: Element) -> str | None:
        """As every method, where the wanted kind fits."""
        reason = super().accepts(context, element)
        if reason is None and self._kind(context, element) is None:
            return f"{self.how} does not fit there; {', '.join(element.kinds)} would"
        return reason

    def _kind(self, context: Context, element: Element) -> str | None:
        at = element.name.removeprefix("after:")
        behind_relu = isinstance(context.network.module.get_submodule(at), nn.ReLU)
        for kind in element.kinds:
            family = kind.split("_")[0]
            if family == self.how and (family != "identity" or behind_relu):
                return kind
        if self.how != "auto":
            return None
        order = ["duplicate", *(["identity"] if behind_relu else []), "residual"]
        ranked = sorted((k for k in element.kinds if k.split("_")[0] in order), key=lambda k: order.index(k.split("_")[0]))
        return ranked[0] if ranked else None

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Predicts nothing."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> InsertPlan:
        """The insertion that fits best."""
        kind = self._kind(context, element)
        assert kind is not None, "accepts() was asked before"
        seed = int(torch.randint(2**62, (), generator=context.generator))
        arguments: dict[str, Any] = {"last": "zero"} if kind == "duplicate" else {}
        return InsertPlan(element.name, kind, arguments, seed)
