"""What an adaptation may touch: elements that may be changed, by how many units, and what each unit costs."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from coppice.methods.adaptation.consensus import agree_on_elements
from coppice.methods.graph.values import Element
from coppice.methods.measures.cost import flops, flops_per_unit, parameters_per_unit
from coppice.methods.measures.latency import latency_per_unit
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.network import Network
from coppice.methods.selection.values import Candidate, Limit, Permissible
from coppice.methods.surgery.verdicts import settle


@dataclass(frozen=True)
class Scope:
    """What an adaptation may touch and how far it may go.

    Attributes:
        elements: glob patterns of element names; empty means every element.
        exclude: elements that are busy (being shrunk to zero).
        limit: parameters and FLOPs of the whole network that growth may not exceed and pruning may not go below.
        width: growth may take an element to at most this multiple of its seed size.
        minimum: pruning leaves at least this many units.
        seed_sizes: sizes in the network before any change.
    """

    elements: tuple[str, ...] = ()
    exclude: Collection[str] = ()
    limit: Limit = field(default_factory=Limit)
    width: float | None = None
    minimum: int = 1
    seed_sizes: Mapping[str, int] = field(default_factory=dict)


def permissible_elements(context: Context, method: Method, scope: Scope) -> tuple[list[Permissible], list[str]]:
    """Elements that may be changed, and for those in the scope that may not, why not; both are rank 0's."""
    settle(context.network)
    permissible, skipped = [], []
    inside = [e for e in context.network.elements() if not scope.elements or _is_named(e, scope.elements)]
    for element in inside:
        if element.level not in method.levels:
            continue
        reason = "units are being shrunk to zero" if _is_busy(element, scope.exclude) else method.accepts(context, element)
        most = 0 if reason is not None else _most(context.network, element, method, scope)
        if most > 0:
            permissible.append(Permissible(element, most))
        else:
            skipped.append(f"{element.name}: {_exhausted(element, method, scope) if reason is None else reason}")
    if not inside:
        skipped.append(f"no element is named like {', '.join(scope.elements)}")
    return agree_on_elements(context, permissible, skipped)


def _is_named(element: Element, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(element.name, p) for p in patterns)


def _exhausted(element: Element, method: Method, scope: Scope) -> str:
    """Why no unit of an element may be added or removed that otherwise may be changed."""
    if method.kind == "grow" and element.level == "weight":
        return "all of its weights are there"
    if method.kind == "grow" and scope.width is None:
        return "it has no units"
    if method.kind == "grow":
        return f"the width limit of {scope.width}x the seed size is reached"
    return f"the minimum of {max(scope.minimum, element.minimum)} units is reached"


def _is_busy(element: Element, busy: Collection[str]) -> bool:
    """Whether the element, or one inside the layer or block that it is, is among the busy ones."""
    inside = element.level in ("layer", "block") and any(name.startswith(f"{element.name}.") for name in busy)
    return inside or element.name in busy


def _most(network: Network, element: Element, method: Method, scope: Scope) -> int:
    """The number of units that may be added to an element, or removed from it, in whole quanta."""
    if element.level in ("layer", "block", "insertion"):
        return 1
    if element.level == "weight" and method.kind == "grow":
        return element.size - _active(network, element)
    if method.kind == "prune":
        most = element.size if element.level == "weight" else element.size - max(scope.minimum, element.minimum)
    elif scope.width is None:
        most = element.size * 64
    else:
        most = int(scope.width * scope.seed_sizes.get(element.name, element.size)) - element.size
    return most // element.quantum * element.quantum


def _active(network: Network, element: Element) -> int:
    """Units that there are now: weights that are masked do not count."""
    mask = network.masks.get(element.name) if element.level == "weight" else None
    return element.size if mask is None else int(mask.sum())


def candidates_of(
    context: Context,
    method: Method,
    permissible: Sequence[Permissible],
    measurement: Measurement,
    scope: Scope,
    needs_latency: bool = False,
) -> list[Candidate]:
    """What a selection chooses from: the permissible elements that the method has measured."""
    network = context.network
    graph = network.graph()
    offered = [p.element for p in permissible if p.element.name in measurement.scores]
    latencies = latency_per_unit(network, offered, method.kind) if needs_latency else {}
    costs = flops_per_unit(network.module, network.example_inputs, graph, [p.element for p in permissible])
    scores = {name: s.detach().cpu() for name, s in measurement.scores.items()}
    return [
        Candidate(
            element,
            scores[element.name],
            _left(method, element, most, scores[element.name], scope),
            scope.seed_sizes.get(element.name, element.size),
            parameters_per_unit(graph, element),
            costs[element.name],
            _active(network, element),
            measurement.advised.get(element.name, 0 if method.advises else None),
            tuple(network.module.get_parameter(element.name).shape) if element.level == "weight" else (),
            latencies.get(element.name),
        )
        for element, most in ((p.element, p.most) for p in permissible)
        if element.name in scores
    ]


def _left(method: Method, element: Element, most: int, scores: Tensor, scope: Scope) -> int:
    """Most units of a candidate that may change; of the weights that are not masked yet, some must stay."""
    return max(0, len(scores) - scope.minimum) if element.level == "weight" and method.kind == "prune" else most


def headroom(context: Context, method: Method, scope: Scope) -> Limit:
    """How many parameters and FLOPs this act may still add (growing) or remove (pruning)."""
    network = context.network
    if method.exchanges():
        return Limit()
    sign = 1.0 if method.kind == "grow" else -1.0
    parameters = scope.limit.parameters
    allowed_flops = scope.limit.flops
    return Limit(
        None if parameters is None else max(0.0, sign * (parameters - network.num_parameters())),
        None if allowed_flops is None else max(0.0, sign * (allowed_flops - flops(network.module, network.example_inputs))),
    )
