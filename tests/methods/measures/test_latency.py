"""Measured latency: of the right network, by the right number of units; nothing is touched. Times are those of a test clock."""

import copy
import itertools

import pytest
import torch
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.measures.latency import latency_per_unit
from coppice.methods.selection import BudgetOptimal
from coppice.testing.examples import context, everything, mixed, same


class Timed(nn.Module):
    """Advances a clock by what its layers would take, instead of taking it."""

    def __init__(self, widths: tuple[int, ...] = (3, 8, 6, 2)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        Clock.now += sum(layer.out_features * cost for layer, cost in zip(self.layers, (5.0, 1.0, 0.0), strict=True))
        return self.layers[-1](x)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return Clock.now


@pytest.fixture
def ctx():
    torch.manual_seed(0)
    return context(Timed(), torch.randn(4, 3), torch.randint(2, (4,)))


def elements(ctx):
    return [e for e in ctx.network.elements() if e.permissible and e.level == "channel"]


@pytest.mark.parametrize("kind", ["grow", "prune"])
def test_is_what_a_unit_costs_and_touches_nothing(ctx, kind):
    before, rng = everything(ctx.network.module), torch.get_rng_state()
    found = latency_per_unit(ctx.network, elements(ctx), kind, repeats=3, clock=Clock())
    assert found == {"layers.0.weight:0": pytest.approx(5.0), "layers.1.weight:0": pytest.approx(1.0)}
    assert same(before, everything(ctx.network.module)) and torch.equal(rng, torch.get_rng_state())
    assert ctx.network.module.training and not ctx.network.lineage


def test_single_slow_forwards_do_not_matter(ctx):
    calls = []

    def clock() -> float:
        calls.append(1)
        return Clock.now + (1e6 if len(calls) in (2, 4, 6, 20) else 0.0)

    found = latency_per_unit(ctx.network, elements(ctx)[:1], "grow", repeats=9, clock=clock)
    assert found["layers.0.weight:0"] == pytest.approx(5.0)


def test_nothing_is_free_because_of_noise(ctx):
    """Where the larger network seems to be faster, a unit costs a tenth of its share of FLOPs."""
    falling = iter(range(10**6, 0, -1))
    times = [0.0]

    def clock() -> float:
        times[0] += next(falling)
        return times[0]

    found = latency_per_unit(ctx.network, elements(ctx), "grow", repeats=4, clock=clock)
    total = 2 * (3 * 8 + 8 * 6 + 6 * 2)
    shares = [found[name] * total / (0.1 * 1e6) for name in ("layers.0.weight:0", "layers.1.weight:0")]
    assert shares == pytest.approx([2 * (3 + 6), 2 * (8 + 2)], rel=1e-3)


def test_what_cannot_shrink_has_no_time_of_its_own():
    one = context(Timed((3, 1, 6, 2)), torch.randn(4, 3), torch.randint(2, (4,)))
    found = latency_per_unit(one.network, elements(one)[:1], "prune", 2, Clock())
    assert found == {"layers.0.weight:0": pytest.approx(0.1 * (5.0 + 1.0 * 6) * 18 / 42)}


def test_blocks_are_measured_by_taking_them_out_and_weights_not_at_all():
    ctx = mixed()
    blocks = [e for e in ctx.network.elements() if e.level == "block"]
    found = latency_per_unit(ctx.network, blocks, "prune", repeats=2)
    assert found and all(t >= 0 for t in found.values())
    weight = next(e for e in ctx.network.elements() if e.level == "weight")
    with pytest.raises(ValueError, match=r"but stem\.weight is weight"):
        latency_per_unit(ctx.network, [weight], "prune")


def test_an_adaptation_measures_only_when_its_selection_asks(ctx, monkeypatch):
    """What is dear in time is left alone although it costs the fewest FLOPs."""
    asked = []

    def told(network, elements, kind):
        asked.append((kind, [e.name for e in elements]))
        return {e.name: {"layers.0.weight:0": 5.0, "layers.1.weight:0": 0.25}[e.name] for e in elements}

    monkeypatch.setattr("coppice.methods.adaptation.candidates.latency_per_unit", told)
    grown = []
    for cost in ("latency", "flops"):
        trial = copy.deepcopy(ctx.network)
        again = context(trial.module, *next(iter(ctx.batches(1))))
        result = adapt(again, Adaptation(build("grow", "random", {}), BudgetOptimal(cost), 0.1))
        grown.append([e.element for e in result.events])
    assert grown == [["layers.1.weight:0"], ["layers.0.weight:0"]]
    assert asked == [("grow", ["layers.0.weight:0", "layers.1.weight:0"])]
