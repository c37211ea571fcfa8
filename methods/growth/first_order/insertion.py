"""What can be inserted at a place and leaves the function as it is, and which places are left aside."""

from __future__ import annotations

from torch import nn

from coppice.methods.graph.values import Element
from coppice.methods.network import Network


def fitting_kind(network: Network, element: Element, block: str = "auto") -> str | None:
    """What to insert, or None.

    The identity is exact behind ReLU, whose copy follows it, and behind anything linear.

    Args:
        network: not changed.
        element: an insertion point.
        block: `identity`, `residual` or `duplicate`; `auto` takes the best one that leaves the function as it is.
    """
    kinds = {k.partition("_")[0]: k for k in element.kinds}
    at = module_before(element)
    if not network.graph().modules[at].residual:
        kinds.pop("duplicate", None)
    if block != "auto":
        return kinds.get(block)
    if "duplicate" in kinds:
        return kinds["duplicate"]
    behind_relu = isinstance(network.module.get_submodule(at), nn.ReLU)
    return kinds.get("identity" if behind_relu else "residual")


def why_nothing_fits(network: Network, element: Element, block: str = "auto") -> str | None:
    """Why nothing can be inserted that leaves the function as it is; None when something can."""
    if fitting_kind(network, element, block) is None:
        return f"none of {', '.join(element.kinds)} keeps the function here and is a {block} block"
    return None


def why_bare(network: Network, element: Element) -> str | None:
    """Why a place behind a bare layer is left aside: the network has better ones. None for other places."""
    if is_bare(network, element):
        others = (e for e in network.elements() if e.level == "insertion" and e.permissible)
        if any(not is_bare(network, e) for e in others):
            return "behind a bare layer; there are activations or blocks to insert behind"
    return None


def is_bare(network: Network, element: Element) -> bool:
    """Whether the insertion point is behind a layer that is neither a block nor an activation."""
    at = module_before(element)
    return not network.graph().modules[at].residual and any(True for _ in network.module.get_submodule(at).parameters())


def module_before(element: Element) -> str:
    """Name of the module behind which an insertion point is."""
    return element.name.removeprefix("after:")
