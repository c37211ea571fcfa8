"""Listing elements leaves a network, and what it reaches outside, as it was."""

import functools
import itertools
import random
from collections import UserDict, deque
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.graph import elements
from tests.methods.graph.fingerprint import fingerprint
from tests.support.zoo import ZOO
from tests.support.zoo_more import MORE

GRIDS: dict[int, Tensor] = {}
LATEST: Tensor | None = None
CALLS = 0


@functools.lru_cache
def ramp(n: int) -> Tensor:
    return torch.linspace(0, 1, n)


def remembering(n: int, known: dict[int, Tensor] = {}) -> Tensor:  # noqa: B006
    return known.setdefault(n, torch.linspace(0, 1, n))


def enclosing() -> Callable[[int], Tensor]:
    known: list[Tensor] = []
    last: Tensor | None = None

    def grid(n: int) -> Tensor:
        nonlocal last
        if not known:
            known.append(torch.linspace(0, 1, n))
        last = known[0]
        return last

    return grid


enclosed = enclosing()


class State:
    def __init__(self) -> None:
        self.grid: Tensor | None = None
        self.more: UserDict[str, Tensor] = UserDict()


class Slots:
    __slots__ = ("grid",)


class Net(nn.Module):
    shared: ClassVar[dict[int, Tensor]] = {}

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.a, self.b, self.o = way, nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(5)
        self.items: list[Tensor | None] = [None]
        self.table: dict[Any, Any] = {"inner": {"grids": []}}
        self.recent: deque[Tensor] = deque(maxlen=2)
        self.numbers: set[int] = set()
        self.state, self.slots = State(), Slots()
        self.keys = torch.zeros(2, 5, 8)
        self.steps, self.ready = 0, False
        self.counter = itertools.count()
        self.generator, self.random = torch.Generator(), random.Random(0)
        self.cached = functools.lru_cache(torch.ones)

    @functools.cached_property
    def once(self) -> Tensor:
        return torch.linspace(0, 1, 5)

    @functools.lru_cache  # noqa: B019
    def by_method(self, n: int) -> Tensor:
        return torch.linspace(0, 1, n)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x))
        y = y + getattr(self, self.way)(y)[..., None]
        return self.o(torch.relu(self.b(y)))

    def attribute(self, y: Tensor) -> Tensor:
        self.made = torch.linspace(0, 1, 5)
        return self.made

    def containers(self, y: Tensor) -> Tensor:
        self.items[0] = torch.linspace(0, 1, 5)
        self.table["inner"]["grids"].append(self.items[0])
        self.recent.append(self.items[0])
        self.numbers.add(3)
        return self.items[0]

    def plain_objects(self, y: Tensor) -> Tensor:
        self.state.grid = self.slots.grid = self.state.more["x"] = torch.linspace(0, 1, 5)
        return self.state.grid

    def key_values(self, y: Tensor) -> Tensor:
        self.keys[:, :5] = y
        return self.keys.mean(-1)

    def class_table(self, y: Tensor) -> Tensor:
        Net.last = torch.linspace(0, 1, 5)  # type: ignore[attr-defined]
        return Net.shared.setdefault(5, torch.linspace(0, 1, 5))

    def global_table(self, y: Tensor) -> Tensor:
        global LATEST, CALLS  # noqa: PLW0603
        CALLS += 1
        LATEST = torch.linspace(0, 1, 5)
        return GRIDS.setdefault(5, LATEST)

    def function_cache(self, y: Tensor) -> Tensor:
        return ramp(5) + self.by_method(5) + self.cached(5)

    def default_argument(self, y: Tensor) -> Tensor:
        return remembering(5)

    def closure(self, y: Tensor) -> Tensor:
        return enclosed(5)

    def property_kept(self, y: Tensor) -> Tensor:
        return self.once

    def hooks(self, y: Tensor) -> Tensor:
        if not self.ready:
            self.b.register_forward_hook(lambda module, args, output: self.items.append(output))
            self.ready = True
        return torch.linspace(0, 1, 5)

    def counters(self, y: Tensor) -> Tensor:
        self.steps += 1
        step = next(self.counter) + self.random.random() + random.random()
        return torch.rand(5) + torch.rand(5, generator=self.generator) + step

    def flags(self, y: Tensor) -> Tensor:
        self.b.weight.requires_grad_(False)
        self.o.extra = nn.Linear(2, 2)
        self.o.weight.note = "seen"  # type: ignore[attr-defined]
        return torch.linspace(0, 1, 5)

    def data_dependent(self, y: Tensor) -> Tensor:
        self.keys += 1
        self.keys.mul_(2) if float(y.detach().sum()) > 0 else self.keys.add_(3)
        return self.keys.mean(-1)


def around(module: Net) -> list[Any]:
    """What is kept outside of the module, or in C."""
    tensors = [torch.get_rng_state().tolist(), module.generator.get_state().tolist()]
    others = [random.getstate(), module.random.getstate(), repr(module.counter)]
    return [id(LATEST), CALLS, {k: id(v) for k, v in vars(Net).items()}, *tensors, *others]


WAYS = [name for name, value in vars(Net).items() if isinstance(value, type(around)) and name not in ("__init__", "forward")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("run_before", [False, True])
@torch.no_grad()
def test_what_a_forward_keeps(way: str, run_before: bool) -> None:
    module, x = Net(way), torch.randn(2, 5, 6)
    if run_before:
        module(x)
    else:
        for cache in (ramp, Net.by_method):
            cache.cache_clear()  # type: ignore[attr-defined]
        GRIDS.clear()
        Net.shared.clear()
    before, others = fingerprint(module, GRIDS, remembering, enclosed), around(module)
    found = elements(module, (x,))
    assert fingerprint(module, GRIDS, remembering, enclosed) == before
    assert around(module) == others
    assert any(e.name == "b.weight:0" for e in found)
    assert not module(x).is_meta
    assert all(not t.is_meta for t in (ramp(5), module.by_method(5), module.cached(5)))


@pytest.mark.parametrize("name", sorted({**ZOO, **MORE}))
def test_every_network_is_as_before(name: str) -> None:
    factory, inputs = {**ZOO, **MORE}[name]
    module, example = factory(), inputs()
    before = fingerprint(module)
    elements(module, example)
    assert fingerprint(module) == before
