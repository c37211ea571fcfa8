"""How many of a network's parameters its usable elements hold, and why the rest is in none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.elements import UNLISTED
from coppice.methods.graph.expr import atom_names, unit_map
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.surgery.tensors import get_tensor
from coppice.methods.surgery.verdicts import settle

UNITS = ("channel", "head", "group")
OF_THE_DATA = ("input of the network", "output of the network")
"""What every network has; named as a reason only where a parameter has no other."""


@dataclass(frozen=True)
class Coverage:
    """Parameters by what holds them.

    Attributes:
        parameters: of the network, tied ones once.
        units: those with an entry along some dimension that a usable channel, head or group resizes.
        by_level: the same for each level alone; for layers and blocks what would go with them, for weights what may be masked.
        reasons: why the parameters outside `units` are there, and how many each reason concerns, most first; one parameter
            counts for each of its reasons.
    """

    parameters: int
    units: int
    by_level: dict[str, int]
    reasons: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """Parameters in units, of all."""
        return self.units / self.parameters if self.parameters else 0.0


def coverage(network: Network, elements: Sequence[Element] | None = None) -> Coverage:
    """What the usable ones of `elements` (the network's when None) hold: those that are permissible and in no doubt."""
    found = settle(network) if elements is None else elements
    free = [e for e in found if e.permissible and e.doubt is None]
    held = {level: _resized(network, [e for e in free if e.level == level]) for level in UNITS}
    every = _resized(network, [e for e in free if e.level in UNITS])
    sizes = {n: p.numel() for n, p in network.module.named_parameters()}
    by_level = {level: sum(int(flags.sum()) for flags in tensors.values()) for level, tensors in held.items()}
    for level in ("layer", "block"):
        inside = tuple(f"{e.name}." for e in free if e.level == level)
        by_level[level] = sum(size for n, size in sizes.items() if n.startswith(inside))
    by_level["weight"] = sum(e.size for e in free if e.level == "weight")
    reasons = _reasons(network, found, {n: sizes[n] - int(every[n].sum()) for n in sizes})
    return Coverage(sum(sizes.values()), sum(int(f.sum()) for f in every.values()), by_level, reasons)


def _resized(network: Network, elements: Sequence[Element]) -> dict[str, Tensor]:
    """For each parameter the entries that some of the elements resizes."""
    atoms = {m.atom for e in elements for m in e.moves}
    return {name: _entries(network, name, atoms) for name, _ in network.module.named_parameters()}


def _entries(network: Network, name: str, atoms: set[str]) -> Tensor:
    graph = network.graph()
    shape = get_tensor(network.module, name).shape
    found = torch.zeros(shape, dtype=torch.bool)
    for dim, expr in enumerate(graph.tensors.get(graph.aliases.get(name, name), ())):
        for atom in atom_names(expr) & atoms:
            flags = torch.tensor(unit_map(expr, atom)) >= 0
            found |= flags.view([-1 if d == dim else 1 for d in range(len(shape))])
    return found


def _reasons(network: Network, elements: Sequence[Element], rest: dict[str, int]) -> tuple[tuple[str, int], ...]:
    why: dict[str, dict[str, None]] = {}
    for tensor, reason in _stated(network, elements):
        why.setdefault(tensor, {})[reason] = None
    graph, counts = network.graph(), Counter[str]()
    for name, size in rest.items():
        stated = why.get(graph.aliases.get(name, name), {})
        own = [r for r in stated if r not in OF_THE_DATA] or list(stated) or ["no element was found for it"]
        for reason in own if size else ():
            counts[reason] += size
    return tuple(counts.most_common())


def _stated(network: Network, elements: Sequence[Element]) -> Iterator[tuple[str, str]]:
    """`(tensor, reason)` of every frozen dimension that more than its kernel holds, and of every element that may not be used."""
    graph = network.graph()
    for frozen in graph.frozen:
        if frozen.size > 1 and frozen.reason not in UNLISTED:
            yield frozen.name.rpartition(":")[0], frozen.reason
    for element in elements:
        reason = element.reason or element.doubt
        if reason is None or element.level not in UNITS or reason.startswith("moves together with"):
            continue
        atoms = [graph.atoms[m.atom] for m in element.moves if m.atom in graph.atoms]
        yield from ((o.tensor, reason) for atom in atoms for o in atom.occurrences)
