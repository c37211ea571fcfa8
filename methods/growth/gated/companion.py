"""A trained number for each element opens the gates of its units, while the network's own weights are the gated ones."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.growth.gated.gates import Gate
from coppice.methods.growth.gated.state import GateState
from coppice.methods.measures.site import site_of, why_no_site
from coppice.methods.network import Network
from coppice.methods.surgery.changes import TensorChange
from coppice.methods.surgery.tensors import get_tensor


def why_no_gate(network: Network, element: Element, only: str) -> str | None:
    """Why an element has no gates; None when it has them, at its site."""
    if only and not fnmatch.fnmatchcase(element.name, only):
        return f"only elements named like {only} have gates"
    reason = element.reason or element.doubt
    if reason is not None:
        return reason
    if element.level != "channel" or element.grow != "exact":
        return "gates are on the outgoing weights of units that can be added without changing the function"
    return why_no_site(network, element)


class GateCompanion(Companion):
    """Gates on the consumer's columns of each unit, and gradient descent on the number that opens them.

    Between steps the network holds gate * raw weight. `after_backward` turns dL/d(gated) into dL/d(raw) and takes dL/d(value);
    `before_step` gives the optimizer the raw weights (so that momentum, weight decay and clipping see those), `after_step`
    takes value -= lr * dL/d(value) and closes the gates again. The number stays between nothing and all units open: what is to
    open beyond the last unit must be grown first.

    What others do to the network is kept: a changed gated weight becomes a changed raw one (weight / gate).

    Attributes:
        gate: the function.
        states: by element name.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.states: dict[str, GateState] = {}
        self._elements: tuple[Element, ...] | None = None
        self._proposed: dict[str, tuple[Tensor, set[str]]] = {}

    def begin(self, network: Network) -> None:
        """Close the gates of a network that is about to be trained, as `start` says.

        Raises:
            ValueError: neither data nor the size loss could ever move the number of some element.
        """
        self.sync(network, self.gate.start)
        for name, state in self.states.items():
            pull = self.gate.pull(state.value, state.limit)
            n = state.open(self.gate) - state.ranks.double()
            moved = bool((self.gate.ramp_slope(n) != 0).any()) and self.gate.slope(state.value, state.limit) != 0
            if pull == 0 and (self.gate.detach or not moved):
                raise ValueError(
                    f"something must move the size of {name}, but it starts with {state.open(self.gate):g} units open, where "
                    "the slope of the gates and that of the size loss are 0: choose another start, target or strength, or "
                    "(size_weight) a spread above 1."
                )
            state.apply_gates(self.gate, get_tensor(network.module, state.consumer))

    def sync(self, network: Network, fraction: float = 1.0) -> None:
        """Follow the elements that there are; the network is not touched. New ones start with this fraction of units open.

        Raises:
            RuntimeError: an element has changed its size without the companion being told.
        """
        elements = network.elements()
        if elements is self._elements:
            return
        states = {}
        for element in elements:
            if why_no_gate(network, element, self.gate.only) is not None:
                continue
            site = site_of(network, element)
            state = self.states.get(element.name)
            if state is None:
                state = GateState.fresh(site, self.gate, fraction)
            elif not state.belongs_to(site):
                state = state.moved_to(site)
            if len(state.ranks) != site.size:
                raise RuntimeError(
                    f"{element.name} has {site.size} units, but its gates know {len(state.ranks)}; pass the companion to apply() "
                    "as a follower."
                )
            states[element.name] = state
        self.states, self._elements = states, elements

    def propose(self, element: str, columns: Tensor) -> None:
        """Raw outgoing weights, [new columns, out, ...], of units that this companion's own method is about to add."""
        self._proposed[element] = (columns, {"units", "columns"})

    def after_backward(self, network: Network) -> None:
        """See `Companion.after_backward`."""
        self._proposed.clear()
        self.sync(network)
        for state in self.states.values():
            weight = get_tensor(network.module, state.consumer)
            state.refresh(self.gate, weight)
            data = 0.0 if weight.grad is None else state.differentiate(self.gate, weight.grad)
            data *= 0.0 if self.gate.detach else self.gate.slope(state.value, state.limit)
            state.gradient = data + self.gate.pull(state.value, state.limit)

    def before_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """See `Companion.before_step`."""
        for state in self.states.values():
            state.remove_gates(get_tensor(network.module, state.consumer))

    def after_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """See `Companion.after_step`."""
        lr = self.gate.lr or optimizer.param_groups[0]["lr"]
        for state in self.states.values():
            most = self.gate.value_of(float(len(state.ranks)), state.limit)
            least = self.gate.value_of(0.0, state.limit)
            state.value = min(max(state.value - lr * state.gradient, least), most)
            state.apply_gates(self.gate, get_tensor(network.module, state.consumer))

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """See `Follower.resized`."""
        for element, state in self.states.items():
            for c in changes:
                if name == state.producer and c.dim == 0:
                    own = self._own(element, "units", sum(i < 0 for i in c.index) * state.taps)
                    state.follow_units(self.gate, c.index, own is not None)
                if name == state.consumer and c.dim == 1:
                    state.follow_columns(c.index, self._own(element, "columns", sum(i < 0 for i in c.index)))
                elif name == state.consumer:
                    state.follow_others(c.dim, c.index)

    def _own(self, element: str, part: str, columns: int) -> Tensor | None:
        """The proposed columns, where this change is what was proposed; each part of it happens once."""
        proposed, waiting = self._proposed.get(element, (None, set()))
        if proposed is None or part not in waiting or len(proposed) != columns:
            return None
        waiting.discard(part)
        return proposed

    def tensors(self) -> dict[str, Tensor]:
        """The state of all elements, by `element|producer|consumer|name`."""
        return {
            f"{element}|{state.producer}|{state.consumer}|{name}": tensor
            for element, state in self.states.items()
            for name, tensor in state.tensors().items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load`."""
        grouped: dict[tuple[str, str, str], dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            element, producer, consumer, name = key.split("|")
            grouped.setdefault((element, producer, consumer), {})[name] = tensor
        self.states = {e: GateState.of(p, c, held) for (e, p, c), held in grouped.items()}
        self._elements = None
        self._proposed.clear()

    def restore(self, snapshot: Any) -> None:
        """See `Follower.restore`; what was proposed for the rolled-back change is forgotten."""
        self.load(snapshot)

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Elements are looked at again with the next step."""

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Elements are looked at again with the next step."""
