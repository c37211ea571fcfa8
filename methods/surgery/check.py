"""Whether a plan fits a network, before anything is touched."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coppice.methods.graph.expr import resized
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, Plan, PrunePlan, RemovePlan
from coppice.methods.surgery.learning import why_new_units_cannot_learn
from coppice.methods.surgery.tensors import get_tensor, tied_names

LEVELS: dict[type, tuple[str, ...]] = {
    GrowPlan: ("channel", "head", "group"),
    PrunePlan: ("channel", "head", "group"),
    InsertPlan: ("insertion",),
    RemovePlan: ("layer", "block"),
}
FILLS = ("zero", "kaiming", "normal", "orthogonal")
REMOVALS = ("immediate", "absorb", "merge")
LARGEST = 2**31 - 1
"""Entries of one tensor."""


class PlanError(ValueError):
    """A plan does not fit the network; the message says what must hold, what was given and what to do."""


def check(network: Network, plan: Plan) -> None:
    """Raise `PlanError` when `plan` cannot be carried out on `network`."""
    if isinstance(plan, (GrowPlan, PrunePlan, MaskPlan)):
        _check_adjustments(network, plan)
    if isinstance(plan, MaskPlan):
        _check_masks(network, plan)
        return
    try:
        element = network.element(plan.element)
    except KeyError as error:
        raise PlanError(str(error.args[0])) from None
    if element.reason is not None:
        raise PlanError(f"{element.name} must be permissible, but is not: {element.reason}.")
    if element.doubt is not None:
        raise PlanError(f"{element.name} must be certain to change as a whole, but {element.doubt}.")
    wanted = LEVELS[type(plan)]
    if element.level not in wanted:
        kind = type(plan).__name__
        raise PlanError(f"a {kind} needs an element of level {' or '.join(wanted)}, but {element.name} is a {element.level}.")
    if isinstance(plan, GrowPlan):
        _check_growth(network, element, plan)
    elif isinstance(plan, PrunePlan):
        _check_pruning(network, element, plan)


def _check_growth(network: Network, element: Element, plan: GrowPlan) -> None:
    if element.grow == "no":
        raise PlanError(f"{element.name} must be able to grow, but is not{f': {element.fixed}' if element.fixed else ''}.")
    if plan.count < 1 or plan.count % element.quantum:
        raise PlanError(
            f"{element.name} grows by a positive multiple of {element.quantum}, but count={plan.count}; round the amount to that."
        )
    if type(plan.count) is not int:
        raise PlanError(f"count must be a whole number, but is {plan.count!r}.")
    if plan.produce not in FILLS or plan.consume not in FILLS:
        raise PlanError(f"produce and consume must be of {FILLS}, but are {plan.produce!r} and {plan.consume!r}.")
    if not (math.isfinite(plan.scale) and math.isfinite(plan.noise) and plan.scale >= 0 and plan.noise >= 0):
        raise PlanError(f"scale and noise must be finite and not negative, but are {plan.scale} and {plan.noise}.")
    if plan.sources and (len(plan.sources) != plan.count or not all(-1 <= s < element.size for s in plan.sources)):
        raise PlanError(f"sources must name {plan.count} units in 0..{element.size - 1}, or -1, but are {plan.sources}.")
    if -1 in plan.sources and element.compensation:
        raise PlanError(f"copies and new units cannot be mixed in {element.name}, which is compensated; plan them one by one.")
    dead = why_new_units_cannot_learn(network, element, plan)
    if dead is not None:
        raise PlanError(f"new units of {element.name} must be able to learn, but {dead}; unfreeze it, or grow another element.")
    sizes = {m.atom: (element.size + plan.count) * m.units for m in element.moves}
    occurrences = {f"{o.tensor}:{o.dim}": o for m in element.moves for o in network.graph().atoms[m.atom].occurrences}
    for o in occurrences.values():
        tensor = get_tensor(network.module, o.tensor)
        size = tensor.numel() // max(o.expr.size, 1) * resized(o.expr, sizes)
        if size > LARGEST:
            raise PlanError(f"{o.tensor} may have at most {LARGEST} entries, but {plan.count} more units give it {size}.")
    for key, value in [*plan.values.items(), *plan.offsets.items()]:
        if key not in occurrences:
            which = "values" if key in plan.values else "offsets"
            raise PlanError(f"{which} may name {sorted(occurrences)} of {element.name}, but name {key!r}.")
        o = occurrences[key]
        shape = list(get_tensor(network.module, o.tensor).shape)
        shape[o.dim] = resized(o.expr, sizes) - o.expr.size
        _check_value(key, value, shape)


def _check_value(key: str, value: Tensor, shape: list[int]) -> None:
    if list(value.shape) != shape:
        raise PlanError(f"the values for {key} must have shape {shape}, but have {list(value.shape)}.")
    if not bool(torch.isfinite(value).all()):
        raise PlanError(f"the values for {key} must be finite, but some are NaN or infinite.")


def _check_pruning(network: Network, element: Element, plan: PrunePlan) -> None:
    if element.shrink == "no":
        raise PlanError(f"{element.name} must be able to shrink, but is not.")
    if plan.removal not in REMOVALS:
        raise PlanError(f"removal must be one of {REMOVALS}, but is {plan.removal!r}.")
    units = set(plan.units)
    if not units or len(units) != len(plan.units) or not all(0 <= u < element.size for u in units):
        raise PlanError(f"units must be different ones in 0..{element.size - 1} and at least one, but are {plan.units}.")
    if len(units) % element.quantum:
        raise PlanError(f"{element.name} shrinks by a multiple of {element.quantum}, but {len(units)} units were given.")
    if element.size - len(units) < element.minimum:
        raise PlanError(
            f"{element.name} must keep at least {element.minimum} of its {element.size} units, but {len(units)} would go; "
            "prune fewer."
        )
    if plan.removal == "absorb":
        _check_absorbing(network, element, plan)
    if plan.removal == "merge":
        kept = set(range(element.size)) - units
        if set(plan.merge) != units or not all(j in kept and math.isfinite(f) for j, f in plan.merge.values()):
            rule = f"merge must send each removed unit of {element.name} to a kept one, with a finite factor"
            raise PlanError(f"{rule}, but is {dict(plan.merge)}.")


def _check_absorbing(network: Network, element: Element, plan: PrunePlan) -> None:
    if len(plan.constants) != len(plan.units):
        raise PlanError(f"absorbing needs one constant for each of the {len(plan.units)} units, but got {len(plan.constants)}.")
    if not all(map(math.isfinite, plan.constants)):
        raise PlanError(f"absorbing needs finite constants, but got {plan.constants}.")
    for move in element.moves:
        for o in network.graph().atoms[move.atom].occurrences:
            owner = o.tensor.rpartition(".")[0]
            bias = getattr(network.module.get_submodule(owner), "bias", None)
            if o.role == "consume" and (not isinstance(bias, Tensor) or not o.tensor.endswith("weight")):
                raise PlanError(
                    f"absorbing needs a bias in every consumer of {element.name}, but {o.tensor} has none; use merge."
                )


def _check_masks(network: Network, plan: MaskPlan) -> None:
    if not plan.masks:
        raise PlanError("a MaskPlan needs at least one mask, but has none.")
    names = set(tied_names(network.module))
    for name, mask in plan.masks.items():
        if name not in names:
            raise PlanError(f"masks must name tensors of the network, but name {name!r}.")
        shape = get_tensor(network.module, name).shape
        if mask.shape != shape or mask.dtype != torch.bool:
            raise PlanError(f"the mask of {name} must be bool of shape {list(shape)}, but is {mask.dtype} of {list(mask.shape)}.")


def _check_adjustments(network: Network, plan: GrowPlan | PrunePlan | MaskPlan) -> None:
    for name, value in plan.adjust.items():
        try:
            tensor = get_tensor(network.module, name)
        except (AttributeError, KeyError):
            raise PlanError(f"adjust may name tensors of the network, but names {name!r}.") from None
        if not tensor.is_floating_point():
            raise PlanError(f"adjust may name floating-point tensors, but {name} is {tensor.dtype}.")
        _check_value(name, value, list(tensor.shape))
