"""Doubt is resolved by running: which attributes follow an element's size, and whether it can change at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from coppice.methods.graph.expr import atom_names, resized
from coppice.methods.graph.values import AttributeEdit, Element
from coppice.methods.network import Network, Verdict
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.carry_out import resize_all
from coppice.methods.surgery.resize import follow_shapes, widening
from coppice.methods.surgery.running import CANNOT_RUN, attempt, copy_to, isolated, modes_that_run
from coppice.methods.surgery.tensors import copy_of, get_tensor, owner

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, that counts as none."""
MOST_AMBIGUOUS = 6
"""Subsets are tried of at most this many attributes."""
_UNITS = ("channel", "head", "group")


def settle(network: Network) -> tuple[Element, ...]:
    """The network's elements, none of them in doubt any more: all have run on a copy without data, once for all methods.

    Of the attributes that only have an element's size those follow with which the resized network runs and computes what is
    claimed; an element with which it does not run may not change. The verdicts stay with the network and its record. The cost
    is that of a few forwards as long as all elements can change together; those that cannot are sought by halving.
    """
    if network.settled:
        return network.elements()
    units = [e for e in network.elements() if e.permissible and e.level in _UNITS]
    modes_that_run(network)
    with isolated(network.module):
        failing = {e.name for e in _failing(network, units)}
        open_ones = [e for e in units if e.name in failing or e.doubt is not None]
        runnable = {e.name: _runnable(network, e, e.name in failing) for e in open_ones}
        first = [replace(e, attributes=runnable[e.name][0]) for e in open_ones if runnable[e.name]]
        together = _keeps(network, [e for e in first if e.grow in ("exact", "compensated")])
        for element in open_ones:
            network.verdicts[element.name] = _verdict(network, element, runnable[element.name], together)
    network.judged()
    return network.elements()


def _failing(network: Network, elements: Sequence[Element]) -> list[Element]:
    """Those with which alone the forward does not run; tried all at once, then by halves."""
    if not elements or _failure(network, elements) is None:
        return []
    if len(elements) == 1:
        return list(elements)
    half = len(elements) // 2
    return [*_failing(network, elements[:half]), *_failing(network, elements[half:])]


def _runnable(network: Network, element: Element, fails: bool) -> list[tuple[AttributeEdit, ...]]:
    """The sets of attributes with which the element can change; the first is that of the element unless it `fails`."""
    sets = list(_attribute_sets(element))
    return [*([] if fails else sets[:1]), *(s for s in sets[1:] if _failure(network, [replace(element, attributes=s)]) is None)]


def _verdict(network: Network, element: Element, sets: Sequence[tuple[AttributeEdit, ...]], together: bool) -> Verdict:
    if not sets:
        return Verdict((), f"with another size the forward does not run {_failure(network, [element])}")
    claimed = element.grow in ("exact", "compensated")
    keeps = sets[0] if together or not claimed else next(
        (s for s in sets if _keeps(network, [replace(element, attributes=s)])), None
    )
    follow = tuple(f"{a.module}|{a.name}" for a in (sets[0] if keeps is None else keeps))
    return Verdict(follow, inexact=keeps is None)


def _attribute_sets(element: Element) -> Iterator[tuple[AttributeEdit, ...]]:
    """All attributes, then those that are certain with ever more of the others."""
    yield element.attributes
    guessed = [a for a in element.attributes if not a.certain]
    for size in range(len(guessed)) if len(guessed) <= MOST_AMBIGUOUS else (0,):
        for chosen in itertools.combinations(guessed, size):
            yield tuple(a for a in element.attributes if a.certain or a in chosen)


def _failure(network: Network, elements: Sequence[Element]) -> str | None:
    """Where the forward fails when each element has a quantum more, or less; None where it runs with the same outputs."""
    modes = modes_that_run(network)
    for sizes in (_grown(elements), _shrunk(elements)):
        for meta in {run.meta for run in modes.values()} if sizes else ():
            module = _resized(network, elements, sizes, meta)
            for training in (t for t, run in modes.items() if run.meta == meta):
                found = attempt(module, network.example_inputs, training, modes[training])
                if found is not None:
                    return found
    return None


def _grown(elements: Sequence[Element]) -> dict[str, int]:
    """Sizes of the atoms after each element that can grow has."""
    return {m.atom: (e.size + e.quantum) * m.units for e in elements if e.grow != "no" for m in e.moves}


def _shrunk(elements: Sequence[Element]) -> dict[str, int]:
    able = [e for e in elements if e.shrink != "no" and e.size - e.quantum >= e.minimum]
    return {m.atom: (e.size - e.quantum) * m.units for e in able for m in e.moves}


def _resized(network: Network, elements: Sequence[Element], sizes: Mapping[str, int], meta: bool) -> nn.Module:
    """A copy with the shapes and attributes of the changed network; tensors that change are zero."""
    graph = network.graph()
    memo: dict[int, Tensor] = {}
    changed = [n for n, exprs in graph.tensors.items() if any(sizes.keys() & atom_names(e) for e in exprs)]
    for name in changed:
        old = get_tensor(network.module, name)
        shape = [resized(e, sizes) for e in graph.tensors[name]]
        new = torch.zeros(shape, dtype=old.dtype, device="meta" if meta else old.device)
        memo[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    module = copy_to(network.module, meta, memo)
    for edit in (a for e in elements for a in e.attributes):
        setattr(module.get_submodule(edit.module), edit.name, resized(edit.expr, sizes))
    names = [*changed, *(alias for alias, first in graph.aliases.items() if first in changed)]
    for holder in {id(h): h for h in (owner(module, n)[0] for n in names)}.values():
        follow_shapes(holder)
    return module


def _keeps(network: Network, elements: Sequence[Element]) -> bool:
    """Whether a copy in which all of them have grown computes what the network does."""
    if not elements:
        return True
    grown = Network(copy_of(network.module), network.factory, network.arguments, network.example_inputs)
    grown._graph, grown._elements = network.graph(), network.elements()
    reference = _outputs(network.module, network)
    try:
        with torch.random.fork_rng(devices=[]):
            resize_all(grown, [widening(e, GrowPlan(e.name, e.quantum)) for e in elements], ())
        outputs = _outputs(grown.module, network)
    except CANNOT_RUN:
        return False
    pairs = [(a, b) for a, b in zip(outputs, reference, strict=True) if b.numel()]
    return all(a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE * max(float(b.abs().max()), 1e-12)) for a, b in pairs)


@torch.no_grad()
def _outputs(module: nn.Module, network: Network) -> list[Tensor]:
    """What a copy of the module computes on the example inputs, in eval mode."""
    output = copy_of(module).eval()(*network.example_inputs)
    return [t for t in tree_leaves(output) if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]
