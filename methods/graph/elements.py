"""List everything in a network that may grow or shrink, and everything that may not, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from coppice.methods.graph.attributes import attribute_edits
from coppice.methods.graph.blocks import insertions, removals
from coppice.methods.graph.buffers import new_entries
from coppice.methods.graph.compensable import compensates
from coppice.methods.graph.expr import Prod, atom_names, walk
from coppice.methods.graph.together import Together
from coppice.methods.graph.trace import submodules, trace
from coppice.methods.graph.values import AtomInfo, Element, Exactness, Graph, Level, Move

COMPENSATIONS = ("layernorm", "rmsnorm", "groupnorm", "attention_scale")
_COUPLED = frozenset(("softmax", "reduced"))
_MATTERS_AT_ZERO = frozenset(("offset", "weight_norm", *_COUPLED, *COMPENSATIONS))
UNLISTED = ("kernel size", "one input channel in each group", "length of a normalised weight")


def elements(module: nn.Module, example_inputs: tuple[Any, ...], *, graph: Graph | None = None) -> list[Element]:
    """Everything in a network that may be grown or pruned, by algebra alone (`coppice.methods.probe` verifies by running).

    Args:
        module: any module.
        example_inputs: positional arguments of its forward.
        graph: its trace, where there is one.

    Returns:
        Channels, heads and groups; weights; layers and blocks; insertion points; and one element with a `reason` for each
        dimension that cannot change. Names are the same in every process.
    """
    graph = graph if graph is not None else trace(module, example_inputs)
    modules = dict(submodules(module))
    return [
        *_units(modules, graph),
        *_weights(modules, graph),
        *removals(modules, graph),
        *insertions(modules, graph),
        *_frozen(modules, graph),
    ]


def _units(modules: Mapping[str, nn.Module], graph: Graph) -> Iterator[Element]:
    edits = attribute_edits(modules, graph)
    together = Together(modules, graph, edits)
    for name, info in graph.atoms.items():
        reason = together.reasons.get(name)
        moves = together.moves.get(name, (Move(name),))
        members = [graph.atoms[m.atom] for m in moves]
        marks = frozenset().union(*(m.marks for m in members))
        grow, shrink = _exactness(marks)
        if grow == "compensated" and not all(compensates(modules, graph, m) for m in members):
            grow = "inexact"
        fixed = None if reason else next(_fixed(modules, graph, members), None)
        yield Element(
            name,
            _level(info),
            info.size,
            minimum=min(info.size, max(map(_minimum, members))),
            quantum=together.quantum.get(name, 1),
            grow="no" if reason or fixed else grow,
            shrink="no" if reason else shrink,
            compensation=tuple(c for c in COMPENSATIONS if c in marks),
            moves=moves,
            attributes=() if reason else together.attributes(name, moves),
            reason=reason,
            fixed=fixed,
        )


def _fixed(modules: Mapping[str, nn.Module], graph: Graph, members: list[AtomInfo]) -> Iterator[str]:
    """Why no units can be added: a buffer holds a value for each of them, and no rule says which is right for a new one."""
    names = frozenset(m.name for m in members)
    for o in (o for m in members for o in m.occurrences):
        owner, _, leaf = o.tensor.rpartition(".")
        if leaf in modules[owner]._buffers:
            grown = names & atom_names(o.expr)
            if new_entries(modules[owner], leaf, o.dim, o.expr, grown, role=o.role) is None:
                yield f"the buffer {o.tensor} holds a value for each unit, and nothing says which a new one would have"


def _exactness(marks: frozenset[str]) -> tuple[Exactness, Exactness]:
    compensated = not marks.isdisjoint(COMPENSATIONS)
    coupled = bool(marks & _COUPLED) or ("tied" in marks and not compensated)
    grow: Exactness = "inexact" if coupled else "compensated" if compensated else "exact"
    return grow, "inexact" if marks & _MATTERS_AT_ZERO else "exact"


def _level(info: AtomInfo) -> Level:
    if "heads" in info.marks:
        return "head"
    grouped = "gn_groups" in info.marks or ("conv_groups" in info.marks and "depthwise" not in info.marks)
    return "group" if grouped else "channel"


def _minimum(info: AtomInfo) -> int:
    """Two where a size of one would change the structure (a factor of a product vanishes, a grouped convolution is plain)."""
    if info.marks & {"conv_groups", "gn_groups"}:
        return 2
    products = [[p for p in walk(o.expr) if isinstance(p, Prod) and info.name in atom_names(p)] for o in info.occurrences]
    beside_atoms = any(sum(bool(atom_names(f)) for f in p.factors) > 1 for nested in products for p in nested)
    return 2 if beside_atoms or all(products) else 1


def _weights(modules: Mapping[str, nn.Module], graph: Graph) -> Iterator[Element]:
    unused = {f.name.rpartition(":")[0] for f in graph.frozen if f.reason == "never used by the forward"}
    for name in graph.tensors:
        owner, _, leaf = name.rpartition(".")
        parameter = modules[owner]._parameters.get(leaf)
        if parameter is not None and parameter.dim() >= 2 and parameter.requires_grad:
            reason = "never used by the forward" if name in unused else None
            how: Exactness = "no" if reason else "exact"
            yield Element(name, "weight", parameter.numel(), grow=how, shrink=how, reason=reason)


def _frozen(modules: Mapping[str, nn.Module], graph: Graph) -> Iterator[Element]:
    """One element for each frozen dimension; the dimensions of one module that are frozen for one reason are listed once.

    Flags that the forward does not compute with (bool buffers, such as which connections exist) are left out.
    """
    seen: set[tuple[str, int, str]] = set()
    for frozen in graph.frozen:
        owner = frozen.name.rpartition(":")[0].rpartition(".")[0]
        buffer = modules[owner]._buffers.get(frozen.name.rpartition(":")[0].rpartition(".")[2]) if owner in modules else None
        if buffer is not None and buffer.dtype == torch.bool and frozen.reason == "never used by the forward":
            continue
        key = (owner or frozen.name, frozen.size, frozen.reason)
        if key not in seen and frozen.reason not in UNLISTED:
            seen.add(key)
            yield Element(frozen.name, "channel", frozen.size, frozen.size, grow="no", shrink="no", reason=frozen.reason)
