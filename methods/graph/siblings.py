"""Modules of a list that the example inputs did not reach, as experts that got no token: they are like those that were used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from coppice.methods.graph.convert import Run
from coppice.methods.graph.given import Attribute, Computed, Extent, Origin
from coppice.methods.graph.needs import Needed, extents
from coppice.methods.graph.terms import Cat, Fix, Mul, Term, Var, norm, variables


def follow_siblings(run: Run, modules: Mapping[str, nn.Module]) -> None:
    """Give each unused module of a list the structure of a used one with the same tensors.

    Dimensions that the used one shares with the rest of the network are shared by the unused one too; the others are its own.

    Args:
        run: what the forward showed; its tensors, roles and ties are completed.
        modules: all modules of the network by name.
    """
    for name, module in modules.items():
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            inside = {child: _inside(run, f"{name}.{child}" if name else child) for child in module._modules}
            used = [child for child, tensors in inside.items() if tensors and all(t in run.watch.seen for t in tensors.values())]
            for child, tensors in inside.items():
                if tensors and run.watch.seen.isdisjoint(tensors.values()):
                    like = next((u for u in used if _shapes(run, inside[u]) == _shapes(run, tensors)), None)
                    if like is not None:
                        prefix = f"{name}." if name else ""
                        _Copy(run, inside[like], tensors, modules, (prefix + like, prefix + child)).make()


def _inside(run: Run, owner: str) -> dict[str, str]:
    """Full names of the tensors of a module, by their names in it."""
    return {full.removeprefix(f"{owner}."): full for full in run.tensors if full.startswith(f"{owner}.")}


def _shapes(run: Run, tensors: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {short: tuple(d.size for d in run.tensors[full]) for short, full in tensors.items()}


class _Copy:
    """The structure of a used module, for an unused one."""

    def __init__(
        self,
        run: Run,
        used: Mapping[str, str],
        unused: Mapping[str, str],
        modules: Mapping[str, nn.Module],
        names: tuple[str, str],
    ) -> None:
        self.run, self.used, self.unused, self.modules, self.names = run, used, unused, modules, names
        mine = set(used.values())
        self.shared = {v for full, dims in run.tensors.items() if full not in mine for d in dims for v in variables(d)}
        self.own: dict[Var, Var] = {}

    def make(self) -> None:
        watch = self.run.watch
        for short, full in self.used.items():
            other = self.unused[short]
            watch.seen.add(other)
            for position, (mine, dim) in enumerate(zip(self.run.tensors[other], self.run.tensors[full], strict=True)):
                watch.algebra.unify(mine, self._of(dim))
                if (full, position) in watch.roles:
                    watch.roles[other, position] = set(watch.roles[full, position])
        watch.ties += [(self._of(a), self._of(b)) for a, b in watch.ties if self._concerns(a) or self._concerns(b)]
        watch.needed += list(self._needed())

    def _of(self, term: Term) -> Term:
        term = norm(term)
        if isinstance(term, Fix) or term in self.shared:
            return term
        if isinstance(term, (Mul, Cat)):
            return type(term)([self._of(part) for part in term.parts])
        if term not in self.own:
            self.own[term] = Var(term.size)
            self.own[term].marks = term.marks
        return self.own[term]

    def _concerns(self, term: Term) -> bool:
        return any(var in self.own for var in variables(term))

    def _needed(self) -> Iterator[Needed]:
        """What the forward needs of sizes in the used module, for the same parts of the unused one."""
        old, new = self.names
        twins = {id(m): self.modules.get(new + name.removeprefix(old)) for name, m in self.modules.items() if _is_in(name, old)}
        for left, right, place in self.run.watch.needed:
            if any(self._concerns(term) for origin in (left, right) for term in extents(origin)):
                yield self._twin(left, twins), self._twin(right, twins), place

    def _twin(self, origin: Origin, twins: dict[int, nn.Module | None]) -> Origin:
        if isinstance(origin, Extent):
            return Extent(self._of(origin.term))
        if isinstance(origin, Computed):
            return Computed(origin.sign, self._twin(origin.left, twins), self._twin(origin.right, twins))
        if isinstance(origin, Attribute):
            return Attribute(twins.get(id(origin.owner)) or origin.owner, origin.path, origin.value)
        return origin


def _is_in(name: str, owner: str) -> bool:
    return name == owner or name.startswith(f"{owner}.")
