"""Widen and narrow tensors by index maps, in place, many elements in one pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from coppice.methods.graph.expr import NEW, atom_names, index_map, resized
from coppice.methods.graph.values import Element, Graph
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.changes import TensorChange
from coppice.methods.surgery.compensate import compensate
from coppice.methods.surgery.fill import Fill
from coppice.methods.surgery.tensors import get_tensor, owner, set_tensor


@dataclass(frozen=True)
class Resize:
    """One element's new units.

    Attributes:
        element: which.
        index: for each new unit the old one, or `NEW`.
        plan: how new entries are filled; None when there are none.
    """

    element: Element
    index: tuple[int, ...]
    plan: GrowPlan | None = None


@dataclass
class Resized:
    """What a pass did: the changed dimensions, and the attributes that were set (`module|name` -> value)."""

    changes: list[TensorChange] = field(default_factory=list)
    attributes: dict[str, int | float] = field(default_factory=dict)


def narrowing(element: Element, units: Iterable[int]) -> Resize:
    """The resize that removes these units of an element."""
    gone = set(units)
    return Resize(element, tuple(i for i in range(element.size) if i not in gone))


def widening(element: Element, plan: GrowPlan) -> Resize:
    """Add the plan's units after the existing ones."""
    return Resize(element, (*range(element.size), *([NEW] * plan.count)), plan)


def resize(
    module: nn.Module,
    graph: Graph,
    resizes: Sequence[Resize],
    normalised: Collection[str] = (),
    by_size: Collection[str] | None = None,
) -> Resized:
    """Resize elements in place; each tensor is touched once, whatever the number of elements.

    Parameters keep their identity, ties, hooks, `requires_grad` and mode. Python attributes follow: those the elements name
    are reported, those of torch's own modules are set from the new shapes.

    Args:
        module: what to resize.
        graph: its graph from before.
        resizes: the elements, each with its new units.
        normalised: consumers that see nothing but the output of a LayerNorm (see `compensate`).
        by_size: elements whose scale of attention follows their size while the forward runs; None: all of them.
    """
    indices = _atom_indices(graph, resizes)
    plans = {move.atom: r for r in resizes if r.plan for move in r.element.moves}
    done = Resized()
    for name, exprs in graph.tensors.items():
        dims = [d for d, expr in enumerate(exprs) if not indices.keys().isdisjoint(atom_names(expr))]
        if dims:
            done.changes += _resize_tensor(module, graph, name, dims, indices, plans=plans)
    done.attributes |= _follow(module, graph, resizes, indices, {c.tensor for c in done.changes})
    for r in resizes:
        follows = by_size is None or r.element.name in by_size
        given = compensate(module, graph, r.element, len(r.index), r.plan, normalised=normalised, by_size=follows)
        done.attributes |= given
    return done


def _atom_indices(graph: Graph, resizes: Sequence[Resize]) -> dict[str, list[int]]:
    indices: dict[str, list[int]] = {}
    for r in resizes:
        for move in r.element.moves:
            u = move.units
            indices[move.atom] = [NEW if i < 0 else i * u + k for i in r.index for k in range(u)]
    return indices


def _resize_tensor(
    module: nn.Module,
    graph: Graph,
    name: str,
    dims: Sequence[int],
    indices: Mapping[str, Sequence[int]],
    *,
    plans: Mapping[str, Resize],
) -> list[TensorChange]:
    tensor = get_tensor(module, name).detach()
    changes: list[TensorChange] = []
    for dim in dims:
        expr = graph.tensors[name][dim]
        index = index_map(expr, indices)
        tensor = _gather(tensor, dim, index)
        if NEW in index:
            grown = next(plans[a] for a in sorted(atom_names(expr)) if a in plans and NEW in indices[a])
            assert grown.plan is not None
            tensor = Fill(module, grown.element, grown.plan, graph, indices).fill(tensor, name, dim, index, changes)
        changes.append(TensorChange(name, dim, tuple(index), expr.size))
    set_tensor(module, name, tensor)
    return changes


def _gather(tensor: Tensor, dim: int, index: Sequence[int]) -> Tensor:
    where = torch.tensor(index, device=tensor.device)
    return tensor.index_select(dim, where.clamp_(min=0) if NEW in index else where)


def _follow(
    module: nn.Module, graph: Graph, resizes: Sequence[Resize], indices: Mapping[str, Sequence[int]], changed: Collection[str]
) -> dict[str, int | float]:
    """Set the attributes that follow the sizes, also in the modules that hold a `changed` tensor under another name."""
    sizes = {atom: len(index) for atom, index in indices.items()}
    given: dict[str, int | float] = {}
    for r in resizes:
        for edit in r.element.attributes:
            value = resized(edit.expr, sizes)
            given[f"{edit.module}|{edit.name}"] = value
            setattr(module.get_submodule(edit.module), edit.name, value)
    names = [*changed, *(alias for alias, first in graph.aliases.items() if first in changed)]
    for holder in {id(h): h for h in (owner(module, n)[0] for n in names)}.values():
        follow_shapes(holder)
    return given


def follow_shapes(module: nn.Module) -> None:
    """Set the size attributes of one of torch's layers, or of one derived from them, from the shapes of its tensors."""
    if isinstance(module, nn.modules.conv._ConvNd):
        first, second = _weight(module).shape[:2]
        wide = second * module.groups
        module.out_channels, module.in_channels = (wide, first) if module.transposed else (first, wide)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = _weight(module).shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        held = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        if held is not None:
            module.num_features = held.shape[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        if module.weight is not None:
            module.num_channels = module.weight.shape[0]
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        module.num_embeddings, module.embedding_dim = _weight(module).shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]
    elif isinstance(module, nn.RNNBase):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        weight = module.get_parameter("weight_ih_l0")
        module.hidden_size, module.input_size = weight.shape[0] // gates, weight.shape[1]
        module.proj_size = module.get_parameter("weight_hr_l0").shape[0] if module.proj_size else 0
    elif isinstance(module, nn.RNNCellBase):
        module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = module.weight.shape
    elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        rows, columns = module.in_proj_weight.shape
        module.embed_dim = module.kdim = module.vdim = columns
        module.head_dim = rows // 3 // module.num_heads


def _weight(module: nn.Module) -> Tensor:
    """A layer's weight; where a hook computes it before each forward, the parameter of its shape that it is computed from."""
    for name in ("weight", "weight_orig", "weight_v"):
        found = module._parameters.get(name)
        if found is not None:
            return found
    chain = list(module.parametrizations.weight.modules()) if is_parametrized(module, "weight") else []  # type: ignore[union-attr]
    modes = [(m, m.training) for m in chain]
    for m in chain:
        m.training = False  # a power iteration goes on with every access while it trains
    weight = module.weight
    for m, training in modes:
        m.training = training
    assert isinstance(weight, Tensor)
    return weight
