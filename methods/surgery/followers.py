"""What must change with a network: its optimizer's state and its averaged copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.surgery.changes import Follower, TensorChange, followed
from coppice.methods.surgery.tensors import owner

SECOND_MOMENTS = frozenset(
    ["exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "exp_inf", "sum", "step_size", "variance", "row_var", "col_var"]
)
"""State that an update is divided by: new entries get the mean of the kept ones, since zero would make their first steps
several times larger than the learning rate.
"""


class OptimizerFollower(Follower):
    """Resizes the state of any `torch.optim` optimizer and keeps its parameter groups complete.

    State tensors of the parameter's old shape follow its index maps: new entries are zero (momentum), or the mean of the kept
    ones along the resized dimension (second moments). State with size 1 in place of a dimension (factored second moments)
    follows in the others. Connections that were masked start likewise. A parameter with state of any other shape starts its
    state anew.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        self.optimizer = optimizer
        self.module = module

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """Make the state follow."""
        state = self.optimizer.state.get(tensor)
        if not state:
            return
        old_shape = list(tensor.shape)
        for change in changes:
            old_shape[change.dim] = change.old_size
        for key, value in list(state.items()):
            if not isinstance(value, Tensor) or value.ndim == 0:
                continue
            if value.ndim != tensor.ndim or any(s not in (1, old) for s, old in zip(value.shape, old_shape, strict=True)):
                del self.optimizer.state[tensor]
                return
            follow = _followed_by_mean if key in SECOND_MOMENTS else followed
            state[key] = reduce(follow, [c for c in changes if value.shape[c.dim] == c.old_size], value)

    def masked(self, name: str, tensor: Tensor, before: Tensor, after: Tensor) -> None:
        """New connections start without momentum; their second moments are the mean of those that are kept.

        State with size 1 in place of a dimension (factored second moments) stays as it is.
        """
        born, kept = after & ~before, after & before
        if not bool(born.any()):
            return
        for key, value in list(self.optimizer.state.get(tensor, {}).items()):
            if isinstance(value, Tensor) and value.shape == tensor.shape:
                mean = key in SECOND_MOMENTS and bool(kept.any())
                fill = value[kept].mean() if mean else torch.zeros((), dtype=value.dtype, device=value.device)
                self.optimizer.state[tensor][key] = torch.where(born, fill, value)

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Train it in the group of its nearest relative in the module tree, of the same number of dimensions if there is one."""
        groups = self.optimizer.param_groups
        places = {id(p): g for g in groups for p in g["params"]}
        if id(parameter) in places:
            return
        best, nearest = groups[0], (False, -1)
        for other, p in self.module.named_parameters():
            near = (p.ndim == parameter.ndim, _common_prefix(name, other))
            if id(p) in places and near > nearest:
                best, nearest = places[id(p)], near
        best["params"].append(parameter)

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Forget it and its state."""
        self.optimizer.state.pop(parameter, None)
        for group in self.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p is not parameter]

    def snapshot(self) -> Any:
        """Copies of the state, since `accept` may train on before it decides."""
        state = {p: {k: _copied(v) for k, v in s.items()} for p, s in self.optimizer.state.items()}
        return state, [list(g["params"]) for g in self.optimizer.param_groups]

    def restore(self, snapshot: Any) -> None:
        """Put state and groups back."""
        state, groups = snapshot
        self.optimizer.state.clear()
        self.optimizer.state.update(state)
        for group, parameters in zip(self.optimizer.param_groups, groups, strict=True):
            group["params"] = parameters


def _followed_by_mean(value: Tensor, change: TensorChange) -> Tensor:
    """As `followed`, but new entries are the mean of the kept ones along the resized dimension."""
    entries = followed(value, change)
    index = torch.tensor(change.index, device=value.device)
    new = (index < 0).nonzero().flatten()
    if not len(new):
        return entries
    kept = entries.index_select(change.dim, (index >= 0).nonzero().flatten())
    shape = list(entries.shape)
    shape[change.dim] = len(new)
    return entries.index_copy(change.dim, new, kept.mean(change.dim, keepdim=True).expand(shape))


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.copy(value)


def _common_prefix(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a.split("."), b.split("."), strict=False):
        if x != y:
            break
        count += 1
    return count


class EmaFollower(Follower):
    """Keeps an averaged copy of the module in shape: it is resized just as the module is, fills and compensations included."""

    def __init__(self, average: nn.Module, module: nn.Module) -> None:
        self.average = average
        self.module = module

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """Nothing is left to do: the average was resized as a mirror."""

    def mirror(self) -> nn.Module:
        """The averaged copy, to be resized as the network is."""
        return self.average

    def structure(self) -> None:
        """After an insertion or a removal: a fresh copy of the live module that keeps the averages of what both have."""
        averages = {n: t.detach() for n, t in [*self.average.named_parameters(), *self.average.named_buffers()]}
        self.average.__dict__.update(copy.deepcopy(self.module).__dict__)
        for name, tensor in [*self.average.named_parameters(), *self.average.named_buffers()]:
            held = averages.get(name)
            if held is not None and held.shape == tensor.shape:
                with torch.no_grad():
                    tensor.copy_(held)

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Take over the live module's structure."""
        if not _has(self.average, name):
            self.structure()

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Take over the live module's structure."""
        if _has(self.average, name):
            self.structure()

    def snapshot(self) -> Any:
        """A copy of the whole average."""
        return copy.deepcopy(self.average)

    def restore(self, snapshot: Any) -> None:
        """Put the copy back in place."""
        self.average.__dict__.update(copy.deepcopy(snapshot).__dict__)


def _has(module: nn.Module, name: str) -> bool:
    try:
        holder, leaf = owner(module, name)
    except AttributeError:
        return False
    return leaf in holder._parameters or leaf in holder._buffers


def check_followed(module: nn.Module, followers: Iterable[Follower]) -> None:
    """Every trainable parameter must be in exactly one group of each optimizer that follows, and nothing else may be.

    Raises:
        RuntimeError: some parameter would silently not be trained, or a dead one would be.
    """
    live = {id(p): n for n, p in module.named_parameters() if p.requires_grad}
    for follower in followers:
        if not isinstance(follower, OptimizerFollower):
            continue
        held = [id(p) for g in follower.optimizer.param_groups for p in g["params"] if p.requires_grad]
        missing = sorted(n for i, n in live.items() if i not in set(held))
        dead = len(set(held) - set(live))
        if missing or dead or len(held) != len(set(held)):
            raise RuntimeError(
                f"the optimizer must train exactly the network's parameters, but {missing or 'none'} are not trained and {dead} "
                "trained tensors are not in the network; pass an OptimizerFollower of every optimizer to apply()."
            )
