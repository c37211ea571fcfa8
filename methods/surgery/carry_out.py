"""Carry out a plan that was checked: the tensors, then everything that follows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from coppice.methods.graph.connectivity import settle
from coppice.methods.graph.expr import atom_names, unit_map
from coppice.methods.graph.values import Element, Graph, Occurrence
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, Plan, PrunePlan, RemovePlan
from coppice.methods.surgery import layers
from coppice.methods.surgery.changes import Follower, TensorChange, followed
from coppice.methods.surgery.followers import share_out
from coppice.methods.surgery.masks import apply_masks, mask_of
from coppice.methods.surgery.mirrors import mirrors, restructure
from coppice.methods.surgery.normalised import normalised_consumers
from coppice.methods.surgery.resize import Resize, narrowing, resize, widening
from coppice.methods.surgery.tensors import get_tensor, set_tensor
from coppice.methods.surgery.trial import scaled_by_size


def resized_dimensions(network: Network, plan: Plan) -> dict[str, list[int]]:
    """The dimensions that the plan will resize, by the tensor's name."""
    if not isinstance(plan, (GrowPlan, PrunePlan)):
        return {}
    atoms = {move.atom for move in network.element(plan.element).moves}
    tensors = network.graph().tensors.items()
    found = {name: [d for d, e in enumerate(exprs) if not atoms.isdisjoint(atom_names(e))] for name, exprs in tensors}
    return {name: dims for name, dims in found.items() if dims}


def carry_out(network: Network, plan: Plan, followers: Sequence[Follower]) -> None:
    """Change the network as the plan says, and its followers with it."""
    if isinstance(plan, (GrowPlan, PrunePlan, MaskPlan)):
        _adjust([network.module, *mirrors(followers)], plan.adjust)
    if isinstance(plan, MaskPlan):
        _set_masks(network, plan.masks, followers)
    elif isinstance(plan, (InsertPlan, RemovePlan)):
        _restructure(network, plan, followers)
    else:
        element = network.element(plan.element)
        if isinstance(plan, PrunePlan):
            for module in (network.module, *mirrors(followers)):
                _keep_what_units_carried(module, network.graph(), element, plan)
        change = widening(element, plan) if isinstance(plan, GrowPlan) else narrowing(element, plan.units)
        resize_all(network, [change], followers)


def _restructure(network: Network, plan: InsertPlan | RemovePlan, followers: Sequence[Follower]) -> None:
    """Put a layer in or take one out, in the averages that follow as well."""
    edits = len(network.edits)
    if isinstance(plan, InsertPlan):
        share_out(followers, layers.insert(network, plan))
    else:
        for name, parameter in layers.remove(network, plan):
            for follower in followers:
                follower.removed(name, parameter)
    for mirror in mirrors(followers):
        restructure(mirror, network.module, network.edits[edits:])
    network.growth_changes.clear()
    network.changed()


@torch.no_grad()
def _adjust(modules: Iterable[nn.Module], adjust: Mapping[str, Tensor]) -> None:
    for module in modules:
        for name, value in adjust.items():
            tensor = get_tensor(module, name)
            tensor.add_(value.to(tensor))


def _set_masks(network: Network, masks: Mapping[str, Tensor], followers: Sequence[Follower]) -> None:
    """Set masks; masked weights become zero, in the averages that follow as well."""
    before = {name: mask_of(network, name) for name in masks}
    network.masks |= {name: mask.to(network.device(), copy=True) for name, mask in masks.items()}
    _settle(network, followers)
    for module in (network.module, *mirrors(followers)):
        apply_masks(network, module)
    for name, mask in before.items():
        for follower in followers:
            follower.masked(name, get_tensor(network.module, name), mask, mask_of(network, name))


def resize_all(
    network: Network, resizes: Sequence[Resize], followers: Sequence[Follower], by_size: Collection[str] | None = None
) -> None:
    """Resize several elements in one pass, with attributes, masks and followers.

    `by_size` names the elements whose scale of attention follows their size while the forward runs; None: that is found out.
    """
    normalised = _normalised(network, resizes)
    by_size = scaled_by_size(network, [r.element for r in resizes], resize_all) if by_size is None else by_size
    for module in mirrors(followers):
        resize(module, network.graph(), resizes, normalised, by_size)
    done = resize(network.module, network.graph(), resizes, normalised, by_size)
    network.attributes |= done.attributes
    changed: dict[str, list[TensorChange]] = {}
    for change in done.changes:
        changed.setdefault(change.tensor, []).append(change)
    for name, changes in changed.items():
        if name in network.masks:
            for c in changes:
                network.masks[name] = followed(network.masks[name], c, fill=True)
        for follower in followers:
            follower.resized(name, get_tensor(network.module, name), changes)
    _settle(network, followers)
    network.changed()


def _settle(network: Network, followers: Sequence[Follower]) -> None:
    """Modules that know their connections take over the masks; what cannot exist does not."""
    network.masks = settle(network.module, network.masks)
    for mirror in mirrors(followers):
        settle(mirror, network.masks)


def _normalised(network: Network, resizes: Sequence[Resize]) -> frozenset[str]:
    """The consumers behind a LayerNorm, of the elements that grow through one."""
    graph = network.graph()
    atoms = [graph.atoms[m.atom] for r in resizes if r.plan is not None for m in r.element.moves]
    names = {o.tensor for a in atoms if "layernorm" in a.marks for o in a.occurrences if o.role == "consume"}
    return normalised_consumers(network, names) if names else frozenset()


def _keep_what_units_carried(module: nn.Module, graph: Graph, element: Element, plan: PrunePlan) -> None:
    """Merge removed units into kept ones, or fold the constants they carry into the consumers' biases."""
    if plan.removal == "immediate":
        return
    for move in element.moves:
        for o in graph.atoms[move.atom].occurrences:
            if o.role != "consume":
                continue
            tensor = get_tensor(module, o.tensor).detach().clone()
            units = torch.tensor(unit_map(o.expr, move.atom), device=tensor.device) // move.units
            if plan.removal == "merge":
                for gone, (kept, factor) in plan.merge.items():
                    part = tensor.index_select(o.dim, (units == gone).nonzero().flatten())
                    tensor.index_add_(o.dim, (units == kept).nonzero().flatten(), part * factor)
                set_tensor(module, o.tensor, tensor)
            else:
                _absorb(module, o, tensor, units, plan)


def _absorb(module: nn.Module, o: Occurrence, tensor: Tensor, units: Tensor, plan: PrunePlan) -> None:
    bias_name = f"{o.tensor.rpartition('.')[0]}.bias".removeprefix(".")
    bias = get_tensor(module, bias_name).detach()
    constants = torch.zeros(len(units), device=tensor.device, dtype=tensor.dtype)
    for unit, value in zip(plan.units, plan.constants, strict=True):
        constants[units == unit] = value
    flat = tensor.movedim(o.dim, 1).flatten(2).sum(2) if tensor.ndim > 2 else tensor.movedim(o.dim, 1)
    set_tensor(module, bias_name, bias + flat @ constants)
