"""What structured pruning methods share: slices of units, and the plan that removes units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from methods.graph.expr import unit_map
from methods.graph.values import Element, Occurrence
from methods.method import Context
from methods.plan import PrunePlan
from methods.statistics import Seen, observe, require_finite
from methods.surgery.tensors import get_tensor


def occurrences(context: Context, element: Element) -> Iterator[tuple[Occurrence, Tensor]]:
    """Every tensor dimension that holds the element, with the unit of each of its entries (-1: none)."""
    for move in element.moves:
        for o in context.network.graph().atoms[move.atom].occurrences:
            units = torch.tensor(unit_map(o.expr, move.atom))
            yield o, torch.where(units < 0, units, units // move.units)


def reduce_units(values: Tensor, units: Tensor, num: int) -> Tensor:
    """Sum `values` (one an entry) over the entries of each unit: (num,)."""
    kept = units >= 0
    return values.new_zeros(num).index_add_(0, units[kept].to(values.device), values[kept.to(values.device)])


def entry_sums(context: Context, o: Occurrence, power: float = 2.0) -> Tensor:
    """Sum of |w|^power over everything but the occurrence's dimension."""
    tensor = get_tensor(context.network.module, o.tensor).detach()
    return tensor.abs().pow(power).movedim(o.dim, 0).reshape(tensor.shape[o.dim], -1).sum(1)


def removal_plan(context: Context, element: Element, units: Sequence[int], removal: str, predicted: float | None) -> PrunePlan:
    """The plan that removes `units`; `absorb` measures what the consumers see of them on one batch."""
    if removal == "absorb" and _can_absorb(context, element):
        constants = mean_inputs(context, element)
        return PrunePlan(element.name, tuple(units), "absorb", tuple(float(constants[u]) for u in units), predicted_loss=predicted)
    return PrunePlan(element.name, tuple(units), predicted_loss=predicted)


def _can_absorb(context: Context, element: Element) -> bool:
    owners = [o.tensor.rpartition(".")[0] for o, _ in occurrences(context, element) if o.role == "consume"]
    return bool(owners) and all(getattr(context.network.module.get_submodule(m), "bias", None) is not None for m in owners)


def mean_inputs(context: Context, element: Element) -> Tensor:
    """Mean over samples and positions of what the element's consumers see of each unit: (size,).

    Raises:
        NonFiniteStatistics: some mean is not finite.
    """
    consumers = {o.tensor.rpartition(".")[0]: (o, u) for o, u in occurrences(context, element) if o.role == "consume"}
    total = torch.zeros(element.size, dtype=torch.float64)
    count = torch.zeros(element.size, dtype=torch.float64)

    def add(seen: dict[str, Seen], size: int) -> None:
        for name, (o, units) in consumers.items():
            inputs = seen[name].input
            weight = get_tensor(context.network.module, o.tensor)
            channels = inputs.movedim(1 if weight.ndim > 2 else -1, 0).flatten(1).mean(1).double().cpu()
            total.add_(reduce_units(channels, units, element.size))
            count.add_(reduce_units(torch.ones_like(channels), units, element.size))

    observe(context, sorted(consumers), add, 1, gradients=False)
    mean = total / count.clamp_min(1)
    require_finite(f"the inputs that {element.name} gives", mean)
    return mean
