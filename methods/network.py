"""A network together with what is needed to change it and to write down what it has become."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph.connectivity import settle
from coppice.methods.graph.elements import elements as find_elements
from coppice.methods.graph.trace import trace
from coppice.methods.graph.values import Element, Graph


@dataclass(frozen=True)
class Run:
    """How a forward runs.

    Attributes:
        meta: without data; else only with it.
        shapes: of the tensors that it returns.
    """

    meta: bool
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """What running has shown of an element of which the algebra alone is not certain.

    Attributes:
        follow: the attributes (`module|name`) that follow its size.
        reason: why it may not change; None where it may.
        inexact: whether the function changes with it, whatever the algebra says.
    """

    follow: tuple[str, ...]
    reason: str | None = None
    inexact: bool = False

    def settled(self, element: Element) -> Element:
        """The element without doubt."""
        edits = tuple(replace(a, certain=True) for a in element.attributes if f"{a.module}|{a.name}" in self.follow)
        if self.reason is not None:
            return replace(element, attributes=edits, grow="no", shrink="no", reason=element.reason or self.reason)
        grow = "inexact" if self.inexact and element.grow != "no" else element.grow
        return replace(element, attributes=edits, grow=grow)


@dataclass
class Network:
    """A live module and its record.

    Attributes:
        module: the user's own module; changed in place, never replaced.
        factory: `package.module:attribute` that builds the unchanged module.
        arguments: JSON-able keyword arguments of the factory.
        example_inputs: what the forward takes; used for tracing and counting only.
        edits: ordered, JSON-able record of inserted and removed modules (see `coppice.methods.record.architecture`).
        attributes: `module|name` -> value, for every Python attribute that a change has set.
        masks: tensor name -> bool mask (True keeps).
        lineage: JSON-able events that made the network what it is, oldest first.
        growth_changes: element name -> how much growing it changes the outputs, relatively, as far as that was measured.
        verdicts: element -> what running has shown of it, for elements that were in doubt (see `surgery.verdicts`).
        settled: whether all elements, as the module is now, have run.
        modes: how the forward runs on the example inputs, in the modes (training or not) in which it does; None before anybody
            asked.
    """

    module: nn.Module
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    example_inputs: tuple[Any, ...] = ()
    edits: list[dict[str, Any]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    growth_changes: dict[str, float] = field(default_factory=dict, repr=False)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    modes: dict[bool, Run] | None = field(default=None, repr=False)
    settled: bool = field(default=False, repr=False)
    _graph: Graph | None = field(default=None, repr=False)
    _elements: tuple[Element, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Modules that know their connections and masks say the same from the start."""
        self.masks = settle(self.module, self.masks)

    def graph(self) -> Graph:
        """The traced graph of the module as it is now.

        Raises:
            ValueError: there are no example inputs, but the forward takes some.
        """
        if self._graph is None:
            self._require_inputs()
            self._graph = trace(self.module, self.example_inputs)
        return self._graph

    def elements(self) -> tuple[Element, ...]:
        """Every element of the module as it is now; errors as those of `graph`."""
        if self._elements is None:
            found = find_elements(self.module, self.example_inputs, graph=self.graph())
            self._elements = tuple(self.verdicts[e.name].settled(e) if e.name in self.verdicts else e for e in found)
        return self._elements

    def _require_inputs(self) -> None:
        needed = [p.name for p in inspect.signature(self.module.forward).parameters.values()
                  if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if needed and not self.example_inputs:
            raise ValueError(
                f"a network must have example inputs for its elements to be found, but has none; its forward takes "
                f"{', '.join(needed)}: give example_inputs to Network, rebuild or load_network."
            )

    def element(self, name: str) -> Element:
        """The element called `name`.

        Raises:
            KeyError: no such element; the message lists those that look alike.
        """
        for element in self.elements():
            if element.name == name:
                return element

        near = difflib.get_close_matches(name, [e.name for e in self.elements()], n=3, cutoff=0.3)
        raise KeyError(f"an element named {name!r} must exist in the network, but it does not; the nearest are {near}.")

    def changed(self) -> None:
        """Forget the graph and the elements after the module has changed, and the casts of its weights that autocast keeps."""
        torch.clear_autocast_cache()
        self._graph = None
        self._elements = None
        self.settled = False

    def judged(self) -> None:
        """All elements have run: take over the verdicts."""
        self._elements = None
        self.settled = True

    def num_parameters(self) -> int:
        """Parameters that are trained or frozen, tied ones once, masked ones not counted."""
        total = sum(p.numel() for p in self.module.parameters())
        return total - sum(int((~m).sum()) for m in self.masks.values())

    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device


LossFunction = Callable[[Any, Tensor], Tensor]
"""(output of the network, target) -> mean loss."""
