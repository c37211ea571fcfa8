"""New layers and blocks that start as the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.network import Network
from methods.plan import InsertPlan


@dataclass(frozen=True)
class Deepen(Method):
    """Puts a layer or a block where it leaves the function as it is.

    `auto` takes a copy of a residual block with its last scale zero, else an identity layer behind ReLU (ReLU of ReLU is ReLU),
    else a residual block whose last layer is zero. Behind a bare layer it inserts only where the network has no block and no
    activation module. With `last: uniform` or `normal` a copied block changes the function (AutoGrow found normal the best).
    """

    kind = "grow"
    levels = ("insertion",)
    why = "a deeper network that goes on from the same function"
    paper = "Chen et al. 2016, Net2DeeperNet (arXiv 1511.05641); Wen et al. 2019, AutoGrow (arXiv 1906.02909)"
    preserves = True
    batch_norm = "a copied block takes its statistics along; batch_norm puts one into a new residual block"

    block: str = parameter("auto", "what is inserted", choices=("auto", "identity", "residual", "duplicate"))
    last: str = parameter("zero", "last scale of a copied block", choices=("zero", "uniform", "normal"))
    batch_norm_inside: bool = parameter(False, "BatchNorm in a new residual block", choices=(False, True))

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if self._kind(context.network, element) is None:
            return f"none of {', '.join(element.kinds)} keeps the function here and is a {self.block} block"
        if self.block == "auto" and _bare(context.network, element):
            others = (e for e in context.network.elements() if e.level == "insertion" and e.permissible)
            if any(not _bare(context.network, e) for e in others):
                return "behind a bare layer; there are activations or blocks to insert behind"
        return None

    def _kind(self, network: Network, element: Element) -> str | None:
        """What to insert, or None. The identity is exact behind ReLU, whose copy follows it, and behind anything linear."""
        kinds = {k.partition("_")[0]: k for k in element.kinds}
        at = element.name.removeprefix("after:")
        if not network.graph().modules[at].residual:
            kinds.pop("duplicate", None)
        if self.block != "auto":
            return kinds.get(self.block)
        if "duplicate" in kinds:
            return kinds["duplicate"]
        behind_relu = isinstance(network.module.get_submodule(at), nn.ReLU)
        return kinds.get("identity" if behind_relu else "residual")

    def promises(self) -> bool:
        """See `Method.promises`: a copied block with a last scale that is not zero changes the function."""
        return self.last == "zero"

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Predicts nothing."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> InsertPlan:
        """See `Method.plan`."""
        kind = self._kind(context.network, element)
        assert kind is not None, "accepted before"
        arguments: dict[str, Any] = {"last": self.last} if kind == "duplicate" else {}
        if kind.startswith("residual") and self.batch_norm_inside:
            arguments["batch_norm"] = True
        return InsertPlan(element.name, kind, arguments, int(torch.randint(2**31, (), generator=context.generator)))


def _bare(network: Network, element: Element) -> bool:
    """Whether the insertion point is behind a layer that is neither a block nor an activation."""
    at = element.name.removeprefix("after:")
    return not network.graph().modules[at].residual and any(True for _ in network.module.get_submodule(at).parameters())
