"""Turn what a forward needs of sizes into rules over the frozen expressions."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from coppice.methods.graph.expr import Expr, atom_names
from coppice.methods.graph.given import Attribute, Computed, Extent, Origin
from coppice.methods.graph.sizes import Arithmetic, Held, Size, SizeRule, leaves
from coppice.methods.graph.terms import Term, Var, variables

Needed = tuple[Origin, Origin, str]
"""Two sizes that are equal, and where the forward needs that."""


def size_rules(
    needed: Sequence[Needed], modules: Mapping[int, str], exprs: Callable[[Term], Expr], named: Container[Var]
) -> Iterator[SizeRule]:
    """What the forward needs of sizes, as far as a change could break it.

    Args:
        needed: what was noted while it ran.
        modules: names of the modules, by id.
        exprs: the expression of a term.
        named: variables that some parameter has; others follow whatever they are given.
    """
    done = set()
    for left, right, place in needed:
        if any(var not in named for extent in (*extents(left), *extents(right)) for var in variables(extent)):
            continue
        rule = SizeRule(_size(modules, exprs, left), _size(modules, exprs, right), place)
        if rule.left == rule.right or (rule.left, rule.right) in done:
            continue
        done.add((rule.left, rule.right))
        if any(isinstance(leaf, Held) or atom_names(leaf) for leaf in (*leaves(rule.left), *leaves(rule.right))):
            yield rule


def extents(origin: Origin) -> Iterator[Term]:
    """The dimensions that a size is computed from."""
    if isinstance(origin, Extent):
        yield origin.term
    elif isinstance(origin, Computed):
        yield from extents(origin.left)
        yield from extents(origin.right)


def _size(modules: Mapping[int, str], exprs: Callable[[Term], Expr], origin: Origin) -> Size:
    if isinstance(origin, int):
        return origin
    if isinstance(origin, Extent):
        return exprs(origin.term)
    if isinstance(origin, Computed):
        return Arithmetic(origin.sign, _size(modules, exprs, origin.left), _size(modules, exprs, origin.right))
    module = modules.get(id(origin.owner))
    settable = module is not None and type(getattr(origin.owner, origin.path, None)) is int and _settable(origin)
    return Held(module if module is not None else type(origin.owner).__name__, origin.path, origin.value, settable)


def _settable(origin: Attribute) -> bool:
    """Attributes of torch's own modules follow by themselves, but for these."""
    return not type(origin.owner).__module__.startswith("torch.") or origin.path in ("groups", "num_groups", "num_heads")
