"""A small, independent resize: the reference that what the graph says is checked against."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph import AttributeEdit, Graph
from coppice.methods.graph.expr import NEW, atom_names, index_map, resized

PRODUCING = ("produce", "bias", "raw", "shift", "mean")


def output(module: nn.Module, inputs: Sequence[Any]) -> Tensor:
    """The first tensor that a module returns."""
    found = module(*inputs)
    while not isinstance(found, Tensor):
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    return found


def randomised(module: nn.Module) -> nn.Module:
    """Every parameter and running statistic away from its special initial value."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean") or (tensor.is_floating_point() and tensor.dim() < 2):
                tensor.normal_(0.7, 0.2)
            elif isinstance(tensor, nn.Parameter):
                tensor.normal_(0.0, 0.4)
    return module


def _holder(module: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    return (owner._parameters if leaf in owner._parameters else owner._buffers), leaf


def zeroed(module: nn.Module, graph: Graph, keep: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy in which whatever makes the units that are not kept is zero."""
    clone = copy.deepcopy(module)
    with torch.no_grad():
        for (name, dim), role in graph.roles.items():
            expr = graph.tensors[name][dim]
            if role in PRODUCING and atom_names(expr) & keep.keys():
                gone = sorted(set(range(expr.size)) - set(index_map(expr, keep)))
                table, leaf = _holder(clone, name)
                table[leaf].index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0.0)
    return clone


def resize(module: nn.Module, graph: Graph, indices: Mapping[str, Sequence[int]], edits: Sequence[AttributeEdit]) -> nn.Module:
    """A resized copy: new producers are random, new consumers zero."""
    clone = copy.deepcopy(module)
    sizes = {name: len(index) for name, index in indices.items()}
    with torch.no_grad():
        for name, dims in graph.tensors.items():
            table, leaf = _holder(clone, name)
            tensor = table[leaf]
            for dim, expr in enumerate(dims):
                if atom_names(expr) & indices.keys():
                    index = torch.tensor(index_map(expr, indices))
                    new = _fill(tensor.index_select(dim, index.clamp(min=0)), graph.roles[name, dim])
                    old = tensor.index_select(dim, index.clamp(min=0))
                    is_new = (index == NEW).reshape([-1 if i == dim else 1 for i in range(tensor.dim())])
                    tensor = torch.where(is_new, new, old)
            if tensor is not table[leaf]:
                table[leaf].data = tensor
    for edit in edits:
        setattr(clone.get_submodule(edit.module), edit.name, resized(edit.expr, sizes))
    for m in clone.modules():
        _follow_shapes(m)
    return clone


def _fill(like: Tensor, role: str) -> Tensor:
    value = {"consume": 0.0, "scale": 1.0, "var": 1.0, "shift": 0.0, "mean": 0.0}.get(role)
    return torch.randn_like(like) if value is None else torch.full_like(like, value)


def _follow_shapes(m: nn.Module) -> None:
    if isinstance(m, nn.modules.batchnorm._NormBase) and m.weight is not None:
        m.num_features = m.weight.shape[0]
    elif isinstance(m, nn.LayerNorm | nn.RMSNorm):
        m.normalized_shape = tuple(m.weight.shape)
    elif isinstance(m, nn.GroupNorm):
        m.num_channels = m.weight.shape[0]
    elif isinstance(m, nn.RNNBase):
        gates = {"LSTM": 4, "GRU": 3}.get(m.mode, 1)
        m.hidden_size, m.input_size = m.weight_ih_l0.shape[0] // gates, m.weight_ih_l0.shape[1]
        m.proj_size = m.weight_hr_l0.shape[0] if m.proj_size else 0
        m._flat_weights = [getattr(m, name) for name in m._flat_weights_names]
    elif isinstance(m, nn.RNNCellBase):
        m.hidden_size, m.input_size = m.weight_hh.shape[1], m.weight_ih.shape[1]
    elif isinstance(m, nn.MultiheadAttention):
        m.embed_dim = m.kdim = m.vdim = m.out_proj.weight.shape[0]
        m.head_dim = m.embed_dim // m.num_heads
