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
    return {k: v for k, v in group.items() if k != "params" and isinstance(v, (int, float, bool, str, tuple, list, type(None)))}


def _name(names: Mapping[int, str], parameter: Tensor) -> str:
    if id(parameter) not in names:
        raise ValueError(
            f"every tensor the optimizer trains must be a parameter of the network, but one of shape {tuple(parameter.shape)} is not."
        )
    return names[id(parameter)]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Put the state into a fresh optimizer of the same kind over the same network.

    Raises:
        ValueError: names, shapes or groups do not fit; the message names them.
    """
    parameters = dict(module.named_parameters())
    groups = rest["groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"the optimizer must have {len(groups)} parameter groups, but has {len(optimizer.param_groups)}.")
    unknown = sorted({n for g in groups for n in g["parameters"]} - set(parameters))
    if unknown:
        raise ValueError(f"the optimizer's state names parameters that the network does not have: {unknown}.")
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = [parameters[n] for n in saved["parameters"]]
        group.update({k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in saved["options"].items()})
    optimizer.state.clear()
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise ValueError(f"the optimizer's state names the parameter {name!r}, which the network does not have.")
        parameter = parameters[name]
        if value.ndim and value.ndim == parameter.ndim and value.shape != parameter.shape:
            raise ValueError(f"state {key} of {name} must have shape {tuple(parameter.shape)}, but has {tuple(value.shape)}.")
        # Step counters stay where the optimizer itself would put them: on the CPU.
        optimizer.state[parameter][key] = value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
    for name, entries in rest["scalars"].items():
        optimizer.state[parameters[name]].update(entries)
