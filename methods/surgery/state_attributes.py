"""Tensors that an optimizer keeps in attributes of its own, beside `state`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.state_entries import leaves
from coppice.methods.surgery.state_layout import FACTORED, FLAT, HISTORY, SAME, kinds_of

_OWN = ("state", "param_groups", "defaults")


def holding_tensors(optimizer: Any) -> dict[str, Any]:
    """The attributes that hold tensors other than the parameters themselves."""
    parameters = {id(p) for g in optimizer.param_groups for p in g["params"]}
    return {
        name: value
        for name, value in (vars(optimizer).items() if hasattr(optimizer, "__dict__") else ())
        if name not in _OWN and any(isinstance(v, Tensor) and id(v) not in parameters for _, v in leaves(value))
    }


def _like(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether the shape is a parameter's, or that of a matrix over one of its dimensions."""
    kinds = kinds_of(tensor.shape, parameter.shape)
    return tensor.numel() > 1 and any(k in (SAME, FLAT, FACTORED, HISTORY) or k.startswith("matrix") for k in kinds)


def check_attributes(optimizer: Any, module: nn.Module, changing: Mapping[str, Sequence[int]]) -> None:
    """Refuse tensors in attributes that are shaped like a parameter that will be resized.

    Raises:
        PlanError: there is one.
    """
    parameters = {id(p) for g in optimizer.param_groups for p in g["params"]}
    held = {n: p for n, p in module.named_parameters() if n in changing and id(p) in parameters}
    other = {f"state[{k!r}]"[:60]: v for k, v in optimizer.state.items() if not isinstance(k, Tensor)}
    for name, value in [*holding_tensors(optimizer).items(), *other.items()]:
        for tensor in (v for _, v in leaves(value) if isinstance(v, Tensor) and id(v) not in parameters):
            like = next((n for n, p in held.items() if _like(tensor, p)), None)
            if like is not None:
                kind = type(optimizer).__name__
                raise PlanError(
                    f"what an optimizer keeps for a parameter must follow it, but {kind} keeps a tensor of shape "
                    f"{tuple(tensor.shape)}, as {like} may need it, in its attribute {name!r}; keep it in "
                    f"optimizer.state[parameter], or give {kind} a method coppice_resized(parameter, changes)."
                )
