"""Depth by natural gradients: the promised score is that of the new layer once it is there."""

import pytest
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.apply import apply
from coppice.methods.growth.senn.depth import SennDepth
from coppice.methods.growth.senn.kfac import Settings, score_layers
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from tests.support.senn import problem

ELEMENT = "0.weight:0"


@pytest.mark.parametrize("conv", [False, True])
def test_depth_adds_what_the_new_layer_then_scores(conv):
    """The score of W2 once it is there, with all else as before."""
    linear = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    convolution = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ctx = problem(convolution, 2, 7, 7) if conv else problem(linear, 5)
    method = SennDepth(proposals=3, draws=0, damping=0.0, ridge=1e-9, num_batches=1, least=1e-8, threshold=1e-4)
    settings = Settings(1, 0, 0.0, 1e-9)
    element = ctx.network.element("after:1")
    measured = method.measure(ctx, [element], {"after:1": 1})
    event = apply(ctx.network, method.plan(ctx, element, [0], measured), certify=next(iter(ctx.batches(1)))[0])
    assert event.function_change == 0.0 and measured.advised == {"after:1": 1}
    name = next(n for n, _ in ctx.network.module.named_modules() if n.endswith(".last"))
    eta = score_layers(ctx, [name], settings)[name].eta
    assert eta == pytest.approx(float(measured.scores["after:1"][0]), rel=1e-6)
    assert event.predicted == pytest.approx(eta / 2, rel=1e-6)


def test_depth_advises_the_best_place_alone():
    ctx = problem(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), 5)
    method = SennDepth(proposals=2, num_batches=1, threshold=1e-4, least=1e-8)
    places = [e for e in ctx.network.elements() if e.level == "insertion" and method.accepts(ctx, e) is None]
    assert [e.name for e in places] == ["after:1", "after:3"]
    measurement = method.measure(ctx, places, {e.name: 1 for e in places})
    best = max(measurement.scores, key=lambda n: float(measurement.scores[n]))
    assert measurement.advised == {e.name: int(e.name == best) for e in places}
    assert "bare layer" in method.accepts(ctx, ctx.network.element("after:0"))


def test_depth_says_where_it_does_not_fit():
    ctx = problem(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), 5)
    result = adapt(ctx, Adaptation(SennDepth(proposals=1), All(), Amount(0, "advised"), Scope(elements=("2.weight:0",))))
    assert not result.events
    assert "acts on insertion" in SennDepth().accepts(ctx, ctx.network.element(ELEMENT))
