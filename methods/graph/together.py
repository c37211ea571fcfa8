"""What moves together with each atom: ties of the forward, and the sizes that it computes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from coppice.methods.graph.expr import Atom
from coppice.methods.graph.joint import Joints, attention_rules
from coppice.methods.graph.sizes import Change, Sizes
from coppice.methods.graph.terms import MULTIPLE
from coppice.methods.graph.values import AttributeEdit, Graph, Move

Edits = Mapping[str, tuple[AttributeEdit, ...]]


class Together:
    """For each atom that leads, everything that moves with one of its units; for the others, why they do not move by themselves.

    Attributes:
        moves: leading atom -> what moves.
        quantum: leading atom -> units are added and removed in multiples of this.
        reasons: atom -> why it cannot move by itself.
    """

    def __init__(self, modules: Mapping[str, nn.Module], graph: Graph, edits: Edits) -> None:
        joints = Joints(modules, graph)
        self._graph, self._edits = graph, edits
        self._sizes = Sizes((*graph.sizes, *attention_rules(modules, graph)), {n: a.size for n, a in graph.atoms.items()})
        self.moves, self.reasons = dict(joints.moves), dict(joints.reasons)
        self.quantum: dict[str, int] = {}
        self._attributes: dict[str, Change] = {}
        for name in graph.atoms:
            if name not in self.reasons:
                self._follow(name)
        self._lead()

    def attributes(self, name: str, moves: tuple[Move, ...]) -> tuple[AttributeEdit, ...]:
        """The attributes that follow when an element changes."""
        merged: dict[tuple[str, str], AttributeEdit] = {}
        for move in moves:
            for edit in self._edits[move.atom]:
                known = merged.setdefault((edit.module, edit.name), edit)
                if isinstance(edit.expr, Atom) and not isinstance(known.expr, Atom):
                    merged[edit.module, edit.name] = edit
        for (module, attribute), expr in self._attributes[name].attributes.items():
            merged.setdefault((module, attribute), AttributeEdit(module, attribute, expr, certain=True))
        return tuple(merged.values())

    def _follow(self, name: str) -> None:
        moves = self.moves.get(name, (Move(name),))
        marks = frozenset().union(*(self._graph.atoms[m.atom].marks for m in moves))
        quantum = math.lcm(*(int(m.removeprefix(MULTIPLE)) for m in marks if m.startswith(MULTIPLE)))
        known = {(e.module, e.name): e.expr for m in moves for e in self._edits[m.atom]}
        start = Change({m.atom: m.units for m in moves}, known)
        for factor in (1, 2, 4):
            change = self._sizes.follow(start, quantum * factor)
            if change is not None:
                self._attributes[name], self.quantum[name] = change, quantum * factor
                order = sorted(change.moves, key=lambda atom: (atom != name, atom not in start.moves))
                self.moves[name] = tuple(Move(atom, change.moves[atom]) for atom in order)
                return
        self.moves.pop(name, None)
        self.reasons[name] = f"the forward needs {self._sizes.broken}, which would not hold"

    def _lead(self) -> None:
        """Of atoms that move in the same way, the first leads; one that cannot move by itself says with which it moves."""
        leaders: dict[frozenset[Move], str] = {}
        for name in self._graph.atoms:
            if name in self.reasons or len(self.moves[name]) == 1:
                continue
            first = leaders.setdefault(frozenset(self.moves[name]), name)
            if first != name:
                self.reasons[name] = f"moves together with {first}"
                del self.moves[name]
        for first in leaders.values():
            for move in self.moves[first]:
                if self.reasons.get(move.atom, "").startswith("the forward needs"):
                    self.reasons[move.atom] += f"; moves together with {first}"
