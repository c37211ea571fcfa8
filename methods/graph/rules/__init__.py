"""What each ATen operator does to the dimensions of its tensors."""

from __future__ import annotations

from typing import Any

import torch

from coppice.methods.graph.rules import (
    contraction,
    convolution,
    creation,
    gathering,
    indexing,
    normalisation,
    pieces,
    pointwise,
    products,
    quantisation,
    reduction,
    shape,
    shuffles,
    windows,
)
from coppice.methods.graph.rules.common import freeze_all
from coppice.methods.graph.rules.creation import FACTORIES, factory
from coppice.methods.graph.rules.decomposed import decomposed
from coppice.methods.graph.rules.pointwise import pointwise_rule
from coppice.methods.graph.watch import Handler

RULES: dict[str, Handler] = {
    **contraction.RULES,
    **convolution.RULES,
    **gathering.RULES,
    **indexing.RULES,
    **normalisation.RULES,
    **products.RULES,
    **quantisation.RULES,
    **reduction.RULES,
    **shape.RULES,
    **shuffles.RULES,
    **pieces.RULES,
    **windows.RULES,
    **creation.RULES,
    **pointwise.RULES,
}

_HANDLERS: dict[Any, Handler] = {}
_KNOWN = frozenset(("aten", "prims", "torchvision", "transformers"))
"""Libraries whose operators the rules mean; the same name elsewhere may do anything."""


def handler(func: Any) -> Handler:
    """The rule of an operator, or of what torch makes it of; one that nothing is known of freezes whatever it touches."""
    rule = _HANDLERS.get(func)
    if rule is None:
        rule = _HANDLERS[func] = _find(func)
    return rule


def _find(func: Any) -> Handler:
    name = func._overloadpacket.__name__
    if getattr(func, "namespace", "aten") not in _KNOWN:
        return decomposed(func) or freeze_all
    if name in RULES:
        return RULES[name]
    base = name[:-1] if name.endswith("_") else name
    if base in RULES and (base in shape.IN_PLACE or not (base in shape.RULES or base in pieces.RULES)):
        return RULES[base]
    if base in FACTORIES:
        return factory
    if torch.Tag.pointwise in func.tags or base in pointwise.UNTAGGED:
        return pointwise_rule(base)
    return decomposed(func) or freeze_all
