"""What Coppice can do to a network of yours, tried: subclass the suite, name the factory and give it inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from coppice.methods.apply import apply, outputs
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, PrunePlan
from coppice.methods.probe import probe
from coppice.methods.record.architecture import build, rebuild, record, tensors_of
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import everything, same

TOLERANCE = 1e-5
"""Largest change of any output, relative to the largest output, that counts as rounding (float32)."""


class NetworkContract:
    """Every element does what is claimed of it; the changed network trains, and comes back bit by bit.

    Attributes:
        factory: of the network, as in a campaign file: `package.module:attribute`.
        arguments: of the factory, JSON-able.
        least: how many elements must at least be permissible.
    """

    factory: str
    arguments: Mapping[str, Any] = {}
    least: int = 1

    def inputs(self) -> tuple[Any, ...]:
        """Example inputs of the network, positional, at least two samples: override this."""
        raise NotImplementedError(f"{type(self).__name__} must have a method `inputs` that returns a tuple of example inputs.")

    @pytest.fixture
    def network(self) -> Network:
        """The network, new for each test."""
        torch.manual_seed(0)
        return Network(build(self.factory, dict(self.arguments)), self.factory, dict(self.arguments), self.inputs())

    def changes(self, network: Network, kind: str) -> Iterator[tuple[Element, GrowPlan | PrunePlan]]:
        """Each smallest change of one element that may be made without a doubt; `kind` is `grow` or `shrink`."""
        for element in network.elements():
            if not element.permissible or element.doubt or element.level not in ("channel", "head", "group"):
                continue
            if kind == "grow" and element.grow != "no":
                yield element, GrowPlan(element.name, element.quantum)
            if kind == "shrink" and element.shrink != "no" and element.size - element.quantum >= element.minimum:
                yield element, PrunePlan(element.name, tuple(range(element.quantum)))

    def test_listing_the_elements_touches_nothing(self, network: Network) -> None:
        module = network.module
        before, modes = everything(module), [m.training for m in module.modules()]
        elements = network.elements()
        assert sum(e.permissible for e in elements) >= self.least, [f"{e.name}: {e.reason}" for e in elements]
        assert all(e.permissible or e.reason for e in elements)
        assert same(before, everything(module)) and modes == [m.training for m in module.modules()]

    def test_the_probe_agrees_with_every_claim(self, network: Network) -> None:
        assert [e.name for e in probe(network) if e.verified is False] == []

    def test_every_element_grows_as_claimed(self, network: Network) -> None:
        for element, plan in self.changes(network, "grow"):
            grown = copy.deepcopy(network)
            event = apply(grown, plan, certify=grown.example_inputs)
            assert event.parameters_after > event.parameters_before, element.name
            if element.grow != "inexact":
                assert event.function_change is not None and event.function_scale is not None
                assert event.function_change <= TOLERANCE * event.function_scale, element.name

    def test_every_element_shrinks_and_the_network_runs(self, network: Network) -> None:
        shapes = [t.shape for t in outputs(network.module, network.example_inputs)]
        for element, plan in self.changes(network, "shrink"):
            shrunk = copy.deepcopy(network)
            event = apply(shrunk, plan)
            assert event.parameters_after < event.parameters_before, element.name
            after = outputs(shrunk.module, shrunk.example_inputs)
            assert [t.shape for t in after] == shapes and all(bool(t.isfinite().all()) for t in after), element.name

    def test_the_optimizer_follows_and_trains_the_new_units(self, network: Network) -> None:
        module = network.module
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        self.train(network, optimizer)
        for _, plan in list(self.changes(network, "grow"))[:3]:
            apply(network, plan, [OptimizerFollower(optimizer, module)])
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert {id(p) for p in module.parameters()} <= trained
        before = everything(module)
        self.train(network, optimizer)
        moved = [n for n, p in module.named_parameters() if not torch.equal(before[n], p)]
        assert moved and all(bool(p.isfinite().all()) for p in module.parameters())

    def train(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """Two steps on a loss that takes all outputs."""
        for _ in range(2):
            optimizer.zero_grad()
            leaves = torch.utils._pytree.tree_leaves(network.module(*network.example_inputs))
            losses = [t.square().mean() for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
            torch.stack(losses).sum().backward()
            optimizer.step()

    def test_a_changed_network_comes_back_bit_by_bit(self, network: Network) -> None:
        for _, plan in list(self.changes(network, "grow"))[:3]:
            apply(network, plan)
        saved = json.loads(json.dumps(record(network)))
        again = rebuild(saved, tensors_of(network), example_inputs=network.example_inputs, trust=[network.factory])
        assert same(everything(network.module), everything(again.module))
        pairs = zip(outputs(network.module, network.example_inputs), outputs(again.module, again.example_inputs), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert [e.name for e in again.elements()] == [e.name for e in network.elements()]
