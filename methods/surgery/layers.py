"""Insert and remove layers and residual blocks.

No name of an existing tensor changes, so keys of checkpoints, optimizer states and elements stay valid. What is put behind a
module becomes its child `grown_<n>` and runs on its output: an `nn.Sequential` runs its last child anyway, any other module
gets a forward hook that knows the child's name only (see `inserted`). Both survive deep copies, `state_dict`,
`.to`, `train`/`eval` and functional calls, and a trace sees the new module like any other, so that it can grow and shrink in
turn. A hook that must see the module's own output, without what was put behind it, is registered with `prepend=True`.

What is taken out is replaced, under its own name, by a module that passes its input on, or zeros where it was a branch beside
a skip path; what had been put behind it stays.

The edits of a network are an ordered log; replayed on the factory's own module they give the same tree of modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph.blocks import why_no_copy
from coppice.methods.graph.calls import output_of
from coppice.methods.network import Network
from coppice.methods.plan import InsertPlan, RemovePlan
from coppice.methods.surgery.ends import branch_ends, ends_of_copy
from coppice.methods.surgery.inserted import PassThrough, Zero, put_behind, take_away_behind
from coppice.methods.surgery.kinds import KINDS, check_arguments, initialise, initialise_ends, make
from coppice.methods.surgery.numbering import close_gap
from coppice.methods.surgery.tensors import get_tensor, owner, tied_names

__all__ = ["KINDS", "branch_ends", "channel_statistics", "insert", "remove", "replay"]

Changed = list[tuple[str, nn.Parameter]]
_FORWARD_FAILS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)


def insert(network: Network, plan: InsertPlan) -> Changed:
    """Put a new module behind another and write it into `network.edits`; returns the new parameters.

    The function stays the same, bit by bit, with `residual_*`, and with `identity_*` (which include a ReLU only behind an
    `nn.ReLU`, where it is idempotent). With `batch_norm` an identity is exact up to rounding in evaluation, and in training
    where the plan gives the statistics of the batch. `duplicate` with `last: zero` is exact for a block whose branches end in
    a module with weights, if whatever follows the addition is idempotent (nothing, or ReLU).

    Raises:
        ValueError: unknown kind or argument, or one that does not fit the place.
    """
    at = plan.element.removeprefix("after:")
    element = network.element(plan.element)
    if plan.kind not in element.kinds:
        modules = dict(network.module.named_modules())
        why = f" ({why_no_copy(modules, network.graph(), at)})" if plan.kind == "duplicate" else ""
        raise ValueError(f"behind {at} one of {list(element.kinds)} can be put, but got {plan.kind!r}{why}.")
    check_arguments(plan.kind, plan.arguments)
    holder = network.module.get_submodule(at)
    name, arguments = _free_name(holder), _arguments(network, at, plan)
    made = make(holder, plan.kind, arguments)
    generator = torch.Generator().manual_seed(plan.seed)
    inside = f"{at}.{name}"
    if plan.kind == "duplicate":
        ends = [made.get_submodule(path) for path in ends_of_copy(network, at, made)]
        initialise_ends(ends, str(plan.arguments.get("last", "zero")), generator)
    else:
        near = [*holder.parameters(), *network.module.parameters()]
        reference = next((p for p in near if p.is_floating_point()), near[0])  # what complex weights return may be real
        made.to(device=reference.device, dtype=reference.dtype).train(holder.training)
        initialise(made, plan.kind, plan.arguments, generator)
    _give(made, plan.values)
    put_behind(holder, name, made, whole=plan.kind == "duplicate")
    network.edits.append({"op": "insert", "at": at, "name": name, "kind": plan.kind, "arguments": arguments})
    if plan.kind == "duplicate":
        _copy_attributes(network, at, inside)
    _check_forward(network, f"putting {plan.kind} behind {at}")
    return [(f"{inside}.{n}", p) for n, p in made.named_parameters()]


@torch.no_grad()
def _give(made: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write values into the tensors of a new module; entries beyond them, of channels that came later, are zero."""
    tensors = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    for name, value in values.items():
        if name not in tensors or value.dim() != tensors[name].dim():
            raise ValueError(f"values may name {sorted(tensors)} of what is inserted, of their dimensions, but name {name!r}.")
        tensor = tensors[name]
        if any(a > b for a, b in zip(value.shape, tensor.shape, strict=True)):
            raise ValueError(f"the values of {name} must be within {list(tensor.shape)}, but have {list(value.shape)}.")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the values of {name} must be finite, but some are NaN or infinite.")
        tensor.zero_()[tuple(slice(n) for n in value.shape)] = value.to(tensor)


def remove(network: Network, plan: RemovePlan) -> Changed:
    """Take a module out and write it into `network.edits`; returns the parameters that are gone.

    Raises:
        ValueError: the forward does not run without it (it reads the module's attributes, say).
    """
    at = plan.element
    call = network.graph().modules[at]
    before = list(network.module.named_parameters())
    masked = {id(get_tensor(network.module, n)): mask for n, mask in network.masks.items()}
    edit: dict[str, Any] = {"op": "zero" if call.branch and not call.residual else "identity", "at": at}
    if call.form is not None:
        edit["form"] = call.form
    old = network.module.get_submodule(at)
    _take_out(network.module, edit)
    close_gap(network, at, old)
    network.edits.append(edit)
    names = {id(get_tensor(network.module, n)): n for n in tied_names(network.module)}
    network.masks = {names[i]: mask for i, mask in masked.items() if i in names}
    modules = dict(network.module.named_modules(remove_duplicate=False))
    network.attributes = {
        key: value
        for key, value in network.attributes.items()
        if hasattr(modules.get(key.partition("|")[0]), key.partition("|")[2])
    }
    _check_forward(network, f"taking out {at}")
    return [(n, p) for n, p in before if id(p) not in names]


def replay(module: nn.Module, edits: Sequence[Mapping[str, Any]]) -> None:
    """Repeat recorded edits on the factory's module; shapes and values are set afterwards.

    Raises:
        ValueError: an edit is none of insert, identity and zero.
    """
    for edit in edits:
        if edit["op"] == "insert":
            holder = module.get_submodule(edit["at"])
            made = make(holder, edit["kind"], edit["arguments"])
            put_behind(holder, edit["name"], made, whole=edit["kind"] == "duplicate")
        elif edit["op"] in ("identity", "zero"):
            _take_out(module, edit)
        else:
            raise ValueError(f"an edit must be insert, identity or zero, but is {edit['op']!r}.")


def channel_statistics(network: Network, at: str, batch: tuple[Any, ...]) -> dict[str, list[float]]:
    """Mean and variance (biased) of each channel behind the module `at`, for the `batch_norm` of an identity.

    Args:
        network: run once, in the mode it is in, without gradients.
        at: name of a module.
        batch: positional arguments of the forward.
    """
    seen: list[Tensor] = []
    holder = network.module.get_submodule(at)
    handle = holder.register_forward_hook(lambda module, inputs, output: seen.append(_own(output).detach().clone()))
    try:
        with torch.no_grad():
            network.module(*batch)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"{at} must be called once in a forward, but was called {len(seen)} times.")
    rows = seen[0].movedim(1 if seen[0].ndim == 4 else -1, 0).flatten(1).double()
    return {"mean": rows.mean(1).tolist(), "var": rows.var(1, correction=0).tolist()}


def _own(returned: Any) -> Tensor:
    """The output in what a module returned."""
    output = output_of(returned)
    assert output is not None, "a place has an output"
    return output


def _take_out(module: nn.Module, edit: Mapping[str, Any]) -> None:
    parent, leaf = owner(module, edit["at"])
    old = parent._modules[leaf]
    assert old is not None
    replacement = (Zero if edit["op"] == "zero" else PassThrough)(edit.get("form"), old)
    for name, child, whole in take_away_behind(old):
        put_behind(replacement, name, child, whole)
    replacement.training = old.training
    parent._modules[leaf] = replacement


def _free_name(holder: nn.Module) -> str:
    taken = [int(n.removeprefix("grown_")) for n in holder._modules if n.removeprefix("grown_").isdecimal() and n[0] == "g"]
    return f"grown_{max(taken, default=-1) + 1}"


def _arguments(network: Network, at: str, plan: InsertPlan) -> dict[str, Any]:
    """What `make` needs to know again at a rebuild."""
    if plan.kind == "duplicate":
        return {}
    output = network.graph().modules[at].output
    flag = bool(plan.arguments.get("batch_norm"))
    if flag and plan.kind.endswith("linear") and len(output) != 2:
        raise ValueError(f"batch_norm of {plan.kind} needs an output of 2 dimensions, but that of {at} has {len(output)}.")
    arguments: dict[str, Any] = {"size": output[1 if plan.kind.endswith("conv") else -1].size, "batch_norm": flag}
    if plan.kind.startswith("residual"):
        return {**arguments, "width": plan.arguments.get("width", arguments["size"])}
    return {**arguments, "relu": isinstance(network.module.get_submodule(at), nn.ReLU)}


def _copy_attributes(network: Network, at: str, inside: str) -> None:
    """The copy has the attributes that changes have set in the original."""
    modules = dict(network.module.named_modules(remove_duplicate=False))
    for key, value in list(network.attributes.items()):
        path, _, name = key.partition("|")
        copied = f"{inside}{path.removeprefix(at)}"
        if (path == at or path.startswith(at + ".")) and not (path + ".").startswith(inside + ".") and copied in modules:
            network.attributes[f"{copied}|{name}"] = value


def _check_forward(network: Network, act: str) -> None:
    network.changed()
    try:
        network.graph()
    except _FORWARD_FAILS as error:
        raise ValueError(f"after {act} the forward must run, but: {error}") from error
