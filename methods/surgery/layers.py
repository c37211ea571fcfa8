"""Insert and remove layers and residual blocks.

No name of an existing tensor changes. What is put behind a module becomes its child `grown_<n>` and runs on its output: an
`nn.Sequential` runs its last child anyway, any other module gets a forward hook. What is taken out is replaced, under its own
name, by a module that passes its input on, or returns zeros where it was a branch beside a skip path.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from methods.network import Network
from methods.plan import InsertPlan, RemovePlan
from methods.surgery.inserted import PassThrough, Residual, RunAfter, Zero
from methods.surgery.tensors import owner

KINDS = {
    "identity_linear": "Linear with the identity as its weight, behind ReLU followed by another ReLU (Net2Deeper)",
    "identity_conv": "convolution with a Dirac kernel, behind ReLU followed by another ReLU (Net2Deeper)",
    "residual_linear": "x + W2 relu(W1 x) with W2 = 0",
    "residual_conv": "x + conv2(relu(conv1(x))) with conv2 = 0",
    "duplicate": "copy of a residual block, its last scale (or weight) zero, uniform or normal (AutoGrow)",
}
Added = list[tuple[str, nn.Parameter]]


def insert(network: Network, plan: InsertPlan) -> Added:
    """Put a new module behind another and write it into `network.edits`; returns the new parameters.

    Exact: `identity_*` behind ReLU or behind anything linear; `residual_*` always; `duplicate` with `last: zero` for a block
    that ends in an addition or in an idempotent activation.

    Raises:
        ValueError: unknown kind, or one that does not fit the place.
    """
    at = plan.element.removeprefix("after:")
    element = network.element(plan.element)
    if plan.kind not in element.kinds:
        raise ValueError(f"behind {at} one of {list(element.kinds)} can be put, but got {plan.kind!r}.")
    holder = network.module.get_submodule(at)
    edit = {
        "op": "insert",
        "at": at,
        "name": _free_name(holder),
        "kind": plan.kind,
        "arguments": {**_place(network, at, plan.kind), **plan.arguments},
    }
    made = _put(network.module, edit)
    _initialise(made, plan)
    reference = next(holder.parameters(), next(network.module.parameters()))
    made.to(device=reference.device, dtype=reference.dtype).train(holder.training)
    network.edits.append(edit)
    inside = f"{at}.{edit['name']}"
    if plan.kind == "duplicate":
        _copy_attributes(network, at, inside)
    return [(f"{inside}.{n}", p) for n, p in made.named_parameters()]


def remove(network: Network, plan: RemovePlan) -> Added:
    """Take a module out and write it into `network.edits`; returns the parameters that are gone."""
    call = network.graph().modules[plan.element]
    kept = {id(p) for n, p in network.module.named_parameters(remove_duplicate=False) if not n.startswith(plan.element + ".")}
    gone = [
        (f"{plan.element}.{n}", p)
        for n, p in network.module.get_submodule(plan.element).named_parameters()
        if id(p) not in kept
    ]
    edit = {"op": "zero" if call.branch and not call.residual else "identity", "at": plan.element}
    _take_out(network.module, edit)
    network.edits.append(edit)
    for table in (network.attributes, network.masks):
        for key in [k for k in table if k.startswith((plan.element + ".", plan.element + "|"))]:
            del table[key]
    return gone


def replay(module: nn.Module, edits: Sequence[Mapping[str, Any]]) -> None:
    """Repeat recorded edits on the factory's module; shapes and values are set afterwards."""
    for edit in edits:
        if edit["op"] == "insert":
            _put(module, edit)
        elif edit["op"] in ("identity", "zero"):
            _take_out(module, edit)
        else:
            raise ValueError(f"an edit must be insert, identity or zero, but is {edit['op']!r}.")


def _take_out(module: nn.Module, edit: Mapping[str, Any]) -> None:
    parent, leaf = owner(module, edit["at"])
    replacement = Zero() if edit["op"] == "zero" else PassThrough()
    parent._modules[leaf] = replacement.train(parent.training)


def _free_name(holder: nn.Module) -> str:
    taken = [int(n.removeprefix("grown_")) for n in holder._modules if n.startswith("grown_")]
    return f"grown_{max(taken, default=-1) + 1}"


def _put(module: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    holder = module.get_submodule(edit["at"])
    made = _make(holder, edit["kind"], edit["arguments"])
    holder.add_module(edit["name"], made)
    if not isinstance(holder, nn.Sequential):
        holder.register_forward_hook(RunAfter(edit["name"]))
    return made


def _place(network: Network, at: str, kind: str) -> dict[str, Any]:
    """Number of channels behind a module, and whether an activation may follow the identity there."""
    output = network.graph().modules[at].output
    if kind == "duplicate":
        return {}
    place: dict[str, Any] = {"size": output[1 if kind.endswith("conv") else -1].size}
    if kind.startswith("identity"):
        place["relu"] = isinstance(network.module.get_submodule(at), nn.ReLU)
    return place


def _make(holder: nn.Module, kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    if kind == "duplicate":
        return _duplicate(holder)
    size = arguments["size"]
    if kind.startswith("identity"):
        layer: nn.Module = nn.Linear(size, size) if kind.endswith("linear") else nn.Conv2d(size, size, 3, padding=1)
        return nn.Sequential(layer, nn.ReLU()) if arguments.get("relu") else nn.Sequential(layer)
    inner = int(arguments.get("width", size))
    if kind == "residual_linear":
        norm: nn.Module | None = nn.BatchNorm1d(inner) if arguments.get("batch_norm") else None
        return Residual(nn.Linear(size, inner), norm, nn.Linear(inner, size))
    norm = nn.BatchNorm2d(inner) if arguments.get("batch_norm") else None
    return Residual(nn.Conv2d(size, inner, 3, padding=1), norm, nn.Conv2d(inner, size, 3, padding=1))


def _duplicate(holder: nn.Module) -> nn.Module:
    """A copy of the block, without what was put behind the block itself."""
    made = copy.deepcopy(holder)
    if not isinstance(made, nn.Sequential):
        for name in [n for n in made._modules if n.startswith("grown_")]:
            del made._modules[name]
        for key in [k for k, hook in made._forward_hooks.items() if isinstance(hook, RunAfter)]:
            del made._forward_hooks[key]
    return made


def _initialise(made: nn.Module, plan: InsertPlan) -> None:
    generator = torch.Generator().manual_seed(plan.seed)
    if plan.kind == "duplicate":
        _initialise_last(made, str(plan.arguments.get("last", "zero")), generator)
        return
    with torch.no_grad():
        if isinstance(made, Residual):
            weight = made.first.weight
            assert isinstance(weight, nn.Parameter)
            std = math.sqrt(2.0 / (weight.numel() // weight.shape[0]))
            weight.copy_(torch.randn(weight.shape, generator=generator) * std)
            assert isinstance(made.first.bias, nn.Parameter)
            made.first.bias.zero_()
        else:
            assert isinstance(made, nn.Sequential)
            layer = made[0]
            assert isinstance(layer, (nn.Linear, nn.Conv2d))
            (nn.init.eye_ if isinstance(layer, nn.Linear) else nn.init.dirac_)(layer.weight)
            assert layer.bias is not None
            layer.bias.zero_()


@torch.no_grad()
def _initialise_last(block: nn.Module, how: str, generator: torch.Generator) -> None:
    """Set the last scale (or weight) of a residual block, and the bias beside it."""
    last = [m for m in block.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)][-1]
    for name in ("weight", "bias"):
        parameter = getattr(last, name, None)
        if not isinstance(parameter, nn.Parameter):
            continue
        if how == "zero":
            parameter.zero_()
        elif how == "uniform":
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
        elif how == "normal":
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        else:
            raise ValueError(f"last must be zero, uniform or normal, but is {how!r}.")


def _copy_attributes(network: Network, at: str, inside: str) -> None:
    """The copy has the attributes that changes have set in the original."""
    for key, value in list(network.attributes.items()):
        path, _, name = key.partition("|")
        if path == at or (path.startswith(at + ".") and not path.startswith(inside)):
            network.attributes[f"{inside}{path.removeprefix(at)}|{name}"] = value
