"""What every network of the zoo is measured by: how much may change, and whether what is offered holds."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from coppice.methods.apply import apply
from coppice.methods.graph.expr import index_map
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan, RemovePlan
from coppice.methods.record.architecture import rebuild, record, tensors_of
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.shrink import Shrinking, advance
from coppice.methods.surgery.tensors import get_tensor
from coppice.methods.surgery.verdicts import settle
from tests.methods.walking import draw_plan
from tests.zoo.object_graph import differences, object_graph

UNITS = ("channel", "head", "group")
TOLERANCE = 1e-4
"""Largest change of the function, relative to the largest output, that counts as none in float32."""
STEPS, SEEDS, WALK, MOST_REFUSALS = 3, 4, 15, 30
KINDS = ("refused", "broken", "inexact", "dead", "trace", "walk")


@dataclass(frozen=True)
class Fault:
    """One thing that does not hold: what was done to which element, and what came of it."""

    kind: str
    element: str
    what: str
    parameters: int = 0


@dataclass
class Tried:
    """What was tried on the elements of a network, and the faults that came out."""

    number: int = 0
    faults: list[Fault] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(f.kind == kind for f in self.faults)


def listing_leaves(network: Network) -> list[Fault]:
    """What is different after the elements of a network that has never run were listed."""
    before = object_graph(network.module)
    network.elements()
    return [Fault("trace", path, "") for path in differences(before, object_graph(network.module))]


@dataclass(frozen=True)
class Subject:
    """A network whose scales and statistics hide no mistake, its outputs, and copies of it."""

    network: Network

    @staticmethod
    def of(network: Network) -> Subject:
        generator = torch.Generator().manual_seed(0)
        module = copy.deepcopy(network.module)
        network = Network(module, network.factory, network.arguments, network.example_inputs)
        settle(network)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.is_floating_point() and parameter.numel() > 1 and float(parameter.std()) == 0.0:
                    parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.2)
            for name, buffer in module.named_buffers():
                if name.endswith("running_mean"):
                    buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
                elif name.endswith("running_var"):
                    buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        return Subject(network)

    def clone(self) -> Network:
        n = self.network
        copied = Network(copy.deepcopy(n.module), n.factory, n.arguments, n.example_inputs)
        copied._graph, copied._elements, copied.modes = n.graph(), n.elements(), n.modes
        copied.verdicts, copied.settled = dict(n.verdicts), n.settled
        return copied


def floats(output: Any) -> list[Tensor]:
    """Every floating-point or complex tensor of an output, whatever holds it; key-value caches are left out."""
    found: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found += [leaf] if leaf.is_floating_point() or leaf.is_complex() else []
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module) and "Cache" not in type(leaf).__name__:
            found += floats(list(vars(leaf).values()))
    return found


def run(network: Network, training: bool = False) -> list[Tensor]:
    network.module.train(training)
    with torch.no_grad():
        return [t.clone() for t in floats(network.module(*tree_map(lambda x: x, network.example_inputs)))]


def relative(after: list[Tensor], before: list[Tensor]) -> float:
    """The largest change, relative to the largest entry of its tensor; infinite where shapes differ."""
    if [t.shape for t in after] != [t.shape for t in before]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(after, before, strict=True) if b.numel()]
    return max((float((a - b).abs().max()) / max(float(b.abs().max()), 1e-12) for a, b in pairs), default=0.0)


def try_elements(subject: Subject) -> Tried:
    """Change every offered element alone, by the least that it can, in every direction."""
    tried = Tried()
    reference = run(subject.network)
    for element in settle(subject.network):
        if not element.permissible or element.level == "weight":
            continue
        for name, attempt in _attempts(subject, element, reference):
            tried.number += 1
            tried.faults += _faults(f"{element.name} {name}", attempt)
    return tried


def _faults(title: str, attempt: Callable[[], list[Fault]]) -> list[Fault]:
    torch.manual_seed(0)
    try:
        return attempt()
    except PlanError as error:
        return [Fault("refused", title, str(error)[:300])]
    except Exception as error:
        return [Fault("broken", title, f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:300])]


def _attempts(subject: Subject, element: Element, reference: list[Tensor]) -> Iterator[tuple[str, Callable[[], list[Fault]]]]:
    if element.level == "insertion":
        for kind in element.kinds:
            yield f"insert {kind}", lambda kind=kind: _changed(subject, InsertPlan(element.name, kind))
    elif element.level not in UNITS:
        yield "remove", lambda: _changed(subject, RemovePlan(element.name))
    else:
        if element.grow != "no":
            yield f"grow ({element.grow})", lambda: _grown(subject, element, reference)
        if element.shrink != "no" and element.size - element.quantum >= element.minimum:
            yield f"shrink ({element.shrink})", lambda: _shrunk(subject, element)


def _changed(subject: Subject, plan: InsertPlan | RemovePlan) -> list[Fault]:
    network = subject.clone()
    apply(network, plan)
    run(network)
    run(network, training=True)
    return []


def _grown(subject: Subject, element: Element, reference: list[Tensor]) -> list[Fault]:
    """Grow by a quantum; new entries are dead where they are so for each of some seeds (a unit may be silent by chance)."""
    title = f"{element.name} grow ({element.grow})"
    faults: list[Fault] = []
    dead: set[str] | None = None
    for seed in range(SEEDS):
        network = subject.clone()
        apply(network, GrowPlan(element.name, element.quantum, seed=seed))
        if seed == 0:
            faults = _claim(title, element.grow, relative(run(network), reference))
            run(network, training=True)
        found = set(_dead(subject, network, element))
        dead = found if dead is None else dead & found
        if not dead:
            return faults
    return [*faults, Fault("dead", title, f"new entries of {', '.join(sorted(dead or ()))} do not move")]


def _shrunk(subject: Subject, element: Element) -> list[Fault]:
    start = (element.size - element.quantum) // 2
    units = tuple(range(start, start + element.quantum))
    network = subject.clone()
    advance(network, Shrinking(element.name, units, 1))
    reference = run(network)
    apply(network, PrunePlan(element.name, units))
    faults = _claim(f"{element.name} shrink ({element.shrink})", element.shrink, relative(run(network), reference))
    run(network, training=True)
    return faults


def _claim(title: str, claimed: str, change: float) -> list[Fault]:
    if claimed in ("exact", "compensated") and not change < TOLERANCE:
        return [Fault("inexact", title, f"the function changes by {change:.1e}")]
    return []


def _dead(subject: Subject, network: Network, element: Element) -> list[str]:
    """Tensors whose new entries are what they were after three steps, though others of them have moved."""
    with _precise(network) as network:
        start = {n: p.detach().clone() for n, p in network.module.named_parameters()}
        _train(network)
    index = {m.atom: [*range(element.size * m.units), *([-1] * (element.quantum * m.units))] for m in element.moves}
    found = []
    for name, dims in subject.network.graph().tensors.items():
        tensor = get_tensor(network.module, name)
        if name not in start or not tensor.requires_grad:
            continue
        moved = (tensor.detach() - start[name]).abs()
        for dim, expr in enumerate(dims):
            where = torch.tensor(index_map(expr, index))
            new = where == -1
            if bool(new.any()) and len(where) == moved.shape[dim]:
                fresh, old = (moved.index_select(dim, flags.nonzero().flatten()) for flags in (new, ~new))
                if float(fresh.max()) == 0.0 and old.numel() and float(old.max()) > 0.0:
                    found.append(f"{name}:{dim}")
    return found


def _train(network: Network) -> None:
    """A few steps of gradient descent towards random targets, so precise that a small step is not rounded away."""
    network.module.eval()
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(7)
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs = [t for t in floats(network.module(*network.example_inputs)) if t.requires_grad]
        targets = [torch.randn(t.shape, generator=generator) for t in outputs]
        loss = torch.stack([(t - target).abs().square().mean() for t, target in zip(outputs, targets, strict=True)]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.module.parameters(), 10.0)
        optimizer.step()


@contextmanager
def _precise(network: Network) -> Iterator[Network]:
    """A copy in float64 where the forward runs so, else as it is."""
    module = copy.deepcopy(network.module).double()
    exact = Network(module, network.factory, network.arguments, tree_map(_double, network.example_inputs))
    torch.set_default_dtype(torch.float64)
    try:
        try:
            run(exact)
        except RuntimeError:
            torch.set_default_dtype(torch.float32)
            exact = network
        yield exact
    finally:
        torch.set_default_dtype(torch.float32)


def _double(item: Any) -> Any:
    return item.double() if isinstance(item, Tensor) and item.is_floating_point() else item


def walk(network: Network, seed: int = 0) -> list[Fault]:
    """Fifteen random changes, then the network that its record builds: it must do the same, bit for bit."""
    rng, done, refused, last = random.Random(seed), 0, 0, ""
    try:
        while done < WALK and refused < MOST_REFUSALS:
            settle(network)
            plan = draw_plan(network, rng)
            last = f"{type(plan).__name__} of {plan.element}"
            try:
                apply(network, plan)
                done += 1
            except PlanError as error:
                refused, last = refused + 1, f"{last}: {error}"
        last = "rebuilding"
        again = rebuild(record(network), tensors_of(network), example_inputs=network.example_inputs, trust=["tests"])
        same = all(torch.equal(a, b) for a, b in zip(run(again), run(network), strict=True))
    except Exception as error:
        return [Fault("walk", last, f"change {done}: {type(error).__name__}: {str(error)[:250]}")]
    if not same:
        return [Fault("walk", "rebuilding", "the rebuilt network computes something else")]
    return [] if done == WALK else [Fault("walk", "refused", f"only {done} of {WALK} changes; the last refusal: {last}"[:300])]
