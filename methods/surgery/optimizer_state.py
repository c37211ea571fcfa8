"""An optimizer's state as tensors and JSON, keyed by parameter names; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.surgery.groups import names_of
from coppice.methods.surgery.state_entries import rule_of
from coppice.methods.surgery.state_layout import kinds_of
from coppice.methods.surgery.state_values import packed, unpacked


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State tensors by `parameter/key`, and the JSON-able rest: scalars of the state, and each group's parameters and options.

    Parameters that are not the network's are named `outside/0`, `outside/1` and so on, in the order of the groups. Lists, tuples
    and dictionaries of a state are written into the rest (`nested`), their tensors beside the others.

    Raises:
        ValueError: the optimizer trains no parameter of `module`, or the state holds something that is neither a tensor, nor a
            number, text or collection of such.
    """
    names = names_of(optimizer, module)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if held and all(names[id(p)].startswith("outside/") for p in held):
        raise ValueError(
            "a tensor that the optimizer trains must be a parameter of the network, but one of shape "
            f"{tuple(held[0].shape)} is not, and nor is any other; make the optimizer of this module's parameters."
        )
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    nested: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        name = _name(names, parameter)
        for key, value in state.items():
            if isinstance(value, Tensor) and "/" not in str(key):
                tensors[f"{name}/{key}"] = value
            elif isinstance(value, (bool, int, float, str)):
                scalars.setdefault(name, {})[key] = value
            elif value is not None:
                nested.setdefault(name, {})[key] = packed(value, f"{name}/{key}", tensors)
    groups = [
        {"parameters": [_name(names, p) for p in group["params"]], "options": _options(group)} for group in optimizer.param_groups
    ]
    rest: dict[str, Any] = {"groups": groups, "scalars": scalars}
    return tensors, rest | ({"nested": nested} if nested else {})


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's options; tensors (a capturable learning rate, say) as numbers."""
    values = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in group.items() if k not in ("params", "param_names")}
    return {k: v for k, v in values.items() if isinstance(v, (int, float, bool, str, tuple, list, type(None)))}


def _name(names: Mapping[int, str], parameter: Tensor) -> str:
    if id(parameter) not in names:
        shape = f" of shape {tuple(parameter.shape)}" if isinstance(parameter, Tensor) else ""
        raise ValueError(
            "every state of the optimizer must belong to a parameter in one of its groups, but there is state of a "
            f"{type(parameter).__name__}{shape} that is in none."
        )
    return names[id(parameter)]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Put the state into a fresh optimizer of the same kind over the same network.

    Args:
        optimizer: it must train the same parameters, in as many groups; which is in which group, and every option of a group,
            is as saved.
        module: whose parameters it trains; others are matched by their order.
        tensors: the first value of `optimizer_state`, on any device.
        rest: the second one, also after a round trip through JSON.

    Raises:
        ValueError: names, shapes, groups or options do not fit; the message names them, and nothing was changed.
    """
    names = names_of(optimizer, module)
    known = {id(p): p for p in [*module.parameters(), *(p for g in optimizer.param_groups for p in g["params"])]}
    parameters = {names[i]: p for i, p in known.items()}
    _check(optimizer, parameters, tensors, rest)
    options = _load_groups(optimizer, parameters, rest)
    optimizer.state.clear()
    nested = rest.get("nested", {})
    inner = {path for path in tensors for name, entries in nested.items() for key in entries if _under(path, name, key)}
    for path, value in tensors.items():
        if path not in inner:
            name, _, key = path.rpartition("/")
            optimizer.state[parameters[name]][key] = _placed(value, parameters[name], options)
    for name, entries in rest["scalars"].items():
        optimizer.state[parameters[name]].update(entries)
    for name, entries in nested.items():
        placed = {path: _placed(tensors[path], parameters[name], options) for path in inner if path.startswith(f"{name}/")}
        optimizer.state[parameters[name]].update({key: unpacked(value, placed) for key, value in entries.items()})


def _load_groups(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> dict[int, Mapping[str, Any]]:
    """Give the groups their parameters and options; returns each parameter's group, by id."""
    options: dict[int, Mapping[str, Any]] = {}
    for group, saved in zip(optimizer.param_groups, rest["groups"], strict=True):
        group["params"][:] = [parameters[n] for n in saved["parameters"]]
        if "param_names" in group:
            group["param_names"][:] = saved["parameters"]
        for key, value in saved["options"].items():
            old = group.get(key)
            new = torch.as_tensor(value, dtype=old.dtype, device=old.device) if isinstance(old, Tensor) else value
            group[key] = tuple(new) if isinstance(old, tuple) else new
        options |= {id(p): group for p in group["params"]}
    return options


def _under(path: str, name: str, key: str) -> bool:
    return path == f"{name}/{key}" or path.startswith(f"{name}/{key}/")


def _placed(value: Tensor, parameter: Tensor, options: Mapping[int, Mapping[str, Any]]) -> Tensor:
    """A copy where the optimizer itself would put it: step counters stay on the CPU, unless its kernels read them."""
    group = options.get(id(parameter), {})
    if value.ndim == 0 and not (group.get("capturable") or group.get("fused")):
        return value.clone()
    return value.to(parameter.device, copy=True)


def _check(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    rest: Mapping[str, Any],
) -> None:
    groups = rest["groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"the optimizer must have {len(groups)} parameter groups, but has {len(optimizer.param_groups)}.")
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        options = sorted((_options(group).keys() & optimizer.defaults.keys()) - saved["options"].keys())
        if options:
            raise ValueError(f"the state must be of the same kind of optimizer, but it has no value for {options}.")
    names = {id(p): n for n, p in parameters.items()}
    trained = {_name(names, p) for group in optimizer.param_groups for p in group["params"]}
    saved_names = {n for g in groups for n in g["parameters"]}
    nested = {(name, str(key)) for name, entries in rest.get("nested", {}).items() for key in entries}
    flat = [path for path in tensors if not any(_under(path, *of) for of in nested)]
    stated = {path.rpartition("/")[0] for path in flat} | set(rest["scalars"]) | {name for name, _ in nested}
    unknown, missing = sorted((saved_names | stated) - trained), sorted(trained - saved_names)
    if unknown or missing:
        raise ValueError(
            f"the optimizer's state must name the parameters that the optimizer trains, but {unknown or 'none'} are not trained "
            f"and {missing or 'none'} are not in the state."
        )
    for path in flat:
        name, _, key = path.rpartition("/")
        value, shape = tensors[path], parameters[name].shape
        ruled = hasattr(optimizer, "coppice_resized") or rule_of(optimizer, key) is not None
        if value.ndim and value.ndim == len(shape) and not ruled and not kinds_of(value.shape, shape):
            raise ValueError(f"state {key} of {name} must have shape {tuple(shape)}, but has {tuple(value.shape)}.")
