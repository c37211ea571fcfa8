"""An optimizer's state as tensors and JSON, keyed by parameter names; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State tensors by `parameter/key`, and the JSON-able rest: scalars of the state, and each group's parameters and options.

    Raises:
        ValueError: the optimizer trains a tensor that is not a parameter of `module`.
    """
    names = {id(p): n for n, p in module.named_parameters()}
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        name = _name(names, parameter)
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value
            elif value is not None:
                scalars.setdefault(name, {})[key] = value
    groups = [
        {"parameters": [_name(names, p) for p in group["params"]], "options": _options(group)} for group in optimizer.param_groups
    ]
    return tensors, {"groups": groups, "scalars": scalars}


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's options; tensors (a capturable learning rate, say) as numbers."""
    values = {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
    return {k: v for k, v in values.items() if isinstance(v, (int, float, bool, str, tuple, list, type(None)))}


def _name(names: Mapping[int, str], parameter: Tensor) -> str:
    if id(parameter) not in names:
        raise ValueError(
            "every tensor the optimizer trains must be a parameter of the network, but one of shape "
            f"{tuple(parameter.shape)} is not."
        )
    return names[id(parameter)]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Put the state into a fresh optimizer of the same kind over the same network.

    Args:
        optimizer: it must train the same parameters, in as many groups; which is in which group, and every option of a group,
            is as saved.
        module: whose parameters it trains.
        tensors: the first value of `optimizer_state`, on any device.
        rest: the second one, also after a round trip through JSON.

    Raises:
        ValueError: names, shapes, groups or options do not fit; the message names them, and nothing was changed.
    """
    parameters = dict(module.named_parameters())
    _check(optimizer, parameters, tensors, rest)
    for group, saved in zip(optimizer.param_groups, rest["groups"], strict=True):
        group["params"] = [parameters[n] for n in saved["parameters"]]
        for key, value in saved["options"].items():
            old = group.get(key)
            new = torch.as_tensor(value, dtype=old.dtype, device=old.device) if isinstance(old, Tensor) else value
            group[key] = tuple(new) if isinstance(old, tuple) else new
    optimizer.state.clear()
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        # Step counters stay where the optimizer itself would put them: on the CPU.
        optimizer.state[parameter][key] = value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
    for name, entries in rest["scalars"].items():
        optimizer.state[parameters[name]].update(entries)


def _check(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    rest: Mapping[str, Any],
) -> None:
    groups = rest["groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"the optimizer must have {len(groups)} parameter groups, but has {len(optimizer.param_groups)}.")
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        options = sorted((group.keys() - {"params"}) - saved["options"].keys())
        if options:
            raise ValueError(f"the state must be of the same kind of optimizer, but it has no value for {options}.")
    names = {id(p): n for n, p in parameters.items()}
    trained = {_name(names, p) for group in optimizer.param_groups for p in group["params"]}
    saved_names = {n for g in groups for n in g["parameters"]}
    stated = {path.rpartition("/")[0] for path in tensors} | set(rest["scalars"])
    unknown, missing = sorted((saved_names | stated) - trained), sorted(trained - saved_names)
    if unknown or missing:
        raise ValueError(
            f"the optimizer's state must name the parameters that the optimizer trains, but {unknown or 'none'} are not trained "
            f"and {missing or 'none'} are not in the state."
        )
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        shape = parameters[name].shape
        if value.ndim and value.ndim == len(shape) and value.shape != shape:
            raise ValueError(f"state {key} of {name} must have shape {tuple(shape)}, but has {tuple(value.shape)}.")
