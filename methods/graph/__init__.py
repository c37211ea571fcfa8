"""Which elements of an arbitrary network may grow or shrink."""

from coppice.methods.graph.elements import elements
from coppice.methods.graph.expr import Atom, Const, Expr, Prod, Sum
from coppice.methods.graph.trace import trace
from coppice.methods.graph.values import AtomInfo, AttributeEdit, Element, Frozen, Graph, ModuleCall, Move, Occurrence

__all__ = [
    "Atom", "AtomInfo", "AttributeEdit", "Const", "Element", "Expr", "Frozen", "Graph", "ModuleCall", "Move", "Occurrence",
    "Prod", "Sum", "elements", "trace",
]  # fmt: skip
