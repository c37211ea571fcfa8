"""The expansion score is the natural gradient's, candidates add at least what they are said to, and copies add nothing."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.first_order.gradients import sites_of
from coppice.methods.growth.senn.kfac import Settings, score_layers
from coppice.methods.growth.senn.method import Senn, additions
from coppice.methods.growth.senn.output_curvature import OutputCurvature, reachable
from coppice.methods.growth.senn.search import choose, draw, improve, moments
from coppice.methods.method import Context
from coppice.methods.plan import GrowPlan
from tests.support.senn import problem

EXACT = Settings(num_batches=1, draws=0, damping=0.0, ridge=1e-12)


def dense(ctx: Context, name: str) -> float:
    """g^T F^-1 g of one layer, F the mean over samples of J^T H J, all of it written out."""
    inputs, targets = next(iter(ctx.batches(1)))
    layer = [p for n, p in ctx.network.module.named_parameters() if n.startswith(f"{name}.")]
    fisher, gradient = torch.zeros(()), torch.zeros(())
    for x, t in zip(inputs, targets, strict=True):
        out = ctx.network.module(x.unsqueeze(0))
        rows = [torch.autograd.grad(o, layer, retain_graph=True) for o in out[0]]
        flat = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        h = 2 / out.numel() * torch.eye(out.numel(), dtype=torch.float64)
        g = 2 / out.numel() * (out.detach()[0] - t)
        fisher = fisher + flat.T @ h @ flat / len(inputs)
        gradient = gradient + flat.T @ g / len(inputs)
    return float(gradient @ torch.linalg.solve(fisher, gradient))


@pytest.mark.parametrize("name", ["0", "1"])
def test_eta_is_the_natural_gradients_where_k_fac_is_exact(name):
    """A linear network with squared error: what goes back does not depend on the sample."""
    ctx = problem(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3)), 4)
    eta = score_layers(ctx, [name], EXACT)[name].eta
    assert eta == pytest.approx(dense(ctx, name), rel=1e-8) and eta > 1e-3


def test_eta_of_a_convolution_is_the_natural_gradients_where_positions_do_not_mix():
    """Squared error at every position: sums over positions in A, the mean over them in S."""
    ctx = problem(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten()), 2, 4, 4, outputs=27)
    assert score_layers(ctx, ["0"], EXACT)["0"].eta == pytest.approx(dense(ctx, "0"), rel=1e-8)


def test_eta_is_twice_what_a_natural_gradient_step_takes_off_the_loss():
    ctx = problem(nn.Sequential(nn.Linear(4, 3)), 4)
    inputs, targets = next(iter(ctx.batches(1)))
    score = score_layers(ctx, ["0"], EXACT)["0"]
    layer = ctx.network.module[0]
    step = score.inverse @ score.regression
    with torch.no_grad():
        before = ctx.loss(layer(inputs), targets)
        layer.weight -= step[:, :-1]
        layer.bias -= step[:, -1]
        after = ctx.loss(layer(inputs), targets)
    assert float(before - after) == pytest.approx(score.eta / 2, rel=1e-9)


def test_random_draws_have_the_curvature_as_second_moment():
    """Softmax: diag(p) - p p^T."""
    output, target = torch.randn(2, 4, dtype=torch.float64), torch.tensor([1, 3])
    curvature = OutputCurvature(F.cross_entropy, torch.Generator().manual_seed(0))
    p = output.softmax(1)
    exact = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    columns, drawn = torch.zeros_like(exact), torch.zeros_like(exact)
    point = output.requires_grad_()
    for i in range(4):
        (g,) = torch.autograd.grad(2 * curvature.column(i)(point, target), point)
        columns += g.unsqueeze(2) * g.unsqueeze(1)
    for _ in range(1000):
        (g,) = torch.autograd.grad(2 * curvature.draw(point, target), point)
        drawn += g.unsqueeze(2) * g.unsqueeze(1) / 1000
    assert torch.allclose(columns, exact, atol=1e-12)
    assert (drawn - exact).abs().max() < 0.06


SITES = {
    "linear, tanh": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), (5,), "2"),
    "linear, relu": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), (5,), "2"),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 7, 7), "2"),
    "behind a flatten": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(),
                              nn.Linear(12, 3)), (2, 6, 6), "5"),
}  # fmt: skip
ELEMENT = "0.weight:0"


def grown_eta(ctx: Context, consumer: str, method: Senn, units: list[int], measured) -> float:
    apply(ctx.network, method.plan(ctx, ctx.network.element(ELEMENT), units, measured))
    return score_layers(ctx, [consumer], EXACT)[consumer].eta


@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy], ids=["squared error", "cross-entropy"])
@pytest.mark.parametrize("name", SITES)
def test_candidates_add_at_least_what_is_said(name, loss):
    """The score of the consumer before and after they were added, one and three of them."""
    factory, shape, consumer = SITES[name]
    method = Senn(draws=0, damping=0.0, ridge=1e-12, proposals=12, steps=2, num_batches=1)
    for units in ([0], [0, 1, 2]):
        ctx = problem(factory(), *shape, loss=loss)
        measured = method.measure(ctx, [ctx.network.element(ELEMENT)], {ELEMENT: 3})
        said = measured.scores[ELEMENT]
        before = score_layers(ctx, [consumer], EXACT)[consumer].eta
        added = grown_eta(ctx, consumer, method, units, measured) - before
        bound = float(said[units].sum())
        assert len(said) == 3 and bool((said.diff() <= 0).all()) and float(said[0]) > 0
        assert bound * (1 - 1e-6) <= added <= 100 * bound, "a bound, and one that says something"


@pytest.mark.parametrize("name", SITES)
def test_copies_of_existing_units_add_nothing(name):
    factory, shape, consumer = SITES[name]
    ctx = problem(factory(), *shape)
    producer = ctx.network.module[0]
    site = sites_of(ctx, [ctx.network.element(ELEMENT)])
    bias = () if producer.bias is None else (producer.bias.detach().unsqueeze(1),)
    copies = torch.cat([producer.weight.detach().flatten(1), *bias], 1)
    if name == "behind a flatten":
        norm = ctx.network.module[1]
        copies = copies * (norm.weight.detach() / (norm.running_var + norm.eps).sqrt()).unsqueeze(1)
        nn.init.zeros_(norm.bias)
    rows = torch.cat([copies, draw(ctx, site[ELEMENT], 5)])
    layers = score_layers(ctx, [consumer], EXACT)
    gains = moments(ctx, site, {ELEMENT: rows}, layers, 1)[ELEMENT].gains(layers[consumer])
    assert float(gains[: len(copies)].max()) <= 1e-9 * float(gains[len(copies) :].min())


def test_a_candidate_that_is_there_twice_is_taken_once():
    ctx = problem(SITES["linear, tanh"][0](), 5)
    site = sites_of(ctx, [ctx.network.element(ELEMENT)])
    layers = score_layers(ctx, ["2"], EXACT)
    rows = draw(ctx, site[ELEMENT], 3)
    candidates = moments(ctx, site, {ELEMENT: torch.cat([rows, rows])}, layers, 1)[ELEMENT]
    order, gains = choose(candidates, layers["2"], 6)
    assert sorted((order % 3)[:3].tolist()) == [0, 1, 2]
    assert float(gains[3]) <= 1e-9 * float(gains[2])


def test_ascent_improves_candidates_and_keeps_their_length():
    ctx = problem(SITES["linear, tanh"][0](), 5)
    site = sites_of(ctx, [ctx.network.element(ELEMENT)])
    layers = score_layers(ctx, ["2"], EXACT)
    rows = draw(ctx, site[ELEMENT], 20)
    better = improve(ctx, site, {ELEMENT: rows}, layers, 20)[ELEMENT]
    before, after = (moments(ctx, site, {ELEMENT: r}, layers, 1)[ELEMENT].gains(layers["2"]) for r in (rows, better))
    assert bool((after >= before * (1 - 1e-9)).all()) and float(after.mean()) > 2 * float(before.mean())
    assert torch.allclose(better.norm(dim=1), rows.norm(dim=1))


def test_its_units_take_more_off_the_loss_than_random_ones():
    """After one natural-gradient step of the consumer, on average over random units."""
    drops = []
    for proposals, steps, seed in [(50, 10, 0), *((1, 0, seed) for seed in range(8))]:
        ctx = problem(SITES["linear, relu"][0](), 5, outputs=3)
        ctx.generator.manual_seed(seed)
        method = Senn(draws=0, damping=0.0, ridge=1e-9, proposals=proposals, steps=steps, num_batches=1)
        measured = method.measure(ctx, [ctx.network.element(ELEMENT)], {ELEMENT: 1})
        apply(ctx.network, method.plan(ctx, ctx.network.element(ELEMENT), [0], measured))
        inputs, targets = next(iter(ctx.batches(1)))
        hidden = torch.cat([ctx.network.module[:2](inputs).detach(), torch.ones(60, 1, dtype=torch.float64)], 1)
        drops.append(-float((hidden @ torch.linalg.lstsq(hidden, targets).solution - targets).square().mean()))
    assert drops[0] > max(drops[1:])


def test_advice_needs_both_thresholds_and_is_bounded():
    assert additions(1.0, 1.0, 0.5) == 0
    assert additions(8.0, 1.0, 1.0) == 3, "1 + log2(8) = 4 is not below 4"
    assert additions(8.1, 1.0, 1.0) == 4
    assert additions(0.0, 1.0, 1.0) == 0
    ctx = problem(nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)), 5)
    elements = [ctx.network.element(n) for n in (ELEMENT, "2.weight:0")]
    most = {e.name: 10 for e in elements}
    for threshold, least in itertools.product((1e-3, 0.05, 10.0), (1e-6, 0.1, 10.0)):
        method = Senn(threshold=threshold, least=least, draws=0, num_batches=1, steps=0)
        ctx.generator.manual_seed(0)
        measurement = method.measure(ctx, elements, most)
        bar = max(threshold * measurement.signals["eta"], least)
        worth = sum(int((s > bar).sum()) for s in measurement.scores.values())
        bound = additions(reachable(ctx, 1), least, threshold)
        assert sum(measurement.advised.values()) == min(worth, bound)
        assert measurement.signals["relative"] == pytest.approx(measurement.signals["gain"] / measurement.signals["eta"])
        assert measurement.signals["gain"] == max(float(s[0]) for s in measurement.scores.values())


@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy], ids=["squared error", "cross-entropy"])
def test_lambda_is_what_no_score_can_pass(loss):
    """Squared error of variance 1: the mean squared gradient at the output. Cross-entropy: 1 / p - 1."""
    ctx = problem(nn.Sequential(nn.Linear(4, 3)), 4, loss=loss)
    inputs, targets = next(iter(ctx.batches(1)))
    out = ctx.network.module(inputs).detach()
    if loss is F.mse_loss:
        exact = 3 / 2 * (2 / 3 * (out - targets)).square().sum(1).mean()
    else:
        exact = (1 / out.softmax(1).gather(1, targets.unsqueeze(1)) - 1).mean()
    assert reachable(ctx, 1) == pytest.approx(float(exact))
    assert score_layers(ctx, ["0"], EXACT)["0"].eta <= float(exact)


def test_too_many_outputs_are_refused():
    ctx = problem(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 300)), 5, outputs=300)
    with pytest.raises(ValueError, match="at most 256"):
        build("grow", "senn", {}).measure(ctx, [ctx.network.element(ELEMENT)], {ELEMENT: 1})


def test_plans_are_of_new_rows_with_zero_outgoing_weights():
    ctx = problem(SITES["convolutions"][0](), 2, 7, 7)
    method = Senn(num_batches=1, proposals=5)
    element = ctx.network.element(ELEMENT)
    plan = method.plan(ctx, element, [0, 1], method.measure(ctx, [element], {ELEMENT: 2}))
    assert isinstance(plan, GrowPlan) and plan.consume == "zero"
    assert {k: tuple(v.shape) for k, v in plan.values.items()} == {"0.weight:0": (2, 2, 3, 3), "0.bias:0": (2,)}
