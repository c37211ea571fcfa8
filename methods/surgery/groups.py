"""Parameter groups of optimizers: where a new parameter belongs, joining and leaving in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Nearness = tuple[bool, int, bool, bool]


@dataclass(frozen=True)
class Place:
    """Where a new parameter would be trained.

    Attributes:
        group: the number of the group.
        relative: name of the nearest relative in it; empty where there is none.
        nearness: the same number of dimensions, length of the common path, the same kind of module, the same name in it.
    """

    group: int
    relative: str
    nearness: Nearness


def nested(optimizer: Any) -> list[Any]:
    """The optimizer, and those that it wraps."""
    found = [optimizer]
    for outer in found:
        values = vars(outer).values() if hasattr(outer, "__dict__") else ()
        found += [v for v in values if isinstance(v, torch.optim.Optimizer) and all(v is not o for o in found)]
    return found


def nearest(optimizer: Any, module: nn.Module, name: str, parameter: Tensor) -> Place | None:
    """The group of the nearest relative that the optimizer trains; None where it cannot train the parameter."""
    places = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    matrices = "muon" in type(optimizer).__name__.lower()
    if id(parameter) in places or (matrices and not _trains(optimizer, module, parameter.ndim)):
        return None
    kinds = {f"{n}.{leaf}".lstrip("."): type(m) for n, m in module.named_modules() for leaf in m._parameters}
    best = Place(0, "", (False, -1, False, False))
    for other, p in module.named_parameters():
        same_kind = kinds.get(name) is kinds.get(other)
        same_name = name.rsplit(".", maxsplit=1)[-1] == other.split(".")[-1]
        near = (p.ndim == parameter.ndim, _common_path(name, other), same_kind, same_name)
        if id(p) in places and near > best.nearness:
            best = Place(places[id(p)], other, near)
    return best


def _trains(optimizer: Any, module: nn.Module, ndim: int) -> bool:
    """Whether an optimizer for matrices takes parameters of so many dimensions: matrices, or such as it trains already."""
    known = {id(p) for p in module.parameters()}
    held = {p.ndim for g in optimizer.param_groups for p in g["params"] if id(p) in known}
    return ndim == 2 or ndim in held


def join(optimizer: Any, number: int, module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Put a parameter into a group, behind the one that precedes it in the module, so that orders stay alike; in place."""
    group = optimizer.param_groups[number]
    if any(p is parameter for p in group["params"]):
        return
    order = {id(p): i for i, p in enumerate(module.parameters())}
    mine = order.get(id(parameter), len(order))
    before = [(order[id(p)], i) for i, p in enumerate(group["params"]) if order.get(id(p), mine) < mine]
    at = max(before)[1] + 1 if before else 0
    group["params"].insert(at, parameter)
    if "param_names" in group:
        group["param_names"].insert(at, name)


def leave(optimizer: Any, parameter: nn.Parameter) -> None:
    """Take a parameter out of every group, in place: others may hold the same list."""
    for group in optimizer.param_groups:
        gone = [i for i, p in enumerate(group["params"]) if p is parameter]
        for i in reversed(gone):
            del group["params"][i]
            if "param_names" in group:
                del group["param_names"][i]


def names_of(optimizer: Any, module: nn.Module) -> Mapping[int, str]:
    """Names of what an optimizer trains, by id: the network's names, and `outside/<n>` for what is not the network's."""
    names = {id(p): n for n, p in module.named_parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    outside = [p for p in held if id(p) not in names]
    return names | {id(p): f"outside/{i}" for i, p in enumerate(outside)}


def _common_path(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a.split("."), b.split("."), strict=False):
        if x != y:
            break
        count += 1
    return count
