"""Optimizers change with the network: their state follows its parameters, their groups stay complete."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.surgery.averages import EmaFollower
from coppice.methods.surgery.changes import Follower, TensorChange
from coppice.methods.surgery.groups import join, leave, nearest, nested
from coppice.methods.surgery.state_attributes import check_attributes, holding_tensors
from coppice.methods.surgery.state_entries import leaves, replaced
from coppice.methods.surgery.state_view import StateView

__all__ = ["EmaFollower", "OptimizerFollower", "share_out"]


class OptimizerFollower(Follower):
    """Resizes the state of an optimizer and keeps its parameter groups complete.

    What each entry of the state is to its parameter is told by its shape: of the parameter's own shape (also unfolded, or a
    stack of such), a factor over some of its dimensions, or a square matrix over one of them; in lists as well. New entries are
    zero (momentum), the mean of the kept ones along the resized dimension (whatever is nowhere negative, second moments above
    all; on the diagonal of matrices), or what the weights got (copies of weights). Connections that were masked start likewise.
    The history of L-BFGS starts anew.

    An optimizer with a method `coppice_resized(parameter, changes)` resizes its state itself; `register_state_rule` says it for
    one entry. A state that cannot be understood is refused before anything is touched.

    Several optimizers over one network have a follower each; a new parameter goes to one of them (`share_out`). Parameters that
    are not the network's are left alone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        self.optimizer = optimizer
        self.module = module
        self._views: list[StateView] = []
        self._mirrors: dict[tuple[int, str], nn.Module] = {}
        self._notes: list[str] = []

    def prepare(self, changing: Mapping[str, Sequence[int]]) -> None:
        """Look at the state, and refuse what cannot follow."""
        self._clear()
        views = self._look()
        for view in views:
            if not hasattr(view.optimizer, "coppice_resized"):
                view.check(changing)
                check_attributes(view.optimizer, self.module, changing)
        self._views = views
        for i, view in enumerate(views):
            if not hasattr(view.optimizer, "coppice_resized"):
                self._mirrors |= {(i, key): self._mirror(view, key) for key in view.copies}

    def _look(self) -> list[StateView]:
        """The states that follow by parameter; one that a wrapper shares with what it wraps counts once."""
        by_state = {id(o.state): o for o in reversed(nested(self.optimizer)) if not _starts_anew(o)}
        return [StateView(o, self.module) for o in by_state.values()]

    def _mirror(self, view: StateView, key: str) -> nn.Module:
        """The network with the optimizer's copies for weights, in their precision."""
        mirror = copy.deepcopy(self.module)
        named = dict(mirror.named_parameters())
        values = {n: value for n, p in self.module.named_parameters() if (value := view.copy_of(p, key)) is not None}
        dtype = next(iter(values.values())).dtype
        with torch.no_grad():
            for name, parameter in named.items():
                value = values.get(name, parameter)
                parameter.grad = None
                kept = dtype if parameter.is_floating_point() else parameter.dtype
                parameter.data = value.detach().to(parameter.device, kept, copy=True)
        return mirror

    def mirrors(self) -> Sequence[nn.Module]:
        """The network, with copies of its weights that the optimizer keeps in their place."""
        return list(self._mirrors.values())

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """Make the state follow."""
        for view in self._views or self._look():
            if hasattr(view.optimizer, "coppice_resized"):
                view.optimizer.coppice_resized(tensor, changes)
            else:
                view.follow(tensor, changes)

    def masked(self, name: str, tensor: Tensor, before: Tensor, after: Tensor) -> None:
        """New connections start without momentum; their second moments are the mean of those that are kept.

        State that is not of the tensor's shape stays as it is.
        """
        for view in self._views or self._look():
            if not hasattr(view.optimizer, "coppice_resized"):
                view.masked(tensor, before, after)

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Train it in the group of its nearest relative, in the module's order of parameters; see `share_out`."""
        found = nearest(self.optimizer, self.module, name, parameter)
        if found is not None:
            for optimizer in nested(self.optimizer):
                join(optimizer, found.group, self.module, name, parameter)
            beside = f"in the group of {found.relative}" if found.relative else "in its first group"
            self._notes.append(f"{name} is trained by {type(self.optimizer).__name__}, {beside}")

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Forget it and its state."""
        for optimizer in nested(self.optimizer):
            optimizer.state.pop(parameter, None)
            leave(optimizer, parameter)

    def finish(self) -> Sequence[str]:
        """Copies of weights take over what the weights got; a history that is not by parameter starts anew."""
        for (i, key), mirror in self._mirrors.items():
            changed = dict(mirror.named_parameters())
            for name, parameter in self.module.named_parameters():
                old = self._views[i].copy_of(parameter, key)
                if old is not None:
                    self._views[i].give_copy(parameter, key, changed[name].detach().to(old.device, old.dtype))
        notes = self._notes
        for optimizer in nested(self.optimizer):
            if _starts_anew(optimizer):
                _start_anew(optimizer)
                notes.append(f"the history of {type(optimizer).__name__} starts anew, since it is flattened over all parameters")
        self._clear()
        return notes

    def _clear(self) -> None:
        self._views, self._mirrors, self._notes = [], {}, []

    def snapshot(self) -> Any:
        """Copies of the state, since `accept` may train on before it decides."""
        saved = []
        for optimizer in nested(self.optimizer):
            kept = {id(p): p for g in optimizer.param_groups for p in g["params"]} | {id(p): p for p in self.module.parameters()}
            state = {p: copied(s, kept) for p, s in optimizer.state.items()}
            groups = [(g, g["params"], list(g["params"]), list(g.get("param_names", ()))) for g in optimizer.param_groups]
            saved.append((optimizer, state, groups, {k: copied(v, kept) for k, v in holding_tensors(optimizer).items()}))
        return saved

    def restore(self, snapshot: Any) -> None:
        """Put state and groups back."""
        self._clear()
        for optimizer, state, groups, attributes in snapshot:
            optimizer.state.clear()
            optimizer.state.update(state)
            for group, held, parameters, names in groups:
                held[:] = parameters
                group["params"] = held
                if "param_names" in group:
                    group["param_names"][:] = names
            vars(optimizer).update(attributes)
            if _starts_anew(optimizer):
                optimizer._numel_cache = None


def share_out(followers: Sequence[Follower], parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
    """Give each new parameter to one of the optimizers that follow, and tell all other followers.

    It is the optimizer with the nearest relative: of the same number of dimensions, then the longest common path in the module
    tree, then the same kind of module, then the same name in it. An optimizer that trains matrices only gets no other parameter.

    Raises:
        RuntimeError: no optimizer that follows can train it.
    """
    optimizers = [f for f in followers if isinstance(f, OptimizerFollower)]
    for name, parameter in parameters:
        found = [(nearest(f.optimizer, f.module, name, parameter), f) for f in optimizers]
        held = any(any(p is parameter for p in g["params"]) for f in optimizers for g in f.optimizer.param_groups)
        able = [(place.nearness, -i, f) for i, (place, f) in enumerate(found) if place is not None]
        if optimizers and not held and not able:
            kinds = sorted(type(f.optimizer).__name__ for f in optimizers)
            raise RuntimeError(
                f"the new parameter {name} of {parameter.ndim} dimensions must be trained by an optimizer that follows, but "
                f"{kinds} train matrices only; pass an OptimizerFollower of the optimizer of the other parameters too."
            )
        if able and not held:
            max(able, key=lambda a: a[:2])[2].added(name, parameter)
        for follower in followers:
            if not isinstance(follower, OptimizerFollower):
                follower.added(name, parameter)


def copied(value: Any, kept: Mapping[int, Any]) -> Any:
    """A deep copy in which the parameters stay the same objects."""
    memo = dict(kept)
    tensors = {path: v if id(v) in kept else v.detach().clone() for path, v in leaves(value) if isinstance(v, Tensor)}
    rest = {path: copy.deepcopy(v, memo) for path, v in leaves(value) if path not in tensors}
    return replaced(value, tensors | rest)


def _starts_anew(optimizer: object) -> bool:
    return isinstance(optimizer, torch.optim.LBFGS)


def _start_anew(optimizer: Any) -> None:
    optimizer.state.clear()
    optimizer._numel_cache = None
