"""Whether what a growth adds could ever change while the network trains."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from coppice.methods.graph.compensable import scores_of, sides
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.tensors import owner

_FILLED_BESIDE_ZERO = frozenset(("layernorm", "rmsnorm"))
"""Behind these norms new units are zero and what uses them is not."""


def why_new_units_cannot_learn(network: Network, element: Element, plan: GrowPlan) -> str | None:
    """Why no gradient would ever reach the new units; None where one does.

    New units keep the function because what uses them is zero at first. They learn as soon as that moves: it never does where
    the layer that holds it is frozen.
    """
    if plan.sources or plan.consume != "zero" or not _FILLED_BESIDE_ZERO.isdisjoint(element.compensation):
        return None
    used = list(_uses(network, element))
    if not used or any(key in plan.values or key in plan.offsets for key in used):
        return None
    names = sorted({key.rpartition(":")[0] for key in used})
    if any(_is_trained(network.module, name) for name in names):
        return None
    return f"what would use its new units is frozen ({', '.join(names)}), so that they could never learn"


def _uses(network: Network, element: Element) -> Iterator[str]:
    """`tensor:dim` of what is zero for new units: columns of the next layers; where there are none, the keys."""
    graph = network.graph()
    for move in element.moves:
        info = graph.atoms[move.atom]
        scores = scores_of(graph, move.atom)
        keys = (sides(scores) or ((), ()))[1] if scores else ()
        consumers = [o for o in info.occurrences if o.role == "consume"]
        trained = [o for o in consumers if _is_parameter(network.module, o.tensor)]
        for o in trained or consumers or [o for o in info.occurrences if o.tensor in keys]:
            yield f"{o.tensor}:{o.dim}"


def _is_parameter(module: nn.Module, name: str) -> bool:
    holder, leaf = owner(module, name)
    return leaf in holder._parameters


def _is_trained(module: nn.Module, name: str) -> bool:
    holder, leaf = owner(module, name)
    parameter = holder._parameters.get(leaf)
    return parameter is not None and parameter.requires_grad
