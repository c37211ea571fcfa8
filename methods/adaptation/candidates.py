"""What an adaptation may touch: elements that may be changed, by how many units, and what each unit costs."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from coppice.methods.adaptation.consensus import same_rooms
from coppice.methods.graph.values import Element
from coppice.methods.measures.cost import flops, flops_per_unit, parameters_per_unit
from coppice.methods.measures.latency import latency_per_unit
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.network import Network
from coppice.methods.selection import Candidate, Limit


@dataclass(frozen=True)
class Rules:
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


def offers(context: Context, method: Method, rules: Rules, skipped: list[str]) -> list[tuple[Element, int]]:
    """Elements that may be changed, each with the number of units that may be added or removed."""
    rooms = []
    named = 0
    for element in context.network.elements():
        if rules.elements and not any(fnmatch.fnmatchcase(element.name, p) for p in rules.elements):
            continue
        named += 1
        if element.level not in method.levels:
            continue
        if _is_busy(element, rules.exclude):
            skipped.append(f"{element.name}: units are being shrunk to zero")
            continue
        reason = method.accepts(context, element)
        if reason is not None:
            skipped.append(f"{element.name}: {reason}")
            continue
        room = _room(context.network, element, method, rules)
        if room > 0:
            rooms.append((element, room))
        elif method.kind == "grow":
            skipped.append(f"{element.name}: the width limit of {rules.width}x the seed size is reached")
        else:
            skipped.append(f"{element.name}: the minimum of {max(rules.minimum, element.minimum)} units is reached")
    if not named:
        skipped.append(f"no element is named like {', '.join(rules.elements)}")
    return same_rooms(context, rooms, skipped)


def _is_busy(element: Element, busy: Collection[str]) -> bool:
    """Whether the element, or one inside the layer or block that it is, is among the busy ones."""
    inside = element.level in ("layer", "block") and any(name.startswith(f"{element.name}.") for name in busy)
    return inside or element.name in busy


def _room(network: Network, element: Element, method: Method, rules: Rules) -> int:
    if element.level in ("layer", "block", "insertion"):
        return 1
    if element.level == "weight" and method.kind == "grow":
        return element.size - _active(network, element)
    if method.kind == "prune":
        room = element.size if element.level == "weight" else element.size - max(rules.minimum, element.minimum)
    elif rules.width is None:
        room = element.size * 64
    else:
        room = int(rules.width * rules.seed_sizes.get(element.name, element.size)) - element.size
    return room // element.quantum * element.quantum


def _active(network: Network, element: Element) -> int:
    """Units that there are now: weights that are masked do not count."""
    mask = network.masks.get(element.name) if element.level == "weight" else None
    return element.size if mask is None else int(mask.sum())


def candidates_of(
    context: Context,
    method: Method,
    rooms: Sequence[tuple[Element, int]],
    measurement: Measurement,
    rules: Rules,
    needs_latency: bool = False,
) -> list[Candidate]:
    """What a selection chooses from: the rooms that the method has measured."""
    network = context.network
    graph = network.graph()
    offered = [e for e, _ in rooms if e.name in measurement.scores]
    latencies = latency_per_unit(network, offered, method.kind) if needs_latency else {}
    costs = flops_per_unit(network.module, network.example_inputs, graph, [e for e, _ in rooms])
    scores = {name: s.detach().cpu() for name, s in measurement.scores.items()}
    return [
        Candidate(
            element,
            scores[element.name],
            _left(method, element, room, scores[element.name], rules),
            rules.seed_sizes.get(element.name, element.size),
            parameters_per_unit(graph, element),
            costs[element.name],
            _active(network, element),
            measurement.advised.get(element.name, 0 if method.advises else None),
            tuple(network.module.get_parameter(element.name).shape) if element.level == "weight" else (),
            latencies.get(element.name),
        )
        for element, room in rooms
        if element.name in scores
    ]


def _left(method: Method, element: Element, room: int, scores: Tensor, rules: Rules) -> int:
    """Room of a candidate; of the weights that are not masked yet, some must stay."""
    return max(0, len(scores) - rules.minimum) if element.level == "weight" and method.kind == "prune" else room


def headroom(context: Context, method: Method, rules: Rules) -> Limit:
    """How many parameters and FLOPs this act may still add (growing) or remove (pruning)."""
    network = context.network
    if method.exchanges():
        return Limit()
    sign = 1.0 if method.kind == "grow" else -1.0
    parameters = rules.limit.parameters
    allowed_flops = rules.limit.flops
    return Limit(
        None if parameters is None else max(0.0, sign * (parameters - network.num_parameters())),
        None if allowed_flops is None else max(0.0, sign * (allowed_flops - flops(network.module, network.example_inputs))),
    )
