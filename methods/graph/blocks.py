"""Layers and blocks that can be taken out, and places where one can be put in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import nn

from coppice.methods.graph.expr import Atom, Const, atom_names
from coppice.methods.graph.values import Element, Exactness, Graph, Level, ModuleCall

_NUMBER = re.compile(r"(layer|block)_?(idx|index|id|number|num|no)|idx|index")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def removals(modules: Mapping[str, nn.Module], graph: Graph) -> Iterator[Element]:
    """Modules whose input may be passed on in their place (or zero, beside a skip path).

    A block is residual (its output is its input plus something) or a branch of a residual sum; anything else with parameters
    that keeps its input's shape is a layer. Beside removable modules in a sequence, the others are listed with the reason.
    """
    learning = _learning(graph)
    why = {name: _why_not(call) or _fused(modules, name) for name, call in graph.modules.items() if name in learning}
    refused = {name for name in why if _beside_or_same(graph.modules[name]) or _fused(modules, name)}
    removable = {name: graph.modules[name] for name, reason in why.items() if reason is None}
    for holder in [name for name, call in removable.items() if call.residual]:
        for above in _above(holder):
            if isinstance(modules[above], _CONTAINERS):
                removable.pop(above, None)
    parents = {name.rpartition(".")[0] for name in removable}
    for name, call in graph.modules.items():
        parent = name.rpartition(".")[0]
        if name in removable:
            beside = call.residual or call.branch
            level: Level = "block" if beside and modules[name]._modules else "layer"
            shrink: Exactness = "exact" if beside else "inexact"
            yield Element(name, level, 1, minimum=0, grow="no", shrink=shrink)
        elif (parent in parents and isinstance(modules[parent], _CONTAINERS) and name in learning) or (
            name in refused and not isinstance(modules[name], _CONTAINERS)
        ):
            yield Element(name, "block", 1, minimum=1, grow="no", shrink="no", reason=why[name])


def _fused(modules: Mapping[str, nn.Module], name: str) -> str | None:
    """Why a part of a layer of torch's stays: the fused kernel takes its weights, which a trace turns off."""
    parent = modules[name.rpartition(".")[0]] if name else None
    if isinstance(parent, nn.TransformerEncoderLayer):
        return "nn.TransformerEncoderLayer gives its weights to a fused kernel"
    return None


def _beside_or_same(call: ModuleCall) -> bool:
    """Whether a module could be taken out by its sizes, whatever it returns besides and whoever reads it."""
    return bool(call.why or call.used) and call.calls == 1 and bool(call.output) and call.inputs == call.output


def _learning(graph: Graph) -> set[str]:
    """The modules that own weights, and not only the scales of a norm."""
    tensors = {tensor for (tensor, _), role in graph.roles.items() if role in ("produce", "consume")}
    own = {name for tensor in tensors for name in _above(tensor)}
    behind = {name.rpartition(".grown_")[0] for name in own}
    return {name for name in own if name not in behind or any(_owns(name, tensor) for tensor in tensors)}


def _owns(name: str, tensor: str) -> bool:
    """Whether a tensor is inside a module, and not in what was put behind that module."""
    return tensor.startswith(f"{name}.") and not tensor.startswith(f"{name}.grown_")


def _above(name: str) -> Iterator[str]:
    """Names of the modules that contain a module or tensor."""
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts)))


def _why_not(call: ModuleCall) -> str | None:
    if call.calls != 1:
        return f"it is called {call.calls} times"
    if call.why is not None:
        return call.why
    if not call.inputs or not call.output:
        return "it is given no tensor, or what it returns does not begin with one"
    if call.used:
        return f"it also returns another tensor (entry {call.used[0]} of what it returns) that the rest of the network uses"
    if call.inputs is call.output:
        return None
    sizes = [tuple(d.size for d in dims) for dims in (call.inputs, call.output)]
    if sizes[0] != sizes[1]:
        return f"its input has the shape {sizes[0]}, its output {sizes[1]}"
    fixed = any(isinstance(a, Const) and not isinstance(b, Const) for a, b in zip(call.inputs, call.output, strict=True))
    return "its input does not change with its output" if fixed else None


def insertions(modules: Mapping[str, nn.Module], graph: Graph) -> Iterator[Element]:
    """Outputs of layers, activations and blocks behind which a layer or a residual block can be put."""
    learning = _learning(graph)
    for name, call in graph.modules.items():
        if call.calls != 1 or not _is_place(modules[name], call, name in learning):
            continue
        kinds = _kinds(call)
        if kinds:
            kinds += ("duplicate",) if name in learning and why_no_copy(modules, graph, name) is None else ()
            yield Element(f"after:{name}", "insertion", 1, minimum=0, shrink="no", kinds=kinds)


def why_no_copy(modules: Mapping[str, nn.Module], graph: Graph, name: str) -> str | None:
    """Why no copy of a module can be put behind it; None when one can."""
    inside = {path: m for path, m in modules.items() if path == name or path.startswith(f"{name}.")}
    if not graph.modules[name].residual:
        return "it is no residual block, so that a copy could not start as the identity"
    own = next((f"{path}.{key}" for path, m in inside.items() for key in numbers(m)), None)
    if own is not None:
        return f"{own} is its number among the layers, under which a cache keeps what it makes: a copy would have the same one"
    return _why_not(graph.modules[name])


def numbers(module: nn.Module) -> list[str]:
    """The attributes of a module that say the how many-th of its network it is (`layer_idx`, under which caches are kept)."""
    return [key for key, value in module.__dict__.items() if type(value) is int and _NUMBER.fullmatch(key)]


def _is_place(module: nn.Module, call: ModuleCall, learns: bool) -> bool:
    if type(module).__module__ == "torch.nn.modules.activation":
        return True
    plain = all(child.startswith("grown_") for child in module._modules)
    return learns and (plain or call.residual)


def _kinds(call: ModuleCall) -> tuple[str, ...]:
    """What can be put behind a call: the channels are dimension 1 of images, else the last one."""
    image = len(call.output) == 4
    if len(call.output) not in (2, 3, 4):
        return ()
    channels = call.output[1 if image else -1]
    if not atom_names(channels) or (len(call.output) == 3 and any(isinstance(d, Atom) for d in call.output[:2])):
        return ()
    return ("identity_conv", "residual_conv") if image else ("identity_linear", "residual_linear")
