"""Measured seconds of one forward that a unit of an element costs: what FLOPs only suggest."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import torch

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.measures.cost import flops, flops_per_unit
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, PrunePlan, RemovePlan

REPEATS = 12
"""Forwards of each network; the first ones are slow, and do not count."""
MEASURED = ("channel", "head", "group", "layer", "block")
"""Levels of elements that can be measured."""
STEP = 0.5
"""Part of an element's units that is added or removed for the measurement: one unit alone drowns in the noise."""
FLOOR = 0.1
"""A unit costs at least this part of what its share of the network's FLOPs suggests: nothing is free because of noise."""


def latency_per_unit(
    network: Network,
    elements: Sequence[Element],
    kind: str,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds of one forward of the example inputs, in eval mode, that one unit of each element costs.

    Each element is resized in a copy of the network (a layer or block is taken out), and both are timed in turns. The
    difference of the fastest forwards (noise only ever adds), divided by the units, is what a unit costs. Not reproducible bit
    by bit.

    Args:
        network: stays as it is.
        elements: channels, heads, groups, layers or blocks.
        kind: `grow` times the network with more units, `prune` with fewer.
        repeats: forwards of each network.
        clock: seconds.

    Raises:
        ValueError: an element at another level: masks do not make a dense network faster, and what an insertion costs is not
            known before.
    """
    module, inputs = network.module, network.example_inputs
    total, per_unit = flops(module, inputs), flops_per_unit(module, inputs, network.graph(), elements)
    latencies = {}
    for element in elements:
        seconds, now = _of(network, element, kind, repeats, clock)
        latencies[element.name] = max(seconds, FLOOR * now * per_unit[element.name] / total if total else 0.0)
    return latencies


def _of(network: Network, element: Element, kind: str, repeats: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of one unit, and of the whole network."""
    other = copy.deepcopy(network)
    units = _change(other, element, kind)
    now, changed = _times([network, other], repeats, clock)
    return (changed - now) / units if units else 0.0, now


def _change(network: Network, element: Element, kind: str) -> int:
    """Resize the element in place; returns by how many units, below 0 where they were removed."""
    if element.level in ("layer", "block"):
        apply(network, RemovePlan(element.name))
        return -1
    if element.level not in MEASURED:
        raise ValueError(f"latency is measured for the levels {', '.join(MEASURED)}, but {element.name} is {element.level}.")
    quantum = element.quantum
    units = max(quantum, int(element.size * STEP) // quantum * quantum)
    if kind == "grow":
        apply(network, GrowPlan(element.name, units))
        return units
    units = min(units, (element.size - element.minimum) // quantum * quantum)
    if units:
        apply(network, PrunePlan(element.name, tuple(range(units))))
    return -units


def _times(networks: Sequence[Network], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Fastest forward of each network in seconds, taken in turns so that a slower moment of the machine meets all of them."""
    times_of: list[list[float]] = [[] for _ in networks]
    for _ in range(repeats):
        for network, times in zip(networks, times_of, strict=True):
            with frozen_modes(network.module), torch.no_grad():
                _wait(network)
                began = clock()
                network.module(*network.example_inputs)
                _wait(network)
                times.append(clock() - began)
    return [min(times) for times in times_of]


def _wait(network: Network) -> None:
    """Until the device has done what it was told."""
    if network.device().type == "cuda":
        torch.cuda.synchronize()
