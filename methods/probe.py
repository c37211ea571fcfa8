"""Run what the algebra proposes: resize each element by one quantum on a copy and compare with the exact reference.

Growing must leave the outputs as they are. Removing units must give the outputs of the unchanged network in which everything
that makes those units (rows, biases, a norm's scale and shift) is zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from coppice.methods.graph.outputs import Returned
from coppice.methods.graph.values import AttributeEdit, Element, Exactness
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, RemovePlan
from coppice.methods.surgery import layers
from coppice.methods.surgery.carry_out import resize_all
from coppice.methods.surgery.resize import narrowing, widening
from coppice.methods.surgery.shrink import Shrinking, advance
from coppice.methods.surgery.tensors import copy_of

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, that counts as equal (in float32)."""
MOST_AMBIGUOUS = 6
"""Subsets are tried of at most this many attributes."""
MOST_GROUPS = 8
"""So many groups of elements are resized together at most; what has not agreed by then is tried alone."""
_UNITS = ("channel", "head", "group")
_CANNOT_RUN = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError, ZeroDivisionError)


@dataclass(frozen=True)
class Outcome:
    """How one direction went: the relative error, or why it did not run."""

    error: float | None
    reason: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the outputs are those of the reference."""
        return self.error is not None and self.error < TOLERANCE


def probe(network: Network, elements: Sequence[Element] | None = None) -> list[Element]:
    """Verify elements by running them on a copy of the network (on the CPU; the network itself is not touched).

    Weights that hide a mistake are made random in the copy: statistics and scales of norms, and constant parameters.

    Args:
        network: what the elements belong to; its example inputs are used, random ones in place of constant ones.
        elements: which ones; all of the network's when None.

    Returns:
        The same elements in the same order. `verified` says whether every claim held. A direction that runs but differs is
        `inexact`, one that does not run is `no`, and an element that runs in neither direction has a `reason`. Attributes are
        cut down to those with which the resized network runs.
    """
    candidates = network.elements() if elements is None else elements
    with torch.random.fork_rng(devices=[]):
        subject = _Subject.of(network)
        agreed = _agreeing(subject, [e for e in candidates if e.permissible and e.level in _UNITS])
        return [
            replace(e, verified=True) if e.name in agreed
            else _verify(subject, e) if e.permissible and e.level != "weight"
            else e
            for e in candidates
        ]


@dataclass(frozen=True)
class _Subject:
    network: Network
    reference: list[Tensor]

    @staticmethod
    def of(network: Network) -> _Subject:
        generator = torch.Generator().manual_seed(0)
        module = copy_of(network.module).cpu()
        _randomise(module, generator)
        inputs = tree_map(lambda x: _random_input(x, generator), network.example_inputs)
        copied = Network(module, network.factory, network.arguments, inputs)
        copied._graph, copied._elements = network.graph(), network.elements()
        return _Subject(copied, _outputs(copied))

    def clone(self) -> Network:
        """A copy to try something on."""
        n = self.network
        return replace(n, module=copy_of(n.module), edits=[], attributes={}, masks={}, lineage=[])


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1 and float(parameter.std()) == 0.0:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.2)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


def _random_input(item: Any, generator: torch.Generator) -> Any:
    if not isinstance(item, Tensor):
        return item
    item = item.detach().cpu()
    constant = item.is_floating_point() and bool((item == item.flatten()[:1]).all())
    return torch.randn(item.shape, generator=generator).to(item) if constant else item


@torch.no_grad()
def _outputs(network: Network) -> list[Tensor]:
    network.module.eval()
    output = network.module(*network.example_inputs)
    return Returned.of(output).results


def _agreeing(subject: _Subject, elements: Sequence[Element]) -> set[str]:
    """Those whose claims hold where many are resized in one forward; where they do not, halves are tried, a bounded number.

    What is left out must be tried alone.
    """
    agreed: set[str] = set()
    groups = _groups([e for e in elements if "inexact" not in (e.grow, e.shrink)])
    for _ in range(MOST_GROUPS):
        if not groups:
            break
        group = groups.pop(0)
        if all(outcome.agrees for outcome in _both_directions(subject, group)):
            agreed.update(e.name for e in group)
        elif len(group) > 3:
            groups += [group[: len(group) // 2], group[len(group) // 2 :]]
    return agreed


def _groups(elements: Sequence[Element]) -> list[list[Element]]:
    """As few groups as order allows, in none of which two elements move the same atom or set the same attribute."""
    groups: list[tuple[list[Element], set[str]]] = []
    for element in elements:
        own = {m.atom for m in element.moves} | {f"{a.module}|{a.name}" for a in element.attributes}
        group, taken = next((g for g in groups if own.isdisjoint(g[1])), ([], set()))
        if not group:
            groups.append((group, taken))
        group.append(element)
        taken |= own
    return [group for group, _ in groups]


def _verify(subject: _Subject, element: Element) -> Element:
    if element.level in _UNITS:
        return _verify_units(subject, element)
    if element.level == "insertion":
        runnable, reasons = [], []
        for kind in element.kinds:
            plan = InsertPlan(element.name, kind)
            outcome = _attempt(subject, partial(layers.insert, plan=plan), subject.reference)
            reasons.append(outcome.reason)
            runnable += [kind] if outcome.reason is None else []
        reason = None if runnable else "; ".join(r for r in reasons if r)
        return _with(element, {"kinds": tuple(runnable)}, reason, bool(runnable))
    outcome = _attempt(subject, lambda n: layers.remove(n, RemovePlan(element.name)), subject.reference)
    return _with(element, {}, outcome.reason, outcome.reason is None)


def _with(element: Element, changes: dict[str, Any], reason: str | None, verified: bool) -> Element:
    refusal = f"removing or inserting does not run: {reason}" if reason else None
    return replace(element, reason=refusal, verified=verified, **changes)


def _verify_units(subject: _Subject, element: Element) -> Element:
    """Try the attributes that the algebra proposes, then their subsets, smallest first; keep the best."""
    best: tuple[int, Element] | None = None
    for attributes in _attribute_sets(element.attributes):
        grown, shrunk = _both_directions(subject, [replace(element, attributes=attributes)])
        score = sum(2 * o.agrees + (o.error is not None) for o in (grown, shrunk))
        if best is None or score > best[0]:
            best = (score, _settled(replace(element, attributes=attributes), grown, shrunk))
        if all(o.error is not None for o in (grown, shrunk)) and best[1].verified:
            break
    assert best is not None, "there is at least one set of attributes"
    return best[1]


def _attribute_sets(attributes: tuple[AttributeEdit, ...]) -> Iterator[tuple[AttributeEdit, ...]]:
    yield attributes
    if len(attributes) <= MOST_AMBIGUOUS:
        for size in range(len(attributes)):
            yield from itertools.combinations(attributes, size)


def _both_directions(subject: _Subject, elements: Sequence[Element]) -> tuple[Outcome, Outcome]:
    """All elements grown in one forward, and all shrunk in one; elements that cannot are left as they are."""
    grown = shrunk = Outcome(0.0)
    wider = [widening(e, GrowPlan(e.name, e.quantum)) for e in elements if e.grow != "no"]
    if wider:
        grown = _attempt(subject, lambda n: resize_all(n, wider, ()), subject.reference)
    gone = {e.name: (e, _middle(e)) for e in elements if e.shrink != "no" and e.size - e.quantum >= e.minimum}
    if gone:
        zeroed = subject.clone()
        for name, (_, units) in gone.items():
            advance(zeroed, Shrinking(name, units, 1))
        narrower = [narrowing(e, units) for e, units in gone.values()]
        shrunk = _attempt(zeroed, lambda n: resize_all(n, narrower, ()), _outputs(zeroed))
    return grown, shrunk


def _middle(element: Element) -> tuple[int, ...]:
    start = (element.size - element.quantum) // 2
    return tuple(range(start, start + element.quantum))


def _attempt(subject: _Subject | Network, change: Callable[[Network], Any], reference: Iterable[Tensor]) -> Outcome:
    """Change a copy and compare its outputs with the reference."""
    network = subject.clone() if isinstance(subject, _Subject) else _Subject(subject, []).clone()
    try:
        change(network)
        outputs = _outputs(network)
    except _CANNOT_RUN as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Outcome(None, lines[0][:200])
    largest_error = 0.0
    for a, b in zip(outputs, reference, strict=True):
        if a.shape != b.shape:
            return Outcome(None, f"the output would have shape {tuple(a.shape)} in place of {tuple(b.shape)}")
        if b.numel():
            relative = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-12)
            largest_error = max(largest_error, relative if math.isfinite(relative) else math.inf)
    return Outcome(largest_error)


def _settled(element: Element, grown: Outcome, shrunk: Outcome) -> Element:
    """The element with its claims cut down to what was seen."""
    grow, shrink = _claim(element, element.grow, grown), _claim(element, element.shrink, shrunk)
    reason = None
    if grow == "no" and shrink == "no":
        reason = f"resizing does not run: {grown.reason or shrunk.reason or 'it can neither grow nor shrink'}"
    claims = ((element.grow, grown), (element.shrink, shrunk))
    verified = all(o.error is not None and (o.agrees or claim in ("inexact", "no")) for claim, o in claims)
    return replace(element, grow=grow, shrink=shrink, reason=reason, verified=verified)


def _claim(element: Element, claimed: Exactness, outcome: Outcome) -> Exactness:
    """What is claimed, if it was seen; better only where a compensation is what makes it so."""
    if claimed == "no" or outcome.error is None:
        return "no"
    if not outcome.agrees:
        return "inexact"
    compensates = element.compensation and set(element.compensation) <= {"rmsnorm", "attention_scale"}
    return "compensated" if claimed == "inexact" and compensates else claimed
