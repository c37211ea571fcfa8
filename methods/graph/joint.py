"""Atoms that can only move together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from coppice.methods.graph.expr import Atom, Expr, Prod
from coppice.methods.graph.sizes import SizeRule
from coppice.methods.graph.values import Graph, Move


class Joints:
    """For each atom, the moves it leads, or the reason why it does not move by itself.

    Attributes:
        moves: name of the leading atom -> everything that moves with one of its units.
        reasons: atom -> why it cannot move by itself.
    """

    def __init__(self, modules: Mapping[str, nn.Module], graph: Graph) -> None:
        self.moves: dict[str, tuple[Move, ...]] = {}
        self.reasons: dict[str, str] = {}
        attention = _attention_sizes(modules, graph)
        held = {name for size, pairs in attention.items() for name in (size, *(n for pair in pairs for n in pair))}
        for component in _components(graph, _literal_ties(graph)):
            if not held & set(component):
                self._lead(component[0], [Move(name) for name in component])
        for size, pairs in attention.items():
            self._attention(graph, size, pairs)
        for name in _fixed_attention(modules, graph):
            self.reasons[name] = "heads times head size must equal an embed_dim that does not change"

    def _lead(self, leader: str, moves: list[Move]) -> None:
        self.moves[leader] = tuple(moves)
        for move in moves:
            if move.atom != leader:
                self.reasons[move.atom] = f"moves together with {leader}"

    def _attention(self, graph: Graph, size: str, pairs: list[tuple[str, str]]) -> None:
        """`embed_dim` = heads * head size, in every attention that shares it."""
        leaders = []
        for mine, other in ((0, 1), (1, 0)):
            names = [pair[mine] for pair in pairs]
            widths = {graph.atoms[pair[other]].size for pair in pairs}
            sizes = {graph.atoms[name].size for name in names}
            if len(widths) == len(sizes) == 1:
                self._lead(names[0], [*(Move(name) for name in names), Move(size, widths.pop())])
                leaders.append(names[0])
            else:
                for name in names:
                    self.reasons[name] = f"{size} = heads * head size holds in attentions of different shapes"
        self.reasons[size] = "must equal heads * head size of " + (f"an attention; moves with {' or '.join(leaders)}")


def _attention_sizes(modules: Mapping[str, nn.Module], graph: Graph) -> dict[str, list[tuple[str, str]]]:
    """Atom of an `embed_dim` -> the (heads, head size) atoms of the attentions that have it."""
    out: dict[str, list[tuple[str, str]]] = {}
    for embed, product in _attention_exprs(modules, graph):
        if isinstance(embed, Atom) and isinstance(product, Prod) and len(product.factors) == 2:
            heads, width = product.factors
            if isinstance(heads, Atom) and isinstance(width, Atom):
                out.setdefault(embed.name, []).append((heads.name, width.name))
    return out


def attention_rules(modules: Mapping[str, nn.Module], graph: Graph) -> tuple[SizeRule, ...]:
    """`embed_dim` = heads * head size in each of torch's own attentions."""
    pairs = _attention_exprs(modules, graph)
    return tuple(SizeRule(embed, product, "nn.MultiheadAttention") for embed, product in pairs if embed != product)


def _attention_exprs(modules: Mapping[str, nn.Module], graph: Graph) -> list[tuple[Expr, Expr]]:
    pairs = []
    for name, m in modules.items():
        if isinstance(m, nn.MultiheadAttention):
            prefix = f"{name}." if name else ""
            first = f"{prefix}in_proj_weight" if m.in_proj_weight is not None else f"{prefix}q_proj_weight"
            last = f"{prefix}out_proj.weight"
            dims, outs = (graph.tensors[graph.aliases.get(t, t)] for t in (first, last))
            pairs.append((dims[1], outs[1]))
    return pairs


def _fixed_attention(modules: Mapping[str, nn.Module], graph: Graph) -> Iterable[str]:
    """Heads and head sizes of attentions whose `embed_dim` is not a single atom that may change."""
    known = _attention_sizes(modules, graph)
    bound = {name for pairs in known.values() for pair in pairs for name in pair}
    for embed, product in _attention_exprs(modules, graph):
        factors = product.factors if isinstance(product, Prod) else (product,)
        names = [f.name for f in factors if isinstance(f, Atom)]
        if isinstance(embed, Atom) and len(names) == 2 and set(names) <= bound:
            continue
        yield from names
        if isinstance(embed, Atom):
            yield embed.name


def _literal_ties(graph: Graph) -> list[tuple[str, ...]]:
    return [(name, *info.ties) for name, info in graph.atoms.items() if info.ties]


def _components(graph: Graph, ties: list[tuple[str, ...]]) -> list[list[str]]:
    """Connected sets of tied atoms, each in the order of the graph."""
    root = {name: name for names in ties for name in names}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for names in ties:
        for name in names[1:]:
            root[find(name)] = find(names[0])
    sets: dict[str, list[str]] = {}
    for name in graph.atoms:
        if name in root:
            sets.setdefault(find(name), []).append(name)
    return list(sets.values())
